"""Weights of other libraries to ours and back: one module per library, names and layouts only.

A converter is two functions, `to_maskwright` and `from_maskwright`, on dictionaries of tensors;
files are the business of `maskwright.hub`.
"""

from .common import Converted, ConvertReport, detect_format
from .torchvision import from_maskwright, to_maskwright

# format: (to ours, from ours)
CONVERTERS = {"torchvision": (to_maskwright, from_maskwright)}

__all__ = ["CONVERTERS", "ConvertReport", "Converted", "detect_format"]
