"""Images whose pixels are labels: the numbers or colours in them as stored, never resampled."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from .images import image_header
from .limits import check_pixels
from .mat_file import MAT, load_mat
from .opening import file_problem, open_file
from .pillow import decoded
from .tiff import ForPillowError, is_tiff, open_tiff

PNG = b"\x89PNG\r\n\x1a\n"
LOSSY = ("JPEG", "MPO")  # of Pillow's formats; WebP and JPEG 2000 may be lossless
NUMBERS = ("P", "PA", "L", "LA", "1")  # modes of Pillow, beside those of 16 and 32 bits
COLORS = ("RGB", "RGBA", "RGBX")


def load_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what an image stores at each pixel; alpha is left out.

    Returns:
        (H, W) numbers: the indices of a palette, grey values, 0 and 255 of an image of one bit; or
        (H, W, 3) uint8 RGB. And the palette (n, 3) uint8, or None.

    Raises:
        ValueError: if the file is missing, no image, truncated, compressed with loss, a TIFF of
            several pages, or has samples that are neither whole numbers nor RGB.
    """
    if path.suffix.lower() == MAT:
        return load_mat(path), None
    numbers = _tiff_numbers(path)
    if numbers is not None:
        return numbers, None
    with decoded(path) as image:
        if image.format in LOSSY:
            raise ValueError(
                f"label map {path} is a JPEG, which changes the numbers wherever two classes meet: "
                "export it as PNG; a mask of two classes can be cut at 128"
            )
        palette = image.getpalette() if image.mode in ("P", "PA") else None
        if image.mode == "1":
            return np.array(image.convert("L")), None
        if image.mode in COLORS:
            return np.array(image)[..., :3], None
        if image.mode not in NUMBERS and not image.mode.startswith("I"):
            raise ValueError(
                f"label map {path} has samples of mode {image.mode}, but the class of a pixel is a "
                "whole number or a colour: save it as PNG"
            )
        stored = np.array(image)
    stored = stored[..., 0] if stored.ndim == 3 else stored
    return stored, None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def _tiff_numbers(path: Path) -> np.ndarray | None:
    """Return the numbers (H, W) in a TIFF of one channel; None of all else, which Pillow opens.

    Programs write labels of any type: numpy's own whole numbers have 64 bits, ImageJ's are floating
    point. Where white is zero, as tifffile writes what is true and false, and ImageJ an inverted
    mask, Pillow gives the numbers turned over.
    """
    with open_file(path) as stream:
        if not is_tiff(stream):
            return None
        try:
            found = open_tiff(stream, str(path), needed=False)
        except ForPillowError:
            return None
        if found.pages > 1:
            raise ValueError(
                f"label map {path} has {found.pages} pages, and one belongs to an image: save each "
                "as a file of its own"
            )
        windows = found.windows
        if windows.channels != 1 or found.orientation != 1:
            return None
        check_pixels(*windows.size, str(path))
        values = windows.read(0, 0, *windows.size)[..., 0]
    if windows.white_is_zero:
        values = -values if values.dtype.kind == "f" else ~values
    if values.dtype.kind == "f":
        whole = values.astype(np.int64, casting="unsafe") if np.isfinite(values).all() else None
        if whole is None or not np.array_equal(whole, values):
            raise ValueError(
                f"label map {path} has samples that are no whole numbers ({values.dtype}), but the "
                "class of a pixel is one, or a colour: save it as PNG"
            )
        return whole
    return values.astype(np.int64) if values.dtype == np.uint64 else values


def label_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as stored; of a PNG by its first bytes alone.

    A MATLAB file is read as a whole: its matrix may be the part of a variable.

    Raises:
        ValueError: if the file is missing or no image.
    """
    problem = file_problem(path)
    if problem is not None:
        raise ValueError(problem[1])
    if path.suffix.lower() == MAT:
        height, width = load_mat(path).shape
        return height, width
    with path.open("rb") as stream:
        head = stream.read(24)
    if head.startswith(PNG) and len(head) == 24 and head[12:16] == b"IHDR":
        width, height = struct.unpack(">II", head[16:])
        return height, width
    return image_header(path).stored
