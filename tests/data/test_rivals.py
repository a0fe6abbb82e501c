"""Two kinds of labels of the same images: those that agree, those that do not, which is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_objects import Drawn, DrawnImage, lay
from PIL import Image

from maskwright.data import Dataset, check_data, open_dataset, write_dataset
from maskwright.errors import OptionError

NAMES = ("cat", "dog")
SQUARE = np.array([[3.0, 3], [15, 3], [15, 13], [3, 13]])


def boxes_and_masks(root: Path) -> Path:
    """COCO's boxes beside the images, and LabelMe's polygons of the same objects."""
    objects = [Drawn(k, "box", box=(3.0 + 9 * k, 3.0, 15.0 + 9 * k, 13.0)) for k in range(2)]
    lay(root, [DrawnImage((24, 30), objects), DrawnImage((24, 30), [])], NAMES)
    shapes = [Drawn(k, "polygons", polygons=(SQUARE + np.array([9, 0]) * k,)) for k in range(2)]
    images = [DrawnImage((24, 30), shapes), DrawnImage((24, 30), [])]
    write_dataset(open_dataset(lay(root / "drawn", images, NAMES)), root / "tool", "labelme")
    for file in (root / "tool/train").glob("*.json"):
        file.rename(root / file.name)
    for folder in ("drawn", "tool/train", "tool"):
        for file in (root / folder).iterdir():
            file.unlink()
        (root / folder).rmdir()
    return root


def told(data: Dataset) -> list[str]:
    return [fault.message for fault in data.faults if fault.kind == "two kinds of labels"]


def test_those_that_agree(tmp_path: Path) -> None:
    root = boxes_and_masks(tmp_path)
    data = open_dataset(root)
    assert data.format == "labelme" and data.has_masks and len(data) == 2
    assert len(told(data)) == 1 and "say the same of 2 image(s): labelme is read" in told(data)[0]
    assert open_dataset(root, format="coco").has_masks is False
    assert check_data(root).ok


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '"dog"',
            '"cat"',
            "coco has a dog at x=12.0 to 24.0, y=3.0 to 13.0, labelme has none, and a cat there",
        ),
        ("15.0", "20.0", "coco has a cat at x=3.0 to 15.0, y=3.0 to 13.0, labelme has none"),
    ],
)
def test_those_that_disagree(old: str, new: str, says: str, tmp_path: Path) -> None:
    root = boxes_and_masks(tmp_path)
    file = root / "1.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(OptionError, match="two kinds of labels that disagree") as caught:
        open_dataset(root)
    text = str(caught.value)
    assert says in text and "format=coco or format=labelme" in text
    assert str(root / "1.png") in text and str(root / "train.json") in text
    assert open_dataset(root, format="labelme").format == "labelme"
    assert not check_data(root).ok


def test_numbers_are_no_names(tmp_path: Path) -> None:
    """YOLO's lines without names, rounded, beside VOC: the boxes alone are compared."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0.253 0.5 0.3 0.6\n")
    (tmp_path / "annotations/train.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 100}], '
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30]}], '
        '"categories": [{"id": 1, "name": "cat"}]}'
    )
    data = open_dataset(tmp_path)
    assert data.format == "coco" and data.names == ["cat"]
    assert "coco is read" in told(data)[0]
    (tmp_path / "labels/a.txt").write_text("0 0.253 0.5 0.3 0.6\n0 0.8 0.8 0.1 0.1\n")
    with pytest.raises(OptionError, match=r"yolo has a 0 at x=75.0 to 85.0"):
        open_dataset(tmp_path)
