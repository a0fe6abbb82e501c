"""The images of a TIFF of several pages: which pages are images of their own, and which channels.

OME-TIFF, ImageJ, LSM, slides and others declare their axes, which tifffile reads: channels (C) and
samples (S) belong to one image, every other combination (T, Z, positions, ...) is an image, in the
order of the file. Plain TIFF declares nothing: each page is an image, unless more channels are
asked for than one page has. Then its pages, if they are alike, are the channels; so is the one
longer axis of a file that declares a single channel: programs store channels as times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

_UNDECLARED = ("generic", "uniform")  # kinds of series of tifffile
_UNKNOWN = frozenset("IQ")  # axes that it names so, because nothing is said of them
# Pictures beside the slide.
_ASIDE = ("thumbnail", "label", "macro", "overview")


@dataclass(frozen=True)
class Part:
    """Samples of an image that lie in one page of a file.

    Attributes:
        page: of tifffile; None: it is declared, but missing.
        skip: bytes from the first sample of the page on, in files that describe one page alone of
            planes that follow each other.
    """

    page: Any
    skip: int = 0

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return int(self.page.keyframe.samplesperpixel)


@dataclass(frozen=True)
class Stack:
    """The images of a file.

    Attributes:
        images: of each the pages that hold its channels, in order.
        places: of each where it stands on the axes that the file declares, from 0 on, such as
            {"T": 3, "Z": 0}; of a file with several series also its "series"; empty: nothing is.
        said: how pages and channels were told apart, where it had to be decided; or "".
        together: channels that they would be as one image; 0: they are none of one.
    """

    images: tuple[tuple[Part, ...], ...]
    places: tuple[dict[str, int], ...] = ()
    said: str = ""
    together: int = 0


def find_stack(file: Any, channels: Sequence[int] | None, page: int | None) -> Stack:
    """Return the images of an open TIFF.

    Args:
        file: of tifffile.
        channels: the channels that are asked for; None: as they are.
        page: the image that is asked for; where one is, pages are never taken as channels.
    """
    if len(file.pages) == 1 and not (file.is_ome or file.is_imagej or file.is_shaped):
        return Stack(((Part(file.pages[0]),),))
    wanted = 1 + max(channels) if channels is not None and page is None else 0
    groups: list[_Series] = []
    for number, series in enumerate(file.series):
        aside = str(series.name).lower().startswith(_ASIDE)
        leading = series.axes[: len(series.axes) - len(series.keyframe.axes)]
        if series.kind in _UNDECLARED or _UNKNOWN & set(leading):
            return _pages(file, wanted)
        if not (number and aside) and not series.keyframe.is_reduced:
            groups.append(_declared(series, wanted))
    said = "; ".join(dict.fromkeys(group.said for group in groups if group.said))
    return Stack(
        tuple(tuple(image) for group in groups for image in group.images),
        tuple(
            {"series": number, **place} if len(groups) > 1 else place
            for number, group in enumerate(groups)
            for place in group.places
        ),
        said,
        groups[0].together if len(groups) == 1 else 0,
    )


def _pages(file: Any, wanted: int) -> Stack:
    """Return the images of a file that says nothing of its axes."""
    pages = [page for page in file.pages if not page.keyframe.is_reduced] or [file.pages[0]]
    parts = [Part(page) for page in pages]
    alike = len({page.keyframe.hash for page in pages}) == 1
    own, count = parts[0].samples, sum(part.samples for part in parts)
    if alike and own < wanted <= count:
        return Stack(
            (tuple(parts),),
            said=f"its {len(parts)} pages, whose axes nothing declares, are taken as channels, "
            f"because number {wanted - 1} is asked for and a page has {own}; page= takes one page",
        )
    return Stack(tuple((part,) for part in parts), together=count if alike else 0)


class _Series(NamedTuple):
    """What `Stack` says of one series."""

    images: list[list[Part]]
    places: list[dict[str, int]]
    said: str
    together: int


def _declared(series: Any, wanted: int) -> _Series:
    """Return the images of a series whose axes are known."""
    level = series.levels[0]
    keyframe = level.keyframe
    count = len(level.axes) - len(keyframe.axes)
    axes, sizes = level.axes[:count], level.shape[:count]
    pages = list(level.pages)
    total = math.prod(sizes)
    if len(pages) < total and len(pages) == 1:
        parts = [Part(pages[0], index * int(keyframe.nbytes)) for index in range(total)]
    else:
        parts = [Part(page) for page in pages] + [Part(None)] * (total - len(pages))
    longer = [axis for axis, size in zip(axes, sizes, strict=True) if size > 1]
    inner, said = "C", ""
    own, together = int(keyframe.samplesperpixel), 0
    if "C" not in longer and len(longer) == 1:
        size = sizes[axes.index(longer[0])]
        together = size * own
        if own < wanted <= together:
            inner = longer[0]
            said = (
                f"its axis {inner} of {size} is taken as channels, because number {wanted - 1} is "
                f"asked for and it declares {own}; page= takes one of them"
            )
    images: dict[tuple[tuple[str, int], ...], list[Part]] = {}
    for place, part in zip(product(*map(range, sizes)), parts, strict=True):
        spots = zip(axes, place, strict=True)
        key = tuple((axis, at) for axis, at in spots if axis != inner and axis in longer)
        images.setdefault(key, []).append(part)
    return _Series(list(images.values()), [dict(key) for key in images], said, together)
