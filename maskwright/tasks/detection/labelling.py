"""What a detector found as labels of a data set, for the tool in which people correct it.

The formats are imported when labels are asked for: a prediction without them starts sooner.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.errors import WriteError
from maskwright.reports.result import ImageResult

from .result import Result

if TYPE_CHECKING:
    from maskwright.data.records import Dataset

STRAY = 0.75  # pixels: smooths the stairs of pixels, and keeps small objects


def written_formats() -> tuple[str, ...]:
    """Return the formats of objects that are written, by the words of the option `formats`."""
    from maskwright.data.formats.table import TABLE

    return tuple(row.format for row in TABLE if row.write and row.records == "objects")


class Labels:
    """Collects results, and writes them as one data set in some formats; warns of what is lost.

    Args:
        formats: some of `written_formats`.
        polygons: pixels by which polygons may stray from the masks that they stand for; None:
            `STRAY` for tools in which people move corners, masks in other formats.
    """

    def __init__(self, formats: Sequence[str], polygons: float | None = None) -> None:
        self.formats = formats
        self.polygons = polygons
        if polygons is not None:
            from maskwright.data.rewriting.outlines import checked_tolerance

            self.polygons = checked_tolerance(polygons)
        self._without = 0  # images that are no files
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._joints: dict[str, Any] = {}

    def add(self, result: ImageResult) -> None:
        """Take over a result; one of an image without a file is counted, labels need one."""
        assert isinstance(result, Result)
        if result.path is None or not Path(result.path).is_file():
            self._without += 1
            return
        self._names = result.names
        number = len(self._images) + 1
        height, width = result.size
        path = str(Path(result.path).absolute())
        self._images.append({"id": number, "file_name": path, "height": height, "width": width})
        if result.skeleton is not None:
            bones = [[a + 1, b + 1] for a, b in result.skeleton.bones]
            self._joints = {"keypoints": list(result.skeleton.names), "skeleton": bones}
        labels = result.labels.tolist()
        for row, label in zip(result.to_coco(number), labels, strict=True):
            entry = {"id": len(self._objects) + 1, **row, "category_id": label + 1, "iscrowd": 0}
            del entry["score"]  # no label has one; those of the finds are in the JSON of the image
            if isinstance(code := entry.get("segmentation"), dict):
                counts = code["counts"]
                text = counts.decode("ascii") if isinstance(counts, bytes) else counts
                entry["segmentation"] = {"size": list(code["size"]), "counts": text}
            if (points := entry.get("keypoints")) is not None:  # their scores become "seen"
                seen = [2 if k % 3 == 2 else value for k, value in enumerate(points)]
                entry["keypoints"] = seen
            self._objects.append(entry)

    def write(self, folder: Path) -> list[Path]:
        """Write what was taken, each format into a folder of its name, and return these.

        Raises:
            WriteError: if it cannot be written; see `data.write_dataset`.
        """
        from maskwright.data.formats.geo.frames import frame_of
        from maskwright.data.formats.lost import WORDS
        from maskwright.data.formats.table import TABLE
        from maskwright.data.formats.writing import lost_in, write_dataset
        from maskwright.data.rewriting.outlines import as_polygons

        if self._without:
            warnings.warn(
                f"{self._without} image(s) are no files, so formats={','.join(self.formats)} has "
                "no labels of them: save them as files first",
                stacklevel=2,
            )
        if not self._images:
            return []
        root = Path(os.path.commonpath([Path(one["file_name"]).parent for one in self._images]))
        images = [
            {**one, "file_name": Path(one["file_name"]).relative_to(root).as_posix()}
            for one in self._images
        ]
        categories = [
            {"id": number, "name": name, **self._joints}
            for number, name in enumerate(self._names, 1)
        ]
        content = {"images": images, "categories": categories}
        rows = {row.format: row for row in TABLE if row.write and row.format in self.formats}
        written = []
        data = upside_down = _read(content, self._objects, root)
        if any("overlaps" not in row.keeps for row in rows.values()):
            # Of objects that share a pixel such a format keeps the last: the most certain is to be.
            upside_down = _read(content, self._objects[::-1], root)
        for format, row in rows.items():
            stray = STRAY if self.polygons is None and row.edited else self.polygons
            own, lost = data if "overlaps" in row.keeps else upside_down, {}
            if stray is not None and row.outlined:
                own, traced = as_polygons(own, stray)
                lost = traced.lost(stray)
            if format == "geo" and (
                flat := sum(frame_of(Path(file)) is None for file in data.files())
            ):
                warnings.warn(
                    f"formats=geo: {flat} image(s) are no GeoTIFF, so that their coordinates are "
                    "pixels, from the top left corner",
                    stacklevel=2,
                )
            lost |= lost_in(own, format)
            lost.pop(WORDS["own boxes"], None)  # a network's boxes; those are in the JSON
            if shared := lost.pop(WORDS["overlaps"], 0):
                lost["objects that share pixels: a pixel belongs to the most certain"] = shared
            for what, count in lost.items():
                warnings.warn(f"formats={format}: {count} {what}", stacklevel=2)
            try:
                write_dataset(own, folder / format, format)
            except WriteError:
                raise
            except ValueError as error:
                raise ValueError(f"formats={format}: {error}") from None
            written.append(folder / format)
        return written


def _read(content: dict[str, Any], objects: list[dict[str, Any]], root: Path) -> Dataset:
    """Return images and objects, as COCO JSON has them, as a data set."""
    from maskwright.data.formats.coco.read import read_coco

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "labels.json"
        file.write_text(json.dumps({**content, "annotations": objects}), encoding="utf-8")
        return read_coco(file, [root])
