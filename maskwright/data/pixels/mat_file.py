"""Label maps in MATLAB's files, as SBD and COCO-Stuff 10k have them; nothing in them is executed.

Files of MATLAB 5 to 7 ("Level 5 MAT-file") are elements of a type, a size and bytes, one in
another. They are read here, as no more of them is needed than a matrix, and as scipy's reader ends
the process on some damaged ones. Those of 7.3 are HDF5, and are refused.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .limits import TooLargeError, check_pixels, max_pixels, mend

MAT = ".mat"
HDF5 = (b"MATLAB 7.3", b"\x89HDF\r\n\x1a\n")
HEADER = 128  # bytes before the variables
ORDERS = {b"IM": "<", b"MI": ">"}  # of bytes, by the last ones of the header
MATRIX, COMPRESSED = 14, 15  # types of elements
NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
# Classes of matrices; what they store may be of a smaller type.
STRUCT = 2
CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2"},
    **{12: "i4", 13: "u4", 14: "i8", 15: "u8"},
}
KINDS = {1: "cell array", 2: "struct", 3: "object", 4: "text", 5: "sparse matrix"}
COMPLEX = 0x800  # flag of a matrix
DEEPEST = 2  # packed elements in one another
MEND = (
    "save the matrix of class numbers as the variable S, as in save('a.mat', 'S', '-v7') of MATLAB "
    "and Octave"
)


class _Variable(NamedTuple):
    """A matrix of any class.

    Attributes:
        name: of the variable, or of the field.
        kind: its class, of `CLASSES` or `KINDS`.
        whole: whether it has no imaginary part.
        shape: its sides.
        rest: what follows them.
    """

    name: str
    kind: int
    whole: bool
    shape: tuple[int, ...]
    rest: memoryview


def load_mat(path: Path) -> np.ndarray:
    """Return the label map of a MATLAB file: its variable S, or GTcls.Segmentation.

    Returns:
        (H, W) whole numbers, as stored; of a matrix of doubles int64.

    Raises:
        ValueError: if the file is missing, of MATLAB 7.3 or 4, damaged, or has no such matrix.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read label map {path}: {error.strerror or error}") from None
    if content.startswith(HDF5):
        raise ValueError(
            f"label map {path} is a file of MATLAB 7.3 (HDF5), which is not read: load it in "
            "MATLAB or Octave and save it again with '-v7'"
        )
    try:
        order = ORDERS.get(content[HEADER - 2 : HEADER])
        if order is None:
            raise ValueError("it does not begin as one of MATLAB 5 to 7")
        found = {one.name: one for one in _variables(memoryview(content)[HEADER:], order)}
        if "S" in found:
            return _label_map(path, "S", found["S"], order)
        fields = _fields(found["GTcls"], order) if "GTcls" in found else {}
        if "Segmentation" in fields:
            return _label_map(path, "GTcls.Segmentation", fields["Segmentation"], order)
    except _UnpackedError as error:
        raise TooLargeError(
            f"label map {path} is refused: it unpacks to {error} bytes; {mend(error.size // 8)}"
        ) from None
    except _NoMapError as error:
        raise ValueError(f"label map {path}: {error}: {MEND}") from None
    except TooLargeError:
        raise
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(
            f"label map {path} is no MATLAB file, or damaged ({error}): copy it again, or {MEND}"
        ) from None
    names = ", ".join(found) or "no variable"
    raise ValueError(
        f"label map {path} has neither S (COCO-Stuff) nor GTcls.Segmentation (SBD), only {names}: "
        f"{MEND}"
    )


class _NoMapError(Exception):
    """A variable of the right name is no label map."""


class _UnpackedError(Exception):
    """What is packed says that it is larger than an image may be."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Return type and content of the element at a place, and the place behind it."""
    kind, size = struct.unpack_from(f"{order}2I", data, at)
    if kind >> 16:  # four bytes or less stand in place of the size
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
        start = at + 8
        end = start + size + (0 if kind == COMPRESSED else -size % 8)
    if start + size > min(end, len(data)):
        raise ValueError("an element is cut off")
    return kind, data[start : start + size], end


def _variables(data: memoryview, order: str, depth: int = 0) -> Iterator[_Variable]:
    """Yield the variables in bytes, packed ones unpacked."""
    at = 0
    while at < len(data):
        kind, content, at = _element(data, at, order)
        if kind == COMPRESSED and depth < DEEPEST:
            yield from _variables(_unpacked(content, order), order, depth + 1)
        elif kind == MATRIX:
            yield _variable(content, order)


def _unpacked(content: memoryview, order: str) -> memoryview:
    """Return what is packed, after a look at how large it says it is."""
    size = struct.unpack(f"{order}2I", zlib.decompressobj().decompress(content[:64], 8))[1]
    if size > 8 * max_pixels():
        raise _UnpackedError(size)
    return memoryview(zlib.decompressobj().decompress(content, size + 8))


def _variable(content: memoryview, order: str) -> _Variable:
    """Return a matrix, whose elements are flags, sides, name, and what it holds."""
    if not len(content):
        return _Variable("", 0, True, (0, 0), content)
    _, flags, at = _element(content, 0, order)
    _, sides, at = _element(content, at, order)
    _, name, at = _element(content, at, order)
    bits = struct.unpack_from(f"{order}I", flags)[0]
    shape = tuple(np.frombuffer(sides, f"{order}i4").tolist())
    return _Variable(
        bytes(name).decode("latin-1"), bits & 0xFF, not bits & COMPLEX, shape, content[at:]
    )


def _fields(found: _Variable, order: str) -> dict[str, _Variable]:
    """Return the fields of a struct of one element by name; none of anything else."""
    if found.kind != STRUCT or math.prod(found.shape) != 1:
        return {}
    _, width, at = _element(found.rest, 0, order)
    _, text, at = _element(found.rest, at, order)
    step = struct.unpack_from(f"{order}i", width)[0]
    if step < 1:
        raise ValueError("names of no length")
    fields = {}
    for start in range(0, len(text), step):
        kind, content, at = _element(found.rest, at, order)
        name = bytes(text[start : start + step]).split(b"\0")[0].decode("latin-1")
        if kind == MATRIX:
            fields[name] = _variable(content, order)
    return fields


def _label_map(path: Path, name: str, found: _Variable, order: str) -> np.ndarray:
    """Return a matrix as whole numbers.

    Raises:
        ValueError: if it is none.
    """
    kind = CLASSES.get(found.kind)
    shape = "x".join(map(str, found.shape))
    if kind is None or not found.whole or len(found.shape) != 2 or min(found.shape) < 1:
        what = KINDS.get(found.kind, kind or f"class {found.kind}")
        what = what if found.whole else "complex numbers"
        raise _NoMapError(f"{name} is no matrix of numbers but {shape} of {what}")
    check_pixels(found.shape[0], found.shape[1], str(path))
    stored, content, _ = _element(found.rest, 0, order)
    if stored not in NUMBERS or len(content) != math.prod(found.shape) * int(NUMBERS[stored][1]):
        raise ValueError(f"{name} has {len(content)} bytes for {shape} numbers")
    array = np.frombuffer(content, order + NUMBERS[stored]).reshape(found.shape, order="F")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # of NaN, which is told below
            whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            wrong = array[whole != array][0]
            raise _NoMapError(
                f"{name} has the value {wrong}, but the class of a pixel is a whole number"
            )
        return whole
    # As the class says, where it is one of whole numbers: bytes of int8 may be stored as uint8.
    return array.astype("i8" if kind.startswith("f") else kind)
