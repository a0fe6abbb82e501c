"""What to do after a validation, in words: the next steps, and how far scores can be trusted."""

from __future__ import annotations

import math

import numpy as np

from ....drawing.figures import plural
from ....metrics.detection.error_split import KINDS
from ....metrics.detection.scores import Calibration
from ....reports.report import Step
from .diagnosis import DEFAULT_CONF, Diagnosis

SMALL = 32  # pixels: the side of the largest object that COCO calls small
LITTLE = 0.005  # a gain in AP50 that is not worth a step
FITS = 0.02  # where mean score and share of right detections differ by less, scores can be believed
# What is wrong with how many detections, and what to do about it.
REMEDIES = {
    "classification": (
        "Compare the annotations of the classes that are mixed up",
        "{count} found in the right place under the wrong class",
        "If they are right, train with more examples of these classes.",
    ),
    "localisation": (
        "Get boxes and outlines tighter",
        "{count} found with an overlap below 0.5",
        "See in the worst images whether all annotations are drawn alike and to the edge; for "
        "small objects train with a larger imgsz.",
    ),
    "both": (
        "Compare the annotations of neighbouring classes",
        "{count} with the wrong class and an overlap below 0.5",
        "See in the worst images which objects they touch.",
    ),
    "duplicate": (
        "Lower iou, as in iou=0.4",
        "{count} found a second time",
        "If one object is still found in parts, soft_nms=linear may do better.",
    ),
    "background": (
        "Look at what was found where nothing is annotated",
        "{count} where nothing is annotated",
        "If they are objects, annotate them; if not, add images without objects to the training.",
    ),
    "missed": (
        "Find more of the objects",
        "{count} not found, not even nearly",
        "Train longer, with more images like the worst ones.",
    ),
}


def next_steps(found: Diagnosis, command: str) -> list[Step]:
    """Return the one or two steps that promise most, the first thing to do first.

    Args:
        found: the diagnosis.
        command: the prediction with the advised score threshold.
    """
    objects = sum(found.objects.values())
    if not objects:
        return [Step("Evaluate images with objects", "These hold none, so nothing can be scored.")]
    best = found.best
    if best is None:
        why = (
            f"None of the {objects:,} {plural(objects, 'object')} was found (IoU 0.5). See with "
            "maskwright data check whether the annotations lie on the objects."
        )
        return [Step("Check the annotations, then train longer", why)]
    why = (
        f"F1 is highest there: {best.f1:.3f} (precision {best.precision:.3f}, recall "
        f"{best.recall:.3f})"
    )
    if best.conf != DEFAULT_CONF:
        curves = found.lead.scores
        default = curves.f1[int(np.argmin(np.abs(curves.thresholds - DEFAULT_CONF)))]
        why += f"; at the default conf={DEFAULT_CONF:g} it is {default:.3f}"
    return [Step(f"Predict with conf={best.conf:g}", f"{why}.", command), _costliest(found)]


def _costliest(found: Diagnosis) -> Step:
    """Return what to do about the kind of error that costs most AP50."""
    split = found.lead.errors
    gains = {kind: split.gains[kind] for kind in KINDS if math.isfinite(split.gains[kind])}
    kind = max(gains, key=lambda name: gains[name], default="")
    if not kind or gains[kind] < LITTLE:
        why = f"No kind of error costs more than {LITTLE:g} of the AP50 of {split.ap:.3f}."
        return Step("Look at the worst images", why)
    what, fault, remedy = REMEDIES[kind]
    count = split.counts[kind]
    noun = "object" if kind == "missed" else "detection"
    facts = fault.format(count=f"{count:,} {plural(count, noun)}")
    facts += f": mending this alone would raise AP50 from {split.ap:.3f} by {gains[kind]:.3f}."
    if kind == "classification":
        facts += _mixed_up(found)
    if kind == "missed" and (small := _small_missed(found)):
        what = "Show the network larger objects"
        facts += f" {small}"
        remedy = "Train with a larger imgsz."
    return Step(what, f"{facts} {remedy}")


def _mixed_up(found: Diagnosis) -> str:
    matrix = found.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    if not matrix.any():
        return ""
    true, taken = divmod(int(matrix.argmax()), len(found.names))
    return f" Most often “{found.names[true]}” is taken for “{found.names[taken]}”."


def _small_missed(found: Diagnosis) -> str:
    """Return a sentence if most of the missed objects are small, else an empty text."""
    matches = found.lead.matches
    boxes = matches.objects.boxes[matches.taken < 0]
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    small = int((sides < SMALL).sum())
    if 2 * small <= len(boxes):
        return ""
    return f"{small:,} of the {len(boxes):,} not found are smaller than {SMALL} x {SMALL} pixels."


def verdict(kind: str, bins: Calibration) -> str:
    """Return in one sentence how far the scores of boxes or masks can be believed.

    Args:
        kind: "box" or "mask".
        bins: their calibration.
    """
    count = int(bins.counts.sum())
    if not count:
        return f"{kind.capitalize()}: there are no detections to judge scores by."
    score = float(np.nansum(bins.counts * bins.score)) / count
    facts = f"the mean score is {score:.2f}, the share that is right {score - bins.bias:.2f}"
    if abs(bins.bias) < FITS:
        return f"{kind.capitalize()} scores fit on average: {facts}."
    way = "high" if bins.bias > 0 else "low"
    return f"{kind.capitalize()} scores are too {way} by {abs(bins.bias):.2f} on average: {facts}."
