"""One in-memory schema for annotated images, whatever file format they came from.

Objects with boxes, masks, keypoints; regions that are ignored; labels of whole images; label maps:
what a task reads is declared here, and it reads nothing else. A data set lives in flat arrays with
offsets (`Columns`) instead of Python objects. Masks are rasterised when asked for, each inside its
own frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from maskwright.channels import MOST_CHANNELS
from maskwright.drawing.channels import shown
from maskwright.ops.rle import Crop, Frame, decode_rle, rasterise_polygons
from maskwright.structures import Skeleton
from maskwright.window import Window

from .columns import ANY_CLASS, Columns, pack_offsets
from .formats.coco.truth import coco_truth
from .maps.encoding import Drawn, Encoding, Values, identity
from .pixels.depth import to_pixels
from .pixels.images import load_samples
from .record import Record
from .segments import NO_MASK, POLYGONS

__all__ = ["ANY_CLASS", "Dataset", "Fault", "Record", "describe_faults"]

Kind = Literal["objects", "labels", "maps"]
BACKGROUND = "background"  # the first class of label maps that are drawn from objects


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
        format: "coco" or "voc", or a format of labelled images: what the annotations were stored
            in, and so how others score it.
        records: what its images have: "objects", "labels" of their own, or "maps" of labels.
        encoding: how the class of a pixel is stored; None: as its number, if at all.
        frequencies: of each class, "r", "c" or "f": rare, common, frequent in the training images,
            as LVIS counts them; "" where nothing says it.
        unread: what its files have and no record, in words, and how often.
        window: what becomes 0 to 255 of deeper images, see `depth.to_pixels`.
        page: which image of files of several, see `picture.open_picture`.
        channels: which channels of the files; None: images are colours or grey.
        columns: the arrays, which several data sets may share.
        rows: (N,) int64: the images of this one in them.
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
        records: Kind = "objects",
        rows: Tensor | None = None,
        encoding: Encoding | None = None,
        frequencies: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        self.split = split
        self.names = list(names)
        self.category_ids = list(category_ids)
        self.skeleton = skeleton
        self.faults = list(faults)
        self.source = source
        self.format = format
        self.records = records
        self.encoding = encoding
        self.frequencies = list(frequencies or [""] * len(self.names))
        self.unread: dict[str, int] = {}
        self.window: Window | str | None = None
        self.page: int | None = None
        self.channels: tuple[int, ...] | None = None
        self.columns = columns
        self.rows = torch.arange(len(columns.image_ids)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Dataset({str(self.source)!r}, split={self.split!r}, images={len(self)}, "
            f"classes={len(self.names)}, faults={len(self.faults)})"
        )

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a data set of {len(self)}")
        index %= len(self)
        row = int(self.rows[index])
        table = self.columns
        first, last = table.ann_first[row : row + 2].tolist()
        height, width = table.sizes[row].tolist()
        boxes = table.boxes[first:last].numpy().clip(0, [width, height, width, height])
        joints = table.keypoints[first:last].numpy().copy()
        return Record(
            index=index,
            image_id=int(table.image_ids[row]),
            path=self.root / table.path(row),
            size=(height, width),
            boxes=boxes.astype(np.float32),
            labels=table.labels[first:last].numpy().copy(),
            crowd=table.crowd[first:last].numpy().copy(),
            ann_ids=table.ann_ids[first:last].numpy().copy(),
            keypoints=None if self.skeleton is None else joints,
            ignored=table.ignored[first:last].numpy().copy(),
            image_labels=table.labels_of(row),
            label_map=self.root / maps if (maps := table.map_path(row)) else None,
            group=None if table.groups is None else int(table.groups[row]),
            channels=None if table.channels is None else int(table.channels[row]) or None,
            stored=table.stored is not None,
            checked=table.checked_of(row),
        )

    def _annotation(self, index: int, k: int) -> int:
        row = self.rows.numpy()[index]
        first, last = self.columns.ann_first.numpy()[row : row + 2].tolist()
        if not 0 <= k < last - first:
            raise IndexError(f"object {k} of an image with {last - first}")
        return int(first + k)

    @property
    def sizes(self) -> Tensor:
        """(N, 2) int64 height and width of the images, as annotated."""
        return self.columns.sizes[self.rows]

    @property
    def has_masks(self) -> bool:
        """True if any object that is no crowd region has a mask."""
        return bool(((self.columns.kinds != NO_MASK) & ~self.columns.crowd).any())

    @property
    def masks_of_crowds(self) -> bool:
        """True if any crowd region has a mask."""
        return bool(((self.columns.kinds != NO_MASK) & self.columns.crowd).any())

    @property
    def num_ignored(self) -> int:
        """Number of crowd regions and of others that are ignored, in these images."""
        return int((self.columns.crowd.numpy() & self._own_rows()).sum())

    def objects_per_class(self) -> np.ndarray:
        """Return the number of objects of each class in these images, (C,) int64."""
        objects = self._own_rows() & ~self.columns.crowd.numpy()
        return np.bincount(self.columns.labels.numpy()[objects], minlength=len(self.names))

    def _own_rows(self) -> np.ndarray:
        """Return which annotations belong to the images of this split, (A,) bool."""
        first = self.columns.ann_first.numpy()
        mine = np.zeros(len(first) - 1, bool)
        mine[self.rows.numpy()] = True
        return np.repeat(mine, np.diff(first))

    @property
    def has_keypoints(self) -> bool:
        """True if any object that is no crowd region has a labelled keypoint."""
        shown = (self.columns.keypoints[..., 2] > 0).any(1)
        return bool((shown & ~self.columns.crowd).any())

    def image(self, index: int) -> np.ndarray:
        """Return what a network sees of an image, in the frame of the annotations.

        Returns:
            (H, W, C) 0 to 255, red, green and blue unless `channels` are chosen: uint8, of deeper
            images float32; see `depth.to_pixels`.

        Raises:
            ValueError: if the file cannot be read, lacks a channel, or has another size than the
                annotations say.
        """
        if self.stored:
            return self._stored_image(index)
        record = self[index]
        hint = f"image id {record.image_id}; `maskwright data check` lists every such file"
        try:
            known = record.size if min(record.size) else None
            samples = self.samples(index, known)
            if self.channels is None and samples.ndim == 3 and samples.shape[2] != 3:
                raise ValueError(
                    f"{record.path} has {samples.shape[2]} channels: choose the ones to see by "
                    f"channels=, the same for all images and at most {MOST_CHANNELS}, as in "
                    "channels=0,1,2"
                )
            pixels = to_pixels(samples, self.window)
        except ValueError as error:
            raise ValueError(f"{error} ({hint})") from None
        if known is not None and pixels.shape[:2] != record.size:
            height, width = pixels.shape[:2]
            if record.label_map is not None:
                raise ValueError(
                    f"label map {record.label_map} is {record.size[1]}x{record.size[0]} pixels, "
                    f"its image {record.path} is {width}x{height}: every pixel of the image needs "
                    f"its own class ({hint})"
                )
            raise ValueError(
                f"image {record.path} is {width}x{height} pixels but {self.source} says "
                f"{record.size[1]}x{record.size[0]} (width x height): was it resized after it was "
                f"annotated? Correct the size and scale the annotations, or put the original "
                f"back ({hint})"
            )
        return pixels

    @property
    def num_channels(self) -> int:
        """Channels of what `image` returns."""
        return 3 if self.channels is None else len(self.channels)

    def photo(self, index: int) -> np.ndarray:
        """Return what people see of an image, (H, W, 3) uint8 RGB; see `image`, `depth.shown`."""
        return shown(self.image(index))

    def samples(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the samples of an image file as stored, see `images.load_samples`."""
        path = self[index].path
        return load_samples(path, size=size, page=self.page, channels=self.channels)

    def _stored_image(self, index: int) -> np.ndarray:
        table = self.columns
        assert table.stored is not None and table.items is not None
        planes = table.stored[int(table.items[int(self.rows[index])])].numpy()
        return np.repeat(planes.transpose(1, 2, 0), 3 // len(planes), axis=2)

    def label_map(self, index: int) -> np.ndarray | None:
        """Return the label of every pixel in the frame of the image, (H, W) uint8.

        Labels are positions in `names`; 255 is ignored. None for an image without a map.

        Raises:
            ValueError: if the file cannot be read, has another size than the image, or a value
                that stands for no class.
        """
        record = self[index]
        drawn = isinstance(self.encoding, Drawn)
        if record.label_map is None and not drawn:
            return None
        encoding = self.encoding or identity()
        labels = encoding.read(record, lambda k: self.mask(index, k))
        size = record.size if min(record.size) else self.image(index).shape[:2]
        if labels.shape != size:
            height, width = labels.shape
            raise ValueError(
                f"label map {record.label_map} is {width}x{height} pixels, its image {record.path} "
                f"is {size[1]}x{size[0]}: every pixel of the image needs its own class"
            )
        return labels

    @property
    def colors(self) -> list[tuple[int, int, int] | None]:
        """The colour of each class, where a table beside the label maps gives it one; else none."""
        found = self.encoding.colors if isinstance(self.encoding, Values) else {}
        return [found.get(label) for label in range(len(self.names))]

    def polygons(self, index: int, k: int) -> list[np.ndarray] | None:
        """Return the parts of object `k` as (n, 2) float64 x and y, or None without polygons."""
        return self.columns.polygons(self._annotation(index, k))

    def annotated_boxes(self, index: int) -> np.ndarray:
        """Return the boxes of an image as annotated, (n, 4) float64 xyxy, not clipped to it."""
        first, last = self.columns.ann_first[int(self.rows[index]) :][:2].tolist()
        boxes: np.ndarray = self.columns.boxes[first:last].numpy().copy()
        return boxes

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
        kind = int(self.columns.kinds.numpy()[row])
        if kind == NO_MASK:
            return np.zeros((0, 0), bool), (0, 0, 0, 0)
        height, width = self.columns.sizes.numpy()[self.rows.numpy()[index]].tolist()
        if kind == POLYGONS:
            parts = [part.ravel().tolist() for part in self.columns.polygons(row) or []]
            return rasterise_polygons(parts, (height, width))
        return decode_rle({"size": (height, width), "counts": self.columns.rle(row)})

    def classes_of_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which image has which class: each pair once, sorted by image and by class.

        Classes are the labels of the images, or those of their objects without crowd regions.

        Returns:
            positions (P,) of the images and labels (P,), both int64.
        """
        table, rows = self.columns, self.rows.numpy()
        if table.label_first is not None and table.image_labels is not None:
            first, labels = table.label_first.numpy(), table.image_labels.numpy()
        else:
            first, labels = table.ann_first.numpy(), table.labels.numpy()
        owner = np.repeat(np.arange(len(first) - 1), np.diff(first))
        if table.label_first is None:
            owner, labels = owner[~table.crowd.numpy()], labels[~table.crowd.numpy()]
        keys = np.unique(owner * len(self.names) + labels)
        owners, labels = np.divmod(keys, len(self.names))
        begin = np.searchsorted(owners, rows)
        counts = np.searchsorted(owners, rows, side="right") - begin
        images = np.repeat(np.arange(len(rows)), counts)
        inside = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
        return images, labels[np.repeat(begin, counts) + inside]

    def labels_of(self, index: int) -> np.ndarray:
        """Return the labels (m,) int64 of an image; none where images have no labels."""
        found = self.columns.labels_of(int(self.rows[index]))
        return np.zeros(0, np.int64) if found is None else found

    def images_per_class(self) -> np.ndarray:
        """Return the number of images that have each class, (C,) int64."""
        return np.bincount(self.classes_of_images()[1], minlength=len(self.names))

    @property
    def multilabel(self) -> bool:
        """True if images have labels, but not each of them exactly one."""
        first = self.columns.label_first
        if first is None:
            return False
        return bool((first.diff()[self.rows] != 1).any())

    @property
    def stored(self) -> bool:
        """True if the images are parts of a file, not files themselves."""
        return self.columns.stored is not None

    @property
    def groups(self) -> np.ndarray | None:
        """Group of each image, (N,) int64; None where each stands alone."""
        table = self.columns
        return None if table.groups is None else table.groups[self.rows].numpy()

    def as_labels(self) -> Dataset:
        """Return a data set whose images have the classes of their objects as labels.

        The objects stay, to score what was learned from the labels alone.
        """
        if self.records == "labels":
            return self
        images, labels = self.like(self.columns, None).classes_of_images()
        counts = np.bincount(images, minlength=len(self.columns.image_ids))
        columns = replace(
            self.columns, label_first=pack_offsets(counts), image_labels=torch.from_numpy(labels)
        )
        return self.like(columns, self.rows, records="labels")

    def as_maps(self, overlaps: str = "smaller") -> Dataset:
        """Return a data set of label maps that are drawn from the masks of objects.

        Class 0 is the background; the objects stay, their labels one higher.

        Args:
            overlaps: see `Drawn`.

        Raises:
            ValueError: if the objects have no masks.
        """
        if self.records == "maps":
            return self
        if not self.has_masks:
            raise ValueError(
                f"{self.source} has boxes only: label maps are drawn from masks or polygons"
            )
        table = self.columns
        labels = torch.where(table.labels == ANY_CLASS, ANY_CLASS, table.labels + 1)
        return self.like(
            replace(table, labels=labels),
            self.rows,
            records="maps",
            names=[BACKGROUND, *self.names],
            category_ids=[-1, *self.category_ids],
            encoding=Drawn(overlaps),
        )

    def files(self) -> set[str]:
        """Return the paths of all images, as text."""
        return {str(self.root / self.columns.path(row)) for row in self.rows.tolist()}

    def select(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Dataset:
        """Return a data set of the images at these positions; it shares the memory."""
        rows = self.rows[torch.as_tensor(np.asarray(indices, dtype=np.int64))]
        return self.like(self.columns, rows, split=split or self.split)

    def like(self, columns: Columns, rows: Tensor | None, **changes: Any) -> Dataset:
        """Return a data set of other images that is like this one but for `changes`."""
        same = ("root", "split", "names", "category_ids", "source", "skeleton", "faults", "format")
        kept = {name: getattr(self, name) for name in (*same, "records", "encoding")}
        if "names" not in changes:
            kept["frequencies"] = self.frequencies
        part = Dataset(columns, rows=rows, **kept | changes)
        part.unread = self.unread
        part.window, part.page, part.channels = self.window, self.page, self.channels
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
        """Return the ground truth in COCO's form, for an evaluator; see `coco_truth`.

        Args:
            indices: positions of the images; None: all.
            by_label: category ids are label + 1 instead: the classes in the order of the labels.
        """
        chosen = None if indices is None else torch.tensor(list(indices), dtype=torch.int64)
        rows = self.rows if chosen is None else self.rows[chosen]
        ids = [label + 1 for label in range(len(self.names))] if by_label else self.own_ids
        content = coco_truth(self.columns, rows.tolist(), self.names, ids, self.skeleton)
        for category, often in zip(content["categories"], self.frequencies, strict=True):
            if often:
                category["frequency"] = often
        return {"info": {"description": f"{self.source.name} ({self.split})"}, **content}


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
