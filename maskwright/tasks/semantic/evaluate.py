"""What segmenters are scored by: the pixels of a data set by true and by predicted class.

Everything is compared in the pixels of the original images. Counts are kept by image, so that the
worst can be shown; the numbers are those of the whole set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.loader import Batch
from ...data.maps.samples import map_of
from ...data.records import Dataset
from ...errors import first_few, require_known
from ...metrics.semantic import Boundaries, Confusion, pixel_scores, semantic_metrics
from ...models.meta import Meta
from ..evaluation import Evaluation, Evaluator
from .kept import KeptMaps, PackedMap, chosen

BY_CLASS = ("IoU", "accuracy", "dice")  # as in "IoU/<class name>"
# (network, a batch at each size) -> labels (H, W) uint8 of its images, in their original pixels
Labels = npt.NDArray[np.uint8]
Look = Callable[[Any, Sequence[Batch]], Sequence[Labels]]


@dataclass(frozen=True)
class SemanticEvaluation(Evaluation):
    """What an evaluation found.

    Attributes:
        metrics: "mIoU", "pixel_accuracy", "mean_accuracy", "fwIoU", "dice", if asked for
            "boundary/IoU" and "boundary/F"; then "IoU/<class name>" and others of `BY_CLASS`.
        confusion: (C, C + 1) int64 pixels, rows true, columns predicted, the last no class.
        images: (N,) int64 positions of the images in the data set, rising.
        counts: (N, 3, C) int64, of each image the pixels of each class: right, true, predicted.
        names: names of the C classes.
        maps: predicted label maps of some images by their positions, see `kept`.
    """

    confusion: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    names: Sequence[str]
    maps: Mapping[int, PackedMap] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """See `fitness`."""
        return fitness(self.metrics)

    @property
    def iou_of_images(self) -> npt.NDArray[np.float64]:
        """(N,) mean IoU of each image over the classes that it or its prediction has."""
        right, true, said = self.counts.transpose(1, 0, 2)
        union = true + said - right
        each = np.divide(right, union, out=np.zeros(union.shape), where=union > 0)
        there = (union > 0).sum(1)
        found: npt.NDArray[np.float64] = np.divide(
            each.sum(1), there, out=np.full(len(there), math.nan), where=there > 0
        )
        return found

    def warnings(self, *, by: str = "model") -> list[str]:
        """Return what is wrong with the answers as a whole."""
        scores = pixel_scores(self.confusion)
        given, true = np.flatnonzero(scores.answers), np.flatnonzero(scores.support)
        if by == "model" and len(given) == 1 and len(true) > 1:
            return [f"the model takes all pixels for {self.names[int(given[0])]!r}"]
        return []

    def remarks(self) -> list[str]:
        """Return which classes were not scored."""
        support = pixel_scores(self.confusion).support
        missing = [name for name, count in zip(self.names, support, strict=True) if not count]
        if not missing:
            return []
        shown = first_few(missing, 5)
        return [f"the images have no pixel of {len(missing)} classes of the model: {shown}"]


def fitness(metrics: Mapping[str, float]) -> float:
    """Return the mean IoU."""
    return metrics.get("mIoU", math.nan)


def named(metric: str) -> tuple[str, str] | None:
    """Return what a metric of one class measures and the class; None for those of all."""
    kind, slash, name = metric.partition("/")
    return (kind, name) if slash and kind in BY_CLASS else None


def class_names(meta: Meta) -> list[str]:
    """Return the names of a model's classes."""
    return [f"class {label}" if name is None else name for label, name in enumerate(meta.names)]


class SemanticEvaluator(Evaluator):
    """Counts the pixels of a data set by true and by predicted class.

    The targets of its batches are the label maps in original pixels, in the model's numbers.

    Args:
        meta: what the model says of itself: class names.
        look: see `Look`.
        boundary: score borders as well.
    """

    def __init__(self, dataset: Dataset, meta: Meta, look: Look, *, boundary: bool = False) -> None:
        self.look, self._dataset = look, dataset
        self.names = class_names(meta)
        self._seen: dict[int, tuple[Any, ...]] = {}
        self._boundary = boundary
        self._kept = KeptMaps(len(dataset))

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Count the pixels of a batch; see `Evaluator`."""
        found = self.look(network, batches)
        truths = batches[0].targets
        for index, labels, truth in zip(batches[0].indices, found, truths, strict=True):
            self._count(index, labels, truth)

    def take(self, index: int, found: Any) -> None:
        """Count the pixels of an image; see `Evaluator`."""
        self._count(index, found.labels, map_of(self._dataset, index))

    def _count(self, index: int, labels: Labels, truth: Any) -> None:
        confusion = Confusion(len(self.names))
        counts = confusion.add(labels, truth)
        cells = np.flatnonzero(counts)
        row: tuple[Any, ...] = (cells, counts.ravel()[cells])
        if self._boundary:
            boundaries = Boundaries(len(self.names))
            boundaries.add(labels, truth)
            row += (boundaries.bands, boundaries.lines)
        self._seen[index] = row
        self._kept.add(index, pixel_scores(counts).mean_iou, labels)

    def share(self) -> Any:
        """Return the counts of the images of this process, and the maps that it has kept."""
        return self._seen, self._kept.maps

    def finish(self, shares: Sequence[Any], ms: float) -> SemanticEvaluation:
        """Add up the counts of all processes; see `Evaluator`."""
        size = len(self.names)
        confusion = Confusion(size)
        boundaries = Boundaries(size) if self._boundary else None
        rows = {index: row for seen, _ in shares for index, row in seen.items()}
        counts = np.zeros((len(rows), 3, size), np.int64)
        for place, index in enumerate(sorted(rows)):
            cells, values, *borders = rows[index]
            own = np.zeros_like(confusion.counts)
            own.flat[cells] = values
            confusion.counts += own
            counts[place] = np.diagonal(own), own.sum(1), own[:, :size].sum(0)
            if boundaries is not None:
                boundaries.bands += borders[0]
                boundaries.lines += borders[1]
        metrics = semantic_metrics(confusion, self.names, boundaries)
        metrics = {key: value for key, value in metrics.items() if _scored(key, value)}
        images = np.array(sorted(rows), np.int64)
        maps = chosen((kept for _, kept in shares), self._kept.count)
        return SemanticEvaluation(metrics, ms, confusion.counts, images, counts, self.names, maps)


def _scored(key: str, value: float) -> bool:
    """Tell whether a metric says something: not that of a class that is nowhere."""
    return named(key) is None or not math.isnan(value)


def class_colors(meta: Meta) -> list[tuple[int, int, int] | None]:
    """Return the colours of a model's classes, as far as the data set of its training had some.

    Raises:
        ValueError: if they are no colours.
    """
    found: list[tuple[int, int, int] | None] = []
    for color in meta.extra.get("colors", ()):
        if color is not None:
            whole = all(type(value) is int and 0 <= value <= 255 for value in color)
            if not (whole and len(color) == 3):
                raise ValueError(f"the checkpoint gives a class the colour {color!r}")
            color = tuple(color)
        found.append(color)
    return found


def known_classes(meta: Meta, data: Dataset) -> None:
    """Make sure that the model knows all classes of label maps.

    Raises:
        ValueError: naming those that it does not know.
    """
    require_known(data.names, class_names(meta), f"{data.source} has pixels of classes")
