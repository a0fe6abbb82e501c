"""Anchors that fit the boxes of a data set: k-means by overlap (Redmon & Farhadi 2017, section 2).

The distance of a box and an anchor is 1 - IoU where both have one centre, so that large boxes do
not count more than small ones; an anchor is the mean of the boxes nearest to it.
"""

from __future__ import annotations

import numpy as np

from maskwright.structures import Resize

from ..records import Dataset

ROUNDS = 300
STARTS = 5  # of which the best is taken


def box_sizes(dataset: Dataset, resize: Resize) -> np.ndarray:
    """Return width and height (n, 2) of the objects with an area, network-input pixels."""
    found = [np.zeros((0, 2))]
    for index in range(len(dataset)):
        record = dataset[index]
        boxes = record.boxes[~record.crowd].astype(np.float64)
        new = resize.target_size(*record.size)
        scale = new[1] / record.size[1], new[0] / record.size[0]
        found.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    sizes = np.concatenate(found)
    kept: np.ndarray = sizes[(sizes > 0).all(1)]
    return kept


def overlaps(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the IoU (n, k) of boxes (n, 2) and anchors (k, 2) with one centre."""
    shared = np.minimum(sizes[:, None], anchors).prod(2)
    found: np.ndarray = shared / (sizes.prod(1)[:, None] + anchors.prod(1) - shared)
    return found


def mean_overlap(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """Return the mean IoU of boxes (n, 2) with the best of anchors (k, 2) for each."""
    return float(overlaps(sizes, anchors).max(1).mean())


def cluster_boxes(sizes: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return anchors (count, 2), small to large, that overlap boxes well.

    Args:
        sizes: (n, 2) width and height, above 0.
        count: anchors; at most as many as there are different boxes.
        seed: of the boxes that it starts from.

    Raises:
        ValueError: if there are fewer different boxes than anchors.
    """
    different = np.unique(sizes, axis=0)
    if len(different) < count:
        raise ValueError(
            f"{count} anchors need as many different boxes, and there are {len(different)}"
        )
    found = [_from_one_start(sizes, different, count, seed + start) for start in range(STARTS)]
    best = max(found, key=lambda anchors: mean_overlap(sizes, anchors))
    ordered: np.ndarray = best[best.prod(1).argsort(kind="stable")]
    return ordered


def _from_one_start(sizes: np.ndarray, different: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    anchors = different[[rng.integers(len(different))]]
    while len(anchors) < count:  # far from those that are there (Arthur & Vassilvitskii 2007)
        far = (1 - overlaps(different, anchors).max(1)).clip(0) ** 2
        anchors = np.concatenate([anchors, different[[rng.choice(len(far), p=far / far.sum())]]])
    nearest = np.full(len(sizes), -1)
    for _ in range(ROUNDS):
        before, nearest = nearest, overlaps(sizes, anchors).argmax(1)
        if (before == nearest).all():
            break
        for number in range(count):
            own = sizes[nearest == number]
            if len(own):
                anchors[number] = own.mean(0)
    return anchors
