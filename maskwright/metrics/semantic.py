"""Measures of label maps: one table of pixels over the whole set, and how well borders fit.

Everything is counted over all pixels of a set and divided once, so neither the order of the images
nor how they are split into parts matters, and a large image counts for more than a small one. The
mean of the IoU of single images is another number, and not computed here.

Pixels that the truth ignores never count. A pixel of a class for which the prediction gives no
class (`IGNORED`) is missed, as in Cityscapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..structures import IGNORED
from .calibration import BoolArray, FloatArray, IntArray
from .classification import mean_of
from .detection.boundary import DILATION, edge_width

Map = npt.NDArray[np.uint8]

TOLERANCE = 0.0075  # of the boundary F: a part of the image's diagonal
_CHUNK = 1 << 20  # pixels that are counted together
_NUMBERS = IGNORED + 1


class Confusion:
    """The confusion matrix of pixels over a set of images.

    Args:
        num_classes: C.

    Attributes:
        counts: (C, C + 1) int64 pixels; rows true, columns predicted, the last one no class.

    Example:
        >>> confusion = Confusion(2)
        >>> image = confusion.add([[0, 1, 1]], [[0, 1, 255]])
        >>> confusion.matrix.tolist()
        [[1, 0], [0, 1]]
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: IntArray = np.zeros((num_classes, num_classes + 1), np.int64)

    @property
    def matrix(self) -> IntArray:
        """(C, C) pixels, rows true, columns predicted."""
        return self.counts[:, :-1]

    def add(self, predicted: Any, truth: Any) -> IntArray:
        """Count the pixels of an image, or of several at once; return their own counts.

        Args:
            predicted: (..., H, W) classes, uint8 or other whole numbers; array or tensor.
            truth: of the same shape; `IGNORED` where nothing counts.

        Returns:
            (C, C + 1), see `counts`.

        Raises:
            ValueError: if the shapes differ, or a label is no class.
        """
        found = _count(*_maps(predicted, truth), len(self.counts))
        self.counts += found
        return found

    def merge(self, other: Confusion) -> None:
        """Add the counts of another part of the set."""
        self.counts += other.counts


@dataclass(frozen=True)
class PixelScores:
    """What a confusion matrix of pixels says; nan where there is nothing to measure.

    With h the diagonal, g the sums of the rows and p those of the columns:

    Attributes:
        accuracy: (C,) h / g of each class (recall).
        precision: (C,) h / p.
        iou: (C,) h / (g + p - h).
        dice: (C,) 2 h / (g + p), the F1 score.
        support: (C,) g, the pixels of each class.
        answers: (C,) p, the pixels that were taken for it.
    """

    accuracy: FloatArray
    precision: FloatArray
    iou: FloatArray
    dice: FloatArray
    support: IntArray
    answers: IntArray

    @property
    def pixel_accuracy(self) -> float:
        """Sum of h / sum of g."""
        return self._weighted(self.accuracy)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that the truth has."""
        return _mean_of_defined(self.accuracy)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that truth or prediction have: only predicted, 0."""
        return _mean_of_defined(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean of `dice` over the same classes."""
        return _mean_of_defined(self.dice)

    @property
    def weighted_iou(self) -> float:
        """Sum of g `iou` / sum of g (fwIoU)."""
        return self._weighted(self.iou)

    def _weighted(self, values: FloatArray) -> float:
        total = self.support.sum()
        return float(np.nan_to_num(values) @ self.support / total) if total else math.nan


def pixel_scores(counts: npt.NDArray[np.int64]) -> PixelScores:
    """Return what the counts of a `Confusion` say.

    Args:
        counts: (C, C), or (C, C + 1) with pixels of no predicted class last.
    """
    right, support = np.diagonal(counts), counts.sum(1)
    answers = counts[:, : len(counts)].sum(0)
    return PixelScores(
        accuracy=_ratio(right, support),
        precision=_ratio(right, answers),
        iou=_ratio(right, support + answers - right),
        dice=_ratio(2 * right, support + answers),
        support=support,
        answers=answers,
    )


class Boundaries:
    """How well the borders of the classes fit, counted over a set of images.

    Ignored pixels are, in both maps, one more class that is not scored.

    Args:
        num_classes: C.
        dilation: width of the bands of the boundary IoU, a part of the image's diagonal.
        tolerance: distance within which lines fit in the boundary F, likewise; at least a pixel.

    Attributes:
        bands: (3, C) int64 pixels at most the width of the band from a pixel of another class or
            from the end of the image: of the class in both maps, in the prediction, in the truth.
        lines: (4, C) int64 pixels that touch another class with one of their sides: of the
            prediction, near a line of that class in the truth and all; of the truth, the same.

    Raises:
        ValueError: if `dilation` or `tolerance` is not above 0.
    """

    def __init__(
        self, num_classes: int, *, dilation: float = DILATION, tolerance: float = TOLERANCE
    ) -> None:
        if not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance must be above 0 and finite, got {tolerance}")
        edge_width((1, 1), dilation)  # checks it
        self.dilation, self.tolerance = dilation, tolerance
        self.bands: IntArray = np.zeros((3, num_classes), np.int64)
        self.lines: IntArray = np.zeros((4, num_classes), np.int64)

    def add(self, predicted: Any, truth: Any) -> None:
        """Count the borders of one image.

        Args:
            predicted: (H, W) classes; array or tensor.
            truth: (H, W), `IGNORED` where nothing counts.

        Raises:
            ValueError: if the shapes differ.
        """
        said, true = _maps(predicted, truth)
        if said.ndim != 2:
            raise ValueError(f"borders are those of one image (H, W), got {said.shape}")
        said = np.where(true == IGNORED, np.uint8(IGNORED), said)
        size = (true.shape[0], true.shape[1])
        width = edge_width(size, self.dilation)
        said_band, true_band = _band(said, width), _band(true, width)
        both = said_band & true_band & (said == true)
        pairs = ((true, both), (said, said_band), (true, true_band))
        self.bands += [self._of(labels[kept]) for labels, kept in pairs]
        reach = max(self.tolerance * math.hypot(*size), 1.0)
        one, other = _line(said), _line(true)
        for row, (mine, theirs) in enumerate(((one, other), (other, one))):
            whole = self._of(mine)
            self.lines[2 * row] += whole - self._of(_far(mine, theirs, reach))
            self.lines[2 * row + 1] += whole

    def _of(self, labels: Map) -> IntArray:
        counts = np.bincount(labels.ravel(), minlength=_NUMBERS)
        return counts[: self.bands.shape[1]].astype(np.int64, copy=False)

    def merge(self, other: Boundaries) -> None:
        """Add the counts of another part of the set."""
        self.bands += other.bands
        self.lines += other.lines

    @property
    def iou(self) -> FloatArray:
        """(C,) boundary IoU: the IoU of the bands; nan for a class without any.

        Reference: Cheng et al. 2021, equation 2, summed over the images.
        """
        both, said, true = self.bands
        return _ratio(both, said + true - both)

    @property
    def f1(self) -> FloatArray:
        """(C,) boundary F: harmonic mean of the shares of both lines that are near the other one.

        nan for a class without any line. Summed over the images, where Csurka et al. 2013 take the
        mean of the F of single images.
        """
        near, said, found, true = self.lines
        precision, recall = _ratio(near, said), _ratio(found, true)
        total = precision + recall
        score = np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)
        return np.where(said + true > 0, score, np.nan)


def semantic_metrics(
    confusion: Confusion, names: Sequence[str], boundaries: Boundaries | None = None
) -> dict[str, float]:
    """Return the usual measures by their keys.

    Args:
        confusion: of the pixels.
        names: the C class names.
        boundaries: of the same images; None: nothing is said of borders.

    Returns:
        `mIoU`, `pixel_accuracy`, `mean_accuracy`, `fwIoU`, `dice` (the mean of the classes), with
        `boundaries` also `boundary/IoU` and `boundary/F`, both means over the classes that have
        borders; then for each class `IoU/<name>`, `accuracy/<name>`, `dice/<name>`. Undefined ones
        are nan.
    """
    scores = pixel_scores(confusion.counts)
    metrics = {
        "mIoU": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "fwIoU": scores.weighted_iou,
        "dice": scores.mean_dice,
    }
    if boundaries is not None:
        metrics["boundary/IoU"] = _mean_of_defined(boundaries.iou)
        metrics["boundary/F"] = _mean_of_defined(boundaries.f1)
    kinds = {"IoU": scores.iou, "accuracy": scores.accuracy, "dice": scores.dice}
    for kind, values in kinds.items():
        for name, value in zip(names, values.tolist(), strict=True):
            metrics[f"{kind}/{name}"] = value
    return metrics


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    """Return part / whole, nan where there is nothing."""
    found = np.full(len(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _mean_of_defined(values: FloatArray) -> float:
    return mean_of(values[~np.isnan(values)])


def _maps(predicted: Any, truth: Any) -> tuple[Map, Map]:
    """Return two label maps of the same shape as uint8."""
    found = []
    for what, values in (("predicted", predicted), ("truth", truth)):
        labels = np.asarray(values)
        if labels.dtype != np.uint8:
            if labels.dtype.kind not in "iu":
                raise ValueError(f"{what}: labels are whole numbers, got {labels.dtype}")
            if labels.size and not 0 <= labels.min() <= labels.max() <= IGNORED:
                raise ValueError(
                    f"{what}: labels lie in 0..{IGNORED}, got {labels.min()} to {labels.max()}"
                )
            labels = labels.astype(np.uint8)
        found.append(labels)
    said, true = found
    if said.shape != true.shape:
        raise ValueError(
            f"predicted has the shape {said.shape}, the truth {true.shape}: compare them at the "
            "size of the image"
        )
    return said, true


def _count(said: Map, true: Map, num_classes: int) -> IntArray:
    """Return the pixels (C, C + 1) by true and predicted class."""
    pairs = np.zeros(_NUMBERS**2, np.int64)
    said, true = said.ravel(), true.ravel()
    for begin in range(0, len(true), _CHUNK):
        # Both labels in one number of 16 bits: faster than to leave out what is ignored.
        keys = true[begin : begin + _CHUNK].astype(np.uint16) << 8
        keys |= said[begin : begin + _CHUNK]
        pairs += np.bincount(keys, minlength=_NUMBERS**2)
    table = pairs.reshape(_NUMBERS, _NUMBERS)
    rows, columns = table[:-1].sum(1), table[:-1, :-1].sum(0)
    for what, counts in (("the truth", rows), ("the prediction", columns)):
        wrong = np.flatnonzero(counts[num_classes:])
        if len(wrong):
            label = num_classes + int(wrong[0])
            raise ValueError(
                f"{what} has the label {label} at {counts[label]:,} pixels, but there are "
                f"{num_classes} classes, from 0 on; {IGNORED} is ignored"
            )
    return table[:num_classes, [*range(num_classes), IGNORED]]


def _band(labels: Map, width: int) -> BoolArray:
    """Return where a map (H, W) has another label, or ends, within `width` rows and columns."""
    side = 2 * width + 1
    found = np.ones(labels.shape, bool)
    if min(labels.shape) < side:  # a window always reaches beyond it
        return found
    # Of all classes at once: a window holds one label where its highest is its lowest. Windows of
    # a length are two shorter ones that overlap.
    high, low, length = labels, labels, 1
    while length < side:
        step = min(length, side - length)
        high = np.maximum(high[step:], high[:-step])
        high = np.maximum(high[:, step:], high[:, :-step])
        low = np.minimum(low[step:], low[:-step])
        low = np.minimum(low[:, step:], low[:, :-step])
        length += step
    found[width:-width, width:-width] = high != low
    return found


def _line(labels: Map) -> Map:
    """Return the labels (H, W) of pixels that touch another label; `IGNORED` elsewhere."""
    there = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    there[1:] |= down
    there[:-1] |= down
    there[:, 1:] |= right
    there[:, :-1] |= right
    return np.where(there, labels, np.uint8(IGNORED))


def _far(lines: Map, others: Map, reach: float) -> Map:
    """Return the labels (N,) of pixels of lines without another of their label within `reach`.

    Args:
        lines: (H, W) labels, `IGNORED` where there is no line.
        others: the lines that are to be near.
        reach: Euclidean distance in pixels.
    """
    edge = int(reach)
    padded = np.pad(others, edge, constant_values=IGNORED)
    steps = np.arange(-edge, edge + 1)
    apart = steps[:, None] ** 2 + steps**2
    rows, columns = np.nonzero(apart <= reach**2)
    nearest_first = np.argsort(apart[rows, columns], kind="stable")
    offsets = (steps[rows] * padded.shape[1] + steps[columns])[nearest_first]
    y, x = np.nonzero(lines != IGNORED)
    places, labels = (y + edge) * padded.shape[1] + x + edge, lines[y, x]
    flat = padded.ravel()
    for offset in offsets.tolist():
        left = flat[places + offset] != labels
        places, labels = places[left], labels[left]
    return labels
