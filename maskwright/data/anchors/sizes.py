"""Anchor sizes that fit the objects of a data set.

Anchors of 32 to 512 pixels suit COCO at 800 pixels; cells of 12 pixels match none of them. The
sizes stay in the proportions of the model, one per pyramid level or all on one map, most of them a
row of octaves, and only the start moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskwright.structures import Resize

from ..records import Dataset

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
        The sizes of `usual`, their halves, quarters or eighths, the first that leave the smallest
        share of the objects too small or too large for every anchor; pixels of the network input.
    """
    sides = object_sides(dataset, resize)

    def left_out(part: float) -> int:
        too_small = sides < usual[0] * part / REACH
        too_large = sides > usual[-1] * part * REACH
        return int((too_small | too_large).sum())

    part = min((1 / 2**k for k in range(HALVINGS)), key=left_out)
    return tuple(float(size * part) for size in usual)
