"""What a validation says beyond its AP: numbers for the report and for `metrics.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....metrics.detection.cut_masks import CutMasks, cut_masks
from ....metrics.detection.diagnostics import Curves, confusion_matrix, pr_curves
from ....metrics.detection.error_split import ErrorSplit, split_errors
from ....metrics.detection.matching import Matches, match
from ....metrics.detection.scores import (
    Calibration,
    ImageScore,
    OperatingPoint,
    ScoreCurves,
    calibration,
    score_curves,
    score_images,
)
from ....metrics.detection.table import IntArray
from ....storage.rundir import write_whole
from ....text import to_json

if TYPE_CHECKING:
    from ..evaluate import DetectionEvaluation

IOU_TYPES = {"box": "bbox", "mask": "segm"}
DEFAULT_CONF = 0.25  # of `predict`: shown where no score can be advised


@dataclass(frozen=True)
class KindDiagnosis:
    """The diagnosis of boxes or of masks.

    Attributes:
        curves: precision-recall curves by IoU and class, see `metrics.pr_curves`.
        matches: who found whom at IoU 0.5.
        scores: precision, recall and F1 by score threshold.
        calibration: how often detections of a score are right.
        errors: what each kind of error costs.
    """

    curves: dict[str, Curves]
    matches: Matches
    scores: ScoreCurves
    calibration: Calibration
    errors: ErrorSplit


@dataclass(frozen=True)
class Diagnosis:
    """What lies behind the metrics of an evaluation.

    Attributes:
        names: class names.
        objects: number of objects by class name, crowd regions left out.
        kinds: "box" and, where masks were scored, "mask".
        confusion: (C + 1, C + 1) confusion matrix of the boxes above `conf`.
        images: how each image came out above `conf`, worst first, by masks where there are any.
        conf: the score threshold of all that is shown and advised: that of the best F1, or 0.25
            where there is none.
        keypoints: precision-recall curves of the keypoints, by object keypoint similarity and
            class; None where they were not scored.
        cut: the masks above `conf` that their boxes cut off; None where masks were not scored.
    """

    names: tuple[str, ...]
    objects: dict[str, int]
    kinds: dict[str, KindDiagnosis]
    confusion: IntArray
    images: list[ImageScore]
    conf: float
    keypoints: dict[str, Curves] | None = None
    cut: CutMasks | None = None

    @property
    def lead(self) -> KindDiagnosis:
        """Masks, else boxes: keypoints are matched by their AP only."""
        return self.kinds.get("mask", self.kinds["box"])

    @property
    def best(self) -> OperatingPoint | None:
        """The best score threshold; None where nothing was found."""
        return self.lead.scores.best

    @property
    def conf_text(self) -> str:
        """The threshold `conf`, and why it is taken."""
        return describe_conf(self.conf, self.best)


def diagnose(result: DetectionEvaluation, max_det: int, least: float = 0.0) -> Diagnosis:
    """Look for what lies behind the metrics of an evaluation.

    Args:
        result: the evaluation.
        max_det: detections counted per image and class.
        least: the score threshold of the evaluation; no lower one is advised.
    """
    kinds = {}
    for kind, iou_type in IOU_TYPES.items():
        if f"{kind}/AP" not in result.metrics:
            continue
        matches = match(result.gt, result.detections, iou_type, max_det=max_det)
        kinds[kind] = KindDiagnosis(
            pr_curves(result.gt, result.detections, iou_type, max_det),
            matches,
            score_curves(matches, least),
            calibration(matches),
            split_errors(matches),
        )
    lead = kinds.get("mask", kinds["box"])
    best = lead.scores.best
    conf = shown_conf(best, least)
    names = lead.matches.names
    cut = None
    if "mask" in kinds:
        cut = cut_masks(result.gt, result.detections, conf=conf, max_det=max_det)
    return Diagnosis(
        names,
        dict(zip(names, lead.matches.objects_per_class().tolist(), strict=True)),
        kinds,
        confusion_matrix(result.gt, result.detections, conf=conf),
        score_images(lead.matches, conf),
        conf,
        _keypoint_curves(result, max_det),
        cut,
    )


def advise(result: DetectionEvaluation, max_det: int) -> OperatingPoint | None:
    """Return the score threshold that `diagnose` advises, without the rest of the diagnosis.

    Args:
        result: the evaluation.
        max_det: detections counted per image and class.

    Returns:
        The threshold with the best F1, of masks where there are any; None where none is best.
    """
    iou_type = IOU_TYPES["mask" if "mask/AP" in result.metrics else "box"]
    return score_curves(match(result.gt, result.detections, iou_type, max_det=max_det)).best


def shown_conf(best: OperatingPoint | None, least: float = 0.0) -> float:
    """Return the score threshold of all that is shown.

    Args:
        best: the advised one, see `advise`.
        least: that of the evaluation.
    """
    return max(DEFAULT_CONF, least) if best is None else best.conf


def describe_conf(conf: float, best: OperatingPoint | None) -> str:
    """Return a score threshold and why it is taken, as text."""
    why = "no best F1: nothing right was found" if best is None else f"best F1: {best.f1:.3f}"
    return f"conf={conf:g} ({why})"


def _keypoint_curves(result: DetectionEvaluation, max_det: int) -> dict[str, Curves] | None:
    """Return precision and recall of the keypoints, where object keypoint similarity is the IoU."""
    if "keypoints/AP" not in result.metrics:
        return None
    curves = pr_curves(result.gt, result.detections, "keypoints", max_det, result.sigmas)
    return {name.replace("IoU", "OKS"): classes for name, classes in curves.items()}


def save_numbers(
    path: Path, metrics: Mapping[str, float], found: Diagnosis | None, files: Sequence[str] = ()
) -> None:
    """Write `metrics.json`: the metrics flat, under "diagnostics" all that the report draws.

    Args:
        path: the file.
        metrics: numbers by key; what is undefined is written as null.
        found: the diagnosis; None: metrics only.
        files: file name of each image, by its position.
    """
    tree: dict[str, Any] = dict(metrics)
    if found is not None:
        tree["diagnostics"] = _numbers(found, files)
    text = to_json(_plain(tree), indent=1, allow_nan=False)
    # Numbers of a list go on one line. Text holds no bare line break, so it is never met.
    text = re.sub(r"\[\n[\d\s.,eE+nul-]*\]", lambda part: " ".join(part[0].split()), text)
    write_whole(path, text + "\n")


def _numbers(found: Diagnosis, files: Sequence[str]) -> dict[str, Any]:
    kinds = {}
    for kind, one in found.kinds.items():
        curves, bins = one.scores, one.calibration
        kinds[kind] = {
            "best": _point(curves.best),
            "best_per_class": {name: _point(point) for name, point in curves.per_class.items()},
            "by_conf": {
                "conf": curves.thresholds,
                "precision": curves.precision,
                "recall": curves.recall,
                "f1": curves.f1,
            },
            "precision_at_recall_0_to_1": {
                title: {name: precision for name, (_, precision) in part.items()}
                for title, part in one.curves.items()
            },
            "calibration": {
                "error": bins.error,
                "bias": bins.bias,
                "edges": bins.edges,
                "count": bins.counts,
                "score": bins.score,
                "precision": bins.precision,
            },
            "errors": {
                "AP50": one.errors.ap,
                "count": one.errors.counts,
                "AP50_gained": one.errors.gains,
            },
        }
    if found.cut is not None:
        cut = {"conf": found.conf, "masks": found.cut.masks, "cut": len(found.cut.cut)}
        kinds["mask"]["cut_masks"] = {**cut, "share": found.cut.share}
    return {
        "objects": found.objects,
        "confusion_matrix": {
            "conf": found.conf,
            "rows": "true, the last is the background",
            "counts": list(found.confusion),
        },
        **kinds,
        "images": {
            "conf": found.conf,
            "worst_first": [
                {
                    "file": files[one.image],
                    "f1": one.f1,
                    "right": one.right,
                    "missed": one.missed,
                    "wrong": one.wrong,
                }
                for one in found.images
            ],
        },
    }


def _point(point: OperatingPoint | None) -> dict[str, float] | None:
    return None if point is None else dict(vars(point))


def _plain(value: Any) -> Any:
    """Return what JSON can hold: arrays as lists of six digits, nan as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return [None if math.isnan(item) else round(item, 6) for item in value.tolist()]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
