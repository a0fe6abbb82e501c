"""Which epoch of a training is the best, where a score may be a number or undefined."""

from __future__ import annotations

import math

from .place import Place


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


def undefined_note(place: Place, why: str) -> str:
    """Return what to say the first time that a score is undefined, before the epoch is judged.

    Args:
        place: where the training stands.
        why: the reason, see `Task.unscored`.
    """
    if place.best_epoch and (place.best < 0 or place.unscored):
        return ""
    kept = "the latest weights count as the best" if place.best < 0 else "the best weights stay"
    return f"{why}: {kept}, patience does not run"
