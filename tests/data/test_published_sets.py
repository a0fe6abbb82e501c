"""CrowdHuman, KITTI, Open Images: ignored regions, groups, classes that nobody looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_cases import HEADER, box_row, kitti, person

from maskwright.data import find_splits, open_dataset, write_dataset


def lay(root: Path, files: dict[str, str], *images: str) -> Path:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / name)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_crowdhuman(tmp_path: Path) -> None:
    """Lines as annotation_train.odgt has them, one with all three boxes."""
    whole = (
        '{"ID": "273271,c9db000d5146c15", "gtboxes": [{"fbox": [-4, 2, 20, 20], "tag": "person", '
        '"hbox": [5, 3, 4, 4], "extra": {"box_id": 0, "occ": 0}, "vbox": [0, 2, 16, 10], '
        '"head_attr": {"ignore": 0, "occ": 0, "unsure": 0}}, {"fbox": [20, 20, 9, 5], "tag": '
        '"mask", "extra": {"ignore": 1}}, {"fbox": [1, 1, 9, 5], "tag": "person", "extra": '
        '{"box_id": 1, "ignore": 1}}]}\n'
    )
    image = "Images/273271,c9db000d5146c15.jpg"
    data = open_dataset(lay(tmp_path, {"annotation_train.odgt": whole}, image))
    assert data.names == ["person"] and data.format == "crowdhuman"
    assert data.annotated_boxes(0).tolist() == [[0, 2, 16, 22], [20, 20, 29, 25], [1, 1, 10, 6]]
    assert data[0].labels.tolist() == [0, -1, 0]
    assert data[0].ignored.tolist() == [False, True, True]
    assert [fault.kind for fault in data.faults] == ["other boxes"]


def test_kitti(tmp_path: Path) -> None:
    """000000.txt of the object benchmark in form, with a region in which nobody labelled."""
    lines = (
        "Car 0.88 3 -0.69 0.00 10.12 20.50 29.99 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29\n"
        "Misc 0.00 1 -1.82 30.00 1.00 39.00 8.00 1.63 1.48 2.37 3.23 1.59 8.55 -1.47\n"
        "DontCare -1 -1 -10 25.00 16.00 29.00 19.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    root = lay(
        tmp_path,
        {"training/label_2/000000.txt": lines, "training/label_2/000001.txt": ""},
        "training/image_2/000000.png",
        "training/image_2/000001.png",
        "testing/image_2/000000.png",
    )
    data = open_dataset(root)
    assert (data.names, len(data), data.format) == (["Car", "Misc"], 2, "kitti")
    expected = [[0, 10.12, 20.5, 29.99], [30, 1, 39, 8], [25, 16, 29, 19]]
    np.testing.assert_allclose(data.annotated_boxes(0), expected)
    assert data[0].labels.tolist() == [0, 1, -1]
    assert data[0].ignored.tolist() == [False, False, True]
    lay(root, {"ImageSets/train.txt": "000000\n", "ImageSets/val.txt": "000001\n"})
    for split in ("train", "val"):
        assert len(open_dataset(root, split, names=["Car", "Misc"])) == 1
    write_dataset(data, tmp_path / "out", "kitti")
    again = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(again.annotated_boxes(0), data.annotated_boxes(0))
    assert again[0].ignored.tolist() == data[0].ignored.tolist()
    spaced = open_dataset(lay(tmp_path / "b", {"train.odgt": person("a", "a cat")}, "Images/a.png"))
    with pytest.raises(ValueError, match="'a cat' cannot stand in a line of KITTI"):
        write_dataset(spaced, tmp_path / "c", "kitti")


def test_names_of_digits_are_no_keypoints(tmp_path: Path) -> None:
    """The layout of DIGITS and TAO: images/ beside labels/ in each split."""
    root = lay(
        tmp_path,
        {"train/labels/a.txt": kitti(), "val/labels/b.txt": kitti("dog")},
        "train/images/a.png",
        "val/images/b.png",
    )
    assert set(find_splits(root)) == {"train", "val"}
    assert open_dataset(root, format="kitti").names == ["cat"]


def test_open_images(tmp_path: Path) -> None:
    """Tables as they are handed out: fractions, a group, classes that were looked for."""
    rows = (
        box_row("a", "/m/01", "0.25,0.5,0.1,0.2")
        + box_row("a", "/m/02", "0,1,0,0.5").replace(",0,1,0,0,0", ",0,0,1,0,0")
        + box_row("gone")
    )
    labels = (
        "ImageID,Source,LabelName,Confidence\na,verification,/m/01,1\na,verification,/m/03,0\n"
        "b,verification,/m/02,0\nc,verification,/m/01,1\n"
    )
    titles = "/m/01,Cat\n/m/02,Dog\n/m/03,Egg\n/m/04,Ax\n"
    root = lay(
        tmp_path,
        {
            "csv_folder/validation-annotations-bbox.csv": HEADER + rows,
            "csv_folder/validation-annotations-human-imagelabels-boxable.csv": labels,
            "csv_folder/class-descriptions-boxable.csv": titles,
        },
        *(f"validation/{name}.jpg" for name in "abc"),
    )
    data = open_dataset(root, "val")
    assert data.names == ["Cat", "Dog", "Egg", "Ax"] and len(data) == 2
    np.testing.assert_allclose(data.annotated_boxes(0), [[10, 3, 20, 6], [0, 0, 40, 15]])
    assert data[0].crowd.tolist() == [False, True] and not data[0].ignored.any()
    assert data[0].checked is not None and data[1].checked is not None
    assert data[0].checked.tolist() == [0, 1, 2] and data[1].checked.tolist() == [1]
    assert [fault.kind for fault in data.faults] == ["missing image"]
    truth = data.to_coco(by_label=True)
    assert [image["neg_category_ids"] for image in truth["images"]] == [[3], [2]]
    for format in ("openimages", "coco"):
        write_dataset(data, tmp_path / format, format)
        again = open_dataset(tmp_path / format, "val")
        found = [again[i].checked for i in range(2)]
        assert [[again.names[k] for k in one] for one in found] == [["Cat", "Dog", "Egg"], ["Dog"]]
