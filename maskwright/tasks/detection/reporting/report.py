"""The sections of the report of a detector: metrics, thresholds, errors, the worst images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....data.records import Dataset
from ....drawing.figures import plural
from ....metrics.detection.error_split import KINDS, MEANING, SPECIAL
from ....metrics.detection.scores import SMALLEST_SCORE, ImageScore
from ....reports.page import REPORT, escape
from ....reports.page_parts import (
    DASH,
    images,
    left_out,
    name_cell,
    number,
    optional,
    table,
)
from ....reports.report import write_page
from ....reports.undefined import metric_rows, split_rows, undefined_line
from .advice import next_steps, verdict
from .diagnosis import IOU_TYPES, Diagnosis, save_numbers
from .worst import LEGEND, draw_worst

if TYPE_CHECKING:
    from ..evaluate import DetectionEvaluation

AT_ONCE = 3  # of the worst images; the others are folded away
MIXUPS = 12  # rows of the table of confusions
ALWAYS = ("AP", "AP50")  # rows of the table of metrics that stay, whatever they say
TITLES = {"box": "Boxes", "mask": "Masks"}
NONE_RIGHT = '<span title="no detection of this class is right">–</span>'


def write_report(
    folder: Path,
    found: Diagnosis,
    result: DetectionEvaluation,
    dataset: Dataset,
    *,
    title: str,
    command: str,
    options: Mapping[str, Any],
    device: str,
    notes: Sequence[str] = (),
) -> None:
    """Write `report.html`, its figures and `metrics.json` into a run folder.

    The curves of a training are taken from `results.png` of the folder, where it is there.

    Args:
        folder: the run folder.
        found: the diagnosis of the evaluation.
        result: the evaluation.
        dataset: the images that were evaluated.
        title: heading of the page.
        command: the prediction that finds what the report shows.
        options: options of the run by name.
        device: where the model ran.
        notes: what the reader should know first, such as warnings.
    """
    figures = _draw(folder, found, result)
    worst = draw_worst(folder, found, result, dataset)
    files = [image["file_name"] for image in result.gt["images"]]
    save_numbers(folder / "metrics.json", result.metrics, found, files)
    sections = [
        ("The worst images", [*_worst(folder, found, worst)]),
        ("Metrics", [_metrics(result.metrics)]),
        ("Which score threshold?", [_thresholds(found), *images(folder, figures["scores"])]),
        ("Training", images(folder, "results.png")),
        ("Classes", [_classes(found, result.metrics), *images(folder, figures["classes"])]),
        ("Precision and recall", images(folder, *figures["pr"])),
        ("Errors", [_errors(found), *images(folder, figures["errors"])]),
        ("Confusion", [_mixups(found), *images(folder, figures["confusion"])]),
        ("Calibration", [_calibration(found), *images(folder, figures["calibration"])]),
        ("Annotations", images(folder, "labels.jpg")),
    ]
    write_page(
        folder,
        title,
        figures=_key_figures(result, found),
        steps=next_steps(found, command),
        sections=sections,
        options=options,
        device=device,
        notes=notes,
    )


def spoken(found: Diagnosis, folder: Path) -> list[str]:
    """Return lines that tell the advised score threshold and where the report is."""
    if found.best is not None:
        first = (
            f"best F1 {found.best.f1:.3f} (precision {found.best.precision:.3f}, recall "
            f"{found.best.recall:.3f}) at conf={found.best.conf:g}: pictures, confusion matrix "
            "and the command below use it"
        )
    else:
        first = (
            f"no best F1, because nothing right was found: pictures, confusion matrix and the "
            f"command below use conf={found.conf:g}"
        )
    return [first, f"report: {folder / REPORT}"]


def _draw(folder: Path, found: Diagnosis, result: DetectionEvaluation) -> dict[str, Any]:
    """Draw the figures and return their file names."""
    from . import figures as plots

    kinds = found.kinds
    plots.plot_class_ap(result.metrics, folder / "class_ap.png", found.objects)
    plots.plot_confusion(
        found.confusion, found.names, folder / "confusion_matrix.png", found.conf_text
    )
    for kind, one in kinds.items():
        panels = {f"{TITLES[kind]}, {name}": curves for name, curves in one.curves.items()}
        plots.plot_pr(panels, folder / f"{kind}_pr.png")
    pages = [f"{kind}_pr.png" for kind in kinds]
    if found.keypoints is not None:
        panels = {f"Keypoints, {name}": curves for name, curves in found.keypoints.items()}
        pages.append("keypoints_pr.png")
        plots.plot_pr(panels, folder / pages[-1])
    plots.plot_scores({k: one.scores for k, one in kinds.items()}, folder / "f1.png")
    plots.plot_errors({k: one.errors for k, one in kinds.items()}, folder / "errors.png")
    plots.plot_calibration(
        {k: one.calibration for k, one in kinds.items()}, folder / "calibration.png"
    )
    return {
        "classes": "class_ap.png",
        "confusion": "confusion_matrix.png",
        "pr": pages,
        "scores": "f1.png",
        "errors": "errors.png",
        "calibration": "calibration.png",
    }


def _key_figures(result: DetectionEvaluation, found: Diagnosis) -> list[tuple[str, str]]:
    metrics, objects = result.metrics, sum(found.objects.values())
    rows = [
        (number(value, "–"), key.replace("/", " "))
        for key, value in metrics.items()
        if key.count("/") == 1 and key.endswith("/AP")
    ]
    if found.best is not None:
        rows.append((f"{found.best.conf:g}", f"best conf, F1 {found.best.f1:.3f}"))
    if found.cut is not None and found.cut.masks:
        rows.append((f"{found.cut.share:.0%}", "masks cut by their box"))
    images = len(result.gt["images"])
    rows.append((f"{images:,}", plural(images, "image")))
    rows.append((f"{objects:,}", plural(objects, "object")))
    if math.isfinite(result.ms):
        rows.append((f"{result.ms:,.0f} ms", "per image"))
    return rows


def _metrics(metrics: Mapping[str, float]) -> str:
    """Return the table of the metrics over all classes, a column per family."""
    rows, undefined = split_rows(metric_rows(metrics)[0])
    families = list(dict.fromkeys(key.split("/")[0] for key in metrics))
    nought = [name for name, row in rows.items() if name not in ALWAYS and not any(row.values())]
    shown = {name: row for name, row in rows.items() if name not in nought}
    text = "<p>AP and AR lie between 0 and 1.</p>" + table(
        ["metric", *families],
        [
            [name, *(optional(row.get(family)) for family in families)]
            for name, row in shown.items()
        ],
    )
    if line := undefined_line(undefined):
        text += f'<p class="soft">{escape(line[0].upper() + line[1:])}.</p>'
    text += left_out("0 throughout, and left out", nought)
    if any(math.isnan(value) for row in shown.values() for value in row.values()):
        text += '<p class="soft">–: undefined, because the data has no object of this kind.</p>'
    return text


def _classes(found: Diagnosis, metrics: Mapping[str, float]) -> str:
    # "box/AP", "mask/AP", "box/VOC_AP50", ...
    kinds = list(dict.fromkeys("/".join(k.split("/", 2)[:2]) for k in metrics if k.count("/") > 1))
    head = ["class", "objects", *(kind.replace("/", " ") for kind in kinds)]
    for kind in found.kinds:
        head += [f"{kind} best F1", "at conf"]
    rows, absent = [], []
    taken = dict(zip(found.names, found.confusion[:, :-1].sum(0).tolist(), strict=True))
    for name, count in found.objects.items():
        if not count and not taken[name]:
            absent.append(name)
            continue
        row = [name_cell(name), f"{count:,}" if count else "0: AP is undefined"]
        row += [optional(metrics.get(f"{kind}/{name}")) for kind in kinds]
        for one in found.kinds.values():
            point = one.scores.per_class.get(name)
            if point is not None:
                row += [f"{point.f1:.3f}", f"{point.conf:g}"]
            else:
                row += ["0.000", NONE_RIGHT] if count else [DASH, DASH]
        rows.append(row)
    text = table(head, rows, sortable=True) if rows else ""
    return text + left_out("Neither in the images nor found, and left out", absent)


def _thresholds(found: Diagnosis) -> str:
    if found.best is None:
        return (
            f"<p>No threshold to advise: no detection found an object. conf={found.conf:g}, the "
            "default, is shown instead.</p>"
        )
    return (
        f"<p>F1 over all classes is highest at <code>conf={found.best.conf:g}</code>: worst "
        "images, confusion matrix and the pictures of the folder show what it finds. Take a lower "
        "one to miss less, a higher one for fewer false detections. Matches at IoU 0.5.</p>"
    )


def _errors(found: Diagnosis) -> str:
    head = ["error", "meaning"]
    for kind in found.kinds:
        head += [f"{kind}: number", "AP50 gained"]
    rows, none = [], []
    for error in (*KINDS, *SPECIAL):
        if not any(one.errors.counts[error] for one in found.kinds.values()):
            none.append(error)
            continue
        row = [error, f'<span class="words">{MEANING[error]}</span>']
        for one in found.kinds.values():
            row += [f"{one.errors.counts[error]:,}", optional(one.errors.gains[error])]
        rows.append(row)
    text = (
        "<p>By how much AP at IoU 0.5 would rise if the errors of one kind alone were mended "
        "(TIDE, Bolya et al. 2020). Every detection counts, also those of low score. False "
        "positives and false negatives take all false detections, or all that was not found, "
        "together.</p>"
    )
    text += (table(head, rows) if rows else "") + left_out("No error of the kind", none)
    if found.cut is not None and found.cut.masks:
        text += (
            f"<p>Cut masks: {len(found.cut.cut):,} of {found.cut.masks:,} masks of found objects "
            f"({found.cut.share:.1%}) end in a straight line at the side of their box, while the "
            f"object goes on beyond it; at {found.conf_text}.</p>"
        )
    return text


def _mixups(found: Diagnosis) -> str:
    """Return the most frequent confusions between classes."""
    matrix = found.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    text = (
        f"<p>Boxes found at {found.conf_text}, matched at IoU 0.5 whatever their "
        "class. The last column holds missed objects, the last row false detections.</p>"
    )
    order = np.argsort(-matrix, axis=None, kind="stable")[:MIXUPS]
    mixed = [divmod(int(i), len(found.names)) for i in order if matrix.flat[i]]
    if not mixed:
        return text
    return text + table(
        ["true class", "taken for", "times"],
        [
            [name_cell(found.names[t]), name_cell(found.names[p]), f"{matrix[t, p]:,}"]
            for t, p in mixed
        ],
    )


def _calibration(found: Diagnosis) -> str:
    judged = " ".join(verdict(kind, one.calibration) for kind, one in found.kinds.items())
    return (
        f"<p><b>{judged}</b></p><p>Among detections with a score of 0.8, eight of ten should be "
        "right (IoU 0.5). ECE is the mean distance between score and the share that is right; "
        "scores that promise too much stand below the dashed line. Detections from "
        f"{SMALLEST_SCORE:g} on.</p>"
    )


def _worst(
    folder: Path, found: Diagnosis, worst: Sequence[tuple[Path, ImageScore]]
) -> Iterable[str]:
    if not worst:
        return ["<p>No image has an error.</p>"] if found.best is not None else []
    kind = next(kind for kind in reversed(IOU_TYPES) if kind in found.kinds)
    swatches = "".join(
        f'<span class="key"><i style="background: rgb{color}"></i>{name}: {meaning}</span>'
        for name, (color, meaning) in LEGEND.items()
    )
    text = (
        f"<p>By F1 of the {TITLES[kind].lower()} at {found.conf_text}, lowest first. Left the "
        f'ground truth, right what was found.</p><p class="keys">{swatches}</p>'
    )
    names = [path.relative_to(folder).as_posix() for path, _ in worst]
    parts = [text, *images(folder, *names[:AT_ONCE], wide=True)]
    if more := images(folder, *names[AT_ONCE:], wide=True):
        parts.append(f"<details><summary>{len(more)} more</summary>{''.join(more)}</details>")
    return parts
