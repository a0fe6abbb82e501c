"""The figures of a report on pixels: which class is taken for which, and how good each one is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...drawing.figures import COLORS, SMALL, SOFT, as_text, legend, new_figure, save_figure, style
from ...drawing.matrix import plot_matrix, pooled
from ...metrics.semantic import PixelScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_CELLS = 24  # rows of the confusion matrix
MANY_BARS = 30  # classes with bars of their own


def plot_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], out: Path) -> Path:
    """Draw of the pixels of each class how many were taken for which.

    Args:
        counts: (C, C + 1), rows true, the last column no class: it has one only where it is used.
        names: the C class names.
        out: file to write.
    """
    words = [as_text(name) for name in names]
    missed = bool(counts[:, -1].any())
    square = np.pad(counts, ((0, 1), (0, 0))) if missed else counts[:, :-1]
    if missed:
        words.append("no class")
    matrix, words = pooled(square, words, MANY_CELLS, last=missed)
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    return plot_matrix(matrix, shares, words, out, "Confusion matrix of pixels")


def plot_classes(scores: PixelScores, names: Sequence[str], out: Path) -> Path:
    """Draw the IoU of the classes and their shares of the pixels; of many the best and the worst.

    Args:
        scores: of the C classes.
        names: the C class names.
        out: file to write.
    """
    there = np.flatnonzero(~np.isnan(scores.iou))
    order = there[np.argsort(-scores.iou[there], kind="stable")]
    left_out = len(order) - MANY_BARS
    if left_out > 0:
        half = MANY_BARS // 2
        order = np.concatenate([order[:half], order[-half:]])
    figure = new_figure(9.4, 1.1 + 0.3 * max(len(order), 2))
    grid = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
    more = f", {left_out} in the middle left out" if left_out > 0 else ""
    place = np.arange(len(order))
    ax = figure.add_subplot(grid[0, 0])
    style(ax, f"IoU by class{more}", "IoU")
    iou = scores.iou[order]
    ax.barh(place, iou, height=0.7, color=COLORS[0])
    ax.set_xlim(0, 1.12)
    ax.set_yticks(place.tolist(), [as_text(names[i]) for i in order.tolist()])
    _write(ax, place, iou, [f"{value:.2f}" for value in iou])
    beside = figure.add_subplot(grid[0, 1])
    style(beside, "Share of the pixels", "share")
    total = max(int(scores.support.sum()), 1)
    for shift, title, counts, color in (
        (-0.19, "true", scores.support, COLORS[2]),
        (0.19, "predicted", scores.answers, COLORS[1]),
    ):
        share = counts[order] / total
        beside.barh(place + shift, share, height=0.36, color=color, label=title)
        _write(beside, place + shift, share, [_percent(value) for value in share])
    widest = max(scores.support[order].max(initial=0), scores.answers[order].max(initial=0))
    beside.set_xlim(0, max(1.2 * widest / total, 0.01))
    beside.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    beside.set_yticks(place.tolist(), [""] * len(order))
    for one in (ax, beside):
        one.grid(False, axis="y")
        one.set_ylim(max(len(order), 2) - 0.4, -0.6)
    legend(beside, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return save_figure(figure, out)


def _write(ax: Axes, place: npt.NDArray, values: npt.NDArray, texts: Sequence[str]) -> None:
    """Write a text at the end of each bar."""
    for y, value, text in zip(place.tolist(), values.tolist(), texts, strict=True):
        ax.annotate(text, (value, y), xytext=(3, 0), textcoords="offset points", va="center",
                    fontsize=SMALL - 0.6, color=SOFT)  # fmt: skip


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"
