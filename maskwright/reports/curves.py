"""The curves of a training run: `results.png`, drawn again after its epochs."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..drawing.figures import (  # fmt: skip
    SERIES,
    FloatArray,
    colors,
    legend,
    panels,
    save_figure,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SCHEDULE_POINTS = 400
LOWEST = "-"  # before the key of a metric that gets better as it falls


class Curves:
    """Redraws `results.png` after each epoch.

    Where epochs are so short that drawing would take more than a tenth of the time, the figure
    skips some of them; it is always up to date at the end.

    Args:
        folder: the run folder.
        schedule: the learning rate at each step from 0 on; None: known at the ends of epochs.
        groups: what is drawn of the metrics, see `plot_results`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        schedule: Callable[[int], float] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder
        self._schedule, self._groups = schedule, groups
        self._drawn = -math.inf  # when, by the monotonic clock
        self._cost = 0.0  # seconds that it took
        self._stale = False

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stale:
            self._draw()

    def add(self) -> None:
        """Draw what `results.csv` holds now, at once or later."""
        self._stale = True
        if time.monotonic() - self._drawn > 10 * self._cost:
            self._draw()

    def _draw(self) -> None:
        start = time.monotonic()
        table, figure = self.folder / "results.csv", self.folder / "results.png"
        plot_results(table, figure, self._schedule, self._groups)
        self._drawn, self._stale = time.monotonic(), False
        self._cost = self._drawn - start


def plot_results(
    csv_path: str | Path,
    out: str | Path,
    schedule: Callable[[int], float] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Draw the curves of a training run.

    Args:
        csv_path: `results.csv` of the run: `epoch`, `step`, `lr`, `images_per_s`, `train/...`
            losses, `val/...` metrics; empty where there is no value.
        out: file to write.
        schedule: the learning rate at each step from 0 on: between the ends of epochs, where the
            table has it, it warms up. None: the points of the table.
        groups: title of each panel of metrics, and their keys; the best of the first is marked,
            which is its highest value, or with `LOWEST` before the key its lowest.

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
    if (total := train.pop("loss", None)) is not None:
        shown_in.append(("Training loss", "loss", {"loss": total}))
        train = {k: v for k, v in train.items() if not np.array_equal(v, total, equal_nan=True)}
    if train:
        shown_in.append(("Losses by part", "loss", train))
    best: dict[str, FloatArray] = {}  # what grows as the first metric of a panel gets better
    for title, keys in (groups or {}).items():
        plain = {key.removeprefix(LOWEST): key for key in keys}
        found = {key: columns[f"val/{key}"] for key in plain if f"val/{key}" in columns}
        if found:
            curves = {key.rpartition("/")[2]: values for key, values in found.items()}
            heading = f"{title} on the val split"
            shown_in.append((heading, "", curves))
            first, values = next(iter(found.items()))
            best[heading] = -values if plain[first].startswith(LOWEST) else values
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
        _draw_curves(ax, x, curves, best.get(title))
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


def _draw_curves(
    ax: Axes, x: FloatArray, curves: dict[str, FloatArray], better: FloatArray | None = None
) -> None:
    """Draw curves; the point of the first at which `better` is highest is marked."""
    from matplotlib.ticker import MaxNLocator

    for (name, values), color in zip(curves.items(), colors(len(curves)), strict=True):
        good = np.isfinite(values)
        marker = "o" if good.sum() <= 30 else ""
        ax.plot(x[good], values[good], color=color, lw=1.7, marker=marker, ms=3, label=name)
    if better is not None and np.isfinite(better).any():
        main, best = next(iter(curves.values())), int(np.nanargmax(better))
        ax.plot(x[best], main[best], "o", ms=7, mfc="white", mec=SERIES, mew=1.8)
        ax.annotate(
            f"{main[best]:.3f}", (x[best], main[best]), xytext=(0, -15),
            textcoords="offset points", ha="center", fontsize=8.2, color=SERIES, fontweight="bold",
        )  # fmt: skip
        top = max(float(np.nanmax(v)) for v in curves.values() if np.isfinite(v).any())
        # Shares end at 1; a loss has no end.
        ax.set_ylim(0, min(max(1.15 * top, 0.05), 1.05) if top <= 1 else 1.15 * top)
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
