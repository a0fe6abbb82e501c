"""Pascal VOC: real sets read like an independent reader does, and all that may be wrong in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from drawn_objects import Drawn, DrawnImage, full_mask, lay
from faults import Data
from PIL import Image

from maskwright.data import check_data, find_splits, make_loader, open_dataset, read_voc, write_voc
from maskwright.data.formats.voc.layout import VocPart, voc_part
from maskwright.data.formats.voc.xml_tree import MAX_BYTES, BadXml, read_xml
from maskwright.data.records import ANY_CLASS, Dataset
from maskwright.structures import Resize
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK
from maskwright.training.prepare import open_splits

WritePng = Callable[[Path], None]


def obj(name: str, *box: object, **marks: object) -> str:
    """An <object>; the box as VOC has it."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    inside = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    more = "".join(f"<{key}>{value}</{key}>" for key, value in marks.items())
    return f"<object><name>{name}</name>{more}<bndbox>{inside}</bndbox></object>"


CAT, DOG = obj("cat", 3, 3, 12, 12), obj("dog", 21, 11, 30, 20)


def xml(*objects: str, size: str = "<width>40</width><height>30</height>") -> str:
    return f"<annotation>\n<size>{size}</size>\n" + "\n".join(objects) + "\n</annotation>"


class Voc:
    """A VOC folder with the images a, b and c of 40 x 30 pixels: a cat, a dog, nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        for seed, name in enumerate("abc"):
            Data.picture(seed).save(root / f"JPEGImages/{name}.jpg")
        self.write("a", xml(CAT))
        self.write("b", xml(DOG))
        self.write("c", xml())
        self.list("train", "a\nb\nc\n")

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.root / f"Annotations/{name}.xml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def list(self, name: str, text: str | bytes, kind: str = "Main") -> Path:
        file = self.root / f"ImageSets/{kind}/{name}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def open(self, split: str = "train", **options: Any) -> Dataset:
        return open_dataset(self.root, split, **options)


@pytest.fixture
def voc(tmp_path: Path) -> Voc:
    return Voc(tmp_path / "voc")


def labelled(dataset: Dataset) -> list[tuple[str, list[str]]]:
    """File name and class names of every image."""
    records = [dataset[i] for i in range(len(dataset))]
    return [(r.path.name, [dataset.names[k] for k in r.labels.tolist()]) for r in records]


def use(dataset: Dataset) -> None:
    loader = make_loader(
        dataset, batch=2, resize=Resize(None, 64), augment=None, seed=0, workers=0, shuffle=True
    )
    assert sum(len(batch) for batch in loader) == len(dataset)


# What is there is read.


def test_blood_cells_like_torchvision(shared_data: Path) -> None:
    from torchvision.datasets import VOCDetection

    total = 0
    for split, images in (("train", 205), ("val", 104)):
        dataset = open_dataset(shared_data / "bccd", split)
        assert (len(dataset), dataset.names) == (images, ["RBC", "WBC", "Platelets"])
        assert dataset.format == "voc" and not dataset.has_masks
        for record in (dataset[i] for i in range(len(dataset))):
            file = shared_data / f"bccd/Annotations/{record.path.stem}.xml"
            tree = VOCDetection.parse_voc_xml(ElementTree.parse(file).getroot())["annotation"]
            expected = []
            for entry in tree["object"]:
                side = {key: int(value) for key, value in entry["bndbox"].items()}
                if side["xmin"] < side["xmax"]:
                    label = dataset.names.index(entry["name"])
                    expected.append(
                        [label, side["xmin"] - 1, side["ymin"] - 1, side["xmax"], side["ymax"]]
                    )
            rows = np.column_stack([record.labels, record.boxes])
            np.testing.assert_array_equal(rows, expected)
            total += len(expected)
            size = (int(tree["size"]["height"]), int(tree["size"]["width"]))
            assert record.size == size and not record.crowd.any()
        assert [fault.kind for fault in dataset.faults] == ["empty box"]
        assert re.search(r"BloodImage_\d+\.xml:\d+: a click", dataset.faults[0].message)
    assert total == 2381 + 214 + 209 + 1140 + 102 + 99


def test_photographs_with_masks(shared_data: Path) -> None:
    folder = shared_data / "labelme_voc/voc"
    dataset = open_dataset(folder)
    assert len(dataset.names) == 20 and dataset.names[14] == "person" and dataset.has_masks
    assert [int((~dataset[i].crowd).sum()) for i in range(3)] == [2, 4, 3]
    for i in range(3):
        record = dataset[i]
        numbers = np.asarray(Image.open(folder / f"SegmentationObject/{record.path.stem}.png"))
        classes = np.asarray(Image.open(folder / f"SegmentationClass/{record.path.stem}.png"))
        for k, label in enumerate(record.labels.tolist()):
            crop, (x1, y1, x2, y2) = dataset.mask(i, k)
            inside = numbers[y1:y2, x1:x2][crop]
            assert len(np.unique(inside)) == 1
            assert crop.sum() == (numbers == inside[0]).sum()
            if record.crowd[k]:  # of these there is a mask and no object in the XML
                assert label == ANY_CLASS
                continue
            # An independent file says the same class of these pixels.
            assert np.all(classes[y1:y2, x1:x2][crop] == label + 1)
    assert {(fault.kind, fault.action) for fault in dataset.faults} == {
        ("unknown category", "ignored")
    }


def test_a_folder(voc: Voc) -> None:
    voc.list("val", "b\n")
    voc.list("cat_train", "a 1\nb -1\n")
    assert list(find_splits(voc.root)) == ["train", "val"]
    dataset = voc.open()
    assert dataset.faults == []
    assert labelled(dataset) == [("a.jpg", ["cat"]), ("b.jpg", ["dog"]), ("c.jpg", [])]
    assert dataset[0].boxes.tolist() == [[2, 2, 12, 12]]
    assert dataset[0].size == (30, 40)
    val = voc.open("val", names=dataset.names)
    assert labelled(val) == [("b.jpg", ["dog"])]
    use(dataset)
    assert check_data(voc.root).ok


def test_difficult_objects_count_neither_way(voc: Voc) -> None:
    hard = obj("cat", 21, 11, 30, 20, difficult=1, truncated=1)
    voc.write("a", xml(CAT, hard, obj("dog", 1, 1, 5, 5, difficult="0", truncated="")))
    assert voc.open()[0].crowd.tolist() == [False, True, False]
    assert voc.open(difficult=True)[0].crowd.tolist() == [False, False, False]
    assert [entry["iscrowd"] for entry in voc.open().to_coco()["annotations"]] == [0, 1, 0, 0]


@pytest.mark.parametrize("lists", ["train", "train and val"])
def test_training_on_difficult_objects(lists: str, voc: Voc) -> None:
    """They are learned from where that is wished, and never scored."""
    hard = obj("dog", 21, 11, 30, 20, difficult=1)
    for name in "abc":
        voc.write(name, xml(CAT, hard))
    if lists == "train and val":
        voc.list("train", "a\nb\n")
        voc.list("val", "c\n")
    for difficult in (False, True):
        recipe = DetectionRecipe(data=voc.root, difficult=difficult, val_fraction=0.3)
        train, val = open_splits(TASK, recipe)
        assert (len(train), len(val)) == (2, 1)
        assert [train[i].crowd.tolist() for i in range(2)] == [[False, not difficult]] * 2
        assert val[0].crowd.tolist() == [False, True]
        paths = {part[i].path for part in (train, val) for i in range(len(part))}
        assert len(paths) == 3


def test_parts_of_an_object_are_no_objects(voc: Voc) -> None:
    head = (
        "<part><name>head</name><bndbox><xmin>4</xmin><ymin>4</ymin><xmax>6</xmax></bndbox></part>"
    )
    voc.write("a", xml(CAT.replace("</object>", f"{head}</object>")))
    assert voc.open().faults == [] and labelled(voc.open())[0] == ("a.jpg", ["cat"])


def test_fractions_are_kept(voc: Voc) -> None:
    voc.write("a", xml(obj("cat", 1.5, " 2.25\n", "1e1", 12)))
    np.testing.assert_allclose(voc.open()[0].boxes, [[0.5, 1.25, 10, 12]])


def test_several_folders_as_one(tmp_path: Path) -> None:
    one, two = Voc(tmp_path / "VOCdevkit/VOC2007"), Voc(tmp_path / "VOCdevkit/VOC2012")
    two.list("trainval", "c\nb\n")
    one.list("trainval", "a\n")
    one.list("test", "b\n")
    two.write("b", xml(obj("bird", 1, 1, 9, 9)))
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert list(find_splits(root)) == ["train", "test"]
        dataset = open_dataset(root)
        assert dataset.names == ["bird", "cat", "dog"]
        assert [dataset[i].image_id for i in range(6)] == [1, 2, 3, 4, 5, 6]
        places = [dataset[i].path.relative_to(dataset.root).as_posix() for i in range(6)]
        names = [f"VOC{year}/JPEGImages/{name}.jpg" for year in (2007, 2012) for name in "abc"]
        assert places == names
        use(dataset)
    # 07+12 as published: both trainval, tested on the test images of 2007.
    file = tmp_path / "0712.yaml"
    base = "VOCdevkit/VOC20{}/ImageSets/Main/{}.txt"
    train = f"[{base.format('07', 'trainval')}, {base.format(12, 'trainval')}]"
    file.write_text(f"train: {train}\nval: {base.format('07', 'test')}\n")
    both = open_dataset(file)
    assert labelled(both) == [("a.jpg", ["cat"]), ("c.jpg", []), ("b.jpg", ["bird"])]
    with pytest.raises(ValueError, match=r"test\.txt has annotations of .*'dog'.*'bird', 'cat'"):
        open_dataset(file, "val", names=both.names)
    (tmp_path / "VOCdevkit/classes.txt").write_text("dog\ncat\nbird\n")
    assert open_dataset(file, "val", names=open_dataset(file).names).names == ["dog", "cat", "bird"]
    file.write_text("train: [VOCdevkit/VOC2007, VOCdevkit/VOC2012]\ntest: VOCdevkit/VOC2007\n")
    assert (len(open_dataset(file)), len(open_dataset(file, "test"))) == (6, 1)
    file.write_text("val: VOCdevkit/VOC2007\n")
    with pytest.raises(ValueError, match="VOC2007 has no list for 'val', only for 'train', 'test'"):
        open_dataset(file)
    file.write_text("train: [VOCdevkit/VOC2007, nothing]\n")
    with pytest.raises(ValueError, match=r"0712\.yaml: train: nothing must name an existing"):
        open_dataset(file)


def test_other_layouts(tmp_path: Path, write_png: WritePng) -> None:
    for split in ("train", "valid"):  # XML files beside the images, as Roboflow exports
        write_png(tmp_path / f"flat/{split}/x.png")
        (tmp_path / f"flat/{split}/x.xml").write_text(xml(CAT))
    assert list(find_splits(tmp_path / "flat")) == ["train", "val"]
    for root in (tmp_path / "flat", tmp_path / "flat/train"):
        assert labelled(open_dataset(root)) == [("x.png", ["cat"])]
    voc = Voc(tmp_path / "voc")
    voc.list("train", "").unlink()  # no lists at all: every XML file
    Data.picture(9).save(voc.root / "JPEGImages/d.jpg")
    dataset = voc.open()
    assert [name for name, _ in labelled(dataset)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [f.kind for f in dataset.faults] == ["image without annotations"]
    assert "first d: an image without objects needs one" in dataset.faults[0].message
    (voc.root / "ImageSets/Segmentation").mkdir()
    (voc.root / "ImageSets/Segmentation/trainval.txt").write_text("b\n")
    assert [name for name, _ in labelled(voc.open())] == ["b.jpg"]
    direct = open_dataset(voc.root / "ImageSets/Segmentation/trainval.txt")
    assert labelled(direct) == labelled(voc.open())


def test_which_image_belongs_to_an_id(voc: Voc) -> None:
    named = "<annotation><filename>{}</filename>{}</annotation>"
    Data.picture(7).save(voc.root / "JPEGImages/a.png")
    assert voc.open()[0].path.name == "a.jpg"
    voc.write("a", named.format("C:\\photos\\a.png", CAT))
    assert voc.open()[0].path.name == "a.png"
    (voc.root / "JPEGImages/b.jpg").rename(voc.root / "JPEGImages/IMG 1.jpg")
    voc.write("b", named.format("IMG 1.jpg", DOG))
    assert voc.open()[1].path.name == "IMG 1.jpg"
    voc.write("b", named.format("../Annotations/b.xml", DOG))
    assert [f.kind for f in voc.open().faults][-1] == "missing image"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\r\n\r\n  b  \r\nc", "abc"),
        (b"\xef\xbb\xbfa\nb\n\n\n", "ab"),
        ("a -1\nb  1\nc  0\n", "bc"),
        ("a.jpg\nb.xml\nJPEGImages/c.jpg\n", "abc"),
        ("c\tb\n".replace("\tb", "\nb"), "cb"),
    ],
)
def test_lines_of_a_list(text: str | bytes, kept: str, voc: Voc) -> None:
    voc.list("train", text)
    dataset = voc.open()
    assert "".join(dataset[i].path.stem for i in range(len(dataset))) == kept
    assert dataset.faults == []


def test_ids_with_blanks_that_look_like_flags(voc: Voc) -> None:
    for name in ("photo", "photo 1"):
        Data.picture(3).save(voc.root / f"JPEGImages/{name}.jpg")
        voc.write(name, xml(CAT))
    voc.list("train", "photo 1\nphoto -1\n")
    assert labelled(voc.open()) == [("photo 1.jpg", ["cat"])]


def test_classes_of_a_file(voc: Voc) -> None:
    (voc.root / "classes.txt").write_bytes(
        b"\xef\xbb\xbf_background_\r\ndog\r\n\r\n cat \r\nfox\r\n"
    )
    dataset = voc.open()
    assert dataset.names == ["dog", "cat", "fox"] and dataset.faults == []
    assert [dataset[i].labels.tolist() for i in range(3)] == [[1], [0], []]
    assert voc.open(names=["cat", "cow", "dog"])[1].labels.tolist() == [2]


# Masks.


def numbered(voc: Voc, name: str, *boxes: tuple[int, int, int, int], **numbers: int) -> None:
    """Write SegmentationObject with these rectangles (x1, y1, x2, y2), numbered from 1."""
    pixels = np.zeros((30, 40), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        pixels[y1:y2, x1:x2] = numbers.get(f"n{number}", number)
    (voc.root / "SegmentationObject").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(voc.root / f"SegmentationObject/{name}.png")


def test_masks_by_number_and_by_place(voc: Voc) -> None:
    voc.write("a", xml(CAT, obj("cat", 2, 2, 12, 12), obj("dog", 21, 11, 30, 20)))
    # The first two boxes overlap: numbers decide. The third has a number of its own: place decides.
    numbered(voc, "a", (2, 2, 12, 12), (1, 1, 12, 2), (20, 10, 30, 20), n3=9)
    numbered(voc, "b")
    numbered(voc, "c", (0, 0, 5, 5), n1=255)
    dataset = voc.open()
    assert dataset.has_masks
    assert dataset.mask(0, 0)[1] == (2, 2, 12, 12) and dataset.mask(0, 0)[0].all()
    assert dataset.mask(0, 2)[1] == (20, 10, 30, 20)
    # The strip numbered 2 does not fit its box; the dog of b has no mask. Boxes stand in.
    assert [(f.kind, f.image_id, f.annotation_id) for f in dataset.faults] == [
        ("no mask", 1, 2),
        ("unknown category", 1, -1),
        ("no mask", 2, 4),
    ]
    # What the strip covers is neither an object nor background.
    assert dataset[0].crowd.tolist() == [False, False, False, True]
    assert dataset[0].boxes[3].tolist() == [1, 1, 12, 2]
    assert dataset.mask(1, 0)[1] == (20, 10, 30, 20)
    use(dataset)


def test_masks_of_some_images_only(voc: Voc) -> None:
    numbered(voc, "a", (2, 2, 12, 12))
    dataset = voc.open()
    assert not dataset.has_masks
    assert [f.kind for f in dataset.faults] == ["masks of some images only"]
    (voc.root / "ImageSets/Main/train.txt").unlink()
    voc.list("train", "a\n", "Segmentation")
    assert voc.open().has_masks and voc.open().faults == []


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (
            lambda file: Image.new("RGB", (40, 30), (1, 2, 3)).save(file),
            "unreadable masks",
            "has colours",
        ),
        (lambda file: file.write_bytes(b"x"), "unreadable masks", "not an image"),
        (
            lambda file: Image.fromarray(np.full((31, 40), 1, np.uint8)).save(file),
            "RLE of another size",
            "size",
        ),
    ],
)
def test_bad_mask_files(spoil: Callable[[Path], object], kind: str, says: str, voc: Voc) -> None:
    voc.write("a", xml(obj("cat", 1, 1, 40, 31), CAT))
    for name, box in (("a", (0, 0, 40, 30)), ("b", (20, 10, 30, 20)), ("c", (0, 0, 1, 1))):
        numbered(voc, name, box, **({"n1": 0} if name == "c" else {}))
    spoil(voc.root / "SegmentationObject/a.png")
    dataset = voc.open()
    fault = next(f for f in dataset.faults if f.kind == kind)
    assert fault.image_id == 1 and says in fault.message and "a." in fault.file
    assert dataset.mask(1, 0)[0].sum() == 100
    use(dataset)


# What is wrong.

BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><folder>&b;</folder></annotation>"""
FETCH = """<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<annotation><object><name>&x;</name></object></annotation>"""
OBJECTS: dict[str, tuple[str, str, str, str]] = {
    # object: (text, kind, action, message)
    "no name": (obj("", 1, 1, 5, 5), "unknown category", "ignored", "has no <name>"),
    "no box": ("<object><name>cat</name></object>", "bad box", "ignored", "four numbers"),
    "half a box": (obj("cat", 1, 1, 5), "bad box", "ignored", "ymax ''"),
    "words": (obj("cat", 1, "two", 5, 5), "bad box", "ignored", "'two'"),
    "nan": (obj("cat", 1, "NaN", 5, 5), "NaN or infinite coordinates", "ignored", "NaN"),
    "infinite": (obj("cat", 1, 1, "inf", 5), "NaN or infinite coordinates", "ignored", "inf"),
    "huge": (obj("cat", 1, 1, "1e300", 5), "bad box", "ignored", "1e300"),
    "a click": (obj("cat", 7, 9, 7, 9), "empty box", "left out", "has no extent"),
    "exchanged": (obj("cat", 12, 12, 3, 3), "swapped corners", "repaired", "put in order"),
    "outside": (obj("cat", 100, 1, 110, 9), "box outside the image", "left out", "outside"),
    "negative": (obj("cat", -9, -9, -2, -2), "box outside the image", "left out", "outside"),
    "beyond": (obj("cat", -9, -9, 9, 9), "box beyond the image", "repaired", "clipped"),
    "difficult of words": (
        obj("cat", 3, 3, 12, 12, difficult="very"),
        "bad difficult",
        "repaired",
        "'very' is neither 0 nor 1",
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_faults_of_objects(case: str, voc: Voc) -> None:
    text, kind, action, says = OBJECTS[case]
    file = voc.write("a", xml(DOG, text))
    dataset = voc.open()
    (fault,) = dataset.faults
    assert (fault.kind, fault.action, fault.image_id, fault.annotation_id) == (kind, action, 1, 2)
    assert fault.file == str(file)
    assert fault.message.startswith(f"{file}:4: ") or f"{file}:4: " in fault.message
    assert says in fault.message
    assert len(dataset) == 3
    here = dataset[0]
    objects = [dataset.names[label] for label in here.labels[~here.crowd]]
    assert objects == (["dog", "cat"] if action == "repaired" else ["dog"])
    assert here.crowd.tolist() == [False] + [action == "ignored"] * (action != "left out")
    use(dataset)


def test_exchanged_corners_are_put_in_order(voc: Voc) -> None:
    voc.write("a", xml(obj("cat", 12, 12, 3, 3)))
    assert voc.open()[0].boxes.tolist() == [[2, 2, 12, 12]]
    voc.write("a", xml(obj("cat", 12, 3, 3, 12)))
    assert voc.open()[0].boxes.tolist() == [[2, 2, 12, 12]]


FILES: dict[str, tuple[str | bytes, str, str]] = {
    # content of a.xml: (text, kind, message)
    "cut off": (xml(CAT)[:-30], "unreadable annotation file", r"a\.xml:3: no valid XML"),
    "empty": (b"", "unreadable annotation file", r"a\.xml:1: no valid XML \(no element"),
    "no XML": (b"\x89PNG\r\n\x1a\n" + bytes(50), "unreadable annotation file", "no valid XML"),
    "two roots": (xml() + xml(), "unreadable annotation file", r"a\.xml:4: no valid XML"),
    "another root": ("<note>x</note>", "unreadable annotation file", "expected <annotation>"),
    "a bomb": (BOMB, "unreadable annotation file", r"a\.xml:2: declares an entity"),
    "a thief": (FETCH, "unreadable annotation file", r"a\.xml:1: declares an entity"),
    "an entity of nowhere": (xml("&x;"), "unreadable annotation file", "undefined entity"),
    "deep": ("<a>" * 10**5, "unreadable annotation file", r"a\.xml:1: nested too deeply"),
    "another encoding": (
        '<?xml version="1.0" encoding="gb2312"?><annotation/>',
        "unreadable annotation file",
        "save it as UTF-8",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_faults_of_xml_files(case: str, voc: Voc) -> None:
    text, kind, says = FILES[case]
    file = voc.write("a", text)
    dataset = voc.open()
    (fault,) = dataset.faults
    assert (fault.kind, fault.action, fault.image_id) == (kind, "left out", 1)
    assert fault.file == str(file) and re.search(says, fault.message)
    assert [name for name, _ in labelled(dataset)] == ["b.jpg", "c.jpg"]
    use(dataset)


@pytest.mark.parametrize("place", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("gone")])
def test_no_files_in_the_place_of_xml(place: Callable[[Path], object], voc: Voc) -> None:
    file = voc.root / "Annotations/a.xml"
    file.unlink()
    place(file)
    (fault,) = voc.open().faults
    assert fault.image_id == 1 and str(file) in fault.message
    assert len(voc.open()) == 2


def test_too_large_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(BadXml, match="no annotation of one image"):
        read_xml(file)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>40</width>"])
def test_a_size_that_is_not_given(size: str, voc: Voc) -> None:
    voc.write("a", xml(CAT, size=size))
    dataset = voc.open()
    assert [(f.kind, f.action) for f in dataset.faults] == [("missing image size", "repaired")]
    assert dataset[0].size == (30, 40)


def test_windows_and_other_encodings(voc: Voc) -> None:
    text = xml(obj("größe", 1, 1, 5, 5)).replace("\n", "\r\n")
    head = '<?xml version="1.0" encoding="{}"?>'
    for content in (
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        (head.format("ISO-8859-1") + text).encode("latin-1"),
    ):
        voc.write("a", content)
        assert labelled(voc.open())[0] == ("a.jpg", ["größe"]) and voc.open().faults == []


def test_faults_of_lists(voc: Voc) -> None:
    file = voc.list("train", "a\nnobody\nb\n../a\na\n/etc/passwd\nx\0y\nc\n")
    (voc.root / "JPEGImages/c.jpg").unlink()
    dataset = voc.open()
    assert [(f.kind, f.action) for f in dataset.faults] == [
        ("missing annotation file", "left out"),
        ("path outside the data set", "left out"),
        ("duplicate image id", "left out"),
        ("path outside the data set", "left out"),
        ("path outside the data set", "left out"),
        ("missing image", "left out"),
    ]
    assert f"{file}:2: cannot read " in dataset.faults[0].message
    assert f"{file}:5: 'a' stands in line 1 already" in dataset.faults[2].message
    assert [name for name, _ in labelled(dataset)] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "gives no usable image of 0"),
        (b"\xff\xfe\x00a", "is no text in UTF-8"),
        (b"nobody\n", r"no usable image of 1; the first fault: .*train\.txt:1: cannot read"),
        (b"c\n", r"not one object in 1 annotation files.*write their names into .*classes\.txt"),
    ],
)
def test_lists_that_are_refused(text: bytes, says: str, voc: Voc) -> None:
    file = voc.list("train", text)
    with pytest.raises(ValueError, match=says) as refused:
        voc.open()
    assert str(file) in str(refused.value)
    if text == b"c\n":
        assert len(voc.open(names=["cat"])) == 1


def test_names_outside_the_list(voc: Voc) -> None:
    (voc.root / "classes.txt").write_text("cat\n")
    dataset = voc.open()
    (fault,) = dataset.faults
    assert (fault.kind, fault.action, fault.annotation_id) == ("unknown category", "ignored", 2)
    assert re.search(r"b\.xml:3: .*the class 'dog' is not in the list", fault.message)
    assert [dataset[i].crowd.tolist() for i in range(3)] == [[False], [True], []]
    assert dataset[1].labels.tolist() == [ANY_CLASS]
    (voc.root / "classes.txt").unlink()
    with pytest.raises(ValueError, match=r"\['dog'\], but the known classes are \['cat'\]"):
        voc.open(names=["cat"])


def test_a_list_without_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text("a\n")
    with pytest.raises(ValueError, match=r"train\.txt belongs to no Pascal VOC folder"):
        open_dataset(file)


# Writing.


def test_what_is_written_is_read_again(voc: Voc, tmp_path: Path) -> None:
    hard = obj("cat", 21.5, 11, 30, 20.25, difficult=1)
    voc.write("a", xml(CAT, hard, obj("dog &lt;1&gt;", 30, 2, 40, 2)))
    voc.list("val", "b\nc\n")
    train = voc.open()
    for dataset in (train, voc.open("val", names=train.names)):
        listing = write_voc(dataset, tmp_path / "copy")
        assert listing == tmp_path / f"copy/ImageSets/Main/{dataset.split}.txt"
        again = open_dataset(tmp_path / "copy", dataset.split)
        assert again.faults == [] and again.names == dataset.names
        for i in range(len(dataset)):
            one, two = dataset[i], again[i]
            np.testing.assert_array_equal(one.boxes, two.boxes)
            np.testing.assert_array_equal(one.labels, two.labels)
            np.testing.assert_array_equal(one.crowd, two.crowd)
            assert one.path.read_bytes() == two.path.read_bytes()
    assert len(list((tmp_path / "copy/JPEGImages").iterdir())) == 5
    with pytest.raises(ValueError, match="has a split 'train' already"):
        write_voc(train, tmp_path / "copy")
    other = voc.open(names=["cat", "dog", "dog <1>", "emu"])
    other.split = "test"
    with pytest.raises(ValueError, match="names other classes"):
        write_voc(other, tmp_path / "copy")


def test_masks_are_written(nuclei_mini: Path, tmp_path: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    write_voc(dataset, tmp_path)
    again = open_dataset(tmp_path, "val")
    assert again.has_masks and again.names == dataset.names
    same = 0
    for i in range(len(dataset)):
        assert len(again[i].labels) == len(dataset[i].labels)
        for k in range(len(dataset[i].labels)):
            (ours, frame), (theirs, other) = dataset.mask(i, k), again.mask(i, k)
            same += frame == other and bool((ours == theirs).all())
    assert same == sum(len(dataset[i].labels) for i in range(len(dataset)))
    palette = Image.open(next((tmp_path / "SegmentationClass").iterdir())).getpalette()
    # The first colours of the development kit.
    assert palette and palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert palette[-3:] == [224, 224, 192]


def test_reading_parts_directly(voc: Voc) -> None:
    listing = voc.list("cat_train", "a 1\nb -1\nc 0\n")
    part = voc_part(listing)
    assert part == VocPart(voc.root, voc.root / "Annotations", voc.root / "JPEGImages", listing)
    assert [name for name, _ in labelled(read_voc([part]))] == ["a.jpg", "c.jpg"]


TURNED = "<cx>20</cx><cy>15</cy><w>20</w><h>10</h><angle>{}</angle>"
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")
POINTS = "<x1>3</x1><y1>4</y1><x2>13</x2><y2>4</y2><x3>13</x3><y3>14</y3>"


def outlined(voc: Voc, inside: str, box: str = "") -> Dataset:
    voc.write("a", xml(f"<object><name>cat</name>{box}{inside}</object>"))
    voc.list("train", "a\n")
    return voc.open()


def test_a_turned_box_of_rolabelimg_is_a_polygon(voc: Voc) -> None:
    """A quarter of a turn exchanges the sides; the eighth of one is clockwise on the screen."""
    data = outlined(voc, f"<robndbox>{TURNED.format(np.pi / 2)}</robndbox>")
    assert data[0].boxes[0].tolist() == pytest.approx([15, 5, 25, 25], abs=1e-4)
    data = outlined(voc, f"<robndbox>{TURNED.format(np.pi / 4)}</robndbox>")
    (polygon,) = data.polygons(0, 0) or ()
    far = (20 + 10) / 2 / np.sqrt(2)  # the right lower corner of the upright box ends below
    near = (20 - 10) / 2 / np.sqrt(2)
    assert polygon[2].tolist() == pytest.approx([20 + near, 15 + far], abs=1e-4)


def test_the_named_corners_of_dior_and_numbered_points_are_polygons(voc: Voc) -> None:
    corners = dict(zip(CORNERS, [(3, 4), (23, 4), (23, 14), (3, 14)], strict=True))
    inside = "".join(f"<x_{k}>{x}</x_{k}><y_{k}>{y}</y_{k}>" for k, (x, y) in corners.items())
    data = outlined(voc, f"<robndbox>{inside}</robndbox>")
    assert data[0].boxes[0].tolist() == [3, 4, 23, 14]
    box = obj("", 3, 4, 12, 13).split("</name>")[1].removesuffix("</object>")
    data = outlined(voc, f"<polygon>{POINTS}</polygon>", box)
    (polygon,) = data.polygons(0, 0) or ()
    assert polygon.tolist() == [[2, 3], [12, 3], [12, 13]]  # VOC counts from 1


def test_an_outline_that_cannot_be_read_is_told(voc: Voc) -> None:
    box = obj("", 3, 4, 12, 13).split("</name>")[1].removesuffix("</object>")
    data = outlined(voc, f"<polygon>{POINTS.replace('<y3>14', '<y3>low')}</polygon>", box)
    (fault,) = data.faults
    assert fault.action == "repaired" and "<y3> of <polygon> must be a number" in fault.message
    data = outlined(voc, "<robndbox><cx>1</cx></robndbox>")
    (fault,) = data.faults
    assert fault.action == "ignored" and "<cy> of <robndbox> must be a number" in fault.message


def test_masks_of_regions_alone_are_written(tmp_path: Path) -> None:
    """No object has a mask, a region of many has one."""
    mask = np.zeros((20, 20), bool)
    mask[3:9, 3:9] = ~np.eye(6, dtype=bool)
    objects = [Drawn(0, "mask", mask=mask, region="crowd"), Drawn(1, "box", box=(1, 1, 9, 9))]
    write_voc(open_dataset(lay(tmp_path / "in", [DrawnImage((20, 20), objects)])), tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    assert not data.has_masks and data[0].crowd.tolist() == [True, False]
    np.testing.assert_array_equal(full_mask(data, 0, 0), mask)
