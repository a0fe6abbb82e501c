"""COCO-Stuff (Caesar et al. 2018): 80 things and 91 stuff classes in the 182 numbers of COCO.

The PNGs of stuffthingmaps hold the ids of the categories less 1; 255 is ignored. Files that end in
_labelTrainIds hold the 171 classes counted from 0.
"""

from __future__ import annotations

from pathlib import Path

from maskwright.structures import IGNORED

from ..folders import IMAGE_FOLDERS, Tree, folder_split
from .classes import ClassTable
from .layout import pictures_in
from .matching import Rule
from .source import MapSource

FORMAT = "coco_stuff"
FOLDERS = ("stuffthingmaps", "stuffthingmaps_trainval2017")
TRAIN_IDS = "_labelTrainIds"
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


def stuff_table(*, train_ids: bool) -> ClassTable:
    """Return the 171 classes by the numbers in the PNGs."""
    names = (*THINGS, *STUFF)
    values = range(len(names)) if train_ids else [number - 1 for number in IDS]
    numbers = {**dict(zip(values, names, strict=True)), IGNORED: ""}
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
    found: dict[str, MapSource] = {}
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
            table=stuff_table(train_ids=not plain),
            rule=Rule(behind="" if plain else TRAIN_IDS),
            whole=False,
            format=FORMAT,
            tree=tree,
        )
    return found


def _has(tree: Tree, folder: Path, ending: str) -> bool:
    return any(file.stem.endswith(ending) for file in tree.images(folder)[:50])
