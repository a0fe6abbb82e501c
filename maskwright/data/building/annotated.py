"""From objects as labelling tools draw them, image by image, to a data set.

A reader of such a format gives pictures with their shapes, each with the place in its file where it
stands; here they become entries of `Builder`, and what is wrong with one is told with that place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from maskwright.structures import Skeleton

from ..columns import pack_offsets
from ..records import Dataset
from ..segments import BadSegment
from .builder import ANY, Builder, grouped
from .geometry import united

Joints = dict[str, tuple[float, float, int]]  # x, y and visibility by name
KEPT = 50_000  # shapes that are kept in memory; files with more are gone through twice
NAMELESS = "it has no class"


@dataclass(slots=True)
class Shape:
    """One object as it stands in a file.

    Attributes:
        key: its class: the name, or the number of a list of names; None: it has none; `ANY`: a
            region that is ignored.
        place: where it stands, such as "line 3".
        entry: `bbox` xywh or a `BadSegment`, `segmentation`, `keypoints`, `iscrowd` and `ignore` as
            COCO JSON has them, in original pixels.
        joints: x, y and visibility of its keypoints by their names, where these stand for
            themselves; they become `keypoints`.
    """

    key: Hashable
    place: str
    entry: dict[str, Any]
    joints: Joints | None = None

    def joined(self, joints: Joints) -> Shape:
        """Take keypoints over, and the box around them where there is no other; return itself."""
        self.joints = joints
        if not {"bbox", "segmentation"} & set(self.entry):
            self.entry["bbox"] = box_around(joints)
        return self


@dataclass(slots=True)
class Picture:
    """One image as it stands in a file.

    Attributes:
        file: the file of labels.
        name: path of the image below the root.
        size: (height, width); None: not known, so the image file is asked.
        shapes: its objects.
        notes: kind, message and action of what is wrong with it; see `Fault`.
        broken: kind and message of why the image is left out; None: it is not.
        checked: keys of the classes that somebody looked for in it; None: all.
        group: images of one number belong together, as frames of a video; None: it stands alone.
        labels: what it shows as a whole; they count where no image of the file has an object.
    """

    file: Path
    name: str
    size: tuple[Any, Any] | None = None
    shapes: list[Shape] = field(default_factory=list)
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    broken: tuple[str, str] | None = None
    checked: set[Hashable] | None = None
    group: int | None = None
    labels: Sequence[str] = ()

    def join(self, joints: Joints, owners: Iterable[Shape], alone: Shape) -> None:
        """Give keypoints to the one object of their group, if it has none yet.

        Args:
            joints: the keypoints.
            owners: the objects of their group.
            alone: becomes an object of the image where there is none, or are several.
        """
        same = list(owners)
        if len(same) == 1 and same[0].joints is None:
            same[0].joined(joints)
        else:
            self.shapes.append(alone.joined(joints))


Scan = Callable[[], Iterable[Picture]]


def is_part(
    found: Shape, key: Hashable, groups: dict[Hashable, Shape], size: tuple[int, int]
) -> bool:
    """Return whether another shape of its group came first, of which this one becomes a part.

    Args:
        found: a shape with a `segmentation`.
        key: of its group in the image.
        groups: the first shape of each group so far; takes this one in if it is the first.
        size: (height, width) of the image.
    """
    first = groups.setdefault(key, found)
    if first is found:
        return False
    try:
        if "segmentation" in first.entry:  # else a part before this one could not be drawn
            parts = [first.entry["segmentation"], found.entry["segmentation"]]
            first.entry["segmentation"] = united(parts, size)
    except BadSegment as bad:
        first.entry = {"bbox": bad}
    return True


def box_around(joints: Joints) -> list[float]:
    """Return the box xywh around keypoints, no side less than a pixel."""
    marked = [(x, y) for x, y, seen in joints.values() if seen] or [(0.0, 0.0)]
    (x1, y1), (x2, y2) = (tuple(map(least, zip(*marked, strict=True))) for least in (min, max))
    return [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]


class AnnotatedReader(Builder):
    """State of reading one split.

    Args:
        path: what errors name.
        split: name of the split.
        format: see `Dataset`.
        pixels: whether boxes are written in pixels, so that what all of them are may be doubted.
    """

    AREALESS: ClassVar[str] = "these"  # what shapes without an area are called

    def __init__(self, path: Path, split: str, format: str, *, pixels: bool = True) -> None:
        super().__init__(path, split)
        self.format = format
        self.doubted = pixels
        self._files: dict[int, Path] = {}  # by image
        self._at: tuple[int, Shape] | None = None  # the object that is looked at
        self._without_area: Counter[str] = Counter()
        self._first_without = ""

    def place_of(self, image: int | None, annotation: int | None) -> tuple[Path, str] | None:
        """Return the file of an image, and the place of the object looked at; see `Builder`."""
        if image not in self._files:
            return None
        file = self._files[image]
        own = self._at is not None and annotation == self._at[0]
        return file, f"{file}, {self._at[1].place}" if self._at is not None and own else ""

    def unknown_category(self, value: Any) -> str:
        """Return what is wrong with the class of an annotation."""
        key = None if self._at is None else self._at[1].key
        if key is None:
            return NAMELESS
        what = f"class {key!r}" if isinstance(key, str) else f"class number {key}"
        return f"{what} is none of the names that are listed"

    def no_area(self, kind: str, place: str) -> None:
        """Count a shape that is no object of a box or a mask, and keep the place of the first."""
        self._without_area[kind] += 1
        self._first_without = self._first_without or place

    def _tell_no_area(self) -> None:
        """List the shapes without an area."""
        if self._without_area:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in self._without_area.items())
            self.fault(
                "shape without area",
                f"{self._first_without}: {self.AREALESS} are no objects of a box or a mask, "
                f"{kinds} in all",
            )

    def surveyed(self) -> None:
        """Say what only all pictures together tell; asked when each was looked at once."""

    def read(
        self,
        scan: Scan,
        roots: Sequence[Path],
        listed: Mapping[Any, str] | None,
        names: Sequence[str] | None,
        skeleton: Skeleton | None = None,
        *,
        joints: Sequence[str] = (),
        bones: Sequence[tuple[str, str]] = (),
    ) -> Dataset:
        """Return the data set.

        Args:
            scan: gives the pictures, each time that it is called.
            roots: folders in which the images may lie.
            listed: names of the classes by key, in the order of their labels; None: the keys of all
                shapes, sorted.
            names: class names of another split or of a model, which give the labels.
            skeleton: names of the keypoints.
            joints: names of those that stand for themselves, in their order; what others there are
                follows by name.
            bones: pairs of these that a line joins.

        Returns:
            Objects; of a file that has none, but labels of whole images, these, unless none of them
            is a class that is known.

        Raises:
            ValueError: if no image is usable, no class is known, or one is not in `names`.
        """
        images: list[dict[str, Any]] = []
        kept: list[tuple[int, Picture]] = []
        keys: set[Any] = set()
        checked: dict[int, set[Hashable]] = {}
        groups: dict[int, int] = {}
        labels: dict[int, Sequence[str]] = {}
        masks, shapes = False, 0
        named: set[str] = set()
        for number, picture in enumerate(scan(), 1):
            self._files[number] = picture.file
            if picture.broken is not None:
                self.fault(*picture.broken, image=number)
                continue
            if picture.size is None:
                self.unsized.add(number)
            height, width = picture.size or (None, None)
            entry = {"id": number, "file_name": picture.name, "height": height, "width": width}
            images.append(entry)
            for note in picture.notes:
                self.fault(*note, image=number)
            keys.update(shape.key for shape in picture.shapes)
            if picture.group is not None:
                groups[number] = picture.group
            if picture.checked is not None:
                checked[number] = picture.checked
            if picture.labels:
                labels[number] = picture.labels
            masks |= any(_has_mask(shape.entry) for shape in picture.shapes)
            named.update(name for shape in picture.shapes for name in shape.joints or ())
            shapes += len(picture.shapes)
            if shapes <= KEPT:
                kept.append((number, picture))
        known = list((listed or {}).values()) if names is None else names
        shown = {name for own in labels.values() for name in own}
        whole = bool(shown) and not shapes and (not known or not shown.isdisjoint(known))
        for name in () if whole else (name for own in labels.values() for name in own):
            self.leave(f"the label {name!r} of an image")
        self._tell_no_area()
        self.surveyed()
        unread = dict(self.unread)  # pictures may be gone through twice
        if not images:
            raise ValueError(f"{self.path} gives no usable image{self.first_fault()}")
        if whole:
            return self._labelled(images, roots, labels, listed or {}, names)
        if listed is None:
            listed = {key: str(key) for key in sorted(keys - {None, ANY})}
        if not listed and names is None:
            raise ValueError(
                f"{self.path}: not one object in {len(images)} image(s), so the classes are not "
                "known: write their names into classes.txt beside the labels, one a line"
            )
        ids = {key: number for number, key in enumerate(listed, 1)}
        categories = [{"id": ids[key], "name": name} for key, name in listed.items()]
        classes = self.classes(categories, [ids.get(key) for key in keys - {ANY}], names)
        if order := tuple(dict.fromkeys((*joints, *sorted(named)))):
            pairs = [(order.index(a), order.index(b)) for a, b in bones if {a, b} <= set(order)]
            skeleton = Skeleton(order, tuple(pairs))
        jointed = set(ids.values()) if skeleton is not None else set()
        entries = self._entries(kept if shapes <= KEPT else enumerate(scan(), 1), ids, order)
        dataset = self.build(
            images,
            list(roots),
            entries,
            masks,
            classes,
            skeleton,
            frozenset(jointed),
            checked={
                number: [ids[key] for key in one if key in ids] for number, one in checked.items()
            }
            or None,
        )
        dataset.unread = unread
        return grouped(dataset, groups) if groups else dataset

    def _labelled(
        self,
        images: list[dict[str, Any]],
        roots: Sequence[Path],
        labels: Mapping[int, Sequence[str]],
        listed: Mapping[Any, str],
        names: Sequence[str] | None,
    ) -> Dataset:
        """Return the images with what they show as a whole."""
        if all(len(own) == 1 for own in labels.values()):  # else one may show nothing of it
            without = [one for one in images if one["id"] not in labels]
            if without:
                self.fault(
                    "image without a label",
                    f"{len(without)} image(s) of {self.path} have no label, others have one, the "
                    f"first: {without[0]['file_name']}",
                )
            images = [one for one in images if one["id"] in labels]
        found = {name for own in labels.values() for name in own}
        order = list(listed.values()) if found <= set(listed.values()) else sorted(found)
        categories = [{"id": number, "name": name} for number, name in enumerate(order, 1)]
        used = [number for number, name in enumerate(order, 1) if name in found]
        classes = self.classes(categories, used, names)
        dataset = self.build(images, list(roots), (), False, classes)
        number_of = {name: label for label, name in enumerate(dataset.names)}
        own_labels = [
            [number_of[name] for name in dict.fromkeys(labels.get(number, ()))]
            for number in dataset.columns.image_ids.tolist()
        ]
        flat = [label for own in own_labels for label in own]
        columns = replace(
            dataset.columns,
            label_first=pack_offsets([len(own) for own in own_labels]),
            image_labels=torch.tensor(flat, dtype=torch.int64),
        )
        return dataset.like(columns, dataset.rows, records="labels")

    def _entries(
        self,
        pictures: Iterable[tuple[int, Picture]],
        ids: Mapping[Any, int],
        order: Sequence[str],
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        count = 0
        for number, picture in pictures:
            for shape in picture.shapes if picture.broken is None else ():
                count += 1
                self._at = count, shape
                entry = {**shape.entry, "image_id": number, "category_id": ids.get(shape.key)}
                if shape.key == ANY:
                    entry[ANY] = True
                if shape.joints is not None:
                    nothing = (0.0, 0.0, 0)
                    placed = (shape.joints.get(name, nothing) for name in order)
                    entry["keypoints"] = [number for joint in placed for number in joint]
                yield count, entry
        self._at = None


def _has_mask(entry: dict[str, Any]) -> bool:
    return bool(entry.get("segmentation")) and not entry.get("iscrowd")
