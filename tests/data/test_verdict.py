"""What `train` refuses or warns of, `data check` says: objects, masks, classes, boxes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.cli import main
from maskwright.data import check_data, open_dataset
from maskwright.data.building.objects import flag, whole_number
from maskwright.ops.rle import encode_crop

Content = dict[str, Any]
TINY = (
    "backbone=test_efficientnet width=16 box_width=32 proposals=32 rois=16 "
    "anchor_sizes=8,16,32,64,128 imgsz=64 weights=none workers=0 steps=1 warmup=0 batch=1"
)


def toy(folder: Path, change: Callable[[Content], object], images: int = 6) -> Path:
    """Write grey noise with three bright squares an image, changed; half is train, half val."""
    (folder / "images").mkdir(parents=True)
    parts: dict[str, Content] = {}
    for split in ("train", "val"):
        parts[split] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "cell"}],
        }
    for i in range(images):
        content = parts["train" if i < images // 2 else "val"]
        pixels = np.random.default_rng(i).integers(0, 40, (96, 96, 3), dtype=np.uint8)
        content["images"].append({"id": i + 1, "file_name": f"{i}.png", "height": 96, "width": 96})
        for k, (x, y) in enumerate(((10, 10), (50, 15), (30, 60))):
            pixels[y : y + 20, x : x + 20] = 200
            content["annotations"].append(
                {
                    "id": 10 * i + k + 1,
                    "image_id": i + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 400,
                    "bbox": [x, y, 20, 20],
                    "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]],
                }
            )
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
    (folder / "annotations").mkdir()
    for split, content in parts.items():
        change(content)
        (folder / f"annotations/{split}.json").write_text(json.dumps(content))
    return folder


def each(edit: Callable[[Content], object]) -> Callable[[Content], object]:
    def change(content: Content) -> None:
        for entry in content["annotations"]:
            edit(entry)

    return change


def as_crowd(entry: Content) -> None:
    """Write a mask as CVAT does."""
    x, y, w, h = entry["bbox"]
    code = encode_crop(np.ones((h, w), bool), (x, y, x + w, y + h), (96, 96))
    entry.update(iscrowd=1, segmentation={"size": [96, 96], "counts": code["counts"].decode()})


def try_both(
    root: Path, capsys: pytest.CaptureFixture[str], *options: str, model: str = "mask_rcnn"
) -> tuple[int, str, int, str]:
    """Return status and output of `data check` and of a training of one step."""
    checked = main(["data", "check", str(root), "save=false", *options])
    out, err = capsys.readouterr()
    # Tables break lines where a terminal ends.
    said = " ".join((out + err).split())
    name = f"model={model}_resnet50_fpn"
    trained = main(["train", str(root), name, *TINY.split(), f"project={root}/runs", *options])
    return checked, said, trained, " ".join(capsys.readouterr().err.split())


def test_masks_that_are_all_marked_as_crowds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = toy(tmp_path / "d", each(as_crowd))
    checked, check, trained, train = try_both(root, capsys)
    assert (checked, trained) == (1, 1)
    for said in (check, train):
        assert "not one object: all 9 annotations are marked iscrowd=1" in said
        assert "crowd_as_objects=true takes them as objects" in said
    checked, check, trained, train = try_both(root, capsys, "crowd_as_objects=true")
    assert (checked, trained) == (0, 0), train
    dataset = open_dataset(root, "val", crowd_as_objects=True)
    assert dataset.has_masks and not dataset[0].crowd.any()
    assert dataset.mask(0, 0)[0].sum() == 400
    # The run keeps the option: its validation had objects, and so has `val`, if it is not told no.
    val = ["val", f"{root}/runs/train/train", str(root), "save=false", "workers=0"]
    assert main([*val, "crowd_as_objects=false"]) == 0
    assert "crowd_as_objects=true" in " ".join(capsys.readouterr().err.split())
    assert main(val) == 0
    assert "crowd_as_objects" not in capsys.readouterr().err


def test_masks_of_crowds_beside_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: Content) -> None:
        for entry in content["annotations"][1:]:
            entry["segmentation"] = []
        as_crowd(content["annotations"][0])

    root = toy(tmp_path / "d", change)
    checked, check, trained, train = try_both(root, capsys)
    assert (checked, trained) == (1, 1)
    for said in (check, train):
        assert "its masks are all marked iscrowd=1" in said
    assert not open_dataset(root).has_masks  # rather than one made of boxes
    assert try_both(root, capsys, model="faster_rcnn")[2] == 0


def test_not_one_mask_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = toy(tmp_path / "d", each(lambda entry: entry.update(segmentation=[[1, 1, 5, 5]])))
    checked, check, trained, train = try_both(root, capsys)
    assert (checked, trained) == (1, 1)
    for said in (check, train):
        assert "not one of its 9 masks can be read; the first: annotation 1 of 0.png" in said
    one = toy(tmp_path / "e", lambda content: content["annotations"][0].update(segmentation=[[]]))
    checked, check, trained, train = try_both(one, capsys)
    assert (checked, trained) == (0, 0)
    assert "its box serves as its mask" in check and "its box serves as its mask" in train


def test_splits_without_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def of(split: int) -> Callable[[Content], object]:
        def change(content: Content) -> None:
            if (content["images"][0]["id"] == 1) == (split == 0):
                content["annotations"] = []

        return change

    checked, check, trained, train = try_both(toy(tmp_path / "train", of(0)), capsys)
    assert (checked, trained) == (1, 1)
    assert "has 3 images but not one object" in check and "not one object" in train
    checked, check, trained, train = try_both(toy(tmp_path / "val", of(1)), capsys)
    assert (checked, trained) == (0, 0)
    assert "has 3 images but not one object" in check and "not one object" in train


def test_the_reason_is_told_with_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = toy(tmp_path / "d", each(lambda entry: entry.update(category_id=9)))
    checked, check, trained, train = try_both(root, capsys)
    assert (checked, trained) == (1, 1)
    for said in (check, train):
        assert "not one object" in said and "category 9 is not defined" in said


def test_a_class_that_is_never_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: Content) -> None:
        content["categories"].append({"id": 2, "name": "rare"})
        if content["images"][0]["id"] > 1:
            content["annotations"][0]["category_id"] = 2

    *_, check, _, train = try_both(toy(tmp_path / "d", change), capsys)
    assert "in val but never in train: rare" in check and "in val but never in train: rare" in train


WRONG: dict[str, tuple[Callable[[Content], object], str]] = {
    "fractions": (
        each(lambda entry: entry.update(bbox=[v / 96 for v in entry["bbox"]], segmentation=[])),
        "all 9 boxes lie within 0 to 1: they seem to be fractions of the image",
    ),
    "corners": (
        each(
            lambda entry: entry.update(
                bbox=[*entry["bbox"][:2], entry["bbox"][0] + 20, entry["bbox"][1] + 20],
                segmentation=[],
            )
        ),
        "6 of 9 boxes reach beyond their image, and all fit as x1, y1, x2, y2: write [x1, y1, x2 -",
    ),
    "corners by their areas": (
        each(
            lambda entry: entry.update(
                bbox=[v // 2 + extra for extra in (0, 20) for v in entry["bbox"][:2]],
                segmentation=[],
            )
        ),
        "the areas of all 9 boxes are not width times height, and all fit as x1, y1",
    ),
    "another scale": (
        each(lambda entry: entry.update(bbox=[4 * v for v in entry["bbox"]], segmentation=[])),
        "9 of 9 boxes reach beyond their image, up to 280 x 320 where it has 96 x 96 pixels",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_numbers_that_are_no_boxes_in_pixels(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, says = WRONG[case]
    checked, check, trained, train = try_both(
        toy(tmp_path / "d", change), capsys, model="faster_rcnn"
    )
    assert (checked, trained) == (1, 1)
    for said in (check, train):
        assert says in said


def test_good_data_raise_no_suspicion(nuclei_mini: Path, shared_data: Path) -> None:
    for root in (nuclei_mini, *map(shared_data.joinpath, ("nuclei", "penn_fudan", "bccd"))):
        assert open_dataset(root).objects_per_class().sum() > 0  # else it would be refused


def test_names_of_classes_that_are_numbers(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        content["categories"] = [
            {"id": 1, "name": 7},
            {"id": 2, "name": 2.5},
            {"id": 3, "name": "03"},
        ]

    assert open_dataset(toy(tmp_path / "d", change)).names == ["7", "2.5", "03"]
    for name in (True, None, "", " ", [1]):

        def wrong(content: Content, name: Any = name) -> None:
            content["categories"][0]["name"] = name

        root = toy(tmp_path / f"e{name!r}".replace("/", ""), wrong)
        with pytest.raises(ValueError, match=r"every category needs .* 'id' and a 'name'"):
            open_dataset(root)


UNKNOWN = [(None, None), (0, 0), (-1, -1), ("", ""), (None, 96), ("0", "0"), ("x", 96), (96, 1.5)]


@pytest.mark.parametrize("size", UNKNOWN, ids=str)
def test_unknown_sizes_are_those_of_the_file_in_all_formats(size: Any, tmp_path: Path) -> None:
    height, width = size

    def change(content: Content) -> None:
        content["images"][0].update(height=height, width=width)

    coco = open_dataset(toy(tmp_path / "d", change))
    assert coco[0].size == (96, 96) and len(coco) == 3
    assert coco[0].boxes[0].tolist() == [10, 10, 30, 30]
    root = tmp_path / "voc"
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    Image.new("RGB", (96, 96)).save(root / "JPEGImages/a.png")
    tags = "".join(
        "" if value is None else f"<{name}>{value}</{name}>"
        for name, value in (("width", width), ("height", height))
    )
    box = "<xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>"
    (root / "Annotations/a.xml").write_text(
        f"<annotation><filename>a.png</filename><size>{tags}</size><object><name>7</name>"
        f"<bndbox>{box}</bndbox></object></annotation>"
    )
    voc = open_dataset(root)
    assert voc[0].size == (96, 96) and voc.names == ["7"]
    assert voc[0].boxes.tolist() == [[10, 10, 30, 30]]


def test_flags_and_ids_as_files_write_them() -> None:
    for value in (None, "", 0, "0", False, 0.0, "false", " No ", "Unspecified"):
        assert flag(value) is False, value
    for value in (1, "1", True, 1.0, "TRUE", "yes "):
        assert flag(value) is True, value
    for value in (2, -1, "very", 0.5, [1], {}, float("nan")):
        assert flag(value) is None, value
    for value, number in ((3, 3), (3.0, 3), ("3", 3), (" -3 ", -3), (0, 0), (-1, -1)):
        assert whole_number(value) == number
    for value in (True, None, 3.5, "three", "", [3], 2**63, float("inf"), float("nan")):
        assert whole_number(value) is None, value


def test_a_part_that_cannot_be_read_leaves_no_mask_with_a_hole(tmp_path: Path) -> None:
    def cut(entry: Content) -> None:
        x, y, w, h = entry["bbox"]
        left = [x, y, x + 8, y, x + 8, y + h, x, y + h]
        entry["segmentation"] = [left, [x + 12, y, x + w, y, x + w, y + h, x + 12]]

    dataset = open_dataset(toy(tmp_path / "d", each(cut)))
    for k in range(3):
        crop, frame = dataset.mask(0, k)
        assert list(frame) == dataset[0].boxes[k].tolist() and crop.all()


def test_polygons_of_fractions_do_not_displace_good_boxes(tmp_path: Path) -> None:
    def scale(entry: Content) -> None:
        entry["segmentation"] = [[v / 96 for v in entry["segmentation"][0]]]

    dataset = open_dataset(toy(tmp_path / "boxes", each(scale)))
    assert dataset[0].boxes[0].tolist() == [10, 10, 30, 30] and not dataset[0].crowd.any()
    assert {fault.kind for fault in dataset.faults} == {"polygon of fractions"}
    without = toy(tmp_path / "no_boxes", each(lambda e: (scale(e), e.pop("bbox"))))
    assert not check_data(without).ok  # not one object is left, and nothing is background
    assert open_dataset(without)[0].crowd.all()


def test_what_has_nothing_to_hold_out_is_told_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = toy(tmp_path / "d", lambda content: None, images=2)
    assert check_data(root).ok
    lone = root / "annotations/train.json"
    for data in (lone, root):
        (root / "annotations/val.json").unlink(missing_ok=True)
        assert not check_data(data).ok
        assert main(["train", f"data={data}", f"project={tmp_path}", *TINY.split()]) == 1
        said = capsys.readouterr().err
        fault = check_data(data).faults[0][1]
        assert fault.message in said and "val_fraction=0" in said


def test_a_folder_without_a_part_to_train_on_is_told(tmp_path: Path) -> None:
    root = toy(tmp_path / "d", lambda content: None)
    assert "no split to train on" not in str(check_data(root))
    (root / "annotations/train.json").unlink()
    assert "no split to train on, only val" in str(check_data(root))


def test_a_summary_of_faults_stands_in_every_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = toy(tmp_path / "d", each(lambda entry: entry.update(bbox="?", segmentation=None)))
    report = check_data(root)
    assert not report.ok
    told = re.search(r"(?s)fault \(train, error\): no objects(.*)", str(report))
    assert told and "bad box (ignored) 9 x" in told[1]
