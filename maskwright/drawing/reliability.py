"""Whether scores can be believed: how often those of a height are right (a reliability diagram)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..metrics.calibration import Calibration
from .figures import COLORS, SERIES, SMALL, SOFT, legend, say, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec


def draw_reliability(
    figure: Figure,
    grid: GridSpec,
    column: int,
    one: Calibration,
    title: str,
    facts: str,
    *,
    score: str,
    counted: str,
) -> tuple[Axes, Axes]:
    """Draw one column of a figure: above the share that is right, below how many there are.

    Args:
        figure: the figure.
        grid: of two rows.
        column: of the grid.
        one: what is drawn.
        title: above the column.
        facts: numbers, for the legend.
        score: what a score is called: "score", "probability".
        counted: what has scores: "detections", "images".

    Returns:
        The axes above and below, without labels.
    """
    ax = figure.add_subplot(grid[0, column])
    style(ax, title)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.03)
    ax.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (4, 3)), zorder=3, label="perfect")
    width, filled = np.diff(one.edges), one.counts > 0
    ax.bar(
        one.edges[:-1][filled], one.precision[filled], width=0.92 * width[filled],
        align="edge", color=SERIES, alpha=0.85, label="share that is right",
    )  # fmt: skip
    ax.plot(one.score[filled], one.precision[filled], "o", ms=4, color=COLORS[1],
            label=f"at the mean {score}")  # fmt: skip
    if filled.any():
        legend(ax, loc="upper left", title=facts, alignment="left",
               title_fontproperties={"size": SMALL})  # fmt: skip
    else:
        say(ax, f"no {counted}")
    below = figure.add_subplot(grid[1, column], sharex=ax)
    style(below)
    below.bar(one.edges[:-1], one.counts, width=0.92 * width, align="edge", color="#9fb3dc")
    return ax, below
