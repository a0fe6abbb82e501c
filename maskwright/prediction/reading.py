"""Images of a source into memory, one after the other; what cannot be read among many is told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.pixels.depth import is_deep, to_eight_bit
from ..data.pixels.images import image_header, load_samples
from ..data.pixels.kinds import count_frames
from ..data.pixels.lazy import LazyPixels
from ..data.pixels.picture import open_picture
from ..errors import OptionError
from ..reports.gallery import JPEG_SUFFIXES
from ..structures import Resize, Tiling
from ..tasks.base import Settings
from ..text import one_line, printable
from ..window import Window
from .memory import MemoryGuard
from .sources import Source, Sources


@dataclass(frozen=True)
class Loaded:
    """An image in memory.

    Attributes:
        source: where it came from.
        pixels: (H, W, 3) uint8 RGB, an array or `LazyPixels`.
        load_ms: milliseconds it took to read.
        deep: whether its samples had more than 8 bits.
        frame: of a video: how many frames stand before it.
        time: of a video: seconds from its beginning.
    """

    source: Source
    pixels: Any
    load_ms: float
    deep: bool = False
    frame: int | None = None
    time: float | None = None


def read_all(
    sources: Sources,
    window: Window | str | None,
    memory: MemoryGuard,
    resizes: Sequence[Resize],
    settings: Settings,
) -> Iterator[Loaded]:
    """Yield the images of a source; of many, one that cannot be used is warned of and passed over.

    Args:
        sources: the images.
        window: see `data.images.load_image`.
        memory: refuses what cannot fit.
        resizes: each of the rules by which an image is looked at.
        settings: of the prediction; tiles are checked one by one, later.

    Raises:
        ValueError: if the only image or all images cannot be read.
    """
    failed = several = 0
    for source in sources:
        try:
            loaded = read(source, window, settings.tiling)
            size = loaded.pixels.shape[:2]
            if settings.tiling is None or settings.tiling.fits(size):
                name = source.path or source.name
                memory.require([size], resizes, name, part=settings.part)
        except ValueError as error:
            if sources.single or isinstance(error, OptionError):
                raise
            failed += 1
            warnings.warn(printable(f"skipped: {error}"), stacklevel=2)
            continue
        several += warn_frames(source)
        yield loaded
    if several > 1:
        warnings.warn(
            f"{several} of {len(sources)} files have several pages or frames: of each only the "
            "first was taken",
            stacklevel=2,
        )
    if failed == len(sources):
        raise ValueError(f"none of the {failed} images could be read")
    if failed:
        warnings.warn(
            f"{failed} of {len(sources)} images could not be read and were skipped", stacklevel=2
        )


def read(
    source: Source, window: Window | str | None = None, tiling: Tiling | None = None
) -> Loaded:
    """Read the pixels of an image.

    Args:
        source: the image.
        window: see `data.images.load_image`.
        tiling: how it will be cut: one that is larger than a tile stays in its file, if that can
            be read by window.

    Raises:
        ValueError: if it cannot be read; the message names the file.
    """
    start = time.perf_counter()
    try:
        data = source.data
        if tiling is not None:
            picture = open_picture(data)
            if picture.by_window and not tiling.fits(picture.size):
                lazy = LazyPixels(picture, window)
                return Loaded(source, lazy, 1e3 * (time.perf_counter() - start), lazy.deep)
            with picture:
                data = picture.whole()
        samples = load_samples(data)
    except ValueError as error:
        raise (ValueError(f"{source.name}: {error}") if source.path is None else error) from None
    pixels = to_eight_bit(samples, window)
    return Loaded(source, pixels, 1e3 * (time.perf_counter() - start), is_deep(samples))


def warn_frames(source: Source) -> bool:
    """Warn of a file with pages or an animation, of which the first image is taken alone."""
    try:
        if isinstance(source.data, Path):
            is_photo = source.data.suffix.lower() in JPEG_SUFFIXES
            frames = 1 if is_photo else image_header(source.data).frames
        else:
            frames = count_frames(source.data) if hasattr(source.data, "n_frames") else 1
    except ValueError:  # reading it has said so, or it is read in another way
        return False
    if frames > 1:
        warnings.warn(
            f"{one_line(source.name)} has {frames} pages or frames: only the first is taken; save "
            "the others as files of their own to have them looked at",
            stacklevel=3,
        )
    return frames > 1
