"""Every row of the table of layouts: what is found by it, and what comes near and is not."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskwright.data import check_data, find_splits, open_dataset
from maskwright.data.formats.rows import Look
from maskwright.data.formats.sniff import sniff
from maskwright.data.formats.table import ROWS, TABLE

VOC = (
    "<annotation><size><width>40</width><height>30</height></size><object><name>cat</name>"
    "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>12</xmax><ymax>12</ymax></bndbox></object>"
    "</annotation>"
)
ODGT = '{"ID": "NAME", "gtboxes": [{"fbox": [2, 2, 9, 9], "tag": "person", "extra": {}}]}\n'
KITTI = "Car 0.00 0 -0.20 2.00 3.00 12.00 8.00 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n"
OPEN = "ImageID,LabelName,XMin,XMax,YMin,YMax\n{},/m/01,0.1,0.4,0.1,0.4\n"
SEGMENTS = (
    '{"images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}], "annotations": '
    '[{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}], '
    '"categories": [{"id": 1, "name": "cat", "isthing": 1}]}'
)
ROW = '{"file_name": "NAME.png", "objects": {"bbox": [[20, 10, 29, 28]], "category": ["cat"]}}\n'
GEO = (
    '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": '
    '{"class": "cat"}, "geometry": {"type": "Polygon", "coordinates": '
    "[[[2, 2], [9, 2], [9, 9], [2, 2]]]}}]}"
)
LAB = (
    "<?xml version='1.0' encoding='ISO-8859-1'?><dataset><name>imglab dataset</name><images>"
    "<image file='faces/{}.png'><box top='2' left='2' width='9' height='9'><label>cat</label>"
    "</box></image></images></dataset>"
)
DETECTION = '{"_cls": "Detection", "label": "cat", "bounding_box": [0.1, 0.1, 0.2, 0.3]}'
SAMPLE = (
    '{"filepath": "data/%s.png", "tags": ["%s"], "ground_truth": {"_cls": "Detections", '
    f'"detections": [{DETECTION}]}}}}'
)
BDD = '[{"name": "a", "labels": []}]'
SUPERVISELY = (
    '{"tags": [], "size": {"height": 30, "width": 40}, "objects": [{"classTitle": "cat", '
    '"geometryType": "rectangle", "points": {"exterior": [[2, 2], [9, 9]], "interior": []}}]}'
)
LABELME = (
    '{"version": "5", "shapes": [{"label": "cat", "shape_type": "polygon", "points": [[2, 2], '
    '[9, 2], [9, 9]]}], "imagePath": "a.png"}'
)
BOX = '"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["cat"]'
STUDIO = (
    '[{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [{"type": '
    f'"rectanglelabels", "original_width": 40, "original_height": 30, "value": {{{BOX}}}}}]}}]}}]'
)
DOTA = "2 2 11 2 11 11 2 11 cat 0\n"
VIA = (
    '{"a.png9": {"filename": "%s.png", "size": 9, "regions": [{"shape_attributes": {"name": '
    '"rect", "x": 2, "y": 2, "width": 9, "height": 9}, "region_attributes": {"class": "cat"}}]}}'
)
DATUM = (
    '{"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [{"id": "%s", "annotations":'
    ' [{"type": "bbox", "label_id": 0, "bbox": [2, 2, 9, 9]}]}]}'
)
APPLE = (
    '[{"image": "%s.png", "annotations": [{"label": "cat", "coordinates": {"x": 6, "y": 6, '
    '"width": 9, "height": 9}}]}]'
)
CVAT = (
    '<annotations><image id="0" name="{}" width="40" height="30"><box label="cat" xtl="2" '
    'ytl="2" xbr="11" ybr="11"/></image></annotations>'
)


def coco(*images: str) -> str:
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": name, "height": 30, "width": 40}
                for i, name in enumerate(images, 1)
            ],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 9, 9]}
                for i in range(1, len(images) + 1)
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
    )


def lay(root: Path, files: dict[str, str]) -> Path:
    """Write files; the text of an XML file is an annotation, that of an image nothing."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            mask = path.parts[-3] == "masks"
            Image.new("L" if mask else "RGB", (40, 30), 1).save(path)
        else:
            path.write_text(text or VOC, encoding="utf-8", newline="")
    return root


def images(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


def found(root: Path) -> dict[str, list[str]]:
    """The names of the images of each split."""
    return {
        split: [data[i].path.name for i in range(len(data))]
        for split in find_splits(root)
        for data in [open_dataset(root, split)]
    }


A = {"train": ["a.png"]}
AB = {"train": ["a.png"], "val": ["b.png"]}
XML = {"Annotations/a.xml": "", "Annotations/b.xml": ""}
JPEG = images("JPEGImages/a.png", "JPEGImages/b.png")
POINTS = "path,eye_x,eye_y\nimages/{}.png,4,5\n"
BOXES = "path,label,x1,y1,x2,y2\nimages/{}.png,cat,2,2,11,11\n"
YOLO = "0 0.5 0.5 0.1 0.1\n"
YAML = "train: images/train\nval: images/val\nnames: {0: cat}\n"
# Row of the table, files, and what is found.
CASES: dict[str, tuple[str, dict[str, str], dict[str, list[str]]]] = {
    "label images": (
        "label images of instances",
        {"masks/train/a.png": "", "masks/val/b.png": "", "object_classes.txt": "cat\n"}
        | images("images/train/a.png", "images/val/b.png"),
        AB,
    ),
    "files of CVAT": (
        "CVAT XML",
        {"train.xml": CVAT.format("a.png"), "val.xml": CVAT.format("b.png")}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "lines of Hugging Face": (
        "tables of Hugging Face",
        {"train/metadata.jsonl": ROW.replace("NAME", "a")}
        | {"val/metadata.jsonl": ROW.replace("NAME", "b")}
        | images("train/a.png", "val/b.png"),
        AB,
    ),
    "polygons beside their images": (
        "GeoJSON",
        {"train/a.geojson": GEO, "val/b.geojson": GEO} | images("train/a.png", "val/b.png"),
        AB,
    ),
    "corners of DOTA": (
        "DOTA labels",
        {"train/labelTxt/a.txt": DOTA, "val/labelTxt/b.txt": DOTA}
        | images("train/images/a.png", "val/images/b.png"),
        AB,
    ),
    "VIA": (
        "VIA JSON",
        {"train.json": VIA % "a", "val.json": VIA % "b"} | images("images/a.png", "images/b.png"),
        AB,
    ),
    "CreateML of Roboflow": (
        "CreateML JSON",
        {
            "train/_annotations.createml.json": APPLE % "a",
            "valid/_annotations.createml.json": APPLE % "b",
        }
        | images("train/a.png", "valid/b.png"),
        AB,
    ),
    "Datumaro": (
        "Datumaro JSON",
        {"annotations/train.json": DATUM % "a", "annotations/val.json": DATUM % "b"}
        | images("images/train/a.png", "images/val/b.png"),
        AB,
    ),
    "imglab of dlib": (
        "imglab XML",
        {"training.xml": LAB.format("a"), "validation.xml": LAB.format("b")}
        | images("faces/a.png", "faces/b.png"),
        AB,
    ),
    "samples of FiftyOne, divided by tags": (
        "FiftyOne JSON",
        {
            "samples.json": f'{{"samples": [{SAMPLE % ("a", "train")}, '
            f"{SAMPLE % ('b', 'validation')}]}}",
            "metadata.json": "{}",
        }
        | images("data/a.png", "data/b.png"),
        AB,
    ),
    "labels of FiftyOne": (
        "FiftyOne JSON",
        {
            "labels.json": '{"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": '
            "[0.1, 0.1, 0.2, 0.2]}]}}"
        }
        | images("data/a.png"),
        A,
    ),
    "lines of MakeSense": (
        "CSV of boxes",
        {"labels_my-project.csv": "cat,2,3,10,8,a.png,40,30\n"} | images("images/a.png"),
        A,
    ),
    "a table of MakeSense": (
        "CSV of boxes",
        {
            "labels.csv": "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,"
            "image_height\ncat,2,3,10,8,a.png,40,30\n"
        }
        | images("images/a.png"),
        A,
    ),
    "boxes of Kaggle": (
        "CSV of boxes",
        {"train.csv": 'image_id,width,height,bbox,source\na,40,30,"[2.0, 3.0, 9, 9]",x\n'}
        | images("train/a.png", "test/b.png"),
        A,
    ),
    "DIOR": (
        "Pascal VOC with lists",
        {"Annotations/Horizontal Bounding Boxes/a.xml": VOC}
        | {"Annotations/Horizontal Bounding Boxes/b.xml": VOC}
        | {"Annotations/Oriented Bounding Boxes/a.xml": VOC}
        | {"ImageSets/Main/train.txt": "a\n", "ImageSets/Main/val.txt": "b\n"}
        | images("JPEGImages-trainval/a.png", "JPEGImages-test/b.png"),
        AB,
    ),
    "RetinaNet": (
        "RetinaNet's CSV",
        {"train.csv": "images/a.png,2,2,11,11,cat\n", "val.csv": "images/b.png,2,2,11,11,cat\n"}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "segments of things": (
        "things of COCO panoptic",
        {"annotations/panoptic_train.json": SEGMENTS, "annotations/panoptic_train/a.png": ""}
        | images("train/a.png"),
        A,
    ),
    "tables of Open Images": (
        "Open Images CSV",
        {"train-annotations-bbox.csv": OPEN.format("a")}
        | {"validation-annotations-bbox.csv": OPEN.format("b")}
        | images("train/a.png", "validation/b.png"),
        AB,
    ),
    "files of CrowdHuman": (
        "CrowdHuman odgt",
        {"annotation_train.odgt": ODGT.replace("NAME", "a")}
        | {"annotation_val.odgt": ODGT.replace("NAME", "b")}
        | images("Images/a.png", "Images/b.png"),
        AB,
    ),
    "labels of KITTI": (
        "KITTI labels",
        {"train/label_2/a.txt": KITTI, "val/label_2/b.txt": KITTI}
        | images("train/image_2/a.png", "val/image_2/b.png"),
        AB,
    ),
    "projects of Supervisely": (
        "Supervisely JSON",
        {"train/ann/a.png.json": SUPERVISELY, "val/ann/b.png.json": SUPERVISELY}
        | images("train/img/a.png", "val/img/b.png"),
        AB,
    ),
    "files of Label Studio": (
        "Label Studio JSON",
        {"train.json": STUDIO, "val.json": STUDIO.replace("a.png", "b.png")}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "files of LabelMe": (
        "LabelMe JSON",
        {"train/a.json": LABELME, "val/b.json": LABELME.replace("a.png", "b.png")}
        | images("train/a.png", "val/b.png"),
        AB,
    ),
    "labels of YOLO": (
        "YOLO",
        {"images/train/a.png": "", "labels/train/a.txt": YOLO, "data.yaml": YAML}
        | {"images/val/b.png": "", "labels/val/b.txt": YOLO},
        AB,
    ),
    "tables of keypoints": (
        "CSV of keypoints",
        {"train.csv": POINTS.format("a"), "val.csv": POINTS.format("b")}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "tables of boxes": (
        "CSV of boxes",
        {"train.csv": BOXES.format("a"), "val.csv": BOXES.format("b")}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "json for each split": (
        "COCO JSON for each split",
        {"annotations/train.json": coco("a.png"), "annotations/val.json": coco("b.png")}
        | images("images/train/a.png", "images/val/b.png"),
        AB,
    ),
    "any case": (
        "COCO JSON for each split",
        {"Annotations/TRAIN.JSON": coco("a.png"), "Annotations/Valid.Json": coco("b.png")}
        | images("Images/Train/a.png", "Images/VAL/b.png"),
        AB,
    ),
    "labels of each split": (
        "COCO JSON for each split",
        {"train/labels/x.json": coco("a.png"), "val/labels/x.json": coco("b.png")}
        | images("train/images/a.png", "val/images/b.png"),
        AB,
    ),
    "annotations of each split": (
        "COCO JSON for each split",
        {"annotations/train/x.json": coco("a.png"), "annotations/val/x.json": coco("b.png")}
        | images("images/train/a.png", "images/val/b.png"),
        AB,
    ),
    "beside a split, a single unknown one is train": (
        "COCO JSON for each split",
        {"everything.json": coco("a.png"), "val.json": coco("b.png")} | images("a.png", "b.png"),
        AB,
    ),
    "keypoints alone": (
        "COCO JSON for each split",
        {"annotations/person_keypoints_train.json": coco("a.png")} | images("images/a.png"),
        A,
    ),
    "one json, lists": (
        "one COCO JSON, divided by lists of images",
        {"result.json": coco("images/a.png", "images/b.png"), "train.txt": "a\r\n\r\n"}
        | {"VAL.txt": "\ufeffimages/b.png\n"}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "one json, a list of val": (
        "one COCO JSON, divided by lists of images",
        {"annotations/all.json": coco("a.png", "b.png"), "val.txt": "b.png"}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "one json, trainval without val": (
        "one COCO JSON, divided by lists of images",
        {"x.json": coco("a.png", "b.png"), "splits/val.txt": "b", "splits/trainval.txt": "a\nb"}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "one json, a log that is no list": (
        "one COCO JSON, divided by lists of images",
        {"x.json": coco("a.png", "b.png"), "train.txt": "a\nq\n", "val.txt": "b"}
        | {"training_log.txt": "epoch 1\n"}
        | images("images/a.png", "images/b.png"),
        AB,
    ),
    "one json, folders": (
        "one COCO JSON, divided by folders of images",
        {"annotations/annotations.json": coco("a.png", "b.png")}
        | images("train/a.png", "Validation/b.png"),
        AB,
    ),
    "one json, folders inside": (
        "one COCO JSON, divided by folders of images",
        {"all.json": coco("train/a.png", "val/a.png")}
        | images("images/train/a.png", "images/val/a.png"),
        {"train": ["a.png"], "val": ["a.png"]},
    ),
    "one json": ("one COCO JSON", {"result.json": coco("a.png")} | images("images/a.png"), A),
    "one json of several": (
        "one COCO JSON",
        {"result.json": coco("a.png"), "notes.json": "{}", "tasks.json": STUDIO}
        | images("images/a.png"),
        A,
    ),
    "cvat": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/default.txt": "a\nb\n"},
        {"train": ["a.png", "b.png"]},
    ),
    "lists of ImageSets": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/train.txt": "a\n", "ImageSets/val.txt": "b\n"},
        AB,
    ),
    "lists at the top": (
        "Pascal VOC with lists",
        XML | JPEG | {"train.txt": "JPEGImages/a.png", "val.txt": "b", "classes.txt": "cat\n"},
        AB,
    ),
    "lists in any case": (
        "Pascal VOC with lists",
        {"annotations/a.XML": "", "annotations/b.xml": ""}
        | images("jpegimages/A.PNG", "jpegimages/b.png")
        | {"imagesets/main/TRAIN.TXT": "A\r\n", "imagesets/main/Val.txt": "\ufeffb 1\r\n\r\n"},
        {"train": ["A.PNG"], "val": ["b.png"]},
    ),
    "trainval without val": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/trainval.txt": "a\nb\n", "ImageSets/Main/val.txt": "b\n"},
        AB,
    ),
    "lists of a class are none": (
        "Pascal VOC with lists",
        XML
        | JPEG
        | {f"ImageSets/Main/{n}.txt": "a\n" for n in ("train",)}
        | {"ImageSets/Main/val.txt": "b\n", "ImageSets/Main/cat_train.txt": "b  1\na -1\n"}
        | {"ImageSets/Layout/train.txt": "b\n", "ImageSets/Segmentation/val.txt": "a\n"},
        AB,
    ),
    "another folder of lists": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Mine/train.txt": "a\n", "ImageSets/Mine/val.txt": "b\n"},
        AB,
    ),
    "lists with a prefix": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/cells_train.txt": "a", "ImageSets/Main/cells_val.txt": "b"},
        AB,
    ),
    "an unknown list beside that of val": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/default.txt": "a\nb\n", "ImageSets/Main/val.txt": "b\n"},
        AB,
    ),
    "lists under other suffixes": (
        "Pascal VOC with lists",
        XML | JPEG | {"train.lst": "a\n", "ImageSets/Main/val": "b\n"},
        AB,
    ),
    "lists of paths of another machine": (
        "Pascal VOC with lists",
        XML | JPEG | {"train.txt": "/home/x/JPEGImages/a.png", "val.txt": "D:\\x\\b.png"},
        AB,
    ),
    "one unknown list": ("Pascal VOC with lists", XML | JPEG | {"mine.txt": "a\n"}, A),
    "xml in labels": (
        "Pascal VOC",
        {"labels/a.xml": "", "labels/b.xml": ""} | images("images/a.png", "images/b.png"),
        {"train": ["a.png", "b.png"]},
    ),
    "images under a name of their own": (
        "Pascal VOC",
        {"Annotations/a.xml": ""} | images("microscope/a.png"),
        A,
    ),
    "xml beside images": ("Pascal VOC", {"a.xml": ""} | images("a.png"), A),
    "xml beside images, folders": (
        "Pascal VOC",
        {"train/a.xml": "", "Valid/b.XML": ""} | images("train/a.png", "Valid/b.png"),
        AB,
    ),
    "labels of each split as xml": (
        "Pascal VOC",
        {"labels/train/a.xml": "", "labels/val/b.xml": ""}
        | images("images/train/a.png", "images/val/b.png"),
        AB,
    ),
    "a VOC folder for each split": (
        "Pascal VOC",
        {"train/Annotations/a.xml": "", "val/annotations/b.xml": ""}
        | images("train/JPEGImages/a.png", "val/images/b.png"),
        AB,
    ),
    "folders of images": (
        "Pascal VOC, a folder for each split",
        XML | images("JPEGImages/train/a.png", "JPEGImages/val/b.png"),
        AB,
    ),
    "folders of images beside": (
        "Pascal VOC, a folder for each split",
        XML | images("train/a.png", "val/b.png"),
        AB,
    ),
    "an other JSON beside": (
        "Pascal VOC",
        {"a.xml": "", "settings.json": '{"theme": "dark"}'} | images("a.png"),
        A,
    ),
    "hidden files": (
        "one COCO JSON",
        {"result.json": coco("a.png"), "._result.json": "\0", ".settings.json": "{}"}
        | images("images/a.png"),
        A,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_read(case: str, tmp_path: Path) -> None:
    row, files, expected = CASES[case]
    root = lay(tmp_path / "data", files)
    look = Look(root)
    rows = [one for one in TABLE if one.find is not None and one.records == "objects"]
    first = next(one for one in rows if one.find is not None and one.find(look))
    assert first.name == row
    assert found(root) == expected
    # A single image without val is read, but nothing can be held out of it.
    faults = check_data(root, records="objects").faults
    errors = {fault.kind for _, fault in faults if fault.action == "error"}
    assert errors <= {"too few images"}


def test_every_row_that_is_read_has_a_case() -> None:
    rows = {one.name for one in TABLE if one.find is not None and one.records == "objects"}
    rows -= {
        f"tables of Hugging Face, boxes as {order}" for order in ("xywh", "xyxy")
    }  # same files
    others = {"a JSON that its reader refuses", "shapefiles"}  # these in test_geo
    assert {row for row, _, _ in CASES.values()} == rows - others
    assert {row for row, _, _ in REFUSED.values() if row} | set(FOREIGN) >= rows - {"Pascal VOC"}


# Row that it comes near to, files, and what the error says.
REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "boxes of two meanings": (
        "tables of Hugging Face",
        {"metadata.jsonl": ROW.replace("NAME", "a").replace("29, 28", "21, 18")} | images("a.png"),
        r"fit the images as both \(1 boxes\): say it with format=huggingface_xywh",
    ),
    "half a GeoJSON": (
        "GeoJSON",
        {"a.geojson": GEO[:-9]} | images("a.png"),
        r"a\.geojson:1: no valid JSON",
    ),
    "no shapefile": (
        "shapefiles",
        {"a.shp": "x"} | images("a.png"),
        r"a\.shp (cannot be read|is read with pyogrio)",
    ),
    "two versions of DOTA": (
        "DOTA labels",
        {"labelTxt/a.txt": DOTA, "labelTxt-v1.5/a.txt": DOTA} | images("images/a.png"),
        r"labelTxt and .*labelTxt-v1\.5 are both of the train split",
    ),
    "half a VIA": ("VIA JSON", {"a.json": (VIA % "a")[:-9]} | images("a.png"), "no valid JSON"),
    "half a CreateML": (
        "CreateML JSON",
        {"a.json": (APPLE % "a")[:-9]} | images("a.png"),
        "no valid JSON",
    ),
    "classes of RetinaNet without numbers": (
        "RetinaNet's CSV",
        {"train.csv": "a.png,2,2,11,11,cat\n", "classes.csv": "cat\n"} | images("a.png"),
        r"classes\.csv, line 1: expected a class and its number",
    ),
    "segments without their images": (
        "things of COCO panoptic",
        {"annotations/panoptic_train2017.json": SEGMENTS.replace('"isthing": 1', '"isthing": 0')}
        | {"annotations/panoptic_train2017/a.png": ""}
        | images("train2017/a.png"),
        r"has no category with isthing 1, so it has no objects",
    ),
    "a table of boxes that lacks its names": (
        "Open Images CSV",
        {"train-annotations-bbox.csv": OPEN.format("a"), "class-descriptions-boxable.csv": "x"}
        | images("train/a.png"),
        r"boxable\.csv, line 1: expected a code and a name",
    ),
    "two odgt files": (
        "CrowdHuman odgt",
        {"1.odgt": ODGT.replace("NAME", "a"), "2.odgt": ODGT.replace("NAME", "a")}
        | images("Images/a.png"),
        r"1\.odgt and .*2\.odgt are of no split by their names",
    ),
    "two folders of KITTI": (
        "KITTI labels",
        {"one/label_2/a.txt": KITTI, "two/label_2/a.txt": KITTI}
        | images("one/image_2/a.png", "two/image_2/a.png"),
        r"are both of the train split: name their folders",
    ),
    "a project of Supervisely with half a description": (
        "Supervisely JSON",
        {"meta.json": '{"classes": [', "ds/ann/a.png.json": SUPERVISELY} | images("ds/img/a.png"),
        r"meta\.json:1: no valid JSON",
    ),
    "a table of objects of other columns": (
        "label images of instances",
        {"masks/a.png": "", "object_classes.txt": "cat\n", "objects.csv": "a,b\n"}
        | images("images/a.png"),
        "objects.csv: the first line must be image,number,class",
    ),
    "two files of CVAT": (
        "CVAT XML",
        {"1.xml": CVAT.format("a.png"), "2.xml": CVAT.format("a.png")} | images("images/a.png"),
        "1.xml and .*2.xml are of no split by their names",
    ),
    "two files of Label Studio": (
        "Label Studio JSON",
        {"1/train.json": STUDIO, "train/2.json": STUDIO, "train.json": STUDIO},
        "are both of the train split",
    ),
    "LabelMe without its images": (
        "LabelMe JSON",
        {"labels/a.json": LABELME} | images("images/b.png"),
        r"labels/a\.json gives no usable image.*a\.png does not exist",
    ),
    "two descriptions of YOLO": (
        "YOLO",
        {"images/train/a.png": "", "labels/train/a.txt": YOLO, "x.yaml": YAML, "y.yaml": YAML}
        | images("images/val/b.png"),
        "x.yaml, y.yaml: give the one that is meant",
    ),
    "two tables of keypoints": (
        "CSV of keypoints",
        {"x.csv": POINTS.format("a"), "y.csv": POINTS.format("a")} | images("images/a.png"),
        r"x\.csv, y\.csv",
    ),
    "two tables of boxes": (
        "CSV of boxes",
        {"x.csv": BOXES.format("a"), "y.csv": BOXES.format("a")} | images("images/a.png"),
        r"2 tables of images \(x\.csv, y\.csv\)",
    ),
    "another format for a split": (
        "COCO JSON for each split",
        {"train.json": coco("a.png"), "val.json": STUDIO} | images("a.png"),
        r"val\.json, by its name the val split, is Label Studio JSON",
    ),
    "two unknown files": (
        "one COCO JSON",
        {"x.json": coco("a.png"), "y.json": coco("a.png")} | images("images/a.png"),
        r"2 COCO JSON files whose names tell no split \(x\.json, y\.json\): rename them",
    ),
    "a list of other images": (
        "one COCO JSON, divided by lists of images",
        {"x.json": coco("a.png"), "train.txt": "a", "val.txt": "q.png"} | images("images/a.png"),
        r"val\.txt names none of the images of .*x\.json, first 'q\.png': correct the list",
    ),
    "list and folder": (
        "one COCO JSON, divided by lists of images",
        {"x.json": coco("a.png", "b.png"), "train.txt": "b", "val.txt": "a"}
        | images("images/train/a.png", "images/val/b.png"),
        r"has [ab]\.png in the (train|val) split, but it lies in the folder of the",
    ),
    "one name in two folders": (
        "one COCO JSON, divided by folders of images",
        {"x.json": coco("a.png")} | images("images/train/a.png", "images/val/a.png"),
        r"names the image a\.png, and there is one in the folders of train and val",
    ),
    "two unknown lists": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/one.txt": "a", "ImageSets/Main/two.txt": "b"},
        r"which list is that of the train split, one\.txt, two\.txt\?",
    ),
    "lists of one class alone": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/cat_train.txt": "a  1\nb -1\n"},
        r"has lists of one class only \(cat_train\.txt\)",
    ),
    "voc list and folder": (
        "Pascal VOC, a folder for each split",
        XML | images("train/a.png", "val/b.png") | {"train.txt": "b\n", "val.txt": "a\n"},
        r"train\.txt has b in the train split, but its image lies in .*val: correct one",
    ),
    "no list at all in it": (
        "Pascal VOC with lists",
        XML | JPEG | {"ImageSets/Main/train.txt": "nothing\nhere\n"},
        r"gives no usable image of 2; the first fault: .*train\.txt:1: .*nothing\.xml",
    ),
    "a ZIP archive": (
        "a JSON that its reader refuses",
        {"annotations.json": "PK\x03\x04"} | images("images/a.png"),
        r"annotations\.json is no JSON but, by its first bytes, a ZIP archive: unpack it",
    ),
    "imglab without paths": (
        "imglab XML",
        {"x.xml": LAB.replace("file=", "f=")} | images("faces/a.png"),
        r"no usable image; the first fault: .*x\.xml:1: an <image> needs the attribute file",
    ),
    "two fields of FiftyOne": (
        "FiftyOne JSON",
        {
            "samples.json": '{"samples": [{"filepath": "a.png", "x": {"_cls": "Detections"}, '
            '"y": {"_cls": "Polylines"}}]}'
        }
        | images("a.png"),
        "which field has the labels. There are 'x', 'y': give format=fiftyone:FIELD",
    ),
    "Datumaro without ids": (
        "Datumaro JSON",
        {"default.json": '{"categories": {}, "items": [{"annotations": []}]}'}
        | images("images/a.png"),
        "an item needs an id, or the path of its image",
    ),
    "half a file": (
        "a JSON that its reader refuses",
        {"annotations.json": coco("a.png")[:-9]} | images("images/a.png"),
        r"annotations\.json is no valid JSON",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    _, files, message = REFUSED[case]
    root = lay(tmp_path / "data", files)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        open_dataset(root)


LIST = '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}]'
# Format, file, and its content.
FOREIGN: dict[str, tuple[str, str]] = {
    "LabelMe XML": ("a.xml", "<annotation><object><polygon></polygon></object></annotation>"),
    "Cityscapes JSON": ("gt/a.json", '{"imgHeight": 1, "imgWidth": 2, "objects": []}'),
    "BDD100K JSON": ("det.json", BDD),
    "Labelbox JSON": ("export.json", '[{"data_row": {}, "projects": {}}]'),
    "YOLO labels": ("labels/train/a.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.3\n"),
    "YOLO data.yaml": ("data.yaml", "train: images/train\nnc: 1\nnames: [cat]\n"),
    "CSV table": ("labels.csv", "filename,xmin\n"),
    "shapes of napari": ("a.csv", "index,shape-type,vertex-index,axis-0,axis-1\n0,path,0,1,2\n"),
    "TFRecord": ("train.tfrecord", "x"),
    "JSON under another suffix": ("annotations.txt", coco("a.png")),
    "JSON lines": ("x.jsonl", '{"image": 1}\n'),
    "mask images": ("more/masks/a.png", ""),
    "COCO captions": (
        "x.json",
        '{"images": [], "annotations": [{"image_id": 1, "caption": "a"}]}',
    ),
    "COCO panoptic segments": ("x.json", '{"images": [], "annotations": [{"segments_info": []}]}'),
    "COCO results (detections)": ("x.json", LIST),
    "ZIP archive": ("data.zip", "PK\x03\x04"),
    "gzip archive": ("data.tar.gz", ""),
    "tar archive": ("data.tar", "x" * 257 + "ustar"),
    "bzip2 archive": ("x.bz2", "BZh"),
    "RAR archive": ("x.rar", "Rar!"),
    "Git LFS pointer": ("x.json", "version https://git-lfs.github.com/spec/v1\n"),
    "HTML page": ("x.json", "<!DOCTYPE html><html>"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_named(kind: str, tmp_path: Path) -> None:
    name, text = FOREIGN[kind]
    root = lay(tmp_path / "data", {name: text} | images("images/a.png"))
    if kind == "gzip archive":
        (root / name).write_bytes(b"\x1f\x8b\x08\0")
    row = ROWS[kind]
    assert row.find is None and row.todo
    with pytest.raises(ValueError) as refused:
        open_dataset(root)
    message = str(refused.value)
    assert kind.split(" archive")[0] in message
    assert str(Path(name).parent if kind == "mask images" else name) in message
    assert row.todo in message or "unpack it" in message or "no JSON but" in message


def test_what_was_seen_is_counted(tmp_path: Path) -> None:
    files = {f"{i}.json": BDD for i in range(3)} | images("0.png", "1.png")
    root = lay(tmp_path / "data", files)
    with pytest.raises(ValueError, match=r"(?s)It has: 0\.json \.\.\.: 3 x BDD100K JSON") as error:
        find_splits(root)
    assert "2 image(s)" in str(error.value)


Change = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("files", "passed", "why"),
    [
        (
            {"train.json": coco("a.png"), "extra.json": coco("a.png")} | images("a.png"),
            "extra.json",
            "its name tells no split, and others do",
        ),
        (
            {"train.json": coco("a.png"), "train_small.json": coco("a.png")} | images("a.png"),
            "train_small.json",
            "train.json is the file of the train split",
        ),
        (
            {"annotations/train.json": coco("a.png"), "train.json": coco("a.png")}
            | images("images/a.png"),
            "train.json",
            "is the file of the train split",
        ),
        ({"x.json": coco("a.png"), "y.json": STUDIO} | images("a.png"), "y.json", "Label Studio"),
        ({"x.json": coco("a.png"), "y.json": "{}"} | images("a.png"), "y.json", "no known format"),
        ({"x.json": coco("a.png"), "a.xml": ""} | images("a.png"), "", "Pascal VOC beside"),
        (
            XML | JPEG | {"ImageSets/Main/train.txt": "a", "ImageSets/Main/default.txt": "b"},
            "ImageSets/Main/default.txt",
            "its name tells no split",
        ),
        (
            XML | JPEG | {"ImageSets/Main/train.txt": "a", "train.txt": "b"},
            "train.txt",
            "same name",
        ),
        (XML | JPEG | {"val.csv": "b,1,2,3,4\n"}, "val.csv", "it is CSV table"),
        (
            {"x.json": coco("a.png"), "test.tfrecord": "x"} | images("images/a.png"),
            "test.tfrecord",
            "it is TFRecord",
        ),
        (
            {"x.json": coco("a.png"), "training_log.txt": "x\n"} | images("images/a.png"),
            "training_log.txt",
            "none of its lines names an image",
        ),
        (
            XML | JPEG | {"train.txt": "a\n", "training_log.txt": "x\n"},
            "training_log.txt",
            "it is text",
        ),
        (
            {"train.json": coco("a.png")} | images("train/a.png", "val/b.png"),
            "val",
            "its 1 image(s) have no annotations",
        ),
        (
            {"one/ImageSets/Main/train.txt": "a", "one/Annotations/a.xml": ""}
            | {"two/Annotations/b.xml": ""}
            | images("one/JPEGImages/a.png", "two/JPEGImages/b.png"),
            "two",
            "it has no list",
        ),
    ],
)
def test_what_is_passed_over_is_said(
    files: dict[str, str], passed: str, why: str, tmp_path: Path
) -> None:
    root = lay(tmp_path / "data", files)
    faults = [f for f in open_dataset(root).faults if f.kind == "file passed over"]
    assert [(Path(fault.file), fault.action) for fault in faults] == [(root / passed, "left out")]
    assert why in faults[0].message
    assert [f for _, f in check_data(root).faults if f.kind == "file passed over"] == faults


def test_files_that_belong_to_coco_are_not_told_of(tmp_path: Path) -> None:
    others = {
        f"annotations/{name}_train2017.json": coco("a.png")
        for name in ("instances", "person_keypoints", "stuff")
    }
    others["annotations/captions_train2017.json"] = FOREIGN["COCO captions"][1]
    others["annotations/image_info_test2017.json"] = coco("q.png")
    others["annotations/panoptic_train2017.json"] = FOREIGN["COCO panoptic segments"][1]
    root = lay(tmp_path / "data", others | images("train2017/a.png"))
    assert list(find_splits(root)) == ["train"]
    assert open_dataset(root).faults == []
    assert open_dataset(root).source.name == "instances_train2017.json"


def test_folders_given_too_high_or_too_low(tmp_path: Path) -> None:
    root = lay(tmp_path / "a/b", {"x.json": coco("a.png")} | images("images/a.png"))
    with pytest.raises(ValueError, match=f"did you mean data='{root}'"):
        find_splits(tmp_path / "a")
    with pytest.raises(ValueError, match=f"did you mean data='{root}'"):
        find_splits(root / "images")
    voc = lay(tmp_path / "voc", XML | JPEG | {"ImageSets/Main/train.txt": "a"})
    with pytest.raises(ValueError, match=f"did you mean data='{voc}'"):
        find_splits(voc / "ImageSets/Main")


def test_files_given_directly(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "d", {"all.json": coco("a.png", "b.png"), "train.txt": "a"} | {"val.txt": "b"}
    )
    lay(root, images("images/a.png", "images/b.png"))
    assert found(root / "all.json") == AB
    with zipfile.ZipFile(root / "data.zip", "w") as file:
        file.writestr("x", "y")
    for name, text, message in (
        ("data.zip", None, "is a ZIP archive: unpack it and give the folder"),
        (
            "a.txt",
            "0 0.5 0.5 0.1 0.1\n",
            "is YOLO labels: give the folder that holds the images as well",
        ),
        ("x.csv", "a,b\n", "names no column for the path and the label"),
        ("z.json", LIST, "these are detections"),
        ("pixels.png", "", "is a PNG image"),
    ):
        if text is not None:
            lay(root, {name: text})
        with pytest.raises(ValueError, match=message):
            find_splits(root / name)


def test_a_yolo_yaml_without_labels_says_what_it_is(tmp_path: Path) -> None:
    root = lay(tmp_path / "d", {"data.yaml": YAML, "other/train/a.txt": YOLO})
    lay(root, images("images/train/a.png", "images/val/b.png"))
    for data in (root, root / "data.yaml"):
        with pytest.raises(ValueError, match=r"data\.yaml.*YOLO.*labels/train/a\.txt"):
            find_splits(data)


def test_images_in_no_list_are_said(tmp_path: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    root = lay(tmp_path, {"x.json": coco(*names), "train.txt": "a", "val.txt": "b"})
    lay(root, images(*(f"images/{name}" for name in names)))
    (fault,) = open_dataset(root).faults
    assert (fault.kind, fault.action) == ("image in no list", "left out")
    assert "1 image(s) of" in fault.message and "first c.png" in fault.message
    assert open_dataset(root, "val").faults == []


def test_images_in_no_folder_are_said(tmp_path: Path) -> None:
    root = lay(tmp_path, {"x.json": coco("a.png", "b.png", "c.png")})
    lay(root, images("images/train/a.png", "images/val/b.png", "images/c.png"))
    (fault,) = open_dataset(root).faults
    assert (fault.kind, fault.action) == ("image in no folder of a split", "left out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: train.json\nval:\n", ""),
        ("train: train.json\nnames: [cat]\nnc: 1\ndownload: https://x/y.json\n", ""),
        ("train: train.json\nval: {json: val.json}\n", "the entry val must name a file"),
        ("train: train.json\nval: [1]\n", "the entry val must name a file"),
        ("train: train.json\neval: val.json\n", "eval names val.json, but eval is no split"),
        ("train: train.json\nval: val.json\nvalid: val.json\n", "two entries are the val split"),
        ("train: tarin.json\n", "did you mean '.*train.json'"),
        ("train: many\n", "2 COCO JSON files whose names tell no split"),
    ],
)
def test_entries_of_a_yaml_are_read_or_refused(text: str, message: str, tmp_path: Path) -> None:
    root = lay(tmp_path, {"train.json": coco("a.png"), "val.json": coco("b.png"), "d.yaml": text})
    lay(root, {"many/x.json": coco("a.png"), "many/y.json": coco("a.png")})
    lay(root, images("a.png", "b.png"))
    if message:
        with pytest.raises(ValueError, match=rf"d\.yaml: .*{message}|many has {message}"):
            find_splits(root / "d.yaml")
    else:
        assert found(root / "d.yaml") == A


def test_a_yaml_of_a_divided_folder(tmp_path: Path) -> None:
    root = lay(tmp_path, {"d/x.json": coco("a.png", "b.png"), "d/train.txt": "a", "d/val.txt": "b"})
    lay(root, images("d/images/a.png", "d/images/b.png", "e/a.png", "e/b.png"))
    lay(root, {"1.yaml": "train: d\nval: d\n", "2.yaml": "train: d\nval: d\nimages: e\n"})
    assert found(root / "1.yaml") == found(root / "2.yaml") == AB
    assert open_dataset(root / "2.yaml")[0].path.parent.name == "e"


def test_a_folder_of_thousands_is_looked_at_quickly(tmp_path: Path) -> None:
    root = lay(tmp_path / "d", {"0.json": BDD})
    for i in range(1, 1500):
        os.link(root / "0.json", root / f"{i}.json")
    with pytest.raises(ValueError, match=r"BDD100K JSON.*files more that were not looked into"):
        find_splits(root)


def test_only_beginnings_are_read(tmp_path: Path) -> None:
    long = json.dumps({"info": "x" * 3_000_000})[:-1] + ', "images": []}'
    file = tmp_path / "x.json"
    file.write_text(long)
    assert sniff(file) == "JSON of no known format"
    filler = json.dumps({"images": [{"id": i, "file_name": f"{i}.png"} for i in range(60_000)]})
    file.write_text(filler[:-1] + ', "annotations": [{"image_id": 1, "caption": "x"}]}')
    assert sniff(file) == "COCO captions"
    file.write_text(filler[:-1] + ', "annotations": [{"image_id": 1, "bbox": [1]}]}')
    assert sniff(file) == "COCO JSON"
