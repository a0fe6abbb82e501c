"""What all figures share: colours, axes, legends, and how they are saved.

Figures are made without pyplot, so nothing is left open, no window appears and threads do not
meet; matplotlib loads when the first one is drawn. The format follows the ending of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..files import replacing_picture
from .fonts import quiet_fonts, set_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1b2130", "#667085", "#e6e9ef"
# Colour-blind safe (after Okabe and Ito 2008), the accent first.
COLORS = ("#2f5fd0", "#e07b00", "#009e73", "#c8408d", "#56b4e9", "#8a6d00", "#7a52c7", "#d1495b")
SERIES = "#2f5fd0"
DPI = 150
# Inches and points: shown 500 pixels wide, no text of a figure is lower than 7 pixels.
WIDTH, SMALL = 7.2, 7.8
LONGEST = 26  # characters of a name in a figure; whole names stand in the tables

FloatArray = npt.NDArray[np.float64]


def style(ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Give axes the look that all figures share."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=8)
    ax.set_xlabel(xlabel, fontsize=9, color=SOFT)
    ax.set_ylabel(ylabel, fontsize=9, color=SOFT)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c8cdd6")
    ax.tick_params(colors=SOFT, labelsize=8.2, length=3, width=0.8)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches; those of reports are at most `WIDTH` wide."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(count: int, height: float, width: float = WIDTH / 2) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels of a size in inches, two in a row."""
    columns = min(max(count, 1), 2)
    rows = -(-max(count, 1) // columns)
    figure = new_figure(width * columns, height * rows)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def save_figure(figure: Figure, out: str | Path) -> Path:
    """Write a figure, its folder made if needed, and return the path."""
    path = Path(out)
    set_fonts(figure)
    with quiet_fonts(), replacing_picture(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    return path


def legend(ax: Axes, **options: Any) -> None:
    """Add a legend without a frame, readable where it lies on what is drawn."""
    ax.legend(fontsize=8.2, labelcolor=INK, framealpha=0.8, edgecolor="none", **options)


def colors(count: int) -> list[Any]:
    """Return colours for `count` curves, from the palette while it lasts."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps

    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def say(ax: Axes, text: str) -> None:
    """Write in the middle of axes that have nothing to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=SOFT)


def plural(count: int, word: str) -> str:
    """Return the word, in the plural unless the count is 1."""
    return word if count == 1 else word + ("es" if word.endswith("s") else "s")


def as_text(name: str | None) -> str:
    """Return a name as matplotlib shows it as it is: "$" is no formula, "_" hides no legend.

    Of a long name the middle is left out: what tells names apart often stands at their end.
    """
    text = "".join(char for char in " ".join(str(name).split()) if char.isprintable())
    if len(text) > LONGEST:
        tail = LONGEST // 3
        text = f"{text[: LONGEST - tail - 1].rstrip()}…{text[-tail:].lstrip()}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
