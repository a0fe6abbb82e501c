"""From images with label maps, whatever names these lie under, to a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..columns import Columns, pack_offsets, pack_texts
from ..maps.encoding import Encoding
from ..pixels.label_image import label_size
from ..pixels.opening import file_problem
from ..records import Dataset, Fault
from .labelled import no_objects_columns

JPEG = b"\xff\xd8\xff"
Segment = tuple[int, int, bool]  # id, label, whether it is ignored


class MapBuilder:
    """State of reading one split of images with label maps.

    Attributes:
        path: what faults and errors name.
        split: name of the split.
        format: `Dataset.format`.
        faults: what was wrong so far.
    """

    def __init__(self, path: Path, split: str, format: str) -> None:
        self.path = path
        self.split = split
        self.format = format
        self.faults: list[Fault] = []

    def fault(
        self, kind: str, message: str, action: str = "left out", file: Path | None = None
    ) -> None:
        """Note a fault; see `Fault`."""
        self.faults.append(Fault(str(file or self.path), None, None, kind, message, action))

    def build(
        self,
        files: Sequence[tuple[Path, Path]],
        names: Sequence[str],
        encoding: Encoding,
        segments: Sequence[Sequence[Segment]] | None = None,
    ) -> Dataset:
        """Return the data set of all images that are there, with their label maps.

        Args:
            files: image and label map of each.
            names: of the classes.
            encoding: how the label maps store them.
            segments: of each image, where a label map holds their ids.

        Raises:
            ValueError: if no image is usable.
        """
        kept: list[tuple[Path, Path]] = []
        sizes: list[tuple[int, int]] = []
        rows: list[Sequence[Segment]] = []
        for number, (image, labels) in enumerate(files):
            size = self._size(image, labels)
            if size is not None:
                kept.append((image, labels))
                sizes.append(size)
                rows.append(() if segments is None else segments[number])
        if not kept:
            first = f"; the first fault: {self.faults[0].message}" if self.faults else ""
            raise ValueError(f"{self.path} gives no usable image of {len(files)}{first}")
        root = Path(os.path.commonpath([file.parent for pair in kept for file in pair]))
        return Dataset(
            _with_segments(map_columns(root, kept, sizes), rows),
            root=root,
            split=self.split,
            names=names,
            category_ids=[-1] * len(names),
            source=self.path,
            faults=self.faults,
            format=self.format,
            records="maps",
            encoding=encoding,
        )

    def _size(self, image: Path, labels: Path) -> tuple[int, int] | None:
        """Return the size of a pair, by the label map; None if one of the files cannot be used."""
        for file in (image, labels):
            if problem := file_problem(file):
                self.fault(*problem, file=file)
                return None
        try:
            with labels.open("rb") as stream:
                if stream.read(3) == JPEG:
                    message = (
                        f"label map {labels} is a JPEG, which changes the numbers wherever two "
                        "classes meet: export it as PNG; a mask of two classes can be cut at 128"
                    )
                    self.fault("JPEG label map", message, file=labels)
                    return None
            return label_size(labels)
        except (OSError, ValueError) as error:
            self.fault("unreadable label map", str(error), file=labels)
            return None


def map_columns(
    root: Path, files: Sequence[tuple[Path, Path]], sizes: Sequence[tuple[int, int]]
) -> Columns:
    """Return the arrays of images with label maps, without any object.

    Args:
        root: folder below which all files lie.
        files: image and label map of each.
        sizes: (height, width) of each.
    """
    images, maps = (
        pack_texts([pair[place].relative_to(root).as_posix() for pair in files]) for place in (0, 1)
    )
    return no_objects_columns(
        images,
        torch.from_numpy(np.array(sizes, np.int64).reshape(-1, 2)),
        map_first=maps[0],
        map_bytes=maps[1],
    )


def _with_segments(columns: Columns, rows: Sequence[Sequence[Segment]]) -> Columns:
    """Return the arrays with the segments of each image as its annotations."""
    flat = [segment for own in rows for segment in own]
    table = torch.from_numpy(np.array(flat, np.int64).reshape(-1, 3))
    none, offsets = torch.zeros(len(flat), dtype=torch.int64), torch.zeros(len(flat) + 1)
    return replace(
        columns,
        ann_first=pack_offsets([len(own) for own in rows]),
        ann_ids=table[:, 0].contiguous(),
        labels=table[:, 1].contiguous(),
        crowd=table[:, 2] > 0,
        ignored=table[:, 2] > 0,
        boxes=torch.zeros(len(flat), 4, dtype=torch.float64),
        areas=none.double(),
        kinds=none.to(torch.uint8),
        part_first=offsets.long(),
        rle_first=offsets.long(),
        keypoints=torch.zeros(len(flat), 0, 3),
    )
