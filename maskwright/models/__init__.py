"""Models by name: one file per family, assembled from the parts in `maskwright.nn`."""

from .classification import alexnet as _alexnet  # noqa: F401  (importing a family registers it)
from .classification import darknet as _darknet  # noqa: F401
from .classification import densenet as _densenet  # noqa: F401
from .classification import googlenet as _googlenet  # noqa: F401
from .classification import inception as _inception  # noqa: F401
from .classification import lenet as _lenet  # noqa: F401
from .classification import preact_resnet as _preact_resnet  # noqa: F401
from .classification import resnet as _resnet  # noqa: F401
from .classification import timm_backbone as _timm_backbone  # noqa: F401
from .classification import vgg as _vgg  # noqa: F401
from .detection import cascade_rcnn as _cascade_rcnn  # noqa: F401
from .detection import detect_then_segment as _detect_then_segment  # noqa: F401
from .detection import fast_rcnn as _fast_rcnn  # noqa: F401  (importing a family registers it)
from .detection import faster_rcnn as _faster_rcnn  # noqa: F401
from .detection import faster_rcnn_single as _faster_rcnn_single  # noqa: F401
from .detection import keypoint_rcnn as _keypoint_rcnn  # noqa: F401
from .detection import mask_rcnn as _mask_rcnn  # noqa: F401
from .detection import rcnn as _rcnn  # noqa: F401
from .detection import refine_mask as _refine_mask  # noqa: F401
from .detection import retinanet as _retinanet  # noqa: F401
from .detection import rfcn as _rfcn  # noqa: F401
from .detection import sppnet as _sppnet  # noqa: F401
from .detection import ssd as _ssd  # noqa: F401
from .detection import yolo as _yolo  # noqa: F401
from .detection.base import Detector, PostProcess, TwoStageDetector
from .detection.regions import ProposalDetector
from .localization import boxes as _boxes  # noqa: F401
from .localization import keypoints as _keypoints  # noqa: F401
from .meta import Meta
from .registry import ModelEntry, PublishedWeights, build, build_tiny, get_entry, list_models
from .semantic import crf_rnn as _crf_rnn  # noqa: F401
from .semantic import deconvnet as _deconvnet  # noqa: F401
from .semantic import deeplab as _deeplab  # noqa: F401
from .semantic import deeplabv3 as _deeplabv3  # noqa: F401
from .semantic import deeplabv3plus as _deeplabv3plus  # noqa: F401
from .semantic import fcn as _fcn  # noqa: F401
from .semantic import fcn_resnet as _fcn_resnet  # noqa: F401
from .semantic import fcn_scores as _fcn_scores  # noqa: F401
from .semantic import fpn as _fpn  # noqa: F401
from .semantic import lraspp as _lraspp  # noqa: F401
from .semantic import segnet as _segnet  # noqa: F401
from .semantic import unet as _unet  # noqa: F401

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
