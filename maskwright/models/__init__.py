"""Detectors by name: one file per family, assembled from the parts in `maskwright.nn`."""

from . import fast_rcnn as _fast_rcnn  # noqa: F401  (importing a family registers it)
from . import faster_rcnn as _faster_rcnn  # noqa: F401
from . import faster_rcnn_single as _faster_rcnn_single  # noqa: F401
from . import keypoint_rcnn as _keypoint_rcnn  # noqa: F401
from . import mask_rcnn as _mask_rcnn  # noqa: F401
from . import rcnn as _rcnn  # noqa: F401
from . import refine_mask as _refine_mask  # noqa: F401
from . import rfcn as _rfcn  # noqa: F401
from . import sppnet as _sppnet  # noqa: F401
from .base import Detector, Meta, PostProcess, TwoStageDetector
from .regions import ProposalDetector
from .registry import ModelEntry, PublishedWeights, build, build_tiny, get_entry, list_models

__all__ = [
    "Detector",
    "Meta",
    "ModelEntry",
    "PostProcess",
    "ProposalDetector",
    "PublishedWeights",
    "TwoStageDetector",
    "build",
    "build_tiny",
    "get_entry",
    "list_models",
]
