"""What a validation of a localizer leaves: numbers, pictures, and the page that shows them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Dataset
from ...drawing.figures import plural
from ...files import write_whole
from ...reports.page import REPORT, escape
from ...reports.page_parts import images, number, optional, table
from ...reports.report import Step, write_page
from ...text import to_json
from .evaluate import LocationEvaluation, mistake
from .pictures import save_worst

PLACES = "places.json"
WORST = "worst.jpg"
# What is wrong, in words, and what may help.
MISTAKES = {
    "class": ("class wrong, box right", "Train longer, or with more examples of these classes."),
    "box": (
        "class right, box wrong",
        "See in the worst images whether the boxes are drawn alike; train with a larger imgsz, or "
        "take a detector if images have several objects.",
    ),
    "both": ("class and box wrong", "See in the worst images what it took for the object."),
    "object": (
        "object found where none is",
        "Add more images without an object to the training.",
    ),
}


def save_places(folder: Path, result: LocationEvaluation, data: Dataset) -> None:
    """Write `metrics.json`, `places.json` (what was found in each image) and `worst.jpg`."""
    numbers = {key: _plain(value) for key, value in result.metrics.items()}
    write_whole(folder / "metrics.json", to_json(numbers) + "\n")
    rows = [json.dumps(_plain(row), separators=(",", ":")) for row in result.rows]
    write_whole(folder / PLACES, "[" + ",\n".join(rows) + "]\n")
    save_worst(folder / WORST, result, data)


def load_places(folder: Path, metrics: dict[str, float]) -> LocationEvaluation | None:
    """Return the evaluation that `save_places` left, or None."""
    if not (folder / PLACES).is_file():
        return None
    rows: list[dict[str, Any]] = json.loads((folder / PLACES).read_bytes())
    for row in rows:
        for key in ("known", "error"):
            if key in row and row[key] is None:
                row[key] = math.nan
        if "overlaps" in row:
            row["overlaps"] = [math.nan if one is None else one for one in row["overlaps"]]
    return LocationEvaluation(metrics, math.nan, rows, sum(row["unknown"] for row in rows))


def write_location_report(
    folder: Path,
    result: LocationEvaluation,
    data: Dataset,
    *,
    title: str,
    command: str,
    options: Mapping[str, Any],
    device: str,
    notes: Sequence[str],
) -> list[str]:
    """Write the page and return what to say of it."""
    metrics = result.metrics
    boxes = "box/top1_loc" in metrics
    counts = split_mistakes(result, len(data.names)) if boxes else Counter[str]()
    first = [("localized top-1", "box/top1_loc"), ("class top-1", "class/top1")]
    shown = first if boxes else [("NME", "keypoints/NME"), ("failures", "keypoints/failure")]
    figures = [(number(metrics[key], "–"), name) for name, key in shown if key in metrics]
    figures.append((f"{len(result.rows):,}", plural(len(result.rows), "image")))
    if math.isfinite(result.ms):
        figures.append((f"{result.ms:,.0f} ms", "per image"))
    sections = [
        ("The worst images", images(folder, WORST)),
        ("Metrics", [_metrics(metrics)]),
        ("Mistakes", [_mistakes(counts, len(result.rows))] if boxes else []),
        ("Classes", [_classes(result, data)] if boxes else []),
        ("Keypoints", [] if boxes else [_points(metrics)]),
        ("Training", images(folder, "results.png")),
        ("Annotations", images(folder, "labels.jpg")),
    ]
    write_page(
        folder,
        title,
        figures=figures,
        steps=[*_advice(counts), Step("Look at other images", "", command)],
        sections=sections,
        options=options,
        device=device,
        notes=notes,
    )
    lines = [f"report: {folder / REPORT}"]
    if boxes:
        wrong = [f"{MISTAKES[kind][0]} {count}" for kind, count in counts.most_common()]
        lines.insert(0, f"of {len(result.rows)} images: {', '.join(wrong) or 'all right'}")
    return lines


def split_mistakes(result: LocationEvaluation, background: int) -> Counter[str]:
    """Return how many images have which mistake, see `mistake`."""
    kinds = [mistake(row, background) for row in result.rows if not row["unknown"]]
    return Counter(kind for kind in kinds if kind)


def _advice(counts: Counter[str]) -> list[Step]:
    if not counts:
        return []
    kind, count = counts.most_common(1)[0]
    what, mend = MISTAKES[kind]
    return [Step(f"Most mistakes: {what}", f"{count:,} {plural(count, 'image')}. {mend}")]


MEANING = {
    "box/top1_loc": "the first class is right and its box overlaps an object of it by at least "
    "half (IoU 0.5): 1 less ILSVRC's error",
    "box/top5_loc": "any of the five surest classes with its box",
    "box/gt_known": "the box of the true class, whatever was named",
    "box/IoU": "mean overlap of that box",
    "box/IoU75": "share of these boxes with an IoU of at least 0.75",
    "class/top1": "the class alone, pictures without an object included",
    "keypoints/NME": "mean distance of the keypoints, divided by the size of the object; 0 is best",
    "keypoints/failure": "share of pictures whose distance is above the limit; 0 is best",
    "keypoints/AUC": "area under the curve of errors up to the limit",
    "keypoints/PCK": "share of keypoints within 0.2 of the longer side of the box",
}


def _metrics(metrics: Mapping[str, float]) -> str:
    rows = [
        [escape(key), optional(value), f'<span class="words">{MEANING[key]}</span>']
        for key, value in metrics.items()
        if key in MEANING
    ]
    return table(["metric", "value", "meaning"], rows)


def _mistakes(counts: Counter[str], total: int) -> str:
    rows = [
        [escape(what), f"{counts[kind]:,}", f"{counts[kind] / max(total, 1):.3f}"]
        for kind, (what, _) in MISTAKES.items()
    ]
    return table(["mistake", "images", "share"], rows)


def _classes(result: LocationEvaluation, data: Dataset) -> str:
    rows = []
    for label, name in enumerate([*data.names, "background"]):
        mine = [row for row in result.rows if row["label"] == label and not row["unknown"]]
        if not mine:
            continue
        right = np.mean([row["named"][0] == label for row in mine])
        overlap = np.mean([row["known"] for row in mine]) if label < len(data.names) else math.nan
        rows.append([escape(name), f"{len(mine):,}", f"{right:.3f}", optional(float(overlap))])
    return table(["class", "images", "class right", "mean IoU"], rows, sortable=True)


def _points(metrics: Mapping[str, float]) -> str:
    names = [key.split("/", 2)[2] for key in metrics if key.startswith("keypoints/NME/")]
    rows = [
        [escape(name), *(optional(metrics.get(f"keypoints/{kind}/{name}")) for kind in _KINDS)]
        for name in names
    ]
    return table(["keypoint", *_KINDS], rows, sortable=True)


_KINDS = ("NME", "PCK")


def _plain(value: Any) -> Any:
    """Return data without nan, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
