"""Detectors by name: one file per family, assembled from the parts in `maskwright.nn`."""

from . import faster_rcnn, mask_rcnn
from .base import Detector, Meta, PostProcess, TwoStageDetector
from .registry import ModelEntry, PublishedWeights, build, build_tiny, get_entry, list_models

__all__ = [
    "Detector",
    "Meta",
    "ModelEntry",
    "PostProcess",
    "PublishedWeights",
    "TwoStageDetector",
    "build",
    "build_tiny",
    "faster_rcnn",
    "get_entry",
    "list_models",
    "mask_rcnn",
]
