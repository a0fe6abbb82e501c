"""What a prediction gives to people: the classes of one image, and how probable each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from ...reports.result import ImageResult, Mark
from .settings import LEAST_SCORE

if TYPE_CHECKING:
    from PIL import Image

TOLD = 3  # classes that `summary` names


@dataclass(frozen=True, repr=False, eq=False)
class ClassResult(ImageResult):
    """The classes of one image.

    Attributes:
        probs: (C,) float32 probabilities; they sum to 1 unless the image may have several classes.
        image: (H, W, 3) uint8 RGB, the original image.
        names: class names by label.
        path: where the image came from; None for pixels in memory.
        speed: milliseconds for "load", "preprocess", "inference" and "postprocess".
        multilabel: whether the image may have several classes, or none.
        conf: least probability of such a class.
        topk: most classes that pictures, texts and files show.
        source_name: how the image is called among the others of its source, see `name`.
        heatmap: see `ImageResult`.
        explained: see `ImageResult`.
        frame: see `ImageResult`.
        time: see `ImageResult`.
        page: see `ImageResult`.
        axes: see `ImageResult`.
        floors: least probability of each class; None: `conf` counts for all.

    Example:
        >>> import numpy as np, torch
        >>> result = ClassResult(torch.tensor([0.1, 0.9]), np.zeros((4, 6, 3), np.uint8),
        ...                      ["cat", "dog"], path="a.png")
        >>> result
        a.png: dog 0.90, cat 0.10
        >>> result.label, round(result.score, 2), result.class_name
        (1, 0.9, 'dog')
    """

    probs: Tensor
    image: np.ndarray
    names: list[str]
    path: str | None = None
    speed: dict[str, float] = field(default_factory=dict)
    multilabel: bool = False
    conf: float = LEAST_SCORE
    topk: int = 5
    source_name: str = ""
    heatmap: np.ndarray | None = None
    explained: Mark | None = None
    floors: Sequence[float] | None = None
    frame: int | None = None
    time: float | None = None
    page: int | None = None
    axes: Mapping[str, int] = field(default_factory=dict)

    COLUMNS: ClassVar[Mapping[str, str]] = {"label": "int32", "name": "string", "score": "float32"}

    @property
    def label(self) -> int:
        """The most probable class, a position in `names`."""
        return int(self.probs.argmax())

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.probs[self.label])

    @property
    def class_name(self) -> str:
        """Its name."""
        return self.names[self.label]

    @property
    def labels(self) -> list[int]:
        """The classes of the image by falling probability: one; of several those above `conf`."""
        if not self.multilabel:
            return [self.label]
        floors = [self.conf] * len(self.names) if self.floors is None else self.floors
        order = self.probs.argsort(descending=True, stable=True).tolist()
        return [label for label in order if float(self.probs[label]) > floors[label]]

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """Return the k most probable classes with their probabilities.

        Args:
            k: how many, at most all; None: `topk`.
        """
        order = self.probs.argsort(descending=True, stable=True)[: self.topk if k is None else k]
        return [(self.names[label], float(self.probs[label])) for label in order.tolist()]

    def rows(self) -> list[dict[str, Any]]:
        """Return the `topk` most probable classes; of several classes those above `conf`."""
        order = self.probs.argsort(descending=True, stable=True)[: self.topk].tolist()
        return [
            {"label": label, "name": self.names[label], "score": float(self.probs[label])}
            for label in (self.labels if self.multilabel else order)
        ]

    def counts(self) -> dict[str, int]:
        """Return the names of the image's classes, each once."""
        return {self.names[label]: 1 for label in self.labels}

    def summary(self) -> str:
        """Return the most probable classes in a few words."""
        shown = self.top(min(self.topk, TOLD))
        if self.multilabel:
            shown = [(self.names[label], float(self.probs[label])) for label in self.labels]
            if not shown:
                return f"no class above {'its threshold' if self.floors else f'{self.conf:g}'}"
        return ", ".join(f"{name} {score:.2f}" for name, score in shown)

    def marks(self) -> list[Mark]:
        """Return the image's classes for the page of a run."""
        return [
            (self.names[label], int(1000 * float(self.probs[label])), None) for label in self.labels
        ]

    def content(self) -> dict[str, Any]:
        """Return the classes as plain data, for `to_json`."""
        found: dict[str, Any] = {"label": self.label, "class": self.class_name}
        if self.multilabel:
            found = {"labels": self.labels, "classes": [self.names[i] for i in self.labels]}
        return {
            **found,
            "score": self.score,
            "top": [{"class": name, "score": score} for name, score in self.top()],
        }

    def plot(self, *, labels: bool = True) -> Image.Image:
        """Return the image, with its most probable classes as bars below it.

        Args:
            labels: draw them; False: the image alone.
        """
        from PIL import Image

        from .bars import with_bars

        if not labels:
            return Image.fromarray(np.ascontiguousarray(self.image))
        strong = len(self.labels)
        return with_bars(self.image, self.top(), strong=strong)
