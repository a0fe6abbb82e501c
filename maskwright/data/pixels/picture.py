"""Images that are read by window, never whole: what tiling looks at.

A TIFF is decoded strip by strip or tile by tile (`tiff`). What other files hold can only be decoded
at once (PNG, JPEG, ...); it is, when they are opened, and windows are cut from that.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from maskwright.paths import home_path
from maskwright.stores import StoreFile
from maskwright.window import Window

from . import tiff
from .arrays import as_array, check_array, picked, read_stream, upright
from .dicom import is_dicom, read_dicom
from .kinds import count_frames
from .limits import check_pixels, own_limit
from .opening import download, open_file
from .pillow import about_end, beyond_pillow, decode, exif_warnings, opened
from .selection import chosen_page

_TAGS_CUT = "the file is cut off, and some of what it says of itself is gone: copy it again"


class Picture:
    """An open image, upright by its EXIF orientation; a context manager.

    Attributes:
        name: path, address or description of the source, for messages.
        size: (height, width).
        channels: samples of a pixel.
        dtype: of the samples, in native byte order.
        by_window: whether parts are read from the file when they are asked for; otherwise the
            image is in memory.
        pages: images in the file.
        axes: where it stands on the axes of the file, see `axes.Stack`; empty: none is declared.
        said: how pages and channels were told apart, where it had to be decided, and that the file
            is cut off; or "".
        window: (low, high) of the samples that the file recommends to look at; None: none.
        missing: the value that a file with more than 8 bits declares to stand for no value (GDAL's
            nodata); it is read as not a number. None: none is declared.

    Example:
        >>> with open_picture(np.arange(12, dtype=np.uint16).reshape(3, 4)) as picture:
        ...     picture.size, picture.channels, picture.read(1, 1, 3, 3).tolist()
        ((3, 4), 1, [[5, 6], [9, 10]])
    """

    def __init__(
        self,
        name: str,
        samples: np.ndarray | tiff.TiffWindows,
        *,
        orientation: int = 1,
        stream: BinaryIO | None = None,
        pages: int = 1,
        axes: dict[str, int] | None = None,
        said: str = "",
        window: Window | None = None,
        missing: float | None = None,
    ) -> None:
        self.window = window
        self.name, self.pages, self.said = name, pages, said
        self.axes: dict[str, int] = axes or {}
        self._stream, self._orientation, self._samples = stream, orientation, samples
        if isinstance(samples, np.ndarray):
            height, width = samples.shape[:2]
            self.channels = samples.shape[2] if samples.ndim == 3 else 1
            self.by_window = False
        else:
            height, width = samples.size
            self.channels, self.by_window = samples.channels, samples.by_window
        self.size = (width, height) if orientation > 4 else (height, width)
        kind = samples.dtype
        self.missing = None if kind == np.uint8 else missing
        self._as_stored = self.missing is None or kind.kind == "f"
        wide = np.float32 if kind.itemsize < 4 else np.float64
        self.dtype = kind if self._as_stored else np.dtype(wide)

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Return a window of samples as they are stored.

        Args:
            top, left, bottom, right: whole pixels of the upright image; the last two stand behind
                the window.

        Returns:
            (h, w) of one channel, otherwise (h, w, C); native byte order.

        Raises:
            ValueError: if the window does not lie in the image, or its pixels cannot be decoded.
        """
        height, width = self.size
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ValueError(
                f"{self.name} has {height} rows and {width} columns, the window from row {top} to "
                f"{bottom} and column {left} to {right} does not lie in it"
            )
        if self._orientation > 1:
            return self._turned(top, left, bottom, right)
        return self._stored(top, left, bottom, right)

    def whole(self) -> np.ndarray:
        """Return all samples, as `read` does.

        Raises:
            ValueError: if there are more pixels than are allowed (see `limits`), or they cannot be
                decoded.
        """
        if self.by_window:
            check_pixels(*self.size, self.name)
        return self.read(0, 0, *self.size)

    def _stored(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        if isinstance(self._samples, np.ndarray):
            return self._samples[top:bottom, left:right]
        found = self._samples.read(top, left, bottom, right)
        found = found[..., 0] if self.channels == 1 else found
        if self.missing is None or np.isnan(self.missing):
            return found
        values = found.astype(self.dtype)
        values[found == found.dtype.type(self.missing)] = np.nan
        return values

    def _turned(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Read a window of the upright image from where it stands in the stored one."""
        kind, (height, width) = self._orientation, self.size
        if kind in (3, 4, 7, 8):  # what `upright` does last is undone first
            top, bottom = height - bottom, height - top
        if kind in (2, 3, 6, 7):
            left, right = width - right, width - left
        if kind > 4:
            top, left, bottom, right = left, top, right, bottom
        return upright(self._stored(top, left, bottom, right), kind, None)


def open_picture(
    source: Any,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Picture:
    """Open an image for reading by window; to be closed, best by `with`.

    Args:
        source: path, http(s) URL, bytes of an encoded image, an open file or other binary stream
            (read from its beginning), PIL image; or an array (H, W), (H, W, 1), (H, W, 3) RGB,
            (H, W, 4) RGBA or (H, W, C) of numbers, or a torch tensor, also with its channels in
            front. False and True are black and white.
        page: number of the image in a file of several, from 0; None: the first.
        channels: numbers from 0 of the channels to read, in this order; None: all but alpha.
        size: (height, width) for which annotations were made. An annotation tool that ignores the
            EXIF orientation writes the size of the stored pixels: only then (`size` is the stored
            size and not the upright one) the pixels stay as they are stored.

    Raises:
        ValueError: if the source is missing, no image, truncated, has no such page or channel,
            holds more pixels than may be in memory at once (see `limits`) and cannot be read by
            window, or has samples that nothing here reads in full depth.
    """
    from PIL import Image

    if isinstance(source, Tensor):
        source = as_array(source)
    if isinstance(source, np.ndarray):
        chosen_page(page, 1, "the given array")
        return Picture("the given array", check_array(source, channels))
    if isinstance(source, Image.Image):
        samples = decode(source, "the given PIL image", size, page, channels)
        pages = count_frames(source) if hasattr(source, "n_frames") else 1
        return Picture("the given PIL image", samples, pages=pages)
    name, stream = _opened(source)
    said = ""
    with exif_warnings() as caught, own_limit():
        try:
            if is_dicom(stream):
                return _of_dicom(stream, name, page, channels)
            if tiff.is_tiff(stream):
                try:
                    found = _of_tiff(stream, name, page, channels, size)
                    if any(map(about_end, caught)):
                        found.said = found.said or _TAGS_CUT
                    return found
                except tiff.ForPillowError as error:
                    said = str(error)
                    stream.seek(0)
            with opened(stream, name) as image:
                check_pixels(image.height, image.width, name)
                pages = count_frames(image)
                samples = decode(image, name, size, page, channels)
                said = said or (_TAGS_CUT if any(map(about_end, caught)) else "")
                picture = Picture(name, samples, pages=pages, said=said)
        except BaseException:
            stream.close()
            raise
        stream.close()
        return picture


def _opened(source: Any) -> tuple[str, BinaryIO]:
    """Return what a source is called, and its bytes."""
    if isinstance(source, StoreFile):
        return source.address, io.BytesIO(source.load())
    if hasattr(source, "read"):
        source = read_stream(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"image of {len(bytes(source))} bytes", io.BytesIO(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return source, io.BytesIO(download(source))
    if isinstance(source, str | Path):
        return str(source), open_file(Path(home_path(source)))
    raise ValueError(
        "an image is a path, a URL, bytes, an open binary file, a PIL image, or an array or tensor "
        f"(H, W, 3); got {type(source).__name__}"
    )


def _of_dicom(
    stream: BinaryIO, name: str, page: int | None, channels: Sequence[int] | None
) -> Picture:
    samples, header = read_dicom(stream, name, page)
    stream.close()
    samples = picked(np.atleast_3d(samples), channels, name)
    return Picture(name, samples, pages=header.frames, window=header.window)


def _of_tiff(
    stream: BinaryIO,
    name: str,
    page: int | None,
    channels: Sequence[int] | None,
    size: tuple[int, int] | None,
) -> Picture:
    """Open a TIFF by its parts.

    Raises:
        ForPillowError: if only Pillow decodes it.
    """
    needed = beyond_pillow(stream)
    found = tiff.open_tiff(stream, name, page, channels, needed=needed)
    windows, orientation = found.windows, found.orientation
    height, width = windows.size
    if size is not None and tuple(size) == (height, width) != (width, height) and orientation > 4:
        orientation = 1
    if not windows.by_window:
        check_pixels(height, width, name)
    return Picture(
        name,
        windows,
        orientation=orientation,
        stream=stream,
        pages=found.pages,
        axes=found.places[found.number] if found.places else None,
        said=found.said,
        missing=windows.missing,
    )
