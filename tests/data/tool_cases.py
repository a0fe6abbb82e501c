"""Labels of labelling tools, three images with an object each, and what is wrong with them.

Like `fault_cases`, every case states its outcome; here it changes the text of a file.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from faults import NAN, Clean, Data, Listed, Refused, encoded, png_header
from PIL import Image

from maskwright.data.building.geometry import as_png
from maskwright.data.formats.studio.brush import encode_brush

Files = dict[str, str | bytes]
Change = Callable[[Path], object]
Outcome = Clean | Listed | Refused
LINE = "0 0.175 0.25 0.25 0.3\n"
YOLO: Files = {
    "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "labels/train/a.txt": LINE,
    "labels/train/b.txt": "1 0.2 0.25 0.2 0.3\n",
    "labels/train/c.txt": LINE,
    "labels/val/v.txt": LINE,
}
SHAPE = {"label": "cat", "points": [[2, 3], [12, 8]], "shape_type": "rectangle", "flags": {}}


def labelme(image: str, label: str | None = "cat", **more: Any) -> str:
    content: dict[str, Any] = {"version": "5.4.1", "shapes": [SHAPE | {"label": label} | more]}
    content |= {"imagePath": image, "imageData": None, "imageHeight": 30, "imageWidth": 40}
    return json.dumps(content)


LABELME: Files = {
    "train/a.json": labelme("a.png"),
    "train/b.json": labelme("b.png", "dog"),
    "train/c.json": labelme("c.png"),
    "val/v.json": labelme("v.png"),
}


def numbered(*shape: int, number: int = 1, kind: str = "PNG", dtype: type = np.uint16) -> bytes:
    """A label image with one object at rows 3 to 8, columns 2 to 12."""
    numbers: np.ndarray = np.zeros(shape or (30, 40), dtype)
    numbers[3:8, 2:12] = number
    stream = io.BytesIO()
    Image.fromarray(numbers).save(stream, kind)
    return stream.getvalue()


def tiff() -> bytes:
    """The same as a TIFF of numpy's own whole numbers."""
    numbers: np.ndarray = np.zeros((30, 40), np.int64)
    numbers[3:8, 2:12] = 1
    stream = io.BytesIO()
    tifffile.imwrite(stream, numbers)
    return stream.getvalue()


INSTANCES: Files = {
    "masks/train/a.png": numbered(),
    "masks/train/b.png": numbered(),
    "masks/train/c.png": numbered(),
    "masks/val/v.png": numbered(),
    "object_classes.txt": "cat\ndog\n",
    "objects.csv": "image,number,class\ntrain/a,1,cat\ntrain/b,1,dog\ntrain/c,1,cat\nval/v,1,cat\n",
}
CVAT_BOX = '<box label="{}" xtl="2" ytl="3" xbr="12" ybr="8" occluded="0"></box>'


def cvat(*names: str) -> str:
    """CVAT's XML of images with a box each, of the class before the name."""
    images = "".join(
        f'<image id="{k}" name="{name[1:]}.png" width="40" height="30">'
        f"\n{CVAT_BOX.format({'c': 'cat', 'd': 'dog'}[name[0]])}</image>\n"
        for k, name in enumerate(names)
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("cat", "dog"))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>\n'
        f"<meta><task><labels>{labels}</labels></task></meta>\n{images}</annotations>"
    )


CVAT: Files = {"train.xml": cvat("ca", "db", "cc"), "val.xml": cvat("cv")}


def task(number: int, name: str, label: str = "cat", **more: Any) -> dict[str, Any]:
    """A task of Label Studio with a rectangle; `more` changes its value."""
    value = {"x": 5, "y": 10, "width": 25, "height": 20, "rotation": 0} | more
    region = {"id": "r", "type": "rectanglelabels", "image_rotation": 0}
    region |= {"original_width": 40, "original_height": 30}
    region["value"] = value | {"rectanglelabels": [label]}
    image = f"/data/upload/1/{name}.png"
    return {"id": number, "data": {"image": image}, "annotations": [{"result": [region]}]}


TASKS = [task(1, "a"), task(2, "b", "dog"), task(3, "c")]
STUDIO: Files = {
    "train.json": json.dumps(TASKS),
    "val.json": json.dumps([task(1, "v")]),
    "classes.txt": "cat\ndog\n",
}
IMAGES = {
    "cvat": ("images/a.png", "images/b.png", "images/c.png", "images/v.png"),
    "labelstudio": ("images/a.png", "images/b.png", "images/c.png", "images/v.png"),
    "instances": (
        *("images/train/a.png", "images/train/b.png", "images/train/c.png", "images/val/v.png"),
    ),
    "labelme": ("train/a.png", "train/b.png", "train/c.png", "val/v.png"),
    "yolo": ("images/train/a.png", "images/train/b.png", "images/train/c.png", "images/val/v.png"),
}
TOOLS = {"yolo": YOLO, "labelme": LABELME, "instances": INSTANCES, "cvat": CVAT} | {
    "labelstudio": STUDIO
}


def lay_tool(root: Path, tool: str) -> Path:
    """Write the labels of a tool and their images of 40 x 30 pixels (width x height)."""
    return lay_files(root, TOOLS[tool], IMAGES[tool])


def lay_files(root: Path, files: Files, images: tuple[str, ...]) -> Path:
    """Write files, and images of 40 x 30 pixels (width x height)."""
    for seed, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Data.picture(seed).save(root / name)
    for name, content in files.items():
        put(name, content)(root)
    return root


def put(name: str, content: str | bytes) -> Change:
    """Write a file."""

    def change(root: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return change


def swap(name: str, old: str, new: str) -> Change:
    """Replace a text that stands in a file."""

    def change(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert old in text
        (root / name).write_bytes(text.replace(old, new).encode("utf-8", "surrogateescape"))

    return change


def gone(name: str) -> Change:
    return lambda root: (root / name).unlink()


def moved(name: str, other: str) -> Change:
    return lambda root: (root / name).rename(root / other)


def object_of_a(kind: str, action: str, says: str = "", objects: int = 3) -> Listed:
    """A fault of the object of the first image."""
    return Listed(kind, action, 1, None, 3, objects, says)


A = "labels/train/a.txt"
BOX = CVAT_BOX.format("cat")


def element(text: str) -> Change:
    """Change the first box of CVAT."""
    return put("train.xml", cvat("ca", "db", "cc").replace(BOX, text, 1))


def region(**entries: Any) -> Change:
    """Change the region of the first image of Label Studio."""

    def change(root: Path) -> None:
        first = json.loads(json.dumps(TASKS[0]))
        first["annotations"][0]["result"][0].update(entries)
        put("train.json", json.dumps([first, *TASKS[1:]]))(root)

    return change


def value(**entries: Any) -> Change:
    """Change the value of the region of the first image of Label Studio."""
    return put("train.json", json.dumps([task(1, "a", **entries), *TASKS[1:]]))


def first_task(**entries: Any) -> Change:
    return put("train.json", json.dumps([TASKS[0] | entries, *TASKS[1:]]))


LAUGHS = '<!DOCTYPE a [<!ENTITY b "lol"><!ENTITY c "&b;&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
DISK = np.hypot(*np.mgrid[-15:15, -20:20]) < 9
BRUSH = {"type": "brushlabels"}
M = "masks/train/a.png"
J = "train/a.json"


def shape(**entries: Any) -> Change:
    """Change the shape of the first image of LabelMe."""
    return put(J, labelme("a.png", **entries))


MASK = {"shape_type": "mask", "points": [[2, 3], [5, 7]]}
CASES: dict[str, tuple[str, Change, Outcome]] = {
    # YOLO: lines.
    "no line": ("yolo", put(A, ""), Clean(objects=2)),
    "blank lines and ends of Windows": ("yolo", put(A, f"\r\n{LINE.strip()}\r\n \r\n"), Clean()),
    "byte order mark": ("yolo", put(A, "\ufeff" + LINE), Clean()),
    "class as 0.0": ("yolo", put(A, LINE.replace("0 ", "0.0 ", 1)), Clean()),
    "wrong encoding": (
        "yolo",
        put(A, b"\xff\xfe0\0 \0"),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "save it as UTF-8"),
    ),
    "cut off": (
        "yolo",
        put(A, "0 0.175 0.2"),
        object_of_a("bad line", "ignored", r"a\.txt, line 1.*a box needs 5"),
    ),
    "words": ("yolo", put(A, "0 a b c d"), object_of_a("bad line", "ignored", "numbers, got 'a'")),
    "name of a class": (
        "yolo",
        put(A, "cat 0.5 0.5 0.1 0.1"),
        object_of_a("bad line", "ignored", "a class is a whole number, got 'cat'"),
    ),
    "class beyond the names": (
        "yolo",
        put(A, "\n7 0.5 0.5 0.1 0.1"),
        object_of_a("unknown category", "ignored", r"a\.txt, line 2.*class number 7 is none"),
    ),
    "negative class": ("yolo", put(A, "-1 0.5 0.5 0.1 0.1"), object_of_a("bad line", "ignored")),
    "nan": (
        "yolo",
        put(A, "0 nan 0.5 0.1 0.1"),
        object_of_a("NaN or infinite coordinates", "ignored", "'nan' is not finite"),
    ),
    "one object in pixels": (
        "yolo",
        put(A, "0 20 15 10 10"),
        object_of_a("no fractions", "ignored", "divide by the size"),
    ),
    "negative side": (
        "yolo",
        put(A, "0 0.5 0.5 -0.2 0.2"),
        object_of_a("swapped corners", "repaired"),
    ),
    "no side": ("yolo", put(A, "0 0.5 0.5 0 0.2"), object_of_a("empty box", "left out", "", 2)),
    "beyond the image": (
        "yolo",
        put(A, "0 0.9 0.5 0.6 0.2"),
        object_of_a("box beyond the image", "repaired", "clipped"),
    ),
    "a hair beyond the image": ("yolo", put(A, "0 0.900001 0.5 0.2 0.2"), Clean()),
    "outside": (
        "yolo",
        put(A, "0 1.5 0.5 0.2 0.2"),
        object_of_a("box outside the image", "left out", "", 2),
    ),
    "twice": (
        "yolo",
        put(A, LINE * 2),
        object_of_a("duplicate object", "left out", r"a\.txt, line 2: the same line"),
    ),
    "confidence": (
        "yolo",
        put(A, LINE.strip() + " 0.93"),
        Listed("number beyond a line", "repaired", None, None, 3, 3, "not read"),
    ),
    "polygon and confidence": (
        "yolo",
        put(A, "0 0.1 0.1 0.3 0.1 0.3 0.4 0.5"),
        Listed("number beyond a line", "repaired", None, None, 3, 3),
    ),
    "polygon of a line": (
        "yolo",
        put(A, "0 0.1 0.1 0.2 0.1 0.3 0.1"),
        object_of_a("polygon without area", "left out", "", 2),
    ),
    "all in pixels": (
        "yolo",
        lambda root: [put(f"labels/train/{n}.txt", "0 20 15 10 10\n")(root) for n in "abc"],
        Refused(r"labels/train/a\.txt, line 1: 3 of 3 objects.*pixels: divide x by the width"),
    ),
    "keypoints that nothing announces": (
        "yolo",
        lambda root: [
            put(f"labels/train/{n}.txt", "0 .5 .5 .2 .2 .5 .5 2 .4 .4 1\n")(root) for n in "abc"
        ],
        Refused(r"a\.txt, line 1.*kpt_shape: \[17, 3\]"),
    ),
    "line of another number of keypoints": (
        "yolo",
        lambda root: (
            swap("data.yaml", "names", "kpt_shape: [2, 3]\nnames")(root),
            put(A, "0 .5 .5 .2 .2 .5 .5 2 .4 .4 1\n")(root),
            put("labels/train/b.txt", "0 .5 .5 .2 .2 .5 .5 2\n")(root),
        ),
        Listed("bad line", "ignored", 2, None, 3, 3, r"with kpt_shape: \[2, 3\] it needs 11"),
    ),
    # YOLO: files.
    "no labels of an image": (
        "yolo",
        gone(A),
        Listed("image without a file of labels", "kept", None, None, 3, 2, r"looked for .*a\.txt"),
    ),
    "labels of no image": (
        "yolo",
        moved("images/train/a.png", "images/train/A 1.png"),
        Listed("labels without an image", "left out", None, None, 3, 2, r"first .*a\.txt"),
    ),
    "no images": (
        "yolo",
        swap("data.yaml", "images/val", "photos/val"),
        Refused("the val split is to lie in .*photos/val, which does not exist"),
    ),
    "names of no list": (
        "yolo",
        swap("data.yaml", "[cat, dog]", "3"),
        Refused("names must be a list"),
    ),
    "more classes than names": (
        "yolo",
        swap("data.yaml", "names", "nc: 3\nnames"),
        Refused("nc is 3, but there are 2 names"),
    ),
    "bad kpt_shape": (
        "yolo",
        swap("data.yaml", "names", "kpt_shape: [0, 3]\nnames"),
        Refused("kpt_shape must be"),
    ),
    "bad flip_idx": (
        "yolo",
        swap("data.yaml", "names", "kpt_shape: [2, 3]\nflip_idx: [1, 1]\nnames"),
        Refused("flip_idx must name"),
    ),
    "yaml cut off": ("yolo", swap("data.yaml", "[cat, dog]", "[cat,"), Refused("no valid YAML")),
    # LabelMe: files.
    "LabelMe cut off": (
        "labelme",
        put(J, labelme("a.png")[:150]),
        Listed(
            "unreadable labels", "left out", 1, None, 2, 2, r"a\.json:1: no valid JSON.*cut off"
        ),
    ),
    "LabelMe of bytes": (
        "labelme",
        put(J, b'{"shapes": [], "imagePath": "\xff\xfe.png"}'),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "save it as UTF-8"),
    ),
    "LabelMe with a byte order mark": ("labelme", put(J, "\ufeff" + labelme("a.png")), Clean()),
    "LabelMe in UTF-16": ("labelme", put(J, labelme("a.png").encode("utf-16")), Clean()),
    "LabelMe nested deeply": (
        "labelme",
        put(J, '{"shapes": [{"points": ' + "[" * 100_000),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "a.json"),
    ),
    "shapes that are no list": (
        "labelme",
        put(J, '{"shapes": {"points": 1}, "imagePath": "a.png"}'),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "no list 'shapes'"),
    ),
    "no size in LabelMe": (
        "labelme",
        put(J, '{"shapes": [], "imagePath": "a.png"}'),
        Listed("missing image size", "repaired", 1, None, 3, 2),
    ),
    "LabelMe of Windows": ("labelme", put(J, labelme("..\\train\\a.png")), Clean()),
    "LabelMe of another machine": (
        "labelme",
        put(J, labelme("C:\\photos\\a.png")),
        Listed("image under another name", "repaired", 1, None, 3, 3, "a.png is taken"),
    ),
    "LabelMe's image renamed": (
        "labelme",
        put(J, labelme("IMG_17.png")),
        Listed("image under another name", "repaired", 1, None, 3, 3, "'IMG_17.png' is not there"),
    ),
    "LabelMe's way out": (
        "labelme",
        lambda root: (gone("train/a.png")(root), put(J, labelme("../../../etc/passwd.png"))(root)),
        Listed("missing image", "left out", 1, None, 2, 2, "passwd.png"),
    ),
    "image inside LabelMe alone": (
        "labelme",
        lambda root: (
            gone("train/a.png")(root),
            put(J, labelme("a.png").replace('"imageData": null', '"imageData": "aGk="'))(root),
        ),
        Listed("image inside the labels", "left out", 1, None, 2, 2, "unpack_images"),
    ),
    # LabelMe: shapes.
    "points and lines": (
        "labelme",
        shape(shape_type="point", points=[[1, 1]]),
        Listed(
            "shape without area", "left out", None, None, 3, 2, r"shapes\[0\].*1 x point in all"
        ),
    ),
    "unknown shape": (
        "labelme",
        shape(shape_type="cube"),
        object_of_a("unknown shape", "ignored", r"a\.json, shapes\[0\].*'cube'"),
    ),
    "no label": (
        "labelme",
        shape(label=None),
        object_of_a("unknown category", "ignored"),
    ),
    "points of words": (
        "labelme",
        shape(points=[["a", 1]]),
        object_of_a("bad points", "ignored"),
    ),
    "flat points": ("labelme", shape(points=[2, 3, 12, 8]), object_of_a("bad points", "ignored")),
    "one point of a rectangle": (
        "labelme",
        shape(points=[[1, 1]]),
        object_of_a("bad points", "ignored", "needs 2 to 4 points, got 1"),
    ),
    "point of NaN": (
        "labelme",
        put(J, labelme("a.png").replace("12", "NaN")),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "point of 1e400": (
        "labelme",
        put(J, labelme("a.png").replace("12", "1e400")),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "corners in any order": ("labelme", shape(points=[[12, 3], [2, 8]]), Clean()),
    "rectangle without area": (
        "labelme",
        shape(points=[[2, 3], [2, 8]]),
        object_of_a("empty box", "left out", "", 2),
    ),
    "circle of no radius": (
        "labelme",
        shape(shape_type="circle", points=[[2, 3], [2, 3]]),
        object_of_a("empty box", "left out", "radii 0 and 0", 2),
    ),
    "mask of no PNG": (
        "labelme",
        shape(**MASK, mask="aGVsbG8="),
        object_of_a("bad mask", "ignored", "no PNG in base64"),
    ),
    "mask of no base64": ("labelme", shape(**MASK, mask="%%%"), object_of_a("bad mask", "ignored")),
    "no mask of a mask": ("labelme", shape(**MASK), object_of_a("bad mask", "ignored")),
    "mask of another size": (
        "labelme",
        shape(**MASK, mask=as_png(np.ones((3, 3), bool))),
        object_of_a("mask of another size", "ignored", "3x3 pixels, its points say 4x5"),
    ),
    "mask that claims to be huge": (
        "labelme",
        shape(**MASK, mask=base64.b64encode(png_header(100_000, 100_000)).decode()),
        object_of_a("bad mask", "ignored", "exceeds limit"),
    ),
    "empty mask": (
        "labelme",
        shape(**MASK, mask=as_png(np.zeros((5, 4), bool))),
        object_of_a("empty mask", "left out", "", 2),
    ),
    # Label images.
    "no object in a label image": ("instances", put(M, numbered(number=0)), Clean(objects=2)),
    "8 bits": ("instances", put(M, numbered(dtype=np.uint8)), Clean()),
    "32 bits": ("instances", put(M, numbered(kind="TIFF", dtype=np.int32)), Clean()),
    "64 bits, as napari writes": ("instances", put(M, tiff()), Clean()),
    "negative numbers": (
        "instances",
        put(M, numbered(number=-2, kind="TIFF", dtype=np.int32)),
        Listed("unreadable labels", "left out", 1, None, 2, 2, r"a\.png has the number -2"),
    ),
    "label image of another size": (
        "instances",
        put(M, numbered(15, 20)),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "20x15 pixels.*40x30.*nearest"),
    ),
    "label image cut off": (
        "instances",
        put(M, numbered()[:60]),
        Listed("unreadable labels", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "label image of nothing": (
        "instances",
        put(M, b""),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "empty"),
    ),
    "label image as JPEG": (
        "instances",
        put(M, encoded("JPEG")),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "is a JPEG, which changes"),
    ),
    "label image of colours": (
        "instances",
        put(M, encoded("PNG")),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "colours.*16 bits of grey"),
    ),
    "label image that claims to be huge": (
        "instances",
        put(M, png_header(100_000, 100_000)),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "refused"),
    ),
    "no label image": (
        "instances",
        gone(M),
        Listed("image without a label map", "left out", None, None, 2, 2, r"a\.png"),
    ),
    "label image of no image": (
        "instances",
        gone("images/train/a.png"),
        Listed("label map without an image", "left out", None, None, 2, 2, r"a\.png"),
    ),
    "number without a class": (
        "instances",
        swap("objects.csv", "train/a,1,cat\n", ""),
        object_of_a("unknown category", "ignored", r"a\.png, number 1.*no class"),
    ),
    "table of other columns": (
        "instances",
        swap("objects.csv", "image,", "file,"),
        Refused(r"objects\.csv: the first line must be image,number,class"),
    ),
    "table of no number": (
        "instances",
        swap("objects.csv", "a,1", "a,x"),
        Refused(r"objects\.csv, line 2"),
    ),
    # CVAT.
    "CVAT cut off": (
        "cvat",
        put("train.xml", cvat("ca", "db")[:-30]),
        Refused(r"train\.xml:\d+: no valid XML.*cut off"),
    ),
    "CVAT of entities": (
        "cvat",
        swap("train.xml", "<annotations>", LAUGHS + "<annotations>"),
        Refused("declares an entity.*remove the DOCTYPE"),
    ),
    "CVAT of other files": (
        "cvat",
        swap("train.xml", "<annotations>", OUTSIDE + "<annotations>"),
        Refused("declares an entity"),
    ),
    "CVAT nested deeply": (
        "cvat",
        element("<a>" * 100 + "</a>" * 100),
        Refused("nested too deeply"),
    ),
    "CVAT in Latin-1": (
        "cvat",
        put("train.xml", cvat("ca", "db", "cc").replace("cat", "\xe9").encode("latin-1")),
        Refused("no valid XML"),
    ),
    "CVAT with a byte order mark": (
        "cvat",
        put("train.xml", "\ufeff" + cvat("ca", "db", "cc")),
        Clean(),
    ),
    "CVAT's path of Windows": ("cvat", swap("train.xml", '"a.png"', '".\\a.png"'), Clean()),
    "CVAT's image under another path": (
        "cvat",
        swap("train.xml", '"a.png"', '"job 3\\a.png"'),
        Listed("image under another name", "repaired", None, None, 3, 3, "in another folder"),
    ),
    "CVAT's way out": (
        "cvat",
        swap("train.xml", '"a.png"', '"../../etc/x.png"'),
        Listed("path outside the data set", "left out", 1, None, 2, 2, "leads out"),
    ),
    "CVAT's image missing": (
        "cvat",
        gone("images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, "does not exist"),
    ),
    "CVAT's image without a name": (
        "cvat",
        swap("train.xml", 'name="a.png"', ""),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"xml:\d+: <image> has no name"),
    ),
    "no box": ("cvat", element(""), Clean(objects=2)),
    "box without a side": (
        "cvat",
        element(BOX.replace('xbr="12"', "")),
        object_of_a("bad points", "ignored", r"xml, line \d+.*xbr must be a number"),
    ),
    "box of NaN": (
        "cvat",
        element(BOX.replace("12", "nan")),
        object_of_a("NaN or infinite coordinates", "ignored", "xbr 'nan'"),
    ),
    "box of negative sides": (
        "cvat",
        element(BOX.replace("12", "0")),
        object_of_a("swapped corners", "repaired", "corners put in order"),
    ),
    "box of a class that is not listed": (
        "cvat",
        element(CVAT_BOX.format("cow")),
        object_of_a("unknown category", "ignored", "class 'cow' is none of the names"),
    ),
    "box without a class": (
        "cvat",
        element(CVAT_BOX.format("")),
        object_of_a("unknown category", "ignored"),
    ),
    "CVAT's unknown shape": (
        "cvat",
        element('<cube label="cat"/>'),
        object_of_a("unknown shape", "ignored", "<cube>"),
    ),
    "CVAT's points": (
        "cvat",
        element('<points label="cat" points="1,1"/><tag label="cat"/>'),
        Listed(
            "shape without area",
            "left out",
            None,
            None,
            3,
            2,
            r"xml:\d+.*1 x points in all",
        ),
    ),
    "polygon of CVAT without commas": (
        "cvat",
        element('<polygon label="cat" points="1 1 2 2"/>'),
        object_of_a("bad points", "ignored", "x,y;x,y"),
    ),
    "polygon of CVAT of two points": (
        "cvat",
        element('<polygon label="cat" points="1,1;2,2"/>'),
        object_of_a("polygon with too few points", "ignored"),
    ),
    "mask of CVAT beyond the image": (
        "cvat",
        element('<mask label="cat" left="38" top="3" width="4" height="2" rle="0, 8"/>'),
        object_of_a("mask outside the image", "ignored", "4x2 pixels at 38, 3"),
    ),
    "mask of CVAT of words": (
        "cvat",
        element('<mask label="cat" left="3" top="3" width="4" height="2" rle="a"/>'),
        object_of_a("bad RLE", "ignored", "whole numbers, got 'a'"),
    ),
    "mask of CVAT with a run too long": (
        "cvat",
        element('<mask label="cat" left="3" top="3" width="4" height="2" rle="2, 7"/>'),
        object_of_a("bad RLE", "repaired", "sum to 9, the mask has 8.*cut"),
    ),
    "mask of CVAT with negative runs": (
        "cvat",
        element('<mask label="cat" left="3" top="3" width="4" height="2" rle="2, -1, 7"/>'),
        object_of_a("bad RLE", "ignored", "below 0"),
    ),
    "mask of CVAT of nothing": (
        "cvat",
        element('<mask label="cat" left="3" top="3" width="4" height="2" rle="8"/>'),
        object_of_a("empty mask", "left out", "", 2),
    ),
    # Label Studio.
    "Label Studio cut off": (
        "labelstudio",
        put("train.json", json.dumps(TASKS)[:-20]),
        Refused(r"train\.json:1: no valid JSON"),
    ),
    "Label Studio of one task": (
        "labelstudio",
        put("train.json", json.dumps([5, *TASKS[1:]])),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"\[0\]: a task is an object, got 5"),
    ),
    "upload with its digits": (
        "labelstudio",
        first_task(data={"image": "/data/upload/7/0a1b2c3d-a.png"}),
        Listed("image under another name", "repaired", None, None, 3, 3, "digits of an upload"),
    ),
    "task without an image": (
        "labelstudio",
        first_task(data={"text": "hello"}),
        Listed("bad image entry", "left out", 1, None, 2, 2, "task 1 names no image"),
    ),
    "task of a file elsewhere": (
        "labelstudio",
        first_task(data={"image": "/data/local-files/?d=../../x.png"}),
        Listed("path outside the data set", "left out", 1, None, 2, 2),
    ),
    "task that was skipped": (
        "labelstudio",
        first_task(annotations=[{"was_cancelled": True, "result": []}]),
        Listed("task without annotation", "left out", None, None, 2, 2, "first task 1"),
    ),
    "task that nobody did": (
        "labelstudio",
        first_task(annotations=[]),
        Listed("task without annotation", "left out", None, None, 2, 2),
    ),
    "task without an object": (
        "labelstudio",
        first_task(annotations=[{"result": []}]),
        Clean(objects=2),
    ),
    "task that two did": (
        "labelstudio",
        first_task(annotations=[{"result": [], "updated_at": "2"}, *TASKS[0]["annotations"]]),
        Listed("several annotations", "repaired", 1, None, 3, 2, "task 1 has 2 annotations"),
    ),
    "percent beyond 100": (
        "labelstudio",
        value(x=90),
        object_of_a("box beyond the image", "repaired", "clipped"),
    ),
    "percent far beyond 100": (
        "labelstudio",
        value(x=900),
        object_of_a("box outside the image", "left out", "", 2),
    ),
    "negative percent": (
        "labelstudio",
        value(width=-5),
        object_of_a("swapped corners", "repaired"),
    ),
    "percent of NaN": (
        "labelstudio",
        value(x=NAN),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "percent of words": (
        "labelstudio",
        value(x="5%"),
        object_of_a("bad points", "ignored", r"task 1, result\[0\].*x must be a number of percent"),
    ),
    "no value": ("labelstudio", region(value=None), object_of_a("bad points", "ignored")),
    "no size of the image": (
        "labelstudio",
        region(original_width=None),
        object_of_a("no size", "ignored", "original_width"),
    ),
    "image turned in Label Studio": (
        "labelstudio",
        region(image_rotation=90),
        object_of_a("turned image", "ignored", "turn it back there"),
    ),
    "no label of a region": (
        "labelstudio",
        region(value={"x": 5, "y": 10, "width": 25, "height": 20}),
        object_of_a("unknown category", "ignored", "no class"),
    ),
    "choices of a region": (
        "labelstudio",
        region(type="choices", value={"x": 5, "y": 10, "choices": ["good"]}),
        Listed("shape without area", "left out", None, None, 3, 2, "1 x choices"),
    ),
    "brush of words": (
        "labelstudio",
        region(**BRUSH, value={"brushlabels": ["cat"], "rle": "x"}),
        object_of_a("bad RLE", "ignored", "list of bytes"),
    ),
    "brush cut off": (
        "labelstudio",
        region(**BRUSH, value={"brushlabels": ["cat"], "rle": encode_brush(DISK)[:-9]}),
        object_of_a("bad RLE", "ignored", "cut off"),
    ),
    "brush of another size": (
        "labelstudio",
        region(**BRUSH, value={"brushlabels": ["cat"], "rle": encode_brush(DISK[:20])}),
        object_of_a("RLE of another size", "ignored", "40x30 pixels needs 4800"),
    ),
    "brush of nothing": (
        "labelstudio",
        region(**BRUSH, value={"brushlabels": ["cat"], "rle": encode_brush(DISK & False)}),
        object_of_a("empty mask", "left out", "", 2),
    ),
}
