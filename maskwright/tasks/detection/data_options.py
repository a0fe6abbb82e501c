"""Options of a model that the data decides: its keypoints and the sizes of its anchors."""

from __future__ import annotations

from typing import Any

import torch

from ...data.anchor_sizes import suggest_anchor_sizes
from ...data.records import Dataset
from ...models.registry import build, get_entry
from ...structures import Skeleton
from ..recipe import TrainRecipe


def own_keypoints(recipe: TrainRecipe, args: dict[str, Any], data: Dataset) -> Skeleton | None:
    """Return the keypoints of the data for a model that learns keypoints, else None.

    Raises:
        ValueError: if the data has none, or not as many as the user says.
    """
    if "num_keypoints" not in get_entry(recipe.model).arguments():
        return None
    if data.skeleton is None or not data.has_keypoints:
        raise ValueError(
            f"{recipe.model} needs keypoints, but {data.source} has none that are labelled: the "
            "category lists their names under 'keypoints', each annotation x, y, visibility of "
            "each; without them choose a model such as mask_rcnn_lite0_fpn"
        )
    if args.get("num_keypoints", len(data.skeleton)) != len(data.skeleton):
        raise ValueError(
            f"num_keypoints={args['num_keypoints']}, but {data.source} has {len(data.skeleton)}: "
            "leave the option out, the data tells"
        )
    return data.skeleton


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
