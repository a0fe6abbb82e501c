"""One in-memory schema for annotated images, whatever file format they came from.

A data set lives in a dozen flat arrays with offsets (`Columns`) instead of Python objects: a
million annotations stay light, and worker processes share the memory, forked or spawned. Masks
are rasterised when asked for, each inside its own frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.ops.rle import Crop, Frame, decode_rle, rasterise_polygons
from maskwright.structures import Skeleton
from maskwright.window import Window

from .pixels.images import load_image
from .segments import NO_MASK, POLYGONS, RLE

ANY_CLASS = -1  # label of an ignored region whose class is not known


@dataclass(frozen=True)
class Fault:
    """Something wrong in a data set.

    Attributes:
        file: the annotation file or the image file.
        image_id: id of the image, if one is concerned.
        annotation_id: id of the annotation, if one is concerned.
        kind: a short fixed name, to group by.
        message: what was found, and where it helps, how to mend it.
        action: "left out" (the image or annotation is not in the data set), "ignored" (where the
            object is, or may be, counts neither as object nor as background), "repaired" (it is
            there, in the way that the message tells), "kept" (unchanged, but looks like a mistake)
            or "error" (it is, and using it will fail).
    """

    file: str
    image_id: int | None
    annotation_id: int | None
    kind: str
    message: str
    action: str


@dataclass(frozen=True)
class Record:
    """One image and its n annotated objects, without pixels.

    Attributes:
        index: position in the data set.
        image_id: id in the annotation file.
        path: the image file.
        size: (height, width) of the original image.
        boxes: (n, 4) float32 xyxy in original pixels, clipped to the image.
        labels: (n,) int64, 0 to C - 1; `ANY_CLASS` for a crowd region of unknown class.
        crowd: (n,) bool: a region of many objects, or of one that cannot be used.
        ann_ids: (n,) int64, ids in the annotation file.
        keypoints: (n, J, 3) float32 x, y in original pixels and visibility 0, 1, 2; or None.
    """

    index: int
    image_id: int
    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ann_ids: np.ndarray
    keypoints: np.ndarray | None


@dataclass(frozen=True)
class Columns:
    """The arrays of a data set with N images and A annotations, annotations sorted by image.

    They are tensors, not numpy arrays, because torch hands tensors to spawned workers as shared
    memory. `x_first` are offsets: row i owns the range x_first[i] to x_first[i + 1].

    Attributes:
        image_ids: (N,) int64.
        sizes: (N, 2) int64 height and width.
        path_first, path_bytes: (N + 1,), bytes of the paths below the root, UTF-8.
        ann_first: (N + 1,) annotations of an image.
        ann_ids: (A,) int64.
        boxes: (A, 4) float64 xyxy as annotated.
        areas: (A,) float64.
        labels: (A,) int64.
        crowd: (A,) bool.
        kinds: (A,) uint8: NO_MASK, POLYGONS or RLE.
        part_first, point_first, points: (A + 1,) polygons of an annotation, (P + 1,) points of a
            polygon, (T, 2) float64 x and y in original pixels.
        rle_first, rle_bytes: (A + 1,), bytes of COCO's compressed counts.
        keypoints: (A, J, 3) float32; J is 0 without keypoints.
    """

    image_ids: Tensor
    sizes: Tensor
    path_first: Tensor
    path_bytes: Tensor
    ann_first: Tensor
    ann_ids: Tensor
    boxes: Tensor
    areas: Tensor
    labels: Tensor
    crowd: Tensor
    kinds: Tensor
    part_first: Tensor
    point_first: Tensor
    points: Tensor
    rle_first: Tensor
    rle_bytes: Tensor
    keypoints: Tensor


class Dataset:
    """Annotated images of one split.

    Attributes:
        root: folder below which the images lie.
        split: name of the split.
        names: class names; a label is a position in this list.
        category_ids: id of each class in the annotation file; -1 for a class that it lacks.
        skeleton: names of the J keypoints and the lines between them; None without keypoints.
        faults: what was wrong in the files; see `Fault`.
        source: the annotation file.
        format: "coco" or "voc": what the annotations were stored in, and so how others score it.
        window: what is stretched to 8 bits of deeper images, see `images.load_image`.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        root: Path,
        split: str,
        names: Sequence[str],
        category_ids: Sequence[int],
        source: Path,
        skeleton: Skeleton | None = None,
        faults: Sequence[Fault] = (),
        format: str = "coco",
        rows: Tensor | None = None,
    ) -> None:
        self.root = root
        self.split = split
        self.names = list(names)
        self.category_ids = list(category_ids)
        self.skeleton = skeleton
        self.faults = list(faults)
        self.source = source
        self.format = format
        self.window: Window | str | None = None
        self._columns = columns
        self._rows = torch.arange(len(columns.image_ids)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return (
            f"Dataset({str(self.source)!r}, split={self.split!r}, images={len(self)}, "
            f"classes={len(self.names)}, faults={len(self.faults)})"
        )

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a data set of {len(self)}")
        index %= len(self)
        row = int(self._rows[index])
        table = self._columns
        first, last = table.ann_first[row : row + 2].tolist()
        height, width = table.sizes[row].tolist()
        boxes = table.boxes[first:last].numpy().clip(0, [width, height, width, height])
        joints = table.keypoints[first:last].numpy().copy()
        return Record(
            index=index,
            image_id=int(table.image_ids[row]),
            path=self.root / self._relative_path(row),
            size=(height, width),
            boxes=boxes.astype(np.float32),
            labels=table.labels[first:last].numpy().copy(),
            crowd=table.crowd[first:last].numpy().copy(),
            ann_ids=table.ann_ids[first:last].numpy().copy(),
            keypoints=None if self.skeleton is None else joints,
        )

    def _relative_path(self, row: int) -> str:
        first, last = self._columns.path_first[row : row + 2].tolist()
        return (
            self._columns.path_bytes[first:last]
            .numpy()
            .tobytes()
            .decode("utf-8", "surrogateescape")
        )

    def _annotation(self, index: int, k: int) -> int:
        row = self._rows.numpy()[index]
        first, last = self._columns.ann_first.numpy()[row : row + 2].tolist()
        if not 0 <= k < last - first:
            raise IndexError(f"object {k} of an image with {last - first}")
        return int(first + k)

    @property
    def sizes(self) -> Tensor:
        """(N, 2) int64 height and width of the images, as annotated."""
        return self._columns.sizes[self._rows]

    @property
    def has_masks(self) -> bool:
        """True if any object that is no crowd region has a mask."""
        return bool(((self._columns.kinds != NO_MASK) & ~self._columns.crowd).any())

    @property
    def masks_of_crowds(self) -> bool:
        """True if any crowd region has a mask."""
        return bool(((self._columns.kinds != NO_MASK) & self._columns.crowd).any())

    @property
    def num_ignored(self) -> int:
        """Number of crowd regions and of others that are ignored, in these images."""
        return int((self._columns.crowd.numpy() & self._own_rows()).sum())

    def objects_per_class(self) -> np.ndarray:
        """Return the number of objects of each class in these images, (C,) int64."""
        objects = self._own_rows() & ~self._columns.crowd.numpy()
        return np.bincount(self._columns.labels.numpy()[objects], minlength=len(self.names))

    def _own_rows(self) -> np.ndarray:
        """Return which annotations belong to the images of this split, (A,) bool."""
        first = self._columns.ann_first.numpy()
        mine = np.zeros(len(first) - 1, bool)
        mine[self._rows.numpy()] = True
        return np.repeat(mine, np.diff(first))

    @property
    def has_keypoints(self) -> bool:
        """True if any object that is no crowd region has a labelled keypoint."""
        shown = (self._columns.keypoints[..., 2] > 0).any(1)
        return bool((shown & ~self._columns.crowd).any())

    def image(self, index: int) -> np.ndarray:
        """Return the (H, W, 3) uint8 RGB pixels in the frame of the annotations.

        Raises:
            ValueError: if the file cannot be read, or has another size than the annotations say.
        """
        record = self[index]
        hint = f"image id {record.image_id}; `maskwright data check` lists every such file"
        try:
            pixels = load_image(record.path, size=record.size, window=self.window)
        except ValueError as error:
            raise ValueError(f"{error} ({hint})") from None
        if pixels.shape[:2] != record.size:
            height, width = pixels.shape[:2]
            raise ValueError(
                f"image {record.path} is {width}x{height} pixels but {self.source} says "
                f"{record.size[1]}x{record.size[0]} (width x height): was it resized after it was "
                f"annotated? Correct the size and scale the annotations, or put the original "
                f"back ({hint})"
            )
        return pixels

    def polygons(self, index: int, k: int) -> list[np.ndarray] | None:
        """Return the parts of object `k` as (n, 2) float64 x and y, or None without polygons."""
        return self._polygons(self._annotation(index, k))

    def _polygons(self, row: int) -> list[np.ndarray] | None:
        table = self._columns
        if table.kinds.numpy()[row] != POLYGONS:
            return None
        first, last = table.part_first.numpy()[row : row + 2].tolist()
        cuts = table.point_first.numpy()[first : last + 1].tolist()
        points = table.points.numpy()
        return [points[a:b] for a, b in pairwise(cuts)]

    def _rle(self, row: int) -> bytes:
        first, last = self._columns.rle_first.numpy()[row : row + 2].tolist()
        return self._columns.rle_bytes.numpy()[first:last].tobytes()

    def mask(self, index: int, k: int) -> tuple[Crop, Frame]:
        """Return the mask of an object at native resolution, inside its own frame.

        Args:
            index: position of the image.
            k: position of the object in it.

        Returns:
            crop (h, w) bool and frame xyxy in whole original pixels, y2 - y1 = h, x2 - x1 = w;
            both empty (zeros) for an object without a mask.
        """
        row = self._annotation(index, k)
        kind = int(self._columns.kinds.numpy()[row])
        if kind == NO_MASK:
            return np.zeros((0, 0), bool), (0, 0, 0, 0)
        height, width = self._columns.sizes.numpy()[self._rows.numpy()[index]].tolist()
        if kind == POLYGONS:
            parts = [part.ravel().tolist() for part in self._polygons(row) or []]
            return rasterise_polygons(parts, (height, width))
        return decode_rle({"size": (height, width), "counts": self._rle(row)})

    def classes_of_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which image has which class, without crowd regions: each pair once, sorted.

        Returns:
            positions (P,) of the images and labels (P,), both int64.
        """
        table, rows = self._columns, self._rows.numpy()
        first = table.ann_first.numpy()
        owner = np.repeat(np.arange(len(first) - 1), np.diff(first))
        real = ~table.crowd.numpy()
        keys = np.unique(owner[real] * len(self.names) + table.labels.numpy()[real])
        owners, labels = np.divmod(keys, len(self.names))
        begin = np.searchsorted(owners, rows)
        counts = np.searchsorted(owners, rows, side="right") - begin
        images = np.repeat(np.arange(len(rows)), counts)
        inside = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
        return images, labels[np.repeat(begin, counts) + inside]

    def files(self) -> set[str]:
        """Return the paths of all images, as text."""
        return {str(self.root / self._relative_path(row)) for row in self._rows.tolist()}

    def select(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Dataset:
        """Return a data set of the images at these positions; it shares the memory."""
        part = Dataset(
            self._columns,
            root=self.root,
            split=split or self.split,
            names=self.names,
            category_ids=self.category_ids,
            source=self.source,
            skeleton=self.skeleton,
            faults=self.faults,
            format=self.format,
            rows=self._rows[torch.as_tensor(np.asarray(indices, dtype=np.int64))],
        )
        part.window = self.window
        return part

    @property
    def own_ids(self) -> list[int]:
        """Category id of each class in the annotation file; a new one for a class that it lacks."""
        free = max([*self.category_ids, 0]) + 1
        ids = []
        for number in self.category_ids:
            ids.append(free if number == -1 else number)
            free += number == -1
        return ids

    def to_coco(
        self, indices: Sequence[int] | None = None, *, by_label: bool = False
    ) -> dict[str, Any]:
        """Return the ground truth in COCO's form, for an evaluator.

        Image and category ids are those of the annotation file, as in `Result.to_coco` and
        `detections.json`; annotation ids count from 1 (evaluators take id 0 for "not matched"),
        boxes and areas are as annotated. A region of unknown class is one of each class.

        Args:
            indices: positions of the images; None: all.
            by_label: category ids are label + 1 instead: the classes in the order of the labels.
        """
        ids = [label + 1 for label in range(len(self.names))] if by_label else self.own_ids
        table = self._columns
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)) if indices is None else indices:
            row = int(self._rows[index])
            height, width = table.sizes[row].tolist()
            image_id = int(table.image_ids[row])
            images.append(
                {
                    "id": image_id,
                    "file_name": self._relative_path(row),
                    "height": height,
                    "width": width,
                }
            )
            first, last = table.ann_first[row : row + 2].tolist()
            boxes = table.boxes[first:last].tolist()
            for ann, (x1, y1, x2, y2) in zip(range(first, last), boxes, strict=True):
                entry: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[max(int(table.labels[ann]), 0)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(table.areas[ann]),
                    "iscrowd": int(table.crowd[ann]),
                }
                kind = int(table.kinds[ann])
                if kind == POLYGONS:
                    parts = self._polygons(ann) or []
                    entry["segmentation"] = [part.ravel().tolist() for part in parts]
                elif kind == RLE:
                    counts = self._rle(ann).decode("ascii")
                    entry["segmentation"] = {"size": [height, width], "counts": counts}
                if self.skeleton is not None:
                    joints = table.keypoints[ann]
                    entry["keypoints"] = joints.ravel().tolist()
                    entry["num_keypoints"] = int((joints[:, 2] > 0).sum())
                annotations.append(entry)
                if int(table.labels[ann]) == ANY_CLASS:
                    annotations += [
                        {**entry, "id": entry["id"] + label, "category_id": number}
                        for label, number in enumerate(ids[1:], 1)
                    ]
        categories: list[dict[str, Any]] = [
            {"id": number, "name": name} for number, name in zip(ids, self.names, strict=True)
        ]
        if self.skeleton is not None:
            for category in categories:
                category["keypoints"] = list(self.skeleton.names)
                category["skeleton"] = [[a + 1, b + 1] for a, b in self.skeleton.bones]
        return {
            "info": {"description": f"{self.source.name} ({self.split})"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }


def describe_faults(dataset: Dataset, most: int = 3) -> str | None:
    """Return one sentence on what was wrong in the files of a data set, None if nothing was."""
    if not dataset.faults:
        return None
    counts = Counter((fault.kind, fault.action) for fault in dataset.faults)
    parts = [f"{kind} ({action}) {n} x" for (kind, action), n in counts.most_common(most)]
    more = f" and {len(counts) - most} other kinds" if len(counts) > most else ""
    return (
        f"{dataset.source}: {', '.join(parts)}{more}; the first: {dataset.faults[0].message}; "
        "`maskwright data check` lists all"
    )
