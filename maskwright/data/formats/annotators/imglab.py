"""Reader of dlib's imglab XML: boxes by a corner and sides, with their parts as keypoints.

Boxes to ignore are regions that count neither way. Where no box of a file has a label, as in sets
of faces, all are of one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape
from ...building.builder import ANY, OBJECT
from ...building.objects import flag, written_number
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_roots, size_of
from ..folders import Tree, split_name
from ..sniff import IMGLAB, is_kind
from ..source import BaseSource, ReadOptions
from ..voc.xml_tree import Node, xml_elements

FORMAT = "imglab"
SIDES = ("left", "top", "width", "height")


@dataclass(frozen=True)
class ImglabSource(BaseSource):
    """Where one split lies: an XML file of imglab."""

    annotations: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, FORMAT)
        roots = image_roots(self.annotations, split)
        nodes = [
            one
            for part in xml_elements(self.annotations, "dataset")
            if part.tag == "images"
            for one in part.all("image")
        ]
        boxes = [box for node in nodes for box in node.all("box")]
        if boxes and not any(_label(box) for box in boxes):
            reader.nameless = OBJECT
            message = (
                f"{self.annotations}: no box has a <label>: the class of all is {OBJECT!r}; "
                "label them in imglab if there are several"
            )
            reader.fault("objects without a class", message, "kept")
        return reader.read(lambda: reader.pictures(nodes, roots), roots, None, names)


def find_imglab(tree: Tree, path: Path) -> dict[str, ImglabSource]:
    """Return the splits of a folder with XML files of imglab, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".xml", IMGLAB)
    return {split: ImglabSource(file) for split, file in files.items()}


def imglab_file(path: Path) -> dict[str, ImglabSource]:
    """Return the split of a single file, {} for others."""
    if not is_kind(path, ".xml", IMGLAB):
        return {}
    return {split_name(path.stem) or "train": ImglabSource(path)}


def _label(box: Node) -> str | None:
    label = box.child("label")
    return (label.text if label is not None else "") or None


class _Reader(AnnotatedReader):
    """State of reading one split; `nameless` is the class of boxes without a label."""

    nameless: str | None = None

    def pictures(self, nodes: Sequence[Node], roots: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of the file."""
        for node in nodes:
            name = node.attributes.get("file", "").replace("\\", "/")
            picture = Picture(self.path, name)
            if not name:
                message = f"{self.path}:{node.line}: an <image> needs the attribute file"
                picture.broken = "bad image entry", message
            else:
                sizes = (size_of(root / name) for root in roots)
                picture.size = next((size for size in sizes if size is not None), None)
                for box in node.all("box"):
                    self._take(picture, box)
            yield picture

    def _take(self, picture: Picture, box: Node) -> None:
        """Take over a box with its parts."""
        shape = Shape(_label(box) or self.nameless, f"line {box.line}", {})
        if flag(box.attributes.get("ignore")):
            shape.entry.update(iscrowd=1, ignore=1)
            shape.key = shape.key or ANY
        for name in box.attributes.keys() - {*SIDES, "ignore"}:
            if box.attributes[name] not in ("", "0"):
                self.leave(f"the attribute {name!r}")
        try:
            given = (written_number(box.attributes.get(side), side, "bad box") for side in SIDES)
            shape.entry["bbox"] = list(given)
        except BadSegment as bad:
            shape.entry["bbox"] = bad
        try:
            if joints := _joints(box):
                shape.joints = joints
        except BadSegment as bad:
            message = f"{self.path}:{box.line}: {bad}: its keypoints are left out"
            picture.notes.append(("bad keypoints", message, "left out"))
        picture.shapes.append(shape)


def _joints(box: Node) -> Joints:
    """Return the parts of a box.

    Raises:
        BadSegment: if one has no name or no place.
    """
    found: Joints = {}
    for part in box.all("part"):
        name = part.attributes.get("name")
        if not name:
            raise BadSegment("bad keypoints", "a <part> needs the attribute name")
        x, y = (written_number(part.attributes.get(axis), axis, "bad keypoints") for axis in "xy")
        found[name] = x, y, 2
    return found
