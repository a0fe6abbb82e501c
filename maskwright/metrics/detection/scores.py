"""What a score is worth: the threshold of the best F1, and how well scores are calibrated.

Calibration follows Guo et al. 2017 with detections for samples (as Kueppers et al. 2020 do): a
score of 0.8 should mean that 8 of 10 such detections are right, at the IoU of the match.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..calibration import Calibration as Calibration  # also of the figures
from ..calibration import bin_scores
from .matching import BoolArray, Matches
from .table import FloatArray

# Thresholds that people would type.
THRESHOLDS: FloatArray = np.concatenate([[0.001], np.arange(1, 100) / 100])
# Below this score stand the many detections that only AP asks for.
SMALLEST_SCORE = 0.05


def above(scores: FloatArray, conf: float) -> BoolArray:
    """Return which scores (N,) a detector with the threshold `conf` would let pass.

    A detector computes in float32 and wants scores above the threshold, not equal to it: the score
    0.3 is no detection at conf=0.3, nor one of 1 at conf=1.
    """
    return np.asarray(scores, np.float32) > np.float32(conf)


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold, and what detections above it are worth.

    Attributes:
        conf: the threshold with the highest F1, the middle one of equals.
        precision, recall, f1: in [0, 1]; precision is nan without detections.
    """

    conf: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ScoreCurves:
    """Precision, recall and F1 by score threshold, over all classes together.

    Attributes:
        thresholds: (T,).
        precision, recall, f1: (T,) in [0, 1]; precision is nan where nothing is left.
        best: the threshold with the highest F1; None where F1 is 0 everywhere, or undefined.
        per_class: the same for each class that has objects, by name.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    best: OperatingPoint | None
    per_class: dict[str, OperatingPoint | None]


def score_curves(matches: Matches, least: float = 0.0) -> ScoreCurves:
    """Return precision, recall and F1 by threshold, and the best threshold overall and by class.

    Args:
        matches: matched detections.
        least: the threshold that these have passed already: at a lower one there would be more of
            them, so none is called the best.
    """
    counts = matches.objects_per_class()
    precision, recall, f1 = _curves(matches, None, int(counts.sum()))
    per_class = {
        name: _best(*_curves(matches, k, int(counts[k])), least)
        for k, name in enumerate(matches.names)
        if counts[k]
    }
    best = _best(precision, recall, f1, least)
    return ScoreCurves(THRESHOLDS, precision, recall, f1, best, per_class)


def _curves(
    matches: Matches, label: int | None, objects: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    # Greedy matching by falling score: what is below a threshold changes nothing above it.
    mine = ~matches.ignored
    if label is not None:
        mine &= matches.found.label == label
    scores, right = matches.found.scores[mine][::-1], matches.right[mine][::-1]  # rising
    # See `above`.
    limits = THRESHOLDS.astype(np.float32)
    first = np.searchsorted(scores.astype(np.float32), limits, side="right")
    hits = np.append(np.cumsum(right[::-1])[::-1], 0)[first].astype(float)
    kept = (len(scores) - first).astype(float)
    precision = np.divide(hits, kept, out=np.full(len(kept), np.nan), where=kept > 0)
    if not objects:
        undefined = np.full(len(kept), np.nan)
        return precision, undefined, undefined
    return precision, hits / objects, 2 * hits / (kept + objects)


def _best(
    precision: FloatArray, recall: FloatArray, f1: FloatArray, least: float
) -> OperatingPoint | None:
    if not np.nanmax(f1, initial=0.0) > 0:
        return None
    start = int(np.nanargmax(f1))
    top = np.nonzero(f1[start:] < f1[start] - 1e-12)[0]
    last = start + int(top[0]) - 1 if len(top) else len(f1) - 1
    # At thresholds below `least` the detections are the same as at it.
    first = int(np.searchsorted(THRESHOLDS, least))
    i = (min(max(start, first), last) + last) // 2
    conf = max(float(THRESHOLDS[i]), least)
    return OperatingPoint(conf, float(precision[i]), float(recall[i]), float(f1[i]))


def calibration(
    matches: Matches, *, bins: int = 10, smallest: float = SMALLEST_SCORE
) -> Calibration:
    """Return how often detections of a score are right; those on crowd regions do not count.

    Args:
        matches: matched detections.
        bins: number of bins of equal width from 0 to 1; a score on a limit belongs to the bin
            above.
        smallest: smallest score that counts.
    """
    mine = ~matches.ignored & (matches.found.scores >= smallest)
    scores, right = matches.found.scores[mine], matches.right[mine]
    return bin_scores(scores, right, bins, closed="left")


@dataclass(frozen=True)
class ImageScore:
    """How well one image came out.

    Attributes:
        image: position in the list of images.
        right, missed, wrong: numbers of objects found, objects not found and false detections.
    """

    image: int
    right: int
    missed: int
    wrong: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + missed + wrong); 1 where there is nothing and nothing was found."""
        total = 2 * self.right + self.missed + self.wrong
        return 2 * self.right / total if total else 1.0


def score_images(matches: Matches, conf: float) -> list[ImageScore]:
    """Return how well each image came out with the detections above `conf`, worst first.

    Images stand by rising F1, those of equal F1 by falling number of errors.
    """
    shown = above(matches.found.scores, conf)
    image = matches.found.image
    right = np.bincount(image[shown & matches.right], minlength=matches.images)
    wrong = np.bincount(image[shown & matches.wrong], minlength=matches.images)
    objects = np.bincount(matches.objects.image, minlength=matches.images)
    scores = [
        ImageScore(i, int(right[i]), int(objects[i] - right[i]), int(wrong[i]))
        for i in range(matches.images)
    ]
    return sorted(scores, key=lambda one: (one.f1, -(one.missed + one.wrong)))
