"""What a service refuses: the bounds of a request, and of all that is in the house at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..data.pixels.limits import check_pixels
from ..errors import OptionError, whole_number
from ..structures.tiling import starts
from ..tasks.base import Settings

GUESTS = 8  # full bodies that all requests together may hold
WORK = 2  # times the pixels of the largest image: what may go through a network for one image
AT_ONCE = 0.2  # of these pixels: what may go through at once, as a network takes 300 bytes a pixel
WINDOWS = 4  # times that a pixel is looked at in windows that overlap by half


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        status: of the answer.
        wait: seconds after which to ask again; None: never.
    """

    def __init__(self, status: int, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.status, self.wait = status, wait


@dataclass(frozen=True)
class Limits:
    """Bounds of a service.

    Attributes:
        megabytes: most of a request's body.
        megapixels: most of an image, before it is decoded.
        files: most of one request.
        queue: most images of one model that are being read, wait or are computed; beyond, a client
            is asked to come again.
        deadline: seconds after which a request is given up.
        batch: most images that are computed at once.
        wait: milliseconds that an image waits for others that are on their way.

    Raises:
        OptionError: if one is out of range.
    """

    megabytes: float = 64.0
    megapixels: float = 100.0
    files: int = 16
    queue: int = 64
    deadline: float = 60.0
    batch: int = 1
    wait: float = 3.0

    def __post_init__(self) -> None:
        for name in ("files", "queue", "batch"):
            whole_number(name, getattr(self, name))
        for name in ("megabytes", "megapixels", "deadline", "wait"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 <= value < 1e9 or (name != "wait" and not value):
                raise OptionError(f"{name} is a positive number, got {value}")
        if self.files > self.queue:
            raise OptionError(
                f"files={self.files} of one request must find room in queue={self.queue}"
            )

    @property
    def bytes(self) -> int:
        """Most bytes of a body."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Most pixels of an image."""
        return int(self.megapixels * 1e6)

    def require_image(self, size: tuple[int, int], rule: object, settings: Settings) -> None:
        """Make sure that an image is no larger, and makes no more work, than is allowed.

        Args:
            size: (height, width) as its header has it.
            rule: how it is resized.
            settings: of the prediction.

        Raises:
            RefusedError: if it is or does.
            TooLargeError: if no part of the program may read it.
        """
        height, width = size
        if height * width > self.pixels:
            raise RefusedError(
                413,
                f"the image has {width} x {height} pixels, and this service takes "
                f"{self.megapixels:g} megapixels: send a smaller one, or parts of it",
            )
        check_pixels(height, width, "the image")
        whole = settings.tiling is None or settings.tiling.fits(size)
        if whole and settings.part is None:
            most = max(
                math.prod(one.target_size(*size))
                for one in settings.rules(rule)  # type: ignore[arg-type]
            )
            if most > AT_ONCE * self.pixels:
                raise RefusedError(
                    413,
                    f"the image would have {most / 1e6:,.0f} megapixels for the network, and this "
                    f"service computes {AT_ONCE * self.megapixels:g} at once: ask for a smaller "
                    "imgsz, the long side, or for tiles",
                )
        work = network_pixels(size, rule, settings)
        if work > WORK * self.pixels:
            raise RefusedError(
                413,
                f"{work / 1e6:,.0f} megapixels would go through the network for this image, and "
                f"this service computes {WORK * self.megapixels:g}: ask for a smaller imgsz, "
                "larger tiles with less overlap, or fewer sizes of tta",
            )


def network_pixels(size: tuple[int, int], rule: object, settings: Settings) -> int:
    """Return how many pixels go through the network for an image of this (height, width)."""
    tiling = settings.tiling
    parts = [(rule, size, 1)]
    if tiling is not None and not tiling.fits(size):
        parts = []
        for level in range(tiling.levels):
            sides = [min(tiling.side * 2**level, length) for length in size]
            counts = [
                len(starts(length, side, tiling.overlap))
                for length, side in zip(size, sides, strict=True)
            ]
            parts.append((tiling.rule(rule, level), (sides[0], sides[1]), counts[0] * counts[1]))  # type: ignore[arg-type]
            if counts == [1, 1]:
                break
    total = 0
    for base, seen, count in parts:
        for one in settings.rules(base):  # type: ignore[arg-type]
            height, width = one.target_size(*seen)
            total += height * width * count
    return total * (1 if settings.part is None else WINDOWS)
