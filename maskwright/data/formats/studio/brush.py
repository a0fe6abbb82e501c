"""The code of Label Studio's brush strokes: run lengths of RGBA values in a stream of bits.

A head tells the number of values (32 bits), the bits of a value (5) and four sizes of run lengths
(4 bits each), all but the first one less than meant. Then come runs: one bit whether all values are
the same, two that name a size, the length less one in so many bits, and the value, or all values.
The mask is the fourth of each four values, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...building.objects import shown
from ...segments import BadSegment

SIZES = (3, 4, 8, 16)  # bits of run lengths that are written
VALUE_BITS = 8


class _Bits:
    """Bits of bytes, the highest of each first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.end = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next bits as a number.

        Raises:
            BadSegment: if there are no more.
        """
        stop = self.at + count
        if stop > self.end:
            raise BadSegment("bad RLE", "the brush stroke ends in the middle: it is cut off")
        chunk = int.from_bytes(self.data[self.at // 8 : (stop + 7) // 8], "big")
        value = (chunk >> (-stop % 8)) & ((1 << count) - 1)
        self.at = stop
        return value


def decode_brush(code: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of a brush stroke.

    Args:
        code: list of bytes.
        size: (height, width) of the image.

    Raises:
        BadSegment: if it is no such code, or one of another size.
    """
    if not isinstance(code, list) or not all(type(one) is int and 0 <= one < 256 for one in code):
        raise BadSegment("bad RLE", f"rle is a list of bytes, 0 to 255, got {shown(code)}")
    bits = _Bits(bytes(code))
    count, height, width = bits.take(32), *size
    if count != 4 * height * width:
        raise BadSegment(
            "RLE of another size",
            f"the brush stroke has {count} values, the image of {width}x{height} pixels needs "
            f"{4 * height * width}",
        )
    value_bits = bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        same = bits.take(1)
        length = bits.take(sizes[bits.take(2)]) + 1
        stop = min(at + length, count)
        if same:
            values[at:stop] = bits.take(value_bits) > 0
        else:
            for k in range(at, stop):
                values[k] = bits.take(value_bits) > 0
        at = stop
    return values.reshape(height, width, 4)[..., 3] > 0


def encode_brush(mask: np.ndarray) -> list[int]:
    """Return the code of a mask (H, W) bool, each pixel 0 or 255 in all four values.

    Example:
        >>> mask = np.array([[True, False], [True, True]])
        >>> bool((decode_brush(encode_brush(mask), (2, 2)) == mask).all())
        True
    """
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = 4 * np.diff(np.concatenate(([0], edges, [len(flat)])))
    fields: list[tuple[int, int]] = [(4 * len(flat), 32), (VALUE_BITS - 1, 5)]
    fields += [(size - 1, 4) for size in SIZES]
    on = bool(flat[0])
    for length in lengths.tolist():
        while length:
            part = min(length, 1 << SIZES[-1])
            which = next(k for k, size in enumerate(SIZES) if part <= 1 << size)
            fields += [(1, 1), (which, 2), (part - 1, SIZES[which]), (255 * on, VALUE_BITS)]
            length -= part
        on = not on
    return _packed(fields)


def _packed(fields: Sequence[tuple[int, int]]) -> list[int]:
    """Return numbers of so many bits as bytes, the last filled up with zeros."""
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]
