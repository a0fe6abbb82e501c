"""What data and training have to do with a model: the sizes of its anchors, what chance changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.anchors.boxes import box_sizes, cluster_boxes, mean_overlap
from ...data.anchors.sizes import suggest_anchor_sizes
from ...data.records import Dataset
from ...data.transforms import Augment
from ...errors import OptionError, checked_options
from ...models.detection.base import Detector
from ...models.registry import build_blank, get_entry
from ...nn.detection.anchors import AnchorGenerator
from ...nn.detection.dense.canvas import STRIDE
from ...paths import takes_paths
from ...structures import Tiling
from .recipe import DetectionRecipe

# What to do where the data has no keypoints for a model that learns them.
WITHOUT_KEYPOINTS = (
    ": the category lists their names under 'keypoints', each annotation x, y, visibility of each; "
    "without them choose a model such as mask_rcnn_lite0_fpn"
)
MOST_ANCHORS = 9  # numbers of anchors that `anchors` tries


def own_anchors(
    recipe: DetectionRecipe, args: dict[str, Any], data: Dataset
) -> tuple[dict[str, Any], str]:
    """Return anchors that fit the data, as an option and in words; nothing where they are settled.

    They are settled by the user, and by weights that were trained with certain anchors.
    """
    fresh = recipe.weights in (None, "imagenet", "none")
    fresh = fresh or str(recipe.weights).startswith("imagenet:")
    fresh = fresh or ".conv." in Path(str(recipe.weights)).name  # a body of Darknet's has no boxes
    usual = get_entry(recipe.model).arguments()
    if not fresh or not {"anchor_sizes", "anchors"} & (usual.keys() - args.keys()):
        return {}, ""
    model = build_blank(recipe.model, len(data.names), **args)
    resize = model.resize if recipe.tile is None else Tiling(recipe.tile).rule(model.resize, 0)
    if "anchor_sizes" in usual:
        if usual["anchor_sizes"] is None:
            return {}, ""
        kinds = [part for part in model.modules() if isinstance(part, AnchorGenerator)]
        if not kinds:  # SSD's are shares of the image, as the cells of its maps are
            return {}, ""
        start, ratios = usual["anchor_sizes"], {**usual, **args}["anchor_ratios"]
        strides, octave = kinds[0].strides, kinds[0].per_cell // len(ratios)
        if len(strides) < len(start):  # all sizes on one map
            strides, octave = strides * len(start), 1
        sizes = suggest_anchor_sizes(data, resize, start, strides, octave)
        told = ", ".join(f"{size:g}" for size in sizes)
        return {"anchor_sizes": sizes}, f"anchors of {told} pixels, by the objects in the data"
    count = len(getattr(model.head, "anchors", ()))  # of a grid there are none
    boxes = box_sizes(data, resize)
    if not count or len(boxes) < count:
        return {}, ""
    try:
        fitting = cluster_boxes(boxes, count, recipe.seed)
    except ValueError:  # too few different ones
        return {}, ""
    told = ", ".join(f"{width:.0f}x{height:.0f}" for width, height in fitting)
    mean = mean_overlap(boxes, fitting)
    return {"anchors": _in_cells(fitting)}, (
        f"anchors of {told} pixels, by the boxes in the data (mean IoU {mean:.2f})"
    )


def _in_cells(sizes: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(side), 4) for side in (sizes / STRIDE).flatten())


@dataclass(frozen=True)
class AnchorReport:
    """Anchors by k-means over the boxes of a data set.

    Attributes:
        boxes: how many there are.
        overlaps: mean IoU of a box with the best anchor, by number of anchors.
        anchors: by number of anchors, as the option `anchors`: width and height of each in cells.
    """

    boxes: int
    overlaps: dict[int, float]
    anchors: dict[int, tuple[float, ...]]


@checked_options
@takes_paths
def anchors(
    data: str | Path,
    model: str = "yolo_v2",
    *,
    split: str = "train",
    format: str | None = None,
    imgsz: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> AnchorReport:
    """Find anchors that fit the boxes of a data set by k-means, with 1 to 9 of them.

    Trainings do so by themselves, with as many anchors as the model has; this shows what others
    would bring.

    Args:
        data: the data set, any format that `maskwright data check` reads.
        model: whose rule for resizing counts, such as yolo_v2 or yolo_lite.
        split: which part of the data.
        format: read the data as this format, where a folder has several or is taken for another.
        imgsz: another size of its input.
        seed: of the boxes that k-means starts from.

    Raises:
        ValueError: if the data cannot be read or has no boxes, or the model no such anchors.
    """
    entry = get_entry(model)
    options: dict[str, Any] = {} if imgsz is None else {"imgsz": imgsz}
    built = build_blank(model, 1, **options)
    if (
        not hasattr(built, "head")
        or not hasattr(built.head, "anchors")
        or ("anchors" not in entry.arguments())
    ):
        raise OptionError(f"model={model} has no anchors to be clustered; yolo_v2 and yolo_lite do")
    from ...data.discover import open_dataset  # all formats: a prediction needs none of them

    boxes = box_sizes(open_dataset(data, split, format=format), built.resize)
    if not len(boxes):
        raise ValueError(f"{data}: there is no box in the {split} split")
    means, found = {}, {}
    for count in range(1, MOST_ANCHORS + 1):
        try:
            sizes = cluster_boxes(boxes, count, seed)
        except ValueError:  # fewer boxes than anchors
            break
        means[count], found[count] = mean_overlap(boxes, sizes), _in_cells(sizes)
    return AnchorReport(len(boxes), means, found)


def augmentation(recipe: DetectionRecipe, model: Detector) -> Augment:
    """Return what chance changes in training images: as the user says, else as the model has it."""
    chosen = {
        name: getattr(recipe, name)
        for name in ("photometric", "expand", "patches")
        if getattr(recipe, name) is not None
    }
    return Augment(
        flip=recipe.flip,
        vflip=recipe.vflip,
        rotate90=recipe.rotate90,
        scale_jitter=recipe.scale_jitter,
        scales=model.train_scales,
        crop=recipe.crop,
        tile=recipe.tile,
        fill=model.fill,
        **{**model.train_views, **chosen},
    )
