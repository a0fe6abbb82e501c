"""Measures of classifiers that also say where: one box for each class they name.

Russakovsky et al. 2015 (ILSVRC), section 4.2 and 3.2: a place is right if its box overlaps some
true box of the image by half; images may have several objects of their class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from maskwright.ops.boxes import box_iou

from .calibration import FloatArray, IntArray
from .classification import mean_of

RIGHT = 0.5  # IoU from which on a box is right


@dataclass(frozen=True)
class Located:
    """What a localizer says of N images, and what is true; of all processes, in any order.

    Attributes:
        classes: (N, P) the classes that it names, the surest first.
        overlaps: (N, P) best IoU of the box of each with a true box of the image, see
            `best_overlaps`; nan for images without an object.
        labels: (N,) true classes.
        known: (N,) best IoU of the box for the true class, whatever was named.
    """

    classes: IntArray
    overlaps: FloatArray
    labels: IntArray
    known: FloatArray


def best_overlaps(boxes: npt.ArrayLike, true: Sequence[npt.ArrayLike]) -> FloatArray:
    """Return the best IoU of each box with any of the true boxes of its image.

    Args:
        boxes: (N, 4) xyxy, or (N, P, 4) for several an image.
        true: for each image its boxes (M, 4), of the class that is looked for; empty ones for an
            image without an object.

    Returns:
        (N,) or (N, P) in [0, 1]; nan for images without a true box.

    Raises:
        ValueError: if there are not as many images on both sides.
    """
    boxes = np.asarray(boxes, np.float64)
    if len(boxes) != len(true):
        raise ValueError(f"boxes of {len(boxes)} images but true ones of {len(true)}")
    found = np.full(boxes.shape[:-1], math.nan)
    for i, mine in enumerate(true):
        objects = np.asarray(mine, np.float64).reshape(-1, 4)
        if len(objects):
            pairs = box_iou(
                torch.from_numpy(boxes[i].reshape(-1, 4)), torch.from_numpy(objects)
            ).numpy()
            found[i] = pairs.max(1).reshape(found.shape[1:])
    return found


def localization_metrics(located: Located, *, topk: Sequence[int] = (5,)) -> dict[str, float]:
    """Return how often class and place are right.

    Images without an object have no place: they are left out here, and count among the classes.

    Args:
        located: what was said and what is true.
        topk: k of further measures; those beyond the number of named classes are left out.

    Returns:
        `located1`, the share of images whose first class is right and whose box overlaps by at
        least half; `located5`, the same for any of the first five pairs; `gt_known`, where the box
        of the true class is asked for; `IoU`, its mean overlap, and `IoU75`, the share of at least
        0.75. In [0, 1], nan without images. The published errors are 1 less these.

    Reference: Russakovsky et al. 2015, section 4.2; GT-known: Zhou et al. 2016, section 3.2.
    """
    named = located.classes
    there = ~np.isnan(located.known)
    right = (named == located.labels[:, None]) & (located.overlaps >= RIGHT)
    known = located.known[there]
    ks = [1, *(k for k in topk if 1 < k <= named.shape[1])]
    return {
        **{f"located{k}": mean_of(right[there, :k].any(1).astype(np.float64)) for k in ks},
        "gt_known": mean_of((known >= RIGHT).astype(np.float64)),
        "IoU": mean_of(known),
        "IoU75": mean_of((known >= 0.75).astype(np.float64)),
    }
