"""Anchor sizes that fit the objects of a data set.

Anchors of 32 to 512 pixels suit COCO at 800 pixels; cells of 12 pixels match none of them. The
sizes stay in the proportions of the model, one per pyramid level or all on one map, most of them a
row of octaves, and only the start moves. It moves as far as the maps allow: an anchor that is small
beside the stride of its map lies beside most objects, not on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskwright.structures import Resize

from ..records import Dataset

HALVINGS = 4  # starts that are tried
# Of a stride: how far the centre of an object lies from that of the nearest cell along an axis, on
# average.
SHIFT = 0.25


def object_sides(dataset: Dataset, resize: Resize) -> np.ndarray:
    """Return the side of the square of the same area for each object, network-input pixels."""
    sides = [np.zeros(0)]
    for index in range(len(dataset)):
        record = dataset[index]
        boxes = record.boxes[~record.crowd].astype(np.float64)
        area = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1)
        sides.append(np.sqrt(area) * resize.scale(*record.size))
    return np.concatenate(sides)


def suggest_anchor_sizes(
    dataset: Dataset,
    resize: Resize,
    usual: Sequence[float],
    strides: Sequence[int],
    octave: int = 1,
) -> tuple[float, ...]:
    """Return the anchor sizes that fit the objects, as many as the model has.

    Args:
        dataset: the training images.
        resize: how photos become network input.
        usual: the sizes that the model has by itself, small to large.
        strides: of the map of each of these sizes, pixels of the network input.
        octave: anchors of a level from its size on, in equal steps to the next octave.

    Returns:
        The sizes of `usual`, their halves, quarters or eighths, those whose anchors have the
        largest mean IoU with the objects; pixels of the network input.
    """
    sides = object_sides(dataset, resize)
    rows = [tuple(float(size) / 2**k for size in usual) for k in range(HALVINGS)]
    return max(rows, key=lambda row: mean_meeting(sides, row, strides, octave))


def mean_meeting(
    sides: np.ndarray, sizes: Sequence[float], strides: Sequence[int], octave: int
) -> float:
    """Return the mean IoU of squares (n,) with the best square anchor of the nearest cell."""
    best = np.zeros(len(sides))
    for size, stride in zip(sizes, strides, strict=True):
        for step in range(octave):
            anchor = size * 2 ** (step / octave)
            reach = np.minimum(np.minimum(sides, anchor), (sides + anchor) / 2 - SHIFT * stride)
            both = reach.clip(min=0) ** 2
            best = np.maximum(best, both / (sides**2 + anchor**2 - both).clip(min=1e-12))
    return float(best.mean()) if len(best) else 0.0
