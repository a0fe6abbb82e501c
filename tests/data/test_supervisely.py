"""Supervisely's projects: shapes, holes, bitmaps, pixels of rectangles, tags of splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image
from set_cases import bitmap

from maskwright.data import find_splits, open_dataset
from maskwright.data.formats.supervisely.bitmap import decode_bitmap, encode_bitmap


def one(kind: str, label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"classTitle": label, "geometryType": kind, "tags": [], **more}


def points(exterior: list[Any], *interior: list[Any]) -> dict[str, Any]:
    return {"points": {"exterior": exterior, "interior": list(interior)}}


def project(
    root: Path, objects: list[dict[str, Any]], name: str = "ds0/ann/a.png.json", tag: str = ""
) -> Path:
    tags = [{"name": tag, "value": None}] if tag else []
    content = {"tags": tags, "size": {"height": 30, "width": 40}, "objects": objects}
    file = root / name
    image = file.parent.parent / "img" / file.stem
    for folder in (file.parent, image.parent):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    Image.new("RGB", (40, 30)).save(image)
    return root


SQUARE = [[4, 5], [14, 5], [14, 15], [4, 15]]


def test_shapes(tmp_path: Path) -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:6] = True
    mask[2, 3] = False
    root = project(
        tmp_path,
        [
            one("rectangle", **points([[2, 3], [11, 7]])),
            one("polygon", "dog", **points(SQUARE)),
            one("polygon", **points(SQUARE, [[6, 7], [10, 7], [10, 11], [6, 11]])),
            one("bitmap", bitmap={"data": bitmap(mask), "origin": [20, 10]}),
            one("bitmap", bitmap={"data": bitmap(mask, "RGBA"), "origin": [20, 10]}),
            one("polygon", instance="x", **points([[1, 1], [3, 1], [3, 3]])),
            one("polygon", instance="x", **points([[20, 1], [23, 1], [23, 3]])),
            one("polygon", **points(SQUARE)) | {"tags": [{"name": "iscrowd", "value": None}]},
            one("polygon", "__ignore__", **points(SQUARE)),
            one("line"),
        ],
    )
    data = open_dataset(root)
    assert data.names == ["cat", "dog"] and data.format == "supervisely"
    assert data[0].labels.tolist() == [0, 1, 0, 0, 0, 0, 0, -1]
    assert data.annotated_boxes(0)[0].tolist() == [2, 3, 12, 8]  # ten pixels by five
    square = np.zeros((30, 40), bool)
    square[5:15, 4:14] = True
    np.testing.assert_array_equal(full_mask(data, 0, 1), square)
    square[7:11, 6:10] = False
    np.testing.assert_array_equal(full_mask(data, 0, 2), square)
    expected = np.zeros((30, 40), bool)
    expected[10:15, 20:27] = mask
    for k in (3, 4):
        np.testing.assert_array_equal(full_mask(data, 0, k), expected)
    parts = data.polygons(0, 5)
    assert parts is not None and len(parts) == 2
    assert data[0].crowd.tolist() == [False] * 6 + [True] * 2
    assert data[0].ignored.tolist() == [False] * 7 + [True]
    assert {fault.kind for fault in data.faults} == {"shape without area", "no mask"}


def test_old_projects_do_not_name_the_geometry(tmp_path: Path) -> None:
    entries = [
        one("rectangle", bitmap=None, **points([[2, 3], [11, 7]])),
        one("polygon", bitmap=None, **points(SQUARE)),
        one("bitmap", bitmap={"data": bitmap(np.ones((2, 3), bool)), "origin": [1, 1]}),
    ]
    for entry in entries:
        del entry["geometryType"]
    data = open_dataset(project(tmp_path, entries))
    assert data.annotated_boxes(0).tolist() == [[2, 3, 12, 8], [4, 5, 14, 15], [1, 1, 4, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_bitmaps(seed: int) -> None:
    mask = np.random.default_rng(seed).random((seed + 1, 2 * seed + 1)) < 0.5
    np.testing.assert_array_equal(decode_bitmap(bitmap(mask), (30, 40)), mask)
    np.testing.assert_array_equal(decode_bitmap(bitmap(mask, "RGBA"), (30, 40)), mask)
    np.testing.assert_array_equal(decode_bitmap(encode_bitmap(mask), (30, 40)), mask)


def test_tags_divide_where_folders_do_not(tmp_path: Path) -> None:
    box = [one("rectangle", **points([[2, 3], [11, 7]]))]
    for name, tag in (("a", "train"), ("b", "val"), ("c", "train")):
        project(tmp_path, box, f"ds0/ann/{name}.png.json", tag)
    assert set(find_splits(tmp_path)) == {"train"}
    classes = [{"title": "cat", "shape": "rectangle"}, {"title": "cow", "shape": "rectangle"}]
    meta = {"classes": classes, "tags": [{"name": "train"}, {"name": "val"}]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert set(find_splits(tmp_path)) == {"train", "val"}
    train, val = open_dataset(tmp_path), open_dataset(tmp_path, "val")
    assert [train[i].path.name for i in range(2)] == ["a.png", "c.png"]
    assert [val[i].path.name for i in range(len(val))] == ["b.png"]
    assert train.names == ["cat", "cow"] and not train.faults


NODES = {"n1": {"label": "nose", "loc": [5, 5]}, "n2": {"label": "tail", "loc": [9, 5]}, "n3": {}}


def test_graphs_are_keypoints(tmp_path: Path) -> None:
    """By themselves, or of the one object of their instance; what is disabled is hidden."""
    graph = {"nodes": NODES, "edges": [{"src": "n1", "dst": "n2"}, {"src": "n1", "dst": "gone"}]}
    classes = [{"title": "cat", "shape": "graph", "geometry_config": graph}, {"title": "dog"}]
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    alone = {"n1": {"loc": [4, 6]}, "n2": {"loc": [14, 20], "disabled": True}}
    root = project(
        tmp_path,
        [
            one("graph", nodes={"n3": {"loc": [30, 20]}}, instance="x"),
            one("rectangle", "dog", instance="x", **points([[20, 10], [35, 25]])),
            one("graph", nodes=alone),
            one("graph", nodes={"n1": {"loc": ["left", 3]}}),
        ],
    )
    data = open_dataset(root)
    assert data.skeleton is not None
    assert data.skeleton.names == ("nose", "tail", "n3") and data.skeleton.bones == ((0, 1),)
    assert [data.names[label] for label in data[0].labels] == ["dog", "cat"]
    assert data[0].keypoints is not None
    assert data[0].keypoints[0].tolist() == [[0, 0, 0], [0, 0, 0], [30, 20, 2]]
    assert data[0].keypoints[1].tolist() == [[4, 6, 2], [14, 20, 1], [0, 0, 0]]
    assert data[0].boxes[1].tolist() == [4, 6, 14, 20]  # around its keypoints
    assert {(one.kind, one.action) for one in data.faults} == {
        ("shape without area", "left out"),
        ("bad keypoints", "left out"),
    }
