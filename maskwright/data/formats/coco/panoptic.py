"""COCO panoptic (Kirillov et al. 2019) read as objects: the segments whose class is a thing.

A PNG an image holds the ids of its segments, R + 256 G + 65536 B. Whether a class is a thing is
said by `isthing` of its category, and by nothing else; where no category says it, all are. Segments
of stuff are no objects; those marked as crowds count neither way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.geometry import run_lengths
from ...building.objects import flag
from ...pixels.label_image import load_labels
from ...records import Dataset
from ..folders import Tree
from ..instances.read import objects_in
from ..maps.panoptic import PanopticSource, find_panoptic, panoptic_file, panoptic_lists
from ..source import BaseSource, ReadOptions


@dataclass(frozen=True)
class PanopticObjects(BaseSource):
    """Where one split lies.

    Attributes:
        maps: the JSON, the folder of its PNGs and those of the images.
    """

    maps: PanopticSource

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the JSON."""
        return self.maps.annotations

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "coco_panoptic")
        return reader.dataset(self.maps, names)


def find_panoptic_objects(tree: Tree, path: Path) -> dict[str, PanopticObjects]:
    """Return the splits of COCO panoptic in a folder as objects, {} for others.

    Raises:
        ValueError: see `find_panoptic`.
    """
    return _objects(find_panoptic(tree, path))


def panoptic_objects_file(file: Path) -> dict[str, PanopticObjects]:
    """Return the split that a JSON of segments is, {} for others.

    Raises:
        ValueError: if there is no folder of PNGs for it.
    """
    return _objects(panoptic_file(file))


def _objects(found: Mapping[str, PanopticSource]) -> dict[str, PanopticObjects]:
    return {
        split: PanopticObjects(replace(source, faults=()), faults=source.faults)
        for split, source in found.items()
    }


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def dataset(self, source: PanopticSource, names: Sequence[str] | None) -> Dataset:
        """Return the data set.

        Raises:
            ValueError: if no category is a thing.
        """
        lists = panoptic_lists(source.annotations)
        things = {
            one["id"]: str(one["name"])
            for one in sorted(lists["categories"], key=lambda one: one["id"])
            if flag(one.get("isthing", 1))
        }
        if not things:
            raise ValueError(
                f"{source.annotations} has no category with isthing 1, so it has no objects: a "
                "model of semantic segmentation reads it"
            )
        known = {one["id"] for one in lists["categories"]}
        images = {one["id"]: one for one in lists["images"]}

        def scan() -> Iterator[Picture]:
            for one in lists["annotations"]:
                yield self._picture(one, images.get(one["image_id"]), source, things, known)

        return self.read(scan, list(source.roots), things, names)

    def _picture(
        self,
        one: dict[str, Any],
        image: dict[str, Any] | None,
        source: PanopticSource,
        things: Mapping[int, str],
        known: set[int],
    ) -> Picture:
        file = source.maps / PurePosixPath(one["file_name"].replace("\\", "/")).name
        picture = Picture(self.path, "")
        if image is None:
            message = f"{self.path}: image_id {one['image_id']} of {file.name} is no image"
            picture.broken = "unknown image", message
            return picture
        picture.name = image["file_name"]
        try:
            numbers, palette = load_labels(file)
            if numbers.ndim != 3 or palette is not None:
                raise ValueError(f"{file} has no colours, so no ids of segments")
        except ValueError as error:
            picture.broken = "unreadable labels", str(error)
            return picture
        height, width = numbers.shape[:2]
        given = image.get("height"), image.get("width")
        if None not in given and given != (height, width):
            message = (
                f"{file} is {width}x{height} pixels, {self.path} says {given[1]}x{given[0]} of "
                f"{picture.name}: resize it without interpolation (nearest)"
            )
            picture.broken = "unreadable labels", message
            return picture
        picture.size = height, width
        ids = numbers.astype(np.int64) @ np.array([1, 256, 65536])
        crops = {number: (crop, left, top) for number, crop, left, top in objects_in(ids)}
        told = set()
        for k, segment in enumerate(one["segments_info"]):
            number, category = int(segment["id"]), int(segment["category_id"])
            told.add(number)
            if category in known and category not in things:
                continue
            place = f"{file.name}, segments_info[{k}]"
            found = Shape(category, place, {"iscrowd": int(bool(flag(segment.get("iscrowd"))))})
            crop, left, top = crops.get(number, (np.zeros((0, 0), bool), 0, 0))
            found.entry["segmentation"] = run_lengths(crop, left, top, (height, width))
            picture.shapes.append(found)
        if strange := sorted(set(crops) - told):
            message = (
                f"{file} has {len(strange)} segment(s) that {self.path} does not list, the first "
                f"of id {strange[0]}: no objects"
            )
            picture.notes.append(("segment without an entry", message, "left out"))
        return picture
