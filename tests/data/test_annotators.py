"""VIA, CreateML, RetinaNet's tables and DOTA: shapes, attributes, layouts of their tools."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from pathlib import Path
from typing import Any

import annotator_cases
import numpy as np
import pytest
from annotator_cases import dota, via, via_image
from drawn_objects import full_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tool_cases import lay_files

from maskwright.data import find_splits, open_dataset
from maskwright.data.formats.sets.dota import _corners


def one_image(root: Path, *shapes: dict[str, Any], labels: Any = "cat") -> Path:
    """A file of VIA with an image of 40 x 30 pixels (width x height)."""
    image = via_image("a.png", labels)
    image["regions"] = [
        {"shape_attributes": shape, "region_attributes": {"kind": labels}} for shape in shapes
    ]
    (root / "via_region_data.json").write_text(via(image))
    Image.new("RGB", (40, 30)).save(root / "a.png")
    return root


def test_shapes_of_via(tmp_path: Path) -> None:
    """Of version 2, and of version 1, which numbers regions and closes polygons."""
    shapes: list[dict[str, Any]] = [
        {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5},
        {"name": "circle", "cx": 20, "cy": 15, "r": 6},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 4, "theta": np.pi / 2},
        {"name": "polygon", "all_points_x": [2, 9, 9, 2], "all_points_y": [2, 2, 9, 2]},
    ]
    root = one_image(tmp_path, *shapes)
    expected = [[2, 3, 12, 8], [14, 9, 26, 21], [16, 5, 24, 25], [2, 2, 9, 9]]
    data = open_dataset(root)
    np.testing.assert_allclose(data.annotated_boxes(0), expected, atol=1e-9)
    assert len((data.polygons(0, 3) or [[]])[0]) == 3
    content = json.loads((root / "via_region_data.json").read_text())
    (image,) = content.values()
    image["regions"] = {str(k): one for k, one in enumerate(image["regions"])}
    (root / "via_region_data.json").write_text(json.dumps(content))
    np.testing.assert_allclose(open_dataset(root).annotated_boxes(0), expected, atol=1e-9)


def test_the_table_of_via_says_what_its_json_says(tmp_path: Path) -> None:
    root = one_image(tmp_path, {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5})
    before = open_dataset(root)
    (image,) = json.loads((root / "via_region_data.json").read_text()).values()
    region = image["regions"][0]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(
        ["#filename", "file_size", "file_attributes", "region_count", "region_id",
         "region_shape_attributes", "region_attributes"]
    )  # fmt: skip
    cells = [json.dumps(region["shape_attributes"]), json.dumps(region["region_attributes"])]
    writer.writerow(["a.png", 77, "{}", 1, 0, *cells])
    writer.writerow(["b.png", 78, "{}", 0, 0, "{}", "{}"])
    Image.new("RGB", (40, 30)).save(root / "b.png")
    (root / "via_region_data.json").unlink()
    (root / "via_region_data.csv").write_text(stream.getvalue())
    data = open_dataset(root)
    assert len(data) == 2 and data.names == before.names
    np.testing.assert_array_equal(data.annotated_boxes(0), before.annotated_boxes(0))
    assert len(data[1].boxes) == 0


def test_attributes_of_via(tmp_path: Path) -> None:
    root = one_image(tmp_path, {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5})
    text = (root / "via_region_data.json").read_text()
    two = text.replace('"kind": "cat"', '"kind": "cat", "mood": "good"')
    (root / "via_region_data.json").write_text(two)
    with pytest.raises(ValueError, match=r"There are 'kind', 'mood': give format=via:ATTRIBUTE"):
        open_dataset(root)
    assert open_dataset(root, format="via:mood").names == ["good"]
    assert open_dataset(root / "via_region_data.json", format="via:mood").names == ["good"]
    with pytest.raises(ValueError, match="no region has the attribute 'x'"):
        open_dataset(root, format="via:x")
    (root / "via_region_data.json").write_text(two.replace('"mood"', '"Label"'))
    data = open_dataset(root)
    assert data.names == ["good"] and data.unread == {"the attribute 'kind'": 1}
    (root / "via_region_data.json").write_text(text.replace('"kind": "cat"', ""))
    data = open_dataset(root)
    assert data.names == ["object"] and [one.action for one in data.faults] == ["kept"]


@given(st.lists(st.floats(-1e4, 1e4), min_size=8, max_size=8), st.sampled_from(["", " 0", " 1"]))
def test_corners_of_dota(corners: list[float], end: str) -> None:
    line = dota("small-vehicle", " ".join(map(repr, corners)), end)
    assert _corners(line.splitlines()[-1].split()) == corners


def test_difficult_objects_of_dota(tmp_path: Path) -> None:
    root = lay_files(tmp_path, annotator_cases.DOTA, annotator_cases.IMAGES["dota"])
    turned = "10 2 14 6 10 10 6 6"
    (root / "train/labelTxt/a.txt").write_text(dota(corners=turned, end=" 1"))
    data = open_dataset(root)
    assert [data[k].crowd.tolist() for k in range(3)] == [[True], [False], [False]]
    data = open_dataset(root, difficult=True)
    assert not data[0].crowd.any()
    (points,) = data.polygons(0, 0) or ()
    assert points.ravel().tolist() == list(map(float, turned.split()))


def test_roboflows_exports(tmp_path: Path) -> None:
    """A folder a split: a CSV with a header beside the images; YOLO with paths that begin above."""
    for split in ("train", "valid"):
        (tmp_path / "csv" / split).mkdir(parents=True)
        header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        rows = "a.png,40,30,cat,2,3,12,8\na.png,40,30,dog,5,5,9,9\n"
        (tmp_path / "csv" / split / "_annotations.csv").write_text(header + rows)
        Image.new("RGB", (40, 30)).save(tmp_path / "csv" / split / "a.png")
        for part in ("images", "labels"):
            (tmp_path / "yolo" / split / part).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "yolo" / split / "images/a.png")
        (tmp_path / "yolo" / split / "labels/a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    (tmp_path / "yolo/data.yaml").write_text(f"{text}nc: 2\nnames: ['cat', 'dog']\n")
    for name, count in (("csv", 2), ("yolo", 1)):
        assert list(find_splits(tmp_path / name)) == ["train", "val"]
        data = open_dataset(tmp_path / name, "val")
        assert data.names == ["cat", "dog"] and len(data[0].boxes) == count
        assert data[0].path.parts[-3 if name == "yolo" else -2] == "valid" and not data.unread


def test_masks_polylines_and_fields_of_fiftyone(tmp_path: Path) -> None:
    """A mask is an array over its box, stretched to it; fields are named; labels are of images."""
    mask = np.zeros((3, 5), bool)
    mask[1:, 2:] = True
    stream = io.BytesIO()
    np.save(stream, mask)
    packed = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    box = {"_cls": "Detection", "label": "cat", "bounding_box": [0.25, 0.2, 0.25, 0.2]}
    line = {"label": "dog", "points": [[[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]]], "filled": True}
    sample = {
        "filepath": "data/a.png",
        "x": {
            "_cls": "Detections",
            "detections": [box | {"mask": {"$binary": {"base64": packed, "subType": "00"}}}],
        },
        "y": {"_cls": "Polylines", "polylines": [line]},
        "z": {"_cls": "Classification", "label": "night"},
    }
    (tmp_path / "data").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "data/a.png")
    (tmp_path / "samples.json").write_text(json.dumps({"samples": [sample]}))
    data = open_dataset(tmp_path, format="fiftyone:x")
    expected = np.zeros((30, 40), bool)  # the box is 10 x 6 pixels at 10, 6, a sample 2 x 2 of them
    expected[8:12, 14:20] = True
    np.testing.assert_array_equal(full_mask(data, 0, 0), expected)
    assert data.unread == {f"the field {name!r} of an image": 1 for name in "yz"}
    data = open_dataset(tmp_path, format="fiftyone:y")
    assert data.names == ["dog"]
    assert open_dataset(tmp_path / "samples.json", format="fiftyone:y").names == ["dog"]
    np.testing.assert_allclose(data.annotated_boxes(0), [[4, 3, 20, 15]], atol=1e-9)
    assert open_dataset(tmp_path, format="fiftyone:z", records="labels").names == ["night"]
    with pytest.raises(ValueError, match=r"no sample has labels in the field 'w', but: 'x', 'y'"):
        open_dataset(tmp_path, format="fiftyone:w")


def test_parts_of_imglab_are_keypoints(tmp_path: Path) -> None:
    """Boxes without any label are of one class; those to ignore count neither way."""
    (tmp_path / "train.xml").write_text(
        "<dataset><images><image file='a.png'><box top='3' left='2' width='10' height='9'>"
        "<part name='eye' x='5' y='6'/></box><box top='1' left='20' width='9' height='9' "
        "ignore='1'/></image></images></dataset>"
    )
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = open_dataset(tmp_path)
    assert data.names == ["object"] and data.skeleton is not None
    assert data.skeleton.names == ("eye",) and data[0].keypoints is not None
    assert data[0].keypoints[0].tolist() == [[5, 6, 2]] and data[0].ignored.tolist() == [
        False,
        True,
    ]
    assert data.annotated_boxes(0)[0].tolist() == [2, 3, 12, 12]
    assert [fault.kind for fault in data.faults] == ["objects without a class"]
