"""Large images looked at in tiles: where these lie, and at which size each goes into the network.

A tile is a square of pixels of the original image, and to the network an image like any other: a
model finds in tiles as large as its training images what it found in those. Neighbours share a
strip, in which both see the same objects. At each further level the tiles are twice as wide, and
the network sees half as much of everything: an object longer than the strip may be cut by every
tile of a level, and one longer than a tile is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..errors import OptionError, whole_number
from .preparation import Resize

LEAST = 64  # pixels a side of a tile: what networks for photos make a few cells of
MOST_OVERLAP = 0.9
MOST_LEVELS = 12


@dataclass(frozen=True)
class Tile:
    """A part of an image, in whole pixels of it.

    Attributes:
        level: 0 for the smallest tiles.
        top, left, bottom, right: first row and column, and those behind the last.
    """

    level: int
    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy, where its pixels are."""
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class Tiling:
    """How a large image is cut.

    Attributes:
        side: of the tiles of level 0, in pixels of the original image.
        overlap: share of its side that a tile has in common with the next one, at least.
        levels: how many sizes of tiles, each twice the one before.
    """

    side: int
    overlap: float = 0.2
    levels: int = 1

    def __post_init__(self) -> None:
        whole_number("tile", self.side)
        levels = whole_number("tile_levels", self.levels)
        if levels > MOST_LEVELS:
            raise OptionError(f"tile_levels={levels}: expected 1 to {MOST_LEVELS}, 2 is usual")
        known = isinstance(self.overlap, int | float) and not isinstance(self.overlap, bool)
        if not known or not 0 < self.overlap <= MOST_OVERLAP:
            raise OptionError(
                f"overlap={self.overlap}: expected the share of a tile that it has in common with "
                f"the next one, above 0 (what two tiles both see tells which objects are one) and "
                f"at most {MOST_OVERLAP}, such as 0.2"
            )

    @property
    def strip(self) -> int:
        """Pixels that neighbours of level 0 have in common, at least."""
        return self.side - step(self.side, self.overlap)

    def fits(self, size: tuple[int, int]) -> bool:
        """Tell whether an image (height, width) is no larger than a tile."""
        return max(size) <= self.side

    def tiles(self, size: tuple[int, int]) -> list[list[Tile]]:
        """Return the tiles of an image (height, width) by level, row by row.

        The last of a row or column is moved inside. The last level is one at which a single tile
        shows the image, if `levels` goes so far.

        Example:
            >>> [[tile.box for tile in level] for level in Tiling(4, 0.5, 2).tiles((4, 8))]
            [[(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4)], [(0, 0, 8, 4)]]
        """
        found: list[list[Tile]] = []
        for level in range(self.levels):
            sides = [min(self.side * 2**level, length) for length in size]
            places = [
                starts(length, side, self.overlap) for length, side in zip(size, sides, strict=True)
            ]
            found.append(
                [Tile(level, y, x, y + sides[0], x + sides[1]) for y, x in product(*places)]
            )
            if len(found[-1]) == 1:
                break
        return found

    def rule(self, resize: Resize, level: int) -> Resize:
        """Return how tiles of a level are resized: all by the factor of a whole square one.

        An image may be less high than a tile; by a rule for sides it would be seen larger.

        Args:
            resize: the rule for images as large as a tile.
            level: of the tiles.
        """
        if resize.factor is not None:
            return resize.scaled(0.5**level)
        if resize.one_size:
            return resize
        side = self.side * 2**level
        return replace(resize, short=None, long=None, factor=resize.scale(side, side))

    def require(self, resize: Resize, divisor: int) -> None:
        """Make sure that the network sees enough of a tile.

        Args:
            resize: the rule for images as large as a tile.
            divisor: of the sides that the network takes.

        Raises:
            OptionError: if a tile is smaller than the smallest of them or `LEAST`, or becomes so.
        """
        least = max(divisor, LEAST)
        seen = min(self.rule(resize, 0).target_size(self.side, self.side))
        large = "give tiles as large as the images that the model was trained on"
        if seen < least:
            mend = large + (", or a larger imgsz" if seen < self.side else "")
            raise OptionError(
                f"tile={self.side}: a tile of {self.side} pixels a side is {seen} pixels to the "
                f"network, and at least {least} are needed: {mend}"
            )
        if self.side < least:
            raise OptionError(
                f"tile={self.side}: a tile has {self.side} pixels of the image a side, and at "
                f"least {least} are needed, however large the network sees them: {large}"
            )


def step(window: int, overlap: float) -> int:
    """Return how far from one window to the next, in whole pixels."""
    return max(int(window * (1 - overlap)), 1)


def starts(length: int, window: int, overlap: float = 0.5) -> list[int]:
    """Return where windows begin that overlap by a share of their length; the last is moved inside.

    Example:
        >>> starts(10, 4), starts(4, 4), starts(10, 4, 0.25)
        ([0, 2, 4, 6], [0], [0, 3, 6])
    """
    apart = step(window, overlap)
    count = 1 + math.ceil(max(length - window, 0) / apart)
    return [min(number * apart, length - window) for number in range(count)]


def ramps(length: int, begins: Sequence[int], window: int) -> list[list[float]]:
    """Return weights (window,) of windows that begin at these places: their sum is 1 everywhere.

    They fall in a straight line from the middle of a window to its edges, where it knows least.

    Args:
        length: of the whole.
        begins: where the windows begin, so that they cover it.
        window: their length.
    """
    ramp = [window / 2 - abs(place + 0.5 - window / 2) for place in range(window)]
    cover = [0.0] * length
    for begin in begins:
        for place, weight in enumerate(ramp):
            cover[begin + place] += weight
    return [
        [weight / cover[begin + place] for place, weight in enumerate(ramp)] for begin in begins
    ]
