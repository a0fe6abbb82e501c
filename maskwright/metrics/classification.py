"""Measures of classifiers: top-k, precision, recall and F1 by class, several labels, log loss.

Definitions are scikit-learn's; what is undefined is nan and no number: a class without images has
no recall, one that is never predicted has no precision. All of them take the probabilities and
labels of all images, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskwright.errors import OptionError

from .calibration import BoolArray, FloatArray, IntArray, reliability

_ROWS = 4096  # images that are looked at together


@dataclass(frozen=True)
class ClassScores:
    """How well each of C classes is recognised.

    Attributes:
        precision: (C,) right answers among the images that were taken for the class; nan without.
        recall: (C,) right answers among the images of the class; nan without.
        f1: (C,) their harmonic mean, 2 right / (images + answers); nan without both.
        support: (C,) images of the class.
        answers: (C,) images that were taken for the class.
    """

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: IntArray
    answers: IntArray

    def macro(self, values: FloatArray) -> float:
        """Return the mean over the classes that occur or are predicted; undefined counts as 0."""
        mine = (self.support > 0) | (self.answers > 0)
        return mean_of(np.nan_to_num(values[mine]))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur."""
        return mean_of(self.recall[self.support > 0])


def mean_of(values: FloatArray) -> float:
    """Return the mean of values (N,); nan without any."""
    return float(values.mean()) if len(values) else math.nan


def true_ranks(scores: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """Return how many classes stand before the true one of each image: 0 for a right answer.

    Ties count against: a class with the same score stands before the true one, so a network that
    gives all classes the same score is always wrong. So does a class whose score is nan.

    Args:
        scores: (N, C), probabilities or logits.
        labels: (N,) true classes.

    Returns:
        (N,) in 0..C-1.
    """
    scores, labels = _checked(scores, labels)
    ranks = np.zeros(len(labels), np.int64)
    for begin in range(0, len(labels), _ROWS):
        part, true = scores[begin : begin + _ROWS], labels[begin : begin + _ROWS, None]
        below = part < np.take_along_axis(part, true, 1)
        ranks[begin : begin + _ROWS] = part.shape[1] - 1 - below.sum(1)
    return ranks


def topk_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1) -> float:
    """Return the share of images whose true class is among the k highest scores; see `true_ranks`.

    Raises:
        OptionError: if k is below 1.

    Example:
        >>> topk_accuracy([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2]], [2, 0], k=1)
        0.5
    """
    if k < 1:
        raise OptionError(f"k of the top-k accuracy must be at least 1, got {k}")
    return mean_of((true_ranks(scores, labels) < k).astype(np.float64))


def confusion_matrix(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return the number of images by true class (row) and predicted class (column).

    Args:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        num_classes: C.

    Returns:
        (C, C) int64.

    Raises:
        ValueError: if a class lies outside 0..C-1.
    """
    labels, predicted = _classes(labels, num_classes), _classes(predicted, num_classes)
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_scores(matrix: npt.NDArray[np.int64]) -> ClassScores:
    """Return how well each class is recognised, from the confusion matrix (C, C), rows true."""
    return _scores(np.diagonal(matrix), matrix.sum(1), matrix.sum(0))


def multilabel_scores(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> ClassScores:
    """Return how well each class is recognised, from bool arrays (N, C)."""
    predicted, labels = np.asarray(predicted, bool), np.asarray(labels, bool)
    return _scores((predicted & labels).sum(0), labels.sum(0), predicted.sum(0))


def _scores(right: IntArray, support: IntArray, answers: IntArray) -> ClassScores:
    return ClassScores(
        precision=_ratio(right, answers),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, support + answers),
        support=support,
        answers=answers,
    )


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    """Return part / whole, nan where there is nothing."""
    found = np.full(len(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def average_precision(scores: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the area under the steps of the precision-recall curve, without interpolation.

    Images of one score come together: no order among them can raise it.

    Args:
        scores: (N,), higher for surer.
        right: (N,) bool, whether the image has the class.

    Returns:
        sum of (R_n - R_(n-1)) P_n over the distinct scores, falling; nan if no image has the class.
    """
    scores, right = np.asarray(scores), np.asarray(right, bool)
    if not right.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each distinct score
    recall, precision = hits[last] / hits[-1], hits[last] / (last + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def log_loss(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean of -ln p of the true class, natural logarithm; nan without images.

    A probability below the smallest step of float64 counts as that step, so one image that is
    surely wrong costs 36 and not all.

    Args:
        probs: (N, C), rows that sum to 1.
        labels: (N,) true classes.
    """
    probs, labels = _checked(probs, labels)
    mine = probs[np.arange(len(labels)), labels].astype(np.float64)
    return mean_of(-np.log(np.maximum(mine, np.finfo(np.float64).eps)))


def brier_score(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean squared distance to the true class, summed over the classes: 0 to 2.

    Args:
        probs: (N, C), rows that sum to 1.
        labels: (N,) true classes.

    Reference: Brier 1950, equation 2.
    """
    probs, labels = _checked(probs, labels)
    found = np.zeros(len(labels))
    for begin in range(0, len(labels), _ROWS):
        part = probs[begin : begin + _ROWS].astype(np.float64)
        part[np.arange(len(part)), labels[begin : begin + _ROWS]] -= 1
        found[begin : begin + _ROWS] = (part * part).sum(1)
    return mean_of(found)


def classification_metrics(
    probs: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str], *, topk: Sequence[int] = (5,)
) -> dict[str, float]:
    """Return the measures of a classifier with one class an image.

    Args:
        probs: (N, C), rows that sum to 1.
        labels: (N,) true classes.
        names: names of the C classes.
        topk: k of further top-k accuracies; those that are not below C say nothing, and are left
            out.

    Returns:
        `top1`, `top5`, `macro/F1`, `macro/precision`, `macro/recall` (over the classes that occur
        or are predicted), `balanced_accuracy`, `nll`, `brier`, `ece`, then for each class
        `F1/<name>`, `precision/<name>`, `recall/<name>`. All in [0, 1] but `nll` (nats) and `brier`
        (0 to 2); undefined ones are nan. The class of an image is the first of the highest
        probability, except in top-k, where ties count against.

    Raises:
        ValueError: if the shapes do not fit, or a label lies outside 0..C-1.

    Example:
        >>> found = classification_metrics([[0.9, 0.1], [0.2, 0.8]], [0, 1], ["cat", "dog"])
        >>> found["top1"], found["recall/dog"], round(found["nll"], 4)
        (1.0, 1.0, 0.1643)
    """
    probs, labels = _checked(probs, labels, len(names))
    ranks = true_ranks(probs, labels)
    scores = class_scores(confusion_matrix(labels, answers_of(probs), len(names)))
    ks = [1, *(k for k in topk if 1 < k < len(names))]
    return {
        **{f"top{k}": mean_of((ranks < k).astype(np.float64)) for k in ks},
        **_macro(scores),
        "balanced_accuracy": scores.balanced_accuracy,
        "nll": log_loss(probs, labels),
        "brier": brier_score(probs, labels),
        "ece": reliability(probs, labels).error,
        **_by_class(scores, names),
    }


def multilabel_metrics(
    probs: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str], *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the measures of a classifier with any number of classes an image.

    Args:
        probs: (N, C) in [0, 1].
        labels: (N, C) bool, the classes of each image.
        names: names of the C classes.
        threshold: a class is predicted where its probability is above it.

    Returns:
        `mAP`, the mean average precision of the classes that occur; `F1`, `precision`, `recall` of
        all predictions together; `macro/F1`, `macro/precision`, `macro/recall` (over the classes
        that occur or are predicted); `exact`, the share of images whose classes are all right;
        `nll`, the mean binary log loss; then for each class `AP/<name>`, `F1/<name>`,
        `precision/<name>`, `recall/<name>`. Undefined ones are nan.

    Raises:
        ValueError: if the shapes do not fit.
    """
    probs, labels = np.asarray(probs), np.asarray(labels)
    if probs.shape != labels.shape or probs.ndim != 2 or probs.shape[1] != len(names):
        raise ValueError(
            f"expected probs and labels (N, {len(names)}), got {probs.shape} and {labels.shape}"
        )
    labels = labels.astype(bool)
    predicted = probs > threshold
    scores = multilabel_scores(predicted, labels)
    total = multilabel_scores(predicted.reshape(-1, 1), labels.reshape(-1, 1))
    ap = np.array([average_precision(probs[:, k], labels[:, k]) for k in range(len(names))])
    return {
        "mAP": mean_of(ap[scores.support > 0]),
        "F1": float(total.f1[0]),
        "precision": float(total.precision[0]),
        "recall": float(total.recall[0]),
        **_macro(scores),
        "exact": mean_of((predicted == labels).all(1).astype(np.float64)),
        "nll": _binary_log_loss(probs, labels),
        **{f"AP/{name}": float(value) for name, value in zip(names, ap, strict=True)},
        **_by_class(scores, names),
    }


def answers_of(probs: npt.NDArray) -> IntArray:
    """Return the class of the highest probability of each image, the first of equals; (N,)."""
    # argmax has no answer without columns, even for no image.
    return probs.argmax(1) if probs.size else np.zeros(len(probs), np.int64)


def _binary_log_loss(probs: npt.NDArray, labels: BoolArray) -> float:
    mine = np.where(labels, probs, 1 - probs.astype(np.float64)).ravel()
    return mean_of(-np.log(np.maximum(mine, np.finfo(np.float64).eps)))


def _macro(scores: ClassScores) -> dict[str, float]:
    return {
        "macro/F1": scores.macro(scores.f1),
        "macro/precision": scores.macro(scores.precision),
        "macro/recall": scores.macro(scores.recall),
    }


def _by_class(scores: ClassScores, names: Sequence[str]) -> dict[str, float]:
    kinds = {"F1": scores.f1, "precision": scores.precision, "recall": scores.recall}
    return {
        f"{kind}/{name}": float(value)
        for kind, values in kinds.items()
        for name, value in zip(names, values, strict=True)
    }


def _checked(
    probs: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int | None = None
) -> tuple[npt.NDArray, IntArray]:
    """Return scores (N, C) and labels (N,) as arrays that fit each other."""
    probs, labels = np.asarray(probs), np.asarray(labels)
    if not labels.size and not probs.size:  # an empty list has no second axis
        width = num_classes or (probs.shape[1] if probs.ndim == 2 else 0)
        return np.zeros((0, width)), np.zeros(0, np.int64)
    wanted = "C" if num_classes is None else str(num_classes)
    fits = probs.ndim == 2 and labels.shape == probs.shape[:1]
    if not fits or probs.shape[1] != (num_classes or probs.shape[1]):
        raise ValueError(
            f"expected scores (N, {wanted}) and labels (N,), got {probs.shape} and {labels.shape}"
        )
    return probs, _classes(labels, probs.shape[1])


def _classes(labels: npt.ArrayLike, num_classes: int) -> IntArray:
    labels = np.asarray(labels)
    if not labels.size:
        return np.zeros(0, np.int64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low if low < 0 else high}")
    return labels.astype(np.int64)
