"""The flat arrays in which a data set lives: images, objects, labels, and texts as bytes.

A million annotations stay light, and worker processes share the memory, forked or spawned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .segments import POLYGONS

ANY_CLASS = -1  # label of an ignored region whose class is not known


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
        crowd: (A,) bool: counts neither way, as object or as background.
        ignored: (A,) bool: of these, areas in which nothing is scored and nothing is trained,
            rather than groups of objects.
        kinds: (A,) uint8: NO_MASK, POLYGONS or RLE.
        part_first, point_first, points: (A + 1,) polygons of an annotation, (P + 1,) points of a
            polygon, (T, 2) float64 x and y in original pixels.
        rle_first, rle_bytes: (A + 1,), bytes of COCO's compressed counts.
        keypoints: (A, J, 3) float32; J is 0 without keypoints.
        channels: (N,) uint8: of the pixels in the file, 0 where nobody has looked; None: nowhere.
        label_first, image_labels: (N + 1,), labels of an image, (L,) int64; None: none has any.
        map_first, map_bytes: (N + 1,), bytes of the paths of label maps below the root, UTF-8, no
            bytes for an image without one; None: none has one.
        groups: (N,) int64: images of one number belong together, as those of one patient; None:
            each stands alone.
        stored: (S, c, h, w) uint8: the images themselves, where one file holds many; None: each is
            a file.
        checked_first, checked: (N + 1,), labels of the classes that an image was looked through
            for, (L,) int64; None: all images for all classes.
        items: (N,) int64: which of these an image is; the number in its file stands in its path.
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
    ignored: Tensor
    kinds: Tensor
    part_first: Tensor
    point_first: Tensor
    points: Tensor
    rle_first: Tensor
    rle_bytes: Tensor
    keypoints: Tensor
    channels: Tensor | None = None
    label_first: Tensor | None = None
    image_labels: Tensor | None = None
    map_first: Tensor | None = None
    map_bytes: Tensor | None = None
    groups: Tensor | None = None
    stored: Tensor | None = None
    items: Tensor | None = None
    checked_first: Tensor | None = None
    checked: Tensor | None = None

    def path(self, row: int) -> str:
        """Return the path of an image below the root."""
        return _text(self.path_first, self.path_bytes, row)

    def map_path(self, row: int) -> str:
        """Return the path of the label map of an image below the root, "" if it has none."""
        if self.map_first is None or self.map_bytes is None:
            return ""
        return _text(self.map_first, self.map_bytes, row)

    def labels_of(self, row: int) -> np.ndarray | None:
        """Return the labels (m,) int64 of an image; None where images have none."""
        if self.label_first is None or self.image_labels is None:
            return None
        first, last = self.label_first.numpy()[row : row + 2].tolist()
        found: np.ndarray = self.image_labels.numpy()[first:last].copy()
        return found

    def checked_of(self, row: int) -> np.ndarray | None:
        """Return the labels (m,) int64 that an image was looked through for; None: all."""
        if self.checked_first is None or self.checked is None:
            return None
        first, last = self.checked_first.numpy()[row : row + 2].tolist()
        found: np.ndarray = self.checked.numpy()[first:last].copy()
        return found

    def polygons(self, annotation: int) -> list[np.ndarray] | None:
        """Return the parts of an annotation as (n, 2) float64 x and y; None without polygons."""
        if self.kinds.numpy()[annotation] != POLYGONS:
            return None
        first, last = self.part_first.numpy()[annotation : annotation + 2].tolist()
        cuts = self.point_first.numpy()[first : last + 1].tolist()
        points = self.points.numpy()
        return [points[a:b] for a, b in pairwise(cuts)]

    def rle(self, annotation: int) -> bytes:
        """Return the compressed run lengths of an annotation."""
        first, last = self.rle_first.numpy()[annotation : annotation + 2].tolist()
        return self.rle_bytes.numpy()[first:last].tobytes()


def pack_texts(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return offsets (N + 1,) and bytes of N texts one after another."""
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    first = pack_offsets([len(part) for part in parts])
    content = np.frombuffer(bytearray().join(parts), np.uint8)
    return first, torch.from_numpy(content)


def pack_offsets(lengths: Sequence[int] | np.ndarray) -> Tensor:
    """Return where N ranges of these lengths begin and end, (N + 1,) int64."""
    return torch.from_numpy(np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))


def _text(first: Tensor, content: Tensor, row: int) -> str:
    begin, end = first[row : row + 2].tolist()
    return content[begin:end].numpy().tobytes().decode("utf-8", "surrogateescape")
