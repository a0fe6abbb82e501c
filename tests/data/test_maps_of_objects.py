"""Label maps drawn from objects, against a plain way to draw them; and real data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from map_files import kinds, photo, read
from PIL import Image

from maskwright.data import Dataset, find_splits, open_dataset, split_dataset
from maskwright.data.maps.counts import count_pixels, median_frequency
from maskwright.errors import OptionError

SIZE = (40, 50)


def square(
    number: int, category: int, x: int, y: int, side: int, crowd: int = 0
) -> dict[str, object]:
    corners = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {
        "id": number, "image_id": 1, "category_id": category, "iscrowd": crowd,
        "bbox": [x, y, side, side], "area": side * side, "segmentation": [corners],
    }  # fmt: skip


def counts_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths of COCO: down the columns, beginning with zeros."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [2]))))
    return np.diff(np.concatenate(([0], edges))).tolist()


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    photo(tmp_path / "images/a.png", SIZE)
    crowd = np.zeros(SIZE, np.uint8)
    crowd[30:40, 20:50] = 1
    annotations = [
        square(1, 7, 10, 10, 8),  # small, listed before the large one that covers it
        square(2, 3, 5, 5, 20),
        square(3, 3, 20, 20, 15),
        {**square(4, 7, 20, 30, 10, 1), "segmentation": {"size": SIZE, "counts": counts_of(crowd)}},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    file = tmp_path / "train.json"
    file.write_text(json.dumps(content))
    return file


def drawn() -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[30:40, 20:50] = 255
    labels[5:25, 5:25] = 1
    labels[20:35, 20:35] = 1
    labels[10:18, 10:18] = 2
    return labels


def test_small_objects_lie_over_large_ones_and_crowds_are_ignored(objects: Path) -> None:
    for place in (objects, objects.parent):
        data = read(place)
        assert data.names == ["background", "cat", "dog"] and data.records == "maps"
        np.testing.assert_array_equal(data.label_map(0), drawn())
    both = np.zeros(SIZE, bool)
    both[10:18, 10:18] = both[20:25, 20:25] = True
    ignored = read(objects, overlaps="ignored").label_map(0)
    np.testing.assert_array_equal(ignored, np.where(both, 255, drawn()))
    assert data.images_per_class().tolist() == [0, 1, 1]
    again = read(objects, names=["background", "dog", "cat"])
    np.testing.assert_array_equal(again.label_map(0), np.array([0, 2, 1, *[255] * 253])[drawn()])
    assert again.as_maps() is again


def test_what_maps_of_objects_cannot_be(objects: Path) -> None:
    with pytest.raises(
        ValueError, match="label maps begin with the class 'background', but the kn"
    ):
        read(objects, names=["cat", "dog"])
    with pytest.raises(OptionError, match="ignore is for values of label maps"):
        read(objects, ignore=0)
    with pytest.raises(OptionError, match="overlaps is 'smaller' or 'ignored', got 'larger'"):
        read(objects, overlaps="larger")
    content = json.loads(objects.read_text())
    for one in content["annotations"]:
        one["segmentation"] = []
    objects.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"train\.json has boxes only: label maps are drawn from"):
        read(objects)


def plain(data: Dataset, index: int) -> np.ndarray:
    """The label map of an image of the COCO subset, by pycocotools alone."""
    from pycocotools import mask as coco

    record = data[index]
    content = json.loads(data.source.read_text())
    image = next(one for one in content["images"] if one["file_name"].endswith(record.path.name))
    names = {one["id"]: one["name"] for one in content["categories"]}
    height, width = image["height"], image["width"]
    objects = []
    labels = np.zeros((height, width), np.uint8)
    for one in content["annotations"]:
        if one["image_id"] == image["id"]:
            codes = one["segmentation"]
            if isinstance(codes, list):
                code = coco.merge(coco.frPyObjects(codes, height, width))
            else:
                code = (
                    coco.frPyObjects(codes, height, width)
                    if isinstance(codes["counts"], list)
                    else codes
                )
            mask = coco.decode(code).astype(bool)
            if one["iscrowd"]:
                labels[mask] = 255
            else:
                objects.append((-mask.sum(), data.names.index(names[one["category_id"]]), mask))
    for _, label, mask in sorted(objects, key=lambda one: one[0]):
        labels[mask] = label
    return labels


def test_coco_against_pycocotools(shared_data: Path) -> None:
    data = read(shared_data / "coco_subset", "val")
    assert len(data.names) == 81
    differing = total = 0
    for index in range(0, len(data), 12):
        labels, expected = data.label_map(index), plain(data, index)
        assert labels is not None and labels.shape == data.image(index).shape[:2]
        differing += int((labels != expected).sum())
        total += labels.size
    # Along the edges polygons are rasterised in other ways.
    assert differing < 0.01 * total


def test_camvid(shared_data: Path) -> None:
    """Counts and shares as its README has them."""
    root = shared_data / "camvid"
    assert {s: len(read(root, s)) for s in find_splits(root, records="maps")} == {
        "train": 184, "val": 51, "test": 78,
    }  # fmt: skip
    data = read(root)
    assert not data.faults and data.names[0] == "Sky" and len(data.names) == 11
    some = data.select(range(0, 184, 8))
    counts = count_pixels(some, enabled=False)
    every = counts.pixels / (counts.pixels.sum() + counts.ignored) * 100
    published = [16.8, 23.2, 1.0, 31.6, 4.5, 9.9, 1.2, 1.1, 5.9, 0.6, 0.3]
    assert np.abs(every - published).max() < 2.5
    weights = median_frequency(counts)
    segnet = [
        0.2595,
        0.1826,
        4.5640,
        0.1417,
        0.9051,
        0.3826,
        9.6446,
        1.8418,
        0.6823,
        6.2478,
        7.3614,
    ]
    assert np.corrcoef(np.log(weights), np.log(segnet))[0, 1] > 0.9
    image = data[3]
    assert image.label_map is not None
    np.testing.assert_array_equal(data.label_map(3), np.array(Image.open(image.label_map)))
    train, val = split_dataset(data, 0.25, seed=1)
    assert len(val) == 46 and train.records == "maps" and train.label_map(0) is not None


def test_a_real_palette_png(shared_data: Path) -> None:
    root = shared_data / "labelme_voc/voc"
    data = read(root)
    assert len(data) == 3 and data.names[0] == "_background_" and not kinds(data)
    for index in range(3):
        picture = Image.open(root / f"SegmentationClass/{data[index].path.stem}.png")
        assert picture.mode == "P"
        np.testing.assert_array_equal(data.label_map(index), np.array(picture))
    assert open_dataset(root, records="maps", ignore="_background_").names[0] == "aeroplane"


def test_numbers_of_objects_are_not_taken_for_classes(shared_data: Path) -> None:
    """The masks count pedestrians; the JSON beside them tells their class."""
    root = shared_data / "penn_fudan"
    with pytest.raises(ValueError, match=r"has polygons of the images .* they cannot be compared"):
        read(root, "val")
    by_hand = {split: str(root / f"annotations/{split}.json") for split in ("train", "val")}
    data = read(by_hand, "val")
    assert data.names == ["background", "person"]
    picture = np.array(Image.open(root / f"masks/val/{data[0].path.stem}_mask.png"))
    labels = data.label_map(0)
    assert labels is not None and ((labels == 1) == (picture > 0)).mean() > 0.98
