"""Reader of YOLO's text files: a line for each object, its class number and fractions of the image.

    class cx cy w h                      a box
    class x1 y1 x2 y2 x3 y3 ...          a polygon; of four points, perhaps an oriented box
    class cx cy w h x1 y1 v1 x2 y2 ...   a box and keypoints, where `data.yaml` has `kpt_shape`

An oriented box is read as the polygon of its corners, so that a task of boxes takes its extent and
one of masks its area. Pixels are told from fractions to 1e-5 of a pixel. One number more than a
line needs, a confidence or the number of a track, is passed over and listed.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskwright.structures import Skeleton

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.objects import shown, written_number
from ...pixels.images import image_header
from ...records import Dataset
from ...segments import BadSegment
from ..folders import Tree, is_file, read_lines
from ..sniff import sniff
from .layout import LABELS, NO_LABELS, Keypoints, images_of, joint_names, labels_of

STEP = 5  # decimals of a pixel
MOST = 2.0  # fractions beyond are pixels
FEWEST = 5  # numbers of a line
MOST_ODD = 1000  # polygons with a number too much, that are kept apart


class YoloReader(AnnotatedReader):
    """State of reading one split."""

    def __init__(self, path: Path, split: str, keypoints: Keypoints | None) -> None:
        super().__init__(path, split, "yolo", pixels=False)
        self.keypoints = keypoints
        self.units = Counter[bool]()  # objects by whether they are certainly in pixels
        self.first: dict[str, tuple[int, str]] = {}  # kind of line: how many, where the first is
        self.polygons = 0
        self.odd: list[tuple[Path, str, dict[str, Any]]] = []  # of them, with an odd count
        self.cut: set[tuple[Path, str]] = set()  # of these, lines that are cut off

    def dataset(
        self,
        places: Sequence[Path],
        base: Path,
        listed: Mapping[int, str] | None,
        names: Sequence[str] | None,
    ) -> Dataset:
        """Return the data set.

        Args:
            places: folders of its images, or lists of them.
            base: what the paths in a list are relative to.
            listed: the class names by number; None: not known.
            names: see `discover.open_dataset`.

        Raises:
            ValueError: if no image is usable, or the lines are not of YOLO's kind.
        """
        images = list(images_of(places, Tree(), base))
        if not images:
            where = ", ".join(map(str, places))
            raise ValueError(f"{self.path}: no image in {where} for the {self.split} split")
        root = Path(os.path.commonpath([image.parent for image in images]))
        self._missing(images)
        if listed is None:
            self.fault(
                "classes without names",
                f"{self.path}: the classes have numbers only: write their names into classes.txt "
                "beside the labels, one a line, or into data.yaml",
                "kept",
            )
        joints = self.keypoints
        skeleton = None if joints is None else Skeleton(joint_names(joints))
        return self.read(lambda: self._scan(images, root), [root], listed, names, skeleton)

    def surveyed(self) -> None:
        """Refuse pixels, and keypoints that nothing announces; list numbers that are passed over.

        Raises:
            ValueError: if the labels are no fractions, or have keypoints that nothing announces.
        """
        if self.units[True] > self.units[False]:
            raise ValueError(
                f"{self.first['pixels'][1]}: {self.units[True]} of {self.units.total()} objects "
                "have coordinates beyond 2, which seem to be pixels: divide x by the width of the "
                "image and y by its height"
            )
        if len(self.odd) < MOST_ODD and 2 * len(self.odd) <= self.polygons:
            for file, place, entry in self.odd:
                self.cut.add((file, place))
                entry.clear()
                entry["bbox"] = _cut_off()
            self.odd.clear()
        for file, place, _ in self.odd:
            self._count("trailing", f"{file}, {place}")
        for kind, (count, where) in self.first.items():
            if kind == "pose" and count == self.units.total():
                raise ValueError(
                    f"{where}: every line has a box and triples of x, y and visibility: write the "
                    "number of keypoints into data.yaml, as in kpt_shape: [17, 3]"
                )
            if kind == "trailing":
                self.fault(
                    "number beyond a line",
                    f"{where}: {count} line(s) have one number more than they need, a confidence "
                    "or the number of a track: it is not read",
                    "repaired",
                )

    def _missing(self, images: Sequence[Path]) -> None:
        """List images without labels, and labels without an image."""
        files = {labels_of(image) for image in images}
        without = [image for image in images if not is_file(labels_of(image))]
        if without:
            self.fault(
                "image without a file of labels",
                f"{len(without)} of {len(images)} image(s) have no file of labels and are read as "
                f"images without objects, first {without[0]} (looked for {labels_of(without[0])})",
                "kept",
            )
        tree, lost = Tree(), []
        folders = dict.fromkeys(image.parent for image in images)
        stems = {image.stem for folder in folders for image in tree.images(folder)}
        for folder in dict.fromkeys(file.parent for file in files):
            for file in tree.files(folder, ".txt"):
                alone = file not in files and file.name.lower() not in NO_LABELS
                if alone and file.stem not in stems and sniff(file) == LABELS:
                    lost.append(file)
        if lost:
            self.fault(
                "labels without an image",
                f"{len(lost)} file(s) of labels have no image of their name in the {self.split} "
                f"split, first {lost[0]}: was the image renamed or left behind?",
                file=lost[0],
            )

    def _scan(self, images: Sequence[Path], root: Path) -> Iterator[Picture]:
        self.units.clear()
        self.first.clear()
        self.odd.clear()
        self.polygons = 0
        for image in images:
            file = labels_of(image)
            picture = Picture(file, image.relative_to(root).as_posix())
            if is_file(file):
                try:
                    lines = read_lines(file)
                except ValueError as error:
                    picture.broken = "unreadable labels", str(error)
                    lines = []
                with contextlib.suppress(ValueError):  # the builder tells
                    picture.size = image_header(image).size
                seen: set[str] = set()
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        self._line(picture, number, line.strip(), seen)
            else:
                with contextlib.suppress(ValueError):
                    picture.size = image_header(image).size
            yield picture

    def _line(self, picture: Picture, number: int, line: str, seen: set[str]) -> None:
        place = f"line {number}"
        if line in seen:
            message = f"{picture.file}, {place}: the same line stands above: read once"
            picture.notes.append(("duplicate object", message, "left out"))
            return
        seen.add(line)
        words = line.split()
        key = _class(words[0])
        shape = Shape(key, place, {})
        picture.shapes.append(shape)
        try:
            values = [written_number(word) for word in words[1:]]
            if words[-1].endswith(".") and not any(word.endswith(".") for word in words[:-1]):
                raise BadSegment("bad line", f"its last number, {words[-1]}, is cut off")
            if key is None:
                raise BadSegment("bad line", f"a class is a whole number, got {shown(words[0])}")
            far = max(values, default=0.0) > MOST
            self.units[far] += 1
            if far:
                self._count("pixels", f"{picture.file}, {place}")
                message = f"{shown(line)} has coordinates beyond 2, which are no fractions: divide "
                raise BadSegment("no fractions", message + "by the size of the image")
            self._fill(shape.entry, values, picture, place)
        except BadSegment as bad:
            shape.entry["bbox"] = bad

    def _count(self, kind: str, where: str) -> None:
        count, first = self.first.get(kind, (0, where))
        self.first[kind] = count + 1, first

    def _fill(
        self, entry: dict[str, Any], values: list[float], picture: Picture, place: str
    ) -> None:
        """Take over the numbers behind the class.

        Raises:
            BadSegment: if there are too few, or not as many as keypoints need.
        """
        height, width = picture.size or (1, 1)
        joints, count = self.keypoints, len(values)
        posed = 4 if joints is None else 4 + joints.count * joints.numbers
        if joints is not None and count in (posed, posed + 1):
            entry["keypoints"] = _joints(values[4:posed], joints.numbers, width, height)
        elif joints is not None and count not in (4, 5):
            raise BadSegment(
                "bad line",
                f"the line has {count + 1} numbers; with kpt_shape: [{joints.count}, "
                f"{joints.numbers}] it needs {posed + 1}",
            )
        elif count < 4:
            message = f"the line has {count + 1} number(s), and a box needs {FEWEST}"
            raise BadSegment("bad line", message)
        elif count > FEWEST:
            x, y, w, h = values[:4]
            inside = min(x - w / 2, y - h / 2) > -0.01 and max(x + w / 2, y + h / 2) < 1.01
            if inside and count % 3 == 1 and all(value in (0, 1, 2) for value in values[6::3]):
                self._count("pose", f"{picture.file}, {place}")
            even = values[: count - count % 2]
            self.polygons += 1
            if (picture.file, place) in self.cut:
                raise _cut_off()
            if count % 2 and len(self.odd) < MOST_ODD:
                self.odd.append((picture.file, place, entry))
            sides = (width, height)
            entry["segmentation"] = [
                [round(value * sides[k % 2], STEP) for k, value in enumerate(even)]
            ]
            return
        if count in (5, posed + 1):
            self._count("trailing", f"{picture.file}, {place}")
        x, y, w, h = values[:4]
        left, top = round((x - w / 2) * width, STEP), round((y - h / 2) * height, STEP)
        right, bottom = round((x + w / 2) * width, STEP), round((y + h / 2) * height, STEP)
        entry["bbox"] = [left, top, right - left, bottom - top]


def _cut_off() -> BadSegment:
    """Return what is wrong with a polygon that has an odd count of numbers, where most have not."""
    message = "the polygon has an odd count of numbers, unlike most: is the line cut off?"
    return BadSegment("bad line", message)


def _class(word: str) -> int | None:
    """Return a class number, also of 3.0 as some tools write it; None for anything else."""
    word = word.removesuffix(".0")
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 10 else None


def _joints(values: Sequence[float], numbers: int, width: int, height: int) -> list[float]:
    """Return x, y in pixels and visibility; without one, a keypoint at 0, 0 is not labelled."""
    found: list[float] = []
    for k in range(0, len(values), numbers):
        x, y = values[k : k + 2]
        seen = values[k + 2] if numbers == 3 else 2.0 * ((x, y) != (0, 0))
        found += [round(x * width, STEP), round(y * height, STEP), seen]
    return found
