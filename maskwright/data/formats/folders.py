"""Folders of data sets: names in any case, names of splits, and what lies in a folder.

All names of a split are one and the same: val, valid, validation and dev, in any case. Hidden files
(.DS_Store, ._train.json) are not looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..pixels.kinds import image_suffixes
from ..pixels.mat_file import MAT

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Of two spellings of one name, the one that is written so comes first.
ANNOTATION_FOLDERS = ("annotations", "labels", "annotation", "label", "xml", "xmls", "json")
IMAGE_FOLDERS = (
    *("JPEGImages", "images", "PNGImages", "image", "imgs", "img", "photos", "pictures", "data"),
)
KITTI_IMAGES = ("image_2", "image_02")
LIST_SUFFIXES = (".txt", ".lst", ".list", "")  # of lists of images
# Folders whose pictures are labels or results, not photographs.
LABEL_PICTURES = re.compile(
    r"(?i)masks?|labels?|annotations?|segmentation.*|ground.?truth|gt|runs|overlays?|instances?"
)


def split_name(text: str) -> str | None:
    """Return "train", "val" or "test" for a name like instances_val2017 or valid, else None."""
    words = re.findall("[a-z]+", text.lower())
    for split, aliases in SPLITS.items():
        if any(word in aliases for word in words):
            return split
    return None


def folder_split(folder: Path) -> str | None:
    """Return the split of a folder named train, valid, test2017; not of one named test_project."""
    name = folder.name.lower().rstrip("0123456789")
    return next((split for split, aliases in SPLITS.items() if name in aliases), None)


@dataclass
class _Listing:
    """Names of what lies in a folder, hidden files left out.

    Attributes:
        folders: the folders.
        files: all else, by suffix in lower case.
    """

    folders: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, entry: os.DirEntry[str]) -> None:
        """Take in an entry."""
        name = entry.name
        if name.startswith("."):
            return
        try:
            is_folder = entry.is_dir()
        except OSError:  # a loop of links
            is_folder = False
        if is_folder:
            self.folders.append(name)
            return
        stem, dot, suffix = name.rpartition(".")
        ending = f".{suffix.lower()}" if dot and stem and suffix else ""
        self.files.setdefault(ending, []).append(name)


class Tree:
    """The file system below some folders, each of them listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, _Listing] = {}

    def _list(self, folder: Path) -> _Listing:
        if folder not in self._listed:
            listing = _Listing()
            if folder.is_dir():
                with os.scandir(folder) as entries:  # knows folders without asking for each
                    for entry in entries:
                        listing.add(entry)
            self._listed[folder] = listing
        return self._listed[folder]

    def entries(self, folder: Path) -> list[Path]:
        """Return what lies in a folder, sorted by name, without hidden files; [] if it is none."""
        listing = self._list(folder)
        files = (name for names in listing.files.values() for name in names)
        return [folder / name for name in sorted([*files, *listing.folders])]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted by name."""
        return [folder / name for name in sorted(self._list(folder).folders)]

    def files(self, folder: Path, *suffixes: str) -> list[Path]:
        """Return the files in a folder that end so, in any case, sorted by name."""
        files = self._list(folder).files
        return [folder / n for n in sorted(n for s in set(suffixes) for n in files.get(s, ()))]

    def images(self, folder: Path) -> list[Path]:
        """Return the image files in a folder."""
        return self.files(folder, *image_suffixes())

    def label_maps(self, folder: Path) -> list[Path]:
        """Return the files in a folder that may be label maps: images and MATLAB files."""
        return self.files(folder, *image_suffixes(), MAT)

    def find(self, folder: Path, name: str) -> Path | None:
        """Return an entry by its path below a folder, in any case; as it is written, if it can."""
        for part in name.split("/"):
            exact = folder / part
            if not exact.exists():
                fold = part.casefold()
                near = [e for e in self.entries(folder) if e.name.casefold() == fold]
                if not near:
                    return None
                exact = near[0]
            folder = exact
        return folder

    def named(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """Return the folders in a folder that have one of these names, in any case."""
        order = {name.casefold(): i for i, name in reversed(list(enumerate(names)))}
        found = [e for e in self.folders(folder) if e.name.casefold() in order]
        return sorted(found, key=lambda e: (order[e.name.casefold()], e.name not in names, e.name))

    def below(self, folder: Path, deepest: int) -> Iterable[Path]:
        """Yield a folder and those below it, at most so deep; links are not followed."""
        yield folder
        if deepest:
            for entry in self.folders(folder):
                if not entry.is_symlink():
                    yield from self.below(entry, deepest - 1)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, whatever their ends, without a byte order mark.

    Raises:
        ValueError: if it is missing, no text, or too large.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device, not a text file")
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise ValueError(f"{path} has more than {MAX_LIST_BYTES} bytes: no list of names")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from None


def is_file(path: Path) -> bool:
    """Return True for a file that is there, whatever its name is made of."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the file system refuses
        return False


MAX_LIST_BYTES = 64 * 2**20
