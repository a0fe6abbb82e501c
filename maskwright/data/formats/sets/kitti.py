"""KITTI's labels of objects (Geiger et al. 2012): a text file for each image, a line an object.

A line has a type, how far it is truncated and occluded, an angle, the box x1 y1 x2 y2 in pixels
from 0 on, and seven numbers of the object in space, of which the box alone is read. `DontCare`
marks regions in which nobody labelled: they count neither way, whatever they show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY
from ...building.objects import finite_number, written_number
from ...records import ANY_CLASS, Dataset
from ...segments import BadSegment
from ..beside import FilesSource, listed_names, size_of
from ..folders import (
    IMAGE_FOLDERS,
    KITTI_IMAGES,
    Tree,
    folder_split,
    read_lines,
    split_name,
)
from ..outgoing import Names, class_file, copy_image, objects_of, refuse_written
from ..sniff import sniff
from ..source import ReadOptions

KIND = "KITTI labels"
DONT_CARE = "DontCare"
LABELS = ("label_2", "label_02", "labels", "label")
IMAGES = (*KITTI_IMAGES, *IMAGE_FOLDERS)
SIDES = ("x1", "y1", "x2", "y2")
FIELDS = (15, 16)  # words of a line; a result has its score at the end
SAMPLE = 20  # files of which one tells
NO_ANGLE = -10.0
SPACE = "-1 -1 -1 -1000 -1000 -1000 -10"  # the numbers of an object whose place is not known


@dataclass(frozen=True, kw_only=True)
class KittiSource(FilesSource):
    """Where one split lies: files of labels.

    Attributes:
        images: the folder of the images.
    """

    images: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, "kitti")
        listed = listed_names(self.root, ())
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(
            lambda: reader.pictures(self.images, self.files), [self.images], by_name, names
        )


def find_kitti(tree: Tree, path: Path) -> dict[str, KittiSource]:
    """Return the splits of a folder with labels of KITTI, {} for others.

    Lists ImageSets/train.txt, ImageSets/val.txt divide a lone folder of labels.

    Raises:
        ValueError: if two folders are of one split.
    """
    found: dict[str, KittiSource] = {}
    for base in (path, *tree.folders(path)):
        for labels in tree.named(base, LABELS):
            images = next(iter(tree.named(base, IMAGES)), None)
            files = tree.files(labels, ".txt")
            if images is None or not _are_kitti(labels, files):
                continue
            split = folder_split(base) or "train"
            if split in found:
                raise ValueError(
                    f"{found[split].folder} and {labels} are both of the {split} split: name their "
                    "folders train and val"
                )
            found[split] = KittiSource(root=path, files=tuple(files), folder=labels, images=images)
    if len(found) == 1 and (listed := _by_lists(tree, path, next(iter(found.values())))):
        return listed
    return found


def _are_kitti(folder: Path, files: Sequence[Path]) -> bool:
    """Return whether one of the first files has lines of KITTI; in label_2 all may be empty."""
    kinds = {sniff(file) for file in files[:SAMPLE]}
    return KIND in kinds or (folder.name.lower() == LABELS[0] and kinds == {"empty file"})


def _by_lists(tree: Tree, path: Path, source: KittiSource) -> dict[str, KittiSource]:
    """Return the splits that lists of names tell, {} without."""
    by_stem = {file.stem: file for file in source.files}
    found = {}
    for base in dict.fromkeys((path, source.folder.parent)):
        for folder in tree.named(base, ("ImageSets",)):
            for listing in tree.files(folder, ".txt"):
                split = split_name(listing.stem)
                names = [line.strip() for line in read_lines(listing)]
                files = tuple(by_stem[name] for name in names if name in by_stem)
                if split is not None and files and "trainval" not in listing.stem:
                    found[split] = KittiSource(
                        root=path, files=files, folder=source.folder, images=source.images
                    )
    return found


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(self, folder: Path, files: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of files of labels."""
        images = {image.stem: image for image in Tree().images(folder)}
        for file in files:
            image = images.get(file.stem)
            picture = Picture(file, f"{file.stem}.png" if image is None else image.name)
            try:
                if image is not None:
                    picture.size = size_of(image)
                for number, line in enumerate(read_lines(file), 1):
                    if words := line.split():
                        picture.shapes.append(_shape(words, f"line {number}"))
                        self._leave(words)
            except ValueError as error:
                picture.broken = "unreadable labels", str(error)
            yield picture

    def _leave(self, words: Sequence[str]) -> None:
        """Count what of a line no object of a data set has."""
        if len(words) not in FIELDS or words[0] == DONT_CARE:
            return
        numbers = [finite_of(word) for word in words[1:]]
        if numbers[0] or numbers[1]:
            self.leave("how far an object is cut off or hidden")
        if numbers[2] != NO_ANGLE or words[8:15] != SPACE.split():
            self.leave("sizes, places and angles in space")
        if len(words) == FIELDS[1]:
            self.leave("the score of an object")


def finite_of(text: str) -> float | None:
    """Return the finite number that a text is; None for others."""
    try:
        return finite_number(float(text))
    except ValueError:
        return None


def _shape(words: Sequence[str], place: str) -> Shape:
    """Return the object of a line."""
    key = words[0]
    found = Shape(ANY if key == DONT_CARE else key, place, {})
    if key == DONT_CARE:
        found.entry.update(iscrowd=1, ignore=1)
    try:
        found.entry["bbox"] = _box(words)
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _box(words: Sequence[str]) -> list[Any]:
    """Return the box xywh of a line.

    Raises:
        BadSegment: if it has none.
    """
    if len(words) not in FIELDS:
        raise BadSegment(
            "bad line",
            f"a line has {FIELDS[0]} words, or {FIELDS[1]} with a score, got {len(words)}: names "
            "have no blanks",
        )
    named = zip(SIDES, words[4:8], strict=True)
    x1, y1, x2, y2 = (written_number(word, name) for name, word in named)
    return [x1, y1, x2 - x1, y2 - y1]


@takes_paths
def write_kitti(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as KITTI's labels, with copies of the images.

    Regions that count neither way become `DontCare`, which has no class.

    Args:
        dataset: the images and objects; masks and keypoints are not written.
        folder: where SPLIT/label_2/, SPLIT/image_2/ and classes.txt go; other splits may be there.

    Returns:
        The folder of the labels.

    Raises:
        ValueError: if the folder has this split or other classes already, or the name of a class
            has blanks or is DontCare.
    """
    root = Path(folder)
    labels, images = root / dataset.split / LABELS[0], root / dataset.split / IMAGES[0]
    refuse_written(labels, dataset)
    for name in dataset.names:
        if name.split() != [name] or name == DONT_CARE:
            raise ValueError(
                f"the class name {name!r} cannot stand in a line of KITTI, whose words are "
                f"separated by blanks: rename the class in {dataset.source}"
            )
    names = Names()
    with writing(root):
        for place in (labels, images):
            place.mkdir(parents=True, exist_ok=True)
        class_file(dataset, root / "classes.txt")
        for record, objects in objects_of(dataset):
            image = copy_image(record, images, names.free(record.path))
            lines = []
            for one in objects:
                ignored = one.crowd or one.label == ANY_CLASS
                kind = f"{DONT_CARE} -1 -1" if ignored else f"{one.name} 0 0"
                lines.append(f"{kind} -10 {' '.join(map(repr, one.box))} {SPACE}\n")
            write_whole(labels / f"{image.stem}.txt", "".join(lines), durable=False)
    return labels
