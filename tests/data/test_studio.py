"""Label Studio's JSON: percent, turns around a corner, brush strokes, names of images."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from drawn_objects import Drawn, DrawnImage, full_mask, lay
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskwright.data import open_dataset, write_dataset
from maskwright.data.formats.studio.brush import decode_brush, encode_brush


def region(kind: str, value: dict[str, Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    """A region of an image of 40 x 30 pixels (width x height)."""
    value = {**value, f"{kind}labels": [label]}
    found = {"id": str(id(value)), "type": f"{kind}labels", "value": value}
    return found | {"original_width": 40, "original_height": 30, "image_rotation": 0} | more


def project(root: Path, *results: dict[str, Any], image: str = "/data/upload/1/a.png") -> Path:
    tasks = [{"id": 7, "data": {"image": image}, "annotations": [{"result": list(results)}]}]
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "images/a.png")
    (root / "project-1-at-2026.json").write_text(json.dumps(tasks))
    return root


def plain_brush(mask: np.ndarray) -> list[int]:
    """The code bit by bit as it is described: values one after the other, in chunks of five."""
    values = np.repeat(mask.ravel(), 4)
    text = f"{len(values):032b}" + f"{8 - 1:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    for k in range(0, len(values), 5):
        chunk = values[k : k + 5]
        text += "0" + "00" + f"{len(chunk) - 1:03b}"
        text += "".join(f"{255 * int(v):08b}" for v in chunk)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


@given(st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_brush_strokes(height: int, width: int, random: Any) -> None:
    mask = np.array([random.random() < 0.4 for _ in range(height * width)]).reshape(height, width)
    np.testing.assert_array_equal(decode_brush(plain_brush(mask), mask.shape), mask)
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


def test_long_runs_of_a_brush() -> None:
    mask = np.zeros((300, 400), bool)
    mask[120:, :] = True
    code = encode_brush(mask)
    assert len(code) < 100
    np.testing.assert_array_equal(decode_brush(code, (300, 400)), mask)


def test_shapes(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), bool)
    mask[3:9, 4:20] = True
    mask[5, 6] = False
    root = project(
        tmp_path,
        region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50, "rotation": 0}),
        region("rectangle", {"x": 50, "y": 10, "width": 25, "height": 50, "rotation": 90}),
        region("ellipse", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": 0}),
        region("polygon", {"points": [[10, 10], [50, 10], [50, 50]], "closed": True}, "dog"),
        region("brush", {"format": "rle", "rle": plain_brush(mask)}),
        region("polygon", {"points": [[0, 0], [5, 0], [5, 5]]}, meta={"text": ["iscrowd"]}),
        region("keypoint", {"x": 1, "y": 1, "width": 1}),
    )
    data = open_dataset(root)
    expected = np.array(
        [
            *([4, 3, 14, 18], [5, 3, 20, 13], [10, 12, 30, 18], [4, 3, 20, 15]),
            *([4, 3, 20, 9], [0, 0, 2, 1.5]),
        ]
    )
    np.testing.assert_allclose(data.annotated_boxes(0), expected, atol=1e-9)
    np.testing.assert_array_equal(full_mask(data, 0, 4), mask)
    assert data.names == ["cat", "dog"] and data[0].labels.tolist() == [0, 0, 0, 1, 0, 0]
    assert data[0].crowd.tolist() == [False] * 5 + [True]
    assert {fault.kind for fault in data.faults} == {"shape without area", "no mask"}


def test_a_label_may_be_a_result_of_its_own(tmp_path: Path) -> None:
    box = {"x": 10, "y": 10, "width": 25, "height": 50}
    shape = region("rectangle", box) | {"type": "rectangle", "value": box, "id": "x"}
    label = {"id": "x", "type": "labels", "value": {**box, "labels": ["dog"]}}
    data = open_dataset(project(tmp_path, shape, label))
    assert data.names == ["dog"] and len(data[0].labels) == 1 and not data.faults


def test_two_labels_of_a_region(tmp_path: Path) -> None:
    box = region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50})
    box["value"]["rectanglelabels"] = ["dog", "cat"]
    data = open_dataset(project(tmp_path, box))
    assert data.names == ["dog"]
    (fault,) = data.faults
    assert fault.action == "repaired" and "labels ['dog', 'cat'] the first" in fault.message


def test_keypoints(tmp_path: Path) -> None:
    """Below a region, beside the only one, alone; of several regions nobody knows whose."""
    box = region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50}, id="b")
    eye = region("keypoint", {"x": 20, "y": 50, "width": 1}, "eye", parentID="b")
    nose = region("keypoint", {"x": 25, "y": 20, "width": 1}, "nose", meta={"text": ["occluded"]})
    for results in ([eye, box, nose], [box, nose, eye]):
        data = open_dataset(project(tmp_path, *results))
        assert data.skeleton is not None and data.skeleton.names == ("eye", "nose")
        assert data[0].keypoints is not None and not data.faults
        assert data[0].keypoints.tolist() == [[[8, 15, 2], [10, 6, 1]]]
    far = region("rectangle", {"x": 70, "y": 10, "width": 25, "height": 50}, id="far")
    link = {"type": "relation", "from_id": "n", "to_id": "b", "direction": "right"}
    data = open_dataset(project(tmp_path, far, box, eye, nose | {"id": "n"}, link))
    assert data[0].keypoints is not None and not data.faults
    assert data[0].keypoints[1].tolist() == [[8, 15, 2], [10, 6, 1]]
    data = open_dataset(project(tmp_path, nose, eye))
    assert data.names == ["object"] and data[0].boxes.tolist() == [[8, 6, 10, 15]]
    other = region("rectangle", {"x": 50, "y": 10, "width": 25, "height": 50}, id="c")
    data = open_dataset(project(tmp_path, box, other, eye, nose))
    assert data[0].keypoints is not None and (data[0].keypoints[..., 2] > 0).sum() == 1
    assert [fault.kind for fault in data.faults] == ["shape without area"]


def test_the_labelling_interface_has_a_control_for_every_region(tmp_path: Path) -> None:
    """Each region names a control of its kind, which has its label."""
    points = [[4.0, 4], [20, 4], [20, 20]]
    mask = np.zeros((30, 40), bool)
    mask[3:9, 4:20] = True
    objects = [
        Drawn(0, "polygons", polygons=(np.array(points), np.array(points) + 9)),
        Drawn(1, "mask", mask=mask),
        Drawn(1, "mask", mask=mask, region="ignored"),
        Drawn(0, "box", box=(3, 3, 9, 9)),
    ]
    images = [DrawnImage((30, 40), objects[:3]), DrawnImage((30, 40), objects[3:])]
    content = lay(tmp_path / "in", images) / "train.json"
    write_dataset(open_dataset(content.parent), tmp_path / "out", "labelstudio")
    view = ElementTree.parse(tmp_path / "out/label_config.xml").getroot()
    image = view.find("Image")
    assert image is not None and image.get("value") == "$image"
    controls = {one.get("name"): one for one in view if one.tag != "Image"}
    tasks = json.loads((tmp_path / "out/train.json").read_text())
    regions = [one for task in tasks for one in task["annotations"][0]["result"]]
    assert {one["from_name"] for one in regions} == {"polygon", "brush"}
    for one in regions:
        control = controls[one["from_name"]]
        assert control.tag.lower() == one["type"] and control.get("toName") == one["to_name"]
        assert one["value"][one["type"]][0] in [label.get("value") for label in control]


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/12/1a2b3c4d-a.png", "/data/local-files/?d=images/a.png",
        "https://x.org/b/a.png?size=2", "s3://bucket/photos/a.png", "a.png", "images\\a.png",
    ],
)  # fmt: skip
def test_names_of_images(image: str, tmp_path: Path) -> None:
    box = region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50})
    data = open_dataset(project(tmp_path, box, image=image))
    assert data[0].path == tmp_path / "images/a.png"
    assert {fault.kind for fault in data.faults} <= {"image under another name"}


def test_the_small_export(tmp_path: Path) -> None:
    """JSON-MIN: regions among the data of the task."""
    box = {"x": 10, "y": 10, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    box |= {"original_width": 40, "original_height": 30}
    tasks = [{"image": "/data/upload/a.png", "id": 1, "label": [box], "annotator": 1}]
    tasks[0] |= {"annotation_id": 1, "lead_time": 2.5}
    project(tmp_path)
    (tmp_path / "project-1-at-2026.json").write_text(json.dumps(tasks))
    data = open_dataset(tmp_path)
    np.testing.assert_allclose(data.annotated_boxes(0), [[4, 3, 14, 18]])
    assert data.names == ["cat"]


def test_files_of_a_storage(tmp_path: Path) -> None:
    """One file for each task, or for each annotation with its task inside; the newest counts."""
    box = region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50}, "dog")
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/{name}.png")
    one = {"id": 1, "data": {"image": "/data/upload/1/a.png"}, "annotations": [{"result": [box]}]}
    (tmp_path / "1.json").write_text(json.dumps(one | {"predictions": []}))
    for number, label in enumerate(("cat", "bird")):
        task = {"id": 2, "data": {"image": "s3://bucket/b.png"}}
        own = {"result": [region("rectangle", box["value"], label)], "updated_at": f"202{number}"}
        (tmp_path / f"2{number}.json").write_text(json.dumps({"id": number, "task": task} | own))
    data = open_dataset(tmp_path)
    found = {data[i].path.name: [data.names[k] for k in data[i].labels] for i in range(2)}
    assert found == {"a.png": ["dog"], "b.png": ["bird"]}
    assert [fault.kind for fault in data.faults] == ["several annotations"]
    alone = open_dataset(tmp_path / "1.json")
    assert len(alone) == 1 and alone.names == ["dog"]


def test_a_video_and_a_resolved_address(tmp_path: Path) -> None:
    film = project(tmp_path / "film", image="https://x.org/a.mp4")
    with pytest.raises(ValueError, match=r"of the video 'https://x\.org/a\.mp4'"):
        open_dataset(film)
    box = region("rectangle", {"x": 10, "y": 10, "width": 25, "height": 50})
    coded = base64.b64encode(b"s3://bucket/a.png").decode()
    data = open_dataset(project(tmp_path / "b", box, image=f"/tasks/7/resolve/?fileuri={coded}"))
    assert len(data) == 1 and data[0].path.name == "a.png"
