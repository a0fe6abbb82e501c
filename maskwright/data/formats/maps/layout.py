"""Plain folders of images and label maps: images/ + masks/, for each split or for all of them.

A folder of label maps is known by its name and by the images in it. Where two folders could be it,
that is an error: which one is meant cannot be seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...records import Fault
from ..coco import find as coco
from ..coco.layout import CocoFinder
from ..folders import IMAGE_FOLDERS, SPLITS, Tree, folder_split, split_name
from ..source import passed_over
from ..voc.layout import LIST_FOLDERS, STAND_IN
from .matching import lie_together
from .source import MapSource

OF_IMAGES = (*IMAGE_FOLDERS, "frames", "rgb", "leftImg8bit", "input", "inputs", "original", "raw")
WORDS = (
    r"(masks?|labels?|annotations?|annot|gts?|ground[_-]?truths?|seg|segmentations?|label[_-]?maps?"
    r"|label[_-]?images?|targets?|semantic|segmentation[_-]?(class|maps?|masks?))"
)
OF_MAPS = re.compile(rf"(?i)((png|class|semantic|binary|index|train)[_-]?)?{WORDS}")
BESIDE = re.compile(rf"(?i)[_-]?{WORDS}")  # behind the name of the folder of images
ANNOT = re.compile(r"(?i)annot")  # the same where the folder is called as no split is
DEEPEST = 3


def find_maps(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of plain folders of label maps, {} for others.

    Raises:
        ValueError: if two folders may hold the label maps, or two are the same split.
    """
    for find in (_side_by_side, _for_each_split, _with_suffix):
        if found := find(tree, path):
            return found
    if lie_together(tree, path):
        return _listed(tree, path, _source(tree, path, path))
    return {}


def _source(tree: Tree, images: Path, maps: Path, *above: Path) -> MapSource:
    beside = (maps, maps.parent, images.parent, images, *above)
    return MapSource((maps,), images, tuple(dict.fromkeys(beside)), tree=tree)


def pictures_in(tree: Tree, folder: Path) -> bool:
    """Return whether there are images in a folder or a little below."""
    return any(tree.images(one) for one in tree.below(folder, DEEPEST))


def maps_in(tree: Tree, folder: Path) -> bool:
    """Return whether there are images or MATLAB files in a folder or a little below."""
    return any(tree.label_maps(one) for one in tree.below(folder, DEEPEST))


def map_folder(tree: Tree, path: Path) -> Path | None:
    """Return the folder of label maps in a folder, None if there is none.

    Raises:
        ValueError: if there are several.
    """
    named = [one for one in tree.folders(path) if OF_MAPS.fullmatch(one.name)]
    found = [one for one in named if pictures_in(tree, one)]
    found = found or [one for one in named if maps_in(tree, one)]
    if len(found) > 1:
        raise ValueError(
            f"{path} has the folders {' and '.join(one.name for one in found)}: which are the "
            f"label maps? Name them in a YAML file, as in masks: {found[0].name}, or move the "
            "other elsewhere"
        )
    return found[0] if found else None


def _pair(tree: Tree, path: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of label maps side by side in a folder."""
    images = [one for one in tree.named(path, OF_IMAGES) if pictures_in(tree, one)]
    if not images and not tree.images(path):
        return None
    maps = map_folder(tree, path)
    return None if maps is None else (images[0] if images else path, maps)


def _side_by_side(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of images/ + masks/, with folders of splits in both, or lists, or none."""
    pair = _pair(tree, path)
    if pair is None:
        return {}
    images, maps = pair
    photos, labels = _splits(tree, images), _splits(tree, maps, maps_in)
    if images == path or not photos:
        return _listed(tree, path, _source(tree, images, maps, path))
    found = {
        split: replace(_source(tree, folder, labels.get(split, maps), path), whole=bool(labels))
        for split, folder in photos.items()
        if split in labels or not labels
    }
    left = [
        passed_over(folder, "there are no label maps of this split")
        for split, folder in photos.items()
        if split not in found
    ]
    return _first_tells(found, tuple(left))


def _splits(
    tree: Tree, folder: Path, filled: Callable[[Tree, Path], bool] = pictures_in
) -> dict[str, Path]:
    """Return the folders of splits in a folder, those with files of the kind that is wanted."""
    found: dict[str, Path] = {}
    for one in tree.folders(folder):
        split = folder_split(one)
        if split is None or not filled(tree, one):
            continue
        if split in found:
            raise ValueError(f"{found[split]} and {one} are both the {split} split: leave one")
        found[split] = one
    return found


def _first_tells(found: dict[str, MapSource], faults: tuple[Fault, ...]) -> dict[str, MapSource]:
    if found and faults:
        first = next(iter(found))
        found[first] = replace(found[first], faults=faults)
    return found


def _for_each_split(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of train/images/ + train/masks/, or of both in train/."""
    found: dict[str, MapSource] = {}
    for split, folder in _splits(tree, path).items():
        pair = _pair(tree, folder)
        if pair is None and lie_together(tree, folder):
            pair = folder, folder
        if pair is not None:
            found[split] = _source(tree, *pair, path)
    return found


def _with_suffix(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of train/ + train_labels/, or train/ + trainannot/; or a lone pair."""
    found: dict[str, MapSource] = {}
    splits = _splits(tree, path)
    others = {} if splits else {one.name: one for one in tree.folders(path)}
    for split, folder in (splits or others).items():
        maps = [
            one
            for one in tree.folders(path)
            if one.name.lower().startswith(folder.name.lower())
            and (BESIDE if splits else ANNOT).fullmatch(one.name[len(folder.name) :])
            and maps_in(tree, one)
        ]
        if len(maps) > 1:
            raise ValueError(
                f"{' and '.join(map(str, maps))} may both be the label maps of {folder}: leave one"
            )
        if maps and pictures_in(tree, folder):
            found[split] = _source(tree, folder, maps[0])
    if others and len(found) == 1:  # CVAT's default/ + defaultannot/
        return {"train": next(iter(found.values()))}
    return {} if others else found


def _listed(tree: Tree, path: Path, source: MapSource) -> dict[str, MapSource]:
    """Return the splits of images that lists divide; all as train without lists."""
    lists = split_lists(tree, path)
    if not lists:
        return {folder_split(path) or "train": source}
    return by_lists(source, lists)


def by_lists(source: MapSource, lists: dict[str, Path]) -> dict[str, MapSource]:
    """Return the splits that lists make of a folder: trainval is train where no list is."""
    both = lists.pop(STAND_IN, None)
    found = {split: replace(source, listing=file, whole=False) for split, file in lists.items()}
    if "train" not in found and both is not None:
        found["train"] = replace(source, listing=both, without=tuple(lists.values()), whole=False)
    return {split: found[split] for split in SPLITS if split in found}


def split_lists(tree: Tree, path: Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """Return the lists of a folder called as splits are, by split or "trainval".

    Args:
        tree: the file system.
        path: the folder; lists lie in it, or in ImageSets and the folders there.
        names: folders in ImageSets that come first.
    """
    sets = tree.named(path, ("ImageSets",))
    inner = [one for outer in sets for one in tree.named(outer, names)]
    inner += [one for outer in sets for one in tree.folders(outer)]
    found: dict[str, Path] = {}
    for base in dict.fromkeys((*inner, *sets, path, *tree.named(path, LIST_FOLDERS))):
        for file in tree.files(base, ".txt", ".lst"):
            name = file.stem.lower()
            if name == STAND_IN:
                found.setdefault(name, file)
            elif any(name in aliases for aliases in SPLITS.values()):
                found.setdefault(str(split_name(name)), file)
    return found


def with_polygons(found: dict[str, MapSource], finder: CocoFinder) -> dict[str, MapSource]:
    """Return the splits, each with the COCO JSON of the same folder, which must agree with it."""
    if not found or not finder.usable:
        return found
    finds = (coco.named_splits, coco.listed_splits, coco.folder_splits, coco.single)
    objects = next((splits for find in finds if (splits := find(finder))), {})
    other = next(iter(objects.values()), None)
    return {
        split: replace(source, polygons=objects.get(split, other))
        for split, source in found.items()
    }
