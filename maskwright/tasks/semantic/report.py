"""`report.html` of a segmenter: its sections, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Dataset
from ...drawing.figures import plural
from ...metrics.semantic import PixelScores, pixel_scores
from ...reports.page import escape
from ...reports.page_parts import DASH, images, left_out, name_cell, number, optional, table
from ...reports.report import Step, write_page
from . import figures as plots
from .evaluate import SemanticEvaluation, named
from .pictures import draw_images, save_metrics, worst_images

CONFUSIONS = 12  # rows of the table
LISTED = 20  # images in the table
FEW = 5  # images with a class below which its numbers say little
WEAK = 0.5  # IoU below which a class is worth a word
WORST_FILE, CONFUSION_FILE, CLASSES_FILE = "worst.jpg", "confusion_matrix.png", "classes.png"


@dataclass(frozen=True)
class Diagnosis:
    """What a report is made of.

    Attributes:
        scores: of each class.
        confusions: true class, class that was taken for it and number of pixels, most first.
        worst: positions of the worst images, the worst first.
    """

    scores: PixelScores
    confusions: list[tuple[int, int, int]]
    worst: list[int]


def diagnose(result: SemanticEvaluation) -> Diagnosis:
    """Return what an evaluation tells beyond its metrics."""
    mixed = result.confusion[:, :-1].copy()
    np.fill_diagonal(mixed, 0)
    largest = np.argsort(-mixed, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(i), len(mixed)) for i in largest if mixed.flat[i]]
    confusions = [(true, said, int(mixed[true, said])) for true, said in pairs]
    return Diagnosis(pixel_scores(result.confusion), confusions, worst_images(result))


def write_report(
    folder: Path,
    result: SemanticEvaluation,
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
    if result.confusion.any():
        plots.plot_confusion(result.confusion, result.names, folder / CONFUSION_FILE)
        plots.plot_classes(found.scores, result.names, folder / CLASSES_FILE)
    draw_images(folder / WORST_FILE, result, dataset, found.worst, "The images of the lowest IoU")
    save_metrics(folder / "metrics.json", result.metrics, diagnostics=_numbers(result, found))
    page = write_page(
        folder,
        title,
        figures=_key_figures(result),
        steps=next_steps(result, found, command),
        sections=[
            (
                "The worst images",
                [*images(folder, WORST_FILE, wide=True), _images(result, dataset)],
            ),
            ("Metrics", [_metrics(result)]),
            ("Classes", [_classes(result, found), *images(folder, CLASSES_FILE)]),
            ("Confusion", [_confusions(result, found), *images(folder, CONFUSION_FILE)]),
            ("Training", images(folder, "results.png")),
            ("Annotations", images(folder, "labels.jpg")),
        ],
        options=options,
        device=device,
        notes=notes,
    )
    return found, [_spoken(result, found), f"report: {page}"]


def next_steps(result: SemanticEvaluation, found: Diagnosis, command: str) -> list[Step]:
    """Return the steps that promise most, the first thing to do first."""
    scores, names = found.scores, result.names
    if not scores.support.any():
        return [Step("Evaluate images with label maps", "No pixel has a class to be scored.")]
    steps = []
    weak = _weakest(scores)
    if weak is not None and scores.iou[weak] < WEAK:
        steps.append(Step(f"Look at {names[weak]}", _why(weak, result, found)))
    elif found.confusions:
        true, said, count = found.confusions[0]
        steps.append(
            Step(
                "Look at the worst images",
                f"Most often {names[true]} is taken for {names[said]}: {count:,} pixels, "
                f"{count / scores.support[true]:.1%} of {names[true]}. Where the label map is "
                "wrong, mend it; where it is right, the class needs more such images.",
            )
        )
    showing = (result.counts[:, 1] > 0).sum(0)
    few = [i for i in np.flatnonzero(scores.support).tolist() if showing[i] < FEW]
    if few:
        there = int((scores.support > 0).sum())
        steps.append(
            Step(
                "Take more images for the evaluation",
                f"{len(few)} of {there} {plural(there, 'class')} "
                f"{'is' if len(few) == 1 else 'are'} in fewer than {FEW} images: one image more "
                "or less moves their numbers a lot.",
            )
        )
    steps.append(Step("Predict", "What the model makes of each image, with a picture.", command))
    return steps


def _weakest(scores: PixelScores) -> int | None:
    """Return the class of the lowest IoU among those that the truth has."""
    there = np.flatnonzero(scores.support)
    return int(there[scores.iou[there].argmin()]) if len(there) else None


def _why(label: int, result: SemanticEvaluation, found: Diagnosis) -> str:
    """Return what happens to the pixels of a class."""
    scores, names = found.scores, result.names
    text = f"It has the lowest IoU, {scores.iou[label]:.3f}: "
    text += f"{scores.accuracy[label]:.0%} of its pixels are found"
    row = result.confusion[label, :-1].copy()
    row[label] = 0
    if row.any():
        said = int(row.argmax())
        text += f", {row[said] / scores.support[label]:.0%} are taken for {names[said]}"
    if scores.answers[label]:
        text += f"; of what is taken for it, {scores.precision[label]:.0%} is right"
    share = scores.support[label] / scores.support.sum()
    if share < 0.01:
        text += (
            f". It is rare ({share:.2%} of the pixels): train with balance=median or "
            "loss=ce+dice, in which rare classes count for more"
        )
    return f"{text}."


def _spoken(result: SemanticEvaluation, found: Diagnosis) -> str:
    scores, names = found.scores, result.names
    weak = _weakest(scores)
    if weak is None:
        return "no pixel to be scored"
    text = f"{1 - scores.pixel_accuracy:.1%} of the pixels wrong"
    if found.confusions:
        true, said, _ = found.confusions[0]
        text += f", most often {names[true]} taken for {names[said]}"
    return f"{text}; lowest IoU: {names[weak]} {scores.iou[weak]:.3f}"


def _numbers(result: SemanticEvaluation, found: Diagnosis) -> dict[str, Any]:
    """Return what the report draws, for `metrics.json`."""
    scores, names = found.scores, list(result.names)
    return {
        "pixels": dict(zip(names, scores.support.tolist(), strict=True)),
        "predicted_pixels": dict(zip(names, scores.answers.tolist(), strict=True)),
        "confusion_matrix": {
            "rows": "true",
            "names": names,
            "counts": result.confusion[:, :-1].tolist(),
            "no_class": result.confusion[:, -1].tolist(),
        },
    }


def _key_figures(result: SemanticEvaluation) -> list[tuple[str, str]]:
    shown = {
        "mIoU": "mean IoU",
        "pixel_accuracy": "pixel accuracy",
        "mean_accuracy": "mean accuracy",
        "boundary/IoU": "boundary IoU",
    }
    metrics = result.metrics
    rows = [(number(metrics[key], "–"), what) for key, what in shown.items() if key in metrics]
    rows.append((f"{len(result.images):,}", plural(len(result.images), "image")))
    if math.isfinite(result.ms):
        rows.append((f"{result.ms:,.0f} ms", "per image"))
    return rows


MEANING = {
    "mIoU": "mean over the classes of intersection over union, rare ones count as much as others",
    "pixel_accuracy": "share of the pixels whose class is right",
    "mean_accuracy": "mean over the classes of the share of their pixels that is right",
    "fwIoU": "IoU of the classes, weighted by their pixels",
    "dice": "mean over the classes of 2 x intersection / (predicted + true), the F1 score",
    "boundary/IoU": "mean IoU of the classes in a band along their borders (2% of the diagonal)",
    "boundary/F": "mean over the classes of how well their borders meet (within 0.75% of the "
    "diagonal)",
}


def _metrics(result: SemanticEvaluation) -> str:
    rows = [
        [escape(key), optional(value), f'<span class="words">{MEANING.get(key, "")}</span>']
        for key, value in result.metrics.items()
        if named(key) is None
    ]
    return (
        "<p>All pixels of all images are counted together, those that the truth ignores left out; "
        "a class that is neither there nor predicted has no part in a mean.</p>"
        + table(["metric", "value", "meaning"], rows)
    )


def _classes(result: SemanticEvaluation, found: Diagnosis) -> str:
    scores = found.scores
    total = max(int(scores.support.sum()), 1)
    showing = (result.counts[:, 1] > 0).sum(0)
    rows, absent = [], []
    for i, name in enumerate(result.names):
        if not scores.support[i] and not scores.answers[i]:
            absent.append(name)
            continue
        values = (scores.iou[i], scores.accuracy[i], scores.precision[i], scores.dice[i])
        rows.append(
            [
                name_cell(name),
                f"{showing[i]:,}",
                f"{100 * scores.support[i] / total:.2f}",
                f"{100 * scores.answers[i] / total:.2f}",
                *(number(float(value), DASH) for value in values),
            ]
        )
    head = ["class", "images", "% true", "% predicted", "IoU", "accuracy", "precision", "dice"]
    text = table(head, rows, sortable=True) if rows else ""
    return text + left_out("Neither in the images nor predicted, and left out", absent)


def _confusions(result: SemanticEvaluation, found: Diagnosis) -> str:
    if not found.confusions:
        return "<p>No class was taken for another.</p>" if result.confusion.any() else ""
    names, scores = result.names, found.scores
    return table(
        ["true class", "taken for", "pixels", "of the class"],
        [
            [name_cell(names[t]), name_cell(names[p]), f"{n:,}", f"{n / scores.support[t]:.1%}"]
            for t, p, n in found.confusions
        ],
    )


def _images(result: SemanticEvaluation, dataset: Dataset) -> str:
    """Return a table of the images of the lowest IoU."""
    iou = result.iou_of_images
    order = [i for i in np.argsort(iou, kind="stable").tolist() if iou[i] < 1][:LISTED]
    if not order:
        return "<p>No pixel is wrong.</p>" if result.confusion.any() else ""
    rows = []
    for i in order:
        right, true, _ = result.counts[i].sum(1).tolist()
        file = dataset[int(result.images[i])].path.name
        rows.append([name_cell(file), f"{iou[i]:.3f}", f"{1 - right / true:.1%}"])
    return (
        "<p>IoU: the mean of the classes of the image alone. <code>images.csv</code> has all "
        "images.</p>" + table(["image", "IoU", "wrong pixels"], rows, sortable=True)
    )
