"""What records carry for every task: parts and holes, ignored regions, label maps, labels."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskwright.data import Dataset, open_dataset, read_coco, read_voc, write_coco, write_voc
from maskwright.data.columns import pack_texts
from maskwright.data.formats.voc.layout import voc_part

Scene = Any  # of conftest.py

RING = np.zeros((30, 40), np.uint8)
RING[4:20, 6:30] = 1
RING[8:14, 10:20] = 0  # a hole
RING[24:28, 2:9] = 1  # and a second part


def ring(scene: Scene) -> Dataset:
    counts = coco_mask.encode(np.asfortranarray(RING))["counts"].decode()
    x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(RING))).tolist()
    scene.first.update(segmentation={"size": [30, 40], "counts": counts}, bbox=[x, y, w, h])
    two = [[20, 10, 30, 10, 30, 20], [2, 2, 8, 2, 8, 8, 2, 8]]
    scene.content["annotations"][1].update(segmentation=two, bbox=[2, 2, 28, 18])
    return read_coco(scene.write())


def whole(data: Dataset, index: int, k: int) -> np.ndarray:
    full = np.zeros(data[index].size, np.uint8)
    crop, (x1, y1, x2, y2) = data.mask(index, k)
    full[y1:y2, x1:x2] = crop
    return full


def test_parts_and_holes_go_through_both_formats(scene: Scene, tmp_path: Path) -> None:
    data = ring(scene)
    np.testing.assert_array_equal(whole(data, 0, 0), RING)
    assert [len(part) for part in data.polygons(1, 0) or []] == [3, 4]
    write_coco(data, tmp_path / "coco")
    again = open_dataset(tmp_path / "coco")
    assert again.to_coco()["annotations"] == data.to_coco()["annotations"]
    np.testing.assert_array_equal(whole(again, 0, 0), RING)
    np.testing.assert_array_equal(again.image(1), data.image(1))
    listing = write_voc(data, tmp_path / "voc")
    voc = read_voc([voc_part(listing)])
    for index in (0, 1):
        np.testing.assert_array_equal(whole(voc, index, 0), whole(data, index, 0))
    with pytest.raises(ValueError, match="has a split 'train' already"):
        write_coco(data, tmp_path / "coco")
    other = data.select([0], "val")
    Image.new("RGB", (40, 30), 7).save(tmp_path / "coco/images/a.png")
    write_coco(other, tmp_path / "coco")  # another image of this name is there
    assert open_dataset(tmp_path / "coco", "val")[0].path.name == "a_1.png"


def test_ignored_regions_are_declared(scene: Scene, tmp_path: Path) -> None:
    base = scene.first
    extra = [
        {"iscrowd": 1},
        {"iscrowd": 1, "ignore": 1},
        {"category_id": 99},  # unknown
        {"bbox": [1, 1, float("inf"), 4], "segmentation": []},  # unusable
        {"ignore": 1},  # by itself a mark of evaluators, which they overwrite
    ]
    scene.content["annotations"] += [{**base, **more, "id": 10 + k} for k, more in enumerate(extra)]
    data = read_coco(scene.write())
    record = data[0]
    assert record.crowd.tolist() == [False, True, True, True, True, False]
    assert record.ignored.tolist() == [False, False, True, True, True, False]
    write_coco(data, tmp_path / "out")
    again = open_dataset(tmp_path / "out")[0]
    # The one of unknown class has become one of each class.
    assert again.crowd.tolist() == [False, True, True, True, True, True, False]
    assert again.ignored.tolist() == [False, False, True, True, True, True, False]
    as_objects = read_coco(scene.write(), crowd_as_objects=True)[0]
    assert as_objects.ignored.tolist() == [False, False, False, True, True, False]


def with_map(data: Dataset, names: list[str]) -> Dataset:
    first, content = pack_texts(names)
    columns = replace(data.columns, map_first=first, map_bytes=content)
    return data.like(columns, None)


def test_label_maps_are_numbers_of_the_size_of_the_image(scene: Scene, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 21, (30, 40), np.uint8)
    picture = Image.fromarray(numbers)
    picture.save(tmp_path / "grey.png")
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "palette.png")
    Image.new("RGB", (40, 30), (1, 2, 3)).save(tmp_path / "colours.png")
    Image.new("L", (41, 30)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((30, 40), 300, np.uint16)).save(tmp_path / "deep.png")
    data = read_coco(scene.write())
    assert data[0].label_map is None and data.label_map(0) is None
    for name in ("grey.png", "palette.png"):
        some = with_map(data, ["", name])
        assert some.label_map(0) is None and some[1].label_map == tmp_path / name
        np.testing.assert_array_equal(some.label_map(1), numbers)
    for name, message in (
        ("colours.png", "has colours, the first 1,2,3 at x=0, y=0"),
        ("wide.png", "is 41x30 pixels, its image .* is 40x30"),
        ("deep.png", "have the value 300"),
        ("none.png", "does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            with_map(data, [name, name]).label_map(0)


def test_objects_give_labels_and_stay(scene: Scene) -> None:
    scene.content["annotations"].append({**scene.first, "id": 3, "category_id": 7})
    scene.content["annotations"].append({**scene.first, "id": 4})
    data = open_dataset(scene.write(), records="labels")
    assert data.records == "labels" and data.names == ["cat", "dog"] and data.multilabel
    assert [data[i].image_labels.tolist() for i in (0, 1)] == [[0, 1], [1]]  # type: ignore[union-attr]
    assert len(data[0].labels) == 3 and data.images_per_class().tolist() == [1, 2]
    half = data.select([1])
    assert not half.multilabel and half.images_per_class().tolist() == [0, 1]
    assert data.as_labels() is data
    assert open_dataset(scene.file).records == "objects"
    copy = pickle.loads(pickle.dumps(half))
    assert copy[0].image_labels.tolist() == [1]  # type: ignore[union-attr]
