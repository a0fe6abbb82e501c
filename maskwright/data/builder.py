"""From entries of images and annotations, whatever file they stood in, to a data set.

Every reader brings its format into the entries of COCO JSON (boxes xywh, polygons or run lengths,
ids of images and categories); here they are checked, all formats alike. What cannot be used is left
out or repaired and listed as a fault. Images are looked for on the disk but not decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.structures import Skeleton

from .images import file_problem, image_header, max_pixels
from .objects import CocoObject, shown, whole_number
from .records import Columns, Dataset, Fault
from .segments import BadSegment

BACKGROUND = ("_background_", "__background__")


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
        format: what the annotations are stored in; see `Dataset`.
    """

    format = "coco"

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self.split = split
        self.faults: list[Fault] = []

    def fault(
        self,
        kind: str,
        message: str,
        action: str = "left out",
        image: int | None = None,
        annotation: int | None = None,
        file: Path | None = None,
    ) -> None:
        """Note a fault; see `Fault`."""
        self.faults.append(Fault(str(file or self.path), image, annotation, kind, message, action))

    def build(
        self,
        images: list[Any],
        roots: list[Path],
        entries: list[tuple[int, dict[str, Any]]],
        classes: Classes,
        skeleton: Skeleton | None = None,
        jointed: AbstractSet[int] = frozenset(),
    ) -> Dataset:
        """Return the data set of all that is usable.

        Args:
            images: entries with `id`, `file_name`, `height` and `width`.
            roots: folders in which the images may lie; the one that holds most is taken.
            entries: annotations by their id.
            classes: see `classes`.
            skeleton: names of the keypoints.
            jointed: ids of the categories that have keypoints.

        Raises:
            ValueError: if no image is usable.
        """
        root, usable = self._images(images, roots)
        joints = {number: len(skeleton or ()) for number in jointed}
        objects = self._objects(entries, usable, classes.labels, joints)
        return Dataset(
            _pack(usable, objects, len(skeleton or ())),
            root=root,
            split=self.split,
            names=classes.names,
            category_ids=classes.category_ids,
            source=self.path,
            skeleton=skeleton,
            faults=self.faults,
            format=self.format,
        )

    def classes(
        self, categories: list[Any], used: list[Any], names: Sequence[str] | None
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
        owner: dict[str, int] = {}
        for entry in entries:
            number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if number is None or not isinstance(name, str) or not name:
                self.fault(
                    "bad image entry",
                    f"an image needs a whole number 'id' and a 'file_name', got {shown(entry)}",
                )
            elif number in named:
                self.fault(
                    "duplicate image id",
                    f"{name}: id {number} already belongs to {named[number][0]}; annotations "
                    "cannot be told apart, give each image its own id",
                    image=number,
                )
            elif (clean := clean_path(name)) is None:
                self.fault(
                    "path outside the data set",
                    f"file_name {name!r} is absolute or leads out of the image folder: write it "
                    "relative to the image folder",
                    image=number,
                )
            else:
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
        root = _best_root(roots, [name for name, _, _ in named.values()])
        images: dict[int, tuple[str, int, int]] = {}
        for number, (name, height, width) in named.items():
            size = self._image_size(root / name, number, height, width)
            if size is not None:
                images[number] = (name, *size)
        if not images:
            first = f"; the first fault: {self.faults[0].message}" if self.faults else ""
            looked = ", ".join(str(folder) for folder in roots)
            raise ValueError(
                f"{self.path} gives no usable image of {len(entries)}{first} "
                f"(looked for images in {looked})"
            )
        return root, images

    def _image_size(
        self, file: Path, number: int, height: Any, width: Any
    ) -> tuple[int, int] | None:
        """Return the size of an image whose file exists, or None after noting a fault."""
        problem = file_problem(file)
        if problem:
            self.fault(*problem, image=number, file=file)
            return None
        if height is None and width is None:
            try:
                size = image_header(file).size
            except ValueError as error:
                self.fault("unreadable image", str(error), image=number, file=file)
                return None
            message = "height and width are not given: read from the image file"
            self.fault("missing image size", message, "repaired", image=number)
            return size
        rows, columns = whole_number(height), whole_number(width)
        found = f"{file.name} has height {shown(height)} and width {shown(width)}"
        if rows is None or columns is None or min(rows, columns) < 1:
            message = f"{found}: whole numbers of at least 1 are needed"
            self.fault("bad image size", message, image=number)
            return None
        if rows * columns > max_pixels():
            message = (
                f"{found}: more than the {max_pixels()} pixels that Pillow decodes; cut the "
                "image into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS"
            )
            self.fault("bad image size", message, image=number)
            return None
        return rows, columns

    def _objects(
        self,
        entries: list[tuple[int, dict[str, Any]]],
        images: dict[int, tuple[str, int, int]],
        labels: dict[int, int],
        joints: dict[int, int],
    ) -> list[CocoObject]:
        """Return the usable objects, sorted by image in the order of the file.

        Args:
            entries: the annotations by id.
            images: path and size by image id.
            labels: label by category id.
            joints: number of keypoints by category id, for the categories that have them.
        """
        position = {number: row for row, number in enumerate(images)}
        known = set(position) | {
            fault.image_id for fault in self.faults if fault.image_id is not None
        }
        masks = any(entry.get("segmentation") for _, entry in entries)
        objects: list[CocoObject] = []
        for number, entry in entries:
            image = whole_number(entry.get("image_id"))
            where: dict[str, Any] = {"image": image, "annotation": number}
            if image not in position:
                # The annotations of an image that was left out go with it, without a fault each.
                if image not in known:
                    message = f"annotation {number} belongs to image {shown(entry.get('image_id'))}"
                    self.fault("unknown image", message + ", which does not exist", **where)
                continue
            category = whole_number(entry.get("category_id"))
            if category not in labels:
                message = f"annotation {number} has category {shown(entry.get('category_id'))}"
                self.fault("unknown category", message + ", which is not defined", **where)
                continue
            try:
                item = CocoObject(position[image], number, labels[category])
                item.read(entry, images[image][1:], masks, joints.get(category, 0))
            except BadSegment as bad:
                message = f"annotation {number} of {images[image][0]}: {bad}"
                self.fault(bad.kind, message, **where)
                continue
            for kind, message in item.segment.notes:
                message = f"annotation {number} of {images[image][0]}: {message}"
                self.fault(kind, message, "repaired", **where)
            objects.append(item)
        objects.sort(key=lambda item: item.row)
        return objects


def _pack(
    images: dict[int, tuple[str, int, int]], objects: list[CocoObject], num_joints: int
) -> Columns:
    """Turn what was read into flat arrays."""
    points, point_first, part_first = array("d"), array("q", [0]), array("q", [0])
    rle_bytes, rle_first = bytearray(), array("q", [0])
    for item in objects:
        for part in item.segment.parts:
            points.frombytes(part.tobytes())
            point_first.append(len(points) // 2)
        part_first.append(len(point_first) - 1)
        rle_bytes += item.segment.counts
        rle_first.append(len(rle_bytes))
    paths = [name.encode() for name, _, _ in images.values()]
    rows = [item.row for item in objects]
    keypoints = np.zeros((len(objects), num_joints, 3), np.float32)
    for slot, item in zip(keypoints, objects, strict=True):
        if item.keypoints is not None:
            slot[:] = item.keypoints
    return Columns(
        image_ids=torch.tensor(list(images), dtype=torch.int64),
        sizes=torch.tensor([size for _, *size in images.values()], dtype=torch.int64),
        path_first=_offsets([len(path) for path in paths]),
        path_bytes=_tensor(np.frombuffer(b"".join(paths), np.uint8)),
        ann_first=_offsets(np.bincount(rows, minlength=len(images)) if rows else [0] * len(images)),
        ann_ids=torch.tensor([item.number for item in objects], dtype=torch.int64),
        boxes=torch.tensor([item.box for item in objects], dtype=torch.float64).reshape(-1, 4),
        areas=torch.tensor([item.area for item in objects], dtype=torch.float64),
        labels=torch.tensor([item.label for item in objects], dtype=torch.int64),
        crowd=torch.tensor([item.crowd for item in objects], dtype=torch.bool),
        kinds=torch.tensor([item.segment.kind for item in objects], dtype=torch.uint8),
        part_first=_tensor(np.array(part_first, np.int64)),
        point_first=_tensor(np.array(point_first, np.int64)),
        points=_tensor(np.array(points, np.float64).reshape(-1, 2)),
        rle_first=_tensor(np.array(rle_first, np.int64)),
        rle_bytes=_tensor(np.frombuffer(bytes(rle_bytes), np.uint8)),
        keypoints=_tensor(keypoints),
    )


def clean_path(name: str) -> str | None:
    """Return a relative path with forward slashes, or None if it leads out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        return None
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return None if text == "." else text


def _best_root(roots: Sequence[Path], names: list[str]) -> Path:
    """Return the folder that holds most of a sample of the files, the first of equals."""
    sample = names[:: max(len(names) // 20, 1)]
    return max(roots, key=lambda root: sum(file_problem(root / name) is None for name in sample))


def _offsets(lengths: Sequence[int] | np.ndarray) -> Tensor:
    return _tensor(np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.copy())
