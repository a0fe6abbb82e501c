"""How an original image is seen: a scale, a window, mirrors and turns, of pixels and objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskwright.ops.rle import Frame


@dataclass(frozen=True)
class View:
    """How an original image is seen: scaled, cut to a window, mirrored, turned; in this order.

    Attributes:
        full: (height, width) of the whole image after scaling.
        scale: factors of x and y from original to scaled pixels.
        window: xyxy in whole scaled pixels, perhaps beyond the image.
        flip: mirror left and right.
        vflip: mirror top and bottom.
        turns: quarter turns counter-clockwise.
        tile: xyxy in original pixels of all that is read of the image; None: the whole.
    """

    full: tuple[int, int]
    scale: tuple[float, float]
    window: Frame
    flip: bool = False
    vflip: bool = False
    turns: int = 0
    tile: Frame | None = None

    @property
    def window_size(self) -> tuple[int, int]:
        """(height, width) of the window, before turning."""
        x1, y1, x2, y2 = self.window
        return y2 - y1, x2 - x1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        height, width = self.window_size
        return (width, height) if self.turns % 2 else (height, width)

    @property
    def within_tile(self) -> tuple[tuple[int, int], Frame]:
        """(height, width) of the tile after scaling, and the window in its pixels."""
        assert self.tile is not None
        (sx, sy), (x1, y1, x2, y2) = self.scale, self.tile
        left, top = round(x1 * sx), round(y1 * sy)
        size = max(round((y2 - y1) * sy), 1), max(round((x2 - x1) * sx), 1)
        a, b, c, d = self.window
        return size, (a - left, b - top, c - left, d - top)

    def to_window(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) x and y of original pixels to window pixels, float64."""
        moved: np.ndarray = points * self.scale - self.window[:2]
        return moved

    def orient(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) x and y of window pixels to result pixels: mirrors and turns."""
        height, width = self.window_size
        x, y = points[..., 0], points[..., 1]
        x = width - x if self.flip else x
        y = height - y if self.vflip else y
        for _ in range(self.turns):
            x, y = y, width - x
            height, width = width, height
        return np.stack([x, y], -1)

    def orient_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Map (..., 4) xyxy of window pixels to result pixels."""
        corners = self.orient(boxes.reshape(*boxes.shape[:-1], 2, 2))
        return np.concatenate([corners.min(-2), corners.max(-2)], -1)

    def refill(self, pixels: Tensor, fill: Sequence[float]) -> Tensor:
        """Give (3, h, w) pixels of the window beyond the image these colours again."""
        x1, y1, x2, y2 = self.window
        right, bottom = self.full[1] - x1, self.full[0] - y1
        if min(x1, y1) >= 0 and right >= x2 - x1 and bottom >= y2 - y1:
            return pixels
        kept = slice(max(-y1, 0), max(bottom, 0)), slice(max(-x1, 0), max(right, 0))
        result = torch.tensor(fill, dtype=pixels.dtype)[:, None, None].repeat(1, y2 - y1, x2 - x1)
        result[:, kept[0], kept[1]] = pixels[:, kept[0], kept[1]]
        return result

    def orient_array(self, array: np.ndarray) -> np.ndarray:
        """Mirror and turn an array (h, w)."""
        array = array[:: -1 if self.vflip else 1, :: -1 if self.flip else 1]
        return np.ascontiguousarray(np.rot90(array, self.turns))

    def orient_pixels(self, pixels: Tensor) -> Tensor:
        """Mirror and turn an image (3, h, w)."""
        axes = [axis for axis, mirrored in ((1, self.vflip), (2, self.flip)) if mirrored]
        return pixels.flip(axes).rot90(self.turns, (1, 2)).contiguous()
