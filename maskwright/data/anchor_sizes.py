"""Anchor sizes that fit the objects of a data set.

Anchors of 32 to 512 pixels suit COCO at 800 pixels; cells of 12 pixels match none of them. The
sizes stay a row of octaves, one per pyramid level, and only its start moves.
"""

from __future__ import annotations

import numpy as np

from maskwright.structures import Resize

from .records import Dataset

STARTS = (32, 16, 8, 4)  # pixels; the first that leaves the fewest objects out is taken
LEVELS = 5
# An anchor still meets objects whose side differs by half an octave from its own.
REACH = 2**0.5


def object_sides(dataset: Dataset, resize: Resize) -> np.ndarray:
    """Return the side of the square of the same area for each object, network-input pixels."""
    sides = [np.zeros(0)]
    for index in range(len(dataset)):
        record = dataset[index]
        boxes = record.boxes[~record.crowd].astype(np.float64)
        area = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1)
        sides.append(np.sqrt(area) * resize.scale(*record.size))
    return np.concatenate(sides)


def suggest_anchor_sizes(dataset: Dataset, resize: Resize) -> tuple[float, ...]:
    """Return one anchor size per level, P2 to P6.

    Args:
        dataset: the training images.
        resize: how photos become network input.

    Returns:
        Five sizes in pixels of the network input, each twice the one before, that leave the
        smallest share of the objects too small or too large for every anchor; (32, ..., 512) where
        that is as good as any.
    """
    sides = object_sides(dataset, resize)

    def left_out(start: int) -> int:
        too_small = sides < start / REACH
        too_large = sides > start * 2 ** (LEVELS - 1) * REACH
        return int((too_small | too_large).sum())

    start = min(STARTS, key=left_out)
    return tuple(float(start * 2**level) for level in range(LEVELS))
