"""One folder of images for each class: train/cat/1.jpg, train/dog/2.jpg; reading and writing.

Classes are the names of the folders, sorted as strings (1, 10, 2), as torchvision's ImageFolder
has them; folders in a class belong to it. In other splits a class is known by its name, never by
its position.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskwright.files import writing
from maskwright.paths import takes_paths

from ..building.labelled import LabelBuilder, Labelled
from ..records import Dataset, Fault
from .folders import IMAGE_FOLDERS, KITTI_IMAGES, LABEL_PICTURES, Tree, folder_split
from .outgoing import refuse_written
from .source import BaseSource, ReadOptions, passed_over

DEEPEST = 6  # folders within folders of a class
FORMAT = "folders"
# A folder with such files may have its labels there.
ANNOTATIONS = (".csv", ".json", ".xml", ".txt", ".yaml", ".yml", ".gz", ".mat")


@dataclass(frozen=True)
class FolderSource(BaseSource):
    """Where one split lies: a folder with one folder for each class.

    Attributes:
        annotations: the folder.
    """

    annotations: Path
    tree: Tree = field(default_factory=Tree, compare=False)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        builder = LabelBuilder(self.annotations, split, FORMAT)
        images: list[Labelled] = []
        classes = [folder.name for folder in self.tree.folders(self.annotations)]
        for name in classes:
            for folder in self.tree.below(self.annotations / name, DEEPEST):
                files = self.tree.images(folder)
                images += [
                    Labelled(file.relative_to(self.annotations).as_posix(), (name,))
                    for file in files
                ]
                _tell_others(builder, self.tree, folder, len(files))
        if names is not None:  # an empty folder of a foreign class does no harm
            classes = [name for name in classes if name in names]
        stray = self.tree.images(self.annotations)
        if stray:
            builder.fault(
                "image without a class",
                f"{len(stray)} image(s) lie in {self.annotations} beside the folders of the "
                f"classes, the first: {stray[0].name}: move each into the folder of its class",
            )
        return builder.build(self.annotations, images, classes, names)


def _tell_others(builder: LabelBuilder, tree: Tree, folder: Path, images: int) -> None:
    entries = tree.entries(folder)
    others = len(entries) - images - len(tree.folders(folder))
    if others:
        files = set(tree.images(folder)) | set(tree.folders(folder))
        first = next(entry for entry in entries if entry not in files)
        builder.fault(
            "file passed over",
            f"{others} file(s) in {folder} are no images by their names, the first: {first.name}",
            file=folder,
        )


def find_class_folders(tree: Tree, path: Path) -> dict[str, FolderSource]:
    """Return the splits of a folder of folders of classes, {} for others.

    Raises:
        ValueError: if two folders are the same split.
    """
    found: dict[str, Path] = {}
    flat: list[Fault] = []
    for folder in tree.folders(path):
        split = folder_split(folder)
        if split is None:
            continue
        if not class_folders(tree, folder):
            if count := len(tree.images(folder)):
                flat.append(
                    passed_over(folder, f"its {count} image(s) are in no folder of a class")
                )
            continue
        if split in found:
            raise ValueError(f"{found[split]} and {folder} are both the {split} split: leave one")
        found[split] = folder
    if found:
        faults = [tuple(flat), *[()] * (len(found) - 1)]
        return {
            split: FolderSource(folder, tree, faults=own)
            for (split, folder), own in zip(found.items(), faults, strict=True)
        }
    classes = class_folders(tree, path)
    # One folder of images is a class of nothing; and deeper ones may be anything.
    if len(classes) < 2 or not all(tree.images(one) for one in classes):
        return {}
    if all(map(folder_split, classes)):  # a class may be called train, but not all of them so
        return {}
    return {folder_split(path) or "train": FolderSource(path, tree)}


def lone_class(tree: Tree, path: Path) -> str:
    """Return what a folder has of images of one class, or of none, in words; "" for others."""
    folders = [path, *tree.folders(path)]
    counts = {one: len(tree.images(one)) for one in folders if tree.images(one)}
    inner = [one for one in counts if one != path]
    others = any(tree.files(one, *ANNOTATIONS) for one in folders)
    if not counts or others or any(LABEL_PICTURES.fullmatch(one.name) for one in inner):
        return ""
    usual = {name.casefold() for name in (*IMAGE_FOLDERS, *KITTI_IMAGES)}
    classes = [
        one for one in inner if folder_split(one) is None and one.name.casefold() not in usual
    ]
    if len(classes) == 1:
        return f"has images of one class alone, {counts[classes[0]]} in {classes[0].name}"
    if classes:
        return ""
    where = " and ".join(f"{counts[one]} in {one.name if one in inner else 'it'}" for one in counts)
    return f"has images ({where}), and no folders of classes"


def class_folders(tree: Tree, path: Path) -> list[Path]:
    """Return the folders of classes that have images; none where the folders are no classes."""
    folders = tree.folders(path)
    usual = {name.casefold() for name in (*IMAGE_FOLDERS, *KITTI_IMAGES)}
    if any(one.name.casefold() in usual for one in folders):
        return []
    return [one for one in folders if _has_images(tree, one)]


def _has_images(tree: Tree, folder: Path) -> bool:
    return any(tree.images(one) for one in tree.below(folder, DEEPEST))


@takes_paths
def write_class_folders(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as folders of classes, with copies of the images.

    Args:
        dataset: images with one label each; those that are no files are written as PNG.
        folder: where the folder of the split goes; other splits may be there already.

    Returns:
        The folder of the split.

    Raises:
        ValueError: if it exists, an image has not exactly one label, or the name of a class is
            no name of a folder.
    """
    place = Path(folder) / dataset.split
    refuse_written(place, dataset)
    labels = [_only_label(dataset, index) for index in range(len(dataset))]
    for name in dataset.names:
        if name in ("", ".", "..") or any(mark in name for mark in '/\\\0:*?"<>|'):
            raise ValueError(f"the class name {name!r} cannot be the name of a folder: rename it")
    with writing(Path(folder)):
        for name in dataset.names:
            (place / name).mkdir(parents=True, exist_ok=True)
        for index, label in enumerate(labels):
            _copy(dataset, index, place / dataset.names[label])
    return place


def _only_label(dataset: Dataset, index: int) -> int:
    record = dataset[index]
    found = [] if record.image_labels is None else record.image_labels.tolist()
    if len(found) != 1:
        raise ValueError(
            f"{record.path} has {len(found)} labels: in folders of classes each image has one; "
            "write a CSV"
        )
    return int(found[0])


def _copy(dataset: Dataset, index: int, folder: Path) -> None:
    from PIL import Image

    record = dataset[index]
    if record.stored:
        file, _, number = record.path.name.rpartition("#")
        pixels = dataset.photo(index)
        target = folder / f"{file.partition('.')[0]}_{number}.png"
        Image.fromarray(pixels[..., 0] if record.channels == 1 else pixels).save(target)
        return
    shutil.copyfile(record.path, free_name(folder, record.path, range(1, len(dataset) + 2)))


def free_name(folder: Path, file: Path, numbers: Iterable[int]) -> Path:
    """Return a path in a folder, of the file's name or, where that is taken, with a number."""
    name = folder / file.name
    for number in numbers:
        if not name.exists():
            break
        name = folder / f"{file.stem}_{number}{file.suffix}"
    return name
