"""What a task does with the tiles of a large image: one find of all that was found in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from ..structures import Tile


class Assembler(ABC):
    """Takes what was found in the tiles of one image, and makes of it what is in the image.

    Attributes:
        settings: by which the tiles are looked at.
        PARTIAL: whether something can be made of some of the tiles, where a signal ends the look.
    """

    PARTIAL: ClassVar[bool] = False

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def add(self, tile: Tile, found: Any, pixels: np.ndarray) -> None:
        """Take over a tile; they come in the order of `Tiling.tiles`.

        Args:
            tile: where it lies.
            found: what `Task.decode` returned of it as of an image.
            pixels: (h, w, 3) uint8, the tile.
        """

    @abstractmethod
    def finish(self) -> Any:
        """Return what `Task.decode` returns of an image, in its pixels."""
