"""Images that are called otherwise in the annotations than on the disk.

An image is looked for by its path first. Failing that, it may be a file with the same name in
another folder of the images, in another case, with the name URL-encoded, or with the eight digits
before it that Label Studio adds to uploads: but only if exactly one file is so called, and no other
image claims it. Only folders of the images are searched, those of other splits left out, and no
path is followed out of them; of an absolute path of another machine, only its end counts.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from ..formats.folders import LABEL_PICTURES, Tree, folder_split
from ..pixels.opening import file_problem

DEEPEST = 4  # levels of folders that are searched
MOST = 500_000  # files that are searched
UPLOAD = re.compile(r"(?i)^[0-9a-f]{8}-(?=.)")
SUGGESTIONS = 3  # of missing images; the others are alike


class ImageNames:
    """The image files in some folders, to be found by names that are not quite theirs."""

    def __init__(self, roots: Sequence[Path], split: str) -> None:
        self.roots = roots
        self.split = split
        self.asked = 0

    @cached_property
    def files(self) -> list[Path]:
        """All image files, each once, those of other splits and pictures of labels left out."""
        tree = Tree()
        found: dict[Path, None] = {}
        for root in self.roots:
            self._collect(tree, root, DEEPEST, found)
        return list(found)

    def _collect(self, tree: Tree, folder: Path, deepest: int, found: dict[Path, None]) -> None:
        if len(found) > MOST:
            return
        try:
            found.update(dict.fromkeys(tree.images(folder)))
            folders = tree.folders(folder) if deepest else []
        except OSError:  # may not be read
            return
        for one in folders:
            other = folder_split(one) not in (None, self.split)
            if not (other or one.is_symlink() or LABEL_PICTURES.fullmatch(one.name)):
                self._collect(tree, one, deepest - 1, found)

    @cached_property
    def _tables(self) -> tuple[dict[str, list[Path]], ...]:
        """Files by name, by name in any case, and by that without the digits of an upload."""
        tables: tuple[dict[str, list[Path]], ...] = ({}, {}, {})
        for file in self.files:
            fold = _folded(file.name)
            for table, key in zip(tables, (file.name, fold, UPLOAD.sub("", fold)), strict=True):
                table.setdefault(key, []).append(file)
        return tables

    def find(self, name: str) -> tuple[Path, str] | None:
        """Return the one file that an image may be, and how it differs; None if there is not one.

        Args:
            name: path of the image with forward slashes, which was not found as it is.
        """
        base = PurePosixPath(name).name
        exact, fold, plain = self._tables
        plainer = _folded(unquote(base))
        for table, key, how in (
            (exact, base, "in another folder"),
            (fold, _folded(base), "in another case or form of Unicode"),
            (fold, plainer, "with the name decoded"),
            (plain, UPLOAD.sub("", plainer), "without, or with, the digits of an upload"),
        ):
            files = table.get(key, [])
            if files:
                file = _nearest_tail(files, name)
                return None if file is None else (file, how)
        return None

    def suggest(self, name: str) -> str:
        """Return "; did you mean ...?" for an image that is not found, "" if nothing is near."""
        self.asked += 1
        if self.asked > SUGGESTIONS:
            return ""
        path = PurePosixPath(name.replace("\\", "/"))
        exact = self._tables[0].get(path.name, [])
        if len(exact) > 1:
            return f": several are called so, {', '.join(map(str, exact[:3]))}"
        if exact:
            return f"; did you mean {self._shown(exact[0])!r}?"
        stem = path.stem.casefold()
        same = [file for file in self.files if file.stem.casefold() == stem]
        if same:
            return f"; did you mean {self._shown(same[0])!r}, with another suffix?"
        # Of numbered files, a near name with another number is another image.
        digits = re.findall(r"\d+", path.stem)
        names = {
            file.name: file
            for file in self.files[:20_000]
            if re.findall(r"\d+", file.stem) == digits
        }
        near = difflib.get_close_matches(path.name, names, 1, 0.6)
        return f"; did you mean {self._shown(names[near[0]])!r}?" if near else ""

    def _shown(self, file: Path) -> str:
        """Return the path as the annotations would name it."""
        root = next(root for root in self.roots if file.is_relative_to(root))
        return file.relative_to(root).as_posix()

    def places(self) -> str:
        """Return where was looked, and what lies there."""
        there = f", which hold {len(self.files)} image(s)" if self.files else ", which hold none"
        such = f" such as {self._shown(self.files[0])!r}" if self.files else ""
        return f"looked for images in {', '.join(str(root) for root in self.roots)}{there}{such}"


def _folded(name: str) -> str:
    """Return a name without its case; macOS takes accented letters apart, others do not."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _nearest_tail(files: list[Path], name: str) -> Path | None:
    """Return the file whose folders are most like those of a name; None if several are."""
    wanted = [part.casefold() for part in reversed(PurePosixPath(name).parts)]

    def alike(file: Path) -> int:
        pairs = zip([part.casefold() for part in reversed(file.parts)], wanted, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], islice(pairs, 1, None)))

    best = max(map(alike, files))
    having = [file for file in files if alike(file) == best]
    return having[0] if len(having) == 1 else None


def common_root(root: Path, files: Sequence[Path]) -> Path:
    """Return the folder below which a root and some files lie."""
    if all(file.is_relative_to(root) for file in files):
        return root
    return Path(os.path.commonpath([root, *(file.parent for file in files)]))


def clean_path(name: str) -> str | None:
    """Return a relative path with forward slashes, or None if it leads out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        return None
    text = str(path)
    try:
        # Half of a surrogate pair may stand for a byte of a file name that is no UTF-8.
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return None if text == "." else text


def foreign_name(name: str, files: ImageNames) -> str | None:
    """Return an absolute path of another machine without its beginning, if its image is here."""
    parts = PureWindowsPath(name).parts  # both kinds of slashes
    if not PureWindowsPath(name).anchor or ".." in parts:
        return None
    clean = clean_path("/".join(parts[1:]))
    return clean if clean and files.find(clean) is not None else None


def lexists(path: Path) -> bool:
    """Return True for a name that is there, be it a file, a folder or a broken link."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False


def best_root(roots: Sequence[Path], names: list[str]) -> Path:
    """Return the folder that holds most of a sample of the files, the first of equals."""
    sample = names[:: max(len(names) // 20, 1)]
    return max(roots, key=lambda root: sum(file_problem(root / name) is None for name in sample))
