"""Cityscapes (Cordts et al. 2016): 19 classes, from the ids of the label maps or their train ids.

What is no class (-1 to 6, 9, 10, 14 to 16, 18, 29, 30) is ignored.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from maskwright.structures import IGNORED

from ..folders import Tree, folder_split
from ..source import passed_over
from .classes import ClassTable
from .matching import Rule
from .source import MapSource

FORMAT = "cityscapes"
CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LAST_ID = 33
IMAGES, MAPS = "leftImg8bit", ("gtFine", "gtCoarse")
STRIP = re.compile(r"_leftImg8bit$")


def ids_table() -> ClassTable:
    """Return the classes by the ids of the label maps."""
    ignored = dict.fromkeys([*range(LAST_ID + 1), IGNORED], "")
    numbers = {**ignored, **dict(zip(IDS, CLASSES, strict=True))}
    return ClassTable(CLASSES, numbers, source="the ids of Cityscapes")


def train_ids_table() -> ClassTable:
    """Return the classes by their train ids."""
    numbers = {**dict(enumerate(CLASSES)), IGNORED: ""}
    return ClassTable(CLASSES, numbers, source="the train ids of Cityscapes")


def find_cityscapes(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of Cityscapes, {} for others."""
    images, maps = tree.named(path, (IMAGES,)), tree.named(path, MAPS)
    found: dict[str, MapSource] = {}
    for folder in tree.folders(images[0]) if images and maps else ():
        split = folder_split(folder)
        labels = tree.find(maps[0], folder.name)
        if split is None or labels is None:
            continue
        endings = {file.stem.rpartition("_")[2] for file in _first_images(tree, labels)}
        ids = "labelIds" in endings
        if not ids and "labelTrainIds" not in endings:
            continue
        ending = "labelIds" if ids else "labelTrainIds"
        source = MapSource(
            (labels,),
            folder,
            table=ids_table() if ids else train_ids_table(),
            rule=Rule(STRIP, behind=f"_{maps[0].name}_{ending}"),
            format=FORMAT,
            tree=tree,
        )
        if ids and "labelTrainIds" in endings:
            fault = passed_over(
                labels / "*_labelTrainIds.png", "the train ids are made of labelIds"
            )
            source = replace(source, faults=(fault,))
        found[split] = source
    return found


def _first_images(tree: Tree, folder: Path) -> list[Path]:
    """Return the images of the first folder that has some."""
    return next((files for one in tree.below(folder, 1) if (files := tree.images(one))), [])
