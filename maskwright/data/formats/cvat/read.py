"""Reader of CVAT's XML 1.1, of images and of videos.

Boxes, polygons, ellipses and masks are objects; turned ones become polygons, shapes of one label
and one `group_id` are parts of one object. The elements of a skeleton are keypoints, of the object
of its group or of one by itself; so are points in the group of an object, by their labels, several
of one element by their numbers. CVAT's run lengths are decimal, row by row within the
rectangle of the mask, background first. Of a track each frame that is listed and not `outside` is
an object; the image of a frame is the file whose name ends with its number. Tags are labels of
whole images, where nothing has an outline. The attributes
`iscrowd` and `ignore` make regions that count neither way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape, is_part
from ...building.builder import ANY
from ...building.geometry import corners_of, ellipse, run_lengths, turned
from ...building.objects import flag, shown, whole_number, written_number
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_roots
from ..folders import Tree, split_name
from ..sniff import is_kind
from ..source import BaseSource, ReadOptions
from ..voc.xml_tree import BadXml, Node, xml_elements

KIND = "CVAT XML"
AREAS = ("box", "polygon", "ellipse", "mask")
NO_AREA = ("polyline", "points", "cuboid")
LINE = re.compile(r"<line [^<>]*>")
ATTRIBUTE = re.compile(r'([a-z-]+)="([^"]*)"')
NODE = re.compile(r"<circle [^<>]*>")
CROWD = ("iscrowd", "is_crowd")
HEAD = 2**16
STRETCHES = 10  # of the frames of a video, each kept together where a part is held out


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
    files = file_of_split(tree, path, ".xml", KIND)
    if len(files) == 1 and split_name(next(iter(files.values())).stem) is None:
        return cvat_file(next(iter(files.values())), next(iter(files)))
    return {split: CvatSource(file) for split, file in files.items()}


def cvat_file(path: Path, split: str | None = None) -> dict[str, CvatSource]:
    """Return the splits of a single file: those of its images, else that of its name, else train.

    Raises:
        ValueError: if it cannot be read.
    """
    if not is_kind(path, ".xml", KIND):
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
        self.told = False
        self.joints: dict[str, None] = {}
        self.bones: list[tuple[str, str]] = []

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
        return self.read(
            lambda: self._scan(roots),
            roots,
            self.labels or None,
            names,
            joints=tuple(self.joints),
            bones=self.bones,
        )

    def _meta(self, meta: Node) -> None:
        """Take over the classes, and the size of a video."""
        for place in (meta, *meta.children):
            if (labels := place.child("labels")) is not None:
                for label in labels.all("label"):
                    name = label.child("name")
                    if name is None or not name.text:
                        continue
                    if label.child("parent") is not None:  # an element of a skeleton
                        self.joints.setdefault(name.text)
                    else:
                        self.labels.setdefault(name.text, name.text)
                    if (svg := label.child("svg")) is not None:
                        self.bones += [one for one in _bones(svg.text) if one not in self.bones]
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
                    self.leave("the number of a track")
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
        numbers = sorted({*files, *frames})
        stretch = max(math.ceil(len(numbers) / STRETCHES), 1)
        if not self.told:
            self.fault(
                "frames of one video",
                f"{self.path}: {len(numbers)} frames of one video look alike: where a part is held "
                f"out, {stretch} frames in a row stay together, which still shows one scene to "
                "both; hold out another video",
                "kept",
            )
            self.told = True
        for at, number in enumerate(numbers):
            file = files.get(number, root / f"frame_{number:06}.png")
            picture = Picture(self.path, _within(file, roots), self.size)
            picture.group = at // stretch
            self._take(picture, frames.get(number, []))
            yield picture

    def _take(self, picture: Picture, shapes: Sequence[tuple[Node, str | None]]) -> None:
        """Take over the shapes of an image with their classes."""
        groups: dict[Hashable, Shape] = {}
        height, width = map(whole_number, picture.size or (None, None))
        size = (height or 1, width or 1)
        if size[0] < 1 or size[1] < 1 or size[0] * size[1] > max_pixels():
            size = (1, 1)
        pointed: list[tuple[Node, str | None]] = []
        by_group: dict[str, list[Shape]] = {}
        for node, label in shapes:
            group = node.attributes.get("group_id", "0")
            if node.tag == "skeleton" or (node.tag == "points" and group not in ("", "0")):
                pointed.append((node, label))
                continue
            if node.tag == "tag":
                picture.labels = (*picture.labels, *([label] if label else ()))
                continue
            if node.tag in NO_AREA:
                self.no_area(node.tag, f"{self.path}:{node.line}")
                continue
            found = Shape(label or None, f"line {node.line}", {})
            marks = {
                (one.attributes.get("name") or "").lower(): one.text
                for one in node.all("attribute")
            }
            ignore = bool(flag(marks.get("ignore")))
            self._leave(node, marks)
            if ignore or any(flag(marks.get(word)) for word in CROWD):
                found.entry.update(iscrowd=1, ignore=int(ignore))
            if ignore and not label:
                found.key = ANY
            try:
                found.entry.update(_outline(node, size, picture))
            except BadSegment as bad:
                found.entry["bbox"] = bad
            masked = group not in ("", "0") and "segmentation" in found.entry
            if masked and is_part(found, (label, group), groups, size):
                continue
            by_group.setdefault(group, []).append(found)
            picture.shapes.append(found)
        self._take_points(picture, pointed, by_group)

    def _leave(self, node: Node, marks: Mapping[str, str]) -> None:
        """Count what of a shape no object of a data set has."""
        for name in marks:
            if name not in (*CROWD, "ignore"):
                self.leave(f"the attribute {name!r}")
        if flag(node.attributes.get("occluded")):
            self.leave("that an object is occluded")
        if whole_number(node.attributes.get("z_order") or 0):
            self.leave("the order in depth (z_order)")

    def _take_points(
        self,
        picture: Picture,
        pointed: Sequence[tuple[Node, str | None]],
        by_group: Mapping[str, Sequence[Shape]],
    ) -> None:
        """Give keypoints to the object of their group; a skeleton without one is one itself."""
        taken: dict[str, tuple[Shape, Joints]] = {}
        for number, (node, label) in enumerate(pointed):
            group = node.attributes.get("group_id", "0")
            owners = by_group.get(group, ()) if group not in ("", "0") else ()
            skeleton = node.tag == "skeleton"
            if len(owners) != 1 and not skeleton:
                self.no_area(node.tag, f"{self.path}:{node.line}")
                continue
            owner = owners[0] if len(owners) == 1 else None
            key = f"{group}" if owner is not None else f"alone {number}"
            new = Shape(label or None, f"line {node.line}", {})
            owner, joints = taken.setdefault(key, (owner or new, {}))
            try:
                found = _joints(node, label)
            except BadSegment as bad:
                message = f"{self.path}:{node.line}: {bad}: its keypoints are left out"
                picture.notes.append(("bad keypoints", message, "left out"))
                continue
            if double := [name for name in found if name in joints]:
                message = (
                    f"{self.path}:{node.line}: its object has a keypoint {double[0]!r} already"
                )
                picture.notes.append(("duplicate keypoint", message, "left out"))
            joints.update({name: one for name, one in found.items() if name not in joints})
        for owner, joints in taken.values():
            if any(seen for _, _, seen in joints.values()):
                if not owner.entry:
                    picture.shapes.append(owner)
                owner.joined(joints)


def _joints(node: Node, label: str | None) -> Joints:
    """Return the keypoints of a skeleton, or of points.

    Raises:
        BadSegment: if one has no name or no place.
    """
    if node.tag == "points":
        numbers = _points(node)
        seen = 1 if flag(node.attributes.get("occluded")) else 2
        alone = len(numbers) == 1
        if not label:
            raise BadSegment("bad keypoints", "points have no label")
        return {label if alone else str(k): (x, y, seen) for k, (x, y) in enumerate(numbers, 1)}
    found: Joints = {}
    for one in node.all("points"):
        name = one.attributes.get("label")
        if not name:
            raise BadSegment("bad keypoints", "an element of the skeleton has no label")
        if flag(one.attributes.get("outside")):
            continue
        x, y = _points(one)[0]
        found[name] = x, y, 1 if flag(one.attributes.get("occluded")) else 2
    return found


def _points(node: Node) -> list[tuple[float, float]]:
    """Return points as written in x,y;x,y.

    Raises:
        BadSegment: if they are no such points.
    """
    text = node.attributes.get("points", "")
    pairs = [pair.split(",") for pair in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise BadSegment("bad points", f"points are x,y;x,y;..., got {shown(text)}")
    return [(_number(x, "points"), _number(y, "points")) for x, y in pairs]


def _bones(svg: str) -> list[tuple[str, str]]:
    """Return which keypoints the picture of a skeleton joins, by their names."""
    nodes = [dict(ATTRIBUTE.findall(one)) for one in NODE.findall(svg)]
    names = {one.get("data-node-id"): one.get("data-label-name") for one in nodes}
    lines = [dict(ATTRIBUTE.findall(one)) for one in LINE.findall(svg)]
    ends = [(names.get(o.get("data-node-from")), names.get(o.get("data-node-to"))) for o in lines]
    return [(unescape(a), unescape(b)) for a, b in ends if a and b]


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
        return {"segmentation": [[side for point in _points(node) for side in point]]}
    if node.tag == "mask":
        return {"segmentation": _mask(node, size, picture)}
    raise BadSegment("unknown shape", f"<{node.tag[:40]}> is no shape that is read")


def _numbers(node: Node, *names: str) -> list[float]:
    return [_number(node.attributes.get(name), name) for name in names]


def _number(text: str | None, name: str) -> float:
    return written_number(text, name, "bad points")


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
