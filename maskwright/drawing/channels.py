"""What people are shown of images that have other channels than red, green and blue."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def shown(pixels: npt.NDArray[Any]) -> Pixels:
    """Return what people are shown of pixels.

    Args:
        pixels: (H, W) or (H, W, C), 0 to 255, uint8 or float32.

    Returns:
        (H, W, 3) uint8: one channel as grey, two as red and green, of more the first three as red,
        green and blue.
    """
    if pixels.dtype != np.uint8:
        pixels = (pixels + np.float32(0.5)).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return repeated(pixels.reshape(pixels.shape[:2]))
    if pixels.shape[2] == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[..., :1])], 2)
    return pixels if pixels.shape[2] == 3 else np.ascontiguousarray(pixels[..., :3])


def repeated(grey: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (H, W) as three equal channels (H, W, 3)."""
    found = np.empty((*grey.shape, 3), grey.dtype)
    found[...] = grey[..., None]
    return found
