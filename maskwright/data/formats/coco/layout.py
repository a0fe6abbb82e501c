"""Where things lie in data sets of COCO JSON: the file of each split, or what divides a lone one.

A file belongs to the split that its name tells, or its folder. A lone one whose name tells none is
divided by lists (train.txt, val.txt) or by the folders in which its images lie; else it is train.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ...records import Dataset, Fault
from ..folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LIST_SUFFIXES,
    SPLITS,
    Tree,
    folder_split,
    read_lines,
    split_name,
)
from ..sniff import BROKEN, BY_BYTES, CAPTIONS, COCO, IMAGES_ONLY, PANOPTIC, sniff
from ..source import BaseSource, ReadOptions
from ..voc.layout import LIST_FOLDERS, NO_LISTS, STAND_IN
from .json_stream import START, json_members
from .read import read_coco

# Files of COCO that describe the same images in other ways; those of objects come before them.
OTHERS = re.compile(r"(?i)captions|panoptic|image_info")
BESIDES = re.compile(r"(?i)person_keypoints|stuff")
MANY = 200  # files of one folder that are looked into


@dataclass(frozen=True)
class CocoSource(BaseSource):
    """Where one split lies: COCO JSON.

    Attributes:
        annotations: the JSON file.
        roots: folders in which its images may lie, likely ones first.
        only: names of those images of the file that belong to the split; None: all.
    """

    annotations: Path
    roots: tuple[Path, ...]
    only: frozenset[str] | None = None

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        return read_coco(
            self.annotations,
            self.roots,
            split=split,
            names=names,
            only=self.only,
            crowd_as_objects=options.crowd_as_objects,
        )


@dataclass(frozen=True)
class Candidate:
    """A JSON file that may hold a split.

    Attributes:
        file: the file.
        split: what its name tells, or its folder; None: nothing.
        kind: its format, see `sniff`.
        order: rank among those of its split, lowest first.
    """

    file: Path
    split: str | None
    kind: str
    order: tuple[int, int, int, str]


class CocoFinder:
    """The COCO JSON files of a folder.

    Attributes:
        passed: what looks like a part of the data set and is not read, and why.
        faults: what else is wrong.
    """

    def __init__(self, tree: Tree, path: Path, keypoints: bool) -> None:
        self.tree = tree
        self.path = path
        self.keypoints = keypoints
        self.passed: list[tuple[Path, str]] = []
        self.faults: list[Fault] = []

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All JSON files where those of data sets lie."""
        tree, path = self.tree, self.path
        places: list[tuple[Path, str | None]] = []
        for folder in tree.named(path, ANNOTATION_FOLDERS):
            places.append((folder, None))
            places += [(one, folder_split(one)) for one in tree.folders(folder)]
        places.append((path, folder_split(path)))
        for folder in tree.folders(path):
            if split := split_name(folder.name):
                places.append((folder, split))
                places += [(one, split) for one in tree.named(folder, ANNOTATION_FOLDERS)]
        found: list[Candidate] = []
        for i, (folder, inside) in enumerate(dict.fromkeys(places)):
            looked = 0
            # A folder called so is for its reader to refuse.
            called = [one for one in tree.folders(folder) if one.suffix.lower() == ".json"]
            for file in sorted([*tree.files(folder, ".json"), *called]):
                own = split_name(file.stem)
                looked += own is None
                if looked <= MANY or own:
                    found.append(self._candidate(file, own or inside, i))
        return found

    def _candidate(self, file: Path, split: str | None, place: int) -> Candidate:
        stem = file.stem.lower()
        rank = 0 if stem.startswith("instances") else 1
        if BESIDES.match(stem):
            rank = 2
            if self.keypoints and stem.startswith("person_keypoints"):
                rank = -1
        kind = sniff(file)
        # Of equal rank, the shorter name: train.json before train_small.json.
        return Candidate(file, split, kind, (kind != COCO, rank, place, f"{len(stem):04}{stem}"))

    @property
    def usable(self) -> list[Candidate]:
        """Those that are COCO JSON of objects."""
        return [c for c in self.candidates if c.kind == COCO and not OTHERS.match(c.file.stem)]

    def splits(self) -> dict[str, CocoSource]:
        """Return the files whose names, or folders, tell their splits."""
        best: dict[str, Candidate] = {}
        files = [c for c in self.candidates if c.split and not OTHERS.match(c.file.stem)]
        for one in files:
            assert one.split is not None
            if _for_its_reader(one.kind) and (
                one.split not in best or one.order < best[one.split].order
            ):
                best[one.split] = one
        if not any(one.kind == COCO or split_name(one.file.stem) for one in best.values()):
            return {}
        for one in files:
            assert one.split is not None
            if one.split not in best and one.kind not in (CAPTIONS, PANOPTIC, IMAGES_ONLY):
                if all(other.kind != COCO for other in best.values()):
                    broken = next(iter(best.values()))
                    raise ValueError(
                        f"{broken.file}, by its name the {broken.split} split, cannot be read "
                        f"({broken.kind}), and {one.file} is {one.kind}: export or copy it again"
                    )
                raise ValueError(
                    f"{one.file}, by its name the {one.split} split, is {one.kind}: export it as "
                    "COCO JSON like the others, or move it elsewhere"
                )
            if best.get(one.split, one) != one and not BESIDES.match(one.file.stem):
                self.passed.append(
                    (one.file, f"{best[one.split].file.name} is the file of the {one.split} split")
                )
        unknown = [c for c in self.usable if c.split is None]
        if len(unknown) == 1 and "train" not in best:
            best["train"] = unknown[0]
        else:
            for one in unknown:
                self.passed.append((one.file, "its name tells no split, and others do"))
        return {split: self.source(one.file, split) for split, one in best.items()}

    @cached_property
    def single(self) -> Path | None:
        """The one COCO JSON whose name tells no split.

        Raises:
            ValueError: if there are several.
        """
        unknown = [c.file for c in self.usable if c.split is None]
        if len(unknown) > 1:
            raise ValueError(
                f"{self.path} has {len(unknown)} COCO JSON files whose names tell no split ("
                f"{', '.join(str(f.relative_to(self.path)) for f in unknown[:5])}): rename them to "
                "train.json, val.json and test.json, or name them in a YAML file with the entries "
                "train, val and images"
            )
        return unknown[0] if unknown else None

    def last_resort(self) -> dict[str, CocoSource]:
        """Return a lone JSON of no known format, for its reader to say what is wrong with it."""
        files = [c.file for c in self.candidates if c.split is None]
        kinds = {c.kind for c in self.candidates}
        lone = len(files) == len(self.candidates) == 1
        if lone and all(map(_for_its_reader, kinds)):
            return {"train": self.source(files[0], "train")}
        return {}

    def leave(self, file: Path, images: Sequence[str], what: str) -> None:
        """Note images of a divided file that belong to no split."""
        message = f"{len(images)} image(s) of {file} are in no {what}, first {images[0]}"
        kind = f"image in no {what}"
        self.faults.append(Fault(str(file), None, None, kind, message, "left out"))

    def source(self, file: Path, split: str) -> CocoSource:
        """Return where the images of a file may lie."""
        return coco_source(self.tree, file, split)


def _for_its_reader(kind: str) -> bool:
    """Return True for a file of COCO, and for one whose reader says best what is wrong with it."""
    return kind in (COCO, BROKEN, *BY_BYTES) or kind.endswith("file") or "unreadable" in kind


def by_lists(finder: CocoFinder, file: Path) -> dict[str, CocoSource]:
    """Return the splits of a single file for which lists of images lie beside it.

    Raises:
        ValueError: if a list names none of its images.
    """
    lists = lists_of(finder.tree, finder.path, file)
    if not lists:
        return {}
    images = image_names(file)
    found: dict[str, set[str]] = {}
    for split, one in lists.items():
        names, missing = _match(one, images)
        if not names and not _is_plain(one):  # training_log.txt
            finder.passed.append((one, "none of its lines names an image"))
            continue
        if not names:
            raise ValueError(
                f"{one} names none of the images of {file}, first "
                f"{missing[0] if missing else 'nothing'!r}: correct the list, or move it elsewhere"
            )
        if missing:
            message = f"{one} names {len(missing)} image(s) that {file} lacks, first {missing[0]!r}"
            finder.faults.append(Fault(str(one), None, None, "unknown image", message, "left out"))
        found[split] = names
    if not found:
        return {}
    listed: set[str] = set().union(*found.values())
    if STAND_IN in found:
        both = found.pop(STAND_IN)
        found.setdefault("train", both.difference(*found.values()))
    elif "train" not in found:
        found["train"] = set(images) - listed
    elif rest := sorted(set(images).difference(listed)):
        finder.leave(file, rest, "list")
    folders = _by_folder(finder, file, images)
    for split, names in found.items():
        for other, those in folders.items() if len(folders) > 1 else ():
            if other != split and other in found and (wrong := sorted(names & those)):
                raise ValueError(
                    f"{lists.get(split, file)} has {wrong[0]} in the {split} split, but it lies in "
                    f"the folder of the {other} split: correct one of the two"
                )
    return _divide(finder, file, found)


def by_folders(finder: CocoFinder, file: Path) -> dict[str, CocoSource]:
    """Return the splits of a single file whose images lie in folders named by splits."""
    folders = [
        one
        for folder in _image_places(finder.tree, file)
        for one in finder.tree.folders(folder)
        if folder_split(one)
    ]
    if len({folder_split(one) for one in folders}) < 2:
        return {}
    images = image_names(file)
    found = _by_folder(finder, file, images)
    if len(found) < 2:
        return {}
    if rest := sorted(set(images).difference(*found.values())):
        finder.leave(file, rest, "folder of a split")
    return _divide(finder, file, found)


def _by_folder(finder: CocoFinder, file: Path, images: Iterable[str]) -> dict[str, set[str]]:
    """Return the images that lie in the folder of each split.

    Raises:
        ValueError: if one lies in those of two.
    """
    tree = finder.tree
    places: dict[str, list[tuple[Path, set[str]]]] = {}
    for folder in _image_places(tree, file):
        for one in tree.folders(folder):
            if split := folder_split(one):
                stems = {entry.name for entry in tree.images(one)}
                places.setdefault(split, []).append((one, stems))
    found: dict[str, set[str]] = {}
    for image in images:
        path = PurePosixPath(image.replace("\\", "/"))
        told = [split for part in path.parts[:-1] if (split := folder_split(Path(part)))]
        having = told[-1:] or [
            split for split, ones in places.items() if any(path.name in names for _, names in ones)
        ]
        if len(having) > 1:
            raise ValueError(
                f"{file} names the image {image}, and there is one in the folders of "
                f"{' and '.join(having)}: name images with their folder, such as "
                f"{having[0]}/{path.name}, or give each split a JSON of its own"
            )
        if having:
            found.setdefault(having[0], set()).add(image)
    return found


def _divide(finder: CocoFinder, file: Path, found: dict[str, set[str]]) -> dict[str, CocoSource]:
    roots = coco_source(finder.tree, file, "train").roots
    every = tuple(dict.fromkeys(r for s in SPLITS for r in coco_source(finder.tree, file, s).roots))
    sources: dict[str, CocoSource] = {}
    for split, names in found.items():
        own = [root for root in every if folder_split(root) == split]
        shared = [root for root in (*every, *roots) if folder_split(root) is None]
        sources[split] = CocoSource(file, tuple(dict.fromkeys([*own, *shared])), frozenset(names))
    return sources


def image_names(file: Path) -> list[str]:
    """Return the file names of the images in a COCO JSON."""
    names = []
    for key, entry in json_members(file, ("images", "annotations")):
        if key == "images" and entry is not START and isinstance(entry, dict):
            name = entry.get("file_name")
            if isinstance(name, str):
                names.append(name)
    return names


def lists_of(tree: Tree, path: Path, annotations: Path) -> dict[str, Path]:
    """Return the lists of images in a data set and beside its JSON, by split or "trainval"."""
    found: dict[str, Path] = {}
    for folder in dict.fromkeys((path, annotations.parent)):
        sets = tree.named(folder, ("ImageSets",))
        inner = [one for outer in sets for one in tree.folders(outer)]
        for base in (folder, *inner, *sets, *tree.named(folder, LIST_FOLDERS)):
            for file in tree.files(base, *LIST_SUFFIXES):
                words = re.findall("[a-z]+", file.stem.lower())
                split = STAND_IN if STAND_IN in words else split_name(file.stem)
                if split is None or file.stem.lower() in NO_LISTS or sniff(file) == "YOLO labels":
                    continue
                first = found.setdefault(split, file)
                if _is_plain(file) and not _is_plain(first):
                    found[split] = file
                elif first != file and _is_plain(file) == _is_plain(first):
                    raise ValueError(
                        f"{first} and {file} are both lists of the {split} split: leave one"
                    )
    return found


def _is_plain(listing: Path) -> bool:
    """Return True for a list that is called as a split is, such as train.txt or trainval.txt."""
    name = listing.stem.lower()
    return name == STAND_IN or any(name in names for names in SPLITS.values())


def _match(listing: Path, images: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the images that a list names, by path, file name or name without suffix.

    Returns:
        the images, and lines that name none.
    """
    by_stem: dict[str, list[str]] = {}
    for image in images:
        path = PurePosixPath(image.replace("\\", "/"))
        for name in {path.name.casefold(), path.stem.casefold()}:
            by_stem.setdefault(name, []).append(image)
    found: set[str] = set()
    missing: list[str] = []
    for line in read_lines(listing):
        text = line.strip().replace("\\", "/")
        path = PurePosixPath(text)
        near = by_stem.get(path.name.casefold()) or by_stem.get(path.stem.casefold(), [])
        if len(near) > 1:  # a/0.png and b/0.png
            near = [one for one in near if _ends_alike(one, text)]
        if near:
            found.update(near)
        elif text:
            missing.append(text)
    return found, missing


def _ends_alike(image: str, text: str) -> bool:
    """Return True if of two paths, suffixes aside, one ends with the other."""
    ours, theirs = (
        PurePosixPath(one.replace("\\", "/")).with_suffix("").as_posix().casefold().split("/")
        for one in (image, text)
    )
    count = min(len(ours), len(theirs))
    return ours[-count:] == theirs[-count:]


def _image_places(tree: Tree, file: Path) -> list[Path]:
    """Return the folders in which folders of images may lie."""
    here, above = file.parent, file.parent.parent
    bases = [here]
    if here.name.lower() in ANNOTATION_FOLDERS:
        bases.append(above)
    return [place for base in bases for place in (base, *tree.named(base, IMAGE_FOLDERS))]


def coco_source(tree: Tree, file: Path, split: str, images: Path | None = None) -> CocoSource:
    """Return annotation file and image folders.

    Args:
        tree: the file system.
        file: the annotations.
        split: what it holds.
        images: folder that the user named; then only this one and those in it count.
    """
    here, above = file.parent, file.parent.parent
    suffix = file.stem.split("_")[-1]  # instances_train2017 -> train2017
    aliases = list(dict.fromkeys((suffix, *SPLITS[split])))
    if images is not None:
        return CocoSource(file, (images, *_existing(tree, images, aliases)))
    parts = [*(f"images/{alias}" for alias in aliases), *aliases, *IMAGE_FOLDERS]
    roots = [here, *_existing(tree, here, parts)]
    inner = here.name.lower() in ANNOTATION_FOLDERS
    if inner or folder_split(here):
        roots += [*_existing(tree, above, parts), above]
        if above.name.lower() in ANNOTATION_FOLDERS:  # annotations/train/labels.json
            roots += _existing(tree, above.parent, parts)
    else:
        roots += _existing(tree, above, ["images"])
    return CocoSource(file, tuple(dict.fromkeys(roots)))


def _existing(tree: Tree, base: Path, parts: Iterable[str]) -> list[Path]:
    found = [tree.find(base, part) for part in parts]
    return [place for place in found if place is not None and place.is_dir()]
