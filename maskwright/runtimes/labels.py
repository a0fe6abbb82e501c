"""The classifiers and localizers among exported files, without torch: `runtime.load` opens them.

    from maskwright import runtime

    found = runtime.load("classifier.onnx")("photo.jpg")
    found.name, found.score, found.top(5)
    place = runtime.load("localizer.onnx")("photo.jpg")
    place.name, place.score, place.box, place.keypoints

It needs NumPy and Pillow; its folder stands beside `runtime.py` where that is copied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
_WAYS = ("bilinear", "bicubic")
_BACKGROUND = "background"


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
        tools: the module `runtime`.

    Raises:
        ValueError: if the description is not one of `maskwright export`.
    """

    def __init__(self, path: str | Path, session: Any, spec: dict[str, Any], tools: Any) -> None:
        self._session, self.spec, self._tools = session, spec, tools
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
        probs = self.run(self.square(self._tools.read_for(self.spec, image, window)))
        order = np.argsort(-probs, kind="stable")
        names = [self.names[i] for i in order]
        return Answer(names, probs[order], order.astype(np.int64), self._multilabel)

    def square(self, pixels: Array) -> Array:
        """Return the middle of a photo as the graph takes it, (C, S, S) float32.

        The short side is scaled to `resize.short`, the long one in proportion and truncated, by
        Pillow's filter, as torchvision does with `antialias`; then the middle is cut out.

        Args:
            pixels: (H, W, C), see `runtime.read_for`.
        """
        height, width = pixels.shape[:2]
        long = int(self._short * max(height, width) / min(height, width))
        size = (self._short, long) if height <= width else (long, self._short)
        if size != (height, width):
            pixels = self._tools.filtered(pixels, size, self.spec["interpolation"])
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


@dataclass(frozen=True)
class Place:
    """The object of one image, in pixels of the image.

    Attributes:
        name: its class, or "background"; None for a model of keypoints.
        score: probability of that; None for a model of keypoints.
        box: (4,) float32 x1, y1, x2, y2; None for the background and for a model of keypoints.
        keypoints: (J, 2) float32 x, y; None for a model of boxes.
    """

    name: str | None = None
    score: float | None = None
    box: Array | None = None
    keypoints: Array | None = None

    def content(self) -> dict[str, Any]:
        """Return the object as plain data, for JSON."""
        if self.keypoints is not None:
            return {"keypoints": self.keypoints.astype(float).round(2).tolist()}
        box = None if self.box is None else self.box.astype(float).round(2).tolist()
        return {"name": self.name, "score": round(float(self.score or 0), 5), "box": box}


class Localizer:
    """An exported localizer, ready to be called on images.

    Attributes:
        spec: what the file says of itself; see `docs/export.md`.
        names: class names by label.

    Args:
        path: the file.
        session: of onnxruntime, with the graph.
        spec: what the file says of itself.
        tools: the module `runtime`.

    Raises:
        ValueError: if the description is not one of `maskwright export`.
    """

    def __init__(self, path: str | Path, session: Any, spec: dict[str, Any], tools: Any) -> None:
        self._session, self.spec, self._tools = session, spec, tools
        try:
            self._resize, self._points = spec["resize"], spec["num_keypoints"]
            self._batch = 1 if spec["batch"] is None else spec["batch"]
            height, width = spec["size"]
            outputs = [value.name for value in session.get_outputs()]
            wanted = ["keypoints"] if self._points else ["probs", "boxes"]
            whole = all(isinstance(n, int) and n >= 1 for n in (self._batch, height, width))
            named = all(name is None or isinstance(name, str) for name in spec["names"])
            tools.target_size(self._resize, 10, 10)
            if not whole or not named or height != width or outputs != wanted:
                raise ValueError
            self._side = height
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} was not written by `maskwright export`") from None
        self.names = [name or f"class {i}" for i, name in enumerate(spec["names"])]

    def __call__(self, image: Any, *, window: tuple[float, float] | None = None) -> Place:
        """Return the object of an image.

        Args:
            image: path, PIL image or (H, W, 3) RGB or (H, W) grey array; for a model of keypoints
                whose `spec["region"]` is "object", the surroundings of the object alone.
            window: see `runtime.Model`.

        Raises:
            ValueError: if the image cannot be read, or the graph is not that of its description.
        """
        pixels = self._tools.read_for(self.spec, image, window)
        height, width = pixels.shape[:2]
        size = self._tools.target_size(self._resize, height, width)
        out = self.run(self._tools.resize_image(pixels, size, self._resize))
        ratio = np.array([width / size[1], height / size[0]], np.float32)
        if self._points:
            return Place(keypoints=out[0] * ratio)
        probs, boxes = out
        label = int(probs.argmax())
        if label == len(self.names):
            return Place(_BACKGROUND, float(probs[label]))
        box = np.minimum(
            boxes[label] * np.tile(ratio, 2), np.array([width, height] * 2, np.float32)
        )
        return Place(self.names[label], float(probs[label]), box)

    def run(self, pixels: Array) -> list[Array]:
        """Return the outputs for (3, h, w) float32 RGB, 0 to 255, inside the square."""
        _, height, width = pixels.shape
        batch = np.zeros((self._batch, len(pixels), self._side, self._side), np.float32)
        batch[:, :, :height, :width] = pixels
        sizes = np.tile(np.array([[height, width]], np.int64), (self._batch, 1))
        try:
            values = self._session.run(None, {"pixels": batch, "sizes": sizes})
        except Exception as error:  # its errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the graph does not fit its description ({reason})") from None
        count = len(self.names)
        shapes = [(self._points, 2)] if self._points else [(count + 1,), (count, 4)]
        if [value.shape[1:] for value in values] != shapes:
            raise ValueError("the graph does not fit its description")
        return [value[0] for value in values]


def open_file(
    path: str | Path, session: Any, spec: dict[str, Any], tools: Any
) -> Classifier | Localizer:
    """Return the model in a file; `tools` is the module `runtime`."""
    if spec["task"] == "classify":
        return Classifier(path, session, spec, tools)
    return Localizer(path, session, spec, tools)
