"""Files of labels, one to an image: which belong to which split, and where the images are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..pixels.images import image_header
from ..pixels.kinds import image_suffixes
from ..records import Fault
from .folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    Tree,
    folder_split,
    read_lines,
    split_name,
)
from .sniff import is_kind
from .source import BaseSource, passed_over

DEEPEST = 4
SAMPLE = 5  # files of a folder that tell what the others are
CLASS_FILES = ("labels.txt", "classes.txt", "class_names.txt")
JOINT_FILE = "keypoints.txt"
HEADINGS = ("__ignore__", "_background_", "__background__")  # lines of labels.txt: no classes


@dataclass(frozen=True, kw_only=True)
class FilesSource(BaseSource):
    """Where one split lies: files of labels.

    Attributes:
        root: the data set; no image outside it is read.
        files: the files of labels.
        folder: what errors name.
    """

    root: Path
    files: tuple[Path, ...]
    folder: Path

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the folder, or the file if there is one only."""
        return self.files[0] if len(self.files) == 1 else self.folder

    @property
    def beside(self) -> tuple[Path, ...]:
        """All of the files."""
        return self.files


def size_of(image: Path) -> tuple[int, int] | None:
    """Return (height, width) of an image whose labels do not tell them; None if it has none."""
    try:
        return image_header(image).size
    except ValueError:  # the builder tells
        return None


def files_by_split(
    tree: Tree, path: Path, suffix: str, fits: Callable[[Path], bool]
) -> tuple[dict[str, list[Path]], tuple[Fault, ...]]:
    """Return the files of labels below a folder by split, and what is passed over.

    The split is that of the nearest folder that is called so; where none is, all are train.

    Args:
        tree: the file system.
        path: the folder.
        suffix: of the files.
        fits: whether a file is of the format; asked for some of each folder.
    """
    found: dict[str, list[Path]] = {}
    for folder in tree.below(path, DEEPEST):
        files = tree.files(folder, suffix)
        step = max(len(files) // SAMPLE, 1)
        if any(map(fits, files[::step])):
            inner = [folder, *folder.parents[: len(folder.relative_to(path).parts)]]
            split = next((own for one in inner if (own := folder_split(one))), "")
            found.setdefault(split, []).extend(one for one in files if fits(one))
    faults: tuple[Fault, ...] = ()
    if set(found) == {""}:
        found = {"train": found[""]}
    elif rest := found.pop("", []):
        why = f"it and {len(rest) - 1} others lie in no folder of a split, and others do"
        faults = (passed_over(rest[0], why),)
    return found, faults


def file_of_split(
    tree: Tree, path: Path, suffix: str, fits: str | Callable[[Path], bool]
) -> dict[str, Path]:
    """Return the one file of each split, by its name or that of its folder; a lone one is train.

    Args:
        tree: the file system.
        path: the folder; files lie in it, in a folder of annotations, or in those of splits.
        suffix: of the files.
        fits: what `sniff` calls the format, or whether a file is of it.

    Raises:
        ValueError: if two are of one split, or nothing tells which is which.
    """
    splits = [one for one in tree.folders(path) if folder_split(one)]
    places = [path, *tree.named(path, ANNOTATION_FOLDERS), *splits]
    places += [one for outer in splits for one in tree.named(outer, ANNOTATION_FOLDERS)]
    found: dict[str, Path] = {}
    is_one = partial(is_kind, suffix=suffix, kind=fits) if isinstance(fits, str) else fits
    files = [file for place in places for file in tree.files(place, suffix) if is_one(file)]
    for file in files:
        inner = [file.parent, *file.parent.parents[: len(file.parent.relative_to(path).parts)]]
        told = next((own for one in inner if (own := folder_split(one))), "")
        split = split_name(file.stem) or told
        if split in found:
            of = f"both of the {split} split" if split else "of no split by their names"
            raise ValueError(
                f"{found[split]} and {file} are {of}: name them train and val, or give one as data="
            )
        found[split] = file
    if set(found) == {""}:
        found = {"train": found[""]}
    elif "" in found:
        raise ValueError(
            f"{found['']} is of no split by its name, and others are: name it train or val"
        )
    return found


def image_roots(file: Path, split: str) -> list[Path]:
    """Return the folders that the paths in a file of labels may be relative to."""
    tree, here = Tree(), file.parent
    bases = [here, here.parent] if here.name.lower() in ANNOTATION_FOLDERS else [here]
    roots = [place for base in bases for place in (base, *tree.named(base, IMAGE_FOLDERS))]
    inner = [one for root in roots for one in tree.folders(root) if folder_split(one) == split]
    return list(dict.fromkeys([*roots, *inner]))


def image_of_id(name: str, roots: Sequence[Path]) -> str:
    """Return the path of the image of an id: with the suffix that it has in one of the folders."""
    tried = (f"{name}{suffix}" for suffix in ("", *sorted(image_suffixes())))
    return next((one for one in tried if any((root / one).is_file() for root in roots)), name)


def listed_names(root: Path, files: list[Path] | tuple[Path, ...]) -> list[str] | None:
    """Return the class names that a text file beside labels, or at the top, lists; None without."""
    for folder in dict.fromkeys((*(file.parent for file in files[:50]), root)):
        for name in CLASS_FILES:
            if (folder / name).is_file():
                lines = [line.strip() for line in read_lines(folder / name)]
                return [line for line in dict.fromkeys(lines) if line and line not in HEADINGS]
    return None


def listed_joints(root: Path) -> list[str]:
    """Return the names of keypoints that a text file at the top lists; [] without."""
    file = root / JOINT_FILE
    lines = [line.strip() for line in read_lines(file)] if file.is_file() else []
    return [line for line in dict.fromkeys(lines) if line]


def below(root: Path, folder: Path, name: str) -> str:
    """Return the path of an image below the root; of one that leads out of it, the name alone.

    Args:
        root: the data set.
        folder: what the path is relative to, below the root.
        name: as written, with either kind of slashes.
    """
    parts: list[str] = list(folder.relative_to(root).parts)
    text = name.replace("\\", "/")
    if text.startswith("/") or ":" in text.split("/")[0]:
        return name  # of another machine; the builder goes by its end
    for part in text.split("/"):
        if part == "..":
            if not parts:
                return text.rsplit("/", 1)[-1]
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def beside(file: Path) -> Path | None:
    """Return the image beside a file of labels that has its name, None without."""
    for suffix in sorted(image_suffixes()):
        for one in (file.with_suffix(suffix), file.with_suffix(suffix.upper())):
            if one.is_file():
                return one
    return None
