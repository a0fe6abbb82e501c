"""YOLO's text files: how a data set may lie, and what a line of numbers means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data import check_data, find_splits, open_dataset, write_dataset
from maskwright.data.formats.yolo.layout import Keypoints, joint_names
from maskwright.structures import Skeleton

BOX = "1 0.5 0.5 0.25 0.5\n"  # of 40 x 20 pixels: 15 5 25 15


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".png", ".jpg"):
            Image.new("RGB", (40, 20), len(name)).save(file)
        else:
            file.write_text(text)
    return root


LAYOUTS = {
    "data.yaml": {
        "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
        "images/train/a.png": "", "labels/train/a.txt": BOX,
        "images/val/b.png": "", "labels/val/b.txt": BOX,
    },
    "of Roboflow": {
        "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        "nc: 2\nnames: ['cat', 'dog']\nroboflow:\n  url: x\n",
        "train/images/a.png": "", "train/labels/a.txt": BOX,
        "valid/images/b.png": "", "valid/labels/b.txt": BOX,
    },
    "path of another place": {
        "x.yml": "path: datasets/mine\ntrain: [images/train]\nval: images/val\nnames: [cat, dog]\n",
        "images/train/a.png": "", "labels/train/a.txt": BOX,
        "images/val/b.png": "", "labels/val/b.txt": BOX,
    },
    "of another machine": {
        "data.yaml": "path: /content/drive\ntrain: /content/drive/set/train/images\n"
        "val: C:\\sets\\mine\\valid\\images\nnames: [cat, dog]\n",
        "train/images/a.png": "", "train/labels/a.txt": BOX,
        "valid/images/b.png": "", "valid/labels/b.txt": BOX,
    },
    "lists": {
        "data.yaml": "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
        "train.txt": "./images/a.png\n", "val.txt": "C:\\stuff\\images\\b.png\r\n",
        "images/a.png": "", "labels/a.txt": BOX, "images/b.png": "", "labels/b.txt": BOX,
    },
    "without data.yaml": {
        "images/train/a.png": "", "labels/train/a.txt": BOX,
        "images/val/b.png": "", "labels/val/b.txt": BOX, "classes.txt": "cat\ndog\n",
    },
    "of Darknet": {
        "obj_train_data/a.png": "", "obj_train_data/a.txt": BOX,
        "obj_train_data/b.png": "", "obj_train_data/b.txt": BOX,
        "train.txt": "data/obj_train_data/a.png\n", "valid.txt": "data/obj_train_data/b.png\n",
        "obj.names": "cat\ndog\n", "obj.data": "classes = 2\nnames = data/obj.names\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    root = lay(tmp_path, LAYOUTS[layout])
    assert list(find_splits(root)) == ["train", "val"]
    for split, name in (("train", "a.png"), ("val", "b.png")):
        data = open_dataset(root, split)
        assert data.names == ["cat", "dog"] and data.format == "yolo"
        assert [data[i].path for i in range(len(data))] == list(root.rglob(name))
        assert data[0].boxes.tolist() == [[15, 5, 25, 15]] and data[0].labels.tolist() == [1]
        kinds = {fault.kind for fault in data.faults}
        told = {"of Roboflow": "missing split", "of another machine": "other path"}
        assert kinds <= {told.get(layout)}
    for file in [*root.glob("*.yaml"), *root.glob("*.yml")]:
        assert open_dataset(file, "val")[0].path.name == "b.png"


def test_a_folder_alone(tmp_path: Path) -> None:
    """As labelImg leaves it: labels beside the images, and one image without any."""
    files = {"a.png": "", "a.txt": BOX, "b.png": "", "sub/x.png": "", "classes.txt": "cat\ndog\n"}
    data = open_dataset(lay(tmp_path, files))
    assert [data[i].path.name for i in range(len(data))] == ["a.png", "b.png", "x.png"]
    assert data.objects_per_class().tolist() == [0, 1]
    assert [fault.kind for fault in data.faults] == ["image without a file of labels"]


def test_numbers_are_names_where_nothing_names_them(tmp_path: Path) -> None:
    text = BOX + "11 .5 .5 .1 .1\n2 .5 .5 .1 .1\n"
    data = open_dataset(lay(tmp_path, {"images/a.png": "", "labels/a.txt": text}))
    assert data.names == ["1", "2", "11"]
    assert data.faults[0].kind == "classes without names"
    assert "classes.txt" in data.faults[0].message


def test_nine_numbers_are_four_corners(tmp_path: Path) -> None:
    """An oriented box: its extent for boxes, its area for masks."""
    text = "0 0.5 0.1 0.75 0.5 0.5 0.9 0.25 0.5\n"
    data = open_dataset(lay(tmp_path, {"images/a.png": "", "labels/a.txt": text}))
    assert data[0].boxes.tolist() == [[10, 2, 30, 18]] and data.has_masks
    crop, _ = data.mask(0, 0)
    assert abs(int(crop.sum()) - 160) <= 8  # half of 20 x 16
    corners = data.polygons(0, 0)
    assert corners is not None
    np.testing.assert_allclose(corners[0], [[20, 2], [30, 10], [20, 18], [10, 10]])


def test_nine_numbers_are_two_keypoints_if_announced(tmp_path: Path) -> None:
    text = "0 0.5 0.5 0.5 0.5 0.25 0.5 0 0\n"
    table = "train: images\nnames: [cat]\nkpt_shape: [2, 2]\nflip_idx: [1, 0]\n"
    files = {"data.yaml": table, "images/a.png": "", "labels/a.txt": text}
    data = open_dataset(lay(tmp_path, files))
    assert data[0].keypoints is not None
    assert data[0].keypoints.tolist() == [[[10, 10, 2], [0, 0, 0]]]
    assert data.skeleton is not None and data.skeleton.mirrored == [1, 0]


def test_keypoints_go_out_and_come_in(tmp_path: Path) -> None:
    table = (
        "train: images\nnames: [cat]\nkpt_shape: [3, 3]\n"
        "kpt_names: {0: [nose, left_eye, right_eye]}\n"
    )
    text = "0 .5 .5 .5 .5 .25 .5 2 .3 .55 1 0 0 0\n0 .5 .5 .2 .2 0 0 0 0 0 0 0 0 0\n"
    root = lay(tmp_path / "a", {"data.yaml": table, "images/a.png": "", "labels/a.txt": text})
    data = open_dataset(root)
    assert data.skeleton == Skeleton(("nose", "left_eye", "right_eye"))
    write_dataset(data, tmp_path / "b", "yolo")
    again = open_dataset(tmp_path / "b")
    assert again.skeleton == data.skeleton and again.faults == []
    for read in (data, again):
        assert read[0].keypoints is not None
        expected = [[[10, 10, 2], [12, 11, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
        np.testing.assert_allclose(read[0].keypoints, expected)


def test_names_of_keypoints_say_how_they_mirror() -> None:
    for mirrored in ((0, 2, 1, 3), (3, 2, 1, 0), (0, 1, 2, 3)):
        names = joint_names(Keypoints(4, 3, mirrored=mirrored))
        assert tuple(Skeleton(names).mirrored) == mirrored


def test_several_descriptions_are_no_guess(tmp_path: Path) -> None:
    root = lay(tmp_path, LAYOUTS["data.yaml"])
    (root / "other.yaml").write_text((root / "data.yaml").read_text())
    with pytest.raises(ValueError, match=r"data\.yaml, other\.yaml: give the one"):
        find_splits(root)
    assert list(find_splits(root / "other.yaml")) == ["train", "val"]


def test_a_list_does_not_lead_out(tmp_path: Path) -> None:
    lay(tmp_path, {"secret.png": "", "secret.txt": BOX})
    root = lay(tmp_path / "d", LAYOUTS["lists"])
    (root / "train.txt").write_text(f"images/a.png\n../secret.png\n{tmp_path}/secret.png\n")
    data = open_dataset(root)
    assert [data[i].path for i in range(len(data))] == [root / "images/a.png"]
    assert "missing image" in {fault.kind for fault in data.faults}


def test_a_script_in_data_yaml_is_not_run(tmp_path: Path) -> None:
    files = dict(LAYOUTS["data.yaml"])
    files["data.yaml"] += "download: |\n  open('made', 'w')\n"
    root = lay(tmp_path, files)
    assert len(open_dataset(root)) == 1
    (root / "data.yaml").write_text("train: images/train\nnames: !!python/name:os.system\n")
    with pytest.raises(ValueError, match="no valid YAML"):
        open_dataset(root)


def test_a_line_that_is_cut_off(tmp_path: Path) -> None:
    """An odd count of numbers is a fault where most have none, else a confidence."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    whole = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"
    other = "0 0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6"
    for name, text in {
        "a": f"{whole}\n{other[:-4]}",
        "b": f"{whole}\n{other[:-1]}",
        "c": f"{whole} 0.9\n{other}\n{other[:-1]}1",
    }.items():
        Image.new("RGB", (100, 100), (len(text), 0, 0)).save(tmp_path / f"images/{name}.png")
        (tmp_path / f"labels/{name}.txt").write_text(text)
    data = open_dataset(tmp_path)
    assert data.objects_per_class().sum() == 4
    wrong = {
        (Path(f.file).stem, f.message.split(",")[1].strip()[:7])
        for f in data.faults
        if f.kind == "bad line"
    }
    assert wrong == {("a", "line 2:"), ("b", "line 2:"), ("c", "line 1:")}
    assert all(fault.action == "ignored" for fault in data.faults if fault.kind == "bad line")
    for name in "abc":
        (tmp_path / f"labels/{name}.txt").write_text(f"{whole} 0.9\n{other} 0.8\n")
    again = open_dataset(tmp_path)
    assert again.objects_per_class().sum() == 6
    assert "number beyond a line" in {fault.kind for fault in again.faults}


def test_a_polygon_that_leaves_the_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text(
        "0 0.5 0.5 1.2 0.5 1.2 0.9\n0 0.1 0.1 1.01 0.1 1.01 0.3\n"
        "0 0.5 0.5 0.5 0.\n0 0.4 0.5 0.5 0.\n"
    )
    data = open_dataset(tmp_path)
    beyond = [fault for fault in data.faults if fault.kind == "polygon beyond the image"]
    assert len(beyond) == 1 and "line 1" in beyond[0].message
    assert "20 pixels beyond the image" in beyond[0].message
    kinds = [fault.kind for _, fault in check_data(tmp_path).faults]
    assert kinds.count("bad line") == 2 and "duplicate object" not in kinds


def test_the_end_of_a_path_must_name_its_split(tmp_path: Path) -> None:
    """A folder images alone may be that of any split."""
    lay(tmp_path, {"images/a.png": "", "labels/a.txt": BOX, "train/images/a.png": ""})
    text = "train: {}\nval: images\nnames: [cat, dog]\n"
    (tmp_path / "data.yaml").write_text(text.format("/home/me/mine/images"))
    with pytest.raises(ValueError, match=r"train split is to lie in /home/me/mine/images"):
        open_dataset(tmp_path)
