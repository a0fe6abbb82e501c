"""The page of a comparison, its figure, and its table as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
import statistics
from typing import Any

from ..drawing.trade_off import Point, plot_trade_off
from ..files import write_whole
from ..reports.curves import LOWEST
from ..reports.next_command import command
from ..reports.page import escape
from ..reports.page_parts import DASH, images, name_cell, table
from ..reports.report import Step
from ..reports.report import write_page as write_report
from .rows import MEASURED, Comparison, Row, unbeaten, write_rows

FIGURE, CSV, MARKDOWN = "speed.png", "results.csv", "results.md"
NONE = "–"


def write_page(made: Comparison) -> None:
    """Write page, figure, tables and numbers into the run folder, the page last."""
    write_rows(made)
    front = unbeaten(made.rows, made.score) if made.score else []
    _draw(made, front)
    head, rows = table_of(made, front)
    write_whole(made.dir / CSV, _csv(made))
    told = [*_notes(made), *made.notes]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    method = [text for _, text in _method(made)]
    write_whole(made.dir / MARKDOWN, "\n".join([*lines, "", *told, *method]) + "\n")
    cells = [[name_cell(row[0]), *(_cell(one) for one in row[1:])] for row in rows]
    write_report(
        made.dir,
        f"Which model for {made.options['data']}?",
        figures=_key_figures(made, front),
        steps=_steps(made, front),
        sections=[
            ("Speed against quality", images(made.dir, FIGURE, wide=True)),
            ("All models", [table(head, cells, sortable=True)]),
            ("How it was measured", [_paragraph(*part) for part in _method(made)]),
        ],
        options=made.options,
        device=str(made.options["device"]),
        notes=told,
    )


def table_of(made: Comparison, front: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return head and cells of the table, as text.

    Args:
        made: the comparison.
        front: the models that no other beats, see `unbeaten`; they are marked.
    """
    keys = [key for key in made.task.compared if any(row.values(_plain(key)) for row in made.rows)]
    kept = [row for row in made.rows if row.runs or row.faults]
    faults = any(row.faults for row in kept)
    head = ["model", "unbeaten", *(_title(made, key) for key in keys), "ms an image"]
    head += ["M parameters", "MB to predict", "minutes trained", "epochs"]
    head += ["what failed"] if faults else []
    rows = []
    for row in kept:
        runs = list(row.runs.values())
        seconds = [run.seconds for run in runs if math.isfinite(run.seconds)]
        low, middle, high = row.speed()
        cells = [row.name, "yes" if row in front else ""]
        cells += [_values(row.values(_plain(key))) for key in keys]
        cells += [f"{middle:.1f} ({low:.1f}-{high:.1f})" if row.ms else NONE]
        cells += [f"{row.parameters / 1e6:.2f}" if row.parameters else NONE]
        cells += [f"{row.memory:.0f}" if row.memory > 0 else NONE]
        cells += [f"{statistics.fmean(seconds) / 60:.1f}" if seconds else NONE]
        epochs = sorted({run.epochs for run in runs if run.epochs})
        cells += ["-".join(map(str, dict.fromkeys((epochs[0], epochs[-1])))) if epochs else NONE]
        cells += ["; ".join(dict.fromkeys(row.faults.values()))] if faults else []
        rows.append(cells)
    return head, rows


def _plain(key: str) -> str:
    return key.removeprefix(LOWEST)


def _title(made: Comparison, key: str) -> str:
    title = made.task.compared[key]
    return f"{title} (low is good)" if key.startswith(LOWEST) else title


def _values(values: list[float]) -> str:
    """Return a metric over the seeds: the mean, and of several the range."""
    if not values:
        return NONE
    text = f"{statistics.fmean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f}-{max(values):.3f})"


def _cell(text: str) -> str:
    return DASH if text == NONE else escape(text)


def _paragraph(title: str, text: str) -> str:
    return f"<p><b>{escape(title)}.</b> {escape(text)}</p>"


def _draw(made: Comparison, front: list[Row]) -> None:
    key = made.score or ""
    points = []
    for row in made.rows if key else ():
        values = row.values(_plain(key))
        if row.ms and values:
            worth = (min(values), statistics.fmean(values), max(values))
            points.append(Point(row.name, row.speed(), worth, row in front))
    plot_trade_off(
        points,
        made.dir / FIGURE,
        xlabel="milliseconds an image (median and middle half)",
        ylabel=f"{_title(made, key)} on the {made.split} split" if key else "",
        falls=key.startswith(LOWEST),
    )


def _key_figures(made: Comparison, front: list[Row]) -> list[tuple[str, str]]:
    figures = [(str(len(made.rows)), "models")]
    if made.score and front:
        best, fast = front[-1], front[0]
        score = f"{best.mean(_plain(made.score)):.3f}"
        figures += [(score, f"{_title(made, made.score)}, the best: {best.name}")]
        figures += [(f"{fast.speed()[1]:.1f} ms", f"an image, the fastest unbeaten: {fast.name}")]
    return figures


def _steps(made: Comparison, front: list[Row]) -> list[Step]:
    """Return what to do: each model that nothing beats is a choice, the best first."""
    steps = []
    for row in reversed(front if made.score else []):
        assert made.score is not None
        value, ms = row.mean(_plain(made.score)), row.speed()[1]
        others = [other for other in front if other is not row]
        why = "No other model here is both faster and better." if others else "It beats all others."
        weights = next(iter(row.runs.values())).weights
        line = command("maskwright", "predict", f"model={weights}", "source=PHOTOS")
        what = f"{row.name}: {_title(made, made.score)} {value:.3f} in {ms:.1f} ms"
        steps.append(Step(what, why, line))
    return steps


def _notes(made: Comparison) -> list[str]:
    """Return what a reader should know before the figures."""
    notes = []
    scored = [row for row in made.rows if row.runs]
    if missing := [row.name for row in made.rows if not row.runs and not row.faults]:
        notes.append(f"Not done yet: {', '.join(missing)}. The same call again goes on.")
    notes += [f"{row.name} failed: {fault}" for row in made.rows for fault in row.faults.values()]
    if scored and not all(row.ms for row in scored):
        notes.append("The speed is not measured yet: that comes when all models are trained.")
    counts = {len(row.runs) for row in scored if row.runs}
    if counts == {1}:
        notes.append(
            "One training of each: another seed would give other scores, and models that differ by "
            "less than that are equal. seeds=0,1,2 tells by how much."
        )
    elif counts:
        notes.append("Scores are means over the seeds, with the lowest and the highest.")
    by_seed: dict[int, set[int]] = {}
    for row in scored:
        for seed, run in row.runs.items():
            by_seed.setdefault(seed, set()).add(run.part)
    if any(len(parts) > 1 for parts in by_seed.values()):
        notes.append(
            "The models were not all scored on the same images: the data has no split for it, and "
            "trainings of different seeds or options held out other parts. Do not compare these."
        )
    elif len(set().union(*by_seed.values())) > 1:
        notes.append("Each seed held out images of its own, which is part of the range.")
    if made.score is None and len(scored) > 1:
        notes.append("There is no metric that all of the models have.")
    return notes


def _method(made: Comparison) -> list[tuple[str, str]]:
    """Return how the figures came about: title and text of each part."""
    options: dict[str, Any] = made.options
    budget = [f"{key}={options[key]}" for key in ("minutes", "steps", "epochs") if options.get(key)]
    trained = f"each with {budget[0]}" if budget else "each for as many epochs as `train` has"
    holds = made.data.get(made.split, "a part of train that was held out")
    known = [
        row.name for row in made.rows if any(run.weights == row.name for run in row.runs.values())
    ]
    seen = (
        f" {', '.join(known)} came trained: that none of these images were among theirs is not "
        "known here."
        if known
        else ""
    )
    chosen = (
        " The same images chose the best epoch of each training, which makes all scores a little "
        "too high; data with a split test and split=test is free of that."
        if made.split == "val"
        else ""
    )
    return [
        (
            "Quality",
            f"On the {made.split} split ({holds}), which no training here learned "
            f"from.{chosen}{seen} These are the numbers of maskwright val.",
        ),
        (
            "Training",
            f"By maskwright train, {trained} and the same options; the rest are its defaults for "
            "each model. Minutes are those of training steps on this machine, validations not "
            "counted.",
        ),
        (
            "Speed",
            "From the pixels of a photo to the whole result in its pixels, one photo at a time, "
            "prepared as maskwright predict does it. All models look at each photo in turns, after "
            f"a round that does not count; repeats={options['repeats']}. Median, and the quarter "
            "points of all predictions. With the first seed.",
        ),
        (
            "Memory",
            "The peak of a process of its own that loads the model and predicts the largest of "
            "these photos, Python and torch included (on a GPU: what was asked for there).",
        ),
    ]


def _csv(made: Comparison) -> str:
    """Return one line for each trained model, with all its numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(dict.fromkeys(_plain(key) for key in made.task.compared))
    head = ["model", "seed", *keys, "ms", "ms_low", "ms_high", "parameters", "memory_mb"]
    head += ["train_seconds", "epochs", "weights", "fault"]
    writer.writerow(head)
    for row in made.rows:
        timed = [f"{row.speed()[i]:.3f}" if row.ms else "" for i in (1, 0, 2)]
        memory = f"{row.memory:.1f}" if row.memory > 0 else ""
        size = [row.parameters or "", memory]
        for seed in dict.fromkeys([*row.runs, *(seed for seed in row.faults if seed >= 0)]):
            run, fault = row.runs.get(seed), row.faults.get(seed, row.faults.get(MEASURED, ""))
            numbers = [math.nan if run is None else run.metrics.get(key, math.nan) for key in keys]
            cells = ["" if math.isnan(value) else repr(value) for value in numbers]
            seconds = "" if run is None or math.isnan(run.seconds) else f"{run.seconds:.1f}"
            more = [seconds, (run.epochs if run else 0) or "", run.weights if run else "", fault]
            writer.writerow([row.name, seed, *cells, *timed, *size, *more])
    return text.getvalue()
