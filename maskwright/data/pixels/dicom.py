"""DICOM images, read by pydicom (`pip install maskwright[dicom]`).

Of grey images the samples are what was measured, such as Hounsfield units: the stored values by the
file's rescale slope and intercept, or its table. Of MONOCHROME1, where the smallest is white, they
are turned over in the range of the stored values, the window of the file with them, so that white
is the largest and the picture that of a viewer, which turns it over behind the window.

Reference: DICOM PS3.3, sections C.11.1 (modality), C.11.2.1.2 (window) and C.7.6.3.1.2.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from maskwright.window import Window

from .limits import TooLargeError, check_pixels
from .selection import RefusedError, chosen_page

SUFFIXES = frozenset((".dcm", ".dicom"))
MAGIC = b"DICM"  # behind a preamble of 128 bytes
# First elements of files without the preamble, as older devices write them: group 2 or 8, little
# endian. None of them is the beginning of a TGA, the one other kind that may begin so.
_BARE = {
    *(bytes((2, 0, element, 0)) for element in (0x00, 0x01)),
    *(bytes((8, 0, element, 0)) for element in (0x00, 0x05, 0x08, 0x16, 0x18)),
}
_GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM file says of itself.

    Attributes:
        size: (height, width).
        frames: images in the file.
        kind: its photometric interpretation.
        bits: of a stored sample.
        signed: whether it has a sign.
        window: (low, high) in measured values that the file recommends; None: none.
    """

    size: tuple[int, int]
    frames: int
    kind: str
    bits: int
    signed: bool
    window: Window | None

    @property
    def grey(self) -> bool:
        """Whether there is one sample a pixel, which stands for brightness."""
        return self.kind in _GREY


def is_dicom(stream: BinaryIO) -> bool:
    """Return whether a file begins as DICOM does, preamble or not; the stream is rewound."""
    start = stream.read(132)
    stream.seek(0)
    return start[128:] == MAGIC or start[:4] in _BARE


def dicom_header(stream: BinaryIO, name: str) -> DicomHeader:
    """Read what a file says of itself.

    Raises:
        ValueError: if pydicom is missing, or it holds no image.
    """
    return _header(_data_set(stream, name, pixels=False), name)


def read_dicom(
    stream: BinaryIO, name: str, page: int | None = None
) -> tuple[np.ndarray, DicomHeader]:
    """Return the samples of a frame, and what the file says of itself; its window fits them.

    Args:
        stream: of the whole file, at its beginning.
        name: what it is called.
        page: number of the frame; None: the first.

    Returns:
        (H, W) as measured: whole numbers where there is no rescaling, otherwise float32; or
        (H, W, 3) RGB.

    Raises:
        ValueError: if pydicom or a decoder of it is missing, the file is damaged or holds no
            image, or has no such frame.
    """
    data = _data_set(stream, name, pixels=True)
    header = _header(data, name)
    number = chosen_page(page, header.frames, name)
    check_pixels(*header.size, name)
    try:
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array

        raw = header.grey or header.kind == "PALETTE COLOR"
        samples: np.ndarray = pixel_array(data, index=number, raw=raw)
        if not header.grey:
            if header.kind == "PALETTE COLOR":
                samples = apply_color_lut(samples, data)[..., :3]
            return np.ascontiguousarray(samples), header
        if header.kind == "MONOCHROME1":
            return _turned(samples, data, header)
        return _compact(apply_modality_lut(samples, data)), header
    except Exception as error:  # decoders raise what they like on broken bytes
        raise ValueError(
            f"{name} is damaged, or compressed in a way that needs a further package, and cannot "
            f"be decoded ({error})"
        ) from None


def _turned(samples: np.ndarray, data: Any, header: DicomHeader) -> tuple[np.ndarray, DicomHeader]:
    """Return measured values, and their window, with white as the largest."""
    from pydicom.pixels.processing import apply_modality_lut

    low = -(1 << (header.bits - 1)) if header.signed else 0
    ends = np.array([low, low + (1 << header.bits) - 1], samples.dtype)
    both = float(apply_modality_lut(ends, data).astype(np.float64).sum())
    turned = both - apply_modality_lut(samples, data).astype(np.float64)
    if header.window is not None:
        first, last = header.window
        header = replace(header, window=(both - last, both - first))
    return _compact(turned.astype(samples.dtype) if _fits(turned, samples) else turned), header


def _fits(values: np.ndarray, like: np.ndarray) -> bool:
    kind = np.iinfo(like.dtype)
    whole = bool((values == np.rint(values)).all())
    return whole and kind.min <= values.min() and values.max() <= kind.max


def _compact(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32) if values.dtype.kind == "f" else values
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _data_set(stream: BinaryIO, name: str, *, pixels: bool) -> Any:
    try:
        from pydicom import dcmread, uid
    except ImportError:
        raise RefusedError(
            f"{name} is DICOM, which pydicom reads: `pip install maskwright[dicom]`"
        ) from None
    try:
        stream.seek(0)
        source = io.BytesIO(stream.read()) if pixels else stream
        data = dcmread(source, stop_before_pixels=not pixels, force=True)
        if "TransferSyntaxUID" not in data.file_meta:  # uncompressed, as it is without these words
            implicit, _ = data.original_encoding
            syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
            data.file_meta.TransferSyntaxUID = syntax
        return data
    except Exception as error:
        raise ValueError(f"{name} is damaged and cannot be read as DICOM ({error})") from None


def _header(data: Any, name: str) -> DicomHeader:
    try:
        size = int(data.Rows), int(data.Columns)
        kind, bits = str(data.PhotometricInterpretation), int(data.BitsStored)
        frames = int(data.get("NumberOfFrames") or 1)
        signed = bool(data.PixelRepresentation)
        window = _window(data)
    except TooLargeError:
        raise
    except Exception:
        raise RefusedError(
            f"{name} is DICOM without an image, such as a report or a plan"
        ) from None
    return DicomHeader(size, frames, kind, bits, signed, window)


def _window(data: Any) -> Window | None:
    """Return the first window of a file, in measured values."""
    centres, widths = data.get("WindowCenter"), data.get("WindowWidth")
    if centres is None or widths is None:
        return None
    centre, width = (
        float(value if isinstance(value, int | float | str) else value[0])
        for value in (centres, widths)
    )
    if str(data.get("VOILUTFunction") or "LINEAR") == "LINEAR":  # equation of C.11.2.1.2.1
        centre, width = centre - 0.5, width - 1
    return (centre - width / 2, centre + width / 2) if width > 0 else None
