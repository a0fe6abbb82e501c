"""Boxes from heat maps, and how well they fit: weakly supervised localization.

Choe et al. 2020 (Evaluating Weakly Supervised Object Localization Methods Right): the accuracy at
the best threshold, MaxBoxAcc, and at three overlaps with all parts of a map, MaxBoxAccV2. The best
threshold is found on the images that are scored, so both say what a method could reach; what it
does reach is `accuracy_at` the threshold that `best_threshold` found on other images.

Numbers are those of the authors' program: maps of 8 bits; pixels strictly above the whole part of
t x maximum; OpenCV's contours, the largest by the area inside of it, or all of them, those of holes
included; right and bottom ends one pixel further but within the map; IoU with "+ 1". `map_box` is
for use: plain pixels, no rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from maskwright.errors import OptionError
from maskwright.ops.boxes import box_iou
from maskwright.ops.components import find_outlines, label_parts

from .calibration import BoolArray, FloatArray, IntArray

# Shares of the maximum that are tried.
THRESHOLDS: FloatArray = np.arange(0, 1, 0.01)
OVERLAPS = (0.3, 0.5, 0.7)  # of MaxBoxAccV2
# Shares of the maximum that the papers took for boxes: Zhou et al. 2016, Selvaraju et al. 2017.
CAM_THRESHOLD, GRADCAM_THRESHOLD = 0.2, 0.15


@dataclass(frozen=True)
class MapOverlaps:
    """How well boxes of one map fit, by threshold.

    Attributes:
        largest: (T,) best IoU of the box of the largest part with any true box.
        any: (T,) best IoU of the box of any part with any true box.
    """

    largest: FloatArray
    any: FloatArray


@dataclass(frozen=True)
class MapBoxes:
    """The boxes that thresholds make of one map, to be compared with any true ones.

    Attributes:
        size: (H, W) of the map.
        place: (T,) for each threshold, which of the distinct masks it makes.
        largest: for each box of the largest part of a mask, the mask and xyxy with whole ends.
        all: the same for all parts.
    """

    size: tuple[int, ...]
    place: IntArray
    largest: tuple[IntArray, IntArray]
    all: tuple[IntArray, IntArray]

    def overlaps(self, boxes: npt.ArrayLike) -> MapOverlaps:
        """Return how well the boxes fit the true ones.

        Args:
            boxes: (M, 4) xyxy, whole pixels of the map, see `resize_boxes`; at least one.

        Raises:
            ValueError: if there is no true box.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if not len(boxes):
            raise ValueError("a heat map without a true box cannot be scored")
        count = int(self.place.max(initial=-1)) + 1
        return MapOverlaps(
            _best(*self.largest, boxes, self.size, count)[self.place],
            _best(*self.all, boxes, self.size, count)[self.place],
        )


def map_overlaps(
    heatmap: npt.ArrayLike, boxes: npt.ArrayLike, thresholds: FloatArray = THRESHOLDS
) -> MapOverlaps:
    """Return how well the boxes that thresholds make of a heat map fit the true ones.

    Args:
        heatmap: (H, W) in [0, 1].
        boxes: (M, 4) xyxy, whole pixels of the map, see `resize_boxes`; at least one.
        thresholds: (T,) shares of the maximum.

    Raises:
        ValueError: if the map has values outside [0, 1], or there is no true box.
    """
    return map_boxes(heatmap, thresholds).overlaps(boxes)


def map_boxes(heatmap: npt.ArrayLike, thresholds: FloatArray = THRESHOLDS) -> MapBoxes:
    """Return the boxes that thresholds make of a heat map.

    Args:
        heatmap: (H, W) in [0, 1].
        thresholds: (T,) shares of the maximum.

    Raises:
        ValueError: if the map has values outside [0, 1].
    """
    heatmap = _checked(heatmap)
    levels = (heatmap.astype(np.float64) * 255).astype(np.uint8)
    limits = (thresholds * levels.max()).astype(np.int64)
    # Neighbouring thresholds often have one limit: each is looked at once.
    distinct, place = np.unique(limits, return_inverse=True)
    found = find_outlines(levels > distinct[:, None, None])
    outer, order = found.outer, np.arange(len(found.enclosed))
    # The last of equal parts stands first in OpenCV's list, and its first largest one is taken.
    best = np.lexsort([order, found.enclosed, outer.mask])
    last = np.append(outer.mask[best][1:] != outer.mask[best][:-1], True)[: len(best)]
    largest = best[last]
    # The contour of a hole runs through the pixels around it.
    around = found.holes.boxes + np.array([-1, -1, 1, 1])
    masks = np.concatenate([found.parts.mask, found.holes.mask])
    rims = np.concatenate([found.parts.boxes, around])
    return MapBoxes(
        heatmap.shape, place, (outer.mask[largest], outer.boxes[largest]), (masks, rims)
    )


def _best(
    mask: IntArray, found: IntArray, boxes: FloatArray, size: tuple[int, ...], count: int
) -> FloatArray:
    """Return the best IoU (count,) by mask of boxes that were found in masks."""
    # A mask without any pixel gives the box of the first one.
    mask = np.concatenate([mask, np.setdiff1d(np.arange(count), mask)])
    found = np.concatenate([found, np.zeros((len(mask) - len(found), 4), np.int64)])
    found = np.minimum(found, [size[1] - 1, size[0] - 1, size[1] - 1, size[0] - 1])
    further = np.array([0, 0, 1, 1])
    overlaps = box_iou(
        torch.from_numpy((found + further).astype(np.float64)), torch.from_numpy(boxes + further)
    )
    best = np.zeros(count)
    np.maximum.at(best, mask, overlaps.numpy().max(1))
    return best


def resize_boxes(
    boxes: npt.ArrayLike, image_size: tuple[int, int], map_size: tuple[int, int]
) -> IntArray:
    """Return boxes in pixels of a map that an image was resized to, cut to whole pixels.

    Args:
        boxes: (M, 4) xyxy, pixels of the image.
        image_size: its (height, width).
        map_size: (height, width) of the map.
    """
    old = np.array([image_size[1], image_size[0]] * 2, np.float64)
    new = np.array([map_size[1], map_size[0]] * 2, np.float64)
    return (np.asarray(boxes, np.float64).reshape(-1, 4) * new / old).astype(np.int64)


def max_box_accuracy(overlaps: npt.ArrayLike, *, least: float = 0.5) -> float:
    """Return MaxBoxAcc: the share of images that are right at the best threshold for all of them.

    Args:
        overlaps: (N, T), `MapOverlaps.largest` of each image; of all processes together.
        least: IoU from which on a box is right.

    Returns:
        In [0, 1]; nan without images.

    Reference: Choe et al. 2020, section 3.4.
    """
    overlaps = np.asarray(overlaps, np.float64)
    if not overlaps.size:
        return math.nan
    return float((overlaps >= least).mean(0).max())


def max_box_accuracy_v2(overlaps: npt.ArrayLike, levels: Sequence[float] = OVERLAPS) -> float:
    """Return MaxBoxAccV2: the mean over overlaps, each with the best threshold of its own.

    Args:
        overlaps: (N, T), `MapOverlaps.any` of each image; of all processes together.
        levels: the IoUs from which on a box is right.

    Reference: Choe et al. 2020 (Evaluation for WSOL, extended), section 4.2.
    """
    return float(np.mean([max_box_accuracy(overlaps, least=level) for level in levels]))


def best_threshold(overlaps: npt.ArrayLike, *, least: float = 0.5) -> int:
    """Return the place of the threshold with the most right boxes, the middle one of equals.

    Args:
        overlaps: (N, T) of images that are not scored with it.
        least: IoU from which on a box is right.

    Raises:
        ValueError: without images.
    """
    overlaps = np.asarray(overlaps, np.float64)
    if not overlaps.size:
        raise ValueError("a threshold can only be chosen on images with boxes, and there are none")
    right = (overlaps >= least).sum(0)
    best = np.flatnonzero(right == right.max())
    return int(best[len(best) // 2])


def accuracy_at(overlaps: npt.ArrayLike, place: int, *, least: float = 0.5) -> float:
    """Return the share of images whose box at one threshold is right; nan without images.

    With maps of the true classes and a threshold of other images this is GT-known localization.

    Args:
        overlaps: (N, T).
        place: which threshold, see `best_threshold`.
        least: IoU from which on a box is right.
    """
    overlaps = np.asarray(overlaps, np.float64)
    return float((overlaps[:, place] >= least).mean()) if overlaps.size else math.nan


def map_mask(heatmap: npt.ArrayLike, threshold: float = CAM_THRESHOLD) -> BoolArray:
    """Return the largest part of a heat map above a share of its maximum.

    Args:
        heatmap: (H, W) in [0, 1].
        threshold: share of the maximum; pixels are in where they are above it.

    Returns:
        (H, W); pixels that touch at a corner are one part; of equal ones the first. Empty for a map
        of zeros.

    Raises:
        OptionError: if the threshold lies outside [0, 1).
        ValueError: if the map has values outside [0, 1].
    """
    if not 0 <= threshold < 1:
        raise OptionError(f"the threshold of a heat map must lie in [0, 1), got {threshold}")
    heatmap = _checked(heatmap)
    labels = label_parts(heatmap > threshold * heatmap.max(initial=0))
    sizes = np.bincount(labels.ravel(), minlength=2)
    sizes[0] = 0
    found: BoolArray = labels == max(int(sizes.argmax()), 1)
    return found


def map_box(heatmap: npt.ArrayLike, threshold: float = CAM_THRESHOLD) -> FloatArray | None:
    """Return the box around the largest part of a heat map, see `map_mask`.

    Returns:
        (4,) xyxy in pixels of the map, right and bottom ends outside; None for a map of zeros.

    Example:
        >>> heatmap = np.zeros((4, 6)); heatmap[1:3, 2:5] = 1.0
        >>> map_box(heatmap).tolist()
        [2.0, 1.0, 5.0, 3.0]
    """
    mask = map_mask(heatmap, threshold)
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def centred_gaussian(size: tuple[int, int]) -> FloatArray:
    """Return the map of who does not look: highest in the middle, of the size (height, width).

    A normal distribution with a quarter of the sides as deviation, scaled to 0..1; with the best
    threshold its width hardly matters. Every method must be better than it.
    """
    sides = [((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in size]
    found = np.exp(-(sides[0][:, None] ** 2 + sides[1] ** 2) / 2)
    span = found.max() - found.min()
    return (found - found.min()) / span if span > 0 else np.zeros(size)


def whole_image(size: tuple[int, int]) -> FloatArray:
    """Return the map that makes the box of the whole image at every threshold."""
    return np.ones(size)


def _checked(heatmap: npt.ArrayLike) -> npt.NDArray:
    heatmap = np.asarray(heatmap)
    if heatmap.ndim != 2 or not heatmap.size:
        raise ValueError(f"a heat map must be (H, W), got {heatmap.shape}")
    if not (heatmap.min() >= 0 and heatmap.max() <= 1):
        raise ValueError(f"a heat map must lie in [0, 1], got {heatmap.min()} to {heatmap.max()}")
    return heatmap
