"""Which epoch of a training is the best, where a score may be a number or undefined."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .session import Place


def fitness(metrics: Mapping[str, float]) -> float:
    """Return the number by which checkpoints are compared, nan if there is none.

    The mean of mask AP and keypoint AP, as far as they are defined; else box AP. An AP is nan where
    the images hold no object to find, so it is undefined in all epochs or in none.

    Args:
        metrics: numbers of a validation by key.
    """
    finer = [metrics.get(key, math.nan) for key in ("mask/AP", "keypoints/AP")]
    values = [value for value in finer if math.isfinite(value)]
    values = values or [metrics.get("box/AP", math.nan)]
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.nan


def is_better(place: Place, score: float, *, every: int = 1, wanted: bool = False) -> bool:
    """Tell whether the epoch that has just ended is the best so far, and keep it in mind.

    As long as no epoch has had a number, the latest is the best; then only a larger number is. An
    undefined score uses no patience.

    Args:
        place: where the training stands; its epoch is counted already.
        score: of the epoch, nan if undefined.
        every: epochs from one validation to the next.
        wanted: it is the best in any case.
    """
    defined = math.isfinite(score)
    if not (wanted or (score > place.best if defined else place.best < 0)):
        place.unscored += 0 if defined else every
        return False
    place.best = score if defined else -1.0
    place.best_epoch, place.unscored = place.epoch, 0
    return True


def waited(place: Place) -> int:
    """Return for how many epochs with a score there was no better one."""
    return max(place.epoch - place.best_epoch - place.unscored, 0)


def undefined_note(place: Place) -> str:
    """Return what to say the first time that a score is undefined, before the epoch is judged."""
    if place.best_epoch and (place.best < 0 or place.unscored):
        return ""
    kept = "the latest weights count as the best" if place.best < 0 else "the best weights stay"
    return (
        f"the val images hold no object to find, so AP is undefined: {kept}, patience does not run"
    )
