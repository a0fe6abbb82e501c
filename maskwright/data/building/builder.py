"""From entries of images and annotations, whatever file they stood in, to a data set.

Every reader brings its format into the entries of COCO JSON (boxes xywh, polygons or run lengths,
ids of images and categories); here they are checked, all formats alike. What cannot be used is left
out or repaired and listed as a fault. Images are looked for on the disk but not decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maskwright.structures import Skeleton

from ..pixels.images import image_header
from ..pixels.limits import mend, most_pixels
from ..pixels.opening import file_problem
from ..records import ANY_CLASS, Dataset, Fault
from ..segments import BadSegment
from .hints import BoxPattern
from .image_names import ImageNames, best_root, clean_path, common_root, foreign_name, lexists
from .objects import CocoObject, shown, whole_number
from .packing import Packer, looked_for

OBJECT = "object"  # the class of objects where a file names none
ANY = "\0any class"  # key of an entry: a region that is ignored whatever it shows
KNOWN = {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "ignore"}
KNOWN |= {"keypoints", "num_keypoints", ANY}  # entries of an annotation
EMPTY: tuple[Any, ...] = (None, "", [], {})
MOST_UNREAD = 100
BACKGROUND = ("_background_", "__background__")
EVERYWHERE = (
    ": it may be anywhere, so nothing in this image counts as background; what is found there "
    "beside its objects is not scored"
)


@dataclass(frozen=True)
class Classes:
    """The classes of a split.

    Attributes:
        labels: label of each category id that is used.
        names: class names by label.
        category_ids: category id of each class; -1 for a class that the file lacks.
    """

    labels: dict[int, int]
    names: list[str]
    category_ids: list[int]


class Builder:
    """State of reading one split: the faults, and the checks that all formats share.

    Attributes:
        path: the annotation file that faults and errors name.
        split: name of the split.
        faults: what was wrong so far.
        elsewhere: ids of images that belong to another split.
        unsized: ids of images whose size nothing is to tell but the image file.
        unread: what the file has and no record, and how often.
        format: what the annotations are stored in; see `Dataset`.
        doubted: whether all boxes together are looked at, see `BoxPattern`.
    """

    format = "coco"
    doubted = True

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self.split = split
        self.faults: list[Fault] = []
        self.elsewhere: set[int | None] = set()
        self.unsized: set[int] = set()
        self.unread: Counter[str] = Counter()

    def fault(
        self,
        kind: str,
        message: str,
        action: str = "left out",
        image: int | None = None,
        annotation: int | None = None,
        file: Path | None = None,
    ) -> None:
        """Note a fault, without a file where `place_of` has it; see `Fault`."""
        if file is None and (place := self.place_of(image, annotation)) is not None:
            file, written = place
            message = f"{written}: {message}" if written else message
        self.faults.append(Fault(str(file or self.path), image, annotation, kind, message, action))

    def leave(self, what: str) -> None:
        """Count something that the file has, and that no record has a place for."""
        if what in self.unread or len(self.unread) < MOST_UNREAD:
            self.unread[what] += 1

    def first_fault(self) -> str:
        """Return the first fault for which an image was left out, else the first one, in words."""
        gone = (one for one in self.faults if one.image_id is not None and one.action == "left out")
        first = next(gone, next(iter(self.faults), None))
        return "" if first is None else f"; the first fault: {first.message}"

    def place_of(self, image: int | None, annotation: int | None) -> tuple[Path, str] | None:
        """Return the file of an image or object and, for the message, the place in it.

        None: all stands in one file.
        """
        return None

    def build(
        self,
        images: list[Any],
        roots: list[Path],
        entries: Iterable[tuple[int, dict[str, Any]]],
        masks: bool,
        classes: Classes,
        skeleton: Skeleton | None = None,
        jointed: AbstractSet[int] = frozenset(),
        *,
        crowd_as_objects: bool = False,
        checked: Mapping[int, Collection[int]] | None = None,
    ) -> Dataset:
        """Return the data set of all that is usable.

        Args:
            images: entries with `id`, `file_name`, `height` and `width`.
            roots: folders in which the images may lie; the one that holds most is taken.
            entries: annotations by their id, taken one by one.
            masks: whether any of them has a mask.
            classes: see `classes`.
            skeleton: names of the keypoints.
            jointed: ids of the categories that have keypoints.
            crowd_as_objects: regions marked as crowds are objects like others.
            checked: ids of the categories that an image was looked through for, by its id; those
                that lack here, and None, for all.

        Raises:
            ValueError: if no image is usable, or the boxes are no boxes in pixels of the images.
        """
        root, usable = self._images(images, roots)
        joints = {number: len(skeleton or ()) for number in jointed}
        packer, pattern = Packer(len(skeleton or ())), BoxPattern()
        for item in self._objects(
            entries, masks, usable, classes.labels, joints, pattern, crowd_as_objects
        ):
            packer.add(item)
        if self.doubted and (problem := pattern.problem()):
            raise ValueError(f"{self.path}: {problem}")
        dataset = Dataset(
            packer.columns(usable, looked_for(usable, checked, classes.labels, len(classes.names))),
            root=root,
            split=self.split,
            names=classes.names,
            category_ids=classes.category_ids,
            source=self.path,
            skeleton=skeleton,
            faults=self.faults,
            format=self.format,
        )
        dataset.unread = dict(self.unread)
        return dataset

    def classes(
        self, categories: list[Any], used: Iterable[Any], names: Sequence[str] | None
    ) -> Classes:
        """Return the classes of a split.

        Args:
            categories: entries with `id`, `name` and perhaps `supercategory`.
            used: the category ids of all objects.
            names: the class names that are known already; None: all categories, by id.

        Raises:
            ValueError: on a broken category, or one that is used and not in `names`.
        """
        occurring = {whole_number(value) for value in used}
        by_id: dict[int, str] = {}
        parents: set[tuple[int, str]] = set()
        for category in categories:
            number = whole_number(category.get("id")) if isinstance(category, dict) else None
            name = category.get("name") if isinstance(category, dict) else None
            if isinstance(name, int | float) and not isinstance(name, bool):
                name = f"{name:g}" if isinstance(name, float) else str(name)
            if number is None or not isinstance(name, str) or not name.strip():
                raise ValueError(
                    f"{self.path}: every category needs a whole number 'id' and a 'name', "
                    f"got {shown(category)}"
                )
            if by_id.get(number, name) != name:
                raise ValueError(
                    f"{self.path}: category id {number} is used for both {by_id[number]!r} and "
                    f"{name!r}: give each its own id"
                )
            by_id[number] = name
            if isinstance(category.get("supercategory"), str):
                parents.add((number, category["supercategory"]))
        for number, parent in parents:
            if parent not in ("", "none", by_id[number]):
                self.leave("the supercategory of a class")
        labels: dict[int, int] = {}
        class_names = [] if names is None else list(names)
        category_ids = [-1] * len(class_names)
        unknown = []
        for number in sorted(by_id):
            name = by_id[number]
            if number not in occurring and names is None:
                # Roboflow adds a category 0 that is only the heading of the real ones.
                heading = any(parent == name for other, parent in parents if other != number)
                if name in BACKGROUND or heading:
                    self.fault(
                        "unused category",
                        f"category {number} {name!r} has no annotation and is only a heading",
                    )
                    continue
            if name in class_names:
                label = class_names.index(name)
                if category_ids[label] != -1:
                    self.fault(
                        "duplicate category name",
                        f"categories {category_ids[label]} and {number} are both named {name!r}: "
                        "read as one class",
                        "repaired",
                    )
            elif names is None:
                label = len(class_names)
                class_names.append(name)
                category_ids.append(-1)
            else:
                if number in occurring:
                    unknown.append(name)
                continue
            labels[number] = label
            if category_ids[label] == -1:
                category_ids[label] = number
        if unknown:
            raise ValueError(
                f"{self.path} has annotations of the class(es) {unknown}, but the known classes "
                f"are {class_names}: class names must be the same in all splits and in the model"
            )
        if not class_names:
            raise ValueError(f"{self.path} defines no category: 'categories' is empty")
        return Classes(labels, class_names, category_ids)

    def _images(
        self, entries: list[Any], roots: list[Path]
    ) -> tuple[Path, dict[int, tuple[str, int, int]]]:
        """Return the root and, by image id, path below it, height and width."""
        named: dict[int, tuple[str, Any, Any]] = {}
        foreign: dict[int, str] = {}  # paths of another machine
        files = ImageNames(roots, self.split)
        owner: dict[str, int] = {}
        shared = _shared_ids(entries)
        for entry in entries:
            number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if number is None or not isinstance(name, str) or not name:
                self.fault(
                    "bad image entry",
                    f"an image needs a whole number 'id' and a 'file_name', got {shown(entry)}",
                )
            elif number in shared:  # each would be taught the objects of all
                self.fault(
                    "duplicate image id",
                    f"{name}: id {number} belongs to {shared[number]} images, so their annotations "
                    "cannot be told apart; give each image its own id",
                    image=number,
                )
            elif number in named:
                message = f"{name} is listed twice, with the same id: read once"
                self.fault("duplicate image entry", message, "repaired", image=number)
            elif (clean := clean_path(name) or foreign_name(name, files)) is None:
                self.fault(
                    "path outside the data set",
                    f"file_name {name!r} is absolute or leads out of the image folder: write it "
                    f"relative to the image folder{files.suggest(name)}",
                    image=number,
                )
            else:
                if clean_path(name) is None:
                    foreign[number] = name
                named[number] = (clean, entry.get("height"), entry.get("width"))
                other = owner.setdefault(clean, number)
                if other != number:
                    self.fault(
                        "duplicate image file",
                        f"{name} is both image {other} and image {number}, each with the objects "
                        "of its own id: if they belong together, give them one image id",
                        "kept",
                        image=number,
                    )
        root = best_root(roots, [name for name, _, _ in named.values()])
        names = {number: name for number, (name, _, _) in named.items()}
        root, places = self._places(root, names, foreign, files)
        images: dict[int, tuple[str, int, int]] = {}
        for number, (_, height, width) in named.items():
            size = self._image_size(root / places[number], number, height, width, files)
            if size is not None:
                images[number] = (places[number], *size)
        if not images:
            first = self.first_fault()
            where = "" if "did you mean" in first else f" ({files.places()})"
            raise ValueError(f"{self.path} gives no usable image of {len(entries)}{first}{where}")
        return root, images

    def _places(
        self, root: Path, names: dict[int, str], foreign: dict[int, str], files: ImageNames
    ) -> tuple[Path, dict[int, str]]:
        """Return a root and, by image id, the path of each image below it, found or not.

        Args:
            root: where the images are to lie.
            names: path of each image below it, by id.
            foreign: paths of another machine as they were written, by id.
            files: the image files.
        """
        missing = [n for n, name in names.items() if not lexists(root / name)]
        found = {n: near for n in missing if (near := files.find(names[n])) is not None}
        for n in sorted(foreign):
            file = found[n][0] if n in found else root / names[n]
            found[n] = file, "by the ends of their paths, which are those of another machine"
        owners = Counter(file for file, _ in found.values())
        taken = {root / names[n] for n in names if n not in found}
        found = {
            n: (file, how)
            for n, (file, how) in found.items()
            if owners[file] == 1 and file not in taken
        }
        if not found:
            return root, names
        for how in dict.fromkeys(how for _, how in found.values()):
            those = [n for n, (_, other) in found.items() if other == how]
            self.fault(
                "image under another name",
                f"{len(those)} image(s) of {self.path} are found {how}, the first: "
                f"{foreign.get(those[0], names[those[0]])!r} is {found[those[0]][0]}",
                "repaired",
                file=self.path,
            )
        whole = common_root(root, [file for file, _ in found.values()])
        places = {n: (root / name).relative_to(whole).as_posix() for n, name in names.items()}
        places |= {n: file.relative_to(whole).as_posix() for n, (file, _) in found.items()}
        return whole, places

    def _image_size(
        self, file: Path, number: int, height: Any, width: Any, files: ImageNames
    ) -> tuple[int, int] | None:
        """Return the size of an image whose file exists, or None after noting a fault."""
        problem = file_problem(file)
        if problem:
            kind, message = problem
            if kind == "missing image" and not lexists(file):
                message += files.suggest(file.name)
            self.fault(kind, message, image=number, file=file)
            return None
        rows, columns = whole_number(height), whole_number(width)
        found = f"{file.name} has height {shown(height)} and width {shown(width)}"
        if rows is None or columns is None or min(rows, columns) < 1:
            try:
                size = image_header(file).size
            except ValueError as error:
                self.fault("unreadable image", str(error), image=number, file=file)
                return None
            if number in self.unsized:
                return size
            # Tools write nothing, null, 0 or -1 for what they do not know.
            unknown = all(
                value in (None, "") or whole_number(value) in (0, -1) for value in (height, width)
            )
            kind = "missing image size" if unknown else "bad image size"
            message = f"{found}: read from the image file"
            self.fault(kind, message, "repaired", image=number)
            return size
        if rows * columns > (most := most_pixels(file.name)):
            message = (
                f"{found}: more than the limit of {most} pixels, which keeps small files "
                f"from filling the memory; {mend(rows * columns)}"
            )
            self.fault("bad image size", message, image=number)
            return None
        return rows, columns

    def _objects(
        self,
        entries: Iterable[tuple[int, dict[str, Any]]],
        masks: bool,
        images: dict[int, tuple[str, int, int]],
        labels: dict[int, int],
        joints: dict[int, int],
        pattern: BoxPattern,
        crowd_as_objects: bool,
    ) -> Iterator[CocoObject]:
        """Yield the usable objects in the order of the file.

        Args:
            entries: the annotations by id.
            masks: whether any of them has a mask.
            images: path and size by image id.
            labels: label by category id.
            joints: number of keypoints by category id, for the categories that have them.
            pattern: takes note of all boxes.
            crowd_as_objects: see `build`.
        """
        position = {number: row for row, number in enumerate(images)}
        known = (
            set(position)
            | self.elsewhere
            | {fault.image_id for fault in self.faults if fault.image_id is not None}
        )
        for number, entry in entries:
            image = whole_number(entry.get("image_id"))
            for key in (key for key in entry.keys() - KNOWN if entry[key] not in EMPTY):
                self.leave(f"the entry {shown(key)} of an annotation")
            where: dict[str, Any] = {"image": image, "annotation": number}
            if image not in position:
                # The annotations of an image that was left out go with it, without a fault each.
                if image not in known:
                    message = f"annotation {number} belongs to image {shown(entry.get('image_id'))}"
                    self.fault("unknown image", message + ", which does not exist", **where)
                continue
            category = whole_number(entry.get("category_id"))
            label = ANY_CLASS if category is None else labels.get(category, ANY_CLASS)
            item = CocoObject(position[image], number, label)
            size, start = images[image][1:], f"annotation {number} of {images[image][0]}: "
            area = None if entry.get("segmentation") else entry.get("area")
            pattern.add(entry.get("bbox"), area, size)
            try:
                item.read(entry, size, masks, joints.get(category or 0, 0))
                item.crowd &= not crowd_as_objects
                item.ignored &= item.crowd
            except BadSegment as bad:
                # What is left out would be taught as background, so its place is ignored.
                if bad.nothing:
                    self.fault(bad.kind, start + str(bad), **where)
                    continue
                item.ignore_all(size)
                self.fault(bad.kind, f"{start}{bad}{EVERYWHERE}", "ignored", **where)
                yield item
                continue
            for kind, message in item.segment.notes:
                self.fault(kind, start + message, "repaired", **where)
            if label == ANY_CLASS:
                item.crowd, item.ignored, item.keypoints = True, True, None
                if not entry.get(ANY):
                    what = self.unknown_category(entry.get("category_id"))
                    message = f"{start}{what}: its region is ignored"
                    self.fault("unknown category", message, "ignored", **where)
            yield item

    def unknown_category(self, value: Any) -> str:
        """Return what is wrong with the class of an annotation."""
        return f"category {shown(value)} is not defined"


def grouped(dataset: Dataset, groups: Mapping[int, int]) -> Dataset:
    """Return a data set whose images have groups, by their ids; those that lack stand alone."""
    numbers: dict[tuple[bool, int], int] = {}
    keys = [(one in groups, groups.get(one, one)) for one in dataset.columns.image_ids.tolist()]
    found = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
    return dataset.like(replace(dataset.columns, groups=found), dataset.rows)


def _shared_ids(entries: list[Any]) -> dict[int, int]:
    """Return the ids that stand for several image files, and for how many."""
    names: dict[int, set[str]] = {}
    for entry in entries:
        number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if number is not None and isinstance(name, str):
            names.setdefault(number, set()).add(name)
    return {number: len(files) for number, files in names.items() if len(files) > 1}
