"""Labels of objects that a detector doubts: missing ones, of a wrong class, false, out of place.

What is asked of detections and labels is that of ObjectLab (Tkachenko, Thyagarajan, Mueller 2023):
is there a confident detection without a label, one of another class at a label, a label whose
nearest detection of its class is far off. Here each doubt becomes one number in [0, 1], so that all
kinds stand in one list, and both what is rarely found and what is loosely placed is compared with
how often and how well the model finds the other labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .table import FloatArray

RIGHT = 0.5  # IoU from which on a detection is at a label
NEAR = 0.1  # below it, it has nothing to do with the label
APART = 0.3  # below it, a detection is one of an object without a label
PRIOR = 0.05  # share of false labels, before anything is known
LIKE = 40  # labels of the same class, nearest in size, that tell how many a model misses
KINDS = ("missing", "class", "place", "false")


@dataclass(frozen=True)
class Doubt:
    """One label that is doubted, or one that should be there.

    Attributes:
        kind: of `KINDS`: an object without a label, a label of another class, one that is loose or
            shifted, one where there is nothing.
        score: how strong the doubt is, in [0, 1].
        object: the label, a row of `Matches.objects`; -1: there is none.
        found: the detection, a row of `Matches.found`; -1: there is none.
        overlap: IoU of the two; 0 where there is but one.
    """

    kind: str
    score: float
    object: int
    found: int
    overlap: float


def label_doubts(
    matches: Matches, overlap: Callable[[int, int], float] | None = None
) -> list[Doubt]:
    """Return what detections say against labels, each label and each detection once, worst first.

    With s the score of a detection and v its IoU with a label:

    - missing: s (1 - v / 0.5) of a detection that overlaps no label by 0.3 or more;
    - class: s (1 - e) of a detection of another class with v of 0.5 or more, where e is the
      evidence for the class of the label, the highest s min(1, v / 0.5) of its detections;
    - place: s (u - v) / (u - 0.1), where u is the median of v over the labels that are found;
    - false: (1 - e') f / (f + m), where e' is the evidence for any class, f is `PRIOR`, and m the
      share of other labels of its class and about its size that the model misses, so that nothing
      follows from what it often misses.

    Args:
        matches: detections with low scores too, matched at an IoU of 0.5.
        overlap: of (label, detection) the IoU by which places are judged, in place of that of the
            matching: never more than it.
    """
    found, objects = matches.found, matches.objects
    scores, free = found.scores, matches.hit < 0
    weight = scores * np.minimum(matches.near_iou / RIGHT, 1)
    same = np.zeros(len(objects))
    _highest(same, matches.near, weight, matches.near >= 0)
    _highest(same, matches.hit, scores, ~free)
    other = np.zeros(len(objects))
    strange = free & (matches.other >= 0)
    _highest(other, matches.other, scores * np.minimum(matches.other_iou / RIGHT, 1), strange)

    chosen: dict[int, Doubt] = {}

    def doubt(kind: str, score: float, o: int, d: int = -1, v: float = 0.0) -> None:
        if score > 0 and (o not in chosen or score > chosen[o].score):
            chosen[o] = Doubt(kind, score, o, d, v)

    certain = PRIOR / (PRIOR + _missed(matches, same >= RIGHT))
    for o, score in enumerate((certain * (1 - np.maximum(same, other))).tolist()):
        doubt("false", score, o)
    for d in np.flatnonzero(strange & (matches.other_iou >= RIGHT)).tolist():
        o = int(matches.other[d])
        doubt("class", scores[d] * (1 - same[o]), o, d, float(matches.other_iou[d]))
    pairs = _pairs(matches)
    value = {o: float(matches.near_iou[d]) for o, d in pairs.items()}
    if overlap is not None:
        value = {o: overlap(o, d) for o, d in pairs.items()}
    good = [value[o] for o, d in pairs.items() if not free[d] and scores[d] >= RIGHT]
    usual = float(np.median(good)) if good else 0.0
    for o, d in pairs.items():
        if NEAR < usual > value[o]:
            loose = (usual - max(value[o], NEAR)) / (usual - NEAR)
            doubt("place", float(scores[d]) * loose, o, d, value[o])
    told = {one.found for one in chosen.values()}
    most = np.maximum(matches.near_iou, matches.other_iou)
    lone = np.flatnonzero(free & ~matches.ignored & (most < APART))
    missing = [
        Doubt("missing", float(scores[d] * (1 - most[d] / RIGHT)), -1, d, 0.0)
        for d in _first_of_each_place(matches, lone[np.argsort(-scores[lone], kind="stable")])
        if d not in told
    ]
    return sorted([*chosen.values(), *missing], key=lambda one: -one.score)


def _highest(into: FloatArray, at: np.ndarray, values: FloatArray, among: np.ndarray) -> None:
    np.maximum.at(into, at[among], values[among])


def _missed(matches: Matches, seen: np.ndarray) -> FloatArray:
    """Return which share of the labels like each one, without itself, is missed.

    Like it are up to `LIKE` of its class, half of them smaller and half larger. To the m missed of
    n is added one of two, so that few labels prove little: (m + 1) / (n + 2).
    """
    boxes, labels = matches.objects.boxes, matches.objects.label
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    share = np.ones(len(labels))
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(area[own], kind="stable")]
        missed = np.append(0, np.cumsum(~seen[own]))
        place = np.arange(len(own))
        first = np.clip(place - LIKE // 2, 0, max(len(own) - LIKE - 1, 0))
        last = np.minimum(first + LIKE + 1, len(own))
        others = missed[last] - missed[first] - ~seen[own]
        share[own] = (others + 1) / (last - first - 1 + 2)
    return share


def _pairs(matches: Matches) -> dict[int, int]:
    """Return the detection of its own class that speaks of the place of a label, by label.

    That which found it, or of those that found nothing and have it nearest the one with the highest
    product of score and IoU.
    """
    d = np.flatnonzero((matches.hit < 0) & (matches.near_iou >= NEAR) & ~matches.ignored)
    worth = matches.found.scores[d] * matches.near_iou[d]
    order = d[np.argsort(worth, kind="stable")]
    pairs = dict(zip(matches.near[order].tolist(), order.tolist(), strict=True))  # the last stays
    hits = np.flatnonzero(matches.taken >= 0)
    return pairs | dict(zip(hits.tolist(), matches.taken[hits].tolist(), strict=True))


def _first_of_each_place(matches: Matches, ranked: np.ndarray) -> list[int]:
    """Return the detections that no better one of any class overlaps by half, in their order."""
    kept: dict[int, list[int]] = {}
    chosen = []
    for d in ranked.tolist():
        others = kept.setdefault(int(matches.found.image[d]), [])
        if all(_iou(matches.found.boxes[d], matches.found.boxes[k]) < RIGHT for k in others):
            others.append(d)
            chosen.append(d)
    return chosen


def _iou(a: FloatArray, b: FloatArray) -> float:
    both = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both
    return float(both / union) if union > 0 else 0.0
