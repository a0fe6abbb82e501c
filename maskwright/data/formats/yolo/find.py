"""The splits of YOLO data sets: a `data.yaml` names them, or folders and lists tell them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from maskwright.paths import home_path, nearest_path

from ...pixels.kinds import image_suffixes
from ...records import Dataset, Fault
from ..folders import (
    IMAGE_FOLDERS,
    SPLITS,
    Tree,
    folder_split,
    is_file,
    read_lines,
)
from ..sniff import sniff
from ..source import BaseSource, ReadOptions
from .layout import (
    LABELS,
    NAME_FILES,
    YAML,
    Keypoints,
    images_of,
    labels_of,
    listed,
    read_keypoints,
    read_names,
)
from .read import YoloReader

SAMPLE = 200  # label files that are looked at to tell what they are


@dataclass(frozen=True)
class YoloSource(BaseSource):
    """Where one split lies: YOLO.

    Attributes:
        annotations: the `data.yaml`, or the folder of the labels.
        places: folders of its images, or lists of them.
        base: what the paths in a list are relative to.
        names: the class names by number; None: not known.
        keypoints: None without.
    """

    annotations: Path
    places: tuple[Path, ...]
    base: Path
    names: Mapping[int, str] | None = None
    keypoints: Keypoints | None = None

    @property
    def beside(self) -> tuple[Path, ...]:
        """The lists of images."""
        return self.places

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        return YoloReader(self.annotations, split, self.keypoints).dataset(
            self.places, self.base, self.names, names
        )


def find_yolo(tree: Tree, path: Path) -> dict[str, YoloSource]:
    """Return the splits of a folder with labels of YOLO, {} for others.

    Raises:
        ValueError: if its `data.yaml` cannot be used, or there are several.
    """
    tables = _tables(tree, path)
    described = ((file, described_yolo(own, file.parent, file)) for file, own in tables.items())
    if usable := {file: found for file, found in described if found}:
        if len(usable) > 1:
            raise ValueError(
                f"{path} has several files that describe YOLO data sets, "
                f"{', '.join(file.name for file in usable)}: give the one that is meant as data="
            )
        return next(iter(usable.values()))
    splits = _undescribed(tree, path)
    every = [place for places in splits.values() for place in places]
    if not any(_labelled(tree, place) for place in every):
        return {}
    names = _names_beside(path, every)
    told = [file for file, content in tables.items() if "names" in content]
    if names is None and len(told) == 1:  # supervision's data.yaml has names alone
        names = read_names(tables[told[0]], told[0])
    return {
        split: YoloSource(labels_of(places[0] / "x.jpg").parent, tuple(places), path, names)
        for split, places in splits.items()
    }


def _tables(tree: Tree, path: Path) -> dict[Path, dict[str, Any]]:
    """Return the YAML files of a folder that describe data sets as YOLO does."""
    import yaml

    found = {}
    for file in tree.files(path, ".yaml", ".yml")[:20]:
        if sniff(file) != YAML:
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{file} is no valid YAML: {str(error)[:300]}") from None
        if isinstance(content, dict):
            found[file] = content
    return found


def described_yolo(
    content: Mapping[str, Any], base: Path, file: Path | None = None
) -> dict[str, YoloSource]:
    """Return the splits of a `data.yaml`, {} if it is none of YOLO or its images have no labels.

    Args:
        content: its entries.
        base: its folder.
        file: itself; None where the entries were given without a file.

    Raises:
        ValueError: if it names folders that do not exist, or its names cannot be used.
    """
    if not ("names" in content or "nc" in content):
        return {}
    annotations, tree = file or base, Tree()
    places: dict[str, tuple[Path, ...]] = {}
    missing: dict[str, list[Path]] = {}
    faults = []
    for key, value in content.items():
        split = folder_split(Path(str(key)))
        several = value if isinstance(value, list) else [value]
        if split is None or not value or not all(isinstance(one, str | Path) for one in several):
            continue
        tried = [_candidates(one, content.get("path"), base) for one in several]
        there = [next((one for one in ones if one.exists()), None) for ones in tried]
        for number, one in enumerate(several):
            end = None if there[number] is not None else _by_its_end(one, base)
            if end is not None:
                there[number] = end
                message = f"{annotations}: {key} is {one}, which does not exist: {end} is taken"
                faults.append(
                    Fault(str(annotations), None, None, "other path", message, "repaired")
                )
        if None in there:
            missing[split] = tried[there.index(None)]
        else:
            places[split] = tuple(one for one in there if one is not None)
    if not any(_labelled(tree, place, base) for own in places.values() for place in own):
        return {}
    for split, ones in missing.items():
        message = (
            f"{annotations}: the {split} split is to lie in {ones[0]}, which does not exist"
            f"{nearest_path(ones[0])}"
        )
        if split != "test":
            raise ValueError(f"{message}: correct the entry, or take it out")
        faults.append(Fault(str(annotations), None, None, "missing split", message, "left out"))
    names, keypoints = read_names(content, annotations), read_keypoints(content, annotations)
    sources = {
        split: YoloSource(annotations, own, base, names, keypoints) for split, own in places.items()
    }
    first = next(iter(sources))
    return {**sources, first: sources[first].with_faults(tuple(faults))}


def _candidates(value: str | Path, path: Any, base: Path) -> list[Path]:
    """Return where an entry of `data.yaml` may lie, the likely place first.

    `path` is relative to the file, or to the folder in which training is started. Roboflow writes
    ../train/images for what lies in train/images beside the file.
    """
    text = str(home_path(str(value))).replace("\\", "/")
    roots = [base]
    if isinstance(path, str | Path) and str(path):
        own = home_path(str(path)).replace("\\", "/")
        roots = [base / own, Path(own), base]
    tried = [root / text for root in roots]
    if text.startswith("../"):
        tried += [root / text.removeprefix("../") for root in roots]
    return tried


def _by_its_end(value: str | Path, base: Path) -> Path | None:
    """Return the folder or list that the end of an absolute path names, beside the file.

    An end that names no split may be that of any: /data/images is no end of images alone.
    """
    whole = PureWindowsPath(str(value))  # both kinds of slashes
    parts = whole.parts[1:] if whole.anchor else ()
    ends = (Path(*parts[k:]) for k in range(len(parts)))
    told = (end for end in ends if any(folder_split(Path(part)) for part in (*end.parts, end.stem)))
    return next((base / end for end in told if (base / end).exists()), None)


def _undescribed(tree: Tree, path: Path) -> dict[str, list[Path]]:
    """Return the folders or lists of images of each split where no `data.yaml` names them."""
    lists = {
        split: [file]
        for file in tree.files(path, ".txt")
        if (split := next((s for s, own in SPLITS.items() if file.stem.lower() in own), None))
        and sniff(file) == "text"
        and any(PurePosixPath(line).suffix.lower() in image_suffixes() for line in _head(file))
    }
    if lists:
        return lists
    found: dict[str, list[Path]] = {}
    images = tree.named(path, IMAGE_FOLDERS)
    for outer in (path, *images):
        for one in tree.folders(outer):
            if split := folder_split(one):
                inner = tree.named(one, IMAGE_FOLDERS)
                found.setdefault(split, []).extend(inner[:1] or [one])
    if found:
        return found
    darknet = [one for one in tree.folders(path) if one.name.lower() in ("obj_train_data", "data")]
    for one in (*images, *darknet, path):
        if tree.images(one):
            return {"train": [one]}
    return {}


def _head(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_lines(file)[:SAMPLE]]
    except ValueError:
        return []


def _labelled(tree: Tree, place: Path, base: Path | None = None) -> bool:
    """Return True if images of a folder or a list have labels of YOLO.

    Args:
        tree: the file system.
        place: the folder or list.
        base: folder of the `data.yaml` that names it, whose word counts whatever is in the labels.
    """
    images = (
        tree.images(place)
        if place.is_dir()
        else list(islice(listed(place, base or place.parent), SAMPLE))
    )
    if not images and place.is_dir():
        images = list(islice(images_of((place,), tree, place), SAMPLE))
    step = max(len(images) // SAMPLE, 1)
    files = [file for image in images[::step] if is_file(file := labels_of(image))]
    return bool(files) and (base is not None or LABELS in map(sniff, files[:SAMPLE]))


def _names_beside(path: Path, places: Iterable[Path]) -> dict[int, str] | None:
    """Return the class names that lie beside images or labels, one a line; None without."""
    folders: dict[Path, None] = {path: None}
    for place in places:
        own = place if place.is_dir() else place.parent
        labels = labels_of(own / "x.jpg").parent
        folders.update(dict.fromkeys((own, own.parent, labels, labels.parent)))
    for folder in folders:
        for name in NAME_FILES:
            if is_file(folder / name):
                lines = [line.strip() for line in read_lines(folder / name)]
                if any(lines):
                    while not lines[-1]:
                        lines.pop()
                    return {number: line or str(number) for number, line in enumerate(lines)}
    return None
