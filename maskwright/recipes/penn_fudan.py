"""Pedestrians in street photographs: few images, few large objects, one class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..tasks.detection.recipe import DetectionRecipe
from .nuclei import nuclei


def penn_fudan(data: str | Path = "penn_fudan") -> DetectionRecipe:
    """Return the recipe: Mask R-CNN on EfficientNet-Lite0, 160 steps of whole images.

    Args:
        data: the data set with its splits train and val.
    """
    return replace(
        nuclei(data),
        steps=160,
        imgsz=(320, 560),
        crop=None,
        max_det=100,
        model_args={
            "anchor_sizes": (16, 32, 64, 128, 256),
            "anchor_ratios": (1.0, 2.0, 3.0),  # people stand upright
        },
    )
