"""Like `tool_cases`: labels of VIA, CreateML, RetinaNet's tables, DOTA and Datumaro, made to what
these say of themselves, and what is wrong with them.
"""

from __future__ import annotations

import json
from typing import Any

from faults import NAN, Clean, Listed, Refused
from tool_cases import Change, Files, Outcome, gone, moved, object_of_a, put, swap


def via_image(file: str, label: Any = "cat", **shape: Any) -> dict[str, Any]:
    """An image of VIA 2 with a rectangle; `shape` changes it."""
    rectangle = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5} | shape
    region = {"shape_attributes": rectangle, "region_attributes": {"kind": label}}
    return {"filename": file, "size": 77, "regions": [region], "file_attributes": {}}


def via(*images: dict[str, Any], project: bool = False) -> str:
    content = {f"{one['filename']}{one['size']}": one for one in images}
    if project:
        return json.dumps({"_via_settings": {}, "_via_img_metadata": content})
    return json.dumps(content)


DOG = via_image("b.png", "dog")
C = via_image("c.png")
VIA: Files = {
    "train.json": via(via_image("a.png"), DOG, C),
    "val.json": via(via_image("v.png"), project=True),
    "classes.txt": "cat\ndog\n",
}


def apple(name: str, label: Any = "cat", **sides: Any) -> dict[str, Any]:
    """An image of CreateML; x and y are the middle of the box."""
    box = {"x": 7, "y": 5.5, "width": 10, "height": 5} | sides
    return {"image": name, "annotations": [{"label": label, "coordinates": box}]}


CREATEML: Files = {
    "train/_annotations.createml.json": json.dumps(
        [apple("a.png"), apple("b.png", "dog"), apple("c.png")]
    ),
    "valid/_annotations.createml.json": json.dumps([apple("v.png")]),
    "classes.txt": "cat\ndog\n",
}
LINE = "images/a.png,2,3,12,8,cat\n"
REST = "images/b.png,2,3,12,8,dog\nimages/c.png,2,3,12,8,cat\n"
RETINANET: Files = {
    "train.csv": LINE + REST,
    "val.csv": "images/v.png,2,3,12,8,cat\n",
    "classes.csv": "cat,0\ndog,1\n",
}
HEAD = "imagesource:GoogleEarth\ngsd:0.146343590398\n"


SQUARE = "2.0 3.0 12.0 3.0 12.0 8.0 2.0 8.0"


def dota(name: str = "cat", corners: str = SQUARE, end: str = " 0") -> str:
    return f"{HEAD}{corners} {name}{end}\n"


DOTA: Files = {
    "train/labelTxt/a.txt": dota(),
    "train/labelTxt/b.txt": dota("dog"),
    "train/labelTxt/c.txt": dota(),
    "val/labelTxt/v.txt": dota(),
    "classes.txt": "cat\ndog\n",
}


def datum(*items: tuple[str, int]) -> str:
    """Datumaro's JSON of images by their names, each with an object of a class and its keypoint."""

    def item(name: str, label: int) -> dict[str, Any]:
        one = {"attributes": {"occluded": False}, "group": 1, "label_id": label}
        box = {"type": "bbox", "bbox": [2, 3, 10, 5]} | one
        points = {"type": "points", "points": [4, 5], "visibility": [2]} | one
        image = {"path": f"{name}.png", "size": [30, 40]}
        return {"id": name, "annotations": [box, points], "image": image}

    joints = [{"label_id": k, "labels": ["nose"], "joints": []} for k in range(2)]
    labels = {"labels": [{"name": "cat"}, {"name": "dog"}]}
    categories = {"label": labels, "points": {"items": joints}}
    return json.dumps({"categories": categories, "items": [item(*one) for one in items]})


DATUMARO: Files = {
    "annotations/train.json": datum(("a", 0), ("b", 1), ("c", 0)),
    "annotations/val.json": datum(("v", 0)),
}


def lab(*images: tuple[str, str], box: str = "top='3' left='2' width='10' height='5'") -> str:
    """Imglab's XML of images by their names, each with a box of a class."""
    nodes = "".join(
        f"<image file='images/{name}.png'>\n<box {box}><label>{label}</label></box></image>\n"
        for name, label in images
    )
    return f"<?xml version='1.0'?>\n<dataset>\n<images>\n{nodes}</images></dataset>"


OTHERS = ("b", "dog"), ("c", "cat")
IMGLAB: Files = {
    "train.xml": lab(("a", "cat"), *OTHERS),
    "val.xml": lab(("v", "cat")),
}


def lab_box(box: str) -> Change:
    """Change the box of the first image of imglab."""
    text = str(IMGLAB["train.xml"])
    return put("train.xml", text.replace("top='3' left='2' width='10' height='5'", box, 1))


def sample(name: str, label: Any = "cat", **more: Any) -> dict[str, Any]:
    """A sample of FiftyOne with a detection of 10 x 6 pixels; `more` changes the detection."""
    box = {"_cls": "Detection", "label": label, "bounding_box": [0.05, 0.1, 0.25, 0.2]} | more
    found = {"_cls": "Detections", "detections": [box]}
    return {"filepath": f"data/{name}.png", "ground_truth": found}


def samples(*own: dict[str, Any]) -> str:
    return json.dumps({"samples": own})


FIFTYONE: Files = {
    "train/samples.json": samples(sample("a"), sample("b", "dog"), sample("c")),
    "val/samples.json": samples(sample("v")),
}
S = "train/samples.json"


def first_sample(**more: Any) -> Change:
    return put(S, samples(sample("a", **more), sample("b", "dog"), sample("c")))


BESIDE = tuple(f"images/{name}.png" for name in "abcv")
TOOLS: dict[str, Files] = {
    "via": VIA, "createml": CREATEML, "retinanet": RETINANET, "dota": DOTA, "datumaro": DATUMARO,
    "imglab": IMGLAB, "fiftyone": FIFTYONE,
}  # fmt: skip
IMAGES: dict[str, tuple[str, ...]] = {
    "via": BESIDE,
    "retinanet": BESIDE,
    "datumaro": BESIDE,
    "imglab": BESIDE,
    "fiftyone": (*(f"train/data/{name}.png" for name in "abc"), "val/data/v.png"),
    "createml": (*(f"train/{name}.png" for name in "abc"), "valid/v.png"),
    "dota": (*(f"train/images/{name}.png" for name in "abc"), "val/images/v.png"),
}
U = "annotations/train.json"
V, M, R, D = "train.json", "train/_annotations.createml.json", "train.csv", "train/labelTxt/a.txt"


def first_via(label: Any = "cat", **shape: Any) -> Change:
    return put(V, via(via_image("a.png", label, **shape), DOG, C))


def first_apple(label: Any = "cat", **sides: Any) -> Change:
    rest = [apple("b.png", "dog"), apple("c.png")]
    return put(M, json.dumps([apple("a.png", label, **sides), *rest]))


def first_item(box: dict[str, Any] | None = None, **entries: Any) -> Change:
    """Change the first item of Datumaro, and its box."""
    content = json.loads(str(DATUMARO[U]))
    content["items"][0].update(entries)
    content["items"][0]["annotations"][0].update(box or {})
    return put(U, json.dumps(content))


def image_of_item(path: str) -> Change:
    return first_item(image={"path": path, "size": [30, 40]})


def second_line(text: str) -> Change:
    return put(R, REST.replace("dog\n", f"dog\n{text}"))


def first_line(text: str) -> Change:
    return put(R, text + REST)


CASES: dict[str, tuple[str, Change, Outcome]] = {
    # VIA.
    "VIA cut off": (
        "via",
        put(V, VIA["train.json"][:90]),
        Refused(r"train\.json:1: no valid JSON"),
    ),
    "VIA of bytes": (
        "via",
        put(V, b'{"a": {"filename": "\xff", "regions": []}}'),
        Refused("save it as UTF-8"),
    ),
    "VIA with a byte order mark": ("via", put(V, "\ufeff" + str(VIA["train.json"])), Clean()),
    "VIA nested deeply": (
        "via",
        put(V, '{"a": {"filename": "b", "regions": ' + "[" * 99_999),
        Refused("train.json"),
    ),
    "image of VIA without a name": (
        "via",
        put(V, via({"filename": "", "size": 1, "regions": []}, DOG, C)),
        Listed("bad image entry", "left out", 1, None, 2, 2, "needs a filename"),
    ),
    "VIA's image missing": (
        "via",
        gone("images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "VIA's way out": (
        "via",
        put(V, via(via_image("../../a.png"), DOG, C)),
        Listed("path outside the data set", "left out", 1, None, 2, 2),
    ),
    "VIA of Windows": (
        "via",
        put(V, via(via_image("images\\a.png"), DOG, C)),
        Listed("image under another name", "repaired", None, None, 3, 3),
    ),
    "VIA's address": ("via", put(V, via(via_image("https://x.org/y/a.png"), DOG, C)), Clean()),
    "point of VIA": (
        "via",
        first_via(name="point", cx=2, cy=3),
        Listed("shape without area", "left out", None, None, 3, 2, "1 x point"),
    ),
    "unknown shape of VIA": (
        "via",
        first_via(name="cube"),
        object_of_a("unknown shape", "ignored", r"regions\[0\].*'cube'"),
    ),
    "words of VIA": (
        "via",
        first_via(x="2"),
        object_of_a("bad points", "ignored", "x must be a n"),
    ),
    "NaN of VIA": ("via", first_via(x=NAN), object_of_a("NaN or infinite coordinates", "ignored")),
    "negative side of VIA": (
        "via",
        first_via(width=-4),
        object_of_a("swapped corners", "repaired"),
    ),
    "uneven polygon of VIA": (
        "via",
        first_via(name="polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]),
        object_of_a("bad points", "ignored", "lists of one length"),
    ),
    "region of VIA without a class": (
        "via",
        first_via(label=""),
        object_of_a("unknown category", "ignored", "no class"),
    ),
    "two classes of a region of VIA": (
        "via",
        first_via(label={"cat": True, "dog": True}),
        object_of_a("several labels of a region", "repaired", r"\['cat', 'dog'\] the first"),
    ),
    # CreateML.
    "CreateML cut off": ("createml", put(M, str(CREATEML[M])[:150]), Refused("no valid JSON")),
    "CreateML's entry without a list": (
        "createml",
        put(M, json.dumps([{"image": "a.png"}, apple("b.png", "dog"), apple("c.png")])),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"\[0\].*the list 'annotations'"),
    ),
    "CreateML's image missing": (
        "createml",
        gone("train/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "CreateML's words": (
        "createml",
        first_apple(x="7"),
        object_of_a("bad box", "ignored", "x must"),
    ),
    "CreateML's NaN": (
        "createml",
        first_apple(width=NAN),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "CreateML's empty box": (
        "createml",
        first_apple(width=0),
        object_of_a("empty box", "left out", "", 2),
    ),
    "CreateML's unknown class": (
        "createml",
        first_apple("bird"),
        object_of_a("unknown category", "ignored", "'bird' is none of the names"),
    ),
    # RetinaNet.
    "RetinaNet's image without an object": (
        "retinanet",
        first_line("images/a.png,,,,,\n"),
        Clean(objects=2),
    ),
    "RetinaNet's byte order mark": ("retinanet", first_line("\ufeff" + LINE), Clean()),
    "RetinaNet of Windows": ("retinanet", first_line(LINE.replace("/", "\\")), Clean()),
    "RetinaNet of another machine": (
        "retinanet",
        first_line(LINE.replace("images", "/home/me/x")),
        Listed("image under another name", "repaired", None, None, 3, 3, r"/home/me/x/a\.png"),
    ),
    "RetinaNet's image missing": (
        "retinanet",
        gone("images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "RetinaNet's words": (
        "retinanet",
        second_line("images/a.png,2,x,12,8,cat\n"),
        Listed("bad line", "ignored", 2, None, 3, 3, r"train\.csv, line 2.*y1 must be a number"),
    ),
    "RetinaNet's NaN": (
        "retinanet",
        second_line("images/a.png,2,nan,12,8,cat\n"),
        Listed("NaN or infinite coordinates", "ignored", 2, None, 3, 3),
    ),
    "RetinaNet's line cut off": (
        "retinanet",
        second_line("images/a.png,2,3\n"),
        Listed("bad line", "ignored", 2, None, 3, 3, "has 6 cells, got 3"),
    ),
    "RetinaNet's corners exchanged": (
        "retinanet",
        first_line("images/a.png,12,8,2,3,cat\n"),
        object_of_a("swapped corners", "repaired"),
    ),
    "RetinaNet's unknown class": (
        "retinanet",
        first_line(LINE.replace("cat", "bird")),
        object_of_a("unknown category", "ignored", "'bird' is none of the names"),
    ),
    "RetinaNet's classes twice": (
        "retinanet",
        put("classes.csv", "cat,0\ndog,0\n"),
        Refused(r"classes\.csv, line 2: the number 0 is that of 'cat' already"),
    ),
    "RetinaNet's classes without numbers": (
        "retinanet",
        put("classes.csv", "cat,0\ndog\n"),
        Refused(r"classes\.csv, line 2: expected a class and its number"),
    ),
    # DOTA.
    "DOTA without its first lines": ("dota", put(D, dota().replace(HEAD, "")), Clean()),
    "DOTA without difficult": ("dota", put(D, dota(end="")), Clean()),
    "DOTA without an object": ("dota", put(D, HEAD), Clean(objects=2)),
    "DOTA of Windows": ("dota", put(D, dota().replace("\n", "\r\n")), Clean()),
    "difficult object of DOTA": ("dota", put(D, dota(end=" 1")), Clean()),
    "DOTA cut off": (
        "dota",
        put(D, dota()[: len(HEAD) + 20]),
        object_of_a("bad line", "ignored", r"a\.txt, line 3.*8 numbers, a class"),
    ),
    "DOTA's words": (
        "dota",
        put(D, dota(corners="2 3 x 3 12 8 2 8")),
        object_of_a("bad line", "ignored", "expected numbers, got 'x'"),
    ),
    "DOTA's NaN": (
        "dota",
        put(D, dota(corners="2 3 nan 3 12 8 2 8")),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "DOTA's unknown class": (
        "dota",
        put(D, dota("bird")),
        object_of_a("unknown category", "ignored", "'bird' is none of the names"),
    ),
    "DOTA of bytes": (
        "dota",
        put(D, b"\xff\xfe2 3"),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "save it as UTF-8"),
    ),
    "DOTA's image renamed": (
        "dota",
        moved("train/images/a.png", "train/images/x.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    # Datumaro.
    "Datumaro cut off": (
        "datumaro",
        put(U, str(DATUMARO[U])[:-80]),
        Refused(r"train\.json:1: no valid JSON.*cut off"),
    ),
    "Datumaro of bytes": (
        "datumaro",
        put(U, str(DATUMARO[U]).encode().replace(b'"cat"', b'"c\xe4t"')),
        Refused("save it as UTF-8"),
    ),
    "Datumaro without a byte": (
        "datumaro",
        put(U, ""),
        Refused(r"train\.json.*cannot be read .empty file.*copy it again"),
    ),
    "Datumaro with a byte order mark": ("datumaro", put(U, "\ufeff" + str(DATUMARO[U])), Clean()),
    "Datumaro in UTF-16": ("datumaro", put(U, str(DATUMARO[U]).encode("utf-16")), Clean()),
    "Datumaro nested deeply": (
        "datumaro",
        put(U, '{"categories": {}, "items": [{"annotations": ' + "[" * 99_999),
        Refused("train.json is nested too deeply"),
    ),
    "Datumaro's items as a number": (
        "datumaro",
        put(U, '{"categories": {}, "items": 3}'),
        Refused(r"train\.json.*JSON of no known format.*val\.json is Datumaro JSON"),
    ),
    "Datumaro's item without an id": (
        "datumaro",
        first_item(id=None, image={}),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"items\[0\].*needs an id"),
    ),
    "Datumaro's image missing": (
        "datumaro",
        gone("images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "Datumaro's image renamed": (
        "datumaro",
        moved("images/a.png", "images/x.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "Datumaro's way out": (
        "datumaro",
        image_of_item("../../a.png"),
        Listed("path outside the data set", "left out", 1, None, 2, 2),
    ),
    "Datumaro of Windows": (
        "datumaro",
        image_of_item("images\\a.png"),
        Listed("image under another name", "repaired", None, None, 3, 3),
    ),
    "Datumaro of another machine": (
        "datumaro",
        image_of_item("C:\\photos\\a.png"),
        Listed("image under another name", "repaired", None, None, 3, 3, r"photos/a\.png"),
    ),
    "Datumaro's size of words": (
        "datumaro",
        first_item(image={"path": "a.png", "size": ["x", -4]}),
        Listed("bad image size", "repaired", 1, None, 3, 3),
    ),
    "Datumaro's words": (
        "datumaro",
        first_item({"bbox": [2, "3", 10, 5]}),
        object_of_a("bad points", "ignored", r"items\[0\], annotations\[0\].*bbox must be a n"),
    ),
    "Datumaro's NaN": (
        "datumaro",
        first_item({"bbox": [2, NAN, 10, 5]}),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "Datumaro's number of 400 digits": (
        "datumaro",
        first_item({"bbox": [2, 10**400, 10, 5]}),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "Datumaro's negative side": (
        "datumaro",
        first_item({"bbox": [12, 8, -10, -5]}),
        object_of_a("swapped corners", "repaired"),
    ),
    "Datumaro's empty box": (
        "datumaro",
        first_item({"bbox": [2, 3, 0, 5]}),
        object_of_a("empty box", "left out", "", 2),
    ),
    "Datumaro's box beyond the image": (
        "datumaro",
        first_item({"bbox": [30, 3, 30, 5]}),
        object_of_a("box beyond the image", "repaired", "clipped"),
    ),
    "Datumaro's unknown type": (
        "datumaro",
        first_item({"type": "cuboid_3d"}),
        Listed("shape without area", "left out", None, None, 3, 3, r"\[0\].*1 x cuboid_3d"),
    ),
    "Datumaro's annotation of a word": (
        "datumaro",
        lambda root: put(
            U, str(DATUMARO[U]).replace('"annotations": [', '"annotations": ["x", ', 1)
        )(root),
        Listed("shape without area", "left out", None, None, 3, 3, r"annotations\[0\]"),
    ),
    "Datumaro's class beyond the names": (
        "datumaro",
        first_item({"label_id": 7}),
        object_of_a("unknown category", "ignored", "class number 7 is none of the names"),
    ),
    "Datumaro's keypoint of NaN": (
        "datumaro",
        lambda root: put(U, str(DATUMARO[U]).replace("[4, 5]", "[4, NaN]", 1))(root),
        Listed("bad keypoints", "left out", 1, None, 3, 3, r"annotations\[1\]"),
    ),
    # Imglab.
    "imglab cut off": (
        "imglab",
        put("train.xml", str(IMGLAB["train.xml"])[:-40]),
        Refused(r"train\.xml:\d+: no valid XML.*cut off"),
    ),
    "imglab that laughs": (
        "imglab",
        put("train.xml", '<!DOCTYPE a [<!ENTITY b "lol">]>' + str(IMGLAB["train.xml"])[22:]),
        Refused("declares an entity.*remove the DOCTYPE"),
    ),
    "imglab of an unknown encoding": (
        "imglab",
        put("train.xml", str(IMGLAB["train.xml"]).replace("'1.0'", "'1.0' encoding='x-no'", 1)),
        Refused("save it as UTF-8"),
    ),
    "imglab with a byte order mark": (
        "imglab",
        put("train.xml", "\ufeff" + str(IMGLAB["train.xml"])),
        Clean(),
    ),
    "imglab of Windows": (
        "imglab",
        put("train.xml", str(IMGLAB["train.xml"]).replace("images/", "images\\")),
        Clean(),
    ),
    "imglab's image missing": (
        "imglab",
        gone("images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "imglab's way out": (
        "imglab",
        put("train.xml", lab(("../../a", "cat"), *OTHERS)),
        Listed("path outside the data set", "left out", 1, None, 2, 2),
    ),
    "imglab's words": (
        "imglab",
        lab_box("top='x' left='2' width='10' height='5'"),
        object_of_a("bad box", "ignored", r"train\.xml, line 5.*top must be a number"),
    ),
    "imglab's NaN": (
        "imglab",
        lab_box("top='nan' left='2' width='10' height='5'"),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "imglab's box without a side": (
        "imglab",
        lab_box("top='3' left='2' width='10'"),
        object_of_a("bad box", "ignored", "height"),
    ),
    "imglab's negative side": (
        "imglab",
        lab_box("top='8' left='12' width='-10' height='-5'"),
        object_of_a("swapped corners", "repaired"),
    ),
    "imglab's part without a name": (
        "imglab",
        swap("train.xml", "height='5'><label>dog", "height='5'><part x='1' y='1'/><label>dog"),
        Listed("bad keypoints", "left out", 2, None, 3, 3, "needs the attribute name"),
    ),
    # FiftyOne.
    "FiftyOne cut off": (
        "fiftyone",
        put(S, str(FIFTYONE[S])[:-20]),
        Refused(r"samples\.json:1: no valid JSON.*cut off"),
    ),
    "FiftyOne of bytes": (
        "fiftyone",
        put(S, str(FIFTYONE[S]).encode().replace(b"cat", b"c\xe4t")),
        Refused("save it as UTF-8"),
    ),
    "FiftyOne with a byte order mark": (
        "fiftyone",
        put(S, "\ufeff" + str(FIFTYONE[S])),
        Clean(),
    ),
    "FiftyOne's sample without a path": (
        "fiftyone",
        put(S, samples(sample("a") | {"filepath": None}, sample("b", "dog"), sample("c"))),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"samples\[0\].*needs a filepath"),
    ),
    "FiftyOne's image missing": (
        "fiftyone",
        gone("train/data/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.png"),
    ),
    "FiftyOne of another machine": (
        "fiftyone",
        put(S, str(FIFTYONE[S]).replace('"data/', '"/home/me/fiftyone/data/')),
        Listed("image under another name", "repaired", None, None, 3, 3),
    ),
    "FiftyOne's way out": (
        "fiftyone",
        put(S, str(FIFTYONE[S]).replace('"data/a', '"../../data/a')),
        Listed("path outside the data set", "left out", 1, None, 2, 2),
    ),
    "FiftyOne's pixels": (
        "fiftyone",
        first_sample(bounding_box=[2, 3, 10, 5]),
        object_of_a("no fractions", "ignored", "divide by the size of the image"),
    ),
    "FiftyOne's words": (
        "fiftyone",
        first_sample(bounding_box=[0.1, "x", 0.2, 0.2]),
        object_of_a("bad box", "ignored", r"samples\[0\]\.ground_truth\[0\]"),
    ),
    "FiftyOne's NaN": (
        "fiftyone",
        first_sample(bounding_box=[0.1, NAN, 0.2, 0.2]),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "FiftyOne's negative side": (
        "fiftyone",
        first_sample(bounding_box=[0.5, 0.5, -0.2, -0.2]),
        object_of_a("swapped corners", "repaired"),
    ),
    "FiftyOne's mask of words": (
        "fiftyone",
        first_sample(mask={"$binary": {"base64": "aGVsbG8=", "subType": "00"}}),
        object_of_a("bad mask", "ignored", "an array in zlib and base64"),
    ),
    "FiftyOne's object without a label": (
        "fiftyone",
        first_sample(label=None),
        object_of_a("unknown category", "ignored", "it has no class"),
    ),
    "FiftyOne's open polyline": (
        "fiftyone",
        first_sample(points=[[[0.1, 0.1], [0.5, 0.5]]], closed=False),
        Listed("shape without area", "left out", None, None, 3, 2, "1 x open polyline"),
    ),
}
