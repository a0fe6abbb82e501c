"""Which label map belongs to which image: by their names, under one rule for the whole folder.

The rule is found in the names themselves: they are equal, or all label maps have something before
or behind the name of their image (`a_mask.png`, `label_a.png`), which itself may say that it is one
(`a_leftImg8bit.png`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...pixels.kinds import image_suffixes
from ...pixels.mat_file import MAT
from ..folders import Tree

DEEPEST = 3  # folders within the folder of a split
VOTES = 200  # label maps whose names tell the rule
SHOWN = 3
# What says of a file that it is the image, before or behind its name proper.
OF_IMAGES = (
    re.compile(r"(?i)[_\-. ]?(leftimg8bit|rgb|image|img|photo|im|original|sat)$"),
    re.compile(r"(?i)^(image|img|rgb|photo|im)[_\-. ]?"),
)
# What says of a file beside the images that it is a label map.
OF_MAPS = re.compile(
    r"(?i)(^(masks?|labels?|seg|gt)[_\-. ].+|.+[_\-. ](masks?|labels?|labelids|labeltrainids|seg"
    r"|segmentation|gt|l|annotation|matte))$"
)
PHOTOS = (".jpg", ".jpeg")
Key = tuple[str, str]  # folder below the root, name without suffix


@dataclass
class Pairs:
    """Images and their label maps.

    Attributes:
        files: pairs of paths.
        lonely_images: images without a label map.
        lonely_maps: label maps without an image.
        passed: files that are not used, and why.
        missing: names of a list that no image has.
    """

    files: list[tuple[Path, Path]] = field(default_factory=list)
    lonely_images: list[Path] = field(default_factory=list)
    lonely_maps: list[Path] = field(default_factory=list)
    passed: list[tuple[Path, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rule:
    """How the name of a label map is made of that of its image.

    Attributes:
        strip: what the name of an image loses first; None: nothing.
        before: what the name of the map has in front.
        behind: what it has at its end.
    """

    strip: re.Pattern[str] | None = None
    before: str = ""
    behind: str = ""

    def core(self, stem: str) -> str:
        """Return what the names of an image and of its label map share."""
        return stem if self.strip is None else self.strip.sub("", stem)


def pair_files(
    tree: Tree,
    images: Path,
    maps: Path,
    rule: Rule | None = None,
    only: Collection[str] | None = None,
) -> Pairs:
    """Return which label map belongs to which image.

    Args:
        tree: the file system.
        images: folder of the images, with folders in it.
        maps: folder of the label maps, with folders of the same names in it; may be the same.
        rule: how names are made; None: it is found.
        only: names of the images, without suffix, that count; None: all.

    Raises:
        ValueError: if no label map fits an image by its name.
    """
    found = Pairs()
    photos, labels = _files(tree, images, tree.images), _files(tree, maps, tree.label_maps)
    if images == maps:
        photos, labels = _apart(photos)
    if rule is None:
        rule = find_rule([stem for _, stem in photos], [stem for _, stem in labels])
    used: set[Key] = set()
    for (folder, stem), files in photos.items():
        key = folder, f"{rule.before}{rule.core(stem)}{rule.behind}"
        if only is not None and stem not in only:
            used.add(key)
            continue
        file = _one(files, found, "image")
        own = labels.get(key)
        if own is None:
            found.lonely_images.append(file)
            continue
        if key in used:
            found.passed.append((file, "its label map is that of another image as well"))
            continue
        used.add(key)
        found.files.append((file, _one(own, found, "label map")))
    found.missing = sorted(set(only or ()).difference(stem for _, stem in photos))
    if only is not None and len(found.missing) == len(only):
        raise ValueError(f"none of the {len(only)} images of the list lies in {images}")
    found.lonely_maps = [
        files[0]
        for key, files in labels.items()
        if key not in used and key[1].startswith(rule.before) and key[1].endswith(rule.behind)
    ]
    if not found.files:
        shown = " and ".join(
            ", ".join(file.name for file in files[:SHOWN]) or "none"
            for files in (found.lonely_images, found.lonely_maps)
        )
        raise ValueError(
            f"no label map in {maps} fits an image in {images} by its name ({shown}): call them "
            "alike, such as a.jpg and a.png, or a.jpg and a_mask.png"
        )
    return found


def _files(tree: Tree, root: Path, those_in: Callable[[Path], list[Path]]) -> dict[Key, list[Path]]:
    """Return the files of a folder by the folder in it and the name without suffix.

    Args:
        tree: the file system.
        root: the folder.
        those_in: returns those of one folder.
    """
    found: dict[Key, list[Path]] = {}
    for folder in tree.below(root, DEEPEST):
        inside = folder.relative_to(root).as_posix()
        for file in those_in(folder):
            found.setdefault((inside, file.stem), []).append(file)
    return found


def _one(files: Sequence[Path], found: Pairs, what: str) -> Path:
    """Return the file of a name: of several label maps a PNG or its like; the others are told."""
    last = ("", MAT, *PHOTOS)

    def order(file: Path) -> tuple[int, str]:
        suffix = file.suffix.lower()
        return last.index(suffix if suffix in last else ""), file.name

    first, *others = sorted(files, key=order) if what == "label map" else files
    found.passed += [(other, f"{first.name} is the {what} of this name") for other in others]
    return first


def _apart(files: Mapping[Key, list[Path]]) -> tuple[dict[Key, list[Path]], dict[Key, list[Path]]]:
    """Return the images and the label maps of one folder: by their names, else by JPEG and PNG."""
    named = {key: own for key, own in files.items() if OF_MAPS.fullmatch(key[1])}
    if named:
        return {key: own for key, own in files.items() if key not in named}, named
    photos = {k: [f for f in own if f.suffix.lower() in PHOTOS] for k, own in files.items()}
    others = {k: [f for f in own if f.suffix.lower() not in PHOTOS] for k, own in files.items()}
    return {k: v for k, v in photos.items() if v}, {k: v for k, v in others.items() if v}


def lie_together(tree: Tree, folder: Path) -> bool:
    """Return whether a folder has images with their label maps beside them."""
    files: dict[Key, list[Path]] = {}
    for file in tree.images(folder):
        files.setdefault((".", file.stem), []).append(file)
    photos, labels = _apart(files)
    if not photos or not labels:
        return False
    rule = find_rule([stem for _, stem in photos], [stem for _, stem in labels])
    keys = {(place, f"{rule.before}{rule.core(stem)}{rule.behind}") for place, stem in photos}
    return 2 * len(keys & labels.keys()) >= len(photos)


def find_rule(images: Sequence[str], maps: Sequence[str]) -> Rule:
    """Return the rule that most names follow.

    Args:
        images: names of images without suffix.
        maps: names of label maps.

    Example:
        >>> find_rule(["a", "b"], ["a_mask", "b_mask", "c_mask"]).behind
        '_mask'
    """
    step = max(len(maps) // VOTES, 1)
    best: tuple[int, Rule] = (0, Rule())
    for strip in (None, *OF_IMAGES):
        bare = Rule(strip)
        cores = {bare.core(stem) for stem in images} - {""}
        votes = Counter(found for stem in maps[::step] if (found := _affixes(stem, cores)))
        for (before, behind), count in votes.most_common(1):
            if count > best[0] and 2 * count >= min(len(images), len(maps[::step])):
                best = count, Rule(strip, before, behind)
    return best[1]


def _affixes(stem: str, cores: set[str]) -> tuple[str, str] | None:
    """Return what a name has before and behind that of an image, the longest it fits; or None."""
    if stem in cores:
        return "", ""
    for size in range(len(stem) - 1, 0, -1):
        if stem[:size] in cores and not _in_a_number(stem, size):
            return "", stem[size:]
        if stem[-size:] in cores and not _in_a_number(stem, len(stem) - size):
            return stem[:-size], ""
    return None


def _in_a_number(text: str, place: int) -> bool:
    """Return whether a cut goes through a number: 10 is no 1 with something behind."""
    return text[place - 1].isdigit() and text[place].isdigit()


def listed_names(lines: Iterable[str]) -> set[str]:
    """Return the names without suffix of the images in a list: ids or paths, the first of two."""
    endings = image_suffixes()
    names: set[str] = set()
    for line in lines:
        text = line.strip().replace("\\", "/")
        paths = [PurePosixPath(part) for part in text.split()]
        if len(paths) > 1 and all(path.suffix.lower() in endings for path in paths):
            text = str(paths[0])
        if text:
            path = PurePosixPath(text)
            names.add(path.stem if path.suffix.lower() in endings else path.name)
    return names
