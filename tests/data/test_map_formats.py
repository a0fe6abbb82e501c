"""Every layout of label maps, written here file by file, and what comes near and is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from map_files import kinds, numbers, pair, photo, read, save, stripes
from PIL import Image

from maskwright.data import find_splits, open_dataset, write_dataset
from maskwright.data.formats.maps.coco_stuff import IDS, STUFF, THINGS
from maskwright.data.formats.maps.matching import find_rule
from maskwright.data.formats.maps.voc import CLASSES
from maskwright.data.formats.rows import Look
from maskwright.data.formats.table import TABLE
from maskwright.drawing.label_maps import voc_palette
from maskwright.errors import OptionError

PLAIN = {
    "splits below": ("images/{s}/{i}.jpg", "masks/{s}/{i}.png"),
    "splits above": ("{s}/images/{i}.jpg", "{s}/labels/{i}.png"),
    "folders of one beginning": ("{s}/{i}.png", "{s}_labels/{i}_L.png"),
    "annot": ("{s}/{i}.png", "{s}annot/{i}.png"),
    "one folder, marked": ("{s}/{i}.png", "{s}/{i}_mask.png"),
    "one folder, by suffix": ("{s}/{i}.jpg", "{s}/{i}.png"),
    "marked on both sides": ("img/{s}/{i}_rgb.png", "annotations/{s}/label_{i}.tif"),
    "other words": ("imgs/{s}/image_{i}.bmp", "png_masks/{s}/mask_{i}.png"),
    "folders in folders": ("images/{s}/x/y/{i}.jpg", "labels/{s}/x/y/{i}.png"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_folders(case: str, tmp_path: Path) -> None:
    image, label = PLAIN[case]
    for split, count in (("train", 3), ("valid", 2)):
        for i in range(count):
            where = {"s": split, "i": f"{i}0{i}"}
            pair(tmp_path, image.format(**where), label.format(**where), numbers(i, 2, 255))
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\n")
    assert set(find_splits(tmp_path, records="maps")) == {"train", "val"}
    assert set(find_splits(tmp_path, records=None)) == {"train", "val"}
    data = read(tmp_path)
    assert (data.records, data.format, data.names) == ("maps", "maps", ["road", "sky", "tree"])
    assert data.faults == [] and len(data) == 3 and len(read(tmp_path, "val")) == 2
    for index in range(3):
        record = data[index]
        assert record.size == (10, 12) == data.image(index).shape[:2]
        assert stripes(data, index) == ([2, 255] if index == 2 else [index, 2, 255])
        assert record.label_map is not None and record.label_map.is_file()
    with pytest.raises(
        ValueError, match="has label maps, the class of every pixel, and no objects"
    ):
        open_dataset(tmp_path)


def test_one_folder_without_splits_or_with_lists(tmp_path: Path) -> None:
    for i in range(4):
        pair(tmp_path, f"images/{i}.jpg", f"masks/{i}.png", numbers(0, i))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert {s: len(read(tmp_path, s)) for s in find_splits(tmp_path, records="maps")} == {
        "train": 4
    }
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/val.txt").write_text("images/3.jpg\n7\n")
    (tmp_path / "ImageSets/trainval.txt").write_text("0\n1\n3\n")
    train, val = read(tmp_path), read(tmp_path, "val")
    assert [train[i].path.stem for i in range(2)] == ["0", "1"] and len(train) == 2
    assert len(val) == 1 and kinds(val) == {("missing image", "left out")}
    assert "7 in " in val.faults[0].message
    (tmp_path / "ImageSets/val.txt").write_text("x\n")
    with pytest.raises(ValueError, match=r"none of the 1 images of the list lies in .*val\.txt"):
        read(tmp_path, "val")


def test_names_that_do_not_match_are_told(tmp_path: Path) -> None:
    for i in range(3):
        pair(tmp_path, f"images/{i}.jpg", f"masks/{i}_m.png", numbers(0, 1))
    photo(tmp_path / "images/lonely.jpg")
    save(tmp_path / "masks/extra_m.png", numbers(0))
    save(tmp_path / "masks/0_m.bmp", numbers(0))
    photo(tmp_path / "masks/1_m.jpg")
    photo(tmp_path / "images/2.png")
    data = read(tmp_path)
    assert len(data) == 3
    told = {(fault.kind, fault.message) for fault in data.faults}
    assert (
        "image without a label map",
        f"image without a label map: {tmp_path}/images/lonely.jpg",
    ) in told
    assert any(
        kind == "label map without an image" and "extra_m.png" in text for kind, text in told
    )
    passed = "\n".join(text for kind, text in told if kind == "file passed over")
    for name in (
        "0_m.png is not read: 0_m.bmp",
        "1_m.jpg is not read: 1_m.png",
        "2.png is not read",
    ):
        assert name in passed
    for file in (tmp_path / "masks").iterdir():
        file.rename(file.with_name(f"other{ord(file.name[0])}0{file.suffix}"))
    with pytest.raises(
        ValueError, match=r"no label map in .*masks fits an image in .*images by its"
    ):
        read(tmp_path)


def test_rules_of_names() -> None:
    rule = find_rule(["1", "10", "100"], ["1_mask", "10_mask", "100_mask"])
    assert (rule.before, rule.behind) == ("", "_mask")
    rule = find_rule(["a_1_leftImg8bit"], ["a_1_gtFine_labelIds", "a_1_gtFine_color"])
    assert rule.core("a_1_leftImg8bit") == "a_1" and rule.behind.startswith("_gtFine")
    assert find_rule(["img1", "img2"], ["1", "2"]).core("img2") == "2"
    assert find_rule(["1", "2"], ["2", "1"]) == find_rule([], [])


def test_folders_of_which_two_may_be_meant(tmp_path: Path) -> None:
    pair(tmp_path, "images/0.jpg", "masks/0.png", numbers(0, 1))
    save(tmp_path / "labels/0.png", numbers(0, 1))
    with pytest.raises(ValueError, match="labels and masks: which are the label maps"):
        read(tmp_path)
    file = tmp_path / "data.yaml"
    file.write_text("train: images\nmasks: masks\nnames: [a, b]\n")
    assert read(file).names == ["a", "b"]
    pair(tmp_path / "two", "train/images/0.jpg", "train/masks/0.png", numbers(0, 1))
    pair(tmp_path / "two", "training/images/0.jpg", "training/masks/0.png", numbers(0, 1))
    with pytest.raises(ValueError, match="both the train split: leave one"):
        read(tmp_path / "two")


def test_a_split_without_label_maps_is_told(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/0.jpg", "masks/train/0.png", numbers(0, 1))
    photo(tmp_path / "images/test/0.jpg")
    assert set(find_splits(tmp_path, records="maps")) == {"train"}
    assert ("file passed over", "left out") in kinds(read(tmp_path))


def test_a_yaml_file(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pair(tmp_path, f"photos/{split}/a.jpg", f"gt/{split}/a.png", numbers(7, 8, 3))
    file = tmp_path / "my.yaml"
    file.write_text(
        "train: photos/train\nval: photos/val\nmasks: gt\nnames: {7: road, 8: sky}\nignore: 3\n"
    )
    for data in (read(file), read(file, "val")):
        assert data.names == ["road", "sky"] and stripes(data) == [0, 1, 255]
    assert read(file, names=["sky", "road"]).names == ["sky", "road"]
    assert stripes(read(file, names=["sky", "road"])) == [1, 0, 255]
    separate = {
        "path": str(tmp_path),
        "train": "photos/train",
        "masks": {"train": "gt/train"},
        "names": ["a"] * 1,
        "ignore": [3, 7, 8],
    }
    assert stripes(read(separate)) == [255]
    with pytest.raises(ValueError, match="the entry masks must name a folder, looked for"):
        read({**separate, "masks": "nowhere"})
    with pytest.raises(ValueError, match="the entry ignore is a list of numbers or names"):
        read({**separate, "ignore": {"a": 1}})
    for split in ("train", "val"):
        pair(tmp_path, f"set/images/{split}/a.jpg", f"set/masks/{split}/a.png", numbers(0, 1))
    assert len(read({"train": str(tmp_path / "set")})) == 1
    file = tmp_path / "set/data.yaml"  # as tools write it for boxes
    file.write_text("train: images/train\nval: images/val\nnc: 2\nnames: [a, b]\n")
    assert read(file, "val").names == ["a", "b"] and stripes(read(file)) == [0, 1]


def test_a_lone_pair_of_folders(tmp_path: Path) -> None:
    """CVAT's form of CamVid; a folder of a class beside another is none."""
    pair(tmp_path / "a", "default/1.png", "defaultannot/1.png", numbers(0, 1))
    (tmp_path / "a/label_colors.txt").write_text("Void\nroad\n")
    assert read(tmp_path / "a").names == ["road"] and stripes(read(tmp_path / "a")) == [255, 0]
    pair(tmp_path / "b", "face/1.png", "face_mask/1.png", numbers(0, 1))
    assert open_dataset(tmp_path / "b", records=None).records == "labels"


VOC_IDS = ("2007_000001", "2007_000002", "2008_000003")


def voc(root: Path, maps: str = "SegmentationClass") -> Path:
    palette = voc_palette()
    for number, name in enumerate(VOC_IDS):
        pair(
            root,
            f"JPEGImages/{name}.jpg",
            f"{maps}/{name}.png",
            numbers(0, 15, 255, number),
            palette,
        )
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "train.txt").write_text(VOC_IDS[0])
    (lists / "val.txt").write_text(VOC_IDS[1])
    (lists / "trainval.txt").write_text("\n".join(VOC_IDS[:2]))
    return root


def test_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOCdevkit/VOC2012")
    (root / "ImageSets/Main").mkdir()
    (root / "ImageSets/Main/test.txt").write_text("\n".join(VOC_IDS))
    (root / "Annotations").mkdir()
    for place in (root, root.parent, tmp_path):
        assert set(find_splits(place, records="maps")) == {"train", "val"}
    data = read(root)
    assert data.names == list(CLASSES) and len(data.names) == 21 and data.format == "voc"
    assert len(data) == 1 and stripes(data) == [0, 15, 255, 0] and data.faults == []
    assert data.names[15] == "person"


def test_voc_saved_in_colours_is_read_by_them(tmp_path: Path) -> None:
    root = voc(tmp_path)
    for file in (root / "SegmentationClass").iterdir():
        Image.open(file).convert("RGB").save(file)
    assert stripes(read(root)) == [0, 15, 255, 0]


def test_the_augmented_set(tmp_path: Path) -> None:
    root = voc(tmp_path)
    for name in VOC_IDS:
        save(root / f"SegmentationClassAug/{name}.png", numbers(0, 3))
    (root / "SegmentationClass" / f"{VOC_IDS[2]}.png").unlink()
    lines = (f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in VOC_IDS[::2])
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("\n".join(lines))
    train, val = read(root), read(root, "val")
    assert [train[i].path.stem for i in range(2)] == list(VOC_IDS[::2]) and len(train) == 2
    assert stripes(train, 0) == stripes(train, 1) == [0, 3]
    assert any("train.txt is not read: trainaug.txt" in fault.message for fault in train.faults)
    assert stripes(val) == [0, 15, 255, 1]
    (root / "ImageSets/Segmentation/val.txt").write_text(VOC_IDS[2])
    assert stripes(read(root, "val")) == [0, 3]  # which only the augmented folder has


def test_folders_like_voc_with_other_classes(tmp_path: Path) -> None:
    """CVAT exports it so, in colours; without VOC's names nobody assumes its classes."""
    for name in ("frame_1", "frame_2"):
        labels = numbers(0, 1, 2)
        colors = np.array([(0, 0, 0), (250, 50, 183), (51, 221, 255)], np.uint8)
        pair(tmp_path, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", labels)
        save(tmp_path / f"SegmentationClass/{name}.png", colors[labels])
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("frame_1\nframe_2\n")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color\nbackground:0,0,0::\nsoil:51,221,255::\ncrop:250,50,183::\n"
    )
    data = read(tmp_path)
    assert data.names == ["background", "soil", "crop"] and stripes(data) == [0, 2, 1]
    (tmp_path / "labelmap.txt").unlink()
    with pytest.raises(
        ValueError, match=r"has colours, the first 250,50,183 at x=4, y=0, but noth"
    ):
        read(tmp_path)
    save(tmp_path / "SegmentationClass/frame_1.png", numbers(0, 1))
    save(tmp_path / "SegmentationClass/frame_2.png", numbers(0, 1))
    assert read(tmp_path).names == ["0", "1"]


@pytest.mark.parametrize("ending", ["labelIds", "labelTrainIds", "both"])
def test_cityscapes(ending: str, tmp_path: Path) -> None:
    name = "aachen_000000_000019"
    for split in ("train", "val", "test"):
        photo(tmp_path / f"leftImg8bit/{split}/aachen/{name}_leftImg8bit.png")
        base = tmp_path / f"gtFine/{split}/aachen"
        if ending != "labelTrainIds":
            # -1, the licence plate, is 255 in a file of 8 bits
            save(base / f"{name}_gtFine_labelIds.png", numbers(7, 33, 26, 0, 9, 255))
        if ending != "labelIds":
            save(base / f"{name}_gtFine_labelTrainIds.png", numbers(0, 18, 13, 255))
        photo(base / f"{name}_gtFine_color.png")
        save(base / f"{name}_gtFine_instanceIds.png", numbers(7, 26001))
    data = read(tmp_path, "val")
    assert data.format == "cityscapes" and len(data.names) == 19 and len(data) == 1
    assert stripes(data) == [0, 18, 13, 255]
    assert (data.names[0], data.names[18], data.names[13]) == ("road", "bicycle", "car")
    passed = [fault.message for fault in data.faults]
    assert len(passed) == (ending == "both") and all("labelTrainIds" in text for text in passed)
    assert set(find_splits(tmp_path, records="maps")) == {"train", "val", "test"}


def test_ade20k(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        pair(
            tmp_path, f"images/{split}/A_1.jpg", f"annotations/{split}/A_1.png", numbers(0, 1, 150)
        )
    rows = [f"{i}\t0.1\t1\t1\t0\tthing {i}, synonym" for i in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(rows)
    )
    data = read(tmp_path, "val")
    assert data.format == "ade20k" and len(data.names) == 150 and data.names[0] == "thing 1"
    assert stripes(data) == [255, 0, 149]
    (tmp_path / "objectInfo150.txt").write_text("a,b\n1,x\n")
    with pytest.raises(ValueError, match="expected Idx and Name, with tabs between"):
        read(tmp_path)


def test_coco_stuff(tmp_path: Path) -> None:
    assert (len(THINGS), len(STUFF), len(IDS)) == (80, 91, 171)
    for split in ("train2017", "val2017"):
        pair(
            tmp_path,
            f"images/{split}/000000000009.jpg",
            f"stuffthingmaps/{split}/000000000009.png",
            numbers(0, 12, 181, 255),
        )
    data = read(tmp_path)
    assert data.format == "coco_stuff" and len(data.names) == 171
    assert [data.names[k] for k in stripes(data)[:3]] == ["person", "stop sign", "wood"]
    other = tmp_path / "mmseg"
    pair(
        other,
        "images/val2017/000000000009.jpg",
        "annotations/val2017/000000000009_labelTrainIds.png",
        numbers(0, 11, 170, 255),
    )
    data = read(other, "val")
    assert [data.names[k] for k in stripes(data)[:3]] == ["person", "stop sign", "wood"]


def panoptic(root: Path) -> dict[str, object]:
    photo(root / "val2017/000000000139.jpg")
    ids = numbers(0, 5, 6, 7).astype(np.int64) * 70001
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    save(root / "annotations/panoptic_val2017/000000000139.png", colors)
    segments = [
        {"id": 350005, "category_id": 200, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1]},
        {"id": 490007, "category_id": 1, "iscrowd": 1, "area": 9, "bbox": [0, 0, 1, 1]},
        {"id": 420006, "category_id": 3, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1]},
    ]
    return {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "height": 10, "width": 12}],
        "annotations": [
            {"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}
        ],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 3, "name": "car", "isthing": 1},
            {"id": 200, "name": "rug-merged", "isthing": 0},
        ],
    }


def test_coco_panoptic(tmp_path: Path) -> None:
    content = panoptic(tmp_path)
    file = tmp_path / "annotations/panoptic_val2017.json"
    file.write_text(json.dumps(content))
    for place in (tmp_path, file):
        data = read(place, "val")
        assert data.format == "coco_panoptic" and data.names == ["person", "car", "rug-merged"]
        assert stripes(data) == [255, 2, 1, 255]  # no segment, rug, car, a crowd of persons
    data = read(file, "val", names=["rug-merged", "person", "car", "cat"])
    assert stripes(data) == [255, 0, 2, 255]
    with pytest.raises(
        ValueError, match=r"has the class\(es\) \['car', 'rug-merged'\], but the kn"
    ):
        read(file, "val", names=["person"])
    ids = numbers(9).repeat(3).reshape(10, 12, 3)
    save(tmp_path / "annotations/panoptic_val2017/000000000139.png", ids)
    with pytest.raises(ValueError, match=r"120 pixel\(s\) belong to segments .* such as 592137"):
        data.label_map(0)
    by_hand = {"val": str(file), "names": ["x"]}
    assert read(by_hand, "val").names == ["person", "car", "rug-merged"]
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    assert "panoptic_val2017.json has the class of every" in read(tmp_path, "val").faults[0].message
    (tmp_path / "stuffthingmaps").mkdir()
    with pytest.raises(ValueError, match="with other classes: move one of the two elsewhere"):
        read(tmp_path, "val")
    (tmp_path / "annotations/panoptic_val2017/000000000139.png").unlink()
    with pytest.raises(ValueError, match=r"unpack panoptic_val2017\.zip there"):
        read(file, "val")


def test_camvid_as_handed_out_and_of_segnet(tmp_path: Path) -> None:
    name = "0001TP_006690"
    for split in ("train", "val", "test"):
        pair(tmp_path / "a", f"{split}/{name}.png", f"{split}annot/{name}.png", numbers(0, 10, 11))
    data = read(tmp_path / "a", "test")
    assert data.format == "camvid" and len(data.names) == 11 and stripes(data) == [0, 10, 255]
    assert (data.names[0], data.names[10]) == ("Sky", "Bicyclist")
    root = tmp_path / "b"
    colors = np.array([(64, 128, 64), (0, 0, 0), (0, 128, 192)], np.uint8)
    photo(root / f"701_StillsRaw_full/{name}.png")
    save(root / f"LabeledApproved_full/{name}_L.png", colors[numbers(0, 1, 2)])
    (root / "label_colors.txt").write_text(
        "64 128 64\tAnimal\n0 0 0\t\tVoid\n0 128 192\t\tBicyclist\n"
    )
    data = read(root)
    assert data.names == ["Animal", "Bicyclist"] and stripes(data) == [0, 255, 1]
    assert ("class that is ignored", "ignored") in kinds(data)


def test_written_and_read_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    truth = {}
    for split in ("train", "val"):
        for i in range(2):
            truth[split, f"{i}"] = pair(
                source, f"{split}/images/{i}.jpg", f"{split}/masks/{i}.png", numbers(3, i, 255, 1)
            )
    (source / "classes.txt").write_text("a b\nb, c\nd\n_e\n")
    target = tmp_path / "out/deep"
    for split in ("train", "val"):
        data = read(source, split)
        assert write_dataset(data, target, "maps") == target / "masks" / split
        again = read(target, split)
        assert again.names == data.names and not again.faults
        for index in range(2):
            np.testing.assert_array_equal(again.label_map(index), data.label_map(index))
            np.testing.assert_array_equal(again.image(index), data.image(index))
    written = Image.open(target / "masks/train/1.png")
    assert written.mode == "P" and written.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
    with pytest.raises(ValueError, match="exists: the folder has a split 'train' already"):
        write_dataset(read(source), target, "maps")
    (source / "classes.txt").write_text("1 road\n3 sky\n0 tree\n")
    data = read(source)
    data.names = ["7: road", "8: sky"]
    with pytest.raises(ValueError, match="cannot be written a line each"):
        write_dataset(data, tmp_path / "other", "maps")
    with pytest.raises(ValueError, match="names other classes than"):
        write_dataset(data.select([0], "test"), target, "maps")
    with pytest.raises(OptionError, match=r"written are .*maps"):
        write_dataset(data, target, "mask")


def test_every_row_of_label_maps_is_found_by_a_test() -> None:
    """The rows of the table, and the first test above that reads each."""
    rows = {row.name for row in TABLE if row.records == "maps"}
    assert rows == {
        *("Cityscapes", "Pascal VOC's label maps", "COCO panoptic", "COCO-Stuff", "ADE20K"),
        *("CamVid", "folders of label maps"),
    }


def test_objects_come_first_where_anything_is_wanted(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "Annotations").mkdir()
    for name in VOC_IDS:
        (tmp_path / f"Annotations/{name}.xml").write_text(
            "<annotation><size><width>12</width><height>10</height></size><object><name>cat</name>"
            "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>"
        )
    assert open_dataset(tmp_path, records=None).records == "objects"
    assert open_dataset(tmp_path).records == "objects" and read(tmp_path).records == "maps"
    assert Look(tmp_path).voc.parts
