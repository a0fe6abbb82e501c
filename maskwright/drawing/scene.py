"""A picture of many shapes, always the same: to try models on where there is no photo."""

from __future__ import annotations

import numpy as np


def drawn_scene(height: int = 800, width: int = 1216) -> np.ndarray:
    """Return a (H, W, 3) uint8 picture of discs and boxes on a gradient, always the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y * 255 / height, x * 255 / width, (x + y) % 256], 2)
    for i in range(60):
        cy, cx = rng.integers(0, height), rng.integers(0, width)
        ry, rx = rng.integers(8, 120, 2)
        colour = rng.integers(0, 256, 3)
        if i % 2:
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        else:
            inside = (abs(y - cy) < ry) & (abs(x - cx) < rx)
        picture[inside] = 0.3 * picture[inside] + 0.7 * colour
    noisy: np.ndarray = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    return noisy
