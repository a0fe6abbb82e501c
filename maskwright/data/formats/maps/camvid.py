"""CamVid (Brostow et al. 2009) as it is handed out, and in the 11 classes of SegNet's tutorial.

As handed out the label maps are `*_L.png` in colours, with label_colors.txt. SegNet's tutorial has
train/ + trainannot/ with the numbers 0 to 10, and 11 for what is ignored.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from maskwright.structures import IGNORED

from ..folders import Tree
from .classes import ClassTable
from .layout import by_lists, find_maps, split_lists
from .source import MapSource

FORMAT = "camvid"
CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car"),
    *("Pedestrian", "Bicyclist"),
)
VOID = 11
FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
IMAGES, MAPS = "701_StillsRaw_full", "LabeledApproved_full"


def find_camvid(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of CamVid in one of the two forms, {} for others."""
    images, maps = tree.named(path, (IMAGES,)), tree.named(path, (MAPS,))
    if images and maps:
        source = MapSource(
            (maps[0],), images[0], (maps[0], path), whole=False, format=FORMAT, tree=tree
        )
        lists = split_lists(tree, path)
        return by_lists(source, lists) if lists else {"train": source}
    if not any(one.name.lower().endswith("annot") for one in tree.folders(path)):
        return {}
    found = find_maps(tree, path)
    frames = [file.stem for one in found.values() for file in tree.images(one.images)[:5]]
    if not frames or not all(map(FRAME.fullmatch, frames)):
        return {}
    numbers = {**dict(enumerate(CLASSES)), VOID: "", IGNORED: ""}
    table = ClassTable(CLASSES, numbers, source="the 11 classes of SegNet's CamVid")
    return {split: replace(one, table=table, format=FORMAT) for split, one in found.items()}
