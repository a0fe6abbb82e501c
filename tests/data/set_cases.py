"""Like `tool_cases`: three images with an object each as published data sets and other tools have
them, and what is wrong with them.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import annotator_cases
import numpy as np
from faults import NAN, Clean, Listed, Refused, png_header
from PIL import Image
from tool_cases import Change, Files, Outcome, gone, moved, object_of_a, put


def supervisely(label: str = "cat", **more: Any) -> str:
    """An annotation as the SDK's Annotation.to_json writes it; `more` changes the object."""
    one = {"description": "", "tags": [], "classTitle": label, "geometryType": "rectangle"}
    one |= {"points": {"exterior": [[2, 3], [11, 7]], "interior": []}, **more}
    size = {"height": 30, "width": 40}
    return json.dumps({"description": "", "tags": [], "size": size, "objects": [one]})


def bitmap(mask: np.ndarray, mode: str = "P") -> str:
    """The code of the SDK's Bitmap: a palette with a transparent entry; formerly RGBA."""
    image = Image.fromarray(mask.astype(np.uint8))
    options = {}
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 255, 255])
        options["transparency"] = 0
    else:
        image = Image.fromarray(np.repeat(255 * mask[..., None].astype(np.uint8), 4, 2), "RGBA")
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return packed(stream.getvalue())


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


SUPERVISELY: Files = {
    "meta.json": json.dumps(
        {
            "classes": [
                {"title": name, "shape": "any", "color": "#FF0000"} for name in ("cat", "dog")
            ],
            "tags": [],
            "projectType": "images",
        }
    ),
    "train/ann/a.png.json": supervisely(),
    "train/ann/b.png.json": supervisely("dog"),
    "train/ann/c.png.json": supervisely(),
    "val/ann/v.png.json": supervisely(),
}


def person(image: str, tag: str = "cat", **more: Any) -> str:
    """A line as CrowdHuman's annotation_train.odgt has them; `more` changes the object."""
    one = {"fbox": [2, 3, 10, 5], "tag": tag, "extra": {"box_id": 0, "occ": 0}, **more}
    return json.dumps({"ID": image, "gtboxes": [one]}) + "\n"


CROWDHUMAN: Files = {
    "annotation_train.odgt": person("a") + person("b", "dog") + person("c"),
    "annotation_val.odgt": person("v"),
    "classes.txt": "cat\ndog\n",
}
# As the development kit describes a line: 3D sizes, places and angles behind the box.
PLACE = "1.89 0.48 1.20 1.84 1.47 8.41 0.01"


def kitti(name: str = "cat", box: str = "2.00 3.00 12.00 8.00") -> str:
    return f"{name} 0.00 0 -0.20 {box} {PLACE}\n"


KITTI: Files = {
    "train/label_2/a.txt": kitti(),
    "train/label_2/b.txt": kitti("dog"),
    "train/label_2/c.txt": kitti(),
    "val/label_2/v.txt": kitti(),
    "classes.txt": "cat\ndog\n",
}
HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside\n"
)


def box_row(image: str, label: str = "/m/01", sides: str = "0.05,0.3,0.1,0.26666667") -> str:
    """A line of Open Images' train-annotations-bbox.csv: XMin, XMax, YMin, YMax."""
    return f"{image},xclick,{label},1,{sides},0,1,0,0,0\n"


OPEN_IMAGES: Files = {
    "train-annotations-bbox.csv": HEADER + box_row("a") + box_row("b", "/m/02") + box_row("c"),
    "validation-annotations-bbox.csv": HEADER + box_row("v"),
    "class-descriptions-boxable.csv": "/m/01,cat\n/m/02,dog\n",
}


def lines(*rows: tuple[str, str]) -> str:
    """metadata.jsonl of Hugging Face's image folders; the area tells the order of a box."""
    return "".join(table_row(image, label) for image, label in rows)


def table_row(image: str, label: Any = "cat", box: Any = (2, 3, 10, 5), area: Any = 50) -> str:
    objects = {"bbox": [box], "area": [area], "category": [label]}
    return json.dumps({"file_name": image, "objects": objects}) + "\n"


HUGGINGFACE: Files = {
    "train/metadata.jsonl": lines(("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat")),
    "val/metadata.jsonl": lines(("v.png", "cat")),
}


def geo(label: Any = "cat", points: Any = None, **more: Any) -> str:
    """GeoJSON (RFC 7946) in pixels, with a class as QuPath has it; `more` changes the feature."""
    ring = points or [[2, 3], [12, 3], [12, 8], [2, 8], [2, 3]]
    one = {"type": "Feature", "properties": {"classification": {"name": label}}}
    one |= {"geometry": {"type": "Polygon", "coordinates": [ring]}} | more
    return json.dumps({"type": "FeatureCollection", "features": [one]})


GEO: Files = {
    "train/a.geojson": geo(),
    "train/b.geojson": geo("dog"),
    "train/c.geojson": geo(),
    "val/v.geojson": geo(),
}
TOOLS: dict[str, Files] = {
    "huggingface": HUGGINGFACE,
    "geo": GEO,
    "supervisely": SUPERVISELY,
    "crowdhuman": CROWDHUMAN,
    "kitti": KITTI,
    "openimages": OPEN_IMAGES,
}
IMAGES: dict[str, tuple[str, ...]] = {
    "huggingface": (*(f"train/{name}.png" for name in "abc"), "val/v.png"),
    "geo": (*(f"train/{name}.png" for name in "abc"), "val/v.png"),
    "supervisely": (*(f"train/img/{name}.png" for name in "abc"), "val/img/v.png"),
    "crowdhuman": tuple(f"Images/{name}.png" for name in "abcv"),
    "kitti": (*(f"train/image_2/{name}.png" for name in "abc"), "val/image_2/v.png"),
    "openimages": (*(f"train/{name}.png" for name in "abc"), "validation/v.png"),
}
S = "train/ann/a.png.json"


def sly(**entries: Any) -> Change:
    """Change the object of the first image of Supervisely."""
    return put(S, supervisely(**entries))


def sly_bitmap(data: Any, origin: Any = (2, 3)) -> Change:
    return sly(geometryType="bitmap", bitmap={"data": data, "origin": origin})


def unreadable(says: str) -> Listed:
    return Listed("unreadable labels", "left out", 1, None, 2, 2, says)


H, J = "train/metadata.jsonl", "train/a.geojson"
G, K, T = "annotation_train.odgt", "train/label_2/a.txt", "train-annotations-bbox.csv"


def odgt(line: str) -> Change:
    """Change the first line of CrowdHuman."""
    return put(G, line + person("b", "dog") + person("c"))


def first_row(line: str) -> Change:
    """Change the first line of Hugging Face."""
    return put(H, line + lines(("b.png", "dog"), ("c.png", "cat")))


def row_of(line: str) -> Change:
    """Change the first line of Open Images."""
    return put(T, HEADER + line + box_row("b", "/m/02") + box_row("c"))


FULL = np.ones((5, 10), bool)
CASES: dict[str, tuple[str, Change, Outcome]] = {
    # Supervisely.
    "Supervisely cut off": (
        "supervisely",
        put(S, supervisely()[:-20]),
        unreadable(r"a\.png\.json:1: no valid JSON"),
    ),
    "Supervisely with a byte order mark": (
        "supervisely",
        put(S, "\ufeff" + supervisely()),
        Clean(),
    ),
    "Supervisely in UTF-16": ("supervisely", put(S, supervisely().encode("utf-16")), Clean()),
    "Supervisely of bytes": (
        "supervisely",
        put(S, b'{"size": 1, "tags": [], "objects": [{"classTitle": "\xff"}]}'),
        unreadable("save it as UTF-8"),
    ),
    "Supervisely without a size": (
        "supervisely",
        put(S, supervisely().replace('"height": 30, ', "")),
        unreadable("size needs the height and width"),
    ),
    "Supervisely of another size": (
        "supervisely",
        put(S, supervisely().replace('"height": 30', '"height": -3')),
        unreadable("size needs the height and width"),
    ),
    "no object in Supervisely": (
        "supervisely",
        put(S, '{"size": {"height": 30, "width": 40}, "tags": [], "objects": []}'),
        Clean(objects=2),
    ),
    "objects that are no list": (
        "supervisely",
        put(S, '{"size": {"height": 30, "width": 40}, "tags": [], "objects": {"classTitle": 1}}'),
        unreadable("no list 'objects'"),
    ),
    "Supervisely without the suffix of the image": (
        "supervisely",
        moved(S, "train/ann/a.json"),
        Clean(),
    ),
    "Supervisely's image missing": (
        "supervisely",
        gone("train/img/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, "does not exist"),
    ),
    "points of Supervisely": (
        "supervisely",
        sly(geometryType="point"),
        Listed("shape without area", "left out", None, None, 3, 2, r"objects\[0\].*1 x point"),
    ),
    "unknown geometry": (
        "supervisely",
        sly(geometryType="blob"),
        object_of_a("unknown shape", "ignored", r"a\.png\.json, objects\[0\].*'blob'"),
    ),
    "no class in Supervisely": (
        "supervisely",
        sly(label=""),
        object_of_a("unknown category", "ignored"),
    ),
    "class that meta.json lacks": (
        "supervisely",
        sly(label="cow"),
        object_of_a("unknown category", "ignored", "'cow' is none of the names"),
    ),
    "class of the object is a tag": (
        "supervisely",
        sly(tags=[{"name": "ignore", "value": None}]),
        Clean(),
    ),
    "rectangle of Supervisely in any order": (
        "supervisely",
        sly(points={"exterior": [[11, 3], [2, 7]]}),
        Clean(),
    ),
    "rectangle of Supervisely of NaN": (
        "supervisely",
        sly(points={"exterior": [[NAN, 3], [2, 7]]}),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "rectangle of Supervisely without points": (
        "supervisely",
        sly(points=[[1, 2], [3, 4]]),
        object_of_a("bad points", "ignored", "points must have exterior"),
    ),
    "hole of two points": (
        "supervisely",
        sly(
            geometryType="polygon",
            points={"exterior": [[2, 3], [9, 3], [9, 9]], "interior": [[[3, 4], [5, 6]]]},
        ),
        object_of_a("bad points", "ignored", "needs 3 or more points"),
    ),
    "bitmap of no base64": (
        "supervisely",
        sly_bitmap("%%%"),
        object_of_a("bad mask", "ignored", "no PNG packed by zlib"),
    ),
    "bitmap that is not packed": (
        "supervisely",
        sly_bitmap(base64.b64encode(b"hello").decode()),
        object_of_a("bad mask", "ignored"),
    ),
    "bitmap of no PNG": (
        "supervisely",
        sly_bitmap(packed(b"x")),
        object_of_a("bad mask", "ignored"),
    ),
    "no bitmap": ("supervisely", sly(geometryType="bitmap"), object_of_a("bad mask", "ignored")),
    "bitmap that unpacks to gigabytes": (
        "supervisely",
        sly_bitmap(packed(bytes(10_000_000))),
        object_of_a("mask of another size", "ignored", "unpacks to more than"),
    ),
    "bitmap that claims to be huge": (
        "supervisely",
        sly_bitmap(packed(png_header(100_000, 100_000))),
        object_of_a("bad mask", "ignored", "exceeds limit"),
    ),
    "bitmap larger than its image": (
        "supervisely",
        sly_bitmap(bitmap(np.ones((50, 60), bool))),
        object_of_a("mask of another size", "ignored", "60x50 pixels, its image 40x30"),
    ),
    "bitmap without an origin": (
        "supervisely",
        sly_bitmap(bitmap(FULL), None),
        object_of_a("bad points", "ignored"),
    ),
    "bitmap far away": (
        "supervisely",
        sly_bitmap(bitmap(FULL), [1000, 3]),
        object_of_a("mask outside the image", "ignored"),
    ),
    "bitmap of nothing": (
        "supervisely",
        sly_bitmap(bitmap(FULL & False)),
        object_of_a("empty mask", "left out", "", 2),
    ),
    # Hugging Face.
    "lines with a byte order mark": (
        "huggingface",
        put(H, "\ufeff" + str(HUGGINGFACE[H])),
        Clean(),
    ),
    "line cut off": (
        "huggingface",
        put(H, str(HUGGINGFACE[H])[:-9]),
        Refused(r"metadata\.jsonl:3: no valid JSON.*cut off"),
    ),
    "line of a list": ("huggingface", put(H, "[1]\n"), Refused("a line is an object")),
    "no objects": (
        "huggingface",
        first_row('{"file_name": "a.png", "objects": {"bbox": [], "category": []}}\n'),
        Clean(objects=2),
    ),
    "null objects": (
        "huggingface",
        first_row('{"file_name": "a.png", "objects": null}\n'),
        Clean(objects=2),
    ),
    "path of Windows in a line": ("huggingface", first_row(table_row(".\\a.png")), Clean()),
    "way out of a line": (
        "huggingface",
        first_row(table_row("../../etc/x.png")),
        Listed("missing image", "left out", 1, None, 2, 2, r"x\.png"),
    ),
    "box of three numbers": (
        "huggingface",
        first_row(table_row("a.png", box=[1, 2, 3])),
        object_of_a("bad box", "ignored", "line 1, object 0.*four finite numbers"),
    ),
    "box of NaN in a line": (
        "huggingface",
        first_row(table_row("a.png", box=[1, 2, NAN, 3])),
        object_of_a("bad box", "ignored"),
    ),
    "box of negative sides in a line": (
        "huggingface",
        first_row(table_row("a.png", box=[12, 3, -10, 5])),
        object_of_a("swapped corners", "repaired"),
    ),
    "no class in a line": (
        "huggingface",
        first_row(table_row("a.png", None)),
        object_of_a("unknown category", "ignored", "no class"),
    ),
    # GeoJSON.
    "GeoJSON cut off": (
        "geo",
        put(J, geo()[:-20]),
        unreadable(r"a\.geojson:1: no valid JSON"),
    ),
    "GeoJSON with a byte order mark": ("geo", put(J, "\ufeff" + geo()), Clean()),
    "GeoJSON of bytes": ("geo", put(J, geo().encode()[:-9] + b"\xff"), unreadable("UTF-8")),
    "GeoJSON of nothing": ("geo", put(J, '{"type": "F", "features": []}'), Clean(objects=2)),
    "no geometry": (
        "geo",
        put(J, geo(geometry=None)),
        Listed("shape without area", "left out", None, None, 3, 2, "1 x no geometry"),
    ),
    "line of GeoJSON": (
        "geo",
        put(J, geo(geometry={"type": "LineString", "coordinates": [[1, 1], [2, 2]]})),
        Listed("shape without area", "left out", None, None, 3, 2, "1 x LineString"),
    ),
    "coordinates of words": (
        "geo",
        put(J, geo(points=[[1, 1], ["x", 2], [3, 3]])),
        object_of_a("bad points", "ignored", r"a\.geojson, features\[0\]"),
    ),
    "coordinates of NaN": (
        "geo",
        put(J, geo(points=[[1, 1], [NAN, 2], [3, 3]])),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "coordinates that are none": (
        "geo",
        put(J, geo(geometry={"type": "Polygon", "coordinates": 7})),
        object_of_a("bad points", "ignored", "rings of points, got 7"),
    ),
    "coordinates in three dimensions": (
        "geo",
        put(J, geo(points=[[2, 3, 9], [12, 3, 9], [12, 8, 9], [2, 8, 9]])),
        Clean(),
    ),
    "coordinates outside the image": (
        "geo",
        put(J, geo(points=[[202, 3], [212, 3], [212, 8]])),
        object_of_a("polygon outside the image", "left out", "", 2),
    ),
    # CrowdHuman.
    "line of CrowdHuman cut off": (
        "crowdhuman",
        odgt(person("a")[:-20] + "\n"),
        unreadable(r"train\.odgt:1: no valid JSON.*cut off"),
    ),
    "CrowdHuman of bytes": (
        "crowdhuman",
        put(G, person("a").encode() + b'{"ID": "\xff"}\n'),
        Refused("save it as UTF-8"),
    ),
    "CrowdHuman with a byte order mark": ("crowdhuman", odgt("\ufeff" + person("a")), Clean()),
    "CrowdHuman's lines of Windows": (
        "crowdhuman",
        odgt(person("a").strip() + "\r\n\r\n"),
        Clean(),
    ),
    "image with its suffix": ("crowdhuman", odgt(person("a.png")), Clean()),
    "CrowdHuman's path of Windows": (
        "crowdhuman",
        odgt(person("Images\\a.png")),
        Listed("image under another name", "repaired", None, None, 3, 3, "in another folder"),
    ),
    "CrowdHuman's way out": (
        "crowdhuman",
        odgt(person("../../etc/a.png")),
        Listed("path outside the data set", "left out", 1, None, 2, 2, "leads out"),
    ),
    "CrowdHuman's image missing": (
        "crowdhuman",
        gone("Images/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, r"a\.jpg does not exist"),
    ),
    "line without an ID": (
        "crowdhuman",
        odgt('{"gtboxes": []}\n'),
        Listed("bad image entry", "left out", 1, None, 2, 2, r"odgt:1: an image needs a text 'ID'"),
    ),
    "nobody": ("crowdhuman", odgt('{"ID": "a", "gtboxes": []}\n'), Clean(objects=2)),
    "mask of CrowdHuman": ("crowdhuman", odgt(person("a", "mask")), Clean()),
    "ignore of CrowdHuman": ("crowdhuman", odgt(person("a", extra={"ignore": 1})), Clean()),
    "body beyond the image": ("crowdhuman", odgt(person("a", fbox=[-20, 3, 30, 50])), Clean()),
    "other boxes of CrowdHuman": (
        "crowdhuman",
        odgt(person("a", vbox=[2, 3, 4, 5])),
        Listed("other boxes", "kept", None, None, 3, 3, "only that of the whole body"),
    ),
    "no fbox": (
        "crowdhuman",
        odgt(person("a", fbox=None)),
        object_of_a("bad box", "ignored", r"odgt, line 1, gtboxes\[0\].*no fbox"),
    ),
    "fbox of NaN": (
        "crowdhuman",
        odgt(person("a", fbox=[NAN, 3, 30, 50])),
        object_of_a("NaN or infinite coordinates", "ignored"),
    ),
    "fbox of negative sides": (
        "crowdhuman",
        odgt(person("a", fbox=[12, 3, -10, 5])),
        object_of_a("swapped corners", "repaired"),
    ),
    "no tag": ("crowdhuman", odgt(person("a", tag="")), object_of_a("unknown category", "ignored")),
    # KITTI.
    "nothing in KITTI": ("kitti", put(K, ""), Clean(objects=2)),
    "KITTI with a byte order mark": ("kitti", put(K, "\ufeff" + kitti()), Clean()),
    "KITTI's lines of Windows": ("kitti", put(K, kitti().strip() + "\r\n \r\n"), Clean()),
    "KITTI of bytes": ("kitti", put(K, b"\xff\xfe0\0"), unreadable("save it as UTF-8")),
    "KITTI with a score": ("kitti", put(K, kitti().strip() + " 0.9\n"), Clean()),
    "region of KITTI": (
        "kitti",
        put(K, "DontCare -1 -1 -10 2.00 3.00 12.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10\n"),
        Clean(),
    ),
    "KITTI cut off": (
        "kitti",
        put(K, kitti()[:30]),
        object_of_a("bad line", "ignored", r"a\.txt, line 1.*a line has 15 words"),
    ),
    "KITTI of words": (
        "kitti",
        put(K, kitti(box="2 3 x 8")),
        object_of_a("bad line", "ignored", "x2 must be a number, got 'x'"),
    ),
    "KITTI of NaN": (
        "kitti",
        put(K, kitti(box="2 3 nan 8")),
        object_of_a("NaN or infinite coordinates", "ignored", "x2 'nan'"),
    ),
    "corners of KITTI exchanged": (
        "kitti",
        put(K, kitti(box="12 3 2 8")),
        object_of_a("swapped corners", "repaired"),
    ),
    "class that KITTI's list lacks": (
        "kitti",
        put(K, kitti("cow")),
        object_of_a("unknown category", "ignored", "'cow' is none of the names"),
    ),
    "image of KITTI missing": (
        "kitti",
        gone("train/image_2/a.png"),
        Listed("missing image", "left out", 1, None, 2, 2, "does not exist"),
    ),
    # Open Images.
    "Open Images with a byte order mark": (
        "openimages",
        put(T, "\ufeff" + str(OPEN_IMAGES[T])),
        Clean(),
    ),
    "Open Images of bytes": (
        "openimages",
        put(T, HEADER.encode() + b"a,\xff\n"),
        Refused("save it as UTF-8"),
    ),
    "Open Images' image missing": (
        "openimages",
        gone("train/a.png"),
        Listed("missing image", "left out", None, None, 2, 2, r"1 image\(s\).*'a'"),
    ),
    "Open Images' way out": (
        "openimages",
        row_of(box_row("../validation/v")),
        Listed("missing image", "left out", None, None, 2, 2, "validation/v"),
    ),
    "group of Open Images": (
        "openimages",
        row_of(box_row("a").replace(",0,1,0,0,0", ",0,1,1,0,0")),
        Clean(),
    ),
    "row cut off": (
        "openimages",
        row_of("a,xclick,/m/01,1,0.1\n"),
        object_of_a("bad box", "ignored", r"bbox\.csv, line 2.*must be finite numbers"),
    ),
    "row of words": (
        "openimages",
        row_of(box_row("a", sides="x,0.3,0.1,0.2")),
        object_of_a("bad box", "ignored", "got .'x'"),
    ),
    "row of NaN": (
        "openimages",
        row_of(box_row("a", sides="nan,0.3,0.1,0.2")),
        object_of_a("bad box", "ignored", "finite"),
    ),
    "row in pixels": (
        "openimages",
        row_of(box_row("a", sides="2,12,3,8")),
        object_of_a("no fractions", "ignored", "divide by its size"),
    ),
    "sides of a row exchanged": (
        "openimages",
        row_of(box_row("a", sides="0.3,0.05,0.1,0.3")),
        object_of_a("swapped corners", "repaired"),
    ),
    "row of an unknown class": (
        "openimages",
        row_of(box_row("a", "/m/09")),
        object_of_a("unknown category", "ignored", "'/m/09' is none of the names"),
    ),
    "row without a class": (
        "openimages",
        row_of(box_row("a", "")),
        object_of_a("unknown category", "ignored", "no class"),
    ),
    "table of names cut off": (
        "openimages",
        put("class-descriptions-boxable.csv", "/m/01,cat\n/m/0"),
        Refused(r"boxable\.csv, line 2: expected a code and a name"),
    ),
}
TOOLS |= annotator_cases.TOOLS
IMAGES |= annotator_cases.IMAGES
CASES |= annotator_cases.CASES
