"""Figures of a run folder: training curves, precision-recall, confusion matrix, labels, class AP.

Figures are made without pyplot, so nothing is left open, no window appears and threads do not
meet; matplotlib loads when the first one is drawn. The format follows the ending of the file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1b2130", "#667085", "#e6e9ef"
# Colour-blind safe (after Okabe and Ito 2008), the accent first.
COLORS = ("#2f5fd0", "#e07b00", "#009e73", "#c8408d", "#56b4e9", "#8a6d00", "#7a52c7", "#d1495b")
SERIES = "#2f5fd0"
# More curves or cells than this get no legend or numbers of their own.
FEW = 10
MANY_BARS = 45

FloatArray = npt.NDArray[np.float64]


def style(ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Give axes the look that all figures share."""
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    ax.set_xlabel(xlabel, fontsize=9, color=SOFT)
    ax.set_ylabel(ylabel, fontsize=9, color=SOFT)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c8cdd6")
    ax.tick_params(colors=SOFT, labelsize=8.5, length=3, width=0.8)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _save(figure: Figure, out: str | Path) -> Path:
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.15)
    return path


def _legend(ax: Axes, **options: Any) -> None:
    ax.legend(frameon=False, fontsize=8.5, labelcolor=INK, **options)


def plot_results(csv_path: str | Path, out: str | Path) -> Path:
    """Draw the curves of a training run.

    Args:
        csv_path: `results.csv` of the run: `epoch`, `step`, `lr`, `images_per_s`, `train/...`
            losses, `val/box/...` and `val/mask/...` metrics; empty where there is no value.
        out: file to write.

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

    panels: list[tuple[str, str, dict[str, FloatArray]]] = []
    train = {k.removeprefix("train/"): v for k, v in columns.items() if k.startswith("train/")}
    if "loss" in train:
        panels.append(("Training loss", "loss", {"loss": train.pop("loss")}))
    if train:
        panels.append(("Losses by part", "loss", train))
    for kind, title in (("box", "Box AP"), ("mask", "Mask AP"), ("keypoints", "Keypoint AP")):
        prefix = f"val/{kind}/"
        shown = ("AP", "AP50", "AP75")
        curves = {key: columns[prefix + key] for key in shown if prefix + key in columns}
        if curves:
            panels.append((f"{title} on the validation split", "", curves))
    if "lr" in columns:
        panels.append(("Learning rate", "", {"lr": columns["lr"]}))
    if "images_per_s" in columns:
        panels.append(("Speed", "images per second", {"images_per_s": columns["images_per_s"]}))
    if not panels:
        raise ValueError(f"{csv_path}: no column named train/..., val/..., lr or images_per_s")

    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    figure = _figure(4.6 * wide, 3.3 * high)
    for i, (title, ylabel, curves) in enumerate(panels):
        ax = figure.add_subplot(high, wide, i + 1)
        style(ax, title, axis, ylabel)
        _draw_curves(ax, x, curves)
        ax.set_xlim(min(float(x.min()), 0.0), float(x.max()) * 1.03 + 0.01)
        if "images_per_s" in curves:
            ax.set_ylim(bottom=0)
    return _save(figure, out)


def _draw_curves(ax: Axes, x: FloatArray, curves: dict[str, FloatArray]) -> None:
    from matplotlib.ticker import MaxNLocator

    for (name, values), color in zip(curves.items(), _colors(len(curves)), strict=True):
        good = np.isfinite(values)
        marker = "o" if good.sum() <= 30 else ""
        ax.plot(x[good], values[good], color=color, lw=1.7, marker=marker, ms=3, label=name)
    main = curves.get("AP")
    if main is not None and np.isfinite(main).any():
        best = int(np.nanargmax(main))
        ax.plot(x[best], main[best], "o", ms=7, mfc="white", mec=SERIES, mew=1.8)
        ax.annotate(
            f"{main[best]:.3f}", (x[best], main[best]), xytext=(0, -15),
            textcoords="offset points", ha="center", fontsize=8.5, color=SERIES, fontweight="bold",
        )  # fmt: skip
        top = max(float(np.nanmax(v)) for v in curves.values() if np.isfinite(v).any())
        ax.set_ylim(0, min(max(1.15 * top, 0.05), 1.05))
    if len(curves) > 1:
        _legend(ax)
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


def _colors(count: int) -> list[Any]:
    """Return colours for `count` curves, from the palette while it lasts."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps

    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def plot_pr(
    curves: Mapping[str, tuple[FloatArray, FloatArray]], out: str | Path, title: str = ""
) -> Path:
    """Draw precision against recall, a line per class and their mean.

    Args:
        curves: class name -> (recall, precision), see `metrics.pr_curve`; may be empty.
        out: file to write.
        title: heading, such as "Boxes, IoU 0.5".

    Returns:
        The path of the figure.
    """
    figure = _figure(6.4, 4.6)
    ax = figure.add_subplot()
    style(ax, title or "Precision and recall", "recall", "precision")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.03)
    ranked = sorted(curves.items(), key=lambda item: -item[1][1].mean())
    many = len(ranked) > FEW
    for (name, (recall, precision)), color in zip(ranked, _colors(len(ranked)), strict=True):
        look: dict[str, Any] = (
            {"color": "#9fb3dc", "lw": 0.7, "alpha": 0.55}
            if many
            else {"color": color, "lw": 1.6, "label": f"{name}  {precision.mean():.3f}"}
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
            label = f"{name}  {precision.mean():.3f}"
            ax.plot(recall, precision, color=color, lw=1.3, label=label)
    if ranked:
        _legend(ax, loc="upper left", bbox_to_anchor=(1, 1), title="class and AP", alignment="left",
                title_fontproperties={"size": 8.5})  # fmt: skip
    else:
        _say(ax, "no class has objects here")
    return _save(figure, out)


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=SOFT)


def plot_confusion(
    matrix: npt.NDArray[np.integer], names: Sequence[str | None], out: str | Path
) -> Path:
    """Draw a confusion matrix: of each true class, how much was taken for what.

    The row of the background shows false alarms as shares of all predictions of their class.

    Args:
        matrix: (C + 1, C + 1) counts, rows true, columns predicted, background last.
        names: the C class names.
        out: file to write.

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
    from matplotlib.colors import LinearSegmentedColormap

    words = [str(i) if name is None else name for i, name in enumerate(names)] + ["background"]
    total = np.broadcast_to(matrix.sum(1, keepdims=True), matrix.shape).copy()
    total[-1] = matrix.sum(0)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    # Background that was predicted as background does not exist: leave its cell blank.
    shown = np.ma.masked_array(share, mask=np.zeros(share.shape, bool))
    shown[-1, -1] = np.ma.masked
    ramp = LinearSegmentedColormap.from_list(
        "maskwright", ["#f6f8fd", "#9db7f0", "#2f5fd0", "#152a66"]
    )
    ramp.set_bad("#ffffff")

    longest = max(len(word) for word in words)
    side = min(max(3.2, 0.62 * count), 13.0)
    figure = _figure(side + 0.075 * longest + 1.0, side + 0.06 * longest + 0.5)
    ax = figure.add_subplot()
    style(ax, "Confusion matrix", "predicted", "true")
    ax.grid(False)
    picture = ax.imshow(shown, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    points = 8.5 if count <= 20 else max(8.5 * 20 / count * 1.5, 5.2)
    ax.set_xticks(range(count), words, rotation=0 if count <= 3 else 90, fontsize=points)
    ax.set_yticks(range(count), words, fontsize=points)
    ax.tick_params(length=0)
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5 if count <= 20 else 0.4)
    ax.tick_params(which="minor", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if count <= FEW + 1:
        for row in range(count):
            for col in range(count):
                if matrix[row, col]:
                    ink = "white" if share[row, col] > 0.5 else INK
                    text = f"{share[row, col]:.0%}\n{matrix[row, col]:,}"
                    ax.text(col, row, text, ha="center", va="center", color=ink, fontsize=8)
    bar = figure.colorbar(picture, ax=ax, fraction=0.035, pad=0.02, format="{x:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT, labelsize=8, length=0)
    return _save(figure, out)


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
    figure = _figure(11, 8)
    grid = figure.add_gridspec(2, 2)

    ax = figure.add_subplot(grid[0, 0])
    order = np.argsort(-counts, kind="stable")
    style(ax, f"{len(labels):,} objects in {len(names)} {_plural(len(names), 'class')}")
    words = [str(i) if names[i] is None else str(names[i]) for i in order]
    ax.bar(range(len(words)), counts[order], color=SERIES, width=0.75)
    ax.grid(False, axis="x")
    points = 8.5 if len(words) <= 20 else max(170 / len(words), 4.6)
    turn = 0 if len(words) <= 4 else 90
    ax.set_xticks(range(len(words)), words, rotation=turn, fontsize=points)
    ax.set_xlim(-0.6, max(len(words), 3) - 0.4)
    if len(counts) > 3 and counts.max() > 200 * max(np.median(counts), 1):
        ax.set_yscale("symlog")

    ax = figure.add_subplot(grid[0, 1])
    empty = int((per_image == 0).sum())
    style(
        ax, f"Objects per image ({len(per_image):,} images, {empty:,} empty)", "objects", "images"
    )
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
    return _save(figure, out)


def _plural(count: int, word: str) -> str:
    return word if count == 1 else word + ("es" if word.endswith("s") else "s")


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


def plot_class_ap(metrics: Mapping[str, float], out: str | Path) -> Path:
    """Draw the AP of every class as bars, masks beside boxes where both exist.

    Args:
        metrics: keys "box/AP/<class>" and "mask/AP/<class>", as `val` returns them; nan classes
            have no objects and are left out.
        out: file to write.

    Returns:
        The path of the figure.
    """
    kinds = {}
    for kind in ("box", "mask", "keypoints"):
        prefix = f"{kind}/AP/"
        found = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        if found:
            kinds[kind] = found
    names = list(dict.fromkeys(name for found in kinds.values() for name in found))
    lead = kinds.get("mask", kinds.get("box", {}))
    names.sort(key=lambda name: lead.get(name, 0.0))

    names.reverse()
    columns = 1 if len(names) <= MANY_BARS else 2
    rows = max(-(-len(names) // columns), 1)
    height = 0.17 * rows * (1.0 + 0.45 * max(len(kinds) - 1, 0)) + 1.1
    figure = _figure(6.6 * columns, height)
    for column in range(columns):
        ax = figure.add_subplot(1, columns, column + 1)
        style(ax, "AP by class" if column == 0 else "", "AP")
        ax.grid(False, axis="y")
        ax.set_xlim(0, 1)
        part = names[column * rows : (column + 1) * rows]
        _draw_bars(ax, part, kinds, rows)
        if column == 0 and kinds:
            _legend(ax, loc="lower right")
        elif not kinds:
            _say(ax, "no class has objects here")
    return _save(figure, out)


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
            text = ax.text(value + 0.008, y, f"{value:.2f}", va="center", fontsize=6.5, color=SOFT)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(rows - 0.4, -0.6)
