"""What the annotations of a training look like: numbers, sizes and places of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ....drawing.figures import (
    SERIES,
    WIDTH,
    FloatArray,
    as_text,
    new_figure,
    plural,
    save_figure,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 20  # with a bar of their own


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
