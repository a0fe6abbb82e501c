"""COCO-Stuff (Caesar et al. 2018): 80 things and 91 stuff classes in the 182 numbers of COCO.

The PNGs of stuffthingmaps hold the ids of the categories less 1; 255 is ignored. Files that end in
_labelTrainIds hold the 171 classes counted from 0. The MATLAB files of COCO-Stuff 10k hold the ids
themselves; 0 is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from maskwright.structures import IGNORED

from ...pixels.mat_file import MAT
from ..folders import IMAGE_FOLDERS, Tree, folder_split
from .classes import ClassTable
from .layout import by_lists, pictures_in, split_lists
from .matching import Rule
from .source import MapSource

FORMAT = "coco_stuff"
FOLDERS = ("stuffthingmaps", "stuffthingmaps_trainval2017")
TRAIN_IDS = "_labelTrainIds"
OF_COCO = "COCO_"  # names of the images of COCO 2014, which are those of COCO-Stuff 10k
THINGS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
STUFF = (
    *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage"),
    *("cardboard", "carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds"),
    *("counter", "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence"),
    *("floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog"),
    *("food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house"),
    *("leaves", "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin"),
    *("net", "paper", "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield"),
    *("railing", "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea"),
    *("shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw"),
    *("structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable"),
    *("wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile"),
    *("wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood"),
)
REMOVED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # ids that COCO left without a class
IDS = [number for number in range(1, 183) if number not in REMOVED]


def stuff_table(values: Iterable[int], ignored: int = IGNORED) -> ClassTable:
    """Return the 171 classes by the numbers in the label maps."""
    names = (*THINGS, *STUFF)
    numbers = {**dict(zip(values, names, strict=True)), ignored: ""}
    return ClassTable(names, numbers, source="the table of COCO-Stuff")


def find_stuff(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of COCO-Stuff, {} for others."""
    places = tree.named(path, FOLDERS)
    if not places:  # as mmsegmentation lays it out
        places = [
            one
            for one in tree.named(path, ("annotations",))
            if any(_has(tree, inner, TRAIN_IDS) for inner in tree.folders(one))
        ]
    if not places and (found := _ten_thousand(tree, path)):
        return found
    found = {}
    for maps in tree.folders(places[0]) if places else ():
        split = folder_split(maps)
        bases = (*tree.named(path, IMAGE_FOLDERS), path)
        images = next((one for base in bases for one in tree.named(base, (maps.name,))), None)
        if split is None or images is None or not pictures_in(tree, images):
            continue
        plain = any(not file.stem.endswith(TRAIN_IDS) for file in tree.images(maps))
        found[split] = MapSource(
            (maps,),
            images,
            table=stuff_table([number - 1 for number in IDS] if plain else range(len(IDS))),
            rule=Rule(behind="" if plain else TRAIN_IDS),
            whole=False,
            format=FORMAT,
            tree=tree,
        )
    return found


def _ten_thousand(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of COCO-Stuff 10k, {} for others."""
    for maps in tree.named(path, ("annotations",)):
        images = next(iter(tree.named(path, ("images",))), None)
        first = next(iter(tree.files(maps, MAT)), None)
        if images is None or first is None or not first.stem.startswith(OF_COCO):
            continue
        table = stuff_table(IDS, ignored=0)
        source = MapSource((maps,), images, table=table, whole=False, format=FORMAT, tree=tree)
        return by_lists(source, split_lists(tree, path)) or {"train": source}
    return {}


def _has(tree: Tree, folder: Path, ending: str) -> bool:
    return any(file.stem.endswith(ending) for file in tree.images(folder)[:50])
