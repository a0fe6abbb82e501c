"""From labelled images, whatever their labels stood in, to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..columns import Columns, pack_offsets, pack_texts
from ..pixels.opening import file_problem
from ..records import Dataset, Fault

SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class Labelled:
    """One image with its labels.

    Attributes:
        file: path below the root; of an image inside a file, what is shown as its path.
        labels: names of its classes.
        group: what it belongs to, "" where it stands alone.
    """

    file: str
    labels: tuple[str, ...]
    group: str = ""


class LabelBuilder:
    """State of reading one split of labelled images.

    Attributes:
        path: what faults and errors name.
        split: name of the split.
        format: what the labels are stored in.
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
        root: Path,
        images: Sequence[Labelled],
        classes: Sequence[str],
        names: Sequence[str] | None,
        *,
        stored: Tensor | None = None,
    ) -> Dataset:
        """Return the data set of all images that are there.

        Args:
            root: folder below which they lie.
            images: the images.
            classes: names of the classes of this split, in their order.
            names: class names that are known already, which give the labels; None: `classes`.
            stored: (S, c, h, w) uint8, the images themselves if one file holds many.

        Raises:
            ValueError: if no image is usable, or a class is not in `names`.
        """
        known = list(classes if names is None else names)
        self._require_known(images, known)
        kept = [
            number
            for number, one in enumerate(images)
            if stored is not None or self._there(root, one)
        ]
        if not kept:
            first = f"; the first fault: {self.faults[0].message}" if self.faults else ""
            count = f" of {len(images)}" if images else ""
            raise ValueError(f"{self.path} gives no usable image{count}{first}")
        chosen = [images[number] for number in kept]
        number_of = {name: number for number, name in enumerate(known)}
        labels = [[number_of[name] for name in one.labels] for one in chosen]
        self._tell_missing(known, {label for own in labels for label in own})
        items = None if stored is None else torch.tensor(kept, dtype=torch.int64)
        columns = _columns(chosen, labels, stored, items)
        return Dataset(
            columns,
            root=root,
            split=self.split,
            names=known,
            category_ids=[-1] * len(known),
            source=self.path,
            faults=self.faults,
            format=self.format,
            records="labels",
        )

    def _require_known(self, images: Sequence[Labelled], known: Sequence[str]) -> None:
        unknown = sorted({name for one in images for name in one.labels}.difference(known))
        if unknown:
            raise ValueError(
                f"{self.path} has images of the class(es) {unknown[:SHOWN]}, but the known classes "
                f"are {list(known)[:20]}: class names must be the same in all splits and in the "
                "model, capitals included"
            )

    def _there(self, root: Path, image: Labelled) -> bool:
        file = root / image.file
        problem = file_problem(file)
        if problem is not None:
            self.fault(*problem, file=file)
        return problem is None

    def _tell_missing(self, known: Sequence[str], found: set[int]) -> None:
        missing = [name for label, name in enumerate(known) if label not in found]
        if missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            self.fault(
                "class without images",
                f"{self.path} has no image of {', '.join(map(repr, missing[:SHOWN]))}{more}: add "
                "some, or take the class away",
                "kept",
            )


def _columns(
    images: Sequence[Labelled],
    labels: Sequence[Sequence[int]],
    stored: Tensor | None,
    items: Tensor | None,
) -> Columns:
    sizes, channels = torch.zeros(len(images), 2, dtype=torch.int64), None
    if stored is not None:
        sizes += torch.tensor(stored.shape[2:])
        channels = torch.full((len(images),), stored.shape[1], dtype=torch.uint8)
    flat = np.array([label for own in labels for label in own], np.int64)
    return no_objects_columns(
        pack_texts([one.file for one in images]),
        sizes,
        channels=channels,
        label_first=pack_offsets([len(own) for own in labels]),
        image_labels=torch.from_numpy(flat),
        groups=_groups(images),
        stored=stored,
        items=items,
    )


def no_objects_columns(paths: tuple[Tensor, Tensor], sizes: Tensor, **others: Any) -> Columns:
    """Return the arrays of images without objects.

    Args:
        paths: of the images, see `pack_texts`.
        sizes: (N, 2) height and width.
        **others: further columns.
    """
    none = torch.zeros(0, dtype=torch.int64)
    return Columns(
        image_ids=torch.arange(1, len(sizes) + 1),
        sizes=sizes,
        path_first=paths[0],
        path_bytes=paths[1],
        ann_first=torch.zeros(len(sizes) + 1, dtype=torch.int64),
        ann_ids=none,
        boxes=torch.zeros(0, 4, dtype=torch.float64),
        areas=torch.zeros(0, dtype=torch.float64),
        labels=none,
        crowd=none.bool(),
        ignored=none.bool(),
        kinds=none.to(torch.uint8),
        part_first=torch.zeros(1, dtype=torch.int64),
        point_first=torch.zeros(1, dtype=torch.int64),
        points=torch.zeros(0, 2, dtype=torch.float64),
        rle_first=torch.zeros(1, dtype=torch.int64),
        rle_bytes=none.to(torch.uint8),
        keypoints=torch.zeros(0, 0, 3),
        **others,
    )


def _groups(images: Sequence[Labelled]) -> Tensor | None:
    """Return a number for each group, and one for each image that stands alone."""
    if not any(one.group for one in images):
        return None
    numbers: dict[object, int] = {}
    keys: list[object] = [one.group or place for place, one in enumerate(images)]
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
