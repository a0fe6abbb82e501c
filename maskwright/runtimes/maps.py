"""The segmenters among exported files, without torch: `runtime.load` opens them.

    from maskwright import runtime

    found = runtime.load("model.onnx")("photo.jpg")
    found.labels, found.shares()

It needs NumPy and Pillow; its folder stands beside `runtime.py` where that is copied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
_BAND = 2**22  # values of a band of rows that is worked on at once


@dataclass(frozen=True)
class Map:
    """The class of each pixel of one image.

    Attributes:
        labels: (H, W) uint8, positions among the model's names.
        names: class names.
    """

    labels: Array
    names: list[str]

    def shares(self) -> dict[str, float]:
        """Return which part of the image each class has that occurs, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size
        order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
        return {self.names[i]: float(counts[i]) for i in order}

    def content(self) -> dict[str, Any]:
        """Return the shares of the classes as plain data, for JSON."""
        return {"shares": {name: round(share, 5) for name, share in self.shares().items()}}


class Segmenter:
    """An exported segmenter, ready to be called on images.

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
            self._corners, self._resize = bool(spec["align_corners"]), spec["resize"]
            self._batch, self._size, self._divisor = spec["batch"], spec["size"], spec["divisor"]
            counts = [len(spec["names"]), self._divisor, *(self._size or ())]
            counts += [] if self._batch is None else [self._batch]
            good = all(isinstance(count, int) and count >= 1 for count in counts)
            named = all(name is None or isinstance(name, str) for name in spec["names"])
            outputs = [value.name for value in session.get_outputs()]
            tools.target_size(self._resize, 10, 10)
            if not good or not named or outputs != ["logits"]:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} was not written by `maskwright export`") from None
        self.names = [name or f"class {i}" for i, name in enumerate(spec["names"])]

    def __call__(self, image: Any, *, window: tuple[float, float] | None = None) -> Map:
        """Return the class of each pixel of an image.

        Args:
            image: path, PIL image or (H, W, 3) RGB or (H, W) grey array.
            window: see `runtime.Model`.

        Raises:
            ValueError: if the image cannot be read, or the graph is not that of its description.
        """
        pixels = self._tools.read_for(self.spec, image, window)
        height, width = pixels.shape[:2]
        size = self._tools.target_size(self._resize, height, width)
        small = self._tools.resize_image(pixels, size, self._resize)
        logits, padded = self.run(small)
        axes = [
            resampling(logits.shape[1 + i], padded[i], size[i], (height, width)[i], self._corners)
            for i in (0, 1)
        ]
        labels = np.empty((height, width), np.uint8)
        rows = max(_BAND // (len(self.names) * width), 1)
        for top in range(0, height, rows):
            tall = np.einsum("rh,chw->crw", axes[0][top : top + rows], logits, optimize=True)
            labels[top : top + rows] = (tall @ axes[1].T).argmax(0)
        return Map(labels, self.names)

    def run(self, pixels: Array) -> tuple[Array, tuple[int, int]]:
        """Return the logits (C, h, w), and (height, width) of the padded pixels that they cover.

        Args:
            pixels: (3, h, w) float32 RGB, 0 to 255, no larger than a graph of fixed size.
        """
        _, height, width = pixels.shape
        sides = self._size or [
            -(-side // self._divisor) * self._divisor for side in (height, width)
        ]
        batch = np.zeros((self._batch or 1, len(pixels), *sides), np.float32)
        batch[:, :, :height, :width] = pixels
        sizes = np.tile(np.array([[height, width]], np.int64), (len(batch), 1))
        try:
            (logits,) = self._session.run(["logits"], {"pixels": batch, "sizes": sizes})
        except Exception as error:  # its errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the graph does not fit its description ({reason})") from None
        if logits.ndim != 4 or logits.shape[1] != len(self.names):
            raise ValueError(f"the graph does not fit its description (logits {logits.shape})")
        return logits[0], (sides[0], sides[1])


def resampling(cells: int, padded: int, size: int, original: int, corners: bool) -> Array:
    """Return the matrix (original, cells) float32 of a bilinear resampling along one axis.

    Args:
        cells: values along the axis, which cover the padded input.
        padded: length of the padded input in pixels.
        size: length of the image in it.
        original: length of the original image.
        corners: the first and last cell lie on the first and last pixel of the input; False: each
            covers its share of it.
    """
    place = (np.arange(original) + 0.5) * size / original - 0.5
    if corners:
        place = place * (cells - 1) / max(padded - 1, 1)
    else:
        place = (place + 0.5) * cells / padded - 0.5
    place = place.clip(0, cells - 1)
    lower = np.minimum(np.floor(place).astype(int), max(cells - 2, 0))
    share = place - lower
    matrix = np.zeros((original, cells), np.float32)
    rows = np.arange(original)
    matrix[rows, lower] += 1 - share
    matrix[rows, np.minimum(lower + 1, cells - 1)] += share
    return matrix


def open_file(path: str | Path, session: Any, spec: dict[str, Any], tools: Any) -> Segmenter:
    """Return the segmenter in a file; `tools` is the module `runtime`."""
    return Segmenter(path, session, spec, tools)
