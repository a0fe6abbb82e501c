"""Datumaro's own JSON: all kinds of annotations, groups, images by their ids, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import full_mask, runs
from PIL import Image

from maskwright.data import find_splits, open_dataset

CATEGORIES = {
    "label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog", "parent": ""}]},
    "points": {"items": [{"label_id": 0, "labels": ["nose", "tail"], "joints": [[0, 1]]}]},
}
CORNERS = [4.0, 5, 14, 5, 14, 15, 4, 15]


def one(kind: str, label: int | None = 0, group: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": 0, "type": kind, "attributes": {}, "group": group, "label_id": label, **more}


def lay(root: Path, *annotations: dict[str, Any], file: str = "train.json") -> Path:
    """Write an image of 40 x 30 pixels (width x height), and one that only an id names."""
    items = [
        {"id": "a", "annotations": list(annotations), "image": {"path": "a.png", "size": [30, 40]}},
        {"id": "sub/b", "annotations": []},
    ]
    place = root / "annotations" / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"info": {}, "categories": CATEGORIES, "items": items}))
    for name in ("a.png", "sub/b.jpg"):
        image = root / "images" / place.stem / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(image)
    return root


def test_shapes(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), bool)
    mask[3:9, 4:20] = True
    mask[5, 6] = False
    root = lay(
        tmp_path,
        one("bbox", bbox=[2, 3, 10, 5]),
        one("polygon", 1, points=CORNERS),
        one("polygon", group=3, points=CORNERS),
        one("polygon", group=3, points=[20, 1, 23, 1, 23, 3]),
        one("mask", 1, rle={"counts": runs(mask), "size": [30, 40]}),
        one("rotated_bbox", bbox=[20, 15, 20, 10, 90]),
        one("ellipse", points=[10, 10, 20, 16]),
        one("bbox", bbox=[1, 1, 4, 4]) | {"attributes": {"is_crowd": True, "occluded": True}},
        one("caption", None, caption="hello"),
        one("label", 1),
        file="default.json",
    )
    data = open_dataset(root)
    assert data.names == ["cat", "dog"] and data.format == "datumaro"
    assert sorted(data[i].path.name for i in range(2)) == ["a.png", "b.jpg"]
    assert data[0].labels.tolist() == [0, 1, 0, 1, 0, 0, 0]
    boxes = data.annotated_boxes(0)
    assert boxes[0].tolist() == [2, 3, 12, 8] and len(data.polygons(0, 2) or ()) == 2
    np.testing.assert_array_equal(full_mask(data, 0, 3), mask)
    np.testing.assert_allclose(boxes[4:6], [[15, 5, 25, 25], [10, 10, 20, 16]], atol=1e-9)
    assert data[0].crowd.tolist() == [False] * 6 + [True]
    assert {fault.kind for fault in data.faults} == {"shape without area", "no mask"}
    assert data.unread == {"the attribute 'occluded'": 1, "the label 'dog' of an image": 1}


def test_keypoints(tmp_path: Path) -> None:
    """Of the one object of their group, or by themselves; an element of a skeleton is a point."""
    elements = [{"type": "points", "points": [30, 20], "visibility": [1]}]
    root = lay(
        tmp_path,
        one("points", group=2, points=[5, 6, 0, 0], visibility=[2, 0]),
        one("bbox", 1, group=2, bbox=[2, 3, 10, 9]),
        one("skeleton", elements=elements),
        one("points", points=[1, "x"]),
    )
    data = open_dataset(root)
    assert data.skeleton is not None and data.skeleton.names == ("nose", "tail")
    assert data.skeleton.bones == ((0, 1),) and data[0].labels.tolist() == [1, 0]
    assert data[0].keypoints is not None
    assert data[0].keypoints.tolist() == [[[5, 6, 2], [0, 0, 0]], [[30, 20, 1], [0, 0, 0]]]
    assert [fault.kind for fault in data.faults] == ["bad keypoints"]


def test_labels_of_images_and_splits(tmp_path: Path) -> None:
    lay(tmp_path, one("label", 1), file="val.json")
    root = lay(tmp_path, one("label", 0))
    assert list(find_splits(root)) == ["train", "val"]
    data = open_dataset(root, "val", records="labels")
    assert data.names == ["cat", "dog"] and data[0].image_labels is not None
    assert data[0].image_labels.tolist() == [1] and len(data) == 1


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a box of three numbers": (one("bbox", bbox=[1, 2, 3]), "bad points", "4 numbers, got"),
    "a text among numbers": (one("polygon", points=[1, "2"]), "bad points", "must be a number"),
    "a mask of another size": (
        one("mask", rle={"counts": "06", "size": [2, 3]}),
        "RLE of another size",
        "the image has [30, 40]",
    ),
    "a mask without run lengths": (one("mask"), "bad RLE", ""),
    "a class that is not listed": (one("bbox", 7, bbox=[1, 1, 5, 5]), "unknown category", "7"),
    "no class": (one("bbox", None, bbox=[1, 1, 5, 5]), "unknown category", "no class"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_ignored_and_told(case: str, tmp_path: Path) -> None:
    entry, kind, says = WRONG[case]
    data = open_dataset(lay(tmp_path, one("bbox", bbox=[20, 20, 5, 5]), entry))
    (fault,) = (one for one in data.faults if one.kind != "no mask")
    assert (fault.kind, fault.action) == (kind, "ignored") and says in fault.message
    assert "train.json, items[0], annotations[1]" in fault.message
    assert data[0].ignored.tolist() == [False, True]


def test_items_that_are_none(tmp_path: Path) -> None:
    root = lay(tmp_path, one("bbox", bbox=[20, 20, 5, 5]))
    file = root / "annotations/train.json"
    content = json.loads(file.read_text())
    content["items"] += ["x", {"id": 3, "annotations": None}]
    file.write_text(json.dumps(content))
    data = open_dataset(root)
    assert len(data) == 2 and {fault.kind for fault in data.faults} == {"bad image entry"}
