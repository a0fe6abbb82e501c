"""CrowdHuman's odgt files (Shao et al. 2018): a line of JSON for each image, people by their boxes.

Of the three boxes of a person the one of the whole body (`fbox`) is read, cut off at the borders of
the image, beyond which it reaches by design. What is tagged `mask` (crowds, pictures of people)
counts neither way, whatever it shows, and so does what has `ignore` 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY
from ...building.objects import finite_number, flag, shown
from ...pixels.images import image_header
from ...pixels.kinds import image_suffixes
from ...records import ANY_CLASS, Dataset
from ...segments import LEAST, BadSegment
from ..beside import file_of_split, image_roots, listed_names
from ..folders import Tree, split_name
from ..outgoing import Names, class_file, copy_image, objects_of, one_file, refuse_written
from ..sniff import is_kind
from ..source import BaseSource, ReadOptions

KIND = "CrowdHuman odgt"
SUFFIX = ".odgt"
MASK = "mask"  # the tag of what is nobody
IMAGES = "Images"
LONGEST = 2**26  # characters of a line


@dataclass(frozen=True)
class CrowdHumanSource(BaseSource):
    """Where one split lies: an odgt file."""

    annotations: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "crowdhuman", pixels=False)
        roots = image_roots(self.annotations, split)
        listed = listed_names(self.annotations.parent, ())
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(lambda: reader.pictures(roots), roots, by_name, names)


def find_crowdhuman(tree: Tree, path: Path) -> dict[str, CrowdHumanSource]:
    """Return the splits of a folder with odgt files, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, SUFFIX, KIND)
    return {split: CrowdHumanSource(file) for split, file in files.items()}


def crowdhuman_file(path: Path) -> dict[str, CrowdHumanSource]:
    """Return the split of a single file, {} for others."""
    if not is_kind(path, SUFFIX, KIND):
        return {}
    return {split_name(path.stem) or "train": CrowdHumanSource(path)}


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(self, roots: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of the file, line by line."""
        self.others = 0  # people with boxes that are not read
        try:
            with self.path.open(encoding="utf-8-sig") as stream:
                for number in count(1):
                    line = stream.readline(LONGEST)
                    if not line:
                        return
                    if len(line) == LONGEST:
                        raise ValueError(
                            f"{self.path}:{number} has more than {LONGEST} characters: each image "
                            "is a line of its own"
                        )
                    if line.strip():
                        yield self._picture(line, number, roots)
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            message = f"{self.path} is no text in UTF-8 ({error}): save it as UTF-8"
            raise ValueError(message) from None

    def surveyed(self) -> None:
        """Say that of several boxes one is read."""
        if self.others:
            message = (
                f"{self.path}: of {self.others} objects the visible part (vbox) or the head (hbox) "
                "has a box as well: only that of the whole body (fbox) is read"
            )
            self.fault("other boxes", message, "kept")

    def _picture(self, line: str, number: int, roots: Sequence[Path]) -> Picture:
        picture = Picture(self.path, "")
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            picture.broken = (
                "unreadable labels",
                f"{self.path}:{number}: no valid JSON ({str(error)[:100]}): it may be cut off",
            )
            return picture
        name = content.get("ID") if isinstance(content, dict) else None
        boxes = content.get("gtboxes") if isinstance(content, dict) else None
        if not isinstance(name, str) or not name or not isinstance(boxes, list):
            picture.broken = (
                "bad image entry",
                f"{self.path}:{number}: an image needs a text 'ID' and a list 'gtboxes', got "
                f"{shown(content)}",
            )
            return picture
        picture.name, picture.size = _image(name.replace("\\", "/"), roots)
        for k, one in enumerate(boxes):
            entry = one if isinstance(one, dict) else {}
            self.others += "vbox" in entry or "hbox" in entry
            for name in ("extra", "head_attr"):
                given = entry.get(name)
                given = given if isinstance(given, dict) else {}
                if any(given[key] for key in given.keys() - {"ignore", "iscrowd", "box_id"}):
                    self.leave(f"the entry {name!r}, such as how far somebody is hidden")
            picture.shapes.append(_shape(entry, f"line {number}, gtboxes[{k}]", picture.size))
        return picture


def _image(name: str, roots: Sequence[Path]) -> tuple[str, tuple[int, int] | None]:
    """Return the path of an image below its root, and its size where the file is there."""
    given = Path(name).suffix.lower() in image_suffixes()
    for suffix in ("",) if given else (".jpg", *sorted(image_suffixes() - {".jpg"})):
        for root in roots:
            try:
                if (root / f"{name}{suffix}").is_file():
                    return f"{name}{suffix}", image_header(root / f"{name}{suffix}").size
            except (OSError, ValueError):  # the builder tells
                continue
    return name if given else f"{name}.jpg", None


def _shape(one: dict[str, Any], place: str, size: tuple[int, int] | None) -> Shape:
    """Return an object by the box of its whole body."""
    tag = one.get("tag")
    key = tag if isinstance(tag, str) and tag.strip() else None
    found = Shape(ANY if key == MASK else key, place, {})
    extra = one.get("extra")
    marks = extra if isinstance(extra, dict) else {}
    if key == MASK or flag(marks.get("ignore")):
        ignored = key == MASK or not flag(marks.get("iscrowd"))
        found.entry.update(iscrowd=1, ignore=int(ignored))
    found.entry["bbox"] = _cut(one.get("fbox"), size)
    return found


def _cut(box: Any, size: tuple[int, int] | None) -> Any:
    """Return a box xywh cut off at the borders of the image, where it is a box inside."""
    numbers = [finite_number(side) for side in box] if isinstance(box, list) else []
    if box is None:
        return BadSegment("bad box", "the object has no fbox")
    if len(numbers) != 4 or None in numbers or size is None:
        return box
    x, y, w, h = (side for side in numbers if side is not None)
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, size[1]), min(y + h, size[0])
    if min(w, h, x2 - x1, y2 - y1) < LEAST:
        return box
    return [x1, y1, x2 - x1, y2 - y1]


@takes_paths
def write_crowdhuman(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as an odgt file, with copies of the images.

    The tag of an object is its class. Regions that count neither way get `ignore` 1, those of many
    objects `iscrowd` 1 as well, those of no class the tag `mask`.

    Args:
        dataset: the images and objects; masks and keypoints are not written.
        folder: where annotation_SPLIT.odgt, classes.txt and Images/ go; other splits may be there.

    Returns:
        The odgt file.

    Raises:
        ValueError: if the folder has this split or other classes already, or a class is `mask`.
    """
    root = Path(folder)
    file, images = root / f"annotation_{dataset.split}{SUFFIX}", root / IMAGES
    refuse_written(file, dataset)
    if MASK in dataset.names:
        raise ValueError(
            f"{dataset.source} has the class {MASK!r}, which in CrowdHuman is what is nobody: "
            "rename the class"
        )
    names = Names()
    class_file(dataset, root / "classes.txt")
    with one_file(file, root, images) as stream:
        for other in Tree().images(images):  # of other splits
            names.free(other)
        for record, objects in objects_of(dataset):
            image = copy_image(record, images, names.free(record.path))
            boxes = []
            for k, one in enumerate(objects):
                x1, y1, x2, y2 = one.box
                extra: dict[str, int] = {"box_id": k, "occ": 0}
                if one.crowd:
                    extra |= {"ignore": 1} if one.ignored else {"ignore": 1, "iscrowd": 1}
                tag = MASK if one.label == ANY_CLASS else one.name
                box = [x1, y1, x2 - x1, y2 - y1]
                boxes.append({"tag": tag, "fbox": box, "extra": extra})
            line = json.dumps({"ID": image.stem, "gtboxes": boxes}, ensure_ascii=False)
            stream.write(f"{line}\n")
    return file
