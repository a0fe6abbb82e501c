"""What each kind of error costs in AP: the error split of TIDE (Bolya et al. 2020).

Every false detection is of one kind, every object that was not found is missed or belongs to a
false detection that nearly found it; then each kind is mended alone and the AP measured again.
Three things differ from the authors' program: of several false detections that would find the same
object the best of the kind being mended counts (as in sec. 2.3 of the paper), not the best of all
kinds; a detection whose IoU is just the threshold is a duplicate, not badly located; and a class
of which mending leaves neither object nor detection counts as solved instead of leaving the mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .matching import BoolArray, Matches, match
from .table import FloatArray, IntArray

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
SPECIAL = ("false positives", "false negatives")
MEANING = {
    "classification": "found in the right place under the wrong class",
    "localisation": "right class, but the overlap is too small",
    "both": "wrong class, and the overlap is too small",
    "duplicate": "found once more, with a lower score",
    "background": "nothing is there",
    "missed": "not found, not even nearly",
    "false positives": "all false detections at once",
    "false negatives": "all objects that were not found at once",
}
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
BACKGROUND_IOU = 0.1


@dataclass(frozen=True)
class ErrorSplit:
    """The errors of a set of detections.

    Attributes:
        ap: AP at the IoU of the match, in [0, 1]; nan without any object.
        counts: how many errors of each of `KINDS` and `SPECIAL` there are.
        gains: by how much AP rises if errors of this kind alone are mended, at least 0 (a changed
            number of objects moves the recall levels a little, as in the paper's program).
    """

    ap: float
    counts: dict[str, int]
    gains: dict[str, float]


def error_split(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    *,
    iou: float = 0.5,
    background: float = BACKGROUND_IOU,
    max_det: int = 100,
) -> ErrorSplit:
    """Return how many errors of each kind there are, and what each kind costs in AP.

    Args:
        gt: COCO ground truth, or the path of its file.
        detections: COCO results, as `coco_eval` takes them.
        iou_type: "bbox" or "segm".
        iou: smallest IoU of a match.
        background: up to this IoU a detection has nothing to do with an object.
        max_det: detections counted per image and class.

    Raises:
        ValueError: as `match`.

    Reference: Bolya et al. 2020, TIDE, sec. 2.
    """
    return split_errors(match(gt, detections, iou_type, iou=iou, max_det=max_det), background)


def split_errors(matches: Matches, background: float = BACKGROUND_IOU) -> ErrorSplit:
    """Return the error split of detections that are matched already; see `error_split`.

    Raises:
        ValueError: if `background` is not between 0 and the IoU of the match.
    """
    if not 0 < background < matches.iou:
        raise ValueError(
            f"background={background}: expected between 0 and the IoU of a match, {matches.iou}"
        )
    kinds = error_kinds(matches, background)
    missed = missed_objects(matches, kinds)
    unfound = matches.taken < 0
    ap = _ap(matches, matches.right, matches.found.label, matches.wrong, np.zeros_like(missed))
    counts = {kind: int((kinds == k).sum()) for k, kind in enumerate(KINDS[:-1])}
    counts["missed"] = int(missed.sum())
    counts["false positives"] = int(matches.wrong.sum())
    counts["false negatives"] = int(unfound.sum())
    mended = {kind: mend(matches, kinds, {kind}) for kind in KINDS}
    none, label = np.zeros_like(matches.wrong), matches.found.label
    mended["false positives"] = _ap(matches, matches.right, label, none, np.zeros_like(missed))
    mended["false negatives"] = _ap(matches, matches.right, label, matches.wrong, unfound)
    gains = {kind: max(value - ap, 0.0) if ap == ap else ap for kind, value in mended.items()}
    return ErrorSplit(ap, counts, gains)


def error_kinds(matches: Matches, background: float = BACKGROUND_IOU) -> IntArray:
    """Return (D,) the position in `KINDS` of each false detection, -1 for the others."""
    near, other, iou = matches.near_iou, matches.other_iou, matches.iou
    kind = np.full(len(near), BOTH)
    kind[np.maximum(near, other) <= background] = BACKGROUND
    kind[near >= iou] = DUPLICATE
    kind[other >= iou] = CLASSIFICATION
    kind[(near >= background) & (near < iou)] = LOCALISATION
    return np.where(matches.wrong, kind, -1)


def missed_objects(matches: Matches, kinds: IntArray) -> BoolArray:
    """Return (G,) the objects that neither a match nor a nearly right detection belongs to."""
    covered = matches.taken >= 0
    targets = _targets(matches, kinds)
    covered[targets[targets >= 0]] = True
    return ~covered


def mend(matches: Matches, kinds: IntArray, which: Collection[str]) -> float:
    """Return the AP after all errors of some kinds are mended together."""
    chosen = np.isin(kinds, [KINDS.index(kind) for kind in which])
    targets = np.where(chosen, _targets(matches, kinds), -1)
    targets[targets >= 0] = np.where(
        matches.taken[targets[targets >= 0]] < 0, targets[targets >= 0], -1
    )
    # Detections stand by falling score: the first to name an object is its best.
    objects, first = np.unique(targets, return_index=True)
    first = first[objects >= 0]
    right = matches.right.copy()
    label = matches.found.label.copy()
    right[first] = True
    label[first] = matches.objects.label[targets[first]]
    gone = (
        missed_objects(matches, kinds) if "missed" in which else np.zeros(len(matches.taken), bool)
    )
    return _ap(matches, right, label, matches.wrong & ~chosen, gone)


def _targets(matches: Matches, kinds: IntArray) -> IntArray:
    """Return (D,) the object that a false detection would have found, -1 for none."""
    targets = np.where(kinds == CLASSIFICATION, matches.other, -1)
    return np.where(kinds == LOCALISATION, matches.near, targets)


def _ap(
    matches: Matches, right: BoolArray, label: IntArray, wrong: BoolArray, gone: BoolArray
) -> float:
    """Return the mean AP over the classes that have objects, as COCO counts it at one IoU."""
    scores = matches.found.scores
    had = matches.objects_per_class()
    left = had - np.bincount(matches.objects.label[gone], minlength=len(had))
    values = []
    for k in np.nonzero(had)[0].tolist():
        mine = (label == k) & (right | wrong)
        if not left[k]:
            values.append(0.0 if mine.any() else 1.0)
            continue
        values.append(average_precision(scores[mine], right[mine], int(left[k])))
    return float(np.mean(values)) if values else float("nan")


def average_precision(scores: FloatArray, right: BoolArray, objects: int) -> float:
    """Return COCO's AP of one class at one IoU: precision at 101 recall levels, made monotone.

    Args:
        scores: (n,) of the detections that count; equal scores stay in their order.
        right: (n,) whether each of them found an object.
        objects: how many objects there are, at least 1.
    """
    right = right[np.argsort(-scores, kind="stable")]
    hits = np.cumsum(right)
    recall = hits / objects
    precision = hits / (np.arange(len(right)) + 1.0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[place].mean())
