"""The figures of a report on classes: who is taken for whom, and whether scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...drawing.figures import (
    COLORS,
    SMALL,
    SOFT,
    WIDTH,
    as_text,
    legend,
    new_figure,
    save_figure,
    style,
)  # fmt: skip
from ...drawing.matrix import plot_matrix, pooled
from ...drawing.reliability import draw_reliability
from ...metrics.calibration import Calibration
from ...metrics.classification import ClassScores

MANY_CELLS = 20  # rows of the confusion matrix
MANY_BARS = 24  # classes with bars of their own


def plot_confusion(matrix: npt.NDArray[np.int64], names: Sequence[str], out: Path) -> Path:
    """Draw of the images of each class how many were taken for which.

    Args:
        matrix: (C, C) images, rows true.
        names: the C class names.
        out: file to write.
    """
    counts, words = pooled(matrix, [as_text(name) for name in names], MANY_CELLS)
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    return plot_matrix(counts, shares, words, out, "Confusion matrix")


def plot_reliability(
    before: Calibration, after: Calibration, temperature: float, out: Path
) -> Path:
    """Draw how often a probability is right, as it is and divided by the fitted temperature.

    Args:
        before: of the probabilities as they are.
        after: with the temperature.
        temperature: that divides the logits.
        out: file to write.
    """
    figure = new_figure(WIDTH, 4.4)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    titles = ("As it is", f"With temperature {temperature:.2f}")
    for column, (title, one) in enumerate(zip(titles, (before, after), strict=True)):
        facts = f"ECE {one.error:.3f}"
        ax, below = draw_reliability(
            figure, grid, column, one, title, facts, score="probability", counted="images"
        )
        below.set_xlabel("probability of the answer")
        if not column:
            ax.set_ylabel("share that is right")
            below.set_ylabel("images")
    return save_figure(figure, out)


def plot_classes(scores: ClassScores, names: Sequence[str], out: Path) -> Path:
    """Draw precision and recall of the classes as bars, the best F1 first; of many both ends.

    Args:
        scores: of the C classes.
        names: the C class names.
        out: file to write.
    """
    there = np.flatnonzero(scores.support > 0)
    order = there[np.argsort(-np.nan_to_num(scores.f1[there]), kind="stable")]
    left_out = len(order) - MANY_BARS
    if left_out > 0:
        half = MANY_BARS // 2
        order = np.concatenate([order[:half], order[-half:]])
    figure = new_figure(WIDTH, 1.2 + 0.3 * max(len(order), 2))
    ax = figure.add_subplot()
    more = f", {left_out} in the middle left out" if left_out > 0 else ""
    style(ax, f"Classes by F1{more}", "share")
    ax.grid(False, axis="y")
    place = np.arange(len(order))
    for shift, (title, values) in zip(
        (-0.2, 0.2), (("recall", scores.recall), ("precision", scores.precision)), strict=True
    ):
        found = np.nan_to_num(values[order])
        color = COLORS[0] if title == "recall" else COLORS[1]
        ax.barh(place + shift, found, height=0.36, color=color, label=title)
        for y, value in zip(place + shift, found, strict=True):
            ax.annotate(f"{value:.2f}", (value, y), xytext=(3, 0), textcoords="offset points",
                        va="center", fontsize=SMALL - 0.6, color=SOFT)  # fmt: skip
    ax.set_yticks(
        place.tolist(), [f"{as_text(names[i])} ({scores.support[i]:,})" for i in order.tolist()]
    )
    ax.set_xlim(0, 1.1)
    ax.set_ylim(len(order) - 0.4, -0.6)
    legend(ax, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return save_figure(figure, out)
