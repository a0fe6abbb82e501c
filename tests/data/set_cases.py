"""Like `tool_cases`: three images with an object each as published data sets and other tools have
them, and what is wrong with them.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
from faults import NAN, Clean, Listed, png_header
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
TOOLS: dict[str, Files] = {"supervisely": SUPERVISELY}
IMAGES: dict[str, tuple[str, ...]] = {
    "supervisely": (*(f"train/img/{name}.png" for name in "abc"), "val/img/v.png")
}
S = "train/ann/a.png.json"


def sly(**entries: Any) -> Change:
    """Change the object of the first image of Supervisely."""
    return put(S, supervisely(**entries))


def sly_bitmap(data: Any, origin: Any = (2, 3)) -> Change:
    return sly(geometryType="bitmap", bitmap={"data": data, "origin": origin})


def unreadable(says: str) -> Listed:
    return Listed("unreadable labels", "left out", 1, None, 2, 2, says)


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
}
