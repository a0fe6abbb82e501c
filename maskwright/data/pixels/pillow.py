"""Image files as Pillow opens and decodes them, turned upright by their EXIF orientation."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from . import deep
from .arrays import picked, upright
from .kinds import PROGRAMS, count_frames
from .limits import check_pixels, has_own_limit, mend, own_limit
from .opening import open_file
from .selection import RefusedError, chosen_page
from .tiff import is_tiff

if TYPE_CHECKING:
    from PIL import Image

# It writes a line for each TIFF of many channels that it cannot open; tifffile opens these.
logging.getLogger("PIL.TiffImagePlugin").addHandler(logging.NullHandler())


@contextmanager
def decoded(path: Path) -> Iterator[Image.Image]:
    """Open and decode an image file as Pillow has it, whatever its kind of pixels.

    Raises:
        ValueError: if the file is missing, no image, truncated or larger than the limit.
    """
    name = str(path)
    with exif_warnings(), own_limit(), open_file(path) as stream, opened(stream, name) as image:
        check_pixels(image.height, image.width, name)
        try:
            image.load()
        except Exception as error:  # decoders raise what they like on broken bytes
            raise ValueError(damaged(name, error)) from None
        yield image


def beyond_pillow(stream: BinaryIO) -> bool:
    """Return whether a file is a TIFF of a kind that Pillow cannot open; the stream is rewound."""
    from PIL import Image

    if not is_tiff(stream):
        return False
    try:
        with Image.open(stream):
            return False
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False
    except Exception:  # decoders raise what they like on broken bytes
        return True
    finally:
        stream.seek(0)


def opened(stream: Any, name: str) -> Image.Image:
    """Open an image file without decoding it.

    Raises:
        ValueError: if it is no image, no raster image, or larger than the limit.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image in a format that Pillow reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise ValueError(
            f"{name} is refused: {error}; {mend(int(found[1]) if found else None)}"
        ) from None
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(f"{name} cannot be read as an image: {error}") from None
    if image.format in PROGRAMS:
        raise ValueError(
            f"{name} is {image.format}, which is no raster image: save it as PNG or JPEG"
        )
    return image


def decode(
    image: Image.Image,
    name: str,
    size: tuple[int, int] | None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the samples of an opened image, upright; see `picture.open_picture`.

    Raises:
        ValueError: if it is damaged, or nothing reads it in full depth.
    """
    from PIL import Image as Pillow

    chosen_page(page, count_frames(image) if page else 1, name)
    try:
        if page:
            image.seek(page)
        samples = deep.read_deep(image, name, channels) if _stores_more(image) else None
        if samples is not None:
            return upright(samples, orientation_of(image) or 1, size)
        transpose = Pillow.Transpose
        turns = {
            2: transpose.FLIP_LEFT_RIGHT,
            3: transpose.ROTATE_180,
            4: transpose.FLIP_TOP_BOTTOM,
            5: transpose.TRANSPOSE,
            6: transpose.ROTATE_270,
            7: transpose.TRANSVERSE,
            8: transpose.ROTATE_90,
        }
        stored, tags = image.size[::-1], deep.GreyTags.of(image)
        image.load()
        orientation = orientation_of(image) or 1
        turned = stored[::-1] if orientation > 4 else stored
        unturned = size is not None and tuple(size) == stored != turned
        if orientation > 1 and not unturned:
            image = image.transpose(turns[orientation])
        return _from_pillow(image, tags, name, channels)
    except RefusedError:
        raise
    except MemoryError as error:
        raise ValueError(f"{name}: {deep.NO_MEMORY} ({error})") from None
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(damaged(name, error)) from None


def _stores_more(image: Image.Image) -> bool:
    """Return whether the file behind an image, not loaded yet, holds more than Pillow gives."""
    loaded = getattr(image, "fp", None) is None or not deep.tiles(image)
    return not loaded and deep.stores_more(image)


def damaged(name: str, error: Exception) -> str:
    """Return what to say of a file that cannot be decoded."""
    return (
        f"{name} is damaged or incomplete and cannot be decoded ({error}): copy it again or remove "
        "it"
    )


_threads = threading.local()
_CUT_OFF = "Truncated File Read"


def leave_warnings() -> None:
    """Let Pillow warn as it likes in this thread: taking warnings aside is for one thread alone."""
    _threads.leave_warnings = True


@contextmanager
def exif_warnings() -> Iterator[list[Any]]:
    """Take Pillow's warnings aside, and pass on those that are not about a broken EXIF block.

    Nor is what it says of a TIFF that is cut off: `tiff` says it, with the name of the file.
    """
    if getattr(_threads, "leave_warnings", False):
        yield []
        return
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", f"(?i).*exif|{_CUT_OFF}")
        yield caught
    for entry in caught:
        limited = issubclass(entry.category, DecompressionBombWarning) and has_own_limit()
        if not about_exif(entry) and not limited and not about_end(entry):
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)


def about_exif(entry: Any) -> bool:
    """Return whether a warning of Pillow is about a broken EXIF block."""
    return "exif" in str(entry.message).lower()


def about_end(entry: Any) -> bool:
    """Return whether a warning of Pillow is about a TIFF whose tags lie behind its end."""
    return str(entry.message) == _CUT_OFF


def orientation_of(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8; None where the block cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_pillow(
    image: Image.Image, tags: deep.GreyTags | None, name: str, channels: Sequence[int] | None
) -> np.ndarray:
    """Return the samples of a loaded image: (H, W, C) uint8, or grey ones (H, W)."""
    if deep.is_full_grey(image.mode):
        samples = np.array(image)
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        samples = samples if tags is None else tags.apply(samples)
        return picked(samples[..., None], channels, name)
    if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow warns about palettes with transparency.
        image = image.convert("RGBA")
    if channels is not None and image.mode in ("LA", "RGBA"):
        return picked(np.array(image), channels, name)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    samples = np.array(image)
    return samples if channels is None else picked(np.atleast_3d(samples), channels, name)
