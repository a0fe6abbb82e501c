"""Figures of a validation: precision-recall, F1, calibration, errors, confusion matrix, classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ....drawing.figures import (
    COLORS,
    INK,
    SERIES,
    SMALL,
    SOFT,
    WIDTH,
    FloatArray,
    as_text,
    colors,
    legend,
    new_figure,
    panels,
    save_figure,
    say,
    style,
)
from ....drawing.matrix import plot_matrix, pooled
from ....drawing.reliability import draw_reliability
from ....metrics.detection.error_split import KINDS, SPECIAL, ErrorSplit
from ....metrics.detection.scores import Calibration, ScoreCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More curves or cells than this get no legend or numbers of their own.
FEW = 10
MANY_BARS = 40  # of more classes the best and the worst are shown
MANY_CELLS = 20  # rows of the confusion matrix, the background not counted

Curve = tuple[FloatArray, FloatArray]


def plot_pr(parts: Mapping[str, Mapping[str, Curve]], out: str | Path) -> Path:
    """Draw precision against recall, a panel per IoU with a line per class and their mean.

    Args:
        parts: heading such as "Boxes, IoU 0.5" -> class name -> (recall, precision), see
            `metrics.pr_curves`; may be empty.
        out: file to write.

    Returns:
        The path of the figure.
    """
    lines = max((min(len(curves), FEW) for curves in parts.values()), default=0)
    figure, axes = panels(len(parts), 3.3 + 0.19 * lines)
    for ax, (title, curves) in zip(axes, parts.items(), strict=True):
        style(ax, title, "recall", "precision")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.03)
        _draw_pr(ax, curves)
    return save_figure(figure, out)


def _draw_pr(ax: Axes, curves: Mapping[str, Curve]) -> None:
    ranked = sorted(curves.items(), key=lambda item: -item[1][1].mean())
    if not ranked:
        say(ax, "no class has objects here")
        return
    many = len(ranked) > FEW
    palette = dict(zip(curves, colors(len(curves)), strict=True))  # the same in all panels
    for name, (recall, precision) in ranked:
        look: dict[str, Any] = (
            {"color": "#9fb3dc", "lw": 0.7, "alpha": 0.55}
            if many
            else {
                "color": palette[name],
                "lw": 1.6,
                "label": f"{as_text(name)}  {precision.mean():.3f}",
            }
        )
        ax.plot(recall, precision, **look)
    if len(ranked) > 1:
        recall = ranked[0][1][0]
        mean = np.mean([precision for _, (_, precision) in ranked], axis=0)
        label = f"mean of {len(ranked)} classes  {mean.mean():.3f}"
        ax.plot(recall, mean, color=INK, lw=2.6, label=label)
    if many:
        named = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
        for (name, (recall, precision)), color in zip(named, COLORS[1:4], strict=True):
            label = f"{as_text(name)}  {precision.mean():.3f}"
            ax.plot(recall, precision, color=color, lw=1.3, label=label)
    legend(ax, loc="upper left", bbox_to_anchor=(0, -0.17), title="class and AP", alignment="left",
           title_fontproperties={"size": SMALL})  # fmt: skip


def plot_scores(curves: Mapping[str, ScoreCurves], out: str | Path) -> Path:
    """Draw precision, recall and F1 against the score threshold, a panel per kind.

    Args:
        curves: "box" and "mask" -> curves over all classes.
        out: file to write.

    Returns:
        The path of the figure.
    """
    figure, axes = panels(len(curves), 3.3)
    for ax, (kind, one) in zip(axes, curves.items(), strict=True):
        style(ax, f"{kind.capitalize()}: which conf?", "conf", "")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.03)
        if not np.isfinite(one.f1).any():
            say(ax, "no objects here")
            continue
        for (name, values), color in zip(
            (("F1", one.f1), ("precision", one.precision), ("recall", one.recall)),
            COLORS,
            strict=False,
        ):
            ax.plot(
                one.thresholds, values, color=color, lw=2.4 if name == "F1" else 1.4, label=name
            )
        if one.best is not None:
            ax.axvline(one.best.conf, color=INK, lw=1, ls=(0, (4, 3)))
            ax.plot(one.best.conf, one.best.f1, "o", ms=7, mfc="white", mec=SERIES, mew=1.8)
            text = f"{kind.capitalize()}: F1 {one.best.f1:.3f} at conf={one.best.conf:g}"
            style(ax, text, "conf", "")
        legend(ax, loc="lower center")
    return save_figure(figure, out)


def plot_calibration(results: Mapping[str, Calibration], out: str | Path) -> Path:
    """Draw reliability diagrams, a column per kind, with the number of detections below.

    Args:
        results: "box" and "mask" -> calibration.
        out: file to write.

    Returns:
        The path of the figure.
    """
    figure = new_figure(3.6 * max(len(results), 1), 4.8)
    grid = figure.add_gridspec(2, max(len(results), 1), height_ratios=(3, 1))
    for i, (kind, one) in enumerate(results.items()):
        title = f"{kind.capitalize()}: can scores be believed?"
        facts = f"ECE {one.error:.3f}, score − share {one.bias:+.3f}"
        ax, below = draw_reliability(
            figure, grid, i, one, title, facts, score="score", counted="detections"
        )
        ax.set_ylabel("share that is right")
        below.set(xlabel="score", ylabel="detections")
        if one.counts.max(initial=0) > 50 * max(np.median(one.counts), 1):
            below.set_yscale("symlog")
    return save_figure(figure, out)


def plot_errors(splits: Mapping[str, ErrorSplit], out: str | Path) -> Path:
    """Draw by how much AP would rise if one kind of error were mended.

    Args:
        splits: "box" and "mask" -> error split.
        out: file to write.

    Returns:
        The path of the figure.
    """
    rows = [r for r in (*KINDS, *SPECIAL) if any(one.counts[r] for one in splits.values())]
    figure = new_figure(WIDTH, 1.3 + 0.17 * len(rows) * (1 + len(splits)))
    ax = figure.add_subplot()
    style(ax, "What each kind of error costs", "AP50 gained by mending it (number of errors)")
    if not rows:
        say(ax, "no errors")
        return save_figure(figure, out)
    ax.grid(False, axis="y")
    thick = 0.78 / max(len(splits), 1)
    place = np.arange(len(rows)) + 0.4 * np.isin(rows, SPECIAL)
    top = 0.0
    for i, (kind, split) in enumerate(splits.items()):
        where = place - 0.39 + thick * (i + 0.5)
        gains = [0.0 if math.isnan(split.gains[row]) else split.gains[row] for row in rows]
        top = max(top, *gains)
        ax.barh(where, gains, height=thick, color=COLORS[i],
                label=f"{kind}, AP50 {split.ap:.3f}")  # fmt: skip
        for y, gain, row in zip(where, gains, rows, strict=True):
            ax.annotate(f"{gain:.3f}  ({split.counts[row]:,})", (gain, y), xytext=(4, 0),
                        textcoords="offset points", va="center", fontsize=SMALL,
                        color=SOFT)  # fmt: skip
    ax.set_xlim(0, max(1.25 * top, 0.01))
    ax.set_yticks(place.tolist(), rows, fontsize=9)
    ax.set_ylim(float(place[-1]) + 0.6, -0.6)
    legend(ax, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return save_figure(figure, out)


def plot_confusion(
    matrix: npt.NDArray[np.integer], names: Sequence[str | None], out: str | Path, at: str = ""
) -> Path:
    """Draw a confusion matrix: of each true class, how much was taken for what.

    The row of the background shows false alarms as shares of all predictions of their class.

    Args:
        matrix: (C + 1, C + 1) counts, rows true, columns predicted, background last.
        names: the C class names.
        out: file to write.
        at: the score threshold of the detections, for the title.

    Returns:
        The path of the figure.

    Raises:
        ValueError: if matrix and names do not fit.
    """
    matrix = np.asarray(matrix)
    count = len(names) + 1
    if matrix.shape != (count, count):
        raise ValueError(
            f"matrix: expected ({count}, {count}) for {len(names)} names and the background, "
            f"got {matrix.shape}"
        )
    words = [str(i) if name is None else as_text(name) for i, name in enumerate(names)]
    matrix, words = pooled(matrix, [*words, "background"], MANY_CELLS, last=True)
    total = np.broadcast_to(matrix.sum(1, keepdims=True), matrix.shape).copy()
    total[-1] = matrix.sum(0)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    # Background that was predicted as background does not exist: leave its cell blank.
    shown = np.ma.masked_array(share, mask=np.zeros(share.shape, bool))
    shown[-1, -1] = np.ma.masked
    title = "Confusion matrix" if not at else f"Confusion matrix at\n{at}"
    return plot_matrix(matrix, shown, words, out, title)


def plot_class_ap(
    metrics: Mapping[str, float], out: str | Path, objects: Mapping[str, int] | None = None
) -> Path:
    """Draw the AP of every class as bars, boxes, masks and others side by side, the best first.

    Of many classes the best and the worst are shown.

    Args:
        metrics: keys "box/AP/<class>", "mask/AP/<class>" and so on, as `val` returns them; nan
            classes have no objects and are left out.
        out: file to write.
        objects: class name -> number of objects, written beside the name.

    Returns:
        The path of the figure.
    """
    kinds = {}
    for kind in ("box", "mask", "boundary", "keypoints"):
        prefix = f"{kind}/AP/"
        found = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        if found:
            kinds[kind] = found
    names = list(dict.fromkeys(name for found in kinds.values() for name in found))
    lead = next((kinds[kind] for kind in ("mask", "keypoints", "box") if kind in kinds), {})
    names.sort(key=lambda name: -lead.get(name, 0.0))
    many = len(names) > MANY_BARS
    rows = MANY_BARS // 2 if many else max(len(names), 1)
    parts = [names[:rows], names[-rows:]] if many else [names]
    first = f"The best {rows} of {len(names)} classes" if many else "AP by class"
    titles = (first, f"The worst {rows}")
    height = 0.17 * rows * (1.0 + 0.45 * max(len(kinds) - 1, 0)) + 1.1
    figure = new_figure(WIDTH, height * len(parts))
    for column, part in enumerate(parts):
        ax = figure.add_subplot(len(parts), 1, column + 1)
        style(ax, titles[column], "AP")
        ax.grid(False, axis="y")
        ax.set_xlim(0, 1)
        _draw_bars(ax, part, kinds, rows)
        if objects is not None:
            words = [f"{as_text(name)}  ({objects.get(name, 0):,})" for name in part]
            ax.set_yticks(range(len(part)), words)
        if column == 0 and kinds:
            legend(ax, loc="lower right")
        elif not kinds:
            say(ax, "no class has objects here")
    return save_figure(figure, out)


def _draw_bars(ax: Axes, names: list[str], kinds: dict[str, dict[str, float]], rows: int) -> None:
    """Draw the bars of some classes from the top down, and the mean of all classes."""
    thick = 0.78 / max(len(kinds), 1)
    for i, (kind, found) in enumerate(kinds.items()):
        where = np.arange(len(names)) - 0.39 + thick * (i + 0.5)
        values = [found.get(name, 0.0) for name in names]
        mean = float(np.mean(list(found.values())))
        ax.barh(where, values, height=thick, color=COLORS[i], label=f"{kind}  {mean:.3f}")
        ax.axvline(mean, color=COLORS[i], lw=1, ls=(0, (4, 3)), zorder=0.6)
        for y, value in zip(where, values, strict=True):
            text = ax.text(
                value + 0.008, y, f"{value:.3f}", va="center", fontsize=SMALL, color=SOFT
            )
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
    ax.set_yticks(range(len(names)), [as_text(name) for name in names])
    ax.set_ylim(rows - 0.4, -0.6)
