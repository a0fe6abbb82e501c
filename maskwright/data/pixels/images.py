"""Pixels: from any source to uint8 RGB, from there to a padded batch of network input.

Reading is done by `picture`: TIFF by its parts, others by Pillow, samples of more than 8 bits by
what keeps them (`deep`), which are stretched to 8 bits (`depth`). Every failure is a ValueError
that names the file.
Resizing follows the `Resize` rule of a model: with a low-pass filter on the 8-bit image (Pillow,
detectron2) or without one on the float image (torchvision's detection models).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.drawing.channels import repeated
from maskwright.window import Window

from . import deep
from .depth import to_eight_bit
from .dicom import DicomHeader, dicom_header, is_dicom
from .kinds import count_frames
from .limits import own_limit
from .opening import open_file
from .picture import open_picture
from .pillow import about_exif, beyond_pillow, exif_warnings, opened, orientation_of
from .tiff import ForPillowError, OpenTiff, is_tiff, open_tiff


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before it is decoded.

    Attributes:
        size: (height, width) turned upright by the EXIF orientation.
        stored: (height, width) as stored.
        format: name of the format in Pillow, such as "JPEG".
        suffixes: endings of file names that are usual for the format.
        mode: Pillow's name of the kind of pixels, such as "RGB", "L", "CMYK", "I;16".
        frames: images in the file: of an animation, or pages.
        broken_exif: whether its EXIF block cannot be read, and with it the orientation.
        deep: whether its samples have more than 8 bits, and so are scaled by a window.
        channels: samples of a pixel, without alpha.
        places: of each of the frames, see `axes.Stack`.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    format: str
    suffixes: tuple[str, ...]
    mode: str
    frames: int
    broken_exif: bool
    deep: bool
    channels: int
    places: tuple[dict[str, int], ...] = ()


def load_image(
    source: Any,
    *,
    size: tuple[int, int] | None = None,
    window: Window | str | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the pixels of an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey images are repeated over three channels, an alpha channel is dropped (the colours under it
    are kept). Samples of other kinds than unsigned ones of 8 bits are stretched linearly from a
    window of values to 0 to 255. Of more than three channels the first three are shown.

    Args:
        source: see `picture.open_picture`.
        size: see `picture.open_picture`.
        window: (low, high), "minmax" or "percentile" of these samples; None: percentile, from the
            value that 0.1 % of them do not reach to the one that 0.1 % exceed, or the window that
            a DICOM file recommends. 8-bit images stay as they are.
        page: see `picture.open_picture`.
        channels: see `picture.open_picture`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as `open_picture` does.
    """
    with open_picture(source, page, channels, size=size) as picture:
        return to_eight_bit(picture.whole(), picture.window if window is None else window)


def load_samples(
    source: Any,
    *,
    size: tuple[int, int] | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the samples of an image as they are stored, turned upright by its EXIF orientation.

    Args:
        source: see `picture.open_picture`.
        size: see `picture.open_picture`.
        page: see `picture.open_picture`.
        channels: see `picture.open_picture`.

    Returns:
        Grey of other types than uint8 (H, W), everything else (H, W, C): of 8-bit grey three equal
        channels. With `channels` always (H, W, C), those that are asked for. Native byte order.

    Raises:
        ValueError: as `open_picture` does, or if the image has more pixels than are allowed (see
            `limits`).
    """
    with open_picture(source, page, channels, size=size) as picture:
        samples = picture.whole()
    if samples.ndim == 2 and channels is not None:
        return samples[..., None]
    return repeated(samples) if samples.ndim == 2 and samples.dtype == np.uint8 else samples


def image_header(source: Path | bytes) -> Header:
    """Return what an image file says of itself, without decoding it.

    Args:
        source: the file, or its bytes.

    Raises:
        ValueError: if the file is missing or no image.
    """
    from PIL import Image

    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    with (
        exif_warnings() as caught,
        own_limit(),
        io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as stream,
    ):
        if is_dicom(stream):
            return _of_dicom(dicom_header(stream, name))
        if is_tiff(stream):
            try:
                found = open_tiff(stream, name, needed=beyond_pillow(stream))
            except ForPillowError:
                stream.seek(0)
            else:
                return _of_tiff(found)
        with opened(stream, name) as image:
            height, width = stored = image.size[::-1]
            more = deep.stores_more(image)  # before Pillow loads the pixels, to look for EXIF
            orientation = orientation_of(image)
            turned = (orientation or 1) > 4
            frames = count_frames(image)
            known = Image.registered_extensions().items()
            return Header(
                (width, height) if turned else stored,
                stored,
                image.format or "",
                tuple(suffix for suffix, kind in known if kind == image.format),
                image.mode,
                frames,
                orientation is None or any(map(about_exif, caught)),
                more,
                1 if image.mode == "L" or deep.is_full_grey(image.mode) else 3,
            )


def _of_dicom(found: DicomHeader) -> Header:
    mode, more = f"{found.kind} of {found.bits} bits", found.bits > 8
    ends = (".dcm", ".dicom")
    count = 1 if found.grey else 3
    return Header(found.size, found.size, "DICOM", ends, mode, found.frames, False, more, count)


def _of_tiff(found: OpenTiff) -> Header:
    stored, kind = found.windows.size, found.windows.dtype
    size = stored[::-1] if found.orientation > 4 else stored
    count = found.windows.channels
    mode = {1: "L", 3: "RGB"}.get(count, f"{count} channels")
    more = kind != np.uint8
    mode = str(kind) if more else mode
    ends, places = (".tif", ".tiff"), found.places
    return Header(size, stored, "TIFF", ends, mode, found.pages, False, more, count, places)


def has_deep_samples(path: Path) -> bool:
    """Return whether the samples of an image file have more than 8 bits, by its first bytes.

    Raises:
        ValueError: if the file is missing or no image.
    """
    with open_file(path) as stream:
        start = stream.read(26)
    if start.startswith((b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")):
        return False  # these have 8 bits
    if start.startswith(b"\x89PNG") and len(start) == 26:
        return start[24] > 8
    return image_header(path).deep
