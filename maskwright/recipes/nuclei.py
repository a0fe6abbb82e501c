"""Nuclei in microscopy images: many small objects, one class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..engine.recipe import TrainRecipe


def nuclei(data: str | Path = "nuclei") -> TrainRecipe:
    """Return the short recipe: Mask R-CNN on EfficientNet-Lite0, 480 steps, minutes on a CPU.

    The backbone starts from the ImageNet weights that come with the package.

    Args:
        data: the data set with its splits train and val.
    """
    return TrainRecipe(
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
        model_args={"anchor_sizes": (8, 16, 32, 64, 128)},
    )


def nuclei_shipped(data: str | Path = "nuclei") -> TrainRecipe:
    """Return the recipe of the model that comes with the package: longer, with more variety.

    Args:
        data: the data set with its splits train and val.
    """
    return replace(
        nuclei(data),
        steps=800,
        vflip=0.5,
        scale_jitter=(0.75, 1.33),
        photometric=True,
        ema=0.995,
        val_every=100,
    )
