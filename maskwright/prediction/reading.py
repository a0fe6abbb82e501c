"""Images of a source into memory, one after the other; what cannot be read among many is told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..channels import describe_channels, parse_channels, parse_one_page
from ..data.pixels.arrays import picked
from ..data.pixels.depth import describe_oddity, is_constant, to_pixels
from ..data.pixels.lazy import LazyPixels
from ..data.pixels.picture import open_picture
from ..data.pixels.selection import RefusedError, chosen_channels
from ..data.records import Dataset
from ..drawing.channels import shown
from ..errors import OptionError
from ..models.meta import Meta
from ..structures import Resize, Tiling
from ..tasks.base import Settings
from ..text import one_line, printable
from ..window import Window
from .memory import MemoryGuard
from .sources import Source, Sources
from .windows import chosen_window


@dataclass(frozen=True)
class Loaded:
    """An image in memory.

    Attributes:
        source: where it came from.
        pixels: (H, W, C) as the network looks at them, see `depth.to_pixels`; an array or
            `LazyPixels`.
        load_ms: milliseconds it took to read.
        deep: whether its samples had more than 8 bits, and not all one value.
        frame: of a video: how many frames stand before it.
        time: of a video: seconds from its beginning.
        pages: images in its file.
        odd: what is told of its samples, see `depth.describe_oddity`; "": nothing.
    """

    source: Source
    pixels: Any
    load_ms: float
    deep: bool = False
    frame: int | None = None
    time: float | None = None
    pages: int = 1
    odd: str = ""

    @property
    def photo(self) -> Any:
        """The same as people see them, (H, W, 3) uint8 RGB."""
        return self.pixels.photo() if isinstance(self.pixels, LazyPixels) else shown(self.pixels)


@dataclass(frozen=True)
class Reading:
    """What is taken of image files for a model.

    Attributes:
        window: see `depth.to_pixels`.
        channels: numbers of those that are taken; None: colours or grey.
        count: channels of the network.
        model: its name.
        trained: the channels that it was trained with, None: colours.
        asked: the channels are an option of the user, not those of the training.
        page: which image of files of several, where it is the same for all.
    """

    window: Window | str | None = None
    channels: tuple[int, ...] | None = None
    count: int = 3
    model: str = "the model"
    trained: tuple[int, ...] | None = None
    asked: bool = False
    page: int | None = None

    @classmethod
    def of(cls, meta: Meta, count: int, window: Any, channels: Any, page: Any) -> Reading:
        """Read the options of a prediction; see `Predictor.reading`.

        Args:
            meta: of the model.
            count: channels of its network.
            window: the option, as `channels` and `page` are.
        """
        asked = parse_channels(channels)
        trained = meta.taken
        reading = cls(
            chosen_window(meta, window, stacklevel=5),
            trained if asked is None else asked,
            count,
            meta.model,
            trained,
            asked is not None,
            parse_one_page(page),
        )
        if asked is not None:
            try:
                reading.check(len(asked), f"channels={','.join(map(str, asked))}")
            except ValueError as error:
                raise OptionError(str(error)) from None
        return reading

    def apply(self, dataset: Dataset) -> None:
        """Let a data set read its images so.

        Raises:
            ValueError: if the network has other channels than its images; of image files the first
                is looked at, and the others when they are read.
        """
        dataset.window, dataset.page, dataset.channels = self.window, self.page, self.channels
        if dataset.stored:
            dataset.channels = None
            self.check(3, str(dataset.source))
        elif len(dataset):
            try:
                picture = open_picture(dataset[0].path, self.page, self.channels)
            except RefusedError as error:
                raise ValueError(f"{error}{self.lacking}") from None
            except ValueError:  # whoever reads it tells
                return
            picture.close()
            self.check(picture.channels, picture.name)

    def check(self, channels: int, name: str) -> None:
        """Raise ValueError unless an image of so many channels is one for the network."""
        if channels != self.count and (channels, self.count) != (1, 3):
            held = "1 channel" if channels == 1 else f"{channels} channels"
            few = channels < self.count
            advice = ",".join(str(min(number, channels - 1)) for number in range(self.count))
            raise ValueError(
                f"{name} has {held}, and {self.model} was trained with "
                f"{describe_channels(self.trained)}: choose as many by channels=, "
                + (f"of which one may stand twice, as in channels={advice}" if few else "")
                + ("" if few else f"as in channels={advice}")
                + (", or one as grey, channels=0" if few and self.count == 3 else "")
            )

    def check_video(self) -> None:
        """Raise OptionError unless frames of a video, red, green and blue, are for the network."""
        if self.count == 1 and not self.asked:
            return
        advice = ",".join(str(min(number, 2)) for number in range(self.count))
        try:
            taken = chosen_channels(self.channels, 3, (0, 1, 2), "the video")
        except RefusedError as error:
            raise OptionError(
                f"{error}{self.lacking}; give channels= that a video has (0 red, 1 green, 2 "
                f"blue), as in channels={advice}"
            ) from None
        try:
            self.check(len(taken), "the video")
        except ValueError as error:
            raise OptionError(str(error)) from None

    def of_frame(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the network looks at of a frame of a video.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            (H, W, C): the channels that were asked for or trained with; of a network with one, that
            nobody chose here, the grey of ITU-R BT.601.
        """
        if self.count == 1 and not self.asked:
            from PIL import Image

            return np.array(Image.fromarray(pixels).convert("L"))[..., None]
        if self.channels is None:
            return pixels
        samples = picked(pixels, self.channels, "the video")
        return samples[..., None] if self.count == 1 else to_pixels(samples)

    @property
    def lacking(self) -> str:
        """What to say where an image lacks channels that nobody asked for."""
        if self.asked or self.trained is None:
            return ""
        return f": {self.model} was trained with {describe_channels(self.trained)}"


def read_all(
    sources: Sources,
    reading: Reading,
    memory: MemoryGuard,
    resizes: Sequence[Resize],
    settings: Settings,
) -> Iterator[Loaded]:
    """Yield the images of a source; of many, one that cannot be used is warned of and passed over.

    Args:
        sources: the images.
        reading: what is taken of the files.
        memory: refuses what cannot fit.
        resizes: each of the rules by which an image is looked at.
        settings: of the prediction; tiles are checked one by one, later.

    Raises:
        ValueError: if the only image or all images cannot be read.
    """
    failed = several = 0
    said: set[str] = set()
    for source in sources:
        try:
            loaded = read(source, reading, settings.tiling, said)
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
        several += warn_of(loaded)
        yield loaded
    if several > 1:
        warnings.warn(
            f"{several} of {len(sources)} files have several pages or frames: of each only the "
            "first was taken; page=all takes all",
            stacklevel=2,
        )
    if failed == len(sources):
        raise ValueError(f"none of the {failed} images could be read")
    if failed:
        warnings.warn(
            f"{failed} of {len(sources)} images could not be read and were skipped", stacklevel=2
        )


def read(
    source: Source, reading: Reading, tiling: Tiling | None = None, told: set[str] | None = None
) -> Loaded:
    """Read the pixels of an image.

    Args:
        source: the image.
        reading: what is taken of its file.
        tiling: how it will be cut: one that is larger than a tile stays in its file, if that can
            be read by window.
        told: what was said of files before, so that it is said once and not of each page.

    Raises:
        ValueError: if it cannot be read, or has other channels than the model was trained with; the
            message names the file.
    """
    start = time.perf_counter()
    try:
        picture = open_picture(source.data, source.page, reading.channels)
        try:
            reading.check(picture.channels, picture.name)
            source = replace(source, axes=picture.axes)
            if picture.said:
                said = one_line(f"{source.path or source.name}: {picture.said}")
                told = set() if told is None else told
                if said not in told:
                    warnings.warn(said, stacklevel=3)
                told.add(said)
            own = picture.window  # of the file, where nobody names one
            deep = picture.dtype != np.uint8 and own is None
            window = own if reading.window is None else reading.window
            if tiling is not None and picture.by_window and not tiling.fits(picture.size):
                lazy = LazyPixels(picture, reading.window, one=reading.count == 1)
                return Loaded(
                    source, lazy, 1e3 * (time.perf_counter() - start), deep, pages=picture.pages
                )
            samples = picture.whole()
        except ValueError:
            picture.close()
            raise
        picture.close()
    except ValueError as error:
        text = f"{error}{reading.lacking}" if isinstance(error, RefusedError) else str(error)
        raise ValueError(f"{source.name}: {text}" if source.path is None else text) from None
    if reading.count == 1:
        samples = samples.reshape(*samples.shape[:2], 1)
    odd = ""
    if picture.dtype != np.uint8:
        odd = describe_oddity(samples, declared=picture.missing is not None)
    deep = deep and not is_constant(samples)  # which nothing stretches
    pixels = to_pixels(samples, window)
    load_ms = 1e3 * (time.perf_counter() - start)
    return Loaded(source, pixels, load_ms, deep, pages=picture.pages, odd=odd)


def warn_of(loaded: Loaded) -> bool:
    """Warn of odd samples, and of a file with pages or frames of which the first is taken alone.

    Returns:
        Whether it has such pages.
    """
    if loaded.odd:
        warnings.warn(one_line(f"{loaded.source.name}: {loaded.odd}"), stacklevel=3)
    several = loaded.pages > 1 and loaded.source.page is None
    if several:
        warnings.warn(
            f"{one_line(loaded.source.name)} has {loaded.pages} pages or frames: only the first is "
            "taken; page=all looks at each of them, page=1 at the second",
            stacklevel=3,
        )
    return several
