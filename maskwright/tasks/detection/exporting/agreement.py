"""Whether two computations of one network found the same: detections matched one to one.

Two programs round differently. Orders may swap, and what lies at a threshold may fall on either
side of it: such detections and pixels are named and counted, everything else must be found again
within the tolerances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.detection.base import PostProcess
from ....ops.boxes import box_iou
from ....ops.masks import paste_masks
from ....structures import Detections

# A detection is found again within these: pixels, score, IoU of the masks.
BOX_PX, SCORE, MASK_IOU = 0.02, 5e-4, 0.999
# Positions stand on a grid of about a pixel, where rounding may choose the neighbour of a tie.
KEYPOINT_PX = 1.5
# A pixel this near to the threshold of 0.5 is decided by rounding.
UNDECIDED = 2e-3
# Two boxes whose IoU is this near to the threshold of the NMS may suppress each other or not.
IOU = 1e-3


@dataclass
class Match:
    """How detections were found again.

    Attributes:
        found: those within the tolerances, of `total`.
        total: detections to be found.
        ours: number of detections among which they were looked for.
        box: largest difference of a coordinate among the pairs, pixels.
        score: largest difference of a score.
        mask: smallest IoU of two masks; None without masks.
        keypoint: largest distance along an axis of two keypoints, pixels; None without keypoints.
        undecided: those of `found` whose masks have a smaller IoU than the tolerance, but differ
            only in pixels whose probability is so near to 0.5 that rounding decides them (one
            such pixel is enough in an object of less than 1,000).
        at_threshold: detections of one side alone because of rounding: they stand at a threshold
            (see `excused`), or were suppressed by one that does.
        unexplained: all others that were not found again, of either side.
    """

    found: int
    total: int
    ours: int
    box: float = 0.0
    score: float = 0.0
    mask: float | None = None
    keypoint: float | None = None
    undecided: int = 0
    at_threshold: int = 0
    unexplained: int = 0

    def add(self, box: float, score: float, iou: float, rounding: bool, point: float) -> None:
        """Count a pair.

        Args:
            box: largest difference of a coordinate, pixels.
            score: difference of the scores.
            iou: of the masks; 1 without masks.
            rounding: whether the masks differ only in undecided pixels.
            point: largest distance of two keypoints along an axis; 0 without keypoints.
        """
        self.box, self.score = max(self.box, box), max(self.score, score)
        if self.mask is not None:
            self.mask = min(self.mask, iou)
        if self.keypoint is not None:
            self.keypoint = max(self.keypoint, point)
        close = box <= BOX_PX and score <= SCORE and point <= KEYPOINT_PX
        close = close and (iou >= MASK_IOU or rounding)
        self.found += close
        self.undecided += close and iou < MASK_IOU


def pair(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    other_boxes: Tensor,
    other_scores: Tensor,
    other_labels: Tensor,
) -> list[tuple[int, int, float, float]]:
    """Return for each detection the other one that is nearest, if within a pixel.

    Returns:
        Position, position among the others, largest difference of a coordinate, difference of the
        scores; each of the others serves once.
    """
    pairs: list[tuple[int, int, float, float]] = []
    if not len(other_boxes):
        return pairs
    same_label = labels[:, None] == other_labels
    apart = (boxes[:, None] - other_boxes).abs().amax(2).where(same_label, torch.inf)
    for i in range(len(boxes)):
        # The nearest box of the same class and a score as near: doubles differ in neither.
        off = apart[i] / BOX_PX + (scores[i] - other_scores).abs() / SCORE
        j = int(off.argmin())
        box = float(apart[i, j])
        if box > 1.0:
            continue
        apart[:, j] = torch.inf
        pairs.append((i, j, box, float((scores[i] - other_scores[j]).abs())))
    return pairs


def compare(wanted: Detections, found: Detections, post: PostProcess, paste_mode: str) -> Match:
    """Look for each of the detections `wanted` among those `found`.

    Args:
        wanted: what the reference computed, by falling score.
        found: what the other program computed for the same image.
        post: the thresholds of both.
        paste_mode: how masks return to the image.

    Returns:
        The match; `agrees` judges it.
    """
    match = Match(
        0,
        len(wanted),
        len(found),
        mask=None if wanted.mask_probs is None else 1.0,
        keypoint=None if wanted.keypoints is None else 0.0,
    )
    sides = (wanted.boxes, wanted.scores, wanted.labels), (found.boxes, found.scores, found.labels)
    pairs = pair(*sides[0], *sides[1])
    for i, j, box, score in pairs:
        iou, rounding = _same_mask(wanted, i, found, j, paste_mode)
        point = 0.0
        if wanted.keypoints is not None and found.keypoints is not None:
            point = float((wanted.keypoints[i] - found.keypoints[j])[:, :2].abs().max())
        match.add(box, score, iou, rounding, point)
    alone = [set(range(len(wanted))), set(range(len(found)))]
    for i, j, *_ in pairs:
        alone[0].discard(i)
        alone[1].discard(j)
    both = (wanted, found), (found, wanted)
    loose = [
        {i for i in left if excused(one, i, other, post)}
        for (one, other), left in zip(both, alone, strict=True)
    ]
    # What one side keeps for such a reason suppresses others there, and so on.
    while True:
        more = [
            {i for i in alone[k] - loose[k] if _suppressed(one, i, other, loose[1 - k], post)}
            for k, (one, other) in enumerate(both)
        ]
        if not any(more):
            break
        loose = [known | new for known, new in zip(loose, more, strict=True)]
    match.at_threshold = len(loose[0]) + len(loose[1])
    match.unexplained = len(pairs) - match.found + len(alone[0]) + len(alone[1])
    match.unexplained -= match.at_threshold
    return match


def _suppressed(
    one: Detections, i: int, other: Detections, by: set[int], post: PostProcess
) -> bool:
    """Whether detection `i` of `one` is suppressed in `other` by one of its detections `by`."""
    at = torch.tensor(sorted(by), dtype=torch.int64)
    iou = box_iou(one.boxes[i : i + 1], other.boxes[at])[0]
    better = (other.labels[at] == one.labels[i]) & (other.scores[at] >= one.scores[i] - SCORE)
    return bool((better & (iou > post.nms_thresh - IOU)).any())


def agrees(matches: Sequence[Match]) -> bool:
    """Whether all detections were found again, but for a few at thresholds.

    At most one in twenty, and one more, may be: beyond that, something else is wrong.
    """
    loose = sum(match.at_threshold for match in matches)
    most = 1 + sum(match.total + match.ours for match in matches) // 20
    return loose <= most and not any(match.unexplained for match in matches)


def excused(one: Detections, i: int, other: Detections, post: PostProcess) -> bool:
    """Whether rounding decides if detection `i` of `one` exists, so that `other` may lack it.

    It does where the score is within `SCORE` of the smallest that counts, or not clearly above
    the last one that found a slot in `other`; where a better box of the same class overlaps it by
    nearly exactly the threshold of the NMS; and where a box with an equal score took its place.
    """
    score = one.scores[i]
    if score - post.score_thresh <= SCORE:
        return True
    if len(other) >= post.max_det and score - other.scores[-1] <= SCORE:
        return True
    for side in (one, other):
        iou = box_iou(one.boxes[i : i + 1], side.boxes)[0]
        rival = (side.labels == one.labels[i]) & (side.scores >= score - SCORE)
        if side is one:
            rival[i] = False
        at = rival & ((iou - post.nms_thresh).abs() <= IOU)
        tie = rival & (iou > post.nms_thresh) & ((side.scores - score).abs() <= SCORE)
        if bool((at | tie).any()):
            return True
    return False


def _same_mask(
    wanted: Detections, i: int, found: Detections, j: int, paste_mode: str
) -> tuple[float, bool]:
    """Return the IoU of two masks, and whether only undecided pixels differ."""
    if wanted.mask_probs is None or found.mask_probs is None:
        return 1.0, False

    def paste(side: Detections, k: int, thresh: float) -> Tensor:
        assert side.mask_probs is not None
        probs, boxes = side.mask_probs[k : k + 1], side.mask_frames[k : k + 1]
        return paste_masks(probs, boxes, side.size, thresh=thresh, mode=paste_mode)[0]

    a, b = paste(wanted, i, 0.5), paste(found, j, 0.5)
    differ, union = a != b, int((a | b).sum())
    iou = 1 - int(differ.sum()) / union if union else 1.0
    if iou >= MASK_IOU:
        return iou, False
    sure = paste(wanted, i, 0.5 - UNDECIDED) == paste(wanted, i, 0.5 + UNDECIDED)
    return iou, not bool((differ & sure).any())
