"""Figures of a training run: its curves, and what the annotations look like."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..drawing.figures import (
    SERIES,
    WIDTH,
    FloatArray,
    as_text,
    colors,
    legend,
    new_figure,
    panels,
    plural,
    save_figure,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SCHEDULE_POINTS = 400
MOST_CLASSES = 20  # with a bar of their own
TITLES = {
    "box": "Box AP",
    "mask": "Mask AP",
    "boundary": "Boundary AP",
    "keypoints": "Keypoint AP",
}


def plot_results(
    csv_path: str | Path, out: str | Path, schedule: Callable[[int], float] | None = None
) -> Path:
    """Draw the curves of a training run.

    Args:
        csv_path: `results.csv` of the run: `epoch`, `step`, `lr`, `images_per_s`, `train/...`
            losses, `val/box/...`, `val/mask/...` and other metrics; empty where there is no value.
        out: file to write.
        schedule: the learning rate at each step from 0 on: between the ends of epochs, where the
            table has it, it warms up. None: the points of the table.

    Returns:
        The path of the figure.

    Raises:
        ValueError: if the file has no rows.
    """
    columns = _read_columns(Path(csv_path))
    epoch, step = columns.get("epoch"), columns.get("step")
    axis = "epoch"
    if epoch is None or len(np.unique(epoch)) < len(epoch):
        axis = "step" if step is not None else "row"
    rows = len(next(iter(columns.values())))
    x = columns.get(axis, np.arange(1, rows + 1, dtype=float))

    shown_in: list[tuple[str, str, dict[str, FloatArray]]] = []
    train = {k.removeprefix("train/"): v for k, v in columns.items() if k.startswith("train/")}
    if "loss" in train:
        shown_in.append(("Training loss", "loss", {"loss": train.pop("loss")}))
    if train:
        shown_in.append(("Losses by part", "loss", train))
    for kind, title in TITLES.items():
        prefix = f"val/{kind}/"
        shown = ("AP", "AP50", "AP75")
        curves = {key: columns[prefix + key] for key in shown if prefix + key in columns}
        if curves:
            shown_in.append((f"{title} on the val split", "", curves))
    if "lr" in columns:
        shown_in.append(("Learning rate", "", {"lr": columns["lr"]}))
    if "images_per_s" in columns:
        shown_in.append(("Speed", "images per second", {"images_per_s": columns["images_per_s"]}))
    if not shown_in:
        raise ValueError(f"{csv_path}: no column named train/..., val/..., lr or images_per_s")

    figure, axes = panels(len(shown_in), 2.7)
    for ax, (title, ylabel, curves) in zip(axes, shown_in, strict=True):
        if "lr" in curves and schedule is not None and step is not None:
            _draw_schedule(ax, schedule, int(step.max()))
            continue
        style(ax, title, axis, ylabel)
        _draw_curves(ax, x, curves)
        ax.set_xlim(min(float(x.min()), 0.0), float(x.max()) * 1.03 + 0.01)
        if "images_per_s" in curves:
            ax.set_ylim(bottom=0)
    return save_figure(figure, out)


def _draw_schedule(ax: Axes, schedule: Callable[[int], float], steps: int) -> None:
    """Draw the learning rate of each step that was done, the first ones of the warm-up closely."""
    early = np.arange(min(steps, SCHEDULE_POINTS))
    late = np.linspace(0, max(steps - 1, 0), SCHEDULE_POINTS).astype(int)
    x = np.unique(np.concatenate([early, late]))
    style(ax, "Learning rate", "step")
    ax.plot(x + 1, [schedule(int(i)) for i in x], color=SERIES, lw=1.7, label="lr")
    ax.set_xlim(0, max(1.03 * steps, 1))
    ax.set_ylim(bottom=0)


def _draw_curves(ax: Axes, x: FloatArray, curves: dict[str, FloatArray]) -> None:
    from matplotlib.ticker import MaxNLocator

    for (name, values), color in zip(curves.items(), colors(len(curves)), strict=True):
        good = np.isfinite(values)
        marker = "o" if good.sum() <= 30 else ""
        ax.plot(x[good], values[good], color=color, lw=1.7, marker=marker, ms=3, label=name)
    main = curves.get("AP")
    if main is not None and np.isfinite(main).any():
        best = int(np.nanargmax(main))
        ax.plot(x[best], main[best], "o", ms=7, mfc="white", mec=SERIES, mew=1.8)
        ax.annotate(
            f"{main[best]:.3f}", (x[best], main[best]), xytext=(0, -15),
            textcoords="offset points", ha="center", fontsize=8.2, color=SERIES, fontweight="bold",
        )  # fmt: skip
        top = max(float(np.nanmax(v)) for v in curves.values() if np.isfinite(v).any())
        ax.set_ylim(0, min(max(1.15 * top, 0.05), 1.05))
    if len(curves) > 1:
        legend(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))


def _read_columns(path: Path) -> dict[str, FloatArray]:
    """Return the numeric columns of a CSV file; what is empty or no number is nan."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        names = [name for name in reader.fieldnames or [] if name]
    if not rows:
        raise ValueError(f"{path} has no rows yet: the first one comes after the first epoch")

    def number(text: str | None) -> float:
        try:
            return float(text or "nan")
        except ValueError:
            return math.nan

    columns = {name: np.array([number(row[name]) for row in rows]) for name in names}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def plot_labels(
    labels: npt.NDArray[np.integer],
    sizes: FloatArray,
    centres: FloatArray,
    per_image: npt.NDArray[np.integer],
    names: Sequence[str | None],
    out: str | Path,
) -> Path:
    """Draw what the annotations of a data set look like.

    Args:
        labels: (N,) class index of every object.
        sizes: (N, 2) width and height of its box in pixels.
        centres: (N, 2) x and y of its centre as shares of image width and height.
        per_image: (I,) objects in each image, zeros included.
        names: class names.
        out: file to write.

    Returns:
        The path of the figure.
    """
    labels, sizes, centres = np.asarray(labels), np.asarray(sizes), np.asarray(centres)
    per_image = np.asarray(per_image)
    counts = np.bincount(labels, minlength=len(names)) if len(labels) else np.zeros(len(names), int)
    named = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    figure = new_figure(WIDTH, 5.6 + 0.09 * len(named))
    grid = figure.add_gridspec(2, 2, height_ratios=(2.6 + 0.09 * len(named), 3))

    ax = figure.add_subplot(grid[0, 0])
    words = [str(i) if names[i] is None else as_text(names[i]) for i in named]
    draw_counts(ax, words, counts[named], len(labels), len(names))

    ax = figure.add_subplot(grid[0, 1])
    empty = int((per_image == 0).sum())
    title = f"{len(per_image):,} {plural(len(per_image), 'image')}, {empty:,} empty"
    style(ax, title, "objects in an image", "images")
    if len(per_image):
        top = int(per_image.max())
        wide = -(-(top + 1) // 40)  # whole numbers, so that no bin is emptier by its width
        edges = np.arange(0, top + 1 + wide, wide) - 0.5
        ax.hist(per_image, bins=edges.tolist(), color=SERIES, rwidth=0.9)

    for place, title in ((grid[1, 0], "Box size"), (grid[1, 1], "Centres of the objects")):
        ax = figure.add_subplot(place)
        if title == "Box size":
            style(ax, title, "width, pixels", "height, pixels")
            if len(sizes):
                _density(ax, np.log10(np.maximum(sizes, 0.5)), None)
                _log_ticks(ax)
        else:
            style(ax, title, "x / image width", "y / image height")
            if len(centres):
                _density(ax, centres, (0.0, 1.0))
            ax.set_xlim(0, 1)
            ax.set_ylim(1, 0)
    return save_figure(figure, out)


def draw_counts(
    ax: Axes, words: Sequence[str], counts: npt.NDArray[np.integer], objects: int, classes: int
) -> None:
    """Draw the objects of the most frequent classes as bars, the most frequent on top.

    Args:
        ax: where.
        words: names of the classes that are shown.
        counts: their objects.
        objects: of all classes.
        classes: number of all classes.
    """
    of = "" if len(words) == classes else f" of the {len(words)} most frequent classes"
    style(ax, f"{objects:,} objects, {classes:,} {plural(classes, 'class')}", f"objects{of}")
    ax.grid(False, axis="y")
    ax.barh(range(len(words)), counts, color=SERIES, height=0.75)
    ax.set_yticks(range(len(words)), words)
    ax.set_ylim(max(len(words), 3) - 0.4, -0.6)
    if len(counts) > 3 and counts.max() > 200 * max(np.median(counts), 1):
        ax.set_xscale("symlog")


def _density(ax: Axes, points: FloatArray, limits: tuple[float, float] | None) -> None:
    """Draw how many points fall into each cell: legible for ten and for a million."""
    if limits is None:
        low, high = points.min() - 0.1, points.max() + 0.1
    else:
        low, high = limits
    cells = int(np.clip(np.sqrt(len(points)) / 1.8, 12, 60))
    edges = np.linspace(low, high, cells + 1)
    count, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))
    shown = np.ma.masked_equal(count.T, 0)
    from matplotlib.colors import LogNorm

    norm = LogNorm(vmin=0.5, vmax=max(float(count.max()), 1.0))
    ax.pcolormesh(edges, edges, shown, cmap="GnBu", norm=norm, rasterized=True)


def _log_ticks(ax: Axes) -> None:
    """Label axes of decimal logarithms with the pixels themselves."""
    marks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    for which in (ax.xaxis, ax.yaxis):
        low, high = which.get_view_interval()
        inside = [m for m in marks if low <= math.log10(m) <= high]
        which.set_ticks([math.log10(m) for m in inside], [str(m) for m in inside])
