"""Where things lie in Pascal VOC folders: XML files, images, and the lists of images.

A list is read wherever it lies: ImageSets/Main, ImageSets/Segmentation, ImageSets itself or another
folder in it, the VOC folder. What looks like a list and is not used is noted, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...pixels.kinds import image_suffixes
from ..folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LABEL_PICTURES,
    LIST_SUFFIXES,
    SPLITS,
    Tree,
    folder_split,
    is_file,
    read_lines,
    split_name,
)
from ..sniff import VOC, sniff

NOT_IMAGES = (".xml", ".txt", ".json", ".csv")
NO_LISTS = ("classes", "class_names", "labels", "readme", "license", "licence", "requirements")
LIST_FOLDERS = ("lists", "splits", "split", "sets", "imageLists")
# Lists of ImageSets that divide other tasks; those of Main are there as well.
OTHER_TASKS = ("layout", "action")
STAND_IN = "trainval"  # is train where there is no list train
SAMPLE = 50  # lines or files that tell what the others are


@dataclass(frozen=True)
class VocPart:
    """One list of images of one VOC folder.

    Attributes:
        folder: the VOC folder, such as VOC2007.
        annotations: folder of its XML files.
        images: folder of its images.
        listing: text file with an id in every line; None: every XML file.
        without: lists whose images are left out: val, where trainval stands for train.
        divided: folders of images that divide the XML files among the splits, `images` is one of
            them; empty: nothing divides them.
    """

    folder: Path
    annotations: Path
    images: Path
    listing: Path | None = None
    without: tuple[Path, ...] = ()
    divided: tuple[Path, ...] = ()

    @property
    def source(self) -> Path:
        """What faults and errors name: the list, or the folder of the XML files."""
        if self.listing is None and self.divided:
            return self.images
        return self.listing or self.annotations


def voc_part(listing: Path) -> VocPart:
    """Return the part that a list in ImageSets/Main (or .../Segmentation) stands for.

    Raises:
        ValueError: if the file does not lie in a VOC folder.
    """
    tree = Tree()
    above = listing.absolute().parents[:3]
    folder = next((one for one in above if _xml_folder(tree, one)), above[0])
    annotations = _xml_folder(tree, folder)
    if annotations is None:
        raise ValueError(
            f"{listing} belongs to no Pascal VOC folder: there is no {folder / 'Annotations'} with "
            "XML files"
        )
    return VocPart(folder, annotations, _image_folder(tree, folder, annotations), listing)


class VocFinder:
    """What a folder has of Pascal VOC.

    Attributes:
        parts: of each split.
        passed: what looks like a part of the data set and is not read, and why.
        lists: the lists that were found, used or not.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.parts: dict[str, list[VocPart]] = {}
        self.passed: list[tuple[Path, str]] = []
        self.lists: set[Path] = set()

    def look(self, path: Path) -> None:
        """Look through a folder: a VOC folder, one with several of these, or one for each split.

        Raises:
            ValueError: if the names of its lists do not tell which is which.
        """
        below = self.tree.folders(path)
        for devkit in self.tree.named(path, ("VOCdevkit",)):
            below += self.tree.folders(devkit)
        inner = set(self.tree.named(path, ANNOTATION_FOLDERS))
        own = self._splits_of(path)
        unlisted: list[tuple[Path, VocPart]] = []
        for folder, found in [(path, own)] + [
            (one, self._splits_of(one)) for one in below if not (own and one in inner)
        ]:
            for split, parts in found.items():
                if split == "":
                    unlisted += [(folder, part) for part in parts]
                elif own and folder != path and split in own:
                    self._pass(folder, f"{path} has a {split} split of its own")
                else:
                    self.parts.setdefault(split, []).extend(parts)
        if not self.parts and unlisted:  # folders without lists whose names tell no split
            self.parts["train"] = [part for _, part in unlisted]
        else:
            for folder, _ in unlisted:
                self._pass(folder, "it has no list, and its name tells no split")
        self.parts = {split: self.parts[split] for split in SPLITS if split in self.parts}

    def _pass(self, path: Path, why: str) -> None:
        self.passed.append((path, why))

    def _splits_of(self, folder: Path) -> dict[str, list[VocPart]]:
        """Return the parts of one VOC folder by split; "" where nothing tells which."""
        tree = self.tree
        annotations = _xml_folder(tree, folder)
        if annotations is None:  # Annotations/train/*.xml
            found: dict[str, list[VocPart]] = {}
            for outer in tree.named(folder, ANNOTATION_FOLDERS):
                for inner in tree.folders(outer):
                    split = folder_split(inner)
                    if split and _has_voc(tree, inner):
                        images = _image_folder(tree, folder, inner, split)
                        found.setdefault(split, []).append(VocPart(folder, inner, images))
            return found
        if annotations.parent != folder and annotations != folder:
            for one in tree.folders(annotations.parent):
                if one != annotations and _has_voc(tree, one):
                    self._pass(one, f"{annotations.name} is read: move that elsewhere to read this")
        part = VocPart(folder, annotations, _image_folder(tree, folder, annotations))
        folders = self._divided(part)
        lists = self._lists(part)
        if lists:
            _compare(lists, part, folders, tree)
            return {split: parts for split, parts in lists.items() if parts}
        if len(folders) > 1:
            divided = tuple(folders.values())
            return {
                split: [replace(part, images=images, divided=divided)]
                for split, images in folders.items()
            }
        return {folder_split(folder) or "": [part]}

    def _divided(self, part: VocPart) -> dict[str, Path]:
        """Return folders of images for each split, if they divide the XML files of one folder."""
        stems = {file.stem for file in self.tree.files(part.annotations, ".xml")}
        found: dict[str, Path] = {}
        for base in dict.fromkeys((part.images, part.images.parent, part.folder)):
            for one in self.tree.folders(base):
                split = folder_split(one)
                if split is None or split in found or not base.is_relative_to(part.folder):
                    continue
                if stems & {file.stem for file in self.tree.images(one)}:
                    found[split] = one
        return found

    def _lists(self, part: VocPart) -> dict[str, list[VocPart]]:
        """Return the parts that lists make, by split."""
        lists, of_classes = self._list_files(part)
        if not lists and of_classes:
            raise ValueError(
                f"{of_classes[0].parent} has lists of one class only ("
                f"{', '.join(file.name for file in of_classes[:3])}): add a list of all images, "
                f"such as train.txt, or name one of these, as in data={of_classes[0]}"
            )
        by_split: dict[str, list[Path]] = {}
        unknown: list[Path] = []
        both: list[Path] = []
        for file in lists:
            name = file.stem.lower()
            exact = next((split for split, names in SPLITS.items() if name in names), None)
            if exact:
                by_split.setdefault(exact, []).append(file)
            elif STAND_IN in re.findall("[a-z]+", name):
                both.append(file)
        for file in lists:
            split = split_name(file.stem)
            if file in both or any(file in files for files in by_split.values()):
                continue
            if split is None:
                unknown.append(file)
            elif any(f.stem.lower() in SPLITS[split] for f in by_split.get(split, ())):
                self._pass(file, f"{by_split[split][0].name} is the list of the {split} split")
            else:
                by_split.setdefault(split, []).append(file)
        if "train" not in by_split and (both or unknown):
            by_split["train"] = both or unknown
            unknown = unknown if both else []
        for file in unknown:
            self._pass(file, "its name tells no split, and there is a list of the train split")
        for split, files in by_split.items():
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise ValueError(
                    f"{files[0].parent}: which list is that of the {split} split, {names}? Rename "
                    "one to train.txt and another to val.txt, or name them in a YAML file with the "
                    "entries train and val"
                )
        found = {split: [replace(part, listing=files[0])] for split, files in by_split.items()}
        if "train" in by_split and split_name(by_split["train"][0].stem) is None:
            # trainval, default or all: what another list has is not trained on.
            others = tuple(files[0] for split, files in by_split.items() if split != "train")
            found["train"] = [replace(found["train"][0], without=others)]
        return found

    def _list_files(self, part: VocPart) -> tuple[list[Path], list[Path]]:
        """Return the lists of a VOC folder, one of each name, and those of one class."""
        tree, folder = self.tree, part.folder
        sets = tree.named(folder, ("ImageSets",))
        inside = [one for outer in sets for one in tree.folders(outer)]
        order = {"main": 0, "segmentation": 2}
        inside = [one for one in inside if one.name.lower() not in OTHER_TASKS]
        inside.sort(key=lambda one: order.get(one.name.lower(), 1))
        bases = [*inside, *sets, folder, *tree.named(folder, LIST_FOLDERS)]
        named: dict[str, Path] = {}
        of_classes: list[Path] = []
        for base in bases:
            if named and base.name.lower() == "segmentation":
                continue  # a part of those of Main
            for file in tree.files(base, *LIST_SUFFIXES):
                kind = _list_kind(file, part.annotations, base in inside or base in sets)
                if kind is not None:
                    self.lists.add(file)
                if kind == "list of one class":
                    of_classes.append(file)
                elif kind == "list":
                    first = named.setdefault(file.stem.lower(), file)
                    if first != file:
                        self._pass(file, f"{first} has the same name")
        return list(named.values()), of_classes


def _list_kind(file: Path, annotations: Path, strict: bool) -> str | None:
    """Return "list", "list of one class" or None for a text file.

    Args:
        file: the file.
        annotations: the XML files that its lines may name.
        strict: it lies where only lists lie.
    """
    name = file.stem.lower()
    plain = name == STAND_IN or any(name in names for names in SPLITS.values())
    if name in NO_LISTS and not strict:
        return None
    try:
        rows = [line.strip() for line in read_lines(file)]
    except ValueError:
        return "list" if strict or plain else None  # whose reader says what is wrong
    rows = [row for row in rows if row][:SAMPLE]
    if "_" in name and rows and all(re.fullmatch(r"\S.*\s(-1|0|1)", row) for row in rows):
        return "list of one class"
    hits = sum(find_xml(annotations, listed_id(row, annotations) or "") is not None for row in rows)
    good = strict or plain or (hits and 2 * hits >= len(rows))
    return "list" if good else None


def _compare(
    lists: dict[str, list[VocPart]], part: VocPart, folders: dict[str, Path], tree: Tree
) -> None:
    """Raise if a list and the folder in which an image lies tell different splits."""
    if len(folders) < 2:
        return
    places = {file.stem: split for split, one in folders.items() for file in tree.images(one)}
    for split, (one, *_) in lists.items():
        if one.listing is None or split not in folders:
            continue
        for line in read_lines(one.listing):
            name = PurePosixPath(listed_id(line.strip(), part.annotations) or "").name
            other = places.get(name, split)
            if other != split and other in lists:
                raise ValueError(
                    f"{one.listing} has {name} in the {split} split, but its image lies in "
                    f"{folders[other]}: correct one of the two"
                )


def _xml_folder(tree: Tree, folder: Path) -> Path | None:
    """Return the folder of the XML files of a VOC folder, None if it is none.

    DIOR has two in Annotations, of upright boxes and of turned ones: the upright come first.
    """
    for one in tree.named(folder, ANNOTATION_FOLDERS):
        if _has_voc(tree, one):
            return one
        inner = [o for o in tree.folders(one) if not folder_split(o) and _has_voc(tree, o)]
        if inner:
            return min(inner, key=lambda place: not place.name.lower().startswith("horizontal"))
    return folder if _has_voc(tree, folder) else None


def _has_voc(tree: Tree, folder: Path) -> bool:
    """Return True for a folder with XML files, unless all looked at are of another format."""
    kinds = [sniff(file) for file in tree.files(folder, ".xml")[:5]]
    unsure = ("XML of no known format", "empty file")
    return VOC in kinds or any(kind in unsure or "unreadable" in kind for kind in kinds)


def _image_folder(tree: Tree, folder: Path, annotations: Path, split: str | None = None) -> Path:
    """Return the folder of the images that belong to XML files: that with most of them.

    Args:
        tree: the file system.
        folder: the VOC folder.
        annotations: the XML files.
        split: a folder of this split comes first.
    """
    if annotations == folder:
        return folder
    stems = {file.stem for file in tree.files(annotations, ".xml")[:SAMPLE]}
    named = tree.named(folder, IMAGE_FOLDERS)
    places = [
        *named,
        folder,
        *(o for o in tree.folders(folder) if not LABEL_PICTURES.fullmatch(o.name)),
    ]
    inner = [one for place in places[: len(named)] for one in tree.folders(place)]
    places += [one for one in inner if folder_split(one) in (None, split)] + [annotations]

    def hits(place: Path) -> tuple[int, bool]:
        own = split is not None and folder_split(place) == split
        return len(stems & {file.stem for file in tree.images(place)}), own

    best = max(dict.fromkeys(places), key=hits)
    if not hits(best)[0]:
        return next(iter(named), folder)
    beginning = f"{IMAGE_FOLDERS[0]}-"  # JPEGImages-trainval and JPEGImages-test
    several = sum(one.name.startswith(beginning) for one in tree.folders(folder)) > 1
    if best.name.startswith(beginning) and split is None and several:
        return folder
    beside = [one for one in inner if one.parent == best.parent and hits(one)[0]]
    return best.parent if best in inner and len(beside) > 1 else best


class ImageFiles:
    """Which files lie in a folder, listed once; names are found in any case."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}
        self._folds: dict[Path, dict[str, list[str]]] = {}
        self._deep: dict[Path, dict[str, list[Path]]] = {}

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._folders:
            files: dict[str, list[str]] = {}
            for name in sorted(file.name for file in folder.iterdir()) if folder.is_dir() else ():
                if not name.startswith("."):
                    files.setdefault(PurePosixPath(name).stem, []).append(name)
            self._folders[folder] = files
            folds: dict[str, list[str]] = {}
            for stem in files:
                folds.setdefault(stem.casefold(), []).append(stem)
            self._folds[folder] = folds
        return self._folders[folder]

    def _named(self, folder: Path, stem: str) -> list[str]:
        """Return the files with a stem; where there is none, those with it in another case."""
        files = self._listed(folder)
        if stem in files:
            return files[stem]
        others = self._folds[folder].get(stem.casefold(), [])
        return files[others[0]] if len(others) == 1 else []

    def _below(self, folder: Path) -> dict[str, list[Path]]:
        """Return the images in the folders below one, by stem; not those of labels."""
        if folder not in self._deep:
            found: dict[str, list[Path]] = {}
            tree = Tree()
            for inner in tree.below(folder, 2):
                if inner != folder and not LABEL_PICTURES.fullmatch(inner.name):
                    for file in tree.images(inner):
                        found.setdefault(file.stem, []).append(file)
            self._deep[folder] = found
        return self._deep[folder]

    def stems(self, folder: Path, suffixes: Sequence[str] | None = None) -> set[str]:
        """Return the names without suffix of the files with one of these suffixes; None: images."""
        wanted = set(image_suffixes() if suffixes is None else suffixes)
        return {
            stem
            for stem, names in self._listed(folder).items()
            if any(PurePosixPath(name).suffix.lower() in wanted for name in names)
        }

    def xml(self, annotations: Path, name: str) -> str | None:
        """Return the id as the name of the XML file has it, None if there is no such file."""
        if find_xml(annotations, name) is not None:
            return name
        try:
            place = (annotations / name).parent
            found = self._named(place, PurePosixPath(f"{name}.xml").stem)
        except (OSError, ValueError):  # a name that the file system refuses
            return None
        stems = [PurePosixPath(file).stem for file in found if file.lower().endswith(".xml")]
        return (place.relative_to(annotations) / stems[0]).as_posix() if stems else None

    def find(self, folder: Path, name: str, named: str) -> Path:
        """Return the image of an id, whether it exists or not.

        Of several with its name (a.jpg, a.png), the one that the XML names, else a JPEG, else the
        first. Without any, the file that the XML names, if it is there.

        Args:
            folder: where the images lie.
            name: the id.
            named: the file name that the XML file gives.
        """
        place = (folder / name).parent
        named = PurePosixPath(named.replace("\\", "/")).name
        having = [
            file
            for file in self._named(place, PurePosixPath(f"{name}.xml").stem)
            if PurePosixPath(file).suffix.lower() not in NOT_IMAGES
        ]
        if having:
            having.sort(key=lambda file: (file != named, not file.lower().endswith("jpg")))
            return place / having[0]
        if named in self._listed(place).get(PurePosixPath(named).stem, ()):
            return place / named
        below = self._below(folder).get(PurePosixPath(f"{name}.xml").stem, [])
        if len(below) == 1:
            return below[0]
        return folder / f"{name}.jpg"


def find_xml(annotations: Path, name: str) -> Path | None:
    """Return the XML file of an id, whatever the case of its suffix; None if there is none."""
    if not name:
        return None
    places = (annotations / f"{name}{suffix}" for suffix in (".xml", ".XML", ".Xml"))
    return next((place for place in places if is_file(place)), None)


def listed_id(line: str, annotations: Path, files: ImageFiles | None = None) -> str | None:
    """Return the id in a line of a list; None in an empty one, or for an image without the class.

    Lists of one class, such as aeroplane_train.txt, have a flag after the id: -1 where the image
    has no object of the class, 1 where it has, 0 where all are difficult. Files are taken for
    their id.

    Args:
        line: without blanks around it.
        annotations: folder of the XML files.
        files: finds ids in another case as well.
    """

    def known(name: str) -> str | None:
        if files is not None:
            return files.xml(annotations, name)
        return name if find_xml(annotations, name) else None

    if not line:
        return None
    if found := known(line):
        return found
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in ("-1", "0", "1"):
        if words[1] == "-1":
            return None
        line = words[0]
    path = PurePosixPath(line.replace("\\", "/"))
    if path.suffix and not known(line):
        for name in (str(path.with_suffix("")), path.stem):  # a.jpg, JPEGImages/a.jpg
            if found := known(name):
                return found
    return known(line) or line
