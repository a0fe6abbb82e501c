"""VIA, the VGG Image Annotator (Dutta and Zisserman 2019): JSON, projects, and CSV.

An image has regions, each with a shape and attributes that the user has named, so that nothing says
which of them is the class: `format=via:ATTRIBUTE` does, else it is one of the usual names, else the
only one that there is. Rectangles, circles, ellipses and polygons are objects. The attributes
`iscrowd` and `ignore` make regions that count neither way.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY, OBJECT
from ...building.geometry import ellipse, points_of, turned
from ...building.objects import flag, given_number, shown
from ...records import ANY_CLASS, Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_roots, listed_names, size_of
from ..folders import Tree, split_name
from ..json_file import load_json
from ..outgoing import Names, Outgoing, class_file, copy_image, objects_of, one_file, refuse_written
from ..sniff import is_kind
from ..source import FieldSource, ReadOptions
from ..tables.text import header_line, table_text

FORMAT = "via"
KIND = "VIA JSON"
IMAGES = "_via_img_metadata"
CLASS_NAMES = ("class", "class_name", "label", "name", "category", "type", "object")
MARKS = ("iscrowd", "ignore")
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
NO_AREA = ("point", "polyline", "line")


@dataclass(frozen=True)
class ViaSource(FieldSource):
    """Where one split lies: a JSON or CSV of VIA.

    Attributes:
        annotations: the file.
    """

    annotations: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, FORMAT)
        images = _images(self.annotations)
        roots = image_roots(self.annotations, split)
        field = reader.choose(images, self.field)
        listed = listed_names(self.annotations.parent, ())
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(lambda: reader.pictures(images, field, roots), roots, by_name, names)


def find_via(tree: Tree, path: Path) -> dict[str, ViaSource]:
    """Return the splits of a folder with files of VIA, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".json", _fits) or file_of_split(tree, path, ".csv", _fits)
    return {split: ViaSource(file) for split, file in files.items()}


def via_file(path: Path) -> dict[str, ViaSource]:
    """Return the split of a single file, {} for others."""
    return {split_name(path.stem) or "train": ViaSource(path)} if _fits(path) else {}


def _fits(file: Path) -> bool:
    if file.suffix.lower() != ".csv":
        return is_kind(file, ".json", KIND)
    try:
        words = next(csv.reader([header_line(file)]), [])
    except (ValueError, csv.Error):
        return False
    return set(COLUMNS) <= {word.strip().lstrip("#") for word in words}


def _images(file: Path) -> list[tuple[str, Any]]:
    """Return where each image stands in a file, and its entry, as the JSON has it.

    Raises:
        ValueError: if the file cannot be read.
    """
    if file.suffix.lower() == ".csv":
        return _table(file)
    content = load_json(file)
    images = content.get(IMAGES, content) if isinstance(content, dict) else None
    if not isinstance(images, dict):
        raise ValueError(f"{file} has no images: it is not VIA's, or cut off")
    return [(f"entry {shown(key)}", one) for key, one in images.items()]


def _table(file: Path) -> list[tuple[str, Any]]:
    rows = csv.DictReader(io.StringIO(table_text(file), newline=""))
    rows.fieldnames = [name.strip().lstrip("#") for name in rows.fieldnames or ()]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    try:
        for row in rows:
            where = f"line {rows.line_num}"
            name = row.get("filename") or ""
            one = found.setdefault(name, (where, {"filename": name, "regions": []}))[1]
            region: dict[str, Any] = {"place": where}
            region["shape_attributes"] = _cell(row.get("region_shape_attributes"))
            region["region_attributes"] = _cell(row.get("region_attributes"))
            if region["shape_attributes"] != {}:
                one["regions"].append(region)
    except csv.Error as error:
        raise ValueError(f"{file}, line {rows.line_num}: {error}: it may be cut off") from None
    return list(found.values())


def _cell(text: str | None) -> Any:
    """Return what a cell holds as JSON; its text where it is none, for the reader to refuse."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


def _regions(one: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the regions of an image with their places; version 1 has them by number."""
    regions = one.get("regions") if isinstance(one, dict) else None
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    return [
        (str(region.get("place", f"regions[{k}]")), region)
        for k, region in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(region, dict)
    ]


def _attributes(region: dict[str, Any]) -> dict[str, Any]:
    found = region.get("region_attributes")
    return found if isinstance(found, dict) else {}


class _Reader(AnnotatedReader):
    """State of reading one split."""

    AREALESS = "points and lines"

    def choose(self, images: Sequence[tuple[str, Any]], field: str) -> str:
        """Return the attribute that tells classes; "" where none does, which is told.

        Raises:
            ValueError: if no region has the one that is asked for, or several may be it.
        """
        every = [_attributes(region) for _, one in images for _, region in _regions(one)]
        counts = Counter(
            name for one in every for name in one if name not in MARKS and _value(one[name])
        )
        listed = ", ".join(map(shown, counts)) or "none"
        if field:
            if field not in counts:
                raise ValueError(
                    f"{self.path}: no region has the attribute {field!r}, there are: {listed}"
                )
            return field
        usual = [name for word in CLASS_NAMES for name in counts if name.casefold() == word]
        if usual or len(counts) == 1:
            return (usual or list(counts))[0]
        if counts:
            raise ValueError(
                f"{self.path}: which attribute of the regions is their class? There are {listed}: "
                f"give format={FORMAT}:ATTRIBUTE"
            )
        if every:
            self.fault(
                "classes without names",
                f"{self.path}: no region has an attribute, so all are of the class {OBJECT!r}",
                "kept",
            )
        return ""

    def pictures(
        self, images: Sequence[tuple[str, Any]], field: str, roots: Sequence[Path]
    ) -> Iterator[Picture]:
        """Yield the images of the file."""
        for where, one in images:
            name = one.get("filename") if isinstance(one, dict) else None
            picture = Picture(self.path, name if isinstance(name, str) else "")
            if not picture.name:
                message = f"{self.path}, {where}: an image needs a filename, got {shown(one)}"
                picture.broken = "bad image entry", message
                yield picture
                continue
            picture.name = picture.name.replace("\\", "/")
            if "://" in picture.name:
                picture.name = picture.name.rsplit("/", 1)[-1]
            picture.size = _size(picture.name, roots)
            for place, region in _regions(one):
                at = place if place.startswith("line") else f"{where}, {place}"
                self._take(picture, region, at, field)
            yield picture

    def _take(self, picture: Picture, region: dict[str, Any], place: str, field: str) -> None:
        """Take over a region."""
        given = _attributes(region)
        shape = region.get("shape_attributes")
        kind = shape.get("name") if isinstance(shape, dict) else None
        if kind in NO_AREA:
            self.no_area(kind, f"{self.path}, {place}")
            return
        for name, value in given.items():
            if name not in (field, *MARKS) and _value(value):
                self.leave(f"the attribute {shown(name)}")
        words = _value(given.get(field)) if field else [OBJECT]
        ignore = bool(flag(_first(given.get("ignore"))))
        found = Shape(words[0] if words else ANY if ignore else None, place, {})
        if len(words) > 1:
            message = f"{self.path}, {place}: of the classes {words} the first is read"
            picture.notes.append(("several labels of a region", message, "repaired"))
        if ignore or flag(_first(given.get("iscrowd"))):
            found.entry.update(iscrowd=1, ignore=int(ignore))
        try:
            found.entry.update(_outline(kind, shape))
        except BadSegment as bad:
            found.entry["bbox"] = bad
        picture.shapes.append(found)


def _value(value: Any) -> list[str]:
    """Return what an attribute says: a text, or the ticked boxes of several."""
    if isinstance(value, dict):
        return [str(name) for name, ticked in value.items() if flag(ticked)]
    text = "" if value is None or isinstance(value, list | bool) else str(value).strip()
    return [text] if text and text != "undefined" else []


def _first(value: Any) -> Any:
    return value if isinstance(value, bool) else next(iter(_value(value)), None)


def _size(name: str, roots: Sequence[Path]) -> tuple[int, int] | None:
    """Return (height, width) of an image: the file of VIA does not tell them."""
    return next((size for root in roots if (size := size_of(root / name))), None)


def _outline(kind: Any, shape: Any) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of a shape.

    Raises:
        BadSegment: if it cannot be used.
    """
    if not isinstance(shape, dict):
        raise BadSegment("bad points", f"shape_attributes must be an object, got {shown(shape)}")
    if kind == "rect":
        return {"bbox": [_number(shape, side) for side in ("x", "y", "width", "height")]}
    if kind == "polygon":
        xs, ys = (shape.get(f"all_points_{axis}") for axis in "xy")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            message = f"all_points_x and all_points_y must be lists of one length, got {shown(xs)}"
            raise BadSegment("bad points", message)
        points = points_of([list(pair) for pair in zip(xs, ys, strict=True)], 3)
        if len(points) > 3 and points[0] == points[-1]:  # version 1 closes them
            points = points[:-1]
        return {"segmentation": [[side for point in points for side in point]]}
    if kind in ("circle", "ellipse"):
        cx, cy = _number(shape, "cx"), _number(shape, "cy")
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        outline = ellipse(cx, cy, *(_number(shape, name) for name in radii))
        angle = _number(shape, "theta") if shape.get("theta") is not None else 0.0
        return {"segmentation": [turned(outline, math.degrees(angle), (cx, cy))]}
    raise BadSegment("unknown shape", f"the shape {shown(kind)} is none that is read")


def _number(shape: Mapping[str, Any], name: str) -> float:
    return given_number(shape.get(name), name, "bad points")


@takes_paths
def write_via(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as the JSON that VIA imports as annotations, with copies of the images.

    A mask becomes one polygon: its parts and holes are joined by lines that are walked twice. The
    class is the attribute `class`; regions that count neither way get `iscrowd` and `ignore`.

    Args:
        dataset: the images and objects; keypoints are not written.
        folder: where SPLIT.json, classes.txt and images/SPLIT/ go; other splits may be there
            already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    file, images = root / f"{dataset.split}.json", root / "images" / dataset.split
    refuse_written(file, dataset)
    names = Names()
    class_file(dataset, root / "classes.txt")
    with one_file(file, root, images) as stream:
        between = "{\n"
        for record, objects in objects_of(dataset):
            image = copy_image(record, images, names.free(record.path))
            size = image.stat().st_size
            entry = {
                "filename": image.name,
                "size": size,
                "regions": [_region(one) for one in objects],
                "file_attributes": {},
            }
            stream.write(f"{between}{json.dumps(f'{image.name}{size}')}: {json.dumps(entry)}")
            between = ",\n"
        stream.write("\n}\n" if len(dataset) else "{}\n")
    return file


def _region(one: Outgoing) -> dict[str, Any]:
    """Return an object as a region."""
    points = one.polygon()
    shape: dict[str, Any]
    if points is not None:
        xs, ys = points.T.tolist()
        shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    else:
        x1, y1, x2, y2 = one.box
        shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    attributes = {} if one.label == ANY_CLASS else {"class": one.name}
    if one.crowd:
        attributes |= {"iscrowd": "true", "ignore": str(one.ignored).lower()}
    return {"shape_attributes": shape, "region_attributes": attributes}
