"""The classifiers among exported files, without torch: `runtime.load` opens them.

    from maskwright import runtime

    found = runtime.load("model.onnx")("photo.jpg")
    found.name, found.score, found.top(5)

It needs NumPy and Pillow, and stands beside `runtime.py` where that is copied to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
_WAYS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Answer:
    """The classes of one image by falling probability.

    Attributes:
        names: C class names.
        scores: (C,) float32 probabilities of these.
        labels: (C,) int64, their positions among the model's names.
        multilabel: whether the image may have several classes, or none.
    """

    names: list[str]
    scores: Array
    labels: Array
    multilabel: bool

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.names[0]

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.scores[0])

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their probabilities."""
        return list(zip(self.names[:k], self.scores[:k].tolist(), strict=True))

    def content(self) -> dict[str, Any]:
        """Return the five most probable classes as plain data, for JSON."""
        return {"top": [{"class": name, "score": round(score, 5)} for name, score in self.top()]}


class Classifier:
    """An exported classifier, ready to be called on images.

    Attributes:
        spec: what the file says of itself; see `docs/export.md`.
        names: class names by label.

    Args:
        path: the file.
        session: of onnxruntime, with the graph.
        spec: what the file says of itself.
        read: returns (H, W, 3) uint8 RGB of that, an image and a window; see `runtime.read_for`.

    Raises:
        ValueError: if the description is not one of `maskwright export`.
    """

    def __init__(
        self, path: str | Path, session: Any, spec: dict[str, Any], read: Callable[..., Array]
    ) -> None:
        self._session, self.spec, self._read = session, spec, read
        try:
            self._crop, self._short = spec["crop"], spec["resize"]["short"]
            self._multilabel = bool(spec["multilabel"])
            batch = spec["batch"]
            self._batch = 1 if batch is None else batch
            counts = (self._crop, self._short, self._batch, len(spec["names"]))
            good = all(isinstance(count, int) and count >= 1 for count in counts)
            named = all(name is None or isinstance(name, str) for name in spec["names"])
            outputs = [value.name for value in session.get_outputs()]
            good = good and named and self._crop <= self._short and outputs == ["probs"]
            if not good or spec["interpolation"] not in _WAYS:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} was not written by `maskwright export`") from None
        self.names = [name or f"class {i}" for i, name in enumerate(spec["names"])]

    def __call__(self, image: Any, *, window: tuple[float, float] | None = None) -> Answer:
        """Return the classes of an image, the most probable first.

        Args:
            image: path, PIL image or (H, W, 3) RGB or (H, W) grey array.
            window: see `runtime.Model`.

        Raises:
            ValueError: if the image cannot be read, or the graph is not that of its description.
        """
        probs = self.run(self.square(self._read(self.spec, image, window)))
        order = np.argsort(-probs, kind="stable")
        names = [self.names[i] for i in order]
        return Answer(names, probs[order], order.astype(np.int64), self._multilabel)

    def square(self, pixels: Array) -> Array:
        """Return the middle of a photo as the graph takes it, (3, S, S) float32.

        The short side is scaled to `resize.short`, the long one in proportion and truncated, by
        Pillow's filter, as torchvision does with `antialias`; then the middle is cut out.

        Args:
            pixels: (H, W, 3) uint8.
        """
        from PIL import Image

        height, width = pixels.shape[:2]
        long = int(self._short * max(height, width) / min(height, width))
        size = (self._short, long) if height <= width else (long, self._short)
        if size != (height, width):
            way = getattr(Image.Resampling, self.spec["interpolation"].upper())
            pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], way))
        top, left = (round((side - self._crop) / 2) for side in size)
        middle = pixels[top : top + self._crop, left : left + self._crop]
        return np.ascontiguousarray(middle.transpose(2, 0, 1), np.float32)

    def run(self, pixels: Array) -> Array:
        """Return the probabilities (C,) float32 of (3, S, S) float32 RGB, 0 to 255."""
        batch = np.repeat(pixels[None], self._batch, 0)
        sizes = np.full((self._batch, 2), self._crop, np.int64)
        try:
            (probs,) = self._session.run(["probs"], {"pixels": batch, "sizes": sizes})
        except Exception as error:  # its errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the graph does not fit its description ({reason})") from None
        if probs.shape[1:] != (len(self.names),):
            raise ValueError(f"the graph does not fit its description (probs {probs.shape})")
        first: Array = probs[0]
        return first
