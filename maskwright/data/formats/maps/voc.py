"""Pascal VOC's label maps (Everingham et al. 2010): SegmentationClass, and the augmented set.

SegmentationClass has palette PNGs, whose border of 255 is ignored. SegmentationClassAug holds the
maps of SBD (Hariharan et al. 2011) in the same numbers, mostly without that border; its images are
those of a list trainaug. SBD itself has them as MATLAB files in a folder cls beside img. The 20
classes are VOC's where the images are; elsewhere a file such as class_names.txt or CVAT's
labelmap.txt beside the folders tells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from maskwright.drawing.label_maps import voc_palette
from maskwright.structures import IGNORED

from ...pixels.mat_file import MAT
from ..folders import IMAGE_FOLDERS, Tree
from ..source import passed_over
from .classes import ClassTable, find_table
from .layout import by_lists, split_lists
from .source import MapSource

FORMAT = "voc"
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
OWN, AUGMENTED = "SegmentationClass", "SegmentationClassAug"
SBD = "cls"
VOC_IMAGE = re.compile(r"20\d\d_\d{6}")
AUG_LISTS = ("trainaug", "train_aug")


def voc_table() -> ClassTable:
    """Return VOC's 20 classes and the background, by number and by colour."""
    numbers = {**dict(enumerate(CLASSES)), IGNORED: ""}
    red, green, blue = voc_palette().T.tolist()
    colors = {(red[i], green[i], blue[i]): name for i, name in numbers.items()}
    return ClassTable(CLASSES, numbers, colors, source="the table of Pascal VOC")


def find_voc_maps(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of a Pascal VOC folder with label maps, {} for others.

    Raises:
        ValueError: if several folders have some.
    """
    places = [path, *tree.folders(path)]
    places += [one for kit in tree.named(path, ("VOCdevkit",)) for one in tree.folders(kit)]
    found = [one for one in places if _map_folders(tree, one)]
    if not found:
        return {}
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(map(str, found))} have label maps each: give one of them as data="
        )
    return _splits(tree, found[0])


def _map_folders(tree: Tree, folder: Path) -> list[Path]:
    """Return the folders of label maps in one, those of VOC or that of SBD."""
    of_sbd = [one for one in tree.named(folder, (SBD,)) if tree.files(one, MAT)]
    return tree.named(folder, (OWN, AUGMENTED)) or of_sbd


def _splits(tree: Tree, folder: Path) -> dict[str, MapSource]:
    maps = _map_folders(tree, folder)
    images = next((one for one in tree.named(folder, IMAGE_FOLDERS) if tree.images(one)), folder)
    voc = any(VOC_IMAGE.fullmatch(file.stem) for file in tree.images(images)[:20])
    counted = None if voc else _of_objects(tree, folder)
    source = MapSource(
        tuple(maps),
        images,
        () if counted else (folder, folder.parent),
        voc_table() if voc else counted,
        whole=False,
        format=FORMAT,
        tree=tree,
    )
    sets = [one for outer in tree.named(folder, ("ImageSets",)) for one in tree.folders(outer)]
    own = [one for one in sets if one.name.lower().startswith("segmentation")]
    lists = split_lists(tree, folder, [one.name for one in own])
    if of_maps := {split: file for split, file in lists.items() if file.parent in own}:
        lists = of_maps
    splits = by_lists(source, dict(lists)) or {"train": source}
    augmented = [file for base in own for file in _lists(tree, base, AUG_LISTS)]
    if augmented and maps[-1].name.lower() == AUGMENTED.lower():
        more = replace(source, maps=tuple(reversed(maps)), listing=augmented[0])
        if (usual := splits.get("train")) is not None and usual.listing is not None:
            why = f"{augmented[0].name}, for which {maps[-1].name} is there, is the train split"
            more = replace(more, faults=(passed_over(usual.listing, why),))
        splits = {**splits, "train": more}
    return splits


def _of_objects(tree: Tree, folder: Path) -> ClassTable | None:
    """Return the classes of maps beside objects whose list of classes has no background.

    It is the list of the objects, then, and their first class has the number 1.
    """
    table = find_table(tree, (folder, folder.parent))
    if not tree.named(folder, ("Annotations",)) or table is None or not table.counted:
        return None
    if table.names[0].strip("_").lower() == CLASSES[0]:
        return None
    names = (CLASSES[0], *table.names)
    return ClassTable(names, {**dict(enumerate(names)), IGNORED: ""}, source=table.source)


def _lists(tree: Tree, folder: Path, names: Iterable[str]) -> list[Path]:
    return [file for file in tree.files(folder, ".txt") if file.stem.lower() in names]
