"""A figure of cost against worth: a point for each of several things, with its name beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import COLORS, INK, SOFT, WIDTH, as_text, new_figure, save_figure, say, style
from .fonts import quiet_fonts, set_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Where a name may stand beside its point: direction, and distances in points that are tried.
PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (7, 16, 28, 42)
ROOM, BAR = 6, 2  # pixels around a point and a bar in which no name stands


@dataclass(frozen=True)
class Point:
    """One thing.

    Attributes:
        name: stands beside it.
        x: what it costs: smallest likely value, value, largest.
        y: what it is worth, in the same way.
        best: nothing else costs less and is worth as much.
    """

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    best: bool


def plot_trade_off(
    points: Sequence[Point], out: str | Path, *, xlabel: str, ylabel: str, falls: bool = False
) -> Path:
    """Draw things by what they cost and what they are worth; those that nothing beats are joined.

    Args:
        points: the things.
        out: file to write.
        xlabel: what they cost, with its unit; the axis is logarithmic.
        ylabel: what they are worth.
        falls: worth more where the number is lower; the axis is turned round, so that up is better.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = new_figure(WIDTH, 4.4)
    ax = figure.add_subplot()
    style(ax, "", xlabel, ylabel)
    if not points:
        say(ax, "nothing to show yet")
        return save_figure(figure, out)
    ax.set_xscale("log")
    lows, highs = [p.x[0] for p in points], [p.x[2] for p in points]
    ax.set_xlim(min(lows) / 1.35, max(highs) * 1.6)
    wide = max(highs) > 20 * min(lows)
    subs = (1.0, 2.0, 5.0) if wide else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    bottom, top = min(p.y[0] for p in points), max(p.y[2] for p in points)
    margin = 0.14 * (top - bottom) or 0.05 * abs(top) or 0.05
    ax.set_ylim(bottom - margin, top + margin)
    if falls:
        ax.invert_yaxis()
    front = sorted((p for p in points if p.best), key=lambda p: p.x[1])
    ax.plot([p.x[1] for p in front], [p.y[1] for p in front], color="#c8cdd6", lw=1.2, zorder=1)
    for point in points:
        color = COLORS[0] if point.best else SOFT
        ax.errorbar(
            point.x[1], point.y[1],
            xerr=[[point.x[1] - point.x[0]], [point.x[2] - point.x[1]]],
            yerr=[[point.y[1] - point.y[0]], [point.y[2] - point.y[1]]],
            fmt="o", ms=6, color=color, elinewidth=1, capsize=2, zorder=2,
        )  # fmt: skip
    with quiet_fonts():
        _name(ax, points)
    return save_figure(figure, out)


def _name(ax: Axes, points: Sequence[Point]) -> None:
    """Write each name where it meets no point and no other name, as near as there is room."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure: Any = ax.figure
    FigureCanvasAgg(figure)
    set_fonts(figure)
    figure.draw_without_rendering()  # the layout is made now
    renderer, frame = figure.canvas.get_renderer(), ax.get_window_extent()
    spots = [ax.transData.transform((p.x[1], p.y[1])) for p in points]
    taken = [Bbox.from_extents(x - ROOM, y - ROOM, x + ROOM, y + ROOM) for x, y in spots]
    for point, (x, y) in zip(points, spots, strict=True):  # and their bars
        (left, low), (right, high) = ax.transData.transform(
            [(point.x[0], point.y[0]), (point.x[2], point.y[2])]
        )
        taken += [
            Bbox.from_extents(left, y - BAR, right, y + BAR),
            Bbox.from_extents(x - BAR, min(low, high), x + BAR, max(low, high)),
        ]
    for point in sorted(points, key=lambda p: (not p.best, p.x[1])):
        best: tuple[float, Any] | None = None
        for distance in DISTANCES:
            for dx, dy in PLACES:
                text = ax.annotate(
                    as_text(point.name), (point.x[1], point.y[1]),
                    xytext=(dx * distance, dy * distance), textcoords="offset points",
                    ha={1: "left", 0: "center", -1: "right"}[dx],
                    va={1: "bottom", 0: "center", -1: "top"}[dy],
                    fontsize=8.2, color=INK if point.best else SOFT,
                    arrowprops=None if distance == DISTANCES[0]
                    else {"arrowstyle": "-", "color": "#c8cdd6", "lw": 0.7},
                )  # fmt: skip
                text.set_in_layout(False)
                box = _extent(text, renderer)
                out = box.width * box.height - _shared(box, frame)
                cost = out + sum(_shared(box, other) for other in taken)
                if best is None or cost < best[0]:
                    if best is not None:
                        best[1].remove()
                    best = (cost, text)
                else:
                    text.remove()
                if best[0] == 0:
                    break
            if best is not None and best[0] == 0:
                break
        assert best is not None
        taken.append(_extent(best[1], renderer))


def _extent(text: Any, renderer: Any) -> Any:
    """Return the place of a name, without the line to its point."""
    from matplotlib.text import Text

    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def _shared(a: Any, b: Any) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(width, 0.0) * max(height, 0.0))
