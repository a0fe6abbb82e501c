"""DOTA's labels (Xia et al. 2018): a text file for each image, a line of four corners an object.

    x1 y1 x2 y2 x3 y3 x4 y4 class difficult

Lines above them tell the source and the ground resolution of the image and are not read. The
corners, in pixels, are read as a polygon, so that what finds boxes takes its extent. Objects that
are marked difficult count neither way, as those of Pascal VOC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.objects import written_number
from ...records import Dataset
from ...segments import BadSegment
from ..beside import FilesSource, listed_names, size_of
from ..folders import IMAGE_FOLDERS, Tree, folder_split, read_lines
from ..sniff import DOTA, DOTA_HEADINGS, sniff
from ..source import ReadOptions

FORMAT = "dota"
LABELS = ("labelTxt", *(f"labelTxt-v{version}" for version in ("1.0", "1.5", "2.0")), "annfiles")
SAMPLE = 20  # files of which one tells
CORNERS = 8  # numbers


@dataclass(frozen=True, kw_only=True)
class DotaSource(FilesSource):
    """Where one split lies: files of labels.

    Attributes:
        images: the folder of the images.
    """

    images: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, FORMAT)
        listed = listed_names(self.root, ())
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(
            lambda: reader.pictures(self.images, self.files, options.difficult),
            [self.images],
            by_name,
            names,
        )


def find_dota(tree: Tree, path: Path) -> dict[str, DotaSource]:
    """Return the splits of a folder with labels of DOTA, {} for others.

    Raises:
        ValueError: if two folders are of one split.
    """
    found: dict[str, DotaSource] = {}
    for base in (path, *tree.folders(path)):
        for labels in tree.named(base, LABELS):
            images = next(iter(tree.named(base, IMAGE_FOLDERS)), None)
            files = tree.files(labels, ".txt")
            if images is None or not any(sniff(file) == DOTA for file in files[:SAMPLE]):
                continue
            split = folder_split(base) or "train"
            if split in found:
                raise ValueError(
                    f"{found[split].folder} and {labels} are both of the {split} split: leave one"
                )
            found[split] = DotaSource(root=path, files=tuple(files), folder=labels, images=images)
    return found


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(self, folder: Path, files: Sequence[Path], difficult: bool) -> Iterator[Picture]:
        """Yield the images of files of labels."""
        images = {image.stem: image for image in Tree().images(folder)}
        for file in files:
            image = images.get(file.stem)
            picture = Picture(file, f"{file.stem}.png" if image is None else image.name)
            try:
                if image is not None:
                    picture.size = size_of(image)
                for number, line in enumerate(read_lines(file), 1):
                    words = line.split()
                    if words and not words[0].lower().startswith(DOTA_HEADINGS):
                        picture.shapes.append(_shape(words, f"line {number}", difficult))
            except ValueError as error:
                picture.broken = "unreadable labels", str(error)
            yield picture


def _shape(words: Sequence[str], place: str, difficult: bool) -> Shape:
    """Return the object of a line."""
    found = Shape(words[CORNERS] if len(words) > CORNERS else None, place, {})
    marked = len(words) > CORNERS + 1 and words[CORNERS + 1] != "0"
    if marked and not difficult:
        found.entry.update(iscrowd=1, ignore=1)
    try:
        found.entry["segmentation"] = [_corners(words)]
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _corners(words: Sequence[str]) -> list[Any]:
    """Return the corners of a line as a flat polygon.

    Raises:
        BadSegment: if it has none.
    """
    if len(words) not in (CORNERS + 1, CORNERS + 2):
        raise BadSegment(
            "bad line",
            f"a line has {CORNERS} numbers, a class and 0 or 1, got {len(words)} words: names have "
            "no blanks",
        )
    return [written_number(word) for word in words[:CORNERS]]
