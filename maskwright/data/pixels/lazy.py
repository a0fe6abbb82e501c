"""The pixels of an image that is too large for memory: read where they are cut out."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskwright.window import Window

from .depth import RULE, own_window, to_eight_bit, to_pixels
from .picture import Picture

SAMPLE = 8  # parts along each side that give the window of a deeper image of its own
PART = 512  # pixels a side of them


class LazyPixels:
    """An image that stays in its file, to be cut like the array (H, W, C) of `depth.to_pixels`.

    `numpy.asarray` reads it whole.

    Args:
        picture: the open image.
        window: see `to_pixels`. A rule looks at parts spread evenly over an image that is larger
            than these.
        one: a single channel stays one, and does not become three.
        owner: whose file it is, if this is another view of the same image; then in 8-bit RGB.

    Raises:
        ValueError: if it cannot be read.

    Example:
        >>> from .picture import open_picture
        >>> lazy = LazyPixels(open_picture(np.arange(12, dtype=np.uint8).reshape(3, 4)))
        >>> lazy.shape, lazy[1:3, 2:4][..., 0].tolist()
        ((3, 4, 3), [[6, 7], [10, 11]])
    """

    ndim = 3

    def __init__(
        self,
        picture: Picture,
        window: Window | str | None = None,
        *,
        one: bool = False,
        owner: LazyPixels | None = None,
    ) -> None:
        self.picture, self._owner = picture, owner
        self._convert = to_pixels if owner is None else to_eight_bit
        self.deep = picture.dtype != np.uint8
        self.dtype = np.dtype(np.float32 if self.deep and owner is None else np.uint8)
        several = owner is not None or (picture.channels == 1 and not one)
        channels = 3 if several else picture.channels
        self.shape: tuple[int, int, int] = (*picture.size, channels)
        self._window = window
        if self.deep and not isinstance(window, tuple):
            self._window = own_window(self._spread(), window if window is not None else RULE)

    def __del__(self) -> None:
        if self._owner is None:
            self.picture.close()

    def photo(self) -> LazyPixels:
        """Return the same image as people see it, (H, W, 3) uint8 RGB."""
        return LazyPixels(self.picture, self._window, owner=self)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return the pixels (h, w, C) of rows and columns, two slices without steps.

        Raises:
            ValueError: if they cannot be read.
        """
        (top, bottom, _), (left, right, _) = (
            one.indices(side) for one, side in zip(part, self.shape[:2], strict=True)
        )
        if top >= bottom or left >= right:
            size = max(bottom - top, 0), max(right - left, 0)
            return np.zeros((*size, self.shape[2]), self.dtype)
        found = self._convert(self.picture.read(top, left, bottom, right), self._window)
        return found[..., : self.shape[2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the whole image."""
        whole = self._convert(self.picture.whole(), self._window)[..., : self.shape[2]]
        return whole if dtype is None else whole.astype(dtype)

    def _spread(self) -> np.ndarray:
        """Return samples of the image, all of a small one."""
        height, width = self.picture.size
        if height * width <= (SAMPLE * PART) ** 2:
            return self.picture.whole()
        parts = []
        for y in np.linspace(0, max(height - PART, 0), SAMPLE).astype(int).tolist():
            for x in np.linspace(0, max(width - PART, 0), SAMPLE).astype(int).tolist():
                part = self.picture.read(y, x, min(y + PART, height), min(x + PART, width))
                parts.append(part.reshape(-1, *part.shape[2:]))
        return np.concatenate(parts)
