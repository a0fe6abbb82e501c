"""Labelled images: each format against torchvision's reader of the same files, and its faults."""

from __future__ import annotations

import csv
import gzip
import pickle
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data import Dataset, find_splits, open_dataset, write_dataset
from maskwright.data.formats.cifar import CifarSource
from maskwright.data.formats.imagenet import read_synsets
from maskwright.errors import OptionError

RNG = np.random.default_rng(0)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).convert(mode).save(path)
    return path


def folders(root: Path, *files: str) -> Path:
    for file in files:
        picture(root / file)
    return root


def labels(data: Dataset) -> list[str]:
    """The label of each image, by name."""
    return ["".join(data.names[k] for k in data[i].image_labels) for i in range(len(data))]  # type: ignore[union-attr]


def read(data: Any, split: str = "train", **options: Any) -> Dataset:
    return open_dataset(data, split, records="labels", **options)


def kinds(data: Dataset) -> set[tuple[str, str]]:
    return {(fault.kind, fault.action) for fault in data.faults}


def test_class_folders_are_those_of_image_folder(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    names = ("1", "10", "2", "Ä b")
    for split in ("train", "val"):
        for number, name in enumerate(names):
            for k in range(number + 1):
                picture(tmp_path / split / name / "deeper" / f"{k}.png")
                picture(tmp_path / split / name / f"{k}.jpg")
    for split in ("train", "val"):
        data, theirs = read(tmp_path, split), ImageFolder(str(tmp_path / split))
        assert (data.records, data.format, data.faults) == ("labels", "folders", [])
        assert data.names == theirs.classes == list(names) and not data.multilabel
        ours = {str(data[i].path): data[i].image_labels.tolist() for i in range(len(data))}  # type: ignore[union-attr]
        assert ours == {path: [label] for path, label in theirs.samples}
        assert data.images_per_class().tolist() == [2, 4, 6, 8]
        for path, _ in theirs.samples[:3]:
            index = list(ours).index(path)
            np.testing.assert_array_equal(data.image(index), theirs.loader(path))
    assert set(find_splits(tmp_path, records=None)) == {"train", "val"}


def test_a_folder_of_one_split_is_that_split(tmp_path: Path) -> None:
    folders(tmp_path, "set/valid/a/1.png", "set/valid/b/1.png")
    assert set(find_splits(tmp_path / "set/valid", records="labels")) == {"val"}
    with pytest.raises(ValueError, match=r"did you mean data='.*set'"):
        read(tmp_path)


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    folders(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/1.png")
    train = read(tmp_path)
    val = read(tmp_path, "val", names=train.names)
    assert labels(val) == ["c"] and val[0].image_labels.tolist() == [2]  # type: ignore[union-attr]
    assert kinds(val) == {("class without images", "kept")}
    assert "no image of 'a', 'b'" in val.faults[0].message
    picture(tmp_path / "val/d/1.png")
    with pytest.raises(ValueError, match=r"class\(es\) \['d'\], but the known classes"):
        read(tmp_path, "val", names=train.names)


def test_faults_of_class_folders(tmp_path: Path) -> None:
    folders(tmp_path, "train/a/1.png", "train/b/1.png", "train/stray.png", "test/1.png")
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/a/zero.png").touch()
    (tmp_path / "train/b/notes.txt").write_text("x")
    data = read(tmp_path)
    assert data.names == ["a", "b", "empty"] and len(data) == 2
    assert kinds(data) == {
        ("class without images", "kept"),
        ("empty image file", "left out"),
        ("image without a class", "left out"),
        ("file passed over", "left out"),
    }
    assert any("test" in fault.file for fault in data.faults)
    picture(tmp_path / "training/a/1.png")
    with pytest.raises(ValueError, match="both the train split: leave one"):
        read(tmp_path)


def test_only_folders_of_images_side_by_side_are_classes(tmp_path: Path) -> None:
    one = folders(tmp_path / "one", "with_mask/1.png", "without_mask/1.png")
    assert read(one).names == ["with_mask", "without_mask"]
    vehicles = folders(tmp_path / "vehicles", "bus/1.png", "train/1.png")
    assert read(vehicles).names == ["bus", "train"]
    for name, files, why in (
        ("images and masks", ("images/1.png", "masks/1.png"), "has label maps, the class of every"),
        ("deeper", ("leftImg8bit/train/1.png", "gtFine/train/1.png"), "no annotations found"),
    ):
        root = folders(tmp_path / name, *files)
        with pytest.raises(ValueError, match=why):
            read(root)
    with pytest.raises(ValueError, match="labels of their own and no objects: a classifier reads"):
        open_dataset(one)
    with pytest.raises(OptionError, match="records is 'objects', 'labels', 'maps' or None"):
        find_splits(one, records="boxes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png", "2.png"], r"has images \(2 in it\), and no folders of classes: .* train/dog/2"),
        (["ants/1.png", "ants/2.png"], "has images of one class alone, 2 in ants: .*at least two"),
        (["ants/1.png", "3.png"], "has images of one class alone, 1 in ants"),
        (["train/1.png", "val/2.png"], r"\(1 in train and 1 in val\), and no folders of classes"),
        (["images/1.png"], r"\(1 in images\), and no folders of classes"),
    ],
)
def test_a_lone_class_is_told_what_it_lacks(files: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(folders(tmp_path, *files))
    (tmp_path / "labels.xml").write_text("<ants/>")  # may hold the labels: what is read is listed
    with pytest.raises(ValueError, match="no annotations found"):
        read(tmp_path)


def test_a_folder_of_a_class_within_a_data_set(tmp_path: Path) -> None:
    folders(tmp_path / "set", "train/ants/1.png", "train/bees/2.png")
    with pytest.raises(ValueError, match=r"no folders of classes: .*; did you mean data='.*set'\?"):
        read(tmp_path / "set/train/ants")


def table(path: Path, *rows: tuple[object, ...], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


def test_a_table_with_splits_and_groups(tmp_path: Path) -> None:
    folders(tmp_path, *(f"images/{k}.png" for k in range(6)))
    rows = [(f"{k}.png", k % 3 * 10, ("train", "valid")[k > 3], "ab"[k % 2]) for k in range(6)]
    file = table(tmp_path / "labels.csv", ("Image", "Class", "Set", "Patient"), *rows)
    for data in (tmp_path, file, {"train": str(file), "val": str(file)}):
        assert set(find_splits(data, records="labels")) == {"train", "val"}
    train = read(tmp_path)
    assert train.names == ["0", "10", "20"] and labels(train) == ["0", "10", "20", "0"]
    assert train.groups is not None and train.groups.tolist() == [0, 1, 0, 1]
    assert train[1].group == 1 and train[1].path == tmp_path / "images/1.png"
    assert labels(read(tmp_path, "val", names=train.names)) == ["10", "20"]


def test_a_table_of_several_labels(tmp_path: Path) -> None:
    folders(tmp_path, "a.png", "b.png", "c.png")
    table(
        tmp_path / "train.csv",
        ("path", "labels"),
        ("a.png", "cat;dog"),
        ("b.png", " dog "),
        ("c.png", ""),
        delimiter="\t",
    )
    data = read(tmp_path)
    assert data.names == ["cat", "dog"] and data.multilabel
    assert labels(data) == ["catdog", "dog", ""] and data.images_per_class().tolist() == [1, 2]


def test_a_table_with_a_column_for_each_class(tmp_path: Path) -> None:
    """As Roboflow writes it: train/_classes.csv, with blanks behind the commas."""
    folders(tmp_path, "train/a.png", "train/b.png", "train/c.png")
    rows = [("a.png", " 1", " 0", " 1"), ("b.png", " 0", " 0", " 1"), ("c.png", " 0", " 0", " 0")]
    file = table(tmp_path / "train/_classes.csv", ("filename", " dry", " cold", " wet"), *rows)
    data = read(tmp_path)
    assert data.names == ["dry", "cold", "wet"] and not data.unread
    assert [data[i].image_labels.tolist() for i in range(3)] == [[0, 2], [2], []]
    table(file, ("filename", "dry", "wet"), *[("a.png", 0, 1)] * 60, ("b.png", 1, "yes"))
    with pytest.raises(ValueError, match=r"line 62: wet is 0 or 1, got 'yes'"):
        read(tmp_path)


def test_headers_of_boxes_as_people_call_them(tmp_path: Path) -> None:
    folders(tmp_path, "a.png")
    words = ("img_fName", "img_w", "class_label", "bbx_xtl", "bbx_ytl", "bbx_xbr", "bbx_ybr")
    table(tmp_path / "boxes.csv", words, ("a.png", 12, "dog", 1, 2, 9, 8))
    data = open_dataset(tmp_path)
    assert data.names == ["dog"] and data[0].boxes.tolist() == [[1, 2, 9, 8]] and not data.unread


def test_a_table_of_boxes_is_read_both_ways(tmp_path: Path) -> None:
    folders(tmp_path, "a.png", "b.png", "c.png")
    table(
        tmp_path / "train.csv",
        ("path", "label", "x1", "y1", "x2", "y2"),
        ("a.png", "dog", 1, 2, 9.5, 8),
        ("a.png", "cat", 3, 3, 6, 6),
        ("b.png", "cat", 0, 0, 12, 10),
        ("c.png", "", "", "", "", ""),
        ("c.png", "cat", "x", 0, 1, 1),
    )
    objects = open_dataset(tmp_path)
    assert objects.records == "objects" and objects.names == ["cat", "dog"]
    assert objects[0].boxes.tolist() == [[1, 2, 9.5, 8], [3, 3, 6, 6]]
    assert objects[0].labels.tolist() == [1, 0] and len(objects[2].labels) == 0
    assert kinds(objects) == {("bad box", "left out")}
    assert labels(read(tmp_path)) == ["dogcat", "cat", "cat"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "b"), ("x", "y")], r"no column for the path and the label, it has \['a', 'b'\]"),
        ([("path", "x"), ("x", "y")], "no column for the label"),
        ([("path", "label")], "has a header but no rows"),
        ([("path", "file", "label"), ("a", "b", "c")], "both the path: leave one"),
        ([("path", "label", "x1"), ("a", "b", "1")], "only \\['x1'\\] are there"),
        ([("path", "label", "split"), ("a.png", "b", "7")], "line 2: split '7' is none of"),
        (
            [("path", "label"), ("../a.png", "x")],
            r"no usable image; .* line 2: path '../a.png' is empty",
        ),
        ([("path", "label"), ("no.png", "x")], r"no usable image of 1; .*no\.png does not exist"),
    ],
)
def test_tables_that_cannot_be_read(
    tmp_path: Path, rows: list[tuple[object, ...]], message: str
) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read(table(tmp_path / "labels.csv", *rows))


def test_faults_of_a_table(tmp_path: Path) -> None:
    folders(tmp_path, "a.png", "b.png", "c.png")
    rows = [("a.png", "x"), ("a.png", "y"), ("b.png", "x"), ("b.png", "x"), ("c.png", "")]
    data = read(table(tmp_path / "labels.csv", ("path", "label"), *rows))
    assert labels(data) == ["x"]
    assert kinds(data) == {
        ("different labels", "left out"),
        ("image without a label", "left out"),
        ("class without images", "kept"),
    }


def idx(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    pack: Callable[[bytes], bytes] = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(pack(head + values.tobytes()))
    return path


def digits(folder: Path, ending: str = "", start: str = "") -> tuple[np.ndarray, np.ndarray]:
    pixels = RNG.integers(0, 256, (7, 28, 20), np.uint8)
    values = np.array([3, 1, 0, 3, 9, 1, 0], np.uint8)
    for split in ("train", "t10k"):
        idx(folder / f"{start}{split}-images-idx3-ubyte{ending}", pixels)
        idx(folder / f"{start}{split}-labels-idx1-ubyte{ending}", values)
    return pixels, values


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_those_of_torchvision(tmp_path: Path, packed: bool) -> None:
    from torchvision.datasets import MNIST

    folder = tmp_path / "MNIST" / "raw"
    pixels, _ = digits(folder, ".gz" if packed else "")
    if packed:  # torchvision reads unpacked ones
        digits(tmp_path / "spare" / "MNIST" / "raw")
    assert set(find_splits(tmp_path / "MNIST", records=None)) == {"train", "test"}
    data = read(tmp_path / "MNIST")
    assert data.names == ["0", "1", "3", "9"] and data[2].channels == 1 and data[2].stored
    assert data[2].size == (28, 20) and data[2].path.name.endswith("#2")
    np.testing.assert_array_equal(data.image(2), np.repeat(pixels[2][..., None], 3, 2))
    assert len(data.select([5, 2])) == 2
    np.testing.assert_array_equal(data.select([5, 2]).image(0), data.image(5))
    if not packed:
        theirs = MNIST(str(tmp_path), train=True, download=False)
        for i, (image, label) in enumerate(theirs):
            np.testing.assert_array_equal(data.image(i)[..., 0], np.asarray(image))
            assert data.names[int(data[i].image_labels[0])] == str(label)  # type: ignore[index]


def test_emnist_is_transposed_and_fashion_has_names(tmp_path: Path) -> None:
    pixels, _ = digits(tmp_path / "e", ".gz", "emnist-letters-")
    np.testing.assert_array_equal(read(tmp_path / "e").image(1)[..., 0], pixels[1].T)
    assert read(tmp_path / "e").image(1).shape == (20, 28, 3)
    digits(tmp_path / "e", ".gz", "emnist-digits-")
    with pytest.raises(ValueError, match="several sets of IDX files"):
        read(tmp_path / "e")
    one = tmp_path / "e" / "emnist-letters-train-images-idx3-ubyte.gz"
    assert len(read(one)) == 7 and set(find_splits(one, records="labels")) == {"train", "test"}
    digits(tmp_path / "Fashion-MNIST")
    assert labels(read(tmp_path / "Fashion-MNIST"))[:2] == ["Dress", "Trouser"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], r"only 3915 bytes where it says 3920|cut off"),
        (lambda raw: raw + b"x", "more bytes where it says"),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], "is no IDX file of images"),
        (lambda raw: gzip.compress(raw)[:-20], "cannot be read"),
        (lambda raw: raw[:4] + b"\xff" * 12, "says that it has"),
        (lambda raw: b"", "is no IDX file of images"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    digits(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_idx_files_that_do_not_belong_together(tmp_path: Path) -> None:
    digits(tmp_path)
    idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(6, np.uint8))
    with pytest.raises(ValueError, match=r"has 7 images and .* 6 labels"):
        read(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="has no labels beside it"):
        read(tmp_path)


TEN = [f"class {k}" for k in range(10)]


def cifar_pickles(folder: Path, protocol: int) -> tuple[np.ndarray, list[int]]:
    folder.mkdir(parents=True)
    pixels = RNG.integers(0, 256, (6, 3072), np.uint8)
    values = [5, 0, 9, 9, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            batch = {"data": pixels, "labels": values, "batch_label": name}
            (folder / name).write_bytes(pickle.dumps(batch, protocol))
        meta = {"label_names": TEN, "num_vis": 3072}
        (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    return pixels, values


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar_pickles_are_those_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    from torchvision.datasets import CIFAR10

    cifar_pickles(tmp_path / "cifar-10-batches-py", protocol)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *rest: True)
    theirs = CIFAR10(str(tmp_path), train=True)
    data = read(tmp_path)
    assert len(data) == len(theirs) == 30 and data.names == theirs.classes == TEN
    for i, (image, label) in enumerate(theirs):
        np.testing.assert_array_equal(data.image(i), np.asarray(image))
        assert data[i].image_labels.tolist() == [label]  # type: ignore[union-attr]
    assert len(read(tmp_path, "test")) == 6


def test_cifar_pickles_of_python_2(tmp_path: Path) -> None:
    """Text of Python 2 is bytes, as in the published files."""
    pixels = RNG.integers(0, 256, (3, 3072), np.uint8)

    def text(value: bytes) -> bytes:
        return pickle.BINSTRING + struct.pack("<i", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        b"(K\x01(K\x03M\x00\x0ct" + b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"I00\n" + text(pixels.tobytes()) + b"tb"
    )
    body = b"(d" + text(b"data") + array + b"s" + text(b"labels") + b"(lK\x01aK\x02aK\x01as."
    (tmp_path / "data_batch_1").write_bytes(body)
    loaded = pickle.loads(body, encoding="bytes")
    np.testing.assert_array_equal(loaded[b"data"], pixels)
    data = read(tmp_path)
    assert labels(data) == ["1", "2", "1"]
    planes = pixels[2].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(data.image(2), planes)


def test_cifar_pickles_of_python_2_written_again(tmp_path: Path) -> None:
    """By who read them with encoding="bytes", as CIFAR's page says, and kept a part."""
    pixels = RNG.integers(0, 256, (2, 3072), np.uint8)
    batch = {b"data": pixels, b"labels": [3, 0], b"filenames": [b"a", b"b"]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    names = [name.encode() for name in TEN]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    data = read(tmp_path)
    assert data.names == TEN and labels(data) == [TEN[3], TEN[0]]
    planes = pixels[1].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(data.image(1), planes)


class Evil:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Evil, "ran", True))


def test_nothing_in_a_pickle_is_called(tmp_path: Path) -> None:
    for batch in (Evil(), {"data": Evil(), "labels": [1]}, {"labels": [Evil()]}):
        (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
        with pytest.raises(ValueError, match=r"refused, because it names builtins\.setattr"):
            read(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"labels": [1]})[:-4])
    with pytest.raises(ValueError, match="cannot be read as a pickle"):
        read(tmp_path)
    assert not Evil.ran


def test_cifar_binary_files(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 3072), np.uint8)
    rows = np.concatenate([np.array([[7], [0], [7], [9]], np.uint8), pixels], 1)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "data_batch_10.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(rows.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    data = read(tmp_path)
    assert len(data) == 12 and labels(data)[:2] == ["class 7", "class 0"] and data.names == TEN
    assert data[4].path.name == "data_batch_2.bin#0" and data[11].path.name == "data_batch_10.bin#3"
    np.testing.assert_array_equal(data.image(3), pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))
    (tmp_path / "test_batch.bin").write_bytes(rows.tobytes()[:-1])
    with pytest.raises(ValueError, match="no multiple of 3073"):
        read(tmp_path, "test")
    rows[0, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(rows.tobytes())
    with pytest.raises(ValueError, match="label 10 of 10 classes"):
        read(tmp_path, "test")


def test_cifar_100_has_the_fine_labels_or_the_coarse_ones(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 3072), np.uint8)
    rows = np.concatenate([np.array([[3, 61], [19, 99]], np.uint8), pixels], 1)
    for split in ("train", "test"):
        (tmp_path / f"{split}.bin").write_bytes(rows.tobytes())
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine {k}" for k in range(100)))
    coarse = [f"coarse {k}" for k in range(20)]
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(coarse))
    assert labels(read(tmp_path)) == ["fine 61", "fine 99"]
    named = read(tmp_path / "coarse_label_names.txt", "test")
    assert labels(named) == ["coarse 3", "coarse 19"] and named.names == coarse
    assert labels(read(tmp_path / "fine_label_names.txt")) == ["fine 61", "fine 99"]
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    batch = {"data": pixels, "fine_labels": [61, 99], "coarse_labels": [3, 19]}
    (folder / "train").write_bytes(pickle.dumps(batch, 2))
    meta = {"fine_label_names": [f"fine {k}" for k in range(100)], "coarse_label_names": coarse}
    (folder / "meta").write_bytes(pickle.dumps(meta, 2))
    assert labels(read(folder)) == ["fine 61", "fine 99"]
    shutil.copy(tmp_path / "coarse_label_names.txt", folder)
    assert labels(read(folder / "coarse_label_names.txt")) == ["coarse 3", "coarse 19"]
    assert isinstance(find_splits(folder, records="labels")["train"], CifarSource)


def imagenet(root: Path, order: list[str]) -> list[int]:
    for name in ("n00000001", "n00000002", "n00000003"):
        picture(root / f"train/{name}/{name}_7.JPEG")
    truth = [2, 1, 1, 3]
    for number in range(1, 5):
        picture(root / f"val/ILSVRC2012_val_{number:08}.JPEG")
    lines = "".join(f"{number}\n" for number in truth)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    pairs = "".join(f"{k} {name}\n" for k, name in enumerate(order, 1))
    (root / "ILSVRC2012_synsets.txt").write_text(pairs)
    return truth


def test_imagenet_as_it_is_handed_out(tmp_path: Path) -> None:
    order = ["n00000003", "n00000001", "n00000002"]
    truth = imagenet(tmp_path, order)
    train = read(tmp_path)
    assert train.names == sorted(order)
    val = read(tmp_path, "val", names=train.names)
    assert labels(val) == [order[number - 1] for number in truth]
    (tmp_path / "ILSVRC2012_synsets.txt").unlink()
    with pytest.raises(ValueError, match=r"in the order of the devkit: put its meta\.mat beside"):
        read(tmp_path, "val")


@pytest.mark.parametrize("compress", [False, True])
def test_synsets_of_the_devkit(tmp_path: Path, compress: bool) -> None:
    """A file as the devkit has it, written by SciPy: 1860 synsets, of which 1000 are classes."""
    scipy_io = pytest.importorskip("scipy.io")
    wnids = [f"n{number:08}" for number in RNG.permutation(10**6)[:1860]]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("children", "O")]
    rows = [(k, name, f"a, b {k}", np.zeros(2)) for k, name in enumerate(wnids, 1)]
    synsets = np.array(rows, dtype=kinds)[:, None]
    file = tmp_path / "meta.mat"
    scipy_io.savemat(file, {"synsets": synsets}, do_compression=compress)
    assert read_synsets(file) == wnids[:1000]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"fewer than 1000|cannot be read"):
        read_synsets(file)


def test_written_labels_come_back(tmp_path: Path) -> None:
    digits(tmp_path / "m")
    folders(tmp_path / "f", "train/a/1.png", "train/b/1.png", "train/b/x/1.png")
    for data in (read(tmp_path / "m"), read(tmp_path / "f")):
        place = tmp_path / f"out_{data.format}"
        write_dataset(data, place, "folders")
        again = read(place)
        assert again.names == data.names and sorted(labels(again)) == sorted(labels(data))
        ours, theirs = (
            {(name, d.image(i).tobytes()) for i, name in enumerate(labels(d))}
            for d in (data, again)
        )
        assert ours == theirs
        with pytest.raises(ValueError, match="already"):
            write_dataset(data, place, "folders")
    folders(tmp_path / "t", "a.png", "b.png")
    table(tmp_path / "t/train.csv", ("path", "label"), ("a.png", "x;y"), ("b.png", "y"))
    data = read(tmp_path / "t")
    write_dataset(data, tmp_path / "out", "csv")
    assert labels(read(tmp_path / "out")) == ["xy", "y"]
    with pytest.raises(ValueError, match="has 2 labels: in folders of classes each image has one"):
        write_dataset(data, tmp_path / "out2", "folders")
    with pytest.raises(OptionError, match=r"format='pascal': written are coco, .*, voc, yolo"):
        write_dataset(data, tmp_path / "out2", "pascal")
