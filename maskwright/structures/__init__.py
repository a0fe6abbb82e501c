"""The types that cross layers, and the rules by which photos become network input."""

from .instances import (
    COCO_PERSON,
    IGNORED,
    Detections,
    Images,
    Instances,
    LabelMaps,
    Labels,
    PackedMasks,
    Places,
    Skeleton,
    widened,
)
from .preparation import IMAGENET_MEAN, IMAGENET_STD, MAX_INPUT, Preprocess, Resize, Triple
from .tiling import Tile, Tiling

__all__ = [
    "COCO_PERSON",
    "IGNORED",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_INPUT",
    "Detections",
    "Images",
    "Instances",
    "LabelMaps",
    "Labels",
    "PackedMasks",
    "Places",
    "Preprocess",
    "Resize",
    "Skeleton",
    "Tile",
    "Tiling",
    "Triple",
    "widened",
]
