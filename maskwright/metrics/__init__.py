"""Measures of detections against ground truth: COCO AP, and reasons and pictures behind it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .boundary import boundary_iou
    from .coco_map import coco_eval
    from .diagnostics import confusion_matrix, explain_zero, pr_curve
    from .voc_map import voc_eval

__all__ = [
    "boundary_iou",
    "coco_eval",
    "confusion_matrix",
    "explain_zero",
    "pr_curve",
    "voc_eval",
]

_HOMES = {
    "boundary_iou": "boundary",
    "coco_eval": "coco_map",
    "confusion_matrix": "diagnostics",
    "explain_zero": "diagnostics",
    "pr_curve": "diagnostics",
    "voc_eval": "voc_map",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
