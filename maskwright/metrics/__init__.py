"""Measures against ground truth: of classes, of places, of pixels, of detections."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classification import classification_metrics, multilabel_metrics
    from .detection.boundary import boundary_iou
    from .detection.coco_map import coco_eval
    from .detection.diagnostics import confusion_matrix, explain_zero, pr_curve
    from .detection.voc_map import voc_eval
    from .semantic import Boundaries, Confusion, semantic_metrics

__all__ = [
    "Boundaries",
    "Confusion",
    "boundary_iou",
    "classification_metrics",
    "coco_eval",
    "confusion_matrix",
    "explain_zero",
    "multilabel_metrics",
    "pr_curve",
    "semantic_metrics",
    "voc_eval",
]

_HOMES = {
    "Boundaries": "semantic",
    "Confusion": "semantic",
    "boundary_iou": "detection.boundary",
    "classification_metrics": "classification",
    "coco_eval": "detection.coco_map",
    "confusion_matrix": "detection.diagnostics",
    "explain_zero": "detection.diagnostics",
    "multilabel_metrics": "classification",
    "pr_curve": "detection.diagnostics",
    "semantic_metrics": "semantic",
    "voc_eval": "detection.voc_map",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
