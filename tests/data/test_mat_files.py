"""Label maps in MATLAB files, written by scipy: SBD, COCO-Stuff 10k, plain folders, and faults."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from map_files import numbers, photo, read, save, stripes
from scipy.io import savemat

from maskwright.data import find_splits
from maskwright.data.formats.maps.coco_stuff import IDS
from maskwright.data.pixels.label_image import label_size, load_labels
from maskwright.data.pixels.limits import VARIABLE, TooLargeError
from maskwright.data.pixels.mat_file import load_mat


def mat(path: Path, content: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content, **{"do_compression": True, **options})
    return path


def test_sbd(tmp_path: Path) -> None:
    root = tmp_path / "benchmark_RELEASE/dataset"
    for name, last in (("2008_000002", 20), ("2008_000003", 15), ("2009_000001", 1)):
        photo(root / f"img/{name}.jpg")
        labels = numbers(0, last)
        rest = {"Boundaries": np.zeros((20, 1), object), "CategoriesPresent": np.array([[last]])}
        mat(root / f"cls/{name}.mat", {"GTcls": {"Segmentation": labels, **rest}})
        mat(root / f"inst/{name}.mat", {"GTinst": {"Segmentation": labels > 0}})
    (root / "train.txt").write_text("2008_000002\n2009_000001\n")
    (root / "val.txt").write_text("2008_000003\n")
    for data in (root, root.parent):
        assert set(find_splits(data, records="maps")) == {"train", "val"}
        train, val = read(data), read(data, "val")
        assert [train.names[k] for k in stripes(train)] == ["background", "tvmonitor"]
        assert [val.names[k] for k in stripes(val)] == ["background", "person"]
        assert len(train) == 2 and train.faults == [] and train[0].size == (10, 12)


def test_coco_stuff_10k(tmp_path: Path) -> None:
    for i in (77, 78):
        name = f"COCO_train2014_{i:012d}"
        photo(tmp_path / f"images/{name}.jpg")
        names = np.array(["unlabeled", "person"], object)
        content = {"S": numbers(0, 1, 13, 182), "names": names, "captions": names}
        mat(tmp_path / f"annotations/{name}.mat", content)
    lists = tmp_path / "imageLists"
    lists.mkdir()
    for split, i in (("train", 77), ("test", 78), ("all", 77)):
        (lists / f"{split}.txt").write_text(f"COCO_train2014_{i:012d}\n")
    assert set(find_splits(tmp_path, records="maps")) == {"train", "test"}
    data = read(tmp_path)
    assert data.format == "coco_stuff" and len(data.names) == len(IDS) and data.faults == []
    ignored, *others = stripes(data)
    assert ignored == 255
    assert [data.names[k] for k in others] == ["person", "stop sign", "wood"]


@pytest.mark.parametrize("maps", ["masks/{}/{}.mat", "labels/{}/{}_gt.mat"])
def test_plain_folders(maps: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / f"images/{split}/a.png")
        mat(tmp_path / maps.format(split, "a"), {"S": numbers(0, 1).astype(float)})
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    assert set(find_splits(tmp_path, records=None)) == {"train", "val"}
    assert stripes(read(tmp_path, "val")) == [0, 1]


def test_images_come_before_matlab_files(tmp_path: Path) -> None:
    """A folder of PNGs is no rival of one of MATLAB files, nor a PNG of the file of its name."""
    photo(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", numbers(0, 1))
    mat(tmp_path / "masks/a.mat", {"S": numbers(1, 0)})
    mat(tmp_path / "annotations/a.mat", {"x": 1})
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    data = read(tmp_path)
    assert stripes(data) == [0, 1]
    assert "a.png is the label map of this name" in data.faults[0].message


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64, bool])
@pytest.mark.parametrize("options", [{}, {"do_compression": False}])
def test_numbers_of_any_type(dtype: Any, options: dict[str, Any], tmp_path: Path) -> None:
    labels = numbers(0, 1, size=(1, 7)).astype(dtype)  # a row must stay a matrix
    file = mat(tmp_path / "a.mat", {"S": labels}, **options)
    stored, palette = load_labels(file)
    assert palette is None and stored.dtype.kind in "iu" and label_size(file) == (1, 7)
    assert np.array_equal(stored, labels.astype(int))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": np.zeros((2, 2))}, r"a\.mat has neither S .* only labels: save the matrix"),
        ({"GTcls": {"Boundaries": 1}}, "only GTcls: save the matrix of class numbers"),
        ({"GTcls": np.zeros(3)}, "only GTcls"),
        ({}, "only no variable"),
        ({"S": "road"}, "S is no matrix of numbers"),
        ({"S": np.zeros((2, 3, 4))}, "no matrix of numbers but 2x3x4 of f8"),
        ({"S": np.zeros((0, 4))}, "no matrix of numbers but 0x4"),
        ({"S": np.array([[0, 1.5]])}, r"S has the value 1\.5, but the class .* whole number"),
        ({"S": np.array([[0, np.nan]])}, "S has the value nan"),
        ({"GTcls": {"Segmentation": "x"}}, "GTcls.Segmentation is no matrix"),
    ],
)
def test_what_is_no_label_map_is_told(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load_mat(mat(tmp_path / "a.mat", content))


def test_other_files_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0"))
    with pytest.raises(ValueError, match=r"a\.mat is a file of MATLAB 7\.3 .*again with '-v7'"):
        load_labels(file)
    file.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a\.mat is no MATLAB file, or damaged"):
        load_labels(file)
    with pytest.raises(ValueError, match="cannot read label map"):
        load_labels(tmp_path / "b.mat")
    photo(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    file.rename(tmp_path / "masks/a.mat")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    with pytest.raises(ValueError, match=r"no usable image of 1; the first fault: label map .*mat"):
        read(tmp_path)


def test_what_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that says it is of two gigabytes is refused by its first bytes."""
    file = mat(tmp_path / "a.mat", {"S": numbers(0, 1)})
    inner = zlib.compress(struct.pack("<II", 14, 2**31) + bytes(64))
    file.write_bytes(file.read_bytes()[:128] + struct.pack("<II", 15, len(inner)) + inner)
    with pytest.raises(TooLargeError, match=r"a\.mat is refused: it unpacks to 2147483648 bytes"):
        load_mat(file)
    file = mat(tmp_path / "b.mat", {"S": numbers(0, 1)})
    monkeypatch.setenv(VARIABLE, "100")
    with pytest.raises(TooLargeError, match=f"12 x 10 pixels .*{VARIABLE}=120"):
        load_mat(file)


def test_bytes_in_the_other_order(tmp_path: Path) -> None:
    """As a machine with the high byte first writes it; a name of one letter stands in its tag."""
    labels = np.array([[0, 300, 2], [1, 0, 7]])

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">2I", kind, len(content)) + content + bytes(-len(content) % 8)

    matrix = element(6, struct.pack(">2I", 11, 0)) + element(5, struct.pack(">2i", 2, 3))
    matrix += struct.pack(">2H", 1, 1) + b"S\0\0\0" + element(4, labels.T.astype(">u2").tobytes())
    file = tmp_path / "a.mat"
    file.write_bytes(bytes(124) + b"\x01\x00MI" + element(14, matrix))
    assert np.array_equal(load_mat(file), labels)


def test_files_of_matlab_4_are_refused(tmp_path: Path) -> None:
    file = mat(tmp_path / "a.mat", {"S": numbers(0, 1)}, format="4", do_compression=False)
    with pytest.raises(
        ValueError, match=r"a\.mat is no MATLAB file, or damaged .*of MATLAB 5 to 7"
    ):
        load_mat(file)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_broken_bytes(data: st.DataObject, tmp_path: Path) -> None:
    compressed = data.draw(st.booleans())
    whole = mat(
        tmp_path / "whole.mat",
        {"GTcls": {"Segmentation": numbers(0, 1, 2)}},
        do_compression=compressed,
    ).read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    until = at + data.draw(st.integers(0, 12))
    file = tmp_path / "a.mat"
    file.write_bytes(whole[:at] + data.draw(st.binary(max_size=6)) + whole[until:])
    try:
        load_mat(file)
    except ValueError as error:
        assert "a.mat" in str(error)
