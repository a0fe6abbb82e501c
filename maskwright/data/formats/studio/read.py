"""Reader of Label Studio's JSON and JSON-MIN, and of the files that it writes to a storage.

Rectangles, ellipses, polygons and brush strokes are objects, in percent of the image; a rectangle
that is turned is turned around its upper left corner and becomes a polygon. A polygon below another
(`parentID`) is a part of it; keypoints belong to the region that they lie below or have a relation
to, to the only one of the image, or, where there is none, to one object. Of several labels of a
region the first is its class. Of several annotations of a task the newest counts; tasks without
one, and those that were skipped, are left out, for nobody looked at their images. The text
`iscrowd` or `ignore` of a region, and the label __ignore__, make one that counts neither way.
Choices are labels of whole images, where no image has a region.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape
from ...building.builder import ANY
from ...building.geometry import corners_of, ellipse, points_of, run_lengths, turned
from ...building.objects import given_number, shown, whole_number
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import (
    FilesSource,
    file_of_split,
    files_by_split,
    image_roots,
    listed_joints,
    listed_names,
)
from ..folders import Tree, split_name
from ..json_file import load_json
from ..sniff import TASK, sniff
from ..source import ReadOptions
from .brush import decode_brush

KIND = "Label Studio JSON"
IGNORED = "__ignore__"
OCCLUDED = "occluded"
MARKS = ("iscrowd", "ignore", OCCLUDED)
NAMELESS = "object"  # the class of keypoints without a region
POINT = "keypoint"
AREAS = ("rectangle", "ellipse", "polygon", "brush")
CHOICES = "choices"
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
STEP = 5  # decimals of a pixel


@dataclass(frozen=True, kw_only=True)
class StudioSource(FilesSource):
    """Where one split lies: Label Studio's JSON, or a file for each task or annotation."""

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "labelstudio")
        tasks = _tasks(self.files)
        roots = list(dict.fromkeys((*image_roots(self.files[0], split), self.root)))
        listed = listed_names(self.root, self.files)
        by_name = None if listed is None else {name: name for name in listed}
        joints = listed_joints(self.root)
        return reader.read(lambda: reader.pictures(tasks), roots, by_name, names, joints=joints)


def find_studio(tree: Tree, path: Path) -> dict[str, StudioSource]:
    """Return the splits of a folder with JSON files of Label Studio, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".json", KIND)
    if files:
        return {split: _source(file) for split, file in files.items()}
    found, faults = files_by_split(tree, path, ".json", lambda file: sniff(file) == TASK)
    return {
        split: StudioSource(root=path, files=tuple(own), folder=own[0].parent, faults=faults)
        for split, own in found.items()
    }


def studio_file(path: Path) -> dict[str, StudioSource]:
    """Return the split of a single file, {} for others."""
    if path.suffix.lower() != ".json" or sniff(path) not in (KIND, TASK):
        return {}
    return {split_name(path.stem) or "train": _source(path)}


def _source(file: Path) -> StudioSource:
    return StudioSource(root=file.parent, files=(file,), folder=file.parent)


def _tasks(files: Sequence[Path]) -> list[Any]:
    """Return the tasks of files; annotations of one task that stand in several become one.

    Raises:
        ValueError: if one is none of Label Studio's.
    """
    tasks: list[Any] = []
    by_id: dict[Any, dict[str, Any]] = {}
    for file in files:
        content = load_json(file)
        task = content.get("task") if isinstance(content, dict) else None
        if isinstance(content, list):
            tasks += content
        elif isinstance(task, dict) and isinstance(key := task.get("id"), str | int):
            if key not in by_id:
                by_id[key] = {**task, "annotations": []}
                tasks.append(by_id[key])
            by_id[key]["annotations"].append(content)
        elif isinstance(content, dict) and "data" in content:
            tasks.append(content)
        else:
            raise ValueError(f"{file} is no list of tasks, as Label Studio exports it")
    return tasks


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(self, tasks: Sequence[Any]) -> Iterator[Picture]:
        """Yield the images of tasks that somebody annotated."""
        self.untouched: list[str] = []
        for number, task in enumerate(tasks):
            place = f"task {task.get('id', number)}" if isinstance(task, dict) else f"[{number}]"
            picture = Picture(self.path, "")
            if not isinstance(task, dict):
                message = f"{self.path}, {place}: a task is an object, got {shown(task)}"
                picture.broken = "bad image entry", message
                yield picture
                continue
            results = self._results(task, picture, place)
            if results is None:
                self.untouched.append(place)
                continue
            picture.name = image_name(task)
            if not picture.name:
                message = f"{self.path}, {place} {_instead(task)}"
                picture.broken = "bad image entry", message
            else:
                self._take(picture, results, place)
            yield picture

    def surveyed(self) -> None:
        """List the tasks that nobody annotated."""
        if self.untouched:
            self.fault(
                "task without annotation",
                f"{self.path}: {len(self.untouched)} task(s) were skipped or never annotated, the "
                f"first {self.untouched[0]}: submit an empty annotation where there is no object",
            )

    def _results(self, task: dict[str, Any], picture: Picture, place: str) -> list[Any] | None:
        """Return the regions of a task; None where nobody annotated it."""
        found = task.get("annotations", task.get("completions"))
        if not isinstance(found, list):  # JSON-MIN has them among the data
            own = [value for value in task.values() if isinstance(value, list)]
            mins = [value for value in own if value and isinstance(value[0], dict)]
            if not mins and "annotator" not in task:
                return None
            chosen = [_choices(key, value) for key, value in task.items()]
            return [
                {**one, "value": one, "type": next((k for k in one if k.endswith("labels")), "")}
                for value in mins
                for one in value
                if isinstance(one, dict)
            ] + [{"type": CHOICES, "value": {CHOICES: words}} for words in chosen if words]
        usable = [one for one in found if isinstance(one, dict) and not one.get("was_cancelled")]
        if not usable:
            return None
        if len(usable) > 1:
            usable.sort(key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
            message = (
                f"{self.path}, {place} has {len(usable)} annotations: the newest is read, the "
                "others are not"
            )
            picture.notes.append(("several annotations", message, "repaired"))
        results = usable[-1].get("result")
        return results if isinstance(results, list) else []

    def _take(self, picture: Picture, results: Sequence[Any], place: str) -> None:
        """Take over the regions of an image."""
        regions = [one if isinstance(one, dict) else {} for one in results]
        labels = {
            one.get("id"): name
            for one in regions
            if (name := _label(one)) is not None and isinstance(one.get("id"), str | int)
        }
        shapes = [one for one in regions if _kind(one) in (*AREAS, POINT)]
        sizes = [(one.get("original_height"), one.get("original_width")) for one in shapes]
        size = next((one for one in sizes if None not in map(whole_number, one)), None)
        picture.size = size
        done: set[Any] = set()
        by_id: dict[Any, Shape] = {}
        points: list[tuple[dict[str, Any], str]] = []
        above_of = {key: one["to_id"] for one in regions if (key := _related(one)) is not None}
        for number, one in enumerate(regions):
            kind, where = _kind(one), f"{place}, result[{number}]"
            if kind == POINT:
                points.append((one, where))
                continue
            if kind == CHOICES and (words := _choices(kind, one.get("value"))) is not None:
                picture.labels = (*picture.labels, *words)
                continue
            if kind not in AREAS:
                if kind != "labels" and _related(one) is None:
                    self.no_area(kind or "nothing", f"{self.path}, {where}")
                continue
            key = one.get("id")
            if isinstance(key, str | int):
                if (key, kind) in done:  # the same region, told once more with its label
                    continue
                done.add((key, kind))
            marks = _marks(one)
            own = _label(one)
            name = own if own or not isinstance(key, str | int) else labels.get(key)
            found = Shape(ANY if name == IGNORED else name, where, {})
            if any(isinstance(text, str) and text not in MARKS for text in marks):
                self.leave("the text of a region")
            if one.get("score") is not None:
                self.leave("the score of a region")
            if len(words := _labels(one)) > 1:
                message = f"{self.path}, {where}: of the labels {words} the first is its class"
                picture.notes.append(("several labels of a region", message, "repaired"))
            if "iscrowd" in marks or "ignore" in marks:
                found.entry.update(iscrowd=1, ignore=int("ignore" in marks))
            if "ignore" in marks and found.key is None:
                found.key = ANY
            try:
                found.entry.update(_outline(kind, one, size))
            except BadSegment as bad:
                found.entry["bbox"] = bad
            parent = one.get("parentID")
            above = by_id.get(parent) if isinstance(parent, str | int) else None
            if kind == "polygon" and above is not None and _part_of(found, above, labels.get(key)):
                above.entry["segmentation"] += found.entry["segmentation"]
                continue
            if isinstance(key, str | int):
                by_id[key] = found
            picture.shapes.append(found)
        for one, _ in points:  # a relation says it as well as a place below the region
            own = one.get("id")
            if "parentID" not in one and isinstance(own, str) and own in above_of:
                one["parentID"] = above_of[own]
        self._take_points(picture, points, by_id)

    def _take_points(
        self,
        picture: Picture,
        points: Sequence[tuple[dict[str, Any], str]],
        by_id: Mapping[Any, Shape],
    ) -> None:
        """Give keypoints to their regions."""
        joints: dict[int, tuple[Shape, Joints]] = {}
        alone = len({_label(one) for one, _ in points}) == len(points)
        free = Shape(NAMELESS, points[0][1], {}) if points else None
        for one, where in points:
            parent, name = one.get("parentID"), _label(one)
            owner = by_id.get(parent) if isinstance(parent, str | int) else None
            if owner is None and len(picture.shapes) < 2 and alone:
                owner = picture.shapes[0] if picture.shapes else free
            if owner is None or name is None:
                self.no_area(POINT, f"{self.path}, {where}")
                continue
            try:
                x, y = _point(one, picture.size)
            except BadSegment as bad:
                message = f"{self.path}, {where}: {bad}: read as not labelled"
                picture.notes.append(("bad keypoints", message, "repaired"))
                continue
            own = joints.setdefault(id(owner), (owner, {}))[1]
            if name in own:
                message = f"{self.path}, {where}: its region has a keypoint {name!r} already"
                picture.notes.append(("duplicate keypoint", message, "left out"))
                continue
            own[name] = x, y, 1 if OCCLUDED in _marks(one) else 2
        for owner, own in joints.values():
            owner.joined(own)
            if owner is free:
                picture.shapes.append(owner)


def _choices(key: str, value: Any) -> list[str] | None:
    """Return what was chosen for a whole image; None for anything else."""
    if isinstance(value, str) and key in ("choice", CHOICES):  # of JSON-MIN
        return [value]
    words = value.get(CHOICES) if isinstance(value, dict) else None
    if not isinstance(words, list) or {"x", "points", "rle"} & {*value}:
        return None
    return [word for word in words if isinstance(word, str) and word.strip()]


def _instead(task: dict[str, Any]) -> str:
    """Return in words what a task has that names no image."""
    data = task.get("data")
    values = (
        [one for one in data.values() if isinstance(one, str)] if isinstance(data, dict) else []
    )
    if film := next((one for one in values if one.lower().endswith(VIDEOS)), None):
        return (
            f"is of the video {shown(film)}: what is read are labels of images, such as its frames"
        )
    return "names no image: its data have no path of one"


def _part_of(found: Shape, above: Shape, label: str | None) -> bool:
    """Return whether a polygon is a part of the region above it: both polygons of one class."""
    outlines = [one.entry.get("segmentation") for one in (found, above)]
    return all(isinstance(one, list) for one in outlines) and (
        found.key == above.key or (found.key is None and label is None)
    )


def _related(region: dict[str, Any]) -> str | None:
    """Return the id of the region from which a relation goes to another; None for no relation."""
    ends = region.get("from_id"), region.get("to_id")
    both = region.get("type") == "relation" and all(isinstance(one, str) for one in ends)
    return str(ends[0]) if both else None


def _marks(region: dict[str, Any]) -> list[Any]:
    """Return the texts of a region."""
    meta = region.get("meta")
    texts = meta.get("text") if isinstance(meta, dict) else None
    return texts if isinstance(texts, list) else [texts]


def _kind(region: dict[str, Any]) -> str:
    """Return the kind of a region without the word labels: rectangle for rectanglelabels."""
    kind = region.get("type")
    kind = kind if isinstance(kind, str) else ""
    return kind if kind == "labels" else kind.removesuffix("labels")


def _label(region: dict[str, Any]) -> str | None:
    return next(iter(_labels(region)), None)


def _labels(region: dict[str, Any]) -> list[str]:
    value = region.get("value")
    for key, words in value.items() if isinstance(value, dict) else ():
        if key.endswith("labels") and isinstance(words, list) and words:
            return [word for word in words if isinstance(word, str) and word.strip()]
    return []


def image_name(task: dict[str, Any]) -> str:
    """Return the path of the image of a task, as far as it may lie beside the file.

    Example:
        >>> image_name({"data": {"image": "/data/local-files/?d=photos/a%201.jpg"}})
        'photos/a 1.jpg'
        >>> image_name({"data": {"image": "https://x.org/b/c.png?size=2"}})
        'c.png'
    """
    from ...pixels.kinds import image_suffixes

    data = task.get("data")
    values = data.values() if isinstance(data, dict) else task.values()
    for value in (*values, task.get("file_upload")):
        if not isinstance(value, str):
            continue
        parts = urlsplit(value.replace("\\", "/"))
        if stored := parse_qs(parts.query).get("fileuri"):  # of an object store, in base64
            with contextlib.suppress(binascii.Error, ValueError):
                parts = urlsplit(base64.urlsafe_b64decode(stored[0] + "==").decode())
        local = parse_qs(parts.query).get("d")
        text = local[0] if local else unquote(parts.path).rsplit("/", 1)[-1]
        if not (local or parts.scheme or parts.path.startswith("/")):
            text = unquote(parts.path)
        if PurePosixPath(text).suffix.lower() in image_suffixes():
            return text.lstrip("/")
    return ""


def _sized(one: dict[str, Any], size: tuple[Any, Any] | None) -> tuple[dict[str, Any], int, int]:
    """Return the value of a region, and height and width of its image.

    Raises:
        BadSegment: if one of them is missing, or the image was turned.
    """
    value = one.get("value")
    if not isinstance(value, dict):
        raise BadSegment("bad points", f"value must be an object, got {shown(value)}")
    height, width = map(whole_number, size or (None, None))
    if height is None or width is None or min(height, width) < 1 or height * width > max_pixels():
        raise BadSegment(
            "no size",
            f"percent need original_width and original_height of the image, got {shown(size)}",
        )
    if one.get("image_rotation"):
        raise BadSegment(
            "turned image",
            f"the image was turned by {shown(one['image_rotation'])} degrees in Label Studio: "
            "turn it back there",
        )
    return value, height, width


def _point(one: dict[str, Any], size: tuple[Any, Any] | None) -> tuple[float, float]:
    """Return x and y of a keypoint.

    Raises:
        BadSegment: if it has none.
    """
    value, height, width = _sized(one, size)
    x, y = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    return round(x, STEP), round(y, STEP)


def _outline(kind: str, one: dict[str, Any], size: tuple[Any, Any] | None) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of a region.

    Raises:
        BadSegment: if it cannot be used.
    """
    value, height, width = _sized(one, size)
    if kind == "brush":
        mask = decode_brush(value.get("rle"), (height, width))
        return {"segmentation": run_lengths(mask, 0, 0, (height, width))}
    if kind == "polygon":
        points = np.array(points_of(value.get("points"), 3)) * (width / 100, height / 100)
        return {"segmentation": [points.round(STEP).ravel().tolist()]}
    rotation = _number(value, "rotation") if value.get("rotation") is not None else 0.0
    x, y = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    if kind == "ellipse":
        rx = _number(value, "radiusX") * width / 100
        ry = _number(value, "radiusY") * height / 100
        return {"segmentation": [turned(ellipse(x, y, rx, ry), rotation, (x, y))]}
    right = x + _number(value, "width") * width / 100
    bottom = y + _number(value, "height") * height / 100
    if rotation % 360:
        return {"segmentation": [turned(corners_of(x, y, right, bottom), rotation, (x, y))]}
    x, y, right, bottom = (round(side, STEP) for side in (x, y, right, bottom))
    return {"bbox": [x, y, right - x, bottom - y]}


def _number(value: dict[str, Any], name: str) -> float:
    return given_number(value.get(name), name, "bad points", "a number of percent")
