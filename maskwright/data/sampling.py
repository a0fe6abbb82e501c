"""Classes of very different sizes: how much each counts, and which images an epoch shows.

Cui et al. 2019 (Class-Balanced Loss Based on Effective Number of Samples). Either the loss weighs
the classes (`class_weights`) or an epoch draws rare ones more often (`weighted_order`); both at
once would do it twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskwright.errors import OptionError, nearest

FloatArray = npt.NDArray[np.float64]

BALANCES = ("none", "inverse", "sqrt", "effective")
BETA = 0.999  # Cui et al. 2019 take 0.9 to 0.9999, more for larger sets


def class_weights(counts: npt.ArrayLike, how: str, *, beta: float = BETA) -> FloatArray:
    """Return how much each class counts; 1 on average over the classes that occur.

    Args:
        counts: (C,) images of each class.
        how: "none"; "inverse" of the number of images; "sqrt", the root of that; "effective", the
            inverse of the effective number (1 - beta^n) / (1 - beta), which lies between both: a
            thousandth picture of a class shows less new than its second.
        beta: share of what the pictures of a class show that is not new, in [0, 1).

    Returns:
        (C,) above 0; 0 for classes without images.

    Raises:
        OptionError: if `how` is unknown or beta is out of range.
        ValueError: if no class has an image, or a count is below 0.

    Reference: Cui et al. 2019, equations 2 and 3.

    Example:
        >>> class_weights([90, 10], "inverse").round(2).tolist()
        [0.2, 1.8]
    """
    counts = np.asarray(counts, np.float64)
    if how not in BALANCES:
        raise OptionError(
            f"balance must be one of {', '.join(BALANCES)}, got {how!r}{nearest(how, BALANCES)}"
        )
    if not 0 <= beta < 1:
        raise OptionError(f"beta of the effective number must lie in [0, 1), got {beta}")
    if counts.ndim != 1 or not (counts >= 0).all() or not counts.any():
        raise ValueError(f"weights need the number of images of each class, got {counts.tolist()}")
    there = counts > 0
    some = np.where(there, counts, 1)
    if how == "effective":
        # 1 - beta^n without loss of digits where beta is near 1.
        weights = (1 - beta) / -np.expm1(some * np.log(beta)) if beta else np.ones_like(some)
    else:
        weights = some ** {"none": 0.0, "inverse": -1.0, "sqrt": -0.5}[how]
    weights = np.where(there, weights, 0)
    found: FloatArray = weights * there.sum() / weights.sum()
    return found


def image_weights(labels: npt.ArrayLike, weights: npt.ArrayLike) -> FloatArray:
    """Return how much each image counts: as its class; as the weightiest of its classes.

    Args:
        labels: (N,) classes; or (N, C) bool for several labels an image. One without any label
            counts as the lightest class that occurs.
        weights: (C,), see `class_weights`.

    Returns:
        (N,).

    Raises:
        ValueError: if a label has no weight.
    """
    labels, weights = np.asarray(labels), np.asarray(weights, np.float64)
    if labels.ndim == 2:
        if labels.shape[1] != len(weights):
            raise ValueError(f"labels of {labels.shape[1]} classes but {len(weights)} weights")
        least = weights[weights > 0].min(initial=np.inf)
        most: FloatArray = np.where(labels, weights, 0).max(1, initial=0)
        return np.where(most > 0, most, least if np.isfinite(least) else 1)
    if labels.size and not (labels.min() >= 0 and labels.max() < len(weights)):
        raise ValueError(
            f"labels must lie in 0..{len(weights) - 1}, got {labels.min()} to {labels.max()}"
        )
    return weights[labels.astype(np.int64)]


def weighted_order(
    labels: npt.ArrayLike, weights: npt.ArrayLike, count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the images of an epoch, each drawn in proportion to its weight, in random order.

    Drawn evenly and not one by one: an image that should come 2.3 times comes 2 or 3 times, one
    that should come 0.4 times comes once or not at all (systematic sampling). On average it is the
    same, and no image is left out that should come at least once. With equal weights and as many
    draws as images the order is a permutation.

    Args:
        labels: (N,) classes, or (N, C) bool.
        weights: (C,), see `class_weights`: inverse ones show all classes equally often.
        count: images to draw.
        rng: random numbers, keyed by seed and epoch: the same ones give the same order.

    Returns:
        (count,) int64, positions of images.

    Raises:
        ValueError: if no image can be drawn.
    """
    each = image_weights(labels, weights)
    total = each.sum()
    if not total > 0:
        raise ValueError("no image can be drawn: none has a class with a weight above 0")
    # One picture after the other in random order on a line; equal steps on it from a random start.
    shuffled = rng.permutation(np.flatnonzero(each))
    line = np.cumsum(each[shuffled]) / total * count
    steps = np.arange(count) + rng.random()
    place = np.minimum(np.searchsorted(line, steps, side="right"), len(line) - 1)
    return rng.permutation(shuffled[place]).astype(np.int64)
