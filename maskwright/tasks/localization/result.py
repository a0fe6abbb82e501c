"""What a localizer gives to people: a class with its score and box, or keypoints, of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...reports.result import ImageResult, Mark
from ...structures import Skeleton

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND = "background"  # what an image without an object is called


@dataclass(frozen=True)
class Place:
    """What was found in one image, in pixels of the original, on the CPU.

    Attributes:
        probs: (C + 1,) of each class, last of the background; None for keypoints.
        boxes: (C, 4) xyxy, the box of each class; None for keypoints.
        keypoints: (J, 2) x and y, or None.
    """

    probs: Tensor | None
    boxes: Tensor | None
    keypoints: Tensor | None = None

    @property
    def named(self) -> Tensor:
        """Classes by falling probability, background among them; (C + 1,) int64."""
        assert self.probs is not None
        return self.probs.argsort(descending=True, stable=True)


@dataclass(frozen=True, repr=False, eq=False)
class LocationResult(ImageResult):
    """The one object of an image, in pixels of the original image.

    Attributes:
        place: all probabilities, boxes and keypoints.
        image: (H, W, 3) uint8 RGB, the original image.
        names: class names by label.
        path: where the image came from; None for pixels in memory.
        speed: milliseconds for "load", "preprocess", "inference" and "postprocess".
        skeleton: what the keypoints are called, and the lines between them.
        source_name: how the image is called among the others of its source, see `name`.
        heatmap: see `ImageResult`.
        explained: see `ImageResult`.
        frame: see `ImageResult`.
        time: see `ImageResult`.
        page: see `ImageResult`.
        axes: see `ImageResult`.

    Example:
        >>> import numpy as np, torch
        >>> place = Place(torch.tensor([0.9, 0.1]), torch.tensor([[1., 1., 3., 3.]]))
        >>> result = LocationResult(place, np.zeros((4, 6, 3), np.uint8), ["cell"], path="a.png")
        >>> result
        a.png: cell 0.90
        >>> result.box.tolist()
        [1.0, 1.0, 3.0, 3.0]
    """

    place: Place
    image: np.ndarray
    names: list[str]
    path: str | None = None
    speed: dict[str, float] = field(default_factory=dict)
    skeleton: Skeleton | None = None
    source_name: str = ""
    heatmap: np.ndarray | None = None
    explained: Mark | None = None
    frame: int | None = None
    time: float | None = None
    page: int | None = None
    axes: Mapping[str, int] = field(default_factory=dict)

    COLUMNS: ClassVar[Mapping[str, str]] = {
        **{"label": "int32", "name": "string", "score": "float32"},
        **dict.fromkeys(("x1", "y1", "x2", "y2"), "float32"),
        "keypoints": "list<float32>",
    }

    @property
    def label(self) -> int | None:
        """The surest class, a position in `names`; None: the background, or no classes."""
        if self.place.probs is None:
            return None
        first = int(self.place.named[0])
        return first if first < len(self.names) else None

    @property
    def score(self) -> float | None:
        """Its probability, or that of the background; None for a model of keypoints."""
        return None if self.place.probs is None else float(self.place.probs.max())

    @property
    def box(self) -> Tensor | None:
        """(4,) float32 xyxy; None for the background and for a model of keypoints."""
        if self.label is None or self.place.boxes is None:
            return None
        return self.place.boxes[self.label]

    @property
    def keypoints(self) -> Tensor | None:
        """(J, 2) float32 x and y; None for a model of boxes."""
        return self.place.keypoints

    @property
    def called(self) -> str:
        """Name of the class, or "background"; nothing for a model of keypoints."""
        if self.place.probs is None:
            return ""
        return BACKGROUND if self.label is None else self.names[self.label]

    def __len__(self) -> int:
        return int(self.label is not None or self.keypoints is not None)

    def __bool__(self) -> bool:
        return True  # a result without an object is a result, not a missing one

    def plot(self, *, labels: bool = True) -> Image:
        """Return the image with the box or the keypoints drawn on it.

        Args:
            labels: write name and score.
        """
        text = [f"{self.called} {self.score:.2f}" if labels and self.score is not None else ""]
        return draw_place(
            self.image,
            None if self.box is None else self.box.numpy(),
            None if self.keypoints is None else self.keypoints.numpy(),
            self.label or 0,
            self.names,
            text=text[0],
            skeleton=self.skeleton,
        )

    def content(self) -> dict[str, Any]:
        """Return class, score, box and keypoints as plain data; see `ImageResult`."""
        data: dict[str, Any] = {}
        if self.place.probs is not None:
            data = {
                "label": self.label,
                "class": self.called,
                "score": round(self.score or 0.0, 6),
                "box": None if self.box is None else _rounded(self.box),
                "background": round(float(self.place.probs[-1]), 6),
                "named": [
                    {
                        "class": BACKGROUND if k >= len(self.names) else self.names[k],
                        "score": round(float(self.place.probs[k]), 6),
                    }
                    for k in self.place.named[:5].tolist()
                ],
            }
        if self.keypoints is not None:
            names = self.skeleton.names if self.skeleton is not None else _numbers(self.keypoints)
            data["keypoints"] = dict(zip(names, _rounded(self.keypoints), strict=True))
        return data

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: the surest class, without a label if it is the background, or points."""
        corners = [None] * 4 if self.box is None else self.box.tolist()
        points = None if self.keypoints is None else self.keypoints.flatten().tolist()
        values = (self.label, self.called or None, self.score, *corners, points)
        return [dict(zip(self.COLUMNS, values, strict=True))]

    def drawn(self) -> dict[str, Any]:
        """Return the lines between keypoints as well, `bones`; see `ImageResult`."""
        bones = {} if self.skeleton is None else {"bones": [list(b) for b in self.skeleton.bones]}
        return {**super().drawn(), **bones}

    def counts(self) -> dict[str, int]:
        """Return the class of the image, once; see `ImageResult`."""
        return {self.called: 1} if self.called else {}

    def summary(self) -> str:
        """Return class and score, or the number of keypoints."""
        if self.score is not None:
            return f"{self.called} {self.score:.2f}"
        return f"{0 if self.keypoints is None else len(self.keypoints)} keypoints"

    def marks(self) -> list[Mark]:
        """Return the object for the page of a run; see `ImageResult`."""
        return [] if self.place.probs is None else [self.mark(int(self.place.named[0]))]

    def mark(self, label: int) -> Mark:
        """Return what a model of classes says of one, of the background behind the last."""
        assert self.place.probs is not None
        thousandths = int(float(self.place.probs[label]) * 1000)
        if label >= len(self.names):
            return BACKGROUND, thousandths, None
        if self.place.boxes is None:
            return self.names[label], thousandths, None
        x1, y1, x2, y2 = (round(value) for value in self.place.boxes[label].tolist())
        return self.names[label], thousandths, (x1, y1, x2 - x1, y2 - y1)


def draw_place(
    image: np.ndarray,
    box: np.ndarray | None,
    keypoints: np.ndarray | None,
    label: int,
    names: Sequence[str],
    *,
    text: str = "",
    skeleton: Skeleton | None = None,
    **look: Any,
) -> Image:
    """Return a picture of an image with the place of its one object.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy; None: the background, or keypoints alone.
        keypoints: (J, 2), or (J, 3) with what is above 0 where they are labelled; or None.
        label: class of the object, for the colour.
        names: class names.
        text: what is written at the object; an image without a box has it in its corner.
        skeleton: the lines between keypoints.
        **look: see `draw_instances`.
    """
    from ...drawing.draw import draw_instances

    points = None
    if keypoints is not None:
        points = np.ones((1, len(keypoints), 3))
        points[0, :, : keypoints.shape[1]] = keypoints
        if box is None:  # the size of the drawing follows that of the object
            low, high = keypoints[:, :2].min(0), keypoints[:, :2].max(0)
            return draw_instances(
                image,
                [[*low, *high]],
                [label],
                names,
                keypoints=points,
                texts=[text],
                skeleton=skeleton,
                boxed=False,
                **look,
            )
    if box is None:
        height, width = image.shape[:2]
        rows: list[list[float]] = [[0, 0, width, height]] if text else []
        found = draw_instances(
            image, rows, [label] * len(rows), names, texts=[text] * len(rows), boxed=False, **look
        )
        return found
    return draw_instances(
        image,
        [box],
        [label],
        names,
        keypoints=points,
        texts=[text],
        skeleton=skeleton,
        **look,
    )


def _rounded(values: Tensor) -> list[Any]:
    return [round(v, 2) if isinstance(v, float) else [round(x, 2) for x in v]
            for v in values.tolist()]  # fmt: skip


def _numbers(points: Tensor) -> list[str]:
    return [str(k) for k in torch.arange(len(points)).tolist()]
