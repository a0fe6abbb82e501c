"""What the data decides of a detector: the sizes of its anchors."""

from __future__ import annotations

from typing import Any

import torch

from ...data.anchor_sizes import suggest_anchor_sizes
from ...data.records import Dataset
from ...models.registry import build, get_entry
from ..recipe import TrainRecipe

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
