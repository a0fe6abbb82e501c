"""A few hundred photographs of COCO: objects of all sizes, many of them cut by others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..tasks.detection.recipe import DetectionRecipe
from .nuclei import nuclei


def coco_subset(data: str | Path = "coco_subset") -> DetectionRecipe:
    """Return the recipe: Mask R-CNN on EfficientNet-Lite0, 240 steps of small whole images.

    Args:
        data: the data set with its splits train and val.
    """
    return replace(
        nuclei(data),
        steps=240,
        imgsz=(256, 416),
        crop=None,
        max_det=100,
        model_args={"anchor_sizes": (16, 32, 64, 128, 256)},
    )
