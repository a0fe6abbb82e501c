"""`report.html` of a classifier: its sections, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.records import Dataset
from ...drawing.figures import plural
from ...reports.page import escape
from ...reports.page_parts import DASH, images, left_out, name_cell, number, optional, table
from ...reports.report import Step, write_page
from . import figures as plots
from .diagnosis import MISTAKES, Diagnosis, diagnose
from .evaluate import ClassificationEvaluation, overall
from .pictures import draw_answers, save_metrics

CALIBRATED = 0.03  # an error of calibration that is not worth a word
FEW = 30  # images of a class below which its numbers say little
MISTAKES_FILE, CONFUSION_FILE = "mistakes.jpg", "confusion_matrix.png"
CLASSES_FILE, CALIBRATION_FILE = "classes.png", "calibration.png"


def write_report(
    folder: Path,
    result: ClassificationEvaluation,
    dataset: Dataset,
    *,
    title: str,
    command: str,
    options: Mapping[str, Any],
    device: str,
    notes: Sequence[str],
) -> tuple[Diagnosis, list[str]]:
    """Write `report.html`, its figures and `metrics.json` into a run folder.

    Args:
        folder: the run folder.
        result: the evaluation.
        dataset: the images that were evaluated.
        title: heading of the page.
        command: a prediction of these images.
        options: options of the run by name.
        device: where the model ran.
        notes: what the reader should know first.

    Returns:
        What the report is made of, and lines that tell where it is.
    """
    found = diagnose(result)
    _draw(folder, result, found, dataset)
    save_metrics(folder / "metrics.json", result.metrics, diagnostics=_numbers(result, found))
    page = write_page(
        folder,
        title,
        figures=_key_figures(result, found),
        steps=next_steps(result, found, command),
        sections=[
            ("The surest mistakes", _mistakes(folder, result, found)),
            ("Metrics", [_metrics(result)]),
            ("Confusion", [_confusions(result, found), *images(folder, CONFUSION_FILE)]),
            ("Classes", [_classes(result, found), *images(folder, CLASSES_FILE)]),
            ("Calibration", [_calibration(result, found), *images(folder, CALIBRATION_FILE)]),
            ("Training", images(folder, "results.png")),
            ("Images", images(folder, "labels.jpg")),
        ],
        options=options,
        device=device,
        notes=notes,
    )
    return found, [_spoken(result, found), f"report: {page}"]


def next_steps(result: ClassificationEvaluation, found: Diagnosis, command: str) -> list[Step]:
    """Return the steps that promise most, the first thing to do first."""
    if not len(result.labels):
        return [Step("Evaluate images with labels", "There are none, so nothing can be scored.")]
    steps = []
    if found.confusions:
        true, said, count = found.confusions[0]
        names = result.names
        steps.append(
            Step(
                "Look at the surest mistakes",
                f"{len(found.mistakes):,} of {len(result.labels):,} images are wrong; the most "
                f"frequent confusion is {names[true]} taken for {names[said]} ({count:,}). Where "
                "the label is wrong, mend it; where it is right, the class needs more such images.",
            )
        )
    elif found.mistakes:
        steps.append(
            Step(
                "Look at the surest mistakes",
                f"{len(found.mistakes):,} of {len(result.labels):,} images have a wrong or a "
                "missing class.",
            )
        )
    there = [i for i, n in enumerate(found.scores.support.tolist()) if n]
    few = [i for i in there if found.scores.support[i] < FEW]
    if few:
        steps.append(
            Step(
                "Take more images for the evaluation",
                f"{len(few)} of {len(there)} {plural(len(there), 'class')} "
                f"{'has' if len(few) == 1 else 'have'} fewer than {FEW} images: one image more or "
                "less moves their numbers a lot.",
            )
        )
    steps.append(Step("Predict", "What the model answers to each image, with a picture.", command))
    return steps


def _spoken(result: ClassificationEvaluation, found: Diagnosis) -> str:
    count = len(result.labels)
    text = f"{len(found.mistakes):,} of {count:,} {plural(count, 'image')} wrong"
    if found.confusions:
        true, said, number = found.confusions[0]
        names = result.names
        text += f"; most often {names[true]} taken for {names[said]} ({number:,})"
    return text


def _draw(
    folder: Path, result: ClassificationEvaluation, found: Diagnosis, dataset: Dataset
) -> None:
    names = list(result.names)
    if found.matrix is not None and found.matrix.any():
        plots.plot_confusion(found.matrix, names, folder / CONFUSION_FILE)
    plots.plot_classes(found.scores, names, folder / CLASSES_FILE)
    plots.plot_reliability(found.before, found.after, found.temperature, folder / CALIBRATION_FILE)
    if found.mistakes:
        draw_answers(
            folder / MISTAKES_FILE, result, dataset, found.mistakes[:MISTAKES], "Wrong answers"
        )
    else:
        (folder / MISTAKES_FILE).unlink(missing_ok=True)


def _numbers(result: ClassificationEvaluation, found: Diagnosis) -> dict[str, Any]:
    """Return what the report draws, for `metrics.json`."""
    names = list(result.names)
    tree: dict[str, Any] = {
        "images": {name: int(n) for name, n in zip(names, found.scores.support, strict=True)},
        "wrong": len(found.mistakes),
        "temperature": found.temperature,
        "ece_with_temperature": None if math.isnan(found.after.error) else found.after.error,
    }
    if found.matrix is not None:
        tree["confusion_matrix"] = {"rows": "true", "names": names, "counts": found.matrix.tolist()}
    return tree


def _key_figures(result: ClassificationEvaluation, found: Diagnosis) -> list[tuple[str, str]]:
    metrics, count = result.metrics, len(result.labels)
    shown = ("mAP", "macro/F1", "exact") if result.multilabel else ("top1", "macro/F1")
    rows = [(number(metrics[key], "–"), key.replace("/", " ")) for key in shown]
    for key in metrics:
        if key.startswith("top") and key != "top1":
            rows.insert(1, (number(metrics[key], "–"), key))
    rows.append((f"{count:,}", plural(count, "image")))
    rows.append((f"{len(found.mistakes):,}", "wrong"))
    if math.isfinite(result.ms):
        rows.append((f"{result.ms:,.1f} ms", "per image"))
    return rows


def _mistakes(folder: Path, result: ClassificationEvaluation, found: Diagnosis) -> list[str]:
    if not found.mistakes:
        return ["<p>No image was answered wrongly.</p>"] if len(result.labels) else []
    shown = min(len(found.mistakes), MISTAKES)
    text = (
        f"<p>{shown} of {len(found.mistakes):,} wrong answers, those of the highest probability "
        "first: what the model says, its probability, and the true class. Wrong labels stand among "
        "them, where there are any. <code>predictions.csv</code> has all answers.</p>"
    )
    return [text, *images(folder, MISTAKES_FILE)]


MEANING = {
    "top1": "share of images whose most probable class is the true one",
    "mAP": "mean over the classes of the average precision",
    "macro/F1": "mean over the classes of F1, rare ones count as much as frequent ones",
    "macro/precision": "mean over the classes of precision",
    "macro/recall": "mean over the classes of recall",
    "balanced_accuracy": "mean recall of the classes that occur",
    "nll": "mean of -ln p of the true class; 0 is best",
    "brier": "mean squared distance of the probabilities from the truth, 0 to 2; 0 is best",
    "ece": "mean distance between probability and the share that is right; 0 is best",
    "temperature": "by which to divide the logits so that the probabilities fit these images",
    "exact": "share of images all of whose classes are right",
    "F1": "of all answers together",
    "precision": "of all answers together",
    "recall": "of all answers together",
}


def _metrics(result: ClassificationEvaluation) -> str:
    rows = []
    for key, value in result.metrics.items():
        if overall(key):
            meaning = MEANING.get(key, "")
            if key.startswith("top") and key != "top1":
                meaning = f"share of images whose true class is among the {key[3:]} most probable"
            rows.append([escape(key), optional(value), f'<span class="words">{meaning}</span>'])
    return table(["metric", "value", "meaning"], rows)


def _classes(result: ClassificationEvaluation, found: Diagnosis) -> str:
    scores, metrics = found.scores, result.metrics
    head = ["class", "images", "answers", "precision", "recall", "F1"]
    if result.multilabel:
        head.append("AP")
    rows, absent = [], []
    for i, name in enumerate(result.names):
        if not scores.support[i] and not scores.answers[i]:
            absent.append(name)
            continue
        values = (scores.precision[i], scores.recall[i], scores.f1[i])
        row = [name_cell(name), f"{scores.support[i]:,}", f"{scores.answers[i]:,}"]
        row += [number(float(value), DASH) for value in values]
        if result.multilabel:
            row.append(optional(metrics.get(f"AP/{name}", math.nan)))
        rows.append(row)
    text = table(head, rows, sortable=True) if rows else ""
    return text + left_out("Neither in the images nor answered, and left out", absent)


def _confusions(result: ClassificationEvaluation, found: Diagnosis) -> str:
    if found.matrix is None:
        return ""
    if not found.confusions:
        return "<p>No class was taken for another.</p>"
    names, scores = result.names, found.scores
    return table(
        ["true class", "taken for", "images", "of the class"],
        [
            [name_cell(names[t]), name_cell(names[p]), f"{n:,}", f"{n / scores.support[t]:.1%}"]
            for t, p, n in found.confusions
        ],
    )


def _calibration(result: ClassificationEvaluation, found: Diagnosis) -> str:
    before, after, t = found.before, found.after, found.temperature
    if math.isnan(before.error):
        return ""
    if before.error < CALIBRATED:
        verdict = "The probabilities can be believed as they are."
    elif before.bias > 0:
        verdict = "The probabilities promise too much."
    else:
        verdict = "The probabilities promise too little."
    gain = (
        f"Divided by a temperature of {t:.2f}, which leaves every answer as it is, the error would "
        f"be {after.error:.3f} instead of {before.error:.3f}, measured on each half of the images "
        "with the temperature that fits the other half"
    )
    much = "" if after.error < before.error else ": so it is not worth it"
    return (
        f"<p><b>{verdict}</b></p><p>Of answers with a probability of 0.8, eight of ten should be "
        "right. ECE is the mean distance between probability and the share that is right, in 15 "
        f"bins. {gain}{much}.</p>"
    )
