"""Label maps in MATLAB's files, as SBD and COCO-Stuff 10k have them; nothing in them is executed.

scipy reads the files of MATLAB 4 to 7; those of 7.3 are HDF5, and are refused.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .limits import TooLargeError, check_pixels, max_pixels, mend

MAT = ".mat"
HDF5 = (b"MATLAB 7.3", b"\x89HDF\r\n\x1a\n")
HEADER = 128  # bytes before the variables of a file of MATLAB 5 to 7
COMPRESSED = 15  # type of a variable that is packed by zlib
MEND = (
    "save the matrix of class numbers as the variable S, as in save('a.mat', 'S', '-v7') of MATLAB "
    "and Octave"
)


def load_mat(path: Path) -> np.ndarray:
    """Return the label map of a MATLAB file: its variable S, or GTcls.Segmentation.

    Returns:
        (H, W) whole numbers, as stored; of a matrix of doubles int64.

    Raises:
        ValueError: if the file is missing, of MATLAB 7.3, damaged, or has no such matrix.
        ImportError: if scipy is not installed.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(len(HDF5[0]))
    except OSError as error:
        raise ValueError(f"cannot read label map {path}: {error.strerror or error}") from None
    if head.startswith(HDF5):
        raise ValueError(
            f"label map {path} is a file of MATLAB 7.3 (HDF5), which is not read: load it in "
            "MATLAB or Octave and save it again with '-v7'"
        )
    found = _variables(path)
    if "S" in found:
        return _checked(path, "S", found["S"])
    try:
        segmentation: Any = found["GTcls"]["Segmentation"][0, 0]
    except (KeyError, IndexError, ValueError):  # of a struct without this field
        names = ", ".join(found) or "no variable"
        raise ValueError(
            f"label map {path} has neither S (COCO-Stuff) nor GTcls.Segmentation (SBD), only "
            f"{names}: {MEND}"
        ) from None
    return _checked(path, "GTcls.Segmentation", segmentation)


def _variables(path: Path) -> dict[str, Any]:
    """Return what a file holds by name."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"label map {path} is a MATLAB file, which scipy reads: pip install scipy, or save the "
            f"label maps as PNG ({error})"
        ) from None
    try:
        size = _declared_bytes(path)
        if size > 8 * max_pixels():
            raise TooLargeError(
                f"label map {path} is refused: it unpacks to {size} bytes; {mend(size // 8)}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of variables that it cannot read
            content: dict[str, Any] = loadmat(str(path), appendmat=False)
    except TooLargeError:
        raise
    except Exception as error:  # readers raise what they like on broken bytes
        raise ValueError(
            f"label map {path} is no MATLAB file, or damaged ({error}): copy it again, or {MEND}"
        ) from None
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _declared_bytes(path: Path) -> int:
    """Return the size of the variables of a MATLAB 5 file, unpacked, as they say themselves."""
    total = 0
    with path.open("rb") as stream:
        order = "big" if stream.read(HEADER).endswith(b"MI") else "little"

        def numbers(tag: bytes) -> tuple[int, int]:
            return (
                int.from_bytes(tag[:4], order),  # type: ignore[arg-type]
                int.from_bytes(tag[4:8], order),  # type: ignore[arg-type]
            )

        while len(tag := stream.read(8)) == 8:
            kind, size = numbers(tag)
            start = stream.tell()
            if kind == COMPRESSED:
                total += numbers(zlib.decompressobj().decompress(stream.read(64), 8))[1]
            else:
                total += size
            stream.seek(start + size)
    return total


def _checked(path: Path, name: str, value: Any) -> np.ndarray:
    """Return a matrix as whole numbers.

    Raises:
        ValueError: if it is none.
    """
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size:
        shape = "x".join(map(str, array.shape))
        raise ValueError(
            f"label map {path}: {name} is no matrix of numbers but {shape} of {array.dtype}: {MEND}"
        )
    height, width = array.shape
    check_pixels(height, width, str(path))
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # of NaN, which is told below
            whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            wrong = array[whole != array][0]
            raise ValueError(
                f"label map {path}: {name} has the value {wrong}, but the class of a pixel is a "
                "whole number: save the numbers of the classes"
            )
        return whole
    return array.astype(np.uint8) if array.dtype.kind == "b" else array
