"""Labels of whole images in files of labelling tools, for classifiers: choices, flags, tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.rewriting.convert import convert_data

WANTED = {"a.png": ["cat"], "b.png": ["dog"], "c.png": ["cat"]}
Labels = dict[str, list[str]]


def labelstudio(root: Path, labels: Labels) -> None:
    def chosen(words: list[str]) -> list[dict[str, Any]]:
        return [{"type": "choices", "from_name": "choice", "value": {"choices": words}}]

    tasks = [
        {"data": {"image": name}, "annotations": [{"result": chosen(own)}]}
        for name, own in labels.items()
    ]
    (root / "project.json").write_text(json.dumps(tasks))


def json_min(root: Path, labels: Labels) -> None:
    """One choice stands as a text, several as a list below `choices`."""
    tasks = [
        {"image": name, "choice": own[0] if len(own) == 1 else {"choices": own}}
        | {"annotator": 1, "lead_time": 2.5}
        for name, own in labels.items()
    ]
    (root / "project.json").write_text(json.dumps(tasks))


def labelme(root: Path, labels: Labels) -> None:
    for name, own in labels.items():
        flags = {word: word in own for word in ("cat", "dog", "old")}
        content = {"version": "4.0.0", "flags": flags, "shapes": [], "imagePath": name}
        content |= {"imageData": None, "imageHeight": 6, "imageWidth": 8}
        (root / f"{Path(name).stem}.json").write_text(json.dumps(content))


def cvat(root: Path, labels: Labels) -> None:
    images = "".join(
        f'<image id="0" name="{name}" width="8" height="6">'
        + "".join(f'<tag label="{word}" source="manual"></tag>' for word in own)
        + "</image>"
        for name, own in labels.items()
    )
    listed = "".join(f"<label><name>{word}</name></label>" for word in ("cat", "dog"))
    meta = f"<meta><job><labels>{listed}</labels></job></meta>"
    (root / "annotations.xml").write_text(f"<annotations>{meta}{images}</annotations>")


def supervisely(root: Path, labels: Labels) -> None:
    """A tag with a value is no label, and one that tells the split is none."""
    (root / "meta.json").write_text(json.dumps({"classes": [], "tags": []}))
    for name, own in labels.items():
        tags = [{"name": word, "value": None} for word in (*own, "train")]
        tags.append({"name": "weather", "value": "rain"})
        content = {"size": {"height": 6, "width": 8}, "tags": tags, "objects": []}
        (root / f"{name}.json").write_text(json.dumps(content))


TOOLS: list[Callable[[Path, Labels], None]] = [labelstudio, json_min, labelme, cvat, supervisely]


@pytest.fixture(params=TOOLS, ids=lambda tool: tool.__name__)
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Labels], Path]:
    def lay(labels: Labels) -> Path:
        root = tmp_path / "data"
        root.mkdir()
        for name in labels:
            Image.new("RGB", (8, 6)).save(root / name)
        request.param(root, labels)
        return root

    return lay


def read(root: Path, **options: Any) -> Labels:
    data = open_dataset(root, **options)
    assert data.records == "labels" and {len(data[i].boxes) for i in range(len(data))} == {0}
    found = {}
    for record in (data[i] for i in range(len(data))):
        assert record.image_labels is not None
        found[record.path.name] = [data.names[label] for label in record.image_labels.tolist()]
    return found


def test_labels_of_images(tool: Callable[[Labels], Path], tmp_path: Path) -> None:
    root = tool(WANTED)
    assert read(root, records="labels") == read(root, records=None) == WANTED
    convert_data(root, "folders", tmp_path / "folders")
    assert {own.name for own in (tmp_path / "folders/train/cat").iterdir()} == {"a.png", "c.png"}
    with pytest.raises(ValueError, match=r"labels of their own and no objects: a classifier"):
        open_dataset(root)


def test_several_labels_and_none(tool: Callable[[Labels], Path]) -> None:
    wanted = {"a.png": ["cat", "dog"], "b.png": []}
    assert read(tool(wanted), records="labels") == wanted


def test_an_image_without_a_label_among_others(tool: Callable[[Labels], Path]) -> None:
    root = tool(WANTED | {"d.png": []})
    assert read(root, records="labels") == WANTED
    data = open_dataset(root, records="labels")
    assert [(one.kind, one.action) for one in data.faults] == [
        ("image without a label", "left out")
    ]


def test_a_label_that_the_training_split_lacks_is_refused(tool: Callable[[Labels], Path]) -> None:
    root = tool({"a.png": ["cat"], "b.png": ["dog"]})
    with pytest.raises(ValueError, match="'dog'"):
        open_dataset(root, records="labels", names=["cat", "bird"])


def test_beside_objects_they_are_counted(tmp_path: Path) -> None:
    labelme(tmp_path, {"a.png": ["cat"]})
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    content = json.loads((tmp_path / "a.json").read_text())
    content["shapes"] = [{"label": "eye", "shape_type": "rectangle", "points": [[1, 1], [4, 4]]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = open_dataset(tmp_path)
    assert data.names == ["eye"] and data.unread == {"the label 'cat' of an image": 1}
    assert open_dataset(tmp_path, records="labels").names == ["eye"]


def test_a_split_without_objects_stays_one_of_objects(tmp_path: Path) -> None:
    """Its flags say something else than what the classes are."""
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        labelme(tmp_path / name, {f"{name}.png": ["cat"]})
        Image.new("RGB", (8, 6)).save(tmp_path / name / f"{name}.png")
        file = tmp_path / name / f"{name}.json"
        content = json.loads(file.read_text()) | {"flags": {"seen": True}}
        if name == "train":
            box = {"shape_type": "rectangle", "points": [[1, 1], [4, 4]]}
            content["shapes"] = [{"label": "eye"} | box]
        file.write_text(json.dumps(content))
    data = open_dataset(tmp_path, "val", names=open_dataset(tmp_path).names)
    assert data.records == "objects" and len(data) == 1 and len(data[0].boxes) == 0
    assert data.unread == {"the label 'seen' of an image": 1}
