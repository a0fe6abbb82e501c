"""Label images: a number for each object, told from numbers of classes by what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawn_objects import full_mask
from PIL import Image

from maskwright.data import find_splits, open_dataset, write_dataset


def numbers(seed: int, count: int, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """A label image of rectangles that do not touch, numbered in any order."""
    found = np.zeros(size, np.uint16)
    order = np.random.default_rng(seed).permutation(count) + 1
    for k in range(count):
        y, x = 6 * (k // 6), 6 * (k % 6)
        found[y + 1 : y + 5, x + 1 : x + 4 + k % 2] = order[k]
    return found


def save(file: Path, pixels: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".tif" and pixels is not None:
        tifffile.imwrite(file, pixels)
    else:
        Image.fromarray(np.zeros((30, 40, 3), np.uint8) if pixels is None else pixels).save(file)


# Image and label image number k, of the train split and of another.
LAYOUTS = {
    "Cellpose": ("train/{}_img.png", "train/{}_masks.png", "test"),
    "Cellpose's window": ("train/{}.png", "train/{}_cp_masks.png", "test"),
    "StarDist": ("train/images/{}.tif", "train/masks/{}.tif", "test"),
    "folders": ("images/train/{}.png", "labels/train/{}.tif", "val"),
    "no splits": ("images/{}.png", "masks/{}.png", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    image, mask, other = LAYOUTS[layout]
    truth = [numbers(k, 2 + k) for k in range(3)]
    for split in ("train", other)[: 1 + bool(other)]:
        for k in range(3):
            save(tmp_path / image.replace("train", split).format(k))
            save(tmp_path / mask.replace("train", split).format(k), truth[k])
    assert list(find_splits(tmp_path)) == [one for one in ("train", other) if one]
    data = open_dataset(tmp_path)
    assert data.format == "instances" and data.names == ["object"] and not data.faults
    for k in range(3):
        assert len(data[k].labels) == 2 + k
        for number in range(1, 3 + k):
            np.testing.assert_array_equal(full_mask(data, k, number - 1), truth[k] == number)
    assert open_dataset(tmp_path, names=["cell"]).names == ["cell"]


def test_a_file_for_each_object(tmp_path: Path) -> None:
    """The nuclei of the Data Science Bowl 2018: masks that may overlap, of 0 and 255."""
    first, second = np.zeros((2, 30, 40), np.uint8)
    first[2:9, 3:9] = second[7:20, 7:30] = 255
    for name in ("x1", "x2"):
        save(tmp_path / f"stage1_train/{name}/images/{name}.png")
        save(tmp_path / f"stage1_train/{name}/masks/1.png", first)
    save(tmp_path / "stage1_train/x2/masks/2.png", second)
    save(tmp_path / "stage1_test/y/images/y.png")
    for root in (tmp_path, tmp_path / "stage1_train"):
        data = open_dataset(root)
        assert [len(data[i].labels) for i in range(len(data))] == [1, 2]
        np.testing.assert_array_equal(full_mask(data, 1, 0), first > 0)
        np.testing.assert_array_equal(full_mask(data, 1, 1), second > 0)


@pytest.mark.parametrize("kind", ["classes", "many pieces", "void", "same numbers", "named"])
def test_numbers_of_classes_are_no_objects(kind: str, tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"images/{k}.png")
        labels = numbers(k, 2 + k).astype(np.uint8)
        if kind == "classes":
            labels[:] = np.arange(30)[:, None] // 15
        elif kind == "many pieces":
            labels %= 3
        elif kind == "void":
            labels[0] = 255
        elif kind == "same numbers":
            labels = numbers(k, 4).astype(np.uint8)
        save(tmp_path / f"masks/{k}.png", labels)
    if kind == "named":
        (tmp_path / "classes.txt").write_text("background\na\nb\nc\nd\n")
    with pytest.raises(ValueError, match="has label maps"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, records="maps").records == "maps"
    assert open_dataset(tmp_path, records=None).records == "maps"
    if kind == "same numbers":  # what cannot be seen may be said
        data = open_dataset(tmp_path, format="instances")
        assert [len(data[i].labels) for i in range(3)] == [4, 4, 4]


def test_nuclei_go_out_and_come_in(shared_data: Path, tmp_path: Path) -> None:
    data = open_dataset(shared_data / "nuclei", "val").select(range(4), "train")
    write_dataset(data, tmp_path, "instances")
    (tmp_path / "object_classes.txt").unlink()
    read = open_dataset(tmp_path)
    assert read.names == ["object"] and len(read) == 4
    places = {read[i].path.stem: i for i in range(4)}
    for index in range(4):
        other = places[data[index].path.stem]
        masks = [full_mask(data, index, k) for k in range(len(data[index].labels))]
        union = np.any(masks, axis=0)
        found = [full_mask(read, other, k) for k in range(len(read[other].labels))]
        np.testing.assert_array_equal(np.any(found, axis=0), union)
        assert len(found) == len(masks) and sum(map(np.sum, found)) == union.sum()
