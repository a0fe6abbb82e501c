"""COCO JSON as Datumaro, FiftyOne and LVIS write it, and COCO panoptic read as objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image

from maskwright.data import find_splits, open_dataset, write_dataset
from maskwright.data.formats.lost import WORDS
from maskwright.data.formats.writing import lost_in
from maskwright.data.rewriting.convert import convert_data
from maskwright.data.rewriting.tables import joined, with_classes

SQUARE = [4, 5, 14, 5, 14, 15, 4, 15]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 7, "name": "egg"}]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


def write(file: Path, **content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def entry(number: int, image_id: Any, category: int = 1, **more: Any) -> dict[str, Any]:
    found = {"id": number, "image_id": image_id, "category_id": category, "iscrowd": 0}
    return found | {"segmentation": [SQUARE], "bbox": [4, 5, 10, 10], "area": 100.0} | more


def test_datumaro(tmp_path: Path) -> None:
    """`datum convert -f coco_instances --save-media`: subsets, attributes, ids as in the source."""
    for split in ("train", "val"):
        image(tmp_path / f"images/{split}/deep/a 1.png")
        image(tmp_path / f"images/{split}/7.png")
        images = [
            {"id": key, "width": 40, "height": 30, "file_name": name, "license": 0}
            | {"flickr_url": "", "coco_url": "", "date_captured": 0}
            for key, name in (("deep/a 1", "deep/a 1.png"), ("7", "7.png"))
        ]
        more = {"attributes": {"occluded": False}}
        write(
            tmp_path / f"annotations/instances_{split}.json",
            licenses=[{"name": "", "id": 0, "url": ""}],
            info={"contributor": "", "year": ""},
            categories=[{"id": 1, "name": "cat", "supercategory": ""}],
            images=images,
            annotations=[entry(1, "deep/a 1", **more), entry(2, "7", segmentation=[], **more)],
        )
    assert set(find_splits(tmp_path)) == {"train", "val"}
    data = open_dataset(tmp_path, "val")
    assert [data[i].path.name for i in range(2)] == ["a 1.png", "7.png"]
    assert [data[i].image_id for i in range(2)] == [8, 7]
    assert [len(data[i].labels) for i in range(2)] == [1, 1]
    assert {fault.kind for fault in data.faults} == {"image id is a text", "no mask"}


def test_what_may_be_missing(tmp_path: Path) -> None:
    image(tmp_path / "images/train/a.png")
    write(
        tmp_path / "annotations/instances_train.json",
        categories=[{"id": 0, "name": "cat"}],
        images=[{"id": "a", "file_name": "a.png"}],
        annotations=[{"image_id": "a", "category_id": 0, "bbox": [4, 5, 10, 10]}],
    )
    data = open_dataset(tmp_path)
    assert data.annotated_boxes(0).tolist() == [[4, 5, 14, 15]] and data[0].size == (30, 40)
    strange = [{"image_id": "b", "category_id": 0, "bbox": [4, 5, 10, 10]}]
    file = tmp_path / "annotations/instances_train.json"
    write(file, **(json.loads(file.read_text()) | {"annotations": strange}))
    (fault,) = [one for one in open_dataset(tmp_path).faults if one.kind == "unknown image"]
    assert "belongs to image 'b', which does not exist" in fault.message


@pytest.mark.parametrize("absolute", [False, True])
def test_fiftyone(absolute: bool, tmp_path: Path) -> None:
    """`dataset.export(dataset_type=COCODetectionDataset)`, one folder a split."""
    for split in ("train", "val"):
        image(tmp_path / f"{split}/data/a.png")
        start = "/home/somebody/fiftyone/" if absolute else ""
        write(
            tmp_path / f"{split}/labels.json",
            info={"year": "", "version": "", "contributor": "", "url": ""},
            licenses=[],
            categories=[{"id": 1, "name": "cat", "supercategory": None}],
            images=[
                {"id": 1, "file_name": f"{start}a.png", "height": 30, "width": 40, "license": None}
            ],
            annotations=[entry(1, 1, supercategory="animal")],
        )
    data = open_dataset(tmp_path, "val")
    assert data[0].path == tmp_path / "val/data/a.png" and len(data[0].labels) == 1
    kinds = {fault.kind for fault in data.faults}
    assert kinds == ({"image under another name"} if absolute else set())
    assert set(find_splits(tmp_path)) == {"train", "val"}


def lvis(root: Path) -> Path:
    """Entries as lvis_v1_val.json has them: no file names, images of train2017 among them."""
    for name in ("val2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg"):
        image(root / name)
    looked = [([2], []), ([], [7]), ([], [])]
    images = [
        {"id": k, "height": 30, "width": 40, "coco_url": f"http://images.cocodataset.org/{name}"}
        | {"neg_category_ids": absent, "not_exhaustive_category_ids": unsure}
        for k, name, (absent, unsure) in zip(
            (1, 2, 3), ("val2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg"), looked, strict=True
        )
    ]
    often = [one | {"frequency": f} for one, f in zip(CATEGORIES, "rcf", strict=True)]
    annotations = [entry(1, 1), entry(2, 2, 7), entry(3, 3, 2)]
    for one in annotations:
        del one["iscrowd"]
    return write(
        root / "annotations/lvis_v1_val.json",
        images=images,
        annotations=annotations,
        categories=often,
    )


def test_lvis(tmp_path: Path) -> None:
    lvis(tmp_path)
    data = open_dataset(tmp_path, "val")
    assert [data[i].path.name for i in range(3)] == ["1.jpg", "2.jpg", "3.jpg"]
    assert data.frequencies == ["r", "c", "f"]
    assert {fault.kind for fault in data.faults} == {"file passed over"}  # train2017/
    checked = [data[i].checked for i in range(3)]
    assert [one.tolist() for one in checked if one is not None] == [[0, 1], [2], [1]]
    assert data[1].ignored.tolist() == [False, True]  # there are more eggs
    assert data[1].boxes.tolist() == [[4, 5, 14, 15], [0, 0, 40, 30]]
    assert data.select([1])[0].checked.tolist() == [2]  # type: ignore[union-attr]
    write_dataset(data, tmp_path / "out", "coco")
    again = open_dataset(tmp_path / "out", "val")
    assert again.frequencies == data.frequencies and again[1].ignored.tolist() == [False, True]
    assert [again[i].checked.tolist() for i in range(3)] == [[0, 1], [2], [1]]  # type: ignore[union-attr]
    assert lost_in(data, "voc")[WORDS["checked"]] == 3
    assert lost_in(data, "coco") == {}


def test_what_lvis_lists_may_be_broken(tmp_path: Path) -> None:
    file = lvis(tmp_path)
    content = json.loads(file.read_text())
    content["images"][0]["neg_category_ids"] = ["x", None, 99]
    content["images"][1]["not_exhaustive_category_ids"] = {"a": 1}
    content["images"][1]["height"] = "NaN"
    write(file, **content)
    data = open_dataset(tmp_path, "val")
    assert data[0].checked is not None and data[0].checked.tolist() == [0]
    assert data[1].ignored.tolist() == [False]


def panoptic(
    root: Path, numbers: np.ndarray, segments: list[dict[str, Any]], **image_: Any
) -> Path:
    """panoptic_val2017.json and its PNG: the id of a segment is R + 256 G + 65536 B."""
    image(root / "val2017/a.png")
    folder = root / "annotations/panoptic_val2017"
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
    Image.fromarray(colours.astype(np.uint8)).save(folder / "a.png")
    categories = [
        {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
        {"id": 3, "name": "car", "isthing": 1, "supercategory": "vehicle"},
        {"id": 92, "name": "banner", "isthing": 0, "supercategory": "textile"},
    ]
    write(
        root / "annotations/panoptic_val2017.json",
        images=[{"id": 1, "file_name": "a.png", "height": 30, "width": 40} | image_],
        annotations=[{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        categories=categories,
    )
    return root


def segment(number: int, category: int, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "category_id": category,
        "iscrowd": crowd,
        "bbox": [0, 0, 1, 1],
        "area": 1,
    }


def numbers() -> np.ndarray:
    found = np.zeros((30, 40), np.int64)
    found[:10] = 5
    found[12:20, 3:9] = 70_000
    found[25:30, 3:9] = 70_000  # of two parts
    found[12:20, 20:30] = 300
    return found


def test_panoptic_as_objects(tmp_path: Path) -> None:
    segments = [segment(5, 92), segment(70_000, 3), segment(300, 1, 1)]
    root = panoptic(tmp_path, numbers(), segments)
    data = open_dataset(root, "val")
    assert data.names == ["person", "car"] and data.format == "coco_panoptic" and not data.faults
    assert data[0].labels.tolist() == [1, 0] and data[0].crowd.tolist() == [False, True]
    np.testing.assert_array_equal(full_mask(data, 0, 0), numbers() == 70_000)
    np.testing.assert_array_equal(full_mask(data, 0, 1), numbers() == 300)
    maps = open_dataset(root, "val", records="maps")
    assert maps.names == ["person", "car", "banner"]
    assert len(open_dataset(root / "annotations/panoptic_val2017.json", "val")) == 1


def test_faults_of_panoptic_objects(tmp_path: Path) -> None:
    segments = [segment(70_000, 3), segment(9, 1), segment(300, 44)]
    data = open_dataset(panoptic(tmp_path / "a", numbers(), segments), "val")
    found = {(fault.kind, fault.action) for fault in data.faults}
    assert found == {
        ("empty mask", "left out"),
        ("unknown category", "ignored"),
        ("segment without an entry", "left out"),
    }
    assert data[0].labels.tolist() == [1, -1]
    root = panoptic(tmp_path / "b", numbers()[:15], segments)
    with pytest.raises(ValueError, match=r"40x15 pixels, .* says 40x30 of a\.png"):
        open_dataset(root, "val")
    (root / "annotations/panoptic_val2017/a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"a\.png"):
        open_dataset(root, "val")


def test_what_was_looked_for_in_other_classes(tmp_path: Path) -> None:
    data = open_dataset(lvis(tmp_path), "val")  # looked for: cat and dog, egg, dog
    pets = with_classes(data, [0, 0, 1], ["pet", "egg"])
    assert [pets[i].checked.tolist() for i in range(3)] == [[0], [1], []]  # type: ignore[union-attr]
    eggs = with_classes(data, [-1, -1, 0], ["egg"])
    assert [eggs[i].checked.tolist() for i in range(3)] == [[], [0], []]  # type: ignore[union-attr]
    image(tmp_path / "b/images/a.png")
    entries = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [entry(1, 1, 2)]}
    file = write(tmp_path / "b/train.json", categories=CATEGORIES, **entries)
    both = joined([data, open_dataset(file)], "val")
    found = [both[i].checked.tolist() for i in range(4)]  # type: ignore[union-attr]
    assert found == [[0, 1], [2], [1], [0, 1, 2]]


def test_videos_are_groups_and_stay(tmp_path: Path) -> None:
    """Ten videos of two frames; of fewer, frames in a row stay together, and a group goes out."""
    entries = [{"id": k, "file_name": f"{k}.png", "height": 6, "width": 8} for k in range(21)]
    content: dict[str, Any] = {"categories": [{"id": 1, "name": "cat"}]}
    content["images"] = [one | {"video_id": one["id"] // 2 % 10 + 7} for one in entries[:20]]
    content["images"].append(entries[20])
    content["annotations"] = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4]}]
    for one in entries:
        Image.new("RGB", (8, 6), (one["id"], 0, 0)).save(tmp_path / one["file_name"])
    (tmp_path / "train.json").write_text(json.dumps(content))
    convert_data(tmp_path, "coco", tmp_path / "out")
    for data in (open_dataset(tmp_path), open_dataset(tmp_path / "out")):
        assert data.groups is not None and not data.unread
        assert data.groups.tolist() == [k // 2 for k in range(20)] + [10]
    assert not any("belong together" in word for word in lost_in(open_dataset(tmp_path), "coco"))
    assert any("belong together" in word for word in lost_in(open_dataset(tmp_path), "yolo"))
    content["images"] = [one | {"video_id": 3} for one in entries]
    (tmp_path / "train.json").write_text(json.dumps(content))
    groups = open_dataset(tmp_path).groups
    assert groups is not None and groups.tolist() == [k // 3 for k in range(21)]


def test_what_no_record_holds_is_counted(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.png", "height": 6, "width": 8}
    content: dict[str, Any] = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [image | {"license": 3, "flickr_url": "", "date_captured": "2013"}],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal", "synonyms": ["tom"]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.5}
        ],
    }
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path).unread == {
        "the entry 'info' of the file": 1,
        "the entry 'license' of an image": 1,
        "the entry 'date_captured' of an image": 1,
        "the entry 'synonyms' of a class": 1,
        "the supercategory of a class": 1,
        "the entry 'score' of an annotation": 1,
    }
