"""Reader of FiftyOne's own JSON: `samples.json` of a whole data set, `labels.json` of detections.

Detections with their masks and filled polylines are objects. Of several fields of labels the one
that is called ground_truth is read, else the only one; `format=fiftyone:FIELD` names another. Tags
train, validation and test divide the samples where each has one.
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.geometry import points_of, run_lengths
from ...building.objects import flag, given_number, shown, whole_number
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_of_id, image_roots, size_of
from ..folders import SPLITS, Tree, split_name
from ..json_file import load_json
from ..sniff import FIFTYONE, is_kind
from ..source import FieldSource, ReadOptions

FORMAT = "fiftyone"
TRUTH = "ground_truth"
# Kinds of a field of labels, and the list in it; a single label stands for itself.
OBJECTS = {"Detections": "detections", "Polylines": "polylines"}
LABELS = {"Classifications": "classifications", "Classification": ""}
KNOWN = ("_id", "_cls", "id", "label", "bounding_box", "mask", "points", "closed", "filled", "tags")


@dataclass(frozen=True)
class FiftyOneSource(FieldSource):
    """Where one split lies: JSON of FiftyOne.

    Attributes:
        annotations: the file.
        divided: the tags of the samples tell which are of the split; else all are.
    """

    annotations: Path
    divided: bool = False

    @property
    def beside(self) -> tuple[Path, ...]:
        """What FiftyOne writes beside samples.json."""
        return tuple(self.annotations.parent / name for name in ("metadata.json", "frames.json"))

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        content = load_json(self.annotations)
        samples = _samples(content, self.annotations)
        field = _field(samples, self.field, self.annotations)
        classes = content.get("classes")
        own = [str(one) for one in classes] if isinstance(classes, list) else []
        if self.divided:
            samples = [(where, one) for where, one in samples if _split(one) == split]
        roots = image_roots(self.annotations, split)
        reader = _Reader(self.annotations, split, FORMAT)
        listed = {name: name for name in own} or None
        return reader.read(
            lambda: reader.pictures(samples, field, own, roots), roots, listed, names
        )


def find_fiftyone(tree: Tree, path: Path) -> dict[str, FiftyOneSource]:
    """Return the splits of a folder with JSON of FiftyOne, {} for others.

    Raises:
        ValueError: if two files are of one split.
    """
    files = file_of_split(tree, path, ".json", FIFTYONE)
    if len(files) == 1:
        return fiftyone_file(next(iter(files.values())), next(iter(files)))
    return {split: FiftyOneSource(file) for split, file in files.items()}


def fiftyone_file(path: Path, split: str | None = None) -> dict[str, FiftyOneSource]:
    """Return the splits of a file: those of its tags, else that of its name; {} for others.

    Raises:
        ValueError: if it cannot be read.
    """
    if not is_kind(path, ".json", FIFTYONE):
        return {}
    tagged = {_split(one) for _, one in _samples(load_json(path), path)}
    if tagged and None not in tagged:
        return {one: FiftyOneSource(path, divided=True) for one in SPLITS if one in tagged}
    return {split or split_name(path.stem) or "train": FiftyOneSource(path)}


def _samples(content: Any, file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the samples of a file, each with its place; those of labels.json made the same.

    Raises:
        ValueError: if it has none.
    """
    given = content if isinstance(content, dict) else {}
    if isinstance(given.get("samples"), list):
        return [
            (f"samples[{k}]", one if isinstance(one, dict) else {})
            for k, one in enumerate(given["samples"])
        ]
    labels = given.get("labels")
    if not isinstance(labels, dict):
        raise ValueError(f"{file} has no samples, and no labels by image: it is not FiftyOne's")
    return [
        (
            f"labels[{shown(name)}]",
            {"id of image": name, TRUTH: {"_cls": "Detections", "detections": own or []}},
        )
        for name, own in labels.items()
    ]


def _split(sample: dict[str, Any]) -> str | None:
    """Return the split that the tags of a sample name, None where they name none or several."""
    tags = sample.get("tags")
    found = {split_name(tag) for tag in tags if isinstance(tag, str)} if tags else set()
    return next(iter(found - {None})) if len(found - {None}) == 1 else None


def _field(samples: Sequence[tuple[str, dict[str, Any]]], wanted: str, file: Path) -> str:
    """Return the field of labels to read.

    Raises:
        ValueError: if there is none, or several and none is named.
    """
    kinds: dict[str, str] = {}
    for _, sample in samples:
        for name, value in sample.items():
            kind = value.get("_cls") if isinstance(value, dict) else None
            if kind in OBJECTS or kind in LABELS:
                kinds.setdefault(name, kind)
    words = ", ".join(map(repr, kinds)) or "none"
    if wanted:
        if wanted not in kinds:
            raise ValueError(f"{file}: no sample has labels in the field {wanted!r}, but: {words}")
        return wanted
    if TRUTH in kinds:
        return TRUTH
    found = [name for name, kind in kinds.items() if kind in OBJECTS] or list(kinds)
    if len(found) > 1:
        raise ValueError(
            f"{file}: which field has the labels? There are {words}: give format=fiftyone:FIELD"
        )
    return found[0] if found else TRUTH


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(
        self,
        samples: Sequence[tuple[str, dict[str, Any]]],
        field: str,
        classes: Sequence[str],
        roots: Sequence[Path],
    ) -> Iterator[Picture]:
        """Yield the images of the samples."""
        for place, sample in samples:
            number = sample.get("id of image")
            path = sample.get("filepath")
            name = image_of_id(number, roots) if isinstance(number, str) else path
            picture = Picture(self.path, name.replace("\\", "/") if isinstance(name, str) else "")
            if not picture.name:
                message = f"{self.path}, {place}: a sample needs a filepath, got {shown(path)}"
                picture.broken = "bad image entry", message
                yield picture
                continue
            data = sample.get("metadata")
            sides = data if isinstance(data, dict) else {}
            stated = [whole_number(sides.get(side)) for side in ("height", "width")]
            tried = (picture.name, picture.name.rsplit("/", 1)[-1])  # or without its folder
            found = (size_of(root / one) for one in tried for root in roots)
            picture.size = next((one for one in found if one is not None), None)
            if picture.size is None and None not in stated:
                picture.size = stated[0], stated[1]
            if picture.size is None:
                picture.broken = (
                    "missing image",
                    f"{self.path}, {place}: {picture.name} is not there or cannot be read, and "
                    "nothing else tells its size: put it into data/ beside the file",
                )
                yield picture
                continue
            for other, value in sample.items():
                if other not in (field, "metadata") and isinstance(value, dict) and "_cls" in value:
                    self.leave(f"the field {other!r} of an image")
            labels = sample.get(field)
            if isinstance(labels, dict):
                self._take(picture, labels, f"{place}.{field}", classes)
            yield picture

    def _take(
        self, picture: Picture, labels: dict[str, Any], place: str, classes: Sequence[str]
    ) -> None:
        """Take over the labels of a field."""
        kind = str(labels.get("_cls"))
        if kind in LABELS:
            several = labels.get(LABELS[kind]) if LABELS[kind] else [labels]
            own = [one.get("label") for one in several or () if isinstance(one, dict)]
            picture.labels = [str(name) for name in own if name]
            return
        objects = labels.get(OBJECTS.get(kind, ""))
        for k, entry in enumerate(objects if isinstance(objects, list) else ()):
            one = entry if isinstance(entry, dict) else {}
            where = f"{place}[{k}]"
            label = one.get("label")
            number = whole_number(label)
            if number is not None and 0 <= number < len(classes):
                label = classes[number]
            found = Shape(label if isinstance(label, str) and label else None, where, {})
            if flag(one.get("iscrowd")):
                found.entry["iscrowd"] = 1
            for name, value in one.items():
                if name not in (*KNOWN, "iscrowd") and value not in (None, {}, [], ""):
                    self.leave(f"the entry {name!r} of an object")
            if "points" in one and not (flag(one.get("closed")) or flag(one.get("filled"))):
                self.no_area("open polyline", f"{self.path}, {where}")
                continue
            try:
                found.entry.update(_outline(one, picture.size or (1, 1)))
            except BadSegment as bad:
                found.entry["bbox"] = bad
            picture.shapes.append(found)


def _outline(one: dict[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
    """Return `bbox` or `segmentation` in pixels of what is written in fractions of the image.

    Raises:
        BadSegment: if it cannot be used.
    """
    height, width = (whole_number(side) or 1 for side in size)
    if "points" in one:
        parts = one["points"] if isinstance(one["points"], list) else [None]
        drawn = [points_of(part, 3) for part in parts]
        return {"segmentation": [[v for x, y in p for v in (x * width, y * height)] for p in drawn]}
    given = one.get("bounding_box")
    if not isinstance(given, list) or len(given) != 4:
        message = f"bounding_box must be a list of 4 numbers, got {shown(given)}"
        raise BadSegment("bad box", message)
    x, y, w, h = (given_number(value, "bounding_box", "bad box") for value in given)
    if max(map(abs, (x, y, w, h))) > 2:
        message = f"bounding_box is to be fractions of the image, got {shown(given)}: divide"
        raise BadSegment("no fractions", f"{message} by the size of the image")
    box = [x * width, y * height, w * width, h * height]
    if one.get("mask") is None:
        return {"bbox": box}
    left, top, right, bottom = round(box[0]), round(box[1]), box[0] + box[2], box[1] + box[3]
    sides = max(round(right) - left, 1), max(round(bottom) - top, 1)
    mask = Image.fromarray(_mask(one["mask"])).resize(sides, Image.Resampling.NEAREST)
    x1, y1 = max(left, 0), max(top, 0)
    crop = np.asarray(mask)[y1 - top : height - top, x1 - left : width - left]
    if not crop.any():
        raise BadSegment("empty mask", "the mask has no pixel in the image", nothing=True)
    return {"segmentation": run_lengths(crop, x1, y1, (height, width))}


def _mask(given: Any) -> np.ndarray:
    """Return a mask: an array of NumPy, packed with zlib and written in base64.

    Raises:
        BadSegment: if it is none.
    """
    text = given.get("$binary") if isinstance(given, dict) else given
    text = text.get("base64") if isinstance(text, dict) else text
    most = max_pixels()
    try:
        packed = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        unpacked = zlib.decompressobj().decompress(packed, most * 8)
        mask = np.load(io.BytesIO(unpacked), allow_pickle=False)
    except (binascii.Error, zlib.error, ValueError, EOFError, OSError) as error:
        message = f"a mask is an array in zlib and base64, got {shown(given)}: {error}"
        raise BadSegment("bad mask", message) from None
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "biuf":
        raise BadSegment("bad mask", f"a mask has rows and columns, got {mask.shape}")
    found: np.ndarray = mask > 0
    return found
