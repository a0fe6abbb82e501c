"""The class of every pixel of a large image, from the probabilities of its tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...structures import Tile
from ...structures.tiling import ramps
from ..assembling import Assembler
from .settings import SemanticSettings
from .views import HALF, SemanticFound


class MapAssembler(Assembler):
    """Blends the probabilities of tiles, with weights that fall to their edges (see `ramps`).

    Of the image there is a band as high as a tile in memory, beside the classes: what the tiles of
    the next row do not reach is decided. Where a band would be large it is kept in half precision.

    Args:
        settings: of the prediction, with a tiling.
        size: (height, width) of the image.
    """

    def __init__(self, settings: SemanticSettings, size: tuple[int, int]) -> None:
        super().__init__(replace(settings, probs=True))
        assert settings.tiling is not None
        (tiles,) = settings.tiling.tiles(size)
        self.size, self.keep = size, settings.probs
        self._down = _weights(size[0], {tile.top for tile in tiles}, tiles[0].size[0])
        self._across = _weights(size[1], {tile.left for tile in tiles}, tiles[0].size[1])
        self._labels = np.zeros(size, np.uint8)
        self._probs: np.ndarray | None = None
        self._band: np.ndarray | None = None  # (C, h, W), from row `_top` on
        self._top = 0

    def add(self, tile: Tile, found: SemanticFound, pixels: np.ndarray) -> None:
        """Take over the probabilities of a tile; see `Assembler`."""
        assert found.probs is not None
        classes, height, _ = found.probs.shape
        if self._band is None:
            shape = (classes, height, self.size[1])
            self._band = np.zeros(shape, np.float16 if np.prod(shape) > HALF else np.float32)
            if self.keep:
                self._probs = np.empty((classes, *self.size), np.float32)
        if tile.top > self._top:
            self._decide(tile.top - self._top)
        weight = self._down[tile.top][:, None] * self._across[tile.left]
        self._band[:, :, tile.left : tile.right] += found.probs * weight

    def finish(self) -> SemanticFound:
        """Return the classes of the image; see `Assembler`."""
        assert self._band is not None
        self._decide(self._band.shape[1])
        return SemanticFound(self._labels, self._probs)

    def _decide(self, rows: int) -> None:
        """Choose the classes of the first rows of the band, and move it on by as many."""
        assert self._band is not None
        done, place = self._band[:, :rows], slice(self._top, self._top + rows)
        self._labels[place] = done.argmax(0)
        if self._probs is not None:
            self._probs[:, place] = done
        left = self._band.shape[1] - rows
        self._band[:, :left] = self._band[:, rows:].copy()
        self._band[:, left:] = 0
        self._top += rows


def _weights(length: int, begins: set[int], window: int) -> dict[int, np.ndarray]:
    """Return the weights (window,) of windows along an axis, by where they begin."""
    order = sorted(begins)
    made = ramps(length, order, window)
    return {begin: np.array(one, np.float32) for begin, one in zip(order, made, strict=True)}
