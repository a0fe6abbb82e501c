"""Reader of LabelMe's JSON files.

Polygons, rectangles, circles and masks (a PNG inside the file) are objects; shapes of one label and
one `group_id` are parts of one object, and points of that group its keypoints, by their labels.
Other points, and lines, have no area; they are left out and counted. The label __ignore__, and the
flags `iscrowd` and `ignore` of a shape, make regions that count neither way. Flags of whole images
are their labels, where no image has a shape.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.files import replacing

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape, is_part
from ...building.builder import ANY, OBJECT
from ...building.geometry import (
    ellipse,
    png_mask,
    points_of,
    run_lengths,
)
from ...building.objects import flag, shown, whole_number
from ...pixels.images import image_header
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import FilesSource, below, beside, files_by_split, listed_joints, listed_names
from ..folders import Tree
from ..json_file import load_json
from ..sniff import is_kind, sniff
from ..source import ReadOptions

KIND = "LabelMe JSON"
IGNORED = "__ignore__"
POINT = "point"
OCCLUDED = "occluded"  # the flag of a keypoint that is hidden
NO_AREA = ("point", "points", "line", "linestrip")
# The last two are X-AnyLabeling's.
OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")


@dataclass(frozen=True, kw_only=True)
class LabelMeSource(FilesSource):
    """Where one split lies: LabelMe's JSON files."""

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "labelme")
        listed = listed_names(self.root, self.files)
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(
            lambda: reader.pictures(self.root, self.files),
            [self.root],
            by_name,
            names,
            joints=listed_joints(self.root),
        )


def find_labelme(tree: Tree, path: Path) -> dict[str, LabelMeSource]:
    """Return the splits of a folder with LabelMe's JSON files, {} for others."""
    found, faults = files_by_split(tree, path, ".json", lambda file: sniff(file) == KIND)
    sources = {
        split: LabelMeSource(root=path, files=tuple(files), folder=files[0].parent)
        for split, files in found.items()
    }
    if faults and sources:
        first = next(iter(sources))
        sources[first] = sources[first].with_faults(faults)
    return sources


def labelme_file(path: Path) -> dict[str, LabelMeSource]:
    """Return the split of a single file that is LabelMe's JSON, {} for others."""
    if not is_kind(path, ".json", KIND):
        return {}
    return {"train": LabelMeSource(root=path.parent, files=(path,), folder=path.parent)}


class _Reader(AnnotatedReader):
    """State of reading one split; files of X-AnyLabeling have some fields more."""

    AREALESS = "points and lines"

    def pictures(self, root: Path, files: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of files."""
        for file in files:
            picture = Picture(file, "")
            try:
                self._fill(picture, root, load_json(file))
            except ValueError as error:
                picture.broken = "unreadable labels", str(error)
            yield picture

    def _fill(self, picture: Picture, root: Path, content: Any) -> None:
        """Take over image and shapes.

        Raises:
            ValueError: if the file is not LabelMe's.
        """
        file = picture.file
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            raise ValueError(f"{file} has no list 'shapes': it is not LabelMe's JSON, or cut off")
        name = content.get("imagePath")
        picture.name = below(root, file.parent, name) if isinstance(name, str) and name else ""
        if not (picture.name and (root / picture.name).is_file()):
            own = beside(file)
            if own is not None:
                if picture.name:
                    message = f"{file}: imagePath {shown(name)} is not there: {own.name} is taken"
                    picture.notes.append(("image under another name", message, "repaired"))
                picture.name = own.relative_to(root).as_posix()
            elif content.get("imageData"):
                picture.broken = (
                    "image inside the labels",
                    f"{file}: imagePath {shown(name)} is not there, its pixels stand in the file "
                    "as imageData: write them out, maskwright.data.unpack_images(folder)",
                )
                return
            elif not picture.name:
                raise ValueError(f"{file} has no imagePath, and no image of its name beside it")
        picture.size = content.get("imageHeight"), content.get("imageWidth")
        size = _size(picture, root)
        picture.labels = [name for name, value in _flags(content).items() if flag(value)]
        groups: dict[Hashable, Shape] = {}
        owners: dict[Any, dict[int, Shape]] = {}  # objects by group
        points: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
        for number, shape in enumerate(shapes):
            one = shape if isinstance(shape, dict) else {}
            kind, place = one.get("shape_type") or "polygon", f"shapes[{number}]"
            group = one.get("group_id")
            grouped = isinstance(group, int | str)
            if kind == POINT and grouped:
                points.setdefault(group, []).append((place, one))
                continue
            if kind in NO_AREA:
                self.no_area(kind, f"{file}, {place}")
                continue
            found = _shape(one, kind, place, size)
            self._leave(one)
            masked = grouped and "bbox" not in found.entry
            if masked and is_part(found, (str(found.key), group), groups, size):
                continue
            if grouped:
                owners.setdefault(group, {})[id(found)] = found
            picture.shapes.append(found)
        for group, members in points.items():
            self._take_points(picture, members, list(owners.get(group, {}).values()))

    def _leave(self, one: dict[str, Any]) -> None:
        """Count what of a shape no object of a data set has."""
        for name, value in _flags(one).items():
            if name not in ("ignore", "iscrowd") and flag(value):
                self.leave(f"the flag {name!r}")
        if one.get("description"):
            self.leave("the description of a shape")
        if one.get("score") is not None:
            self.leave("the score of a shape")
        attributes = one.get("attributes")
        for name in attributes if isinstance(attributes, dict) else ():
            self.leave(f"the attribute {name!r}")

    def _take_points(
        self,
        picture: Picture,
        points: Sequence[tuple[str, dict[str, Any]]],
        owners: Sequence[Shape],
    ) -> None:
        """Give the points of a group to its object; without one they are one themselves."""
        if len(owners) > 1:
            for place, _ in points:
                self.no_area(POINT, f"{picture.file}, {place}")
            return
        joints: Joints = {}
        for place, one in points:
            name, where = one.get("label"), f"{picture.file}, {place}"
            try:
                if not isinstance(name, str) or not name.strip() or name in joints:
                    what = f"needs a name that its group does not have yet, got {shown(name)}"
                    raise BadSegment("bad keypoints", f"a keypoint {what}")
                (x, y), *_ = points_of(one.get("points"), 1, 1)
            except BadSegment as bad:
                picture.notes.append(("bad keypoints", f"{where}: {bad}: left out", "left out"))
                continue
            joints[name] = x, y, 1 if flag(_flags(one).get(OCCLUDED)) else 2
        if not joints:
            return
        if owners:
            owners[0].joined(joints)
        else:
            picture.shapes.append(Shape(OBJECT, points[0][0], {}).joined(joints))


def _shape(one: dict[str, Any], kind: Any, place: str, size: tuple[int, int]) -> Shape:
    """Return a shape with its outline; a rectangle has a box alone."""
    label = one.get("label")
    key = label if isinstance(label, str) and label.strip() else None
    found = Shape(ANY if key == IGNORED else key, place, {})
    marks = _flags(one)
    ignore = bool(flag(marks.get("ignore")) or flag(one.get("difficult"))) or key == IGNORED
    if ignore or flag(marks.get("iscrowd")):
        found.entry.update(iscrowd=1, ignore=int(ignore))
    try:
        found.entry.update(_outline(kind, one, size))
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _flags(one: dict[str, Any]) -> dict[str, Any]:
    flags = one.get("flags")
    return flags if isinstance(flags, dict) else {}


def _outline(kind: Any, one: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of a shape.

    Raises:
        BadSegment: if it cannot be used.
    """
    points = one.get("points")
    if kind in OUTLINES:
        return {"segmentation": [[side for p in points_of(points, 3) for side in p]]}
    if kind == "rectangle":
        xs, ys = zip(*points_of(points, 2, 4), strict=True)
        return {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]}
    if kind == "circle":
        (cx, cy), (x, y) = points_of(points, 2, 2)
        radius = ((cx - x) ** 2 + (cy - y) ** 2) ** 0.5
        return {"segmentation": [ellipse(cx, cy, radius, radius)]}
    if kind == "mask":
        (x1, y1), (x2, y2) = points_of(points, 2, 2)
        left, top = round(x1), round(y1)
        shape = (round(y2) - top + 1, round(x2) - left + 1)
        return {"segmentation": run_lengths(png_mask(one.get("mask"), shape), left, top, size)}
    raise BadSegment("unknown shape", f"shape_type {shown(kind)} is none that is read")


def _size(picture: Picture, root: Path) -> tuple[int, int]:
    """Return (height, width) as the file says, or the image."""
    height, width = map(whole_number, picture.size or (None, None))
    if height and width and height > 0 and width > 0 and height * width <= max_pixels():
        return height, width
    try:
        return image_header(root / picture.name).size
    except ValueError:  # the builder tells
        return (1, 1)


def unpack_images(folder: str | Path) -> list[Path]:
    """Write the images that stand inside LabelMe's files beside them, where no image is.

    Args:
        folder: is gone through with those below it.

    Returns:
        The files that were written, each called as its JSON.

    Raises:
        ValueError: if `imageData` is no image in base64.
    """
    from PIL import Image

    written = []
    found, _ = files_by_split(Tree(), Path(folder), ".json", lambda file: sniff(file) == KIND)
    for file in sorted(one for files in found.values() for one in files):
        content = load_json(file)
        data, name = content.get("imageData"), str(content.get("imagePath") or "")
        if not data or beside(file) or (file.parent / name.replace("\\", "/")).is_file():
            continue
        try:
            pixels = base64.b64decode(data, validate=True)
            with Image.open(io.BytesIO(pixels)) as image:
                suffix = ".jpg" if image.format == "JPEG" else f".{str(image.format).lower()}"
        except (binascii.Error, TypeError, OSError) as error:
            raise ValueError(f"{file}: imageData is no image in base64: {error}") from None
        with replacing(file.with_suffix(suffix)) as temporary:
            temporary.write_bytes(pixels)
        written.append(file.with_suffix(suffix))
    return written
