"""Nuclei in microscopy images: many small objects, one class."""

from __future__ import annotations

from pathlib import Path

from ..tasks.detection.recipe import DetectionRecipe


def nuclei(data: str | Path = "nuclei") -> DetectionRecipe:
    """Return the recipe: Mask R-CNN on EfficientNet-Lite0, 480 steps, minutes on a CPU.

    The backbone starts from the ImageNet weights that come with the package.

    Args:
        data: the data set with its splits train and val.
    """
    return DetectionRecipe(
        data=data,
        model="mask_rcnn_lite0_fpn",
        steps=480,
        patience=0,
        batch=4,
        imgsz="1.25x",  # a pixel has a fixed size, so every image gets the same factor
        lr=5e-4,
        freeze=0,
        optimizer="adamw",
        weight_decay=0.05,
        backbone_lr=0.5,
        warmup=40,
        schedule="cosine",
        clip=5.0,
        flip=0.5,
        crop=320,
        max_det=500,  # up to 375 nuclei in one image
        val_every=100,  # once, at the end: nothing is chosen by the validation images
        model_args={"anchor_sizes": (8, 16, 32, 64, 128)},
    )
