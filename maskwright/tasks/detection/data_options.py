"""What data and training have to do with a model: the sizes of its anchors, what chance changes."""

from __future__ import annotations

from typing import Any

import torch

from ...data.anchor_sizes import suggest_anchor_sizes
from ...data.records import Dataset
from ...data.transforms import Augment
from ...models.detection.base import Detector
from ...models.registry import build, get_entry
from ..recipe import TrainRecipe
from .recipe import DetectionRecipe

# What to do where the data has no keypoints for a model that learns them.
WITHOUT_KEYPOINTS = (
    ": the category lists their names under 'keypoints', each annotation x, y, visibility of each; "
    "without them choose a model such as mask_rcnn_lite0_fpn"
)


def own_anchors(recipe: TrainRecipe, args: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Return the option `anchor_sizes` that fits the data, or nothing where it is settled already.

    It is settled by the user, and by weights whose RPN was trained with certain anchors.
    """
    fresh = recipe.weights in (None, "imagenet", "none")
    fresh = fresh or str(recipe.weights).startswith("imagenet:")
    if "anchor_sizes" in args or not fresh:
        return {}
    usual = get_entry(recipe.model).arguments().get("anchor_sizes")
    if usual is None:
        return {}
    with torch.device("meta"):
        resize = build(recipe.model, len(data.names), **args).resize
    return {"anchor_sizes": suggest_anchor_sizes(data, resize, usual)}


def augmentation(recipe: DetectionRecipe, model: Detector) -> Augment:
    """Return what chance changes in training images: as the user says, else as the model has it."""
    chosen = {
        name: getattr(recipe, name)
        for name in ("photometric", "expand", "patches")
        if getattr(recipe, name) is not None
    }
    return Augment(
        flip=recipe.flip,
        vflip=recipe.vflip,
        rotate90=recipe.rotate90,
        scale_jitter=recipe.scale_jitter,
        scales=model.train_scales,
        crop=recipe.crop,
        fill=model.fill,
        **{**model.train_views, **chosen},
    )
