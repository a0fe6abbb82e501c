"""Reader of Datumaro's own JSON, in which CVAT and Datumaro export all kinds of labels at once.

Boxes, turned boxes, ellipses, polygons and masks are objects; polygons and masks of one label and
group are parts of one, points and skeletons of a group its keypoints, or an object of their own.
Labels of whole images serve classifiers, where nothing has an outline. Captions and lines are left
out and counted. The attributes `is_crowd` and `ignore` make regions that count neither way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape, is_part
from ...building.geometry import corners_of, ellipse, turned
from ...building.objects import flag, given_number, shown, whole_number, whole_numbers
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_of_id, image_roots
from ..folders import Tree, folder_split, split_name
from ..json_file import load_json
from ..sniff import is_kind
from ..source import BaseSource, ReadOptions

KIND = "Datumaro JSON"
FORMAT = "datumaro"
AREAS = ("bbox", "rotated_bbox", "ellipse", "polygon", "mask")
POINTED = ("points", "skeleton")
CROWD = ("is_crowd", "iscrowd")


@dataclass(frozen=True)
class DatumaroSource(BaseSource):
    """Where one split lies: Datumaro's JSON."""

    annotations: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        content = load_json(self.annotations)
        items = content.get("items") if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise ValueError(f"{self.annotations} has no list 'items': it is not Datumaro's")
        roots = image_roots(self.annotations, split)
        roots += [one for root in roots for one in Tree().folders(root) if _of(one, split, self)]
        reader = _Reader(self.annotations, split, content.get("categories"))
        return reader.read(
            lambda: reader.pictures(items, roots),
            roots,
            reader.labels,
            names,
            joints=tuple(dict.fromkeys(one for own in reader.joints.values() for one in own)),
            bones=reader.bones,
        )


def _of(folder: Path, split: str, source: DatumaroSource) -> bool:
    """Return whether a folder of images is of the split: images/train, or images/default."""
    return folder.name == source.annotations.stem or folder_split(folder) == split


def find_datumaro(tree: Tree, path: Path) -> dict[str, DatumaroSource]:
    """Return the splits of a folder with JSON files of Datumaro, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".json", KIND)
    return {split: DatumaroSource(file) for split, file in files.items()}


def datumaro_file(path: Path) -> dict[str, DatumaroSource]:
    """Return the split of a single file, {} for others."""
    if not is_kind(path, ".json", KIND):
        return {}
    return {split_name(path.stem) or "train": DatumaroSource(path)}


class _Reader(AnnotatedReader):
    """State of reading one split.

    Attributes:
        labels: names of the classes by number.
        joints: names of keypoints by the number of their class.
        bones: pairs of them that a line joins.
    """

    def __init__(self, path: Path, split: str, categories: Any) -> None:
        super().__init__(path, split, FORMAT)
        named = _within(categories, "label", "labels")
        self.labels = {
            number: str(one["name"])
            for number, one in enumerate(named)
            if isinstance(one, dict) and str(one.get("name") or "").strip()
        }
        self.joints: dict[int, list[str]] = {}
        self.bones: list[tuple[str, str]] = []
        for one in _within(categories, "points", "items"):
            words = one.get("labels") if isinstance(one, dict) else None
            number = whole_number(one.get("label_id")) if isinstance(one, dict) else None
            if not isinstance(words, list) or number is None:
                continue
            names = self.joints[number] = [str(word) for word in words]
            pairs = [whole_numbers(pair) for pair in one.get("joints") or []]
            first = 0 if any(0 in pair for pair in pairs) else 1  # from COCO they count from 1
            for pair in pairs:
                ends = [names[end - first] for end in pair if first <= end < first + len(names)]
                if len(ends) == 2 == len({*ends}):
                    self.bones.append((ends[0], ends[1]))

    def pictures(self, items: Sequence[Any], roots: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of the items."""
        for number, item in enumerate(items):
            one = item if isinstance(item, dict) else {}
            place = f"items[{number}]"
            picture = Picture(self.path, _image_name(one, roots), _size(one))
            given = one.get("annotations")
            if not picture.name or not isinstance(given, list):
                message = (
                    f"{self.path}, {place}: an item needs an id, or the path of its image, and the "
                    f"list 'annotations', got {shown(item)}"
                )
                picture.broken = "bad image entry", message
            else:
                self._take(picture, place, given)
            yield picture

    def _take(self, picture: Picture, place: str, given: Sequence[Any]) -> None:
        """Take over the annotations of an image."""
        parts: dict[Hashable, Shape] = {}
        owners: dict[int, dict[int, Shape]] = {}
        pointed: list[tuple[str, dict[str, Any]]] = []
        size = _drawable(picture.size)
        for k, entry in enumerate(given):
            one = entry if isinstance(entry, dict) else {}
            kind, where = one.get("type"), f"{place}, annotations[{k}]"
            number, group = whole_number(one.get("label_id")), whole_number(one.get("group")) or 0
            if kind == "label" and number in self.labels:
                picture.labels = (*picture.labels, self.labels[number])
                continue
            if kind in POINTED:
                pointed.append((where, one))
                continue
            if kind not in AREAS:
                self.no_area(str(kind)[:40], f"{self.path}, {where}")
                continue
            found = self._shape(one, where)
            try:
                found.entry.update(_outline(one, str(kind)))
            except BadSegment as bad:
                found.entry["bbox"] = bad
            masked = group and "segmentation" in found.entry
            if masked and is_part(found, (number, group), parts, size):
                continue
            if group:
                owners.setdefault(group, {})[id(found)] = found
            picture.shapes.append(found)
        for where, one in pointed:
            self._take_points(picture, where, one, owners)

    def _shape(self, one: dict[str, Any], where: str) -> Shape:
        """Return an object without an outline, and count what no record has."""
        number, attributes = whole_number(one.get("label_id")), one.get("attributes")
        found = Shape(number, where, {})
        marks = attributes if isinstance(attributes, dict) else {}
        ignore = bool(flag(marks.get("ignore")))
        if ignore or any(flag(marks.get(word)) for word in CROWD):
            found.entry.update(iscrowd=1, ignore=int(ignore))
        for name in marks:
            if name not in (*CROWD, "ignore") and marks[name] not in (None, "", False):
                self.leave(f"the attribute {name!r}")
        return found

    def _take_points(
        self,
        picture: Picture,
        where: str,
        one: dict[str, Any],
        owners: Mapping[int, Mapping[int, Shape]],
    ) -> None:
        """Give keypoints to the one object of their group, else to one of their own."""
        found = self._shape(one, where)
        number = whole_number(one.get("label_id"))
        names = [] if number is None else self.joints.get(number, [])
        try:
            joints = _joints(one, names)
        except BadSegment as bad:
            message = f"{self.path}, {where}: {bad}: left out"
            picture.notes.append(("bad keypoints", message, "left out"))
            return
        if not joints:
            self.no_area(str(one.get("type")), f"{self.path}, {where}")
            return
        same = owners.get(whole_number(one.get("group")) or 0, {})
        picture.join(joints, same.values(), found)


def _within(categories: Any, kind: str, key: str) -> list[Any]:
    part = categories.get(kind) if isinstance(categories, dict) else None
    found = part.get(key) if isinstance(part, dict) else None
    return found if isinstance(found, list) else []


def _image_name(item: dict[str, Any], roots: Sequence[Path]) -> str:
    """Return the path of the image of an item, else its id with the suffix of a file."""
    media = item.get("image")
    path = media.get("path") if isinstance(media, dict) else None
    if isinstance(path, str) and path:
        return path.replace("\\", "/")
    name = item.get("id")
    return image_of_id(name, roots) if isinstance(name, str) and name else ""


def _size(item: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return (height, width) as an item says; None where it does not."""
    media = item.get("image")
    size = media.get("size") if isinstance(media, dict) else None
    return (size[0], size[1]) if isinstance(size, list) and len(size) == 2 else None


def _drawable(size: tuple[Any, Any] | None) -> tuple[int, int]:
    height, width = map(whole_number, size or (None, None))
    return (height or 1, width or 1)


def _numbers(one: dict[str, Any], key: str, count: int = 0) -> list[float]:
    """Return a list of numbers of an annotation; count is how many there must be, 0: any.

    Raises:
        BadSegment: if it is none.
    """
    value = one.get(key)
    if not isinstance(value, list) or (count and len(value) != count) or not value:
        wanted = f"{count} numbers" if count else "numbers"
        raise BadSegment("bad points", f"{key} must be a list of {wanted}, got {shown(value)}")
    return [given_number(number, key, "bad points") for number in value]


def _outline(one: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of an annotation.

    Raises:
        BadSegment: if it cannot be used.
    """
    if kind == "bbox":
        return {"bbox": _numbers(one, "bbox", 4)}
    if kind == "rotated_bbox":  # its middle, sides, and degrees clockwise
        cx, cy, w, h, angle = _numbers(one, "bbox", 5)
        corners = corners_of(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        return {"segmentation": [turned(corners, angle, (cx, cy))]}
    if kind == "ellipse":
        x1, y1, x2, y2 = _numbers(one, "points", 4)
        half = abs(x2 - x1) / 2, abs(y2 - y1) / 2
        return {"segmentation": [ellipse((x1 + x2) / 2, (y1 + y2) / 2, *half)]}
    if kind == "polygon":
        return {"segmentation": [_numbers(one, "points")]}
    if not isinstance(one.get("rle"), dict):
        raise BadSegment("bad RLE", f"a mask needs run lengths, rle, got {shown(one.get('rle'))}")
    return {"segmentation": one["rle"]}


def _joints(one: dict[str, Any], names: Sequence[str]) -> Joints:
    """Return the labelled keypoints of points or of a skeleton.

    Raises:
        BadSegment: if they are none.
    """
    if one.get("type") == "skeleton":
        whole: dict[str, Any] = {"points": [], "visibility": []}
        for element in one.get("elements") or []:
            if isinstance(element, dict):
                whole["points"] += _numbers(element, "points", 2)
                whole["visibility"] += element.get("visibility") or [2]
        one = whole
    flat = _numbers(one, "points")
    seen = one.get("visibility")
    marks = seen if isinstance(seen, list) else []
    found: Joints = {}
    for k, (x, y) in enumerate(zip(flat[::2], flat[1::2], strict=False)):
        mark = whole_number(marks[k]) if k < len(marks) else 2
        if mark in (1, 2):
            found[names[k] if k < len(names) else str(k + 1)] = x, y, mark
    return found
