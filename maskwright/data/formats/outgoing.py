"""What all writers for labelling tools share: objects as they go out, copies of images, names."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from maskwright.files import replacing, write_whole, writing
from maskwright.ops.outlines import Part, trace_parts
from maskwright.ops.rle import Crop, Frame, rasterise_polygons

from ..pixels.images import image_header
from ..records import ANY_CLASS, Dataset, Record
from .beside import JOINT_FILE
from .folders import read_lines

JPEG, EXIF, ORIENTATION = b"\xff\xd8", b"Exif\0\0", 0x0112
NEAREST = 4_000_000  # pairs of points that are compared to find the shortest line


@dataclass(frozen=True)
class Outgoing:
    """One object on its way out.

    Attributes:
        dataset, index, k: where it comes from.
        size: (height, width) of the image.
        label: its class; `ANY_CLASS` for an ignored region of unknown class.
        box: xyxy in original pixels, as annotated.
        crowd: it counts neither as an object nor as background.
        ignored: of these, an area in which nothing is scored.
        keypoints: (J, 3) or None.
    """

    dataset: Dataset
    index: int
    k: int
    size: tuple[int, int]
    label: int
    box: tuple[float, float, float, float]
    crowd: bool
    ignored: bool
    keypoints: np.ndarray | None

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.dataset.names[self.label]

    @property
    def polygons(self) -> list[np.ndarray] | None:
        """Its polygons (n, 2), without holes; None where it has none."""
        return self.dataset.polygons(self.index, self.k)

    def joints(self) -> list[tuple[str, float, float, int]]:
        """Return name, x, y and visibility of its labelled keypoints; [] where it has none."""
        if self.keypoints is None or self.dataset.skeleton is None:
            return []
        named = zip(self.dataset.skeleton.names, self.keypoints.tolist(), strict=True)
        return [(name, x, y, int(seen)) for name, (x, y, seen) in named if seen]

    def mask(self) -> tuple[Crop, Frame]:
        """Return its mask, see `Dataset.mask`."""
        return self.dataset.mask(self.index, self.k)

    def parts(self) -> list[Part]:
        """Return its polygons, or the outlines of its mask to the pixel; [] without a mask."""
        polygons = self.polygons
        if polygons is not None:
            return [Part(points) for points in polygons]
        return trace_parts(*self.mask())

    def polygon(self) -> np.ndarray | None:
        """Return its mask as one polygon (n, 2), see `joined`; None without a mask."""
        parts = self.parts()
        if not parts:
            return None
        points = joined(parts)
        if len(parts) > 1 and self.polygons is not None:
            crop, frame = self.mask()
            again, place = rasterise_polygons([points.ravel().tolist()], self.size)
            if frame != place or not np.array_equal(crop, again):  # they overlap
                points = joined(trace_parts(crop, frame))
        return points


def outgoing(dataset: Dataset, index: int, record: Record) -> list[Outgoing]:
    """Return the objects of an image."""
    boxes = dataset.annotated_boxes(index).tolist()
    joints = record.keypoints
    return [
        Outgoing(
            dataset,
            index,
            k,
            record.size,
            int(record.labels[k]),
            (box[0], box[1], box[2], box[3]),
            bool(record.crowd[k]),
            bool(record.ignored[k]),
            joints[k] if joints is not None and (joints[k][:, 2] > 0).any() else None,
        )
        for k, box in enumerate(boxes)
    ]


def sized(dataset: Dataset, index: int) -> Record:
    """Return an image with its size.

    Raises:
        ValueError: if it is stored inside another file, so that there is none to copy.
    """
    record = dataset[index]
    if record.stored:
        raise ValueError(f"{record.path} is no file: labels are written beside copies of files")
    return record


@contextmanager
def one_file(file: Path, root: Path, images: Path) -> Iterator[TextIO]:
    """Give the text of the one file that a split has, there when all is written; see `replacing`.

    Args:
        file: the file.
        root: the data set.
        images: folder of the copies of its images, which is made.
    """
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        with (
            replacing(file) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            yield stream


def write_list(stream: TextIO, entries: Iterable[Any]) -> None:
    """Write a list of JSON, an entry a line, one after the other."""
    between = "[\n"
    for entry in entries:
        stream.write(between + json.dumps(entry))
        between = ",\n"
    stream.write("]" if between == ",\n" else "[]")


class Names:
    """Names of files in a folder, each taken once, in any case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, file: Path) -> str:
        """Return a name without suffix that is not taken yet: its own, or that with a number."""
        stem, number = file.stem, 0
        while stem.casefold() in self._taken:
            number += 1
            stem = f"{file.stem}_{number}"
        self._taken.add(stem.casefold())
        return stem


def copy_image(record: Record, folder: Path, stem: str) -> Path:
    """Copy an image into a folder under another name, and return the copy; see `image_bytes`."""
    target = folder / f"{stem}{record.path.suffix}"
    target.write_bytes(image_bytes(record))
    return target


def image_bytes(record: Record) -> bytes:
    """Return the file of an image as it is written beside its annotations.

    What was annotated as it is stored, whatever its EXIF orientation, comes without one: other
    programs do not know which of the two was meant.

    Raises:
        ValueError: if it has another size than the annotations say.
    """
    data = record.path.read_bytes()
    header = image_header(record.path)
    if record.size in ((0, 0), header.size):
        return data
    if record.size != header.stored:
        there, said = (f"{size[1]} x {size[0]}" for size in (header.size, record.size))
        raise ValueError(
            f"{record.path} has {there} pixels, but was annotated with {said}: what is written "
            "would lie elsewhere; correct the size in the annotations, or fetch the image again"
        )
    turned = bytearray(data)
    if not _set_upright(turned):
        raise ValueError(
            f"{record.path} is annotated without its EXIF orientation, which only a JPEG can lose "
            "here: save it without one"
        )
    return bytes(turned)


def _set_upright(data: bytearray) -> bool:
    """Set the EXIF orientation of a JPEG to 1, in place; False where there is none to set."""
    start = data.find(EXIF, 0, 2**16) + len(EXIF)
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[start : start + 2]))
    if data[:2] != JPEG or start < len(EXIF) or order is None:
        return False
    try:
        first = start + int(struct.unpack_from(f"{order}I", data, start + 4)[0])
        (count,) = struct.unpack_from(f"{order}H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, entry)[0] == ORIENTATION:
                struct.pack_into(f"{order}H", data, entry + 8, 1)
                return True
    except struct.error:  # its EXIF block is cut off
        pass
    return False


def objects_of(dataset: Dataset) -> Iterator[tuple[Record, list[Outgoing]]]:
    """Yield each image with its objects; ignored regions among them.

    Raises:
        ValueError: if the images have label maps or labels of their own instead.
    """
    if dataset.records != "objects":
        raise ValueError(
            f"{dataset.source} is open with records={dataset.records!r}: this format holds objects"
        )
    for index in range(len(dataset)):
        record = sized(dataset, index)
        yield record, outgoing(dataset, index, record)


def joined(parts: Sequence[Part]) -> np.ndarray:
    """Return parts and holes as one polygon (n, 2), joined by lines that are walked twice.

    Such lines enclose nothing, so that filling by crossings (COCO, Pillow) gives the same mask.
    Each ring joins the rings before it where they come nearest.
    """
    rings = [ring for part in parts for ring in (part.outline, *part.holes)]
    points = rings[0]
    for ring in rings[1:]:
        a, b = 0, 0
        if len(points) * len(ring) < NEAREST:
            away = ((points[:, None] - ring[None]) ** 2).sum(-1)
            a, b = divmod(int(away.argmin()), len(ring))
        turned = np.concatenate([ring[b:], ring[: b + 1]])
        points = np.concatenate([points[: a + 1], turned, points[a:]])
    return points


def class_file(dataset: Dataset, file: Path, heading: str = "") -> None:
    """Write the class names, one a line, unless the file says them already.

    Args:
        dataset: has them.
        file: where to.
        heading: a line that is no class, before them.

    Raises:
        ValueError: if a name cannot stand in a line, or the file names other classes.
    """
    for name in dataset.names:
        if name != " ".join(name.split()) or not name.isprintable() or not name:
            raise ValueError(
                f"the class name {name!r} cannot stand in a line of {file}: rename the class in "
                f"{dataset.source}"
            )
    lines = [heading, *dataset.names] if heading else dataset.names
    if file.exists() and [line for line in read_lines(file) if line] != lines:
        raise ValueError(f"{file} names other classes than {dataset.source}: choose another folder")
    write_whole(file, "".join(f"{line}\n" for line in lines))


def joint_file(dataset: Dataset, folder: Path) -> None:
    """Write the names of the keypoints, one a line, beside labels that have no order of them.

    Raises:
        ValueError: if the file names others.
    """
    names = () if dataset.skeleton is None else dataset.skeleton.names
    file = folder / JOINT_FILE
    if file.exists() and read_lines(file) != list(names):
        raise ValueError(
            f"{file} names other keypoints than {dataset.source}: choose another folder"
        )
    if names:
        write_whole(file, "".join(f"{name}\n" for name in names))


def is_object(one: Outgoing) -> bool:
    """Return True for an object, False for a region that counts neither way."""
    return not one.crowd and one.label != ANY_CLASS


def refuse_written(path: Path, dataset: Dataset) -> None:
    """Raise ValueError if a split of this name is in the folder already: `path` is part of it."""
    if path.exists():
        raise ValueError(f"{path} exists: the folder has a split {dataset.split!r} already")
