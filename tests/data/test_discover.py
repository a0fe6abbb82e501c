"""Layouts that `data=` recognises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from maskwright.data import find_splits, open_dataset
from maskwright.data.discover import split_name

WritePng = Callable[[Path], None]


def write_json(path: Path, *names: str, image: str = "a.png") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": 1, "file_name": image, "height": 30, "width": 40}],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names or ("cat",))],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


LAYOUTS = {
    "folders": {"train": ("annotations/train.json", "images/train/a.png")}
    | {"val": ("annotations/val.json", "images/val/a.png")},
    "flat images": {"train": ("annotations/train.json", "images/a.png")}
    | {"val": ("annotations/val.json", "images/b.png")},
    "coco 2017": {"train": ("annotations/instances_train2017.json", "train2017/a.png")}
    | {"val": ("annotations/instances_val2017.json", "val2017/a.png")},
    "images beside": {"train": ("train.json", "a.png"), "val": ("val.json", "b.png")},
    "pair": {"train": ("train.json", "images/a.png"), "val": ("valid.json", "images/b.png")},
    "roboflow": {"train": ("train/_annotations.coco.json", "train/a.png")}
    | {"val": ("valid/_annotations.coco.json", "valid/a.png")}
    | {"test": ("test/_annotations.coco.json", "test/a.png")},
    "sub-folders": {"train": ("train/labels.json", "train/images/a.png")}
    | {"val": ("validation/labels.json", "validation/images/a.png")},
    "one file": {"train": ("result.json", "images/a.png")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, write_png: WritePng) -> None:
    for labels, image in LAYOUTS[layout].values():
        write_json(tmp_path / labels, image=Path(image).name)
        write_png(tmp_path / image)
    assert list(find_splits(tmp_path)) == list(LAYOUTS[layout])
    for split, (labels, image) in LAYOUTS[layout].items():
        dataset = open_dataset(tmp_path, split)
        assert dataset.source == tmp_path / labels
        assert dataset[0].path.resolve() == (tmp_path / image).resolve()
        assert dataset.split == split
        direct = open_dataset(tmp_path / labels, split)
        assert direct[0].path.resolve() == (tmp_path / image).resolve()


def test_file_name_with_folders(tmp_path: Path, write_png: WritePng) -> None:
    write_json(tmp_path / "annotations/train.json", image="images\\train\\a.png")
    write_png(tmp_path / "images/train/a.png")
    assert open_dataset(tmp_path)[0].path == tmp_path / "images/train/a.png"


def test_the_folder_with_most_images_wins(tmp_path: Path, write_png: WritePng) -> None:
    file = tmp_path / "annotations/train.json"
    write_json(file)
    content = json.loads(file.read_text())
    content["images"] += [
        {"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in range(2, 6)
    ]
    file.write_text(json.dumps(content))
    for name in ("images/train/a.png", *(f"images/{i}.png" for i in range(2, 6))):
        write_png(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert dataset.root == tmp_path / "images"
    assert len(dataset) == 5  # the one that lies elsewhere is found there, and it is said
    assert [fault.kind for fault in dataset.faults] == ["image under another name"]


def test_instances_before_keypoints(shared_data: Path) -> None:
    splits = find_splits(shared_data / "coco_subset")
    assert [source.annotations.name for source in splits.values()] == [
        "instances_train.json",
        "instances_val.json",
    ]


def test_yaml_and_mapping(tmp_path: Path, write_png: WritePng) -> None:
    for split in ("train", "val"):
        write_json(tmp_path / f"labels/{split}_set.json")
        write_png(tmp_path / f"photos/{split}/a.png")
    content = {"train": "labels/train_set.json", "valid": "labels/val_set.json"}
    file = tmp_path / "data.yaml"
    file.write_text(yaml.safe_dump(content | {"images": "photos"}))
    assert open_dataset(file, "val")[0].path == tmp_path / "photos/val/a.png"
    images = {"train": "photos/train", "valid": "photos/val"}
    mapping = content | {"images": images, "path": str(tmp_path)}
    assert open_dataset(mapping, "val")[0].path == tmp_path / "photos/val/a.png"
    with pytest.raises(ValueError, match="existing COCO JSON"):
        open_dataset({"train": str(tmp_path / "photos")})
    with pytest.raises(ValueError, match="entries train and val"):
        open_dataset({"learn": "x.json"})
    file.write_text("train: [")
    with pytest.raises(ValueError, match="no valid YAML"):
        open_dataset(file)


def test_what_is_missing_is_said(tmp_path: Path, write_png: WritePng) -> None:
    with pytest.raises(ValueError, match=r"nowhere' does not exist \(looked in"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"(?s)It has: nothing.*_annotations\.coco\.json"):
        open_dataset(tmp_path)
    write_json(tmp_path / "train.json")
    write_png(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no 'val' split, only 'train'"):
        open_dataset(tmp_path, "valid")
    with pytest.raises(ValueError, match="'holdout'"):
        open_dataset(tmp_path, "holdout")
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"no usable image of 1.*does not exist"):
        open_dataset(tmp_path)


def test_names_of_splits() -> None:
    names = {"valid": "val", "instances_val2017": "val", "Validation": "val", "dev": "val"}
    names |= {"train_set": "train", "test-dev": "test", "_annotations.coco": None, "retrain": None}
    # A name with two split words, like test-dev, belongs to the first in the order of SPLITS.
    names["test-dev"] = "val"
    assert {name: split_name(name) for name in names} == names
