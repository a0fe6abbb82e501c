"""Kinds of image files: which ones are read, told by their names, and how many pages one holds."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .dicom import SUFFIXES

if TYPE_CHECKING:
    from PIL import Image

# Pillow would hand these to a program of their own; they are no pixels anyway.
PROGRAMS = ("EPS", "WMF")
# These it only recognises.
STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "PDF")
# Of these the other images in the file are no pages: previews, layers, sizes of an icon.
ONE_IMAGE = ("MPO", "PSD", "ICO", "ICNS", "CUR")
SUBFILE_TYPE, MAX_PYRAMID = 254, 32  # TIFF tag: bit 0 is set in a copy; levels of a pyramid


def image_suffixes() -> frozenset[str]:
    """Return the endings of image files that are read, in small letters: all that Pillow opens,
    and DICOM.

    Training and prediction have this one list. The endings of packages that teach Pillow other
    formats, such as pillow-heif, are among them once these are registered.
    """
    from PIL import Image

    return _suffixes(len(Image.registered_extensions())) | SUFFIXES


@cache
def _suffixes(registered: int) -> frozenset[str]:
    from PIL import Image

    known = Image.registered_extensions()
    assert len(known) == registered
    opened = {*Image.OPEN, "MPO"} - {*PROGRAMS, *STUBS}  # an MPO file is opened as a JPEG
    return frozenset(suffix.lower() for suffix, kind in known.items() if kind in opened)


def count_frames(image: Image.Image) -> int:
    """Return the pages of an open file or the frames of an animation."""
    if image.format in ONE_IMAGE:
        return 1
    try:
        frames: int = getattr(image, "n_frames", 1)
        return _count_pages(image, frames) if image.format == "TIFF" and frames > 1 else frames
    except Exception:  # a broken animation: decoding will tell
        return 1


def _count_pages(image: Any, frames: int) -> int:
    """Return the pages of a TIFF file, smaller copies of the same picture not counted."""
    copies = 0
    for number in range(1, min(frames, MAX_PYRAMID)):
        image.seek(number)
        copies += int(image.tag_v2.get(SUBFILE_TYPE, 0)) & 1
    image.seek(0)
    return frames - copies
