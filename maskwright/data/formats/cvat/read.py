"""Reader of CVAT's XML 1.1, of images and of videos.

Boxes, polygons, ellipses and masks are objects; turned ones become polygons, shapes of one label
and one `group_id` are parts of one object. CVAT's run lengths are decimal, row by row within the
rectangle of the mask, background first. Of a track each frame that is listed and not `outside` is
an object; the image of a frame is the file whose name ends with its number. The attributes
`iscrowd` and `ignore` make regions that count neither way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY
from ...building.geometry import corners_of, ellipse, run_lengths, turned, united
from ...building.objects import finite_number, flag, shown, whole_number
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split
from ..csv_table import image_roots
from ..folders import Tree, split_name
from ..sniff import sniff
from ..source import BaseSource, ReadOptions
from ..voc.xml_tree import BadXml, Node, xml_elements

KIND = "CVAT XML"
AREAS = ("box", "polygon", "ellipse", "mask")
NO_AREA = ("polyline", "points", "skeleton", "cuboid", "tag")
CROWD = ("iscrowd", "is_crowd")
HEAD = 2**16


@dataclass(frozen=True)
class CvatSource(BaseSource):
    """Where one split lies: CVAT's XML.

    Attributes:
        annotations: the file.
        divided: its images are divided by their attribute `subset`; else all are of the split.
    """

    annotations: Path
    divided: bool = False

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, self.divided)
        return reader.dataset(names)


def find_cvat(tree: Tree, path: Path) -> dict[str, CvatSource]:
    """Return the splits of a folder with XML files of CVAT, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".xml", lambda file: sniff(file) == KIND)
    if len(files) == 1 and split_name(next(iter(files.values())).stem) is None:
        return cvat_file(next(iter(files.values())), next(iter(files)))
    return {split: CvatSource(file) for split, file in files.items()}


def cvat_file(path: Path, split: str | None = None) -> dict[str, CvatSource]:
    """Return the splits of a single file: those of its images, else that of its name, else train.

    Raises:
        ValueError: if it cannot be read.
    """
    if path.suffix.lower() != ".xml" or sniff(path) != KIND:
        return {}
    with path.open("rb") as file:
        divided = b' subset="' in file.read(HEAD)
    if divided:
        subsets = {
            one.attributes.get("subset", "")
            for one in xml_elements(path, "annotations")
            if one.tag == "image"
        }
        found = {own for one in subsets if (own := split_name(one))}
        if found and all(split_name(one) for one in subsets):
            return {one: CvatSource(path, divided=True) for one in sorted(found)}
    return {split or split_name(path.stem) or "train": CvatSource(path)}


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def __init__(self, path: Path, split: str, divided: bool) -> None:
        super().__init__(path, split, "cvat")
        self.divided = divided
        self.size: tuple[Any, Any] | None = None
        self.labels: dict[str, str] = {}

    def dataset(self, names: Sequence[str] | None) -> Dataset:
        """Return the data set.

        Raises:
            ValueError: if the file cannot be read, or no image is usable.
        """
        for node in xml_elements(self.path, "annotations"):
            if node.tag == "meta":
                self._meta(node)
                break
        roots = image_roots(self.path, self.split)
        return self.read(lambda: self._scan(roots), roots, self.labels or None, names)

    def _meta(self, meta: Node) -> None:
        """Take over the classes, and the size of a video."""
        for place in (meta, *meta.children):
            if (labels := place.child("labels")) is not None:
                for label in labels.all("label"):
                    name = label.child("name")
                    if name is not None and name.text and label.child("parent") is None:
                        self.labels.setdefault(name.text, name.text)
            if (size := place.child("original_size")) is not None:
                sides = [size.child(side) for side in ("height", "width")]
                height, width = (None if one is None else one.text for one in sides)
                self.size = height, width

    def _scan(self, roots: Sequence[Path]) -> Iterator[Picture]:
        tracks: list[Node] = []
        for node in xml_elements(self.path, "annotations"):
            if node.tag == "track":
                tracks.append(node)
            elif node.tag == "image":
                subset = node.attributes.get("subset", "")
                if not self.divided or split_name(subset) == self.split:
                    yield self._image(node)
        if tracks:
            yield from self._frames(tracks, roots)

    def _image(self, node: Node) -> Picture:
        given = node.attributes
        name = given.get("name", "")
        picture = Picture(self.path, name, (given.get("height"), given.get("width")))
        if not name:
            picture.broken = "bad image entry", f"{self.path}:{node.line}: <image> has no name"
        self._take(picture, [(one, one.attributes.get("label")) for one in node.children])
        return picture

    def _frames(self, tracks: Sequence[Node], roots: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of a video, those without an object among them.

        Raises:
            ValueError: if no image of a frame is there.
        """
        frames: dict[int, list[tuple[Node, str | None]]] = {}
        for track in tracks:
            for one in track.children:
                number = whole_number(one.attributes.get("frame"))
                if number is None:
                    raise BadXml(
                        f"{self.path}:{one.line}: <{one.tag}> of a track needs a number of its "
                        f"frame, got {shown(one.attributes.get('frame'))}"
                    )
                if not flag(one.attributes.get("outside")):
                    group = track.attributes.get("group_id")
                    if group is not None:
                        one.attributes.setdefault("group_id", group)
                    frames.setdefault(number, []).append((one, track.attributes.get("label")))
        files: dict[int, Path] = {}
        for root in roots:
            for file in Tree().images(root):
                if digits := re.search(r"(\d+)$", file.stem):
                    files.setdefault(int(digits[1]), file)
        if not set(files) & set(frames):
            raise ValueError(
                f"{self.path} is of a video, and no image of a frame lies beside it, such as "
                "images/frame_000000.png: export it from CVAT with 'Save images'"
            )
        root = next(one for one in roots if one in {file.parent for file in files.values()})
        for number in sorted({*files, *frames}):
            file = files.get(number, root / f"frame_{number:06}.png")
            picture = Picture(self.path, _within(file, roots), self.size)
            self._take(picture, frames.get(number, []))
            yield picture

    def _take(self, picture: Picture, shapes: Sequence[tuple[Node, str | None]]) -> None:
        """Take over the shapes of an image with their classes."""
        groups: dict[tuple[str | None, str], Shape] = {}
        height, width = map(whole_number, picture.size or (None, None))
        size = (height or 1, width or 1)
        if size[0] < 1 or size[1] < 1 or size[0] * size[1] > max_pixels():
            size = (1, 1)
        for node, label in shapes:
            if node.tag in NO_AREA:
                self.no_area(node.tag, f"{self.path}:{node.line}")
                continue
            found = Shape(label or None, f"line {node.line}", {})
            marks = {
                (one.attributes.get("name") or "").lower(): one.text
                for one in node.all("attribute")
            }
            ignore = bool(flag(marks.get("ignore")))
            if ignore or any(flag(marks.get(word)) for word in CROWD):
                found.entry.update(iscrowd=1, ignore=int(ignore))
            if ignore and not label:
                found.key = ANY
            try:
                found.entry.update(_outline(node, size, picture))
            except BadSegment as bad:
                found.entry["bbox"] = bad
            group = node.attributes.get("group_id", "0")
            if group not in ("", "0") and "segmentation" in found.entry:
                first = groups.setdefault((label, group), found)
                if first is not found:
                    parts = [first.entry["segmentation"], found.entry["segmentation"]]
                    try:
                        first.entry["segmentation"] = united(parts, size)
                    except BadSegment as bad:
                        first.entry = {"bbox": bad}
                    continue
            picture.shapes.append(found)


def _within(file: Path, roots: Sequence[Path]) -> str:
    return next(file.relative_to(one).as_posix() for one in roots if file.is_relative_to(one))


def _outline(node: Node, size: tuple[int, int], picture: Picture) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of a shape.

    Raises:
        BadSegment: if it cannot be used.
    """
    rotation = 0.0 if node.attributes.get("rotation") is None else _numbers(node, "rotation")[0]
    if node.tag == "box":
        x1, y1, x2, y2 = _numbers(node, "xtl", "ytl", "xbr", "ybr")
        if rotation % 360 == 0:
            return {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        return {"segmentation": [turned(corners_of(x1, y1, x2, y2), rotation, middle)]}
    if node.tag == "ellipse":
        cx, cy, rx, ry = _numbers(node, "cx", "cy", "rx", "ry")
        return {"segmentation": [turned(ellipse(cx, cy, rx, ry), rotation, (cx, cy))]}
    if node.tag == "polygon":
        text = node.attributes.get("points", "")
        points = [pair.split(",") for pair in text.split(";")]
        if any(len(pair) != 2 for pair in points):
            raise BadSegment("bad points", f"points are x,y;x,y;..., got {shown(text)}")
        return {"segmentation": [[_number(side, "points") for pair in points for side in pair]]}
    if node.tag == "mask":
        return {"segmentation": _mask(node, size, picture)}
    raise BadSegment("unknown shape", f"<{node.tag[:40]}> is no shape that is read")


def _numbers(node: Node, *names: str) -> list[float]:
    return [_number(node.attributes.get(name), name) for name in names]


def _number(text: str | None, name: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise BadSegment("bad points", f"{name} must be a number, got {shown(text)}") from None
    if finite_number(value) is None:
        raise BadSegment("NaN or infinite coordinates", f"{name} {shown(text)} is not finite")
    return value


def _mask(node: Node, size: tuple[int, int], picture: Picture) -> dict[str, Any]:
    """Return a mask as COCO's run lengths.

    Raises:
        BadSegment: if it cannot be used.
    """
    sides = [round(value) for value in _numbers(node, "left", "top", "width", "height")]
    left, top, width, height = sides
    if width < 1 or height < 1:
        raise BadSegment("empty mask", f"the mask is {width}x{height} pixels", nothing=True)
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise BadSegment(
            "mask outside the image",
            f"the mask of {width}x{height} pixels at {left}, {top} reaches beyond the image of "
            f"{size[1]}x{size[0]}",
        )
    text = node.attributes.get("rle", "")
    try:
        runs = np.array([int(word) for word in text.split(",")], np.int64)
    except (ValueError, OverflowError):
        raise BadSegment("bad RLE", f"rle is whole numbers, got {shown(text)}") from None
    if (runs < 0).any() or (runs > width * height).any():
        raise BadSegment("bad RLE", f"rle has runs below 0 or beyond the mask: {shown(text)}")
    total = int(runs.sum())
    if total > width * height + (runs[-1] if len(runs) else 0):
        raise BadSegment(
            "bad RLE", f"the runs sum to {total}, the mask has {width * height} pixels"
        )
    if total > width * height:
        message = (
            f"{picture.file}, line {node.line}: the runs sum to {total}, the mask has "
            f"{width * height} pixels: the last run is cut"
        )
        picture.notes.append(("bad RLE", message, "repaired"))
    flat = np.zeros(width * height, bool)
    ends = np.minimum(np.cumsum(runs), len(flat))
    for begin, end in zip(ends[0::2], ends[1::2], strict=False):
        flat[begin:end] = True
    return run_lengths(flat.reshape(height, width), left, top, size)
