"""DICOM against pydicom's own pipeline: rescaled values, windows, MONOCHROME1, frames, colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless  # noqa: E402

from maskwright.data.pixels.images import image_header, load_image, load_samples  # noqa: E402
from maskwright.data.pixels.kinds import image_suffixes  # noqa: E402
from maskwright.data.pixels.picture import open_picture  # noqa: E402
from maskwright.prediction.reading import Reading, read  # noqa: E402
from maskwright.prediction.sources import list_sources, one_source  # noqa: E402

RNG = np.random.default_rng(9)
STORED = RNG.integers(0, 4096, (31, 43), np.uint16)


def dicom(stored: np.ndarray, kind: str = "MONOCHROME2", bits: int = 12, **tags: Any) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    colours = stored.ndim > 2 and stored.shape[-1] == 3
    rows, columns = stored.shape[-3:-1] if colours else stored.shape[-2:]
    data.Rows, data.Columns, data.PhotometricInterpretation = rows, columns, kind
    data.SamplesPerPixel = 3 if colours else 1
    if colours:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim - colours == 3:
        data.NumberOfFrames = len(stored)
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("signed", [False, True])
def test_rescaled_and_windowed_as_pydicom_does(
    function: str, kind: str, signed: bool, tmp_path: Path
) -> None:
    stored = STORED.astype(np.int16) - 2048 if signed else STORED
    tags = {"RescaleSlope": 2.0, "RescaleIntercept": -1024.0}
    tags |= {"WindowCenter": 400.0, "WindowWidth": 1500.0, "VOILUTFunction": function}
    (tmp_path / "a.dcm").write_bytes(dicom(stored, kind, **tags))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    measured = apply_modality_lut(stored, data)
    with open_picture(tmp_path / "a.dcm") as picture:
        assert picture.window is not None
        if kind == "MONOCHROME2":
            np.testing.assert_array_equal(picture.whole(), measured.astype(np.float32))
        else:  # the largest is white, in the same range
            ends = apply_modality_lut(np.array([stored.min(), stored.max()]), data)
            np.testing.assert_allclose(np.diff(picture.whole()), -np.diff(measured), atol=1e-3)
            assert np.ptp(picture.whole()) == np.ptp(ends)
    # A viewer turns MONOCHROME1 over behind the window.
    window = apply_voi_lut(measured, data, prefer_lut=False)
    low, high = {False: (0, 4095), True: (-2048, 2047)}[signed]
    low, high = (float(v) for v in apply_modality_lut(np.array([low, high]), data))
    expected = (window - low) * 255 / (high - low)
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    shown = load_image(tmp_path / "a.dcm")
    assert np.abs(shown[..., 0] - expected).max() <= 0.51
    # Prediction looks at the same, and says nothing of percentiles.
    loaded = read(one_source(tmp_path / "a.dcm"), Reading())
    assert not loaded.deep and np.abs(loaded.pixels[..., 2] - expected).max() < 0.01
    # A declared window counts in measured values.
    loaded = read(one_source(tmp_path / "a.dcm"), Reading(window=(-1000.0, 3000.0)))
    if kind == "MONOCHROME2":
        same = (measured.clip(-1000, 3000) + 1000) * 255 / 4000
        np.testing.assert_allclose(loaded.pixels[..., 0], same, atol=1e-3)


def test_whole_numbers_without_rescaling_stay(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(STORED))
    found = load_samples(tmp_path / "a.dcm")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, STORED)
    turned = load_samples(dicom(STORED, "MONOCHROME1"))
    assert turned.dtype == np.uint16
    np.testing.assert_array_equal(turned, 4095 - STORED)
    header = image_header(tmp_path / "a.dcm")
    assert (header.size, header.format, header.deep, header.channels) == (
        (31, 43),
        "DICOM",
        True,
        1,
    )
    assert ".dcm" in image_suffixes()


def test_frames_and_colours(tmp_path: Path) -> None:
    frames = RNG.integers(0, 4096, (3, 20, 30), np.uint16)
    (tmp_path / "a.dcm").write_bytes(dicom(frames))
    assert image_header(tmp_path / "a.dcm").frames == 3
    for number in range(3):
        np.testing.assert_array_equal(load_samples(tmp_path / "a.dcm", page=number), frames[number])
    with pytest.raises(ValueError, match=r"a\.dcm has 3 pages.*page=3"):
        load_samples(tmp_path / "a.dcm", page=3)
    colours = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(load_samples(dicom(colours, "RGB", 8)), colours)
    grey = RNG.integers(0, 256, (20, 30), np.uint8)
    np.testing.assert_array_equal(load_samples(dicom(grey, bits=8))[..., 1], grey)


def test_compressed_files(tmp_path: Path) -> None:
    data = pydicom.dcmread(io.BytesIO(dicom(STORED)))
    data.compress(RLELossless)
    data.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(load_samples(tmp_path / "a.dcm"), STORED)


def test_bad_files_are_named(tmp_path: Path) -> None:
    whole = dicom(STORED)
    report = pydicom.dcmread(io.BytesIO(whole))
    for tag in ("Rows", "Columns", "PixelData"):
        del report[tag]
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(ValueError, match=r"report\.dcm is DICOM without an image"):
        load_samples(tmp_path / "report.dcm")
    for length in (len(whole) // 2, 200, 140):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.dcm is"):
            load_samples(tmp_path / "cut.dcm")


@pytest.mark.parametrize("implicit", [None, True, False])
def test_files_without_a_preamble(implicit: bool | None, tmp_path: Path) -> None:
    """With the words of the transfer (None), or the data set alone, as older devices write it."""
    whole = dicom(STORED)
    if implicit is None:
        content = whole[132:]
    else:
        stream, data = io.BytesIO(), pydicom.dcmread(io.BytesIO(whole))
        pydicom.dcmwrite(
            stream,
            Dataset({element.tag: element for element in data}),
            implicit_vr=implicit,
            little_endian=True,
        )
        content = stream.getvalue()
    (tmp_path / "IM0001").write_bytes(content)
    np.testing.assert_array_equal(load_samples(tmp_path / "IM0001"), STORED)
    assert [one.name for one in list_sources(tmp_path)] == ["IM0001"]


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(STORED))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"a\.dcm is DICOM.*pip install maskwright\[dicom\]"):
        load_samples(tmp_path / "a.dcm")


def test_files_without_a_suffix_are_known_by_their_content(tmp_path: Path) -> None:
    data = dicom(STORED)
    for name in ("IM000001", "1.2.840.10008.7", "slice.dcm", "DICOMDIR", ".hidden", "notes.txt"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "README").write_text("no image")
    found = list_sources(tmp_path)
    assert [one.name for one in found] == ["1.2.840.10008.7", "IM000001", "slice.dcm"]
    assert "no suffix (2)" in found.passed_over and ".txt (1)" in found.passed_over
    assert [one.name for one in list_sources(f"{tmp_path}/IM*")] == ["IM000001"]
