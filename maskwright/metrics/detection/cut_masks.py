"""Masks that end in a straight line, because their box was too small.

A mask is made within its box. Where the box leaves out a part of the object, the mask follows the
side of the box, and what lies beyond is lost, however good the mask head is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskwright.ops.rle import Crop, Frame, decode_rle

from .entries import compressed_rle, read_ground_truth
from .matching import match
from .table import IntArray

ALONG = 0.03  # a mask is cut if so much of its contour runs along the box within the object
BEYOND = 2  # pixels outside the contour that belong to the object where it goes on


@dataclass(frozen=True)
class CutMasks:
    """How many masks are cut off by their boxes.

    Attributes:
        masks: how many masks of found objects were looked at.
        cut: positions of those that are cut, in the list of detections.
    """

    masks: int
    cut: IntArray

    @property
    def share(self) -> float:
        """Share of the masks that are cut, in [0, 1]; nan if there is none."""
        return len(self.cut) / self.masks if self.masks else float("nan")


def cut_masks(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    conf: float = 0.25,
    max_det: int = 100,
    along: float = ALONG,
) -> CutMasks:
    """Find the masks that are cut off by their boxes, among the objects that were found.

    An object is found by a box of its class that overlaps it by an IoU of at least 0.5. Its mask is
    cut if at least `along` of the pixels of its contour lie in the outermost row or column of the
    box while the object goes on beyond that side.

    Args:
        gt: COCO ground truth with masks, or the path of its file.
        detections: COCO results with `bbox` and `segmentation`.
        conf: the score above which a detection counts.
        max_det: detections counted per image and class.
        along: share of the contour.

    Raises:
        ValueError: as `match`.
    """
    gt = read_ground_truth(gt)
    matches = match(gt, detections, "bbox", max_det=max_det)
    images = {image["id"]: image for image in gt["images"]}
    looked, cut = 0, []
    for found in np.flatnonzero(matches.right & (matches.found.scores > conf)).tolist():
        row = int(matches.found_rows[found])
        truth = gt["annotations"][matches.object_rows[matches.hit[found]]]
        image = images[truth["image_id"]]
        codes = [compressed_rle(one["segmentation"], image) for one in (detections[row], truth)]
        mask, goal = (decode_rle(code) for code in codes)
        if not mask[0].size or not goal[0].size:
            continue
        looked += 1
        if share_along(mask, goal, matches.found.boxes[found]) >= along:
            cut.append(row)
    return CutMasks(looked, np.array(cut, np.int64))


def share_along(
    mask: tuple[Crop, Frame], goal: tuple[Crop, Frame], box: npt.NDArray[np.float64]
) -> float:
    """Return the share of the contour of a mask that its box made.

    Args:
        mask: crop and frame, as `decode_rle` returns it, not empty.
        goal: the true mask, likewise.
        box: (4,) xyxy of the detection, pixels of the image.
    """
    x1, y1 = (min(mask[1][i], goal[1][i]) - BEYOND for i in (0, 1))
    x2, y2 = (max(mask[1][i], goal[1][i]) + BEYOND for i in (2, 3))
    planes = np.zeros((2, y2 - y1, x2 - x1), bool)
    for plane, (crop, frame) in zip(planes, (mask, goal), strict=True):
        plane[frame[1] - y1 : frame[3] - y1, frame[0] - x1 : frame[2] - x1] = crop
    # Pixels in the box are those whose centres are; rounding may put a mask one further out.
    first = np.ceil(box[:2] - 0.5) - (x1, y1)
    last = np.ceil(box[2:] - 0.5) - 1 - (x1, y1)
    own = planes[0]
    contour, made = np.zeros_like(own), np.zeros_like(own)
    rows, columns = (np.arange(side) for side in own.shape)
    sides = (
        (1, 1, columns[None] <= first[0]),
        (1, -1, columns[None] >= last[0]),
        (0, 1, rows[:, None] <= first[1]),
        (0, -1, rows[:, None] >= last[1]),
    )
    for axis, step, outermost in sides:
        # The margin is empty in both planes, so that nothing comes round the other end.
        end = own & ~np.roll(own, step, axis)
        contour |= end
        made |= end & outermost & np.roll(planes[1], step * BEYOND, axis)
    return float(made.sum() / contour.sum())
