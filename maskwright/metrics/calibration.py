"""Can scores be believed: bins of a score and how often it is right, temperature, intervals.

Guo et al. 2017 (On Calibration of Modern Neural Networks): the expected calibration error, and
temperature scaling, one number that all logits are divided by. Naeini et al. 2015 for the bins.
Efron and Tibshirani 1993, chapter 13, for the percentile bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskwright.errors import OptionError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Temperatures that a fit can give. Without a wrong answer the best one would be 0, and with answers
# that are worse than chance it would be infinite.
COLDEST, HOTTEST = 0.01, 100.0
_ROWS = 4096  # rows of logits that are looked at together


@dataclass(frozen=True)
class Calibration:
    """How often a score is right, by the height of the score: what a reliability plot shows.

    Attributes:
        edges: (K + 1,) limits of the bins.
        counts: (K,) scores per bin.
        score: (K,) their mean, nan for an empty bin.
        precision: (K,) the share that is right, nan for an empty bin.
        error: expected calibration error: mean over all scores of the distance between the mean
            score and the precision of their bin; nan without scores.
        bias: mean score less precision over all of them: above 0 for scores that promise too much.
    """

    edges: FloatArray
    counts: IntArray
    score: FloatArray
    precision: FloatArray
    error: float
    bias: float


def bin_scores(
    scores: npt.ArrayLike, right: npt.ArrayLike, bins: int, *, closed: str = "right"
) -> Calibration:
    """Return how often scores are right, in bins of equal width from 0 to 1.

    Args:
        scores: (N,) in [0, 1].
        right: (N,) bool.
        bins: number of bins.
        closed: the end that belongs to a bin: "right" for (i / bins, (i + 1) / bins], "left" for
            [i / bins, (i + 1) / bins); 0 and 1 are in the first and the last bin either way.
    """
    scores = np.asarray(scores, np.float64)
    right = np.asarray(right, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    side = "left" if closed == "right" else "right"
    place = np.clip(np.searchsorted(edges, scores, side=side) - 1, 0, bins - 1)  # type: ignore[call-overload]
    counts = np.bincount(place, minlength=bins)
    empty = np.full(bins, np.nan)
    mean = np.divide(np.bincount(place, scores, bins), counts, out=empty.copy(), where=counts > 0)
    precision = np.divide(np.bincount(place, right, bins), counts, out=empty, where=counts > 0)
    if not len(scores):
        return Calibration(edges, counts, mean, precision, math.nan, math.nan)
    error = float(np.nansum(counts * np.abs(mean - precision)) / len(scores))
    return Calibration(edges, counts, mean, precision, error, float(scores.mean() - right.mean()))


def reliability(probs: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15) -> Calibration:
    """Return how often the most probable class of an image is the true one, by its probability.

    Args:
        probs: (N, C), rows that sum to 1. Of equal classes the first one is the answer.
        labels: (N,) true classes.
        bins: number of bins (i / bins, (i + 1) / bins].

    Reference: Guo et al. 2017, equations 2, 3 and 5; 15 bins as in its tables.
    """
    probs, labels = np.asarray(probs), np.asarray(labels)
    if not probs.size:
        return bin_scores([], [], bins)
    return bin_scores(probs.max(1), probs.argmax(1) == labels, bins)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature T for which softmax(logits / T) has the lowest log loss.

    The loss is convex in 1 / T, so there is one answer; it lies within `COLDEST` and `HOTTEST`.
    Fit it on validation images only: on those of the training every network is too sure of itself.
    The order of the classes of an image, and so its accuracy, stays as it is.

    Args:
        logits: (N, C).
        labels: (N,) true classes; or (N, C) bool for several labels an image, where it is
            sigmoid(logits / T) and the loss is the mean over images and classes.

    Returns:
        T; 1 without images, and where any T serves.

    Raises:
        ValueError: if the shapes do not fit, or logits are not finite.

    Reference: Guo et al. 2017, section 4.2, equation 9.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(
            "a temperature needs logits (N, C) and labels (N,) or (N, C), "
            f"got {logits.shape} and {labels.shape}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("a temperature needs finite logits, got infinite ones or nan")
    if not logits.size:
        return 1.0
    # Newton's method for the root of the slope, kept inside a bracket that shrinks at each step.
    low, high = 1 / HOTTEST, 1 / COLDEST
    at_low, at_high = _slopes(logits, labels, low)[0], _slopes(logits, labels, high)[0]
    if at_low >= 0 and at_high <= 0:
        return 1.0  # the classes of each image have one logit: any temperature serves
    if at_low >= 0 or at_high <= 0:
        return HOTTEST if at_low >= 0 else COLDEST
    beta = 1.0
    for _ in range(100):
        slope, bend = _slopes(logits, labels, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / bend if bend > 0 else math.nan
        new = step if low < step < high else math.sqrt(low * high)
        if abs(new - beta) <= 1e-14 * beta:
            break
        beta = new
    return 1 / beta


def _slopes(logits: npt.NDArray, labels: npt.NDArray, beta: float) -> tuple[float, float]:
    """Return the first and the second derivative of the summed loss by beta = 1 / T."""
    first = second = 0.0
    for begin in range(0, len(logits), _ROWS):
        z = logits[begin : begin + _ROWS].astype(np.float64)
        y = labels[begin : begin + _ROWS]
        if y.ndim == 2:
            p = 0.5 * (1 + np.tanh(0.5 * beta * z))  # a sigmoid that cannot overflow
            first += float((z * (p - y)).sum())
            second += float((z * z * p * (1 - p)).sum())
            continue
        z = z - z.max(1, keepdims=True)
        p = np.exp(beta * z)
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        first += float((mean - z[np.arange(len(z)), y]).sum())
        second += float((p * (z - mean[:, None]) ** 2).sum())
    return first, second


def bootstrap_interval(
    score: Callable[[IntArray], float],
    count: int,
    *,
    seed: int = 0,
    rounds: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return between which limits a score lies in a share of sets drawn anew from the same images.

    The percentile bootstrap: each round draws as many images as there are, with repetition. Rounds
    in which the score is nan (no image of a class, say) are left out.

    Args:
        score: score of the images at the positions (count,) that it is called with.
        count: number of images.
        seed: of the random numbers: the same seed gives the same limits.
        rounds: number of sets.
        level: share of the sets between the limits.

    Returns:
        The lower and the upper limit; nan both without images.

    Raises:
        OptionError: if `rounds` or `level` is out of range.

    Example:
        >>> right = np.array([True] * 90 + [False] * 10)
        >>> low, high = bootstrap_interval(lambda rows: right[rows].mean(), len(right))
        >>> 0.8 < low < 0.9 < high < 1
        True
    """
    if rounds < 1 or not 0 < level < 1:
        raise OptionError(
            "an interval needs at least one round and a level between 0 and 1, "
            f"got rounds={rounds} and level={level}"
        )
    if not count:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    found = np.array([score(rng.integers(0, count, count)) for _ in range(rounds)], np.float64)
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
