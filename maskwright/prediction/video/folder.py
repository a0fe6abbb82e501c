"""A folder of images as the frames of a video, in the order of their names."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..reading import Reading, read
from ..sources import Sources
from ..windows import idle_window_warning, own_window_warning
from .reading import USUAL_RATE, Choice, Frame

LOOKED_AT = 10  # frames of an animation that tell its rate


@dataclass(frozen=True)
class FrameSource:
    """Images that are the frames of a video.

    Attributes:
        sources: the images in their order.
        path: what the user calls them.
        name: what they are called in files and messages.
        rate: so many a second; None: `USUAL_RATE`.
        reading: see `reading.read`.
        window: the option of the user; None: there is none.
        kind: tells it from a `VideoSource`.
    """

    sources: Sources
    path: str
    name: str
    rate: Fraction | None
    reading: Reading
    window: Any = None
    kind: Literal["frames"] = "frames"


def animation_rate(sources: Sources) -> Fraction | None:
    """Return the frames a second of the animation (GIF, WebP, PNG) whose pages images are, or None.

    It is that of the first frames, of which each tells how long it is shown.
    """
    first = sources.items[0]
    if not isinstance(first.data, Path) or any(one.data != first.data for one in sources):
        return None
    from PIL import Image

    told = []
    # Decoders raise what they like on broken bytes; whoever reads the frames says so.
    with suppress(Exception), Image.open(first.data) as image:
        for number in range(min(len(sources), LOOKED_AT)):
            image.seek(number)
            image.load()
            told.append(Fraction(image.info.get("duration", 0)))
    length = sum(told, Fraction(0)).limit_denominator(1000)
    return len(told) * 1000 / length if length > 0 else None


class FrameFolder:
    """What `Video` is, of a folder of images; one that cannot be read is a broken frame.

    Attributes:
        odd: what is told in the end of the samples: infinite, constant, or of 8 bits where a window
            was asked for; "": nothing.
    """

    live = sound = False
    lacking = ""  # of what a file tells
    aspect = Fraction(1)

    def __init__(self, source: FrameSource) -> None:
        self.source, self.broken, self.reason, self.odd = source, 0, "", ""
        self.rate = source.rate or USUAL_RATE
        self.tick = 1 / self.rate
        self.frames: int | None = len(source.sources)
        self.seconds: Fraction | None = self.frames / self.rate

    def close(self) -> None:
        """Nothing is open between two images."""

    def read(self, choice: Choice) -> Generator[Frame]:
        """Yield the frames that are chosen; `fps` is their rate here, and chooses none.

        Raises:
            ValueError: behind the last, if none could be read.
        """
        source, odd, told, stretched = self.source, list[str](), set[str](), False
        seen = idle = 0
        for number, item in enumerate(source.sources):
            if number % choice.stride:
                continue
            try:
                loaded = read(item, source.reading, None, told)
            except ValueError as error:
                self.broken += 1
                self.reason = self.reason or str(error)
                continue
            first = loaded.deep and source.reading.window is None and not stretched
            stretched = stretched or first
            seen, idle = seen + 1, idle + (loaded.pixels.dtype == np.uint8)
            odd += [f"{item.name}: {loaded.odd}"] if loaded.odd else []
            yield Frame(
                loaded.pixels,
                number,
                number * self.tick,
                loaded.load_ms,
                loaded.source,
                own_window_warning(source.reading.model) if first else "",
            )
        texts = odd[:1] if len(odd) < 2 else [f"{len(odd)} frames have odd samples; {odd[0]}"]
        texts += filter(None, [idle_window_warning(source.window, idle, seen)])
        self.odd = "; ".join(texts)
        if self.broken and self.broken * choice.stride >= len(self.source.sources):
            raise ValueError(
                f"{self.source.path}: none of the {self.broken} frames could be read; the first: "
                f"{self.reason}"
            )
