"""Image files whose samples have more than 8 bits, read as they are stored.

Pillow keeps the full depth of grey images, but of 16 bits in colour it gives the upper 8 without a
word, and some kinds of TIFF it cannot open. Those are read by tifffile, PNG by torchvision. What
none of them reads in full depth is refused with the mend, but for AVIF, whose 10 and 12 bits
its decoder scales to 8, and grey JPEG 2000, whose values come scaled to 16 bits.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .limits import TooLargeError, check_pixels

if TYPE_CHECKING:
    from PIL import Image

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT, _DEPTH = 258, 262, 277, 339, 32997  # tags of TIFF
_UNSIGNED, _WHITE_IS_ZERO = 1, 0
_GREY_OR_RGB = (0, 1, 2)  # photometric interpretations
NO_MEMORY = "the memory does not suffice to decode it: cut the image into tiles"
_AS_EIGHT_BITS = "save it as PNG or TIFF with 8 or 16 bits per channel"


class RefusedError(ValueError):
    """A file that is whole, but no picture for us; the message says what to do."""


def is_full_grey(mode: str) -> bool:
    """Return whether images of a mode of Pillow hold one sample of more than 8 bits a pixel."""
    return mode == "F" or mode.startswith("I")


def stores_more(image: Image.Image) -> bool:
    """Return whether a file that Pillow has opened stores more than the 8 bits that it gives."""
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        signed = any(kind not in (_UNSIGNED, 4) for kind in _values(tags, _FORMAT))
        return signed or max(_values(tags, _BITS), default=1) > 8
    if image.format == "JPEG2000":
        return image.mode not in ("I;16", "I") and _jpeg2000_bits(image) > 8
    if image.format == "PPM":
        return any(_largest(tile) > 255 for tile in tiles(image)) or is_full_grey(image.mode)
    return is_full_grey(image.mode) or any(";16" in str(tile[3]) for tile in tiles(image))


def read_deep(image: Image.Image, name: str) -> np.ndarray | None:
    """Return the samples of a file that stores more than Pillow gives, before any turn.

    Args:
        image: as Pillow has opened it, not loaded.
        name: what the file is called.

    Returns:
        (H, W) or (H, W, 3), any type of numbers; None: Pillow's pixels are the samples.

    Raises:
        ValueError: if nothing reads it in full depth.
    """
    kind = image.format
    if kind == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        one = (_values(tags, _SAMPLES) or [1])[0] == (_values(tags, _DEPTH) or [1])[0] == 1
        if is_full_grey(image.mode) and one:
            return None
        return read_tiff(_everything(image), name)
    if is_full_grey(image.mode) and kind != "PPM":
        if kind == "FITS":
            raise RefusedError(f"{name} is FITS with more than 8 bits: {_AS_EIGHT_BITS}")
        return None
    if kind == "PNG":
        return _read_png(_everything(image))
    if kind == "PPM":
        return _read_netpbm(_everything(image), name)
    raise RefusedError(
        f"{name} is {kind} with more than 8 bits per channel in colour, of which Pillow would drop "
        f"the lower ones: {_AS_EIGHT_BITS}"
    )


def tiles(image: Image.Image) -> list[Any]:
    """Return where the pixels stand in the file behind an image; empty once they are loaded."""
    return list(getattr(image, "tile", ()))


def _values(tags: Any, tag: int) -> list[int]:
    found = tags.get(tag)
    return list(found) if isinstance(found, tuple) else [] if found is None else [int(found)]


def _everything(image: Image.Image) -> bytes:
    """Return the whole file behind an image; Pillow looks for its place itself."""
    stream: Any = image.fp  # type: ignore[attr-defined]
    stream.seek(0)
    data: bytes = stream.read()
    return data


@dataclass(frozen=True)
class GreyTags:
    """How the grey samples of a TIFF are meant; Pillow passes on the bare numbers.

    Attributes:
        bits: of a sample.
        unsigned: whether they are unsigned whole numbers.
        white_is_zero: whether the smallest one is white.
    """

    bits: int
    unsigned: bool
    white_is_zero: bool

    @classmethod
    def of(cls, image: Image.Image) -> GreyTags | None:
        """Read them from an opened file; None if it is no TIFF of deep grey samples."""
        if image.format != "TIFF" or not is_full_grey(image.mode):
            return None
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        return cls(
            (_values(tags, _BITS) or [1])[0],
            set(_values(tags, _FORMAT)) <= {_UNSIGNED},
            tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,
        )

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """Return Pillow's samples as the file means them."""
        if samples.dtype == np.int32 and self.unsigned and self.bits == 32:
            samples = samples.view(np.uint32)
        elif samples.dtype == np.int32 and self.bits == 16:
            samples = samples.astype(np.int16)
        return _black_is_zero(samples, self.bits) if self.white_is_zero else samples


def _black_is_zero(samples: np.ndarray, bits: int) -> np.ndarray:
    """Turn samples of which the smallest is white."""
    turned: np.ndarray
    if samples.dtype.kind == "f":
        turned = -samples
    elif samples.dtype.kind == "u":
        turned = samples.dtype.type((1 << bits) - 1) - samples
    else:
        turned = ~samples
    return turned


def read_tiff(data: bytes, name: str) -> np.ndarray:
    """Return the samples of the first page of a TIFF, (H, W) or (H, W, 3), before any turn.

    An alpha channel is left out, white is the largest value.

    Raises:
        ValueError: if it is damaged, needs a codec that is missing, or is neither grey nor RGB.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]
            _check_page(page, name)
            samples: np.ndarray = page.asarray()
            photometric, bits = int(page.photometric), int(page.bitspersample)
            axes, extra = str(page.axes), len(page.extrasamples)
    except (RefusedError, TooLargeError):
        raise
    except MemoryError as error:
        raise ValueError(f"{name}: {NO_MEMORY} ({error})") from None
    except Exception as error:  # decoders raise what they like on broken bytes
        text = f"{type(error).__name__}: {error}"
        if "imagecodecs" in text or isinstance(error, ImportError):
            raise RefusedError(
                f"{name} has a compression that needs a further package: `pip install "
                f"imagecodecs`, or save the file without compression ({error})"
            ) from None
        raise ValueError(
            f"{name} is damaged or incomplete and cannot be decoded ({error}): copy it again or "
            "remove it"
        ) from None
    if axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim not in (2, 3):  # its sizes and its bytes tell different things
        raise ValueError(f"{name} is damaged: its pixels have {samples.ndim} axes")
    if samples.ndim == 3:
        colours = samples.shape[-1] - extra
        samples = samples[..., :3] if photometric == 2 else samples[..., 0]
        assert colours in (1, 3)
    samples = np.ascontiguousarray(samples)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * np.uint8(255)
        bits = 8
    return _black_is_zero(samples, bits) if photometric == _WHITE_IS_ZERO else samples


def _check_page(page: Any, name: str) -> None:
    """Raise ValueError unless a page of a TIFF is one grey or RGB image of real numbers."""
    kind = None if page.dtype is None else page.dtype.kind
    if kind is None or kind not in "buif":
        raise RefusedError(f"{name} has samples that are no real numbers: {_AS_EIGHT_BITS}")
    if page.axes not in ("YX", "YXS", "SYX"):
        raise RefusedError(
            f"{name} is a volume or a stack in one page (axes {page.axes}): save its planes one by "
            "one"
        )
    check_pixels(int(page.imagelength), int(page.imagewidth), name)
    if int(page.photometric) not in _GREY_OR_RGB:
        colours = getattr(page.photometric, "name", page.photometric)
        raise RefusedError(
            f"{name} has colours of the kind {colours} with {page.dtype} samples: convert it to "
            "RGB or grey"
        )
    wanted = 3 if int(page.photometric) == 2 else 1
    extra = [int(one) for one in page.extrasamples]
    rest = int(page.samplesperpixel) - wanted
    # Of RGB, a fourth channel of no declared use is as good as always alpha.
    alpha = rest == 0 or (rest == 1 and (extra[:1] in ([1], [2]) or (wanted == 3)))
    if not alpha:
        raise RefusedError(
            f"{name} has {page.samplesperpixel} channels that are not marked as red, green and "
            "blue: save one channel as grey, or three of them as RGB"
        )


def tiff_size(stream: BinaryIO, name: str) -> tuple[tuple[int, int], str, int, int]:
    """Return (height, width), type of samples, number of pages and orientation of a TIFF.

    Raises:
        ValueError: if it is none that `read_tiff` reads.
    """
    import tifffile

    try:
        stream.seek(0)
        with tifffile.TiffFile(stream) as file:
            page: Any = file.pages[0]
            _check_page(page, name)
            turn = page.tags.get(274)
            orientation = 1 if turn is None else int(turn.value)
            size = int(page.imagelength), int(page.imagewidth)
            pages = sum(not getattr(one, "is_reduced", False) for one in list(file.pages))
            return size, str(page.dtype), pages, orientation
    except (RefusedError, TooLargeError):
        raise
    except Exception as error:
        raise ValueError(f"{name} cannot be read as a TIFF: {error}") from None


def _read_png(data: bytes) -> np.ndarray:
    """Return the samples of a PNG of 16 bits with colours or alpha."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    pixels = decode_png(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED
    )
    samples: np.ndarray = pixels.permute(1, 2, 0).numpy()
    if samples.dtype != np.uint16:
        raise RefusedError(
            "this torchvision drops bits of 16-bit PNG: update it with `pip install -U torchvision`"
        )
    return np.ascontiguousarray(samples[..., 0] if samples.shape[2] < 3 else samples[..., :3])


def _largest(tile: Any) -> int:
    """Return the largest value of a binary Netpbm image, where Pillow scales it."""
    last = tile[3][-1] if isinstance(tile[3], tuple) else 255
    return int(last) if isinstance(last, int) else 255


def _read_netpbm(data: bytes, name: str) -> np.ndarray | None:
    """Return the samples of PGM or PPM with two bytes each; None for the float kind of PGM."""
    if data[:2] in (b"Pf", b"PF"):
        return None
    number = rb"(?:\s|#[^\n]*\n)+(\d+)"
    head = re.match(rb"(P[56])" + 3 * number + rb"\s", data)
    if head is None:
        raise RefusedError(
            f"{name} is Netpbm as text with more than 8 bits per sample: save it as PNG or TIFF"
        )
    width, height = int(head[2]), int(head[3])
    channels = 3 if head[1] == b"P6" else 1
    count = width * height * channels
    if len(data) - head.end() < 2 * count:
        raise ValueError(f"{len(data) - head.end()} bytes of pixels where {2 * count} belong")
    samples = np.frombuffer(data, ">u2", count, head.end()).astype(np.uint16)
    return samples.reshape((height, width, 3) if channels == 3 else (height, width))


def _jpeg2000_bits(image: Image.Image) -> int:
    """Return the bits of a sample, from the marker of sizes of the code stream."""
    stream: Any = image.fp  # type: ignore[attr-defined]
    place = stream.tell()
    stream.seek(0)
    start = stream.read(2**16)
    stream.seek(place)
    at = start.find(b"\xff\x4f\xff\x51")  # start of the code stream, marker of sizes
    # Marker, length, capabilities, eight sizes, number of components: the depth follows.
    depth = at + 2 + 2 + 2 + 2 + 32 + 2
    return (start[depth] & 127) + 1 if at >= 0 and depth < len(start) else 8
