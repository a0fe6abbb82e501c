"""The options of a prediction that are about videos, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from glob import has_magic
from numbers import Real
from pathlib import Path
from typing import Any

from ...errors import OptionError, nearest, whole_number
from ..reading import Reading
from ..sources import Sources, count_pages
from .folder import FrameSource, animation_rate
from .reading import Choice

METHODS = ("bytetrack", "ocsort", "sort", "botsort")


class OutsideError(OptionError):
    """A line of which nothing is in the picture of a video."""


@dataclass(frozen=True)
class VideoOptions:
    """How a video is looked at.

    Attributes:
        choice: which frames.
        track: how finds are followed, one of `METHODS`; None: not.
        line: x1, y1, x2, y2 of the line whose crossings are counted; None: none are.
    """

    choice: Choice
    track: str | None
    line: tuple[float, float, float, float] | None

    @classmethod
    def parse(cls, *, stride: Any, fps: Any, track: Any, line: Any) -> VideoOptions:
        """Return the options as users write them.

        Raises:
            OptionError: if one is wrong, or contradicts another.

        Example:
            >>> VideoOptions.parse(stride=1, fps=None, track="true", line="0,50,100,50").line
            (0.0, 50.0, 100.0, 50.0)
        """
        stride = whole_number("stride", stride)
        if fps is not None and stride != 1:
            raise OptionError(f"stride={stride} and fps={fps} both choose frames: give one of them")
        if fps is not None and not (_is_number(fps) and 0 < fps < math.inf):
            raise OptionError(f"fps is a number of frames a second above 0, got {fps!r}")
        choice = Choice(stride, None if fps is None else Fraction(str(fps)))
        method, ends = _method(track), _line(line)
        if ends is not None and method is None:
            raise OptionError("line counts what is followed from frame to frame: give track=true")
        return cls(choice, method, ends)

    def refuse(self, *, show: bool) -> None:
        """Make sure that nothing was asked that videos have not.

        Raises:
            OptionError: naming the option.
        """
        if show:
            raise OptionError(
                "show=true opens a window for each image: of a video give save=true and play the "
                "file, or take its results in Python one by one"
            )

    def check_line(self, name: str, height: int, width: int) -> None:
        """Make sure that some of the line is in the picture of a video: else nobody could cross it.

        Args:
            name: of the video.
            height: of its upright frames, in pixels.
            width: as `height`.

        Raises:
            OutsideError: if the line is wholly outside.
        """
        if self.line is None:
            return
        x1, y1, x2, y2 = self.line
        # Which part of the line is between left and right and between top and bottom (Liang and
        # Barsky 1984), as shares of its length.
        first, last = 0.0, 1.0
        for start, step, size in ((x1, x2 - x1, width), (y1, y2 - y1, height)):
            if step:
                enters, leaves = sorted((-start / step, (size - start) / step))
                first, last = max(first, enters), min(last, leaves)
            elif not 0 <= start <= size:
                last = -1.0
        if first > last:
            ends = ",".join(f"{value:g}" for value in self.line)
            raise OutsideError(
                f"line={ends} is wholly outside of {name}, which is {width} pixels wide and "
                f"{height} high: nothing could cross it"
            )

    def frames(self, source: Any, sources: Sources, reading: Reading) -> list[FrameSource]:
        """Return images as the frames of a video if that is what the options are about, else none.

        Args:
            source: as the user gave it.
            sources: the images; none if source names videos.
            reading: see `reading.read`.

        Raises:
            OptionError: if it is a single image.
        """
        asked = {
            "stride": self.choice.stride != 1,
            "fps": self.choice.fps is not None,
            "track": self.track is not None,
        }
        for name in (name for name, given in asked.items() if given and len(sources)):
            if sources.single:
                pages, _ = count_pages(sources.items[0])
                mend = f" of {pages}: page=all takes them as frames" if pages > 1 else ""
                raise OptionError(
                    f"{name} is for videos, cameras and folders of frames, and source is one image"
                    + mend
                )
            path = str(source) if isinstance(source, str | Path) else "frames"
            called = Path(path).name if not has_magic(path) else Path(path).parent.name
            rate = self.choice.fps or animation_rate(sources)
            return [FrameSource(sources, path, called or "frames", rate, reading)]
        return []


def _method(track: Any) -> str | None:
    word = track.strip().lower() if isinstance(track, str) else track
    word = {"true": True, "false": None, "none": None, False: None}.get(word, word)
    if word is True:
        return METHODS[0]
    if word is not None and word not in METHODS:
        meant = nearest(str(word), METHODS)
        raise OptionError(f"track is true or one of {', '.join(METHODS)}, got {track!r}{meant}")
    return word


def _line(line: Any) -> tuple[float, float, float, float] | None:
    if line is None:
        return None
    try:
        parts = line.split(",") if isinstance(line, str) else line
        x1, y1, x2, y2 = (float(part) for part in parts)
    except (TypeError, ValueError):
        x1 = y1 = x2 = y2 = math.nan
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or (x1, y1) == (x2, y2):
        raise OptionError(
            f"line is x1,y1,x2,y2, two different points in pixels of the video, got {line!r}"
        )
    return x1, y1, x2, y2


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
