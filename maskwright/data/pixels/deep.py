"""Image files whose samples have more than 8 bits, read as they are stored.

Pillow keeps the full depth of grey images, but of 16 bits in colour it gives the upper 8 without a
word, and some kinds of TIFF it cannot open. Those are read by tifffile, PNG by torchvision. What
none of them reads in full depth is refused with the mend, but for AVIF, whose 10 and 12 bits
its decoder scales to 8, and grey JPEG 2000, whose values come scaled to 16 bits.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import picked
from .limits import check_pixels
from .selection import RefusedError
from .tiff import AS_EIGHT_BITS, open_tiff, turned_grey

if TYPE_CHECKING:
    from PIL import Image

_BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT, _DEPTH = 258, 262, 277, 339, 32997  # tags of TIFF
_UNSIGNED, _WHITE_IS_ZERO = 1, 0
NO_MEMORY = (
    "the memory does not suffice to decode it: save it as a TIFF of tiles, of which tile= reads "
    "one part after the other"
)


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


def read_deep(
    image: Image.Image, name: str, channels: Sequence[int] | None = None
) -> np.ndarray | None:
    """Return the samples of a file that stores more than Pillow gives, before any turn.

    Args:
        image: as Pillow has opened it, not loaded.
        name: what the file is called.
        channels: see `picture.open_picture`.

    Returns:
        (H, W) or (H, W, C), any type of numbers; None: Pillow's pixels are the samples.

    Raises:
        ValueError: if nothing reads it in full depth.
    """
    kind = image.format
    if kind == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        one = (_values(tags, _SAMPLES) or [1])[0] == (_values(tags, _DEPTH) or [1])[0] == 1
        if is_full_grey(image.mode) and one:
            return None
        return read_tiff(_everything(image), name, channels)
    if is_full_grey(image.mode) and kind != "PPM":
        if kind == "FITS":
            raise RefusedError(f"{name} is FITS with more than 8 bits: {AS_EIGHT_BITS}")
        return None
    if kind == "PNG":
        return _read_png(_everything(image), name, channels)
    if kind == "PPM":
        samples = _read_netpbm(_everything(image), name)
        if samples is None or channels is None:
            return samples
        return picked(np.atleast_3d(samples), channels, name)
    raise RefusedError(
        f"{name} is {kind} with more than 8 bits per channel in colour, of which Pillow would drop "
        f"the lower ones: {AS_EIGHT_BITS}"
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
        return turned_grey(samples, self.bits) if self.white_is_zero else samples


def read_tiff(data: bytes, name: str, channels: Sequence[int] | None) -> np.ndarray:
    """Return the samples of the first page of a TIFF, (H, W) or (H, W, C), before any turn.

    Raises:
        ValueError: if it is damaged, needs a codec that is missing, or is no image.
    """
    windows = open_tiff(io.BytesIO(data), name, None, channels, needed=True).windows
    check_pixels(*windows.size, name)
    samples = windows.read(0, 0, *windows.size)
    return samples[..., 0] if windows.channels == 1 else samples


def _read_png(data: bytes, name: str, channels: Sequence[int] | None) -> np.ndarray:
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
    if channels is None and samples.shape[2] == 2:
        channels = (0,)
    return picked(samples, channels, name)


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
