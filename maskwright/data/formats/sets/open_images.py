"""Open Images' tables of boxes (Kuznetsova et al. 2020), in fractions of the image.

`IsGroupOf` marks a region of many objects. Which classes an image was looked through for stands in
the table of image labels: those it does not show (`Confidence` 0), and those that have boxes; what
is found of any other class is neither right nor wrong. Without that table all classes are taken to
have been looked for. Names of the classes stand in class-descriptions-boxable.csv. Images that are
not on the disk are passed over, for few people fetch all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.files import replacing, write_whole, writing
from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.objects import finite_number, flag, shown
from ...pixels.images import image_header
from ...records import Dataset
from ...segments import BadSegment
from ..beside import image_roots
from ..folders import ANNOTATION_FOLDERS, Tree, folder_split, split_name
from ..outgoing import Names, copy_image, is_object, objects_of, refuse_written
from ..source import BaseSource, ReadOptions
from ..tables.text import HEADER_BYTES, table_text

BOXES = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
SIDES = BOXES[2:]
LABELS = ("ImageID", "LabelName", "Confidence")
GROUP = "IsGroupOf"
FLAGS = ("IsOccluded", "IsTruncated", GROUP, "IsDepiction", "IsInside")
DESCRIPTIONS = "class-descriptions-boxable.csv"
PLACES = (*ANNOTATION_FOLDERS, "csv_folder", "boxes", "metadata")
BEYOND = 2.0  # a fraction that is none


@dataclass(frozen=True)
class OpenImagesSource(BaseSource):
    """Where one split lies: a table of boxes.

    Attributes:
        annotations: the table.
        labels: the table of image labels; None: there is none.
        descriptions: the names of the classes; None: the table has them.
    """

    annotations: Path
    labels: Path | None = None
    descriptions: Path | None = None

    @property
    def beside(self) -> tuple[Path, ...]:
        """The other tables."""
        return tuple(one for one in (self.labels, self.descriptions) if one is not None)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "openimages", pixels=False)
        return reader.dataset(self, names)


def find_open_images(tree: Tree, path: Path) -> dict[str, OpenImagesSource]:
    """Return the splits of a folder with Open Images' tables of boxes, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    splits = [one for one in tree.folders(path) if folder_split(one)]
    bases = (path, *splits)
    places = [place for base in bases for place in (base, *tree.named(base, PLACES))]
    tables = [file for place in places for file in tree.files(place, ".csv")]
    return _sources(tables, path)


def open_images_file(path: Path) -> dict[str, OpenImagesSource]:
    """Return the split of a single file, {} for others."""
    if path.suffix.lower() != ".csv" or not _has(path, BOXES):
        return {}
    others = Tree().files(path.parent, ".csv")
    split = _split(path, path.parent) or "train"
    same = [one for one in others if one == path or not _has(one, BOXES)]
    return {split: _sources(same, path.parent).get(split, OpenImagesSource(path))}


def _sources(tables: Sequence[Path], root: Path) -> dict[str, OpenImagesSource]:
    boxes = [file for file in tables if _has(file, BOXES)]
    if not boxes:
        return {}
    labels: dict[str, Path] = {}
    for file in tables:
        if file not in boxes and _has(file, LABELS):
            labels.setdefault(_split(file, root) or "train", file)
    names = [one for one in tables if "descriptions" in one.stem or one.stem == "classes"]
    found: dict[str, OpenImagesSource] = {}
    for file in boxes:
        split = _split(file, root) or "train"
        if split in found:
            raise ValueError(
                f"{found[split].annotations} and {file} are both of the {split} split: leave one"
            )
        own = [one for one in names if one.parent == file.parent]
        found[split] = OpenImagesSource(file, labels.get(split), next(iter((*own, *names)), None))
    return found


def _split(file: Path, root: Path) -> str | None:
    """Return the split that the name of a table tells, or the folder in which it lies."""
    inner = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    told = [split for part in inner if (split := folder_split(Path(part)))]
    return split_name(file.stem) or next(iter(told), None)


def _has(file: Path, columns: Sequence[str]) -> bool:
    """Return whether the first line of a table names these columns."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(HEADER_BYTES).decode("utf-8-sig", errors="replace")
        words = next(csv.reader([line]), [])
    except (OSError, csv.Error):
        return False
    return set(columns) <= {word.strip() for word in words}


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a table with their numbers.

    Raises:
        ValueError: if it cannot be read, or lacks a column.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            given = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in columns if name not in given]:
                raise ValueError(f"{file} has no column {', '.join(missing)}: it has {given[:20]}")
            reader.fieldnames = given
            for row in reader:
                yield reader.line_num, {key: value or "" for key, value in row.items() if key}
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}): save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{file} is no table: {error}: it may be cut off") from None


@dataclass
class _Image:
    """An image that is there: its path below the root, its rows, classes that it does not show."""

    name: str
    root: Path
    rows: list[tuple[int, str, tuple[str, ...], bool]] = field(default_factory=list)
    without: set[str] = field(default_factory=set)


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def dataset(self, source: OpenImagesSource, names: Sequence[str] | None) -> Dataset:
        """Return the data set."""
        roots = image_roots(self.path, self.split)
        if self.path.parent.name.lower() in PLACES:  # csv_folder/
            roots += image_roots(self.path.parent, self.split)
        images = self._found(roots)
        titles = _titles(source.descriptions)
        absent = self._fill(images)
        if source.labels is not None:
            for _, row in _rows(source.labels, LABELS):
                image = images.get(row["ImageID"])
                if image is not None and finite_of(row["Confidence"]) == 0:
                    image.without.add(row["LabelName"])
        used = {key: one for key, one in images.items() if one.rows or one.without}
        if absent:
            message = (
                f"{self.path} has boxes in {len(absent)} image(s) that are not there, the first: "
                f"{next(iter(absent))!r}"
            )
            self.fault("missing image", message)
        listed = titles or None
        whole = source.labels is None
        checked = None if whole else {key: one.without for key, one in used.items()}
        root = next((one.root for one in used.values()), roots[0])
        return self.read(lambda: self._pictures(used, checked), [root, *roots], listed, names)

    def _found(self, roots: Sequence[Path]) -> dict[str, _Image]:
        """Return the image files by their name without suffix."""
        tree = Tree()
        found: dict[str, _Image] = {}
        for root in roots:
            for image in tree.images(root):
                found.setdefault(image.stem, _Image(image.name, root))
        return found

    def _fill(self, images: Mapping[str, _Image]) -> dict[str, None]:
        """Give the images their rows; return those that are not there."""
        absent: dict[str, None] = {}
        for line, row in _rows(self.path, BOXES):
            image = images.get(row["ImageID"])
            if image is None:
                absent[row["ImageID"]] = None
                continue
            sides = tuple(row[side] for side in SIDES)
            for name in FLAGS:
                if name != GROUP and flag(row.get(name)):
                    self.leave(f"the flag {name}")
            image.rows.append((line, row["LabelName"], sides, bool(flag(row.get(GROUP)))))
        return absent

    def _pictures(
        self, images: Mapping[str, _Image], checked: Mapping[str, set[str]] | None
    ) -> Iterator[Picture]:
        for key, image in images.items():
            picture = Picture(self.path, image.name)
            try:
                picture.size = image_header(image.root / image.name).size
            except ValueError:  # the builder tells
                yield picture
                continue
            for line, label, sides, group in image.rows:
                found = Shape(label.strip() or None, f"line {line}", {"iscrowd": int(group)})
                try:
                    found.entry["bbox"] = _box(sides, picture.size)
                except BadSegment as bad:
                    found.entry["bbox"] = bad
                picture.shapes.append(found)
            if checked is not None:
                picture.checked = {*checked[key], *(label for _, label, _, _ in image.rows)}
            yield picture


def finite_of(text: str) -> float | None:
    """Return the number that a text is, None for others."""
    try:
        return finite_number(float(text))
    except ValueError:
        return None


def _box(sides: Sequence[str], size: tuple[int, int]) -> list[float]:
    """Return a box xywh in pixels.

    Raises:
        BadSegment: if its sides are no fractions.
    """
    numbers = [finite_of(side) for side in sides]
    if None in numbers:
        raise BadSegment(
            "bad box", f"XMin, XMax, YMin, YMax must be finite numbers, got {shown(sides)}"
        )
    x1, x2, y1, y2 = (number for number in numbers if number is not None)
    if max(map(abs, (x1, x2, y1, y2))) > BEYOND:
        raise BadSegment(
            "no fractions",
            f"XMin, XMax, YMin, YMax are fractions of the image, got {shown(sides)}: divide by its "
            "size",
        )
    height, width = size
    return [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]


def _titles(file: Path | None) -> dict[str, str]:
    """Return the name of each class by its code.

    Raises:
        ValueError: if the table cannot be read.
    """
    found: dict[str, str] = {}
    if file is None:
        return found
    for number, row in enumerate(csv.reader(io.StringIO(table_text(file), newline="")), 1):
        if not any(row) or row[:2] == ["LabelName", "DisplayName"]:
            continue
        if len(row) != 2 or not all(row):
            raise ValueError(f"{file}, line {number}: expected a code and a name, got {row[:5]}")
        found[row[0].strip()] = row[1].strip()
    return found


@takes_paths
def write_open_images(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as Open Images' tables, with copies of the images.

    Codes of the classes are their names. Regions of many objects get IsGroupOf 1; those that are
    ignored are left out. The table of image labels tells for each class whether it is there.

    Args:
        dataset: the images and objects; masks and keypoints are not written.
        folder: where SPLIT-annotations-bbox.csv, SPLIT-annotations-human-imagelabels-boxable.csv,
            class-descriptions-boxable.csv and SPLIT/ go, validation for val; other splits may be
            there already.

    Returns:
        The table of boxes.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    split = "validation" if dataset.split == "val" else dataset.split
    file, images = root / f"{split}-annotations-bbox.csv", root / split
    listing = root / DESCRIPTIONS
    refuse_written(file, dataset)
    described = _csv([[name, name] for name in dataset.names])
    if listing.exists() and table_text(listing) != described:
        raise ValueError(
            f"{listing} has other classes than {dataset.source}: choose another folder"
        )
    names = Names()
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        write_whole(listing, described)
        beside = root / f"{split}-annotations-human-imagelabels-boxable.csv"
        with (
            replacing(file) as temporary,
            replacing(beside) as other,
            temporary.open("w", encoding="utf-8", newline="") as boxes,
            other.open("w", encoding="utf-8", newline="") as labels,
        ):
            boxes.write(_csv([["ImageID", "Source", *BOXES[1:2], "Confidence", *SIDES, *FLAGS]]))
            labels.write(_csv([["ImageID", "Source", "LabelName", "Confidence"]]))
            for record, objects in objects_of(dataset):
                image = copy_image(record, images, names.free(record.path)).stem
                height, width = record.size
                there: set[int] = set()
                for one in objects:
                    if not is_object(one) and (one.ignored or one.label < 0):
                        continue
                    there.add(one.label)
                    x1, y1, x2, y2 = one.box
                    sides = [x1 / width, x2 / width, y1 / height, y2 / height]
                    marks = [int(word == GROUP and one.crowd) for word in FLAGS]
                    row: list[Any] = [image, "xclick", one.name, 1, *map(repr, sides), *marks]
                    boxes.write(_csv([row]))
                looked = range(len(dataset.names)) if record.checked is None else record.checked
                for label in sorted({*looked, *there}):
                    row = [image, "verification", dataset.names[label], int(label in there)]
                    labels.write(_csv([row]))
    return file


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
