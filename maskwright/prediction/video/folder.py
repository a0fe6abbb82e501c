"""A folder of images as the frames of a video, in the order of their names."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..reading import Reading, read
from ..sources import Sources
from .reading import USUAL_RATE, Choice, Frame


@dataclass(frozen=True)
class FrameSource:
    """Images that are the frames of a video.

    Attributes:
        sources: the images in their order.
        path: what the user calls them.
        name: what they are called in files and messages.
        rate: so many a second; None: `USUAL_RATE`.
        reading: see `reading.read`.
        kind: tells it from a `VideoSource`.
    """

    sources: Sources
    path: str
    name: str
    rate: Fraction | None
    reading: Reading
    kind: Literal["frames"] = "frames"


class FrameFolder:
    """What `Video` is, of a folder of images; one that cannot be read is a broken frame."""

    live = sound = False
    aspect = Fraction(1)

    def __init__(self, source: FrameSource) -> None:
        self.source, self.broken, self.reason = source, 0, ""
        self.rate = source.rate or USUAL_RATE
        self.tick = 1 / self.rate
        self.frames: int | None = len(source.sources)
        self.seconds: Fraction | None = self.frames / self.rate
        self.reached, self.ended = Fraction(0), False

    def close(self) -> None:
        """Nothing is open between two images."""

    def read(self, choice: Choice) -> Generator[Frame]:
        """Yield the frames that are chosen; `fps` is their rate here, and chooses none.

        Raises:
            ValueError: behind the last, if none could be read.
        """
        for number, item in enumerate(self.source.sources):
            if number % choice.stride:
                continue
            try:
                loaded = read(item, self.source.reading)
            except ValueError as error:
                self.broken += 1
                self.reason = self.reason or str(error)
                continue
            self.reached = number * self.tick
            yield Frame(loaded.pixels, number, self.reached, loaded.load_ms, item)
        self.ended = True
        if self.broken and self.broken * choice.stride >= len(self.source.sources):
            raise ValueError(
                f"{self.source.path}: none of the {self.broken} frames could be read; the first: "
                f"{self.reason}"
            )
