"""Anchor sizes that fit the objects of a data set.

Anchors of 32 to 512 pixels suit COCO at 800 pixels; cells of 12 pixels match none of them. The
sizes stay a row of octaves, one per pyramid level or all on one map, and only its start moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskwright.structures import Resize

from .records import Dataset

HALVINGS = 4  # starts that are tried; the first that leaves the fewest objects out is taken
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


def suggest_anchor_sizes(
    dataset: Dataset, resize: Resize, usual: Sequence[float] = (32, 64, 128, 256, 512)
) -> tuple[float, ...]:
    """Return the anchor sizes that fit the objects, as many as the model has.

    Args:
        dataset: the training images.
        resize: how photos become network input.
        usual: the sizes that the model has by itself, small to large.

    Returns:
        Sizes in pixels of the network input, each twice the one before, that leave the smallest
        share of the objects too small or too large for every anchor; they start with that of
        `usual`, its half, quarter or eighth, the first where that is as good as any.
    """
    sides = object_sides(dataset, resize)

    def left_out(start: float) -> int:
        too_small = sides < start / REACH
        too_large = sides > start * 2 ** (len(usual) - 1) * REACH
        return int((too_small | too_large).sum())

    start = min((usual[0] / 2**k for k in range(HALVINGS)), key=left_out)
    return tuple(float(start * 2**level) for level in range(len(usual)))
