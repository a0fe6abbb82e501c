"""Label maps beside what a segmenter says of them: the regions where it is surest of another class.

Borders are drawn a little off in every label map, so a region counts by what is left of it when its
edge is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...data.loader import Batch
from ...data.records import Dataset
from ...drawing.draw import draw_instances
from ...metrics.detection.boundary import edge, edge_width
from ...models.meta import Meta
from ...ops.components import label_parts
from ...text import one_line
from ..label_check import SIDE, LabelCheck, Place, Suspect, cropped
from .evaluate import SemanticEvaluation, SemanticEvaluator
from .settings import SemanticSettings
from .views import look, to_maps

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..base import Settings

EDGE = 0.005  # width of the edge of a region, as a part of the image's diagonal
MODEL = (230, 159, 0)


@dataclass(frozen=True)
class Region:
    """Connected pixels of one class that the model takes for another one.

    Attributes:
        label, found: the two classes.
        score: mean of p(found) - p(label), less for a region of few pixels.
        confidence: mean of p(found).
        frame: (x1, y1, x2, y2) in whole pixels.
        mask: (y2 - y1, x2 - x1) bool.
    """

    label: int
    found: int
    score: float
    confidence: float
    frame: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_]


def doubted_regions(truth: npt.NDArray[Any], probs: npt.NDArray[Any]) -> list[Region]:
    """Return the regions without their edges where the best class is not that of the label.

    With n pixels and an edge of w pixels, the mean margin counts by n / (n + (2w + 1)^2).

    Args:
        truth: (H, W) labels; those of no class are passed over.
        probs: (C, H, W).
    """
    best, classes = probs.argmax(0), len(probs)
    width = edge_width((truth.shape[0], truth.shape[1]), EDGE)
    code = np.where(truth < classes, truth.astype(np.int64) * classes + best, -1)
    regions = []
    for pair in np.unique(code[code >= 0]).tolist():
        label, found = divmod(pair, classes)
        if label == found:
            continue
        there = code == pair
        pieces = label_parts(there & ~edge(there, width))
        for number in range(1, int(pieces.max(initial=0)) + 1):
            rows, columns = np.nonzero(pieces == number)
            sure = probs[found, rows, columns].astype(np.float64)
            margin = float((sure - probs[label, rows, columns]).mean())
            x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            regions.append(
                Region(
                    label,
                    found,
                    margin * len(rows) / (len(rows) + (2 * width + 1) ** 2),
                    float(sure.mean()),
                    (int(x1), int(y1), int(x2), int(y2)),
                    pieces[y1:y2, x1:x2] == number,
                )
            )
    return regions


@dataclass(frozen=True)
class RegionEvaluation(SemanticEvaluation):
    """An evaluation with the doubted regions of each image by its position."""

    regions: Mapping[int, Sequence[Region]] = field(default_factory=dict)


class RegionEvaluator(SemanticEvaluator):
    """Collects doubted regions, and counts the pixels of a data set.

    Args:
        data: the images.
        meta: what the model says of itself.
        settings: of the prediction, with probabilities.
    """

    def __init__(self, data: Dataset, meta: Meta, settings: SemanticSettings) -> None:
        super().__init__(data, meta, lambda network, batches: self._labels)
        self._settings = settings
        self._labels: list[npt.NDArray[np.uint8]] = []
        self._regions: dict[int, list[Region]] = {}

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Keep the doubted regions of a batch; see `Evaluator`."""
        made = look(network, [batch.images for batch in batches], self._settings)
        found = to_maps(made, self._settings)
        for index, one, truth in zip(batches[0].indices, found, batches[0].targets, strict=True):
            assert one.probs is not None  # as the settings want them
            self._regions[index] = doubted_regions(np.asarray(truth), one.probs)
        self._labels = [one.labels for one in found]
        super().add(network, batches)

    def share(self) -> Any:
        """Return the counts of this process and its regions."""
        return super().share(), self._regions

    def finish(self, shares: Sequence[Any], ms: float) -> RegionEvaluation:
        """Bring the regions of all processes together; see `Evaluator`."""
        whole = super().finish([counts for counts, _ in shares], ms)
        regions = {index: found for _, part in shares for index, found in part.items()}
        return RegionEvaluation(**vars(whole), regions=regions)


class SemanticCheck(LabelCheck):
    """Compares the classes of pixels."""

    kinds: ClassVar[Mapping[str, str]] = {"class": "the model is sure of another class there"}
    options: ClassVar[Mapping[str, Any]] = {"probs": True}

    def evaluator(
        self, task: Any, model: Any, meta: Meta, data: Dataset, settings: Settings
    ) -> RegionEvaluator:
        """Return what collects regions; see `LabelCheck`."""
        assert isinstance(settings, SemanticSettings)
        return RegionEvaluator(data, meta, settings)

    def suspects(self, result: RegionEvaluation, data: Dataset, meta: Meta) -> list[Suspect]:
        """Return the regions of all images; see `LabelCheck`."""
        names = [one_line(name) for name in result.names]
        return [
            Suspect(
                "class",
                one.score,
                index,
                label=names[one.label],
                found=names[one.found],
                confidence=one.confidence,
                label_box=one.frame,
                draw=partial(_draw, one, f"{names[one.label]}, or {names[one.found]}?"),
            )
            for index, regions in result.regions.items()
            for one in regions
        ]


def _draw(region: Region, text: str, pixels: npt.NDArray[np.uint8]) -> Image:
    """Return the part of an image around a region, which is outlined."""
    place: Place = region.frame
    part, (x, y) = cropped(pixels, place)
    x1, y1, x2, y2 = region.frame
    frame = (x1 - x, y1 - y, x2 - x, y2 - y)
    return draw_instances(
        part, np.array([frame]), [0], [""], masks=[(region.mask, frame)], colors=[MODEL],
        texts=[text], boxed=False, min_side=SIDE, max_side=SIDE,
    )  # fmt: skip
