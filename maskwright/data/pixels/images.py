"""Pixels: from any source to uint8 RGB, from there to a padded batch of network input.

Reading is done by Pillow, URLs by urllib; samples of more than 8 bits by what keeps them (`deep`),
and stretched to 8 bits (`depth`). Every failure is a ValueError that names the file.
Resizing follows the `Resize` rule of a model: with a low-pass filter on the 8-bit image (Pillow,
detectron2) or without one on the float image (torchvision's detection models).
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from torch import Tensor

from maskwright.paths import home_path
from maskwright.window import Window

from . import deep
from .arrays import as_array, check_array, read_stream, upright
from .depth import to_eight_bit
from .kinds import PROGRAMS, count_frames
from .limits import check_pixels, has_own_limit, mend, own_limit

if TYPE_CHECKING:
    from PIL import Image

URL_TIMEOUT = 20.0  # seconds without a byte
URL_SECONDS = 600.0  # in all
URL_BLOCK = 2**20  # bytes
URL_MAX_BYTES = 256 * 2**20


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
        deep: whether its samples have more than 8 bits, and so are stretched to them.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    format: str
    suffixes: tuple[str, ...]
    mode: str
    frames: int
    broken_exif: bool
    deep: bool


def load_image(
    source: Any,
    *,
    size: tuple[int, int] | None = None,
    window: Window | str | None = None,
) -> np.ndarray:
    """Return the pixels of an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey images are repeated over three channels, an alpha channel is dropped (the colours under it
    are kept), of an animation the first frame is taken. Samples of other kinds than unsigned ones
    of 8 bits are stretched linearly from a window of values to 0 to 255.

    Args:
        source: see `load_samples`.
        size: see `load_samples`.
        window: (low, high), "minmax" or "percentile" of these samples; None: percentile, from the
            value that 0.1 % of them do not reach to the one that 0.1 % exceed. 8-bit images stay
            as they are.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as `load_samples` does.
    """
    return to_eight_bit(load_samples(source, size=size), window)


def load_samples(source: Any, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the samples of an image as they are stored, turned upright by its EXIF orientation.

    Args:
        source: path, http(s) URL, bytes of an encoded image, an open file or other binary stream
            (read from its beginning), PIL image; or an array (H, W), (H, W, 1), (H, W, 3) RGB or
            (H, W, 4) RGBA of numbers, or a torch tensor, also with its channels in front. False
            and True are black and white.
        size: (height, width) for which annotations were made. An annotation tool that ignores the
            EXIF orientation writes the size of the stored pixels: only then (`size` is the stored
            size and not the upright one) the pixels stay as they are stored.

    Returns:
        (H, W, 3) uint8, or of other types of numbers (H, W) or (H, W, 3), native byte order.

    Raises:
        ValueError: if the source is missing, no image, truncated, larger than the limit (see
            `limits`), or has samples that nothing here reads in full depth.
    """
    from PIL import Image

    if isinstance(source, Tensor):
        source = as_array(source)
    if isinstance(source, np.ndarray):
        return check_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "the given PIL image", size)
    if hasattr(source, "read"):
        source = read_stream(source)
    if isinstance(source, bytes | bytearray | memoryview):
        stream: BinaryIO = io.BytesIO(source)
        name = f"image of {len(bytes(source))} bytes"
    elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        name, stream = source, io.BytesIO(_download(source))
    elif isinstance(source, str | Path):
        name, stream = str(source), _open_file(Path(home_path(source)))
    else:
        raise ValueError(
            "an image is a path, a URL, bytes, an open binary file, a PIL image, or an array or "
            f"tensor (H, W, 3); got {type(source).__name__}"
        )
    with _exif_warnings(), own_limit(), stream:
        if _beyond_pillow(stream):
            _, _, _, turn = deep.tiff_size(stream, name)
            stream.seek(0)
            return upright(deep.read_tiff(stream.read(), name), turn, size)
        with _open(stream, name) as image:
            check_pixels(image.height, image.width, name)
            return _decode(image, name, size)


@contextmanager
def decoded(path: Path) -> Iterator[Image.Image]:
    """Open and decode an image file as Pillow has it, whatever its kind of pixels.

    Raises:
        ValueError: if the file is missing, no image, truncated or larger than the limit.
    """
    name = str(path)
    with _exif_warnings(), own_limit(), _open_file(path) as stream, _open(stream, name) as image:
        check_pixels(image.height, image.width, name)
        try:
            image.load()
        except Exception as error:  # decoders raise what they like on broken bytes
            raise ValueError(_damaged(name, error)) from None
        yield image


def image_header(path: Path) -> Header:
    """Return what an image file says of itself, without decoding it.

    Raises:
        ValueError: if the file is missing or no image.
    """
    from PIL import Image

    with _exif_warnings() as caught, own_limit(), _open_file(path) as stream:
        if _beyond_pillow(stream):
            stored, kind, frames, turn = deep.tiff_size(stream, str(path))
            size = stored[::-1] if turn > 4 else stored
            many = kind not in ("uint8", "bool")
            return Header(size, stored, "TIFF", (".tif", ".tiff"), kind, frames, False, many)
        with _open(stream, str(path)) as image:
            height, width = stored = image.size[::-1]
            more = deep.stores_more(image)  # before Pillow loads the pixels, to look for EXIF
            orientation = _orientation(image)
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
                orientation is None or any(map(_about_exif, caught)),
                more,
            )


def has_deep_samples(path: Path) -> bool:
    """Return whether the samples of an image file have more than 8 bits, by its first bytes.

    Raises:
        ValueError: if the file is missing or no image.
    """
    with _open_file(path) as stream:
        start = stream.read(26)
    if start.startswith((b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")):
        return False  # these have 8 bits
    if start.startswith(b"\x89PNG") and len(start) == 26:
        return start[24] > 8
    return image_header(path).deep


def file_problem(path: Path) -> tuple[str, str] | None:
    """Return kind and message of what is wrong with an image file, judged without opening it."""
    try:
        info = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            target = path.readlink()
            return "missing image", f"image file {path} is a link to {target}, which does not exist"
        return "missing image", f"image file {path} does not exist"
    except (OSError, ValueError) as error:  # a name that the file system refuses, a loop of links
        return "missing image", f"image file {str(path)[:200]} cannot be looked up: {error}"
    if stat.S_ISDIR(info.st_mode):
        return "folder instead of an image", f"{path} is a folder, not an image file"
    if not stat.S_ISREG(info.st_mode):
        return "no regular file", f"{path} is a pipe or a device, not an image file"
    if not info.st_size:
        message = f"image file {path} is empty (0 bytes): copy it again or remove it"
        return "empty image file", message
    effective = os.access in os.supports_effective_ids
    if not os.access(path, os.R_OK, effective_ids=effective):
        return "unreadable image", f"image file {path} may not be read: change its permissions"
    return None


def _open_file(path: Path) -> BinaryIO:
    """Open an image file; a pipe would block and a device never end, so only regular ones."""
    problem = file_problem(path)
    if problem is not None:
        raise ValueError(problem[1])
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"cannot read the image file {path}: {error}") from None


def _download(url: str) -> bytes:
    from urllib.request import Request, urlopen

    try:
        request = Request(url, headers={"User-Agent": "maskwright"})
        with urlopen(request, timeout=URL_TIMEOUT) as reply:
            blocks, size, end = [], 0, time.monotonic() + URL_SECONDS
            while size <= URL_MAX_BYTES and (block := reply.read1(URL_BLOCK)):
                blocks.append(block)
                size += len(block)
                if time.monotonic() > end:  # a server may send a byte now and then for ever
                    raise TimeoutError(f"not there after {URL_SECONDS:.0f} s")
            data = b"".join(blocks)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot download the image {url}: {error}") from None
    if len(data) > URL_MAX_BYTES:
        raise ValueError(f"the image {url} is larger than {URL_MAX_BYTES // 2**20} MiB")
    return data


def _beyond_pillow(stream: BinaryIO) -> bool:
    """Return whether a file is a TIFF of a kind that Pillow cannot open; the stream is rewound."""
    from PIL import Image

    start = stream.read(4)
    stream.seek(0)
    if start not in deep.TIFF_STARTS:
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


def _open(stream: Any, name: str) -> Image.Image:
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


def _decode(image: Image.Image, name: str, size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image as Pillow

    try:
        samples = deep.read_deep(image, name) if _stores_more(image) else None
        if samples is not None:
            return upright(samples, _orientation(image) or 1, size)
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
        orientation = _orientation(image) or 1
        turned = stored[::-1] if orientation > 4 else stored
        unturned = size is not None and tuple(size) == stored != turned
        if orientation > 1 and not unturned:
            image = image.transpose(turns[orientation])
        return _from_pillow(image, tags)
    except deep.RefusedError:
        raise
    except MemoryError as error:
        raise ValueError(f"{name}: {deep.NO_MEMORY} ({error})") from None
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(_damaged(name, error)) from None


def _stores_more(image: Image.Image) -> bool:
    """Return whether the file behind an image, not loaded yet, holds more than Pillow gives."""
    loaded = getattr(image, "fp", None) is None or not deep.tiles(image)
    return not loaded and deep.stores_more(image)


def _damaged(name: str, error: Exception) -> str:
    return (
        f"{name} is damaged or incomplete and cannot be decoded ({error}): copy it again or remove "
        "it"
    )


_threads = threading.local()


def leave_warnings() -> None:
    """Let Pillow warn as it likes in this thread: taking warnings aside is for one thread alone."""
    _threads.leave_warnings = True


@contextmanager
def _exif_warnings() -> Iterator[list[Any]]:
    """Take Pillow's warnings aside, and pass on those that are not about a broken EXIF block."""
    if getattr(_threads, "leave_warnings", False):
        yield []
        return
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "(?i).*exif")
        yield caught
    for entry in caught:
        limited = issubclass(entry.category, DecompressionBombWarning) and has_own_limit()
        if not _about_exif(entry) and not limited:
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)


def _about_exif(entry: Any) -> bool:
    return "exif" in str(entry.message).lower()


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8; None where the block cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_pillow(image: Image.Image, tags: deep.GreyTags | None) -> np.ndarray:
    """Return the samples of a loaded image: (H, W, 3) uint8 RGB, or deep grey ones (H, W)."""
    if deep.is_full_grey(image.mode):
        samples = np.array(image)
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        return samples if tags is None else tags.apply(samples)
    if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow warns about palettes with transparency.
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)
