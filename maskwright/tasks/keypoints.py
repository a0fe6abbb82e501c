"""Keypoints of models that learn them: what data and model must agree on, in any task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.records import Dataset
from ..models.base import Model
from ..models.meta import Meta
from ..models.registry import get_entry
from ..structures import Skeleton
from .recipe import TrainRecipe


def reads_keypoints(model: str | Model) -> bool:
    """Tell whether a model, or the one of a registered name, learns keypoints."""
    if isinstance(model, str):
        return "num_keypoints" in get_entry(model).arguments()
    return getattr(model, "num_keypoints", 0) > 0


def own_keypoints(
    recipe: TrainRecipe, args: Mapping[str, Any], data: Dataset, advice: str
) -> Skeleton | None:
    """Return the keypoints of the data for a model that learns keypoints, else None.

    Args:
        recipe: of the training.
        args: the options of the model that the user gave.
        data: the training images.
        advice: what to do where the data has none.

    Raises:
        ValueError: if the data has none, or not as many as the user says.
    """
    if not reads_keypoints(recipe.model):
        return None
    if data.skeleton is None or not data.has_keypoints:
        raise ValueError(
            f"{recipe.model} needs keypoints, but {data.source} has none that are labelled{advice}"
        )
    count = len(data.skeleton)
    if args.get("num_keypoints", count) != count:
        raise ValueError(
            f"num_keypoints={args['num_keypoints']}, but {data.source} has {count}: leave the "
            "option out, the data tells"
        )
    return data.skeleton


def check_same_keypoints(recipe: TrainRecipe, data: Dataset, meta: Meta) -> None:
    """Make sure that a run goes on with the keypoints that it began with.

    Raises:
        ValueError: if the data has others.
    """
    names = None if data.skeleton is None else data.skeleton.names
    if meta.keypoints is not None and meta.keypoints.names != names:
        raise ValueError(
            f"data={recipe.data} has other keypoints than the run that goes on, which was "
            f"trained on {', '.join(meta.keypoints.names)}"
        )
