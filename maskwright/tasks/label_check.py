"""What a comparison of labels with a trained model asks a task: which labels the model doubts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..data.records import Dataset
from ..models.meta import Meta
from .answers import Settings
from .evaluation import Evaluator

if TYPE_CHECKING:
    from PIL.Image import Image

Place = tuple[float, float, float, float]
SIDE = 360  # pixels of the long side of a picture


@dataclass(frozen=True)
class Suspect:
    """A label that a model doubts, or one that seems to be missing.

    Attributes:
        kind: of `LabelCheck.kinds`.
        score: how strong the doubt is, in [0, 1]: what the list is ranked by.
        index: position of the image in the data set.
        label: what the label says; "" where there is none.
        found: what the model says; "" where it finds nothing.
        confidence: its score; None where it finds nothing.
        overlap: IoU of the two; None where there is but one, or no place.
        annotation: id of the label in the annotation file; None: that of the image as a whole.
        label_box: (x1, y1, x2, y2) of the label in pixels of the image; None: it has no place.
        found_box: the same of what the model found.
        draw: makes a picture of the image, or of a part of it, with both drawn; None: the image.
    """

    kind: str
    score: float
    index: int
    label: str = ""
    found: str = ""
    confidence: float | None = None
    overlap: float | None = None
    annotation: int | None = None
    label_box: Place | None = None
    found_box: Place | None = None
    draw: Callable[[np.ndarray], Image] | None = None

    def row(self) -> dict[str, Any]:
        """Return it as plain data, without the image: numbers as people want to read them."""
        boxes = {"label_box": self.label_box, "found_box": self.found_box}
        return {
            "score": round(self.score, 4),
            "kind": self.kind,
            "annotation": self.annotation,
            "label": self.label,
            "found": self.found,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "overlap": None if self.overlap is None else round(self.overlap, 4),
            **{key: box and [round(v, 2) for v in box] for key, box in boxes.items()},
        }

    def picture(self, pixels: np.ndarray) -> Image:
        """Return a picture for people to judge by.

        Args:
            pixels: (H, W, 3) uint8, the image.
        """
        from PIL import Image

        picture = Image.fromarray(pixels) if self.draw is None else self.draw(pixels)
        picture.thumbnail((SIDE, SIDE))
        return picture


class LabelCheck(ABC):
    """How a task compares labels with a model.

    Attributes:
        kinds: of doubts, and what each means.
        options: of the prediction, in place of those of `predict`.
    """

    kinds: ClassVar[Mapping[str, str]]
    options: ClassVar[Mapping[str, Any]] = {}

    def evaluator(
        self, task: Any, model: Any, meta: Meta, data: Dataset, settings: Settings
    ) -> Evaluator:
        """Return what collects the answers of a model; that of `Task.evaluator`, if it suffices."""
        found: Evaluator = task.evaluator(model, meta, data, settings, {})
        return found

    @abstractmethod
    def suspects(self, result: Any, data: Dataset, meta: Meta) -> list[Suspect]:
        """Return all doubts, in any order.

        Args:
            result: what the evaluator came to.
            data: the images that it saw.
            meta: what the model says of itself.
        """

    def remarks(self, result: Any) -> list[str]:
        """Return what the answers as a whole say of the labels."""
        return []


def cropped(pixels: np.ndarray, *boxes: Place | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the part of an image around some boxes, and the x and y of its corner.

    Args:
        pixels: (H, W, 3).
        boxes: None for none; at least one is there.
    """
    there = np.array([box for box in boxes if box is not None], np.float64)
    low, high = there[:, :2].min(0), there[:, 2:].max(0)
    margin = max(0.6 * float((high - low).max()), 12.0)
    x1, y1 = np.floor(np.maximum(low - margin, 0)).astype(int).tolist()
    x2, y2 = np.ceil(np.minimum(high + margin, pixels.shape[1::-1])).astype(int).tolist()
    part = pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    return np.ascontiguousarray(part), (x1, y1)
