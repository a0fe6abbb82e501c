"""Reader of Pascal VOC (Everingham et al. 2010): XML files, lists of images, masks of objects.

VOC counts pixels from 1 and includes the last: xmin to xmax becomes xmin - 1 to xmax of our
continuous coordinates, fractions included. Turned boxes and polygons, which other tools add, are
outlines; see `outlines`. An object marked `difficult` becomes a region that is
ignored, in training and in evaluation (as a crowd in COCO's measures); `truncated`, `occluded` and
`pose` are not used. Nothing is dropped in silence: see `Dataset.faults`, with file and line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...building.builder import Builder
from ...building.image_names import clean_path
from ...building.objects import flag, shown
from ...records import Dataset
from ...segments import BadSegment
from ..folders import is_file, read_lines
from .layout import ImageFiles, VocPart, find_xml, listed_id
from .masks import ObjectMasks, read_object_masks
from .outlines import read_outline
from .xml_tree import BadXml, Node, read_xml

CLASS_FILES = ("classes.txt", "class_names.txt")
HEADINGS = ("_background_", "__ignore__")  # of labelme's class_names.txt: no classes
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    parts: Sequence[VocPart],
    *,
    split: str = "train",
    names: Sequence[str] | None = None,
    difficult: bool = False,
) -> Dataset:
    """Read lists of Pascal VOC images as one data set.

    Args:
        parts: the lists, such as trainval of VOC2007 and of VOC2012.
        split: name of the split.
        names: class names of another split or of a model, which give the labels; None: those of
            classes.txt (in a VOC folder or above it), else all in the XML files, sorted.
        difficult: take objects marked `difficult` as objects like others.

    Returns:
        The data set. It has masks if every image has its file in SegmentationObject.

    Raises:
        ValueError: if a list cannot be read, no image is usable, or a class is not in `names`.
    """
    return _Reader(parts[0].source, split).read_parts(parts, names, difficult)


@dataclass(frozen=True)
class Unnamed:
    """In place of a category id: the name that no class has, or the number of a mask."""

    what: str | int


@dataclass(slots=True)
class _Object:
    """One object while it is read.

    Attributes:
        number: its id in the data set.
        node: its element.
        box: xyxy, or what is wrong with it.
        outline: flat polygons, or what is wrong with them; None: it has a box alone.
    """

    number: int
    node: Node
    box: list[float] | BadSegment
    outline: list[list[float]] | BadSegment | None = None


@dataclass
class _Image:
    """One image while it is read.

    Attributes:
        number: its id in the data set.
        part, name: where it comes from: the list, and its id there.
        xml: its annotation file.
        size: (height, width) texts of the XML file, None where they are not given.
        objects: its objects.
    """

    number: int
    part: VocPart
    name: str
    xml: Path
    size: tuple[str, str] | None = None
    objects: list[_Object] = field(default_factory=list)


class _Reader(Builder):
    """State of reading one split."""

    format = "voc"

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path, split)
        self.xml: dict[int, Path] = {}  # by image
        self.lines: dict[int, int] = {}  # by object
        self.files = ImageFiles()
        self.spare = 0

    def place_of(self, image: int | None, annotation: int | None) -> tuple[Path, str] | None:
        """Return the XML file of an image, and the line of an object; see `Builder`."""
        if image not in self.xml:
            return None
        line = f":{self.lines[annotation]}" if annotation in self.lines else ""
        return self.xml[image], f"{self.xml[image]}{line}"

    def read_parts(
        self, parts: Sequence[VocPart], names: Sequence[str] | None, difficult: bool
    ) -> Dataset:
        images: list[_Image] = []
        entries: list[dict[str, Any]] = []
        root = parts[0].images
        if len(parts) > 1:
            parts = [replace(part, images=part.images.resolve()) for part in parts]
            root = Path(os.path.commonpath([part.images for part in parts]))
        for part in parts:
            for name, where in self._ids(part):
                xml = find_xml(part.annotations, name) or part.annotations / f"{name}.xml"
                image = _Image(len(entries) + 1, part, name, xml)
                entry: dict[str, Any] = {
                    "id": image.number,
                    "file_name": None,
                    "height": None,
                    "width": None,
                }
                entries.append(entry)
                tree = self._read_xml(image, where)
                if tree is None:
                    continue
                self._read_objects(image, tree)
                file = self.files.find(part.images, name, _text(tree, "filename"))
                entry["file_name"] = file.relative_to(root).as_posix()
                if image.size is not None:
                    entry["height"], entry["width"] = image.size
                images.append(image)
        found = [entry for entry in entries if entry["file_name"] is not None]
        if not images:
            raise ValueError(
                f"{self.path} gives no usable image of {len(entries)}{self.first_fault()}"
            )
        listed = self._class_list(parts)
        occurring = sorted(
            {name for one in images for own in one.objects if (name := _text(own.node, "name"))}
        )
        ids = {name: i for i, name in enumerate(listed or occurring, 1)}
        if not ids and names is None:
            raise ValueError(
                f"{self.path}: not one object in {len(images)} annotation files, so the classes "
                f"are not known: write their names into {parts[0].folder / CLASS_FILES[0]}, one a "
                "line"
            )
        masks = self._masks(images)
        annotations = [
            (number, entry)
            for image in images
            for number, entry in self._annotations(image, ids, masks.get(image.number), difficult)
        ]
        categories = [{"id": i, "name": name} for name, i in ids.items()]
        used = [entry["category_id"] for _, entry in annotations]
        classes = self.classes(categories, used, names)
        having = any(one.get("segmentation") and not one.get("iscrowd") for _, one in annotations)
        return self.build(found, [root], annotations, having, classes)

    def _ids(self, part: VocPart) -> Iterator[tuple[str, str]]:
        """Yield the ids of a list, each once, and where they stand ("file:line: ")."""
        if part.listing is None:
            names = sorted(self.files.stems(part.annotations, (".xml",)))
            without = sorted(self.files.stems(part.images) - set(names))
            if part.divided:
                names = self._of_folder(part, names)
            if without:
                self.fault(
                    "image without annotations",
                    f"{len(without)} image(s) of {part.images} have no XML file in "
                    f"{part.annotations}, first {without[0]}: an image without objects needs one "
                    "as well",
                    file=part.images,
                )
            yield from ((name, "") for name in names)
            return
        seen: dict[str, int] = {}
        left_out = {name for other in part.without for name in self._listed(other, part)}
        for line, text in enumerate(read_lines(part.listing), 1):
            where = f"{part.listing}:{line}: "
            name = listed_id(text.strip(), part.annotations, self.files)
            if name is None or name in left_out:
                continue
            if clean_path(f"{name}.xml") != f"{name}.xml":
                self.fault(
                    "path outside the data set",
                    f"{where}the id {shown(name)} is no name of a file below {part.annotations}",
                    file=part.listing,
                )
            elif name in seen:
                self.fault(
                    "duplicate image id",
                    f"{where}{shown(name)} stands in line {seen[name]} already",
                    file=part.listing,
                )
            else:
                seen[name] = line
                yield name, where

    def _listed(self, listing: Path, part: VocPart) -> Iterator[str]:
        for text in read_lines(listing):
            name = listed_id(text.strip(), part.annotations, self.files)
            if name is not None:
                yield name

    def _of_folder(self, part: VocPart, names: list[str]) -> list[str]:
        """Return those of all ids whose images lie in the folder of the split."""
        homes = {place: self.files.stems(place) for place in part.divided}
        nowhere = [name for name in names if not any(name in stems for stems in homes.values())]
        if nowhere and part.images == part.divided[0]:  # once, not for every split
            places = ", ".join(str(place) for place in part.divided)
            self.fault(
                "missing image",
                f"{len(nowhere)} XML file(s) of {part.annotations} have no image in {places}, "
                f"first {nowhere[0]}",
                file=part.annotations,
            )
        twice = [name for name in names if sum(name in stems for stems in homes.values()) > 1]
        if twice:
            raise ValueError(
                f"{part.annotations}: images named {twice[0]} lie in several of "
                f"{', '.join(str(place) for place in part.divided)}, so that {twice[0]}.xml may "
                "belong to any: give each image a name of its own, or each split its XML files"
            )
        return [name for name in names if name in homes[part.images]]

    def _read_xml(self, image: _Image, where: str) -> Node | None:
        """Return the tree of an image's annotations, None after noting a fault."""
        try:
            tree = read_xml(image.xml)
            if tree.tag != "annotation":
                raise BadXml(
                    f"{image.xml}:{tree.line}: expected <annotation>, as in Pascal VOC, got "
                    f"<{tree.tag[:80]}>"
                )
        except BadXml as error:
            there = is_file(image.xml)
            kind = "unreadable annotation file" if there else "missing annotation file"
            self.fault(kind, f"{where}{error}", image=image.number, file=image.xml)
            return None
        self.xml[image.number] = image.xml
        given = [_text(tree, "size", side) for side in ("height", "width")]
        # LabelImg and others write 0 where they do not know the size.
        if all(number not in ("", "0") for number in given):
            height, width = (text.removesuffix(".0") for text in given)
            image.size = height, width
        return tree

    def _read_objects(self, image: _Image, tree: Node) -> None:
        """Take over the objects with their boxes."""
        for node in tree.all("object"):
            number = len(self.lines) + 1
            self.lines[number] = node.line
            where: dict[str, Any] = {"image": image.number, "annotation": number}
            outline = read_outline(node)
            if outline is not None and node.child("bndbox") is None:
                box = outline if isinstance(outline, BadSegment) else _extent(outline)
                image.objects.append(_Object(number, node, box, outline))
                continue
            texts = [_text(node, "bndbox", side) for side in SIDES]
            sides = [_number(text) for text in texts]
            given = ", ".join(
                f"{side} {shown(text)}" for side, text in zip(SIDES, texts, strict=True)
            )
            if any(text.lower().lstrip("+-") in ("nan", "inf", "infinity") for text in texts):
                bad = BadSegment("NaN or infinite coordinates", f"the box is not finite: {given}")
                image.objects.append(_Object(number, node, bad, outline))
                continue
            if None in sides:
                bad = BadSegment("bad box", f"<bndbox> needs four numbers, got {given}")
                image.objects.append(_Object(number, node, bad, outline))
                continue
            x1, y1, x2, y2 = (side for side in sides if side is not None)
            if (x1, y1) == (x2, y2):
                message = f"a click, no box: {given} has no extent"
                self.fault("empty box", message, **where)
                continue
            if x2 <= x1 - 1 or y2 <= y1 - 1:
                message = f"the corners of the box are exchanged ({given}): put in order"
                self.fault("swapped corners", message, "repaired", **where)
                x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
            image.objects.append(_Object(number, node, [x1 - 1, y1 - 1, x2, y2], outline))

    def _class_list(self, parts: Sequence[VocPart]) -> list[str]:
        """Return the class names that files of the data set list; none if there is no such file."""
        names: dict[str, None] = {}
        for part in parts:
            places = [part.folder / name for name in CLASS_FILES]
            places += [part.folder.parent / name for name in CLASS_FILES]
            file = next((place for place in places if place.is_file()), None)
            if file is not None:
                lines = [line.strip() for line in read_lines(file)]
                names |= dict.fromkeys(line for line in lines if line and line not in HEADINGS)
        return list(names)

    def _masks(self, images: Sequence[_Image]) -> dict[int, ObjectMasks]:
        """Return the masks of the objects by image, if every image has a file of them."""
        files = {
            image.number: image.part.folder / "SegmentationObject" / f"{image.name}.png"
            for image in images
        }
        having = [number for number, file in files.items() if file.is_file()]
        if not having:
            return {}
        if len(having) < len(images):
            self.fault(
                "masks of some images only",
                f"{len(having)} of {len(images)} images have a file in SegmentationObject: masks "
                "are read only where all have one, as those listed in ImageSets/Segmentation",
            )
            return {}
        found: dict[int, ObjectMasks] = {}
        for image in images:
            file = files[image.number]
            try:
                nowhere = [0.0] * 4  # where a mask fits nothing
                boxes = [
                    nowhere if isinstance(one.box, BadSegment) else one.box for one in image.objects
                ]
                masks = read_object_masks(file, boxes)
            except ValueError as error:
                self.fault("unreadable masks", str(error), image=image.number, file=file)
                continue
            found[image.number] = masks
        return found

    def _annotations(
        self,
        image: _Image,
        ids: dict[str, int],
        masks: ObjectMasks | None,
        difficult: bool,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the objects of an image by number, as COCO has them."""
        for k, one in enumerate(image.objects):
            number, node, box, outline = one.number, one.node, one.box, one.outline
            where: dict[str, Any] = {"image": image.number, "annotation": number}
            name = _text(node, "name")
            mark = flag(text := _text(node, "difficult"))
            if mark is None:
                message = f"difficult {shown(text)} is neither 0 nor 1: read as 0"
                self.fault("bad difficult", message, "repaired", **where)
            self._leave(node)
            shape: Any = box
            if not isinstance(box, BadSegment):
                x1, y1, x2, y2 = box
                shape = [x1, y1, x2 - x1, y2 - y1]
            entry: dict[str, Any] = {
                "image_id": image.number,
                "category_id": ids.get(name, Unnamed(name)),
                "bbox": shape,
                "iscrowd": int(bool(mark) and not difficult),
                "ignore": int(bool(mark) and not difficult),
            }
            if masks is not None:
                entry["segmentation"] = masks.codes[k]
            elif isinstance(outline, BadSegment) and box is not outline:
                self.fault(outline.kind, f"{outline}: its box serves", "repaired", **where)
            elif isinstance(outline, list):
                entry["segmentation"] = outline
            yield number, entry
        for mask, code in {} if masks is None else masks.unused.items():
            self.spare -= 1  # an id of its own
            entry = {"image_id": image.number, "category_id": Unnamed(mask), "segmentation": code}
            yield self.spare, entry

    def _leave(self, node: Node) -> None:
        """Count what of an object no object of a data set has."""
        if _text(node, "pose").lower() not in ("", "unspecified"):
            self.leave("the pose of an object")
        for mark in ("truncated", "occluded"):
            if flag(_text(node, mark)):
                self.leave(f"that an object is {mark}")
        if node.child("part") is not None:
            self.leave("the parts of an object, such as head and hands")

    def unknown_category(self, value: Any) -> str:
        """Return what is wrong with the class of an object, or with a mask that no object has."""
        assert isinstance(value, Unnamed)
        if isinstance(value.what, int):
            return f"mask {value.what} of SegmentationObject fits no object of the XML file"
        if not value.what:
            return "<object> has no <name>"
        return f"the class {shown(value.what)} is not in the list of classes"


def _extent(parts: Sequence[Sequence[float]]) -> list[float]:
    """Return the box xyxy around flat polygons."""
    xs, ys = ([side for part in parts for side in part[axis::2]] for axis in (0, 1))
    return [min(xs), min(ys), max(xs), max(ys)]


def _text(node: Node, *path: str) -> str:
    """Return the text of the element under a path of tags, "" if there is none."""
    found = node.child(*path)
    return "" if found is None else found.text


def _number(text: str) -> float | None:
    """Return a finite number of sane size, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e12 else None
