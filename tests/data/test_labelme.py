"""LabelMe's JSON files: what its shapes are, and where its images lie."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.building.geometry import as_png
from maskwright.data.formats.labelme.read import unpack_images


def write(file: Path, *shapes: dict[str, Any], **entries: Any) -> Path:
    """Write a file of an image of 40 x 30 pixels (width x height) and, unless told, the image."""
    given = [{"label": "cat", "flags": {}} | shape for shape in shapes]
    content: dict[str, Any] = {"version": "5.4.1", "shapes": given}
    content |= {"imagePath": f"{file.stem}.png", "imageData": None}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | {"imageHeight": 30, "imageWidth": 40} | entries))
    if not entries:
        Image.new("RGB", (40, 30)).save(file.with_suffix(".png"))
    return file


def polygon(*points: float, **more: Any) -> dict[str, Any]:
    return {"points": np.reshape(points, (-1, 2)).tolist(), "shape_type": "polygon"} | more


def test_shapes(tmp_path: Path) -> None:
    mask = np.zeros((5, 4), bool)
    mask[:, 1:3] = True
    write(
        tmp_path / "a.json",
        polygon(2, 2, 12, 2, 12, 12),
        {"points": [[20, 10], [20, 16]], "shape_type": "circle"},
        {"points": [[5, 20], [8, 24]], "shape_type": "mask", "mask": as_png(mask)},
        {"points": [[30, 5], [25, 9]], "shape_type": "rectangle", "label": "dog"},
        {"points": [[1, 1], [2, 2]], "shape_type": "line"},
        polygon(0, 0, 3, 0, 3, 3, label="__ignore__"),
        polygon(0, 9, 3, 9, 3, 12, flags={"iscrowd": True}),
    )
    data = open_dataset(tmp_path)
    boxes = data.annotated_boxes(0)
    expected = [[2, 2, 12, 12], [14, 4, 26, 16], [6, 20, 8, 25], [25, 5, 30, 9]]
    np.testing.assert_allclose(boxes[:4], expected, atol=1e-9)
    rows, columns = np.mgrid[:30, :40] + 0.5
    disk = (columns - 20) ** 2 + (rows - 10) ** 2 < 36
    assert (full_mask(data, 0, 1) != disk).sum() <= 12  # of 113 pixels, along the edge
    full = np.zeros((30, 40), bool)
    full[20:25, 6:8] = True
    np.testing.assert_array_equal(full_mask(data, 0, 2), full)
    assert data.names == ["cat", "dog"]
    assert data[0].labels.tolist() == [0, 0, 0, 1, -1, 0]
    assert data[0].crowd.tolist() == [False] * 4 + [True, True]
    assert data[0].ignored.tolist() == [False] * 4 + [True, False]
    assert [fault.kind for fault in data.faults] == ["shape without area", "no mask"]


def test_a_group_is_one_object(tmp_path: Path) -> None:
    """Polygons as parts; a mask among them makes it a mask. Other labels are other objects."""
    square = np.ones((4, 4), bool)
    left, right = (2, 2, 8, 2, 8, 8, 2, 8), (20, 2, 26, 2, 26, 8, 20, 8)
    write(
        tmp_path / "a.json",
        polygon(*left, group_id=1),
        polygon(*right, group_id=1),
        polygon(*right, group_id=1, label="dog"),
        polygon(*left),
        polygon(*left, group_id=0),
        {"points": [[30, 20], [33, 23]], "shape_type": "mask", "mask": as_png(square)}
        | {"group_id": 0},
    )
    data = open_dataset(tmp_path)
    assert data[0].labels.tolist() == [0, 1, 0, 0] and not data.faults
    parts = data.polygons(0, 0)
    assert parts is not None and [part.ravel().tolist() for part in parts] == [[*left], [*right]]
    full = np.zeros((30, 40), bool)
    full[2:8, 2:8] = full[20:24, 30:34] = True
    np.testing.assert_array_equal(full_mask(data, 0, 3), full)
    assert data[0].boxes[3].tolist() == [2, 2, 34, 24]


def test_labels_apart_from_images(tmp_path: Path) -> None:
    """As LabelMe writes them with an output folder: paths that go up."""
    image = Image.new("RGB", (40, 30))
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images/x.png")
    square = polygon(2, 2, 8, 2, 8, 8)
    for path in ("../images/x.png", "..\\images\\x.png", "x.png", "D:\\data\\x.png"):
        write(tmp_path / "labels/x.json", square, imagePath=path)
        data = open_dataset(tmp_path)
        assert data[0].path == tmp_path / "images/x.png"
    (tmp_path / "labels/labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    data = open_dataset(tmp_path)
    assert data.names == ["dog", "cat"] and data[0].labels.tolist() == [1]


def test_splits_and_single_files(tmp_path: Path) -> None:
    square = polygon(2, 2, 8, 2, 8, 8)
    write(tmp_path / "train/day/a.json", square)
    write(tmp_path / "valid/b.json", square)
    write(tmp_path / "c.json", square)
    train, val = open_dataset(tmp_path), open_dataset(tmp_path, "val")
    assert [train[0].path.name, val[0].path.name] == ["a.png", "b.png"]
    assert len(train) == len(val) == 1
    assert any("no folder of a split" in fault.message for fault in train.faults)
    assert open_dataset(tmp_path / "c.json")[0].path.name == "c.png"


def test_images_inside_are_written_out(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 8, 7)).save(stream, "PNG")
    inside = base64.b64encode(stream.getvalue()).decode()
    write(tmp_path / "a.json", polygon(2, 2, 8, 2, 8, 8), imageData=inside)
    with pytest.raises(ValueError, match="unpack_images"):
        open_dataset(tmp_path)
    assert unpack_images(tmp_path) == [tmp_path / "a.png"]
    assert open_dataset(tmp_path).image(0)[0, 0].tolist() == [9, 8, 7]
    assert unpack_images(tmp_path) == []
    (tmp_path / "a.png").unlink()
    write(tmp_path / "a.json", imageData="!")
    with pytest.raises(ValueError, match=r"a\.json: imageData is no image"):
        unpack_images(tmp_path)


def test_files_of_labelme_against_pascal_voc_of_the_same(shared_data: Path) -> None:
    """Files that LabelMe itself wrote, and the masks that its own converter drew of them."""
    root = shared_data / "labelme_voc"
    data = open_dataset(root / "labelme")
    assert not data.faults
    for index in range(len(data)):
        record = data[index]
        drawn = Image.open(root / "voc/SegmentationClass" / f"{record.path.stem}.png")
        truth = np.asarray(drawn)
        found = np.zeros(record.size, np.uint8)
        for k, label in enumerate(record.labels):
            found[full_mask(data, index, k)] = label + 1
        used = truth != 255
        assert (found != truth)[used].mean() < 0.02, "but for pixels along outlines"


def test_fields_and_shapes_of_x_anylabeling(tmp_path: Path) -> None:
    more: dict[str, Any] = {"score": None, "difficult": False, "flags": None, "kie_linking": []}
    corners = [[10, 2], [18, 10], [10, 18], [2, 10]]
    write(
        tmp_path / "a.json",
        more | {"shape_type": "rotation", "points": corners, "direction": 0.78, "score": 0.5},
        more | {"shape_type": "oriented_rectangle", "points": corners},
        more | {"shape_type": "quadrilateral", "points": corners, "attributes": {"age": "old"}},
        more | {"shape_type": "rectangle", "points": [[20, 2], [30, 9]], "difficult": True},
    )
    data = open_dataset(tmp_path)
    assert data.annotated_boxes(0).tolist() == [*[[2, 2, 18, 18]] * 3, [20, 2, 30, 9]]
    assert {full_mask(data, 0, k).sum() for k in range(3)} < {*range(100, 150)}  # half of the box
    assert data[0].ignored.tolist() == [False, False, False, True] and not data.faults
    assert data.unread == {"the score of a shape": 1, "the attribute 'age'": 1}
