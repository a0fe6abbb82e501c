"""Reader of label images: each number but 0 is an object, of whatever pieces it has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import OBJECT
from ...building.geometry import run_lengths
from ...pixels.images import image_header
from ...pixels.label_image import load_labels
from ...records import Dataset

FORMAT = "instances"
Files = Sequence[tuple[Path, Sequence[Path]]]


class InstanceReader(AnnotatedReader):
    """State of reading one split."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path, split, FORMAT)
        self.paged: list[Path] = []

    def dataset(
        self,
        files: Files,
        names: Sequence[str] | None,
        classes: Sequence[str] | None,
        table: Mapping[tuple[str, int], str],
    ) -> Dataset:
        """Return the data set.

        Args:
            files: each image with its label image, or with a mask of each object.
            names: see `discover.open_dataset`; a single one is the class of objects without any.
            classes: names of the classes; None: not known.
            table: class by label image (folder and name, without suffix) and number.

        Raises:
            ValueError: if there is no image, or none is usable.
        """
        if not files:
            raise ValueError(f"{self.path} has no image with a label image")
        root = Path(os.path.commonpath([image.parent for image, _ in files]))
        lone = names[0] if names is not None and len(names) == 1 else OBJECT
        known = list(classes or [lone])
        listed = {name: name for name in known}

        def scan() -> Iterator[Picture]:
            self.paged.clear()
            for image, masks in files:
                yield self._picture(
                    image, masks, root, known[0] if len(known) == 1 else None, table
                )

        return self.read(scan, [root], listed, names)

    def surveyed(self) -> None:
        """List the label images of several pages."""
        if self.paged:
            message = f"{self.paged[0]} has several pages, of which the first is read"
            more = f", and so {len(self.paged) - 1} more" if len(self.paged) > 1 else ""
            self.fault("several frames", message + more, "kept", file=self.paged[0])

    def _picture(
        self,
        image: Path,
        masks: Sequence[Path],
        root: Path,
        lone: str | None,
        table: Mapping[tuple[str, int], str],
    ) -> Picture:
        file = masks[0] if masks else image
        picture = Picture(file, image.relative_to(root).as_posix())
        try:
            picture.size = size = image_header(image).size
        except ValueError:  # the builder tells
            return picture
        try:
            for one in masks:
                numbers = self._numbers(one, image, size)
                where = f"{one.parent.name}/{one.stem}"
                if len(masks) > 1:
                    numbers = (numbers > 0).astype(np.uint8)
                for number, crop, left, top in objects_in(numbers):
                    key = table.get((where, number), lone)
                    code: dict[str, Any] = run_lengths(crop, left, top, size)
                    place = f"number {number}" if len(masks) == 1 else one.name
                    picture.shapes.append(Shape(key, place, {"segmentation": code}))
        except ValueError as error:
            picture.broken = "unreadable labels", str(error)
        return picture

    def _numbers(self, file: Path, image: Path, size: tuple[int, int]) -> np.ndarray:
        """Return the numbers of a label image.

        Raises:
            ValueError: if it cannot be used for the image.
        """
        numbers, _ = load_labels(file)
        if numbers.ndim == 3:
            if not (numbers == numbers[..., :1]).all():
                raise ValueError(
                    f"{file} has colours, but its pixels must be the numbers of objects: save it "
                    "with 8 or 16 bits of grey"
                )
            numbers = numbers[..., 0]
        if numbers.shape != size:
            raise ValueError(
                f"{file} is {numbers.shape[1]}x{numbers.shape[0]} pixels, its image {image} is "
                f"{size[1]}x{size[0]}: resize it without interpolation (nearest)"
            )
        if numbers.size and int(numbers.min()) < 0:
            raise ValueError(f"{file} has the number {numbers.min()}: objects count from 1 on")
        if image_header(file).frames > 1:
            self.paged.append(file)
        return numbers


def objects_in(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray, int, int]]:
    """Yield each number but 0 with its crop (h, w) bool and where that lies, left and top.

    Example:
        >>> [(n, crop.shape, x, y) for n, crop, x, y in objects_in(np.array([[0, 7], [3, 7]]))]
        [(3, (1, 1), 0, 1), (7, (2, 1), 1, 0)]
    """
    rows, columns = np.nonzero(numbers)
    values = numbers[rows, columns]
    order = np.argsort(values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    for begin, end in zip(starts, [*starts[1:], len(values)], strict=True):
        if begin == end:
            continue
        y, x = rows[begin:end], columns[begin:end]
        top, left = int(y.min()), int(x.min())
        crop = np.zeros((int(y.max()) - top + 1, int(x.max()) - left + 1), bool)
        crop[y - top, x - left] = True
        yield int(values[begin]), crop, left, top
