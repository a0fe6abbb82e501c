"""Weights of other libraries to ours and back: one module per library, names and layouts only.

A converter is two functions, `to_maskwright` and `from_maskwright`, on dictionaries of tensors;
files are the business of `maskwright.hub`. Those of detectors stand in a module for each library,
those of classifiers and segmenters, of which libraries have equal ones, in tables by family
(`classification`, `semantic`) that `networks` reads.
"""

from . import detectron2, mmdetection, ssd, torchvision
from .common import Converted, ConvertReport, detect_format

# format: (to ours, from ours)
CONVERTERS = {
    "torchvision": (torchvision.to_maskwright, torchvision.from_maskwright),
    "mmdetection": (mmdetection.to_maskwright, mmdetection.from_maskwright),
    "detectron2": (detectron2.to_maskwright, detectron2.from_maskwright),
    "amdegroot": (ssd.to_maskwright, ssd.from_maskwright),
}

# format: what refuses a model by its options before it is written
CHECKS = {"mmdetection": mmdetection.check_options}

__all__ = ["CHECKS", "CONVERTERS", "ConvertReport", "Converted", "detect_format"]
