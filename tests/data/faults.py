"""A small data set in every layout, the ways to break it, and the outcomes of a fault."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from maskwright.data.records import Dataset

NAN, INF = float("nan"), float("inf")
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]
LAYOUTS = {  # annotations and images of a split
    "file": ("{0}.json", "images"),
    "pairs": ("annotations/{0}.json", "images/{0}"),
    "roboflow": ("{0}/_annotations.coco.json", "{0}"),
    "voc": ("ImageSets/Main/{0}.txt", "JPEGImages"),
}


class Data:
    """Three images of 40 x 30 pixels (width x height) in train, ids 5, 9, 11, one object each."""

    def __init__(self, root: Path, layout: str) -> None:
        self.layout = layout
        self.root = root
        labels, images = LAYOUTS[layout]
        self.file = root / labels.format("train")
        self.folder = root / images.format("train")
        self.val_file = root / labels.format("valid" if layout == "roboflow" else "val")
        self.val_folder = root / images.format("valid" if layout == "roboflow" else "val")
        for path in (self.file.parent, self.folder, self.val_file.parent, self.val_folder):
            path.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate("abc"):
            self.picture(number).save(self.folder / f"{name}.png")
        self.picture(9).save(self.val_folder / "v.png")
        self.content: Any = self.describe({5: "a.png", 9: "b.png", 11: "c.png"})
        self.val_content = self.describe({1: "v.png"})
        self.text: bytes | None = None

    @staticmethod
    def picture(seed: int, height: int = 30, width: int = 40) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(pixels)

    @staticmethod
    def describe(files: dict[int, str]) -> dict[str, Any]:
        return {
            "images": [
                {"id": i, "file_name": name, "height": 30, "width": 40} for i, name in files.items()
            ],
            "annotations": [
                {"id": k, "image_id": i, "category_id": (3, 7)[k % 2], "iscrowd": 0}
                | {"bbox": [2, 2, 10, 10], "area": 100, "segmentation": [list(SQUARE)]}
                for k, i in enumerate(files, 1)
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        }

    @property
    def image(self) -> dict[str, Any]:
        """The entry of the first image."""
        entry: dict[str, Any] = self.content["images"][0]
        return entry

    @property
    def first(self) -> dict[str, Any]:
        """The first annotation."""
        entry: dict[str, Any] = self.content["annotations"][0]
        return entry

    def put(self, name: str, content: bytes) -> None:
        """Put a file in the place of the first image."""
        (self.folder / "a.png").unlink()
        (self.folder / name).write_bytes(content)
        self.image["file_name"] = name

    def replace(self, place: Callable[[Path], object]) -> None:
        """Put something else in the place of the first image."""
        (self.folder / "a.png").unlink()
        place(self.folder / "a.png")

    def number(self, image_id: int | None) -> int | None:
        """Return the id that the reader gives the image of this id: VOC has names, no numbers."""
        if self.layout != "voc" or image_id is None:
            return image_id
        return [image["id"] for image in self.content["images"]].index(image_id) + 1

    def write(self) -> Path:
        """Write the annotations, and return what `data=` is."""
        if self.layout == "voc":
            write_voc_files(self.file, self.content)
            write_voc_files(self.val_file, self.val_content)
            return self.root
        if self.text is None:
            self.text = json.dumps(self.content).encode()
        if not self.file.exists() and not self.file.is_symlink():
            self.file.write_bytes(self.text)
        self.val_file.write_text(json.dumps(self.val_content))
        return self.root


def write_voc_files(listing: Path, content: dict[str, Any]) -> None:
    """Write the boxes of COCO content as Pascal VOC: a list, and an XML file for every image."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    folder = listing.parents[2] / "Annotations"
    ids = []
    for image in content["images"]:
        ids.append(str(PurePosixPath(image["file_name"]).with_suffix("")))
        sides = {side: image.get(side) for side in ("width", "height")}
        size = "".join(f"<{k}>{v}</{k}>" for k, v in sides.items() if v is not None)
        objects = ""
        for entry in content["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, w, h = entry["bbox"]
                box = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                objects += (
                    f"<object><name>{escape(names[entry['category_id']])}</name><bndbox>"
                    + "".join(f"<{k}>{v}</{k}>" for k, v in box.items())
                    + "</bndbox></object>"
                )
        file = folder / f"{ids[-1]}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        name = escape(image["file_name"])
        file.write_text(
            f"<annotation><filename>{name}</filename><size>{size}</size>{objects}</annotation>"
        )
    listing.write_text("".join(f"{name}\n" for name in ids))


@dataclass(frozen=True)
class Clean:
    """Read as it is.

    Attributes:
        images, objects: what is kept.
        test: looks at the data set.
        note: text that must stand in a note of the check.
        told: kinds of all faults; none, mostly.
    """

    images: int = 3
    objects: int = 3
    test: Callable[[Data, Dataset], object] = lambda data, dataset: None
    note: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A fault of the check; the rest is read, and training goes on with it.

    Attributes:
        kind, action, image, annotation: of the fault.
        images, objects: what is kept.
        says: text in its message.
    """

    kind: str
    action: str
    image: int | None
    annotation: int | None
    images: int
    objects: int
    says: str = ""


@dataclass(frozen=True)
class Fails:
    """The check lists it as an error; using the image raises one error with file, id and mend."""

    kind: str
    says: str


@dataclass(frozen=True)
class Refused:
    """The annotation file is refused, by name."""

    says: str


def left_out_image(kind: str, says: str = "") -> Listed:
    return Listed(kind, "left out", 5, None, 2, 2, says)


def left_out_object(kind: str, says: str = "") -> Listed:
    return Listed(kind, "left out", 5, 1, 3, 2, says)


def ignored(kind: str, says: str = "") -> Listed:
    return Listed(kind, "ignored", 5, 1, 3, 3, says)


def repaired(kind: str, says: str = "") -> Listed:
    return Listed(kind, "repaired", 5, 1, 3, 3, says)


Change = Callable[[Data], object]
Outcome = Clean | Listed | Fails | Refused


# Changes.
def annotation(**entries: Any) -> Change:
    return lambda data: data.first.update(entries)


def image(**entries: Any) -> Change:
    return lambda data: data.image.update(entries)


def polygon(*numbers: Any) -> Change:
    return annotation(segmentation=[list(numbers)])


def rle(counts: Any, size: Any = (30, 40)) -> Change:
    return annotation(segmentation={"size": list(size), "counts": counts})


def only_box(*sides: Any) -> Change:
    """Replace the mask by a box."""
    return annotation(bbox=list(sides), segmentation=[])


def text(content: bytes) -> Change:
    return lambda data: setattr(data, "text", content)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Data.picture(0).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def stored(name: str, content: bytes, **entries: Any) -> Change:
    def change(data: Data) -> None:
        data.put(name, content)
        data.image.update(entries)

    return change


def placed(place: Callable[[Path], object]) -> Change:
    return lambda data: data.replace(place)


def instead(place: Callable[[Path], object]) -> Change:
    """Put something else in the place of the annotation file."""
    return lambda data: place(data.file)


def renamed(name: str) -> Change:
    def change(data: Data) -> None:
        target = data.folder / name
        target.parent.mkdir(exist_ok=True)
        (data.folder / "a.png").rename(target)
        data.image["file_name"] = name

    return change


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def frames(kind: str) -> bytes:
    return encoded(kind, save_all=True, append_images=[Data.picture(1), Data.picture(2)])


def sixteen_bit() -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def own_image(height: int, width: int, box: list[float]) -> Change:
    """Give the first image another size and one object, its box."""

    def change(data: Data) -> None:
        data.picture(0, height, width).save(data.folder / "a.png")
        data.image.update(height=height, width=width)
        x, y, w, h = box
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        data.first.update(bbox=box, area=w * h, segmentation=[corners])

    return change


def crowded(data: Data) -> None:
    data.content["annotations"] += [
        {**data.first, "id": 100 + k, "bbox": [x, y, 2, 2], "area": 4}
        | {"segmentation": [[x, y, x + 2, y, x + 2, y + 2, x, y + 2]]}
        for k, (x, y) in enumerate((k % 380 / 10, k // 380) for k in range(2999))
    ]


def copied(data: Data) -> None:
    (data.folder / "c.png").write_bytes((data.folder / "a.png").read_bytes())


def ids(mapping: dict[int, int]) -> Change:
    """Give the categories other ids."""

    def change(data: Data) -> None:
        for entry in data.content["categories"]:
            entry["id"] = mapping[entry["id"]]
        for entry in data.content["annotations"]:
            entry["category_id"] = mapping[entry["category_id"]]

    return change


def add(key: str, entry: Any) -> Change:
    return lambda data: data.content[key].append(entry)


def names(*words: str) -> Change:
    def change(data: Data) -> None:
        for entry, word in zip(data.content["categories"], words, strict=True):
            entry["name"] = word
        data.val_content["categories"] = data.content["categories"]

    return change


# Looks at what was read.
def pixels_like(convert: Callable[[Image.Image], Image.Image]) -> Callable[[Data, Dataset], None]:
    def test(data: Data, dataset: Dataset) -> None:
        with Image.open(data.folder / data.image["file_name"]) as expected:
            np.testing.assert_array_equal(dataset.image(0), np.asarray(convert(expected)))

    return test


def named(*words: str) -> Callable[[Data, Dataset], None]:
    def test(data: Data, dataset: Dataset) -> None:
        assert tuple(dataset.names) == words
        assert [dataset[i].labels.tolist() for i in range(3)] == [[1], [0], [1]]

    return test


def mask_like_pycocotools(data: Data, dataset: Dataset) -> None:
    segmentation = data.first["segmentation"]
    if isinstance(segmentation, list):
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, 30, 40))
    else:
        code = coco_mask.frPyObjects(segmentation, 30, 40)
    crop, (x1, y1, x2, y2) = dataset.mask(0, 0)
    full = np.zeros((30, 40), bool)
    full[y1:y2, x1:x2] = crop
    np.testing.assert_array_equal(full, coco_mask.decode(code).astype(bool))
    assert full.any()
