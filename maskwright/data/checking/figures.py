"""Figures of `check_data`: a mosaic of annotated images, and the statistics of the splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.drawing.draw import draw_instances, mosaic
from maskwright.drawing.figures import (
    SOFT,
    WIDTH,
    as_text,
    colors,
    legend,
    new_figure,
    plural,
    save_figure,
    style,
)
from maskwright.drawing.label_maps import class_palette, draw_label_map
from maskwright.structures import IGNORED, Resize

from ..maps.samples import map_of
from ..records import Dataset
from ..transforms import make_sample
from .labels import LabelStats
from .maps import MapStats
from .statistics import SplitStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

AnyStats = SplitStats | LabelStats | MapStats
TILE = 480  # pixels
MOST_CLASSES = 20  # with bars of their own


def draw_samples(dataset: Dataset, count: int) -> Image.Image | None:
    """Return a mosaic of `count` images, evenly spread over the data set, with their objects.

    They look like the pictures of a training: masks, boxes, names on chips, crowd regions grey, the
    file name above each. Images that cannot be read are passed over; None if there is nothing to
    draw.
    """
    tiles, titles = [], []
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
    for index in chosen.tolist():
        try:
            tiles.append(_draw_tile(dataset, index))
        except ValueError:  # listed among the faults
            continue
        record = dataset[index]
        titles.append(f"{record.path.name}: {_shown(dataset, index)}")
    if not tiles:
        return None
    heading = f"{dataset.split}: {len(tiles)} of {len(dataset)} {plural(len(dataset), 'image')}"
    return mosaic(tiles, titles, int(np.ceil(np.sqrt(len(tiles)))), TILE, heading=heading)


def _shown(dataset: Dataset, index: int) -> str:
    """Return what an image shows, in words."""
    record = dataset[index]
    if dataset.records == "maps":
        found = set(np.unique(map_of(dataset, index)).tolist()) - {IGNORED}
        return f"{len(found)} {plural(len(found), 'class')}"
    if record.image_labels is None:
        objects = int((~record.crowd).sum())
        return f"{objects} {plural(objects, 'object')}"
    return ", ".join(dataset.names[label] for label in record.image_labels.tolist()) or "no label"


def _draw_tile(dataset: Dataset, index: int) -> Image.Image:
    if dataset.records == "maps":
        colors = class_palette(dataset.names, dataset.colors)
        labels = map_of(dataset, index)
        return draw_label_map(dataset.photo(index), labels, dataset.names, colors=colors, side=TILE)
    if dataset.records == "labels":
        from PIL import Image as Pillow

        whole = dataset.photo(index)
        height, width = Resize(None, TILE).target_size(*whole.shape[:2])
        return Pillow.fromarray(whole).resize((width, height), Pillow.Resampling.BILINEAR)
    rng = np.random.default_rng(0)  # without augmentation nothing is drawn from it
    sample = make_sample(dataset, index, Resize(None, TILE), None, rng)
    pixels = sample.pixels.numpy().transpose(1, 2, 0)
    return draw_instances(
        np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)),
        sample.boxes,
        sample.labels,
        dataset.names,
        masks=sample.masks,
        keypoints=sample.keypoints,
        crowd=sample.crowd,
        skeleton=dataset.skeleton,
        min_side=TILE,
    )


def plot_statistics(splits: Mapping[str, SplitStats], path: Path) -> None:
    """Save a figure: objects of each class, objects in an image, object sizes, image sizes."""
    names = list(dict.fromkeys(name for stats in splits.values() for name in stats.per_class))
    total = {name: sum(s.per_class.get(name, 0) for s in splits.values()) for name in names}
    shown = sorted(names, key=lambda name: -total[name])[:MOST_CLASSES]
    high = 2.4 + 0.09 * len(shown) * (1 + len(splits)) / 2
    figure = new_figure(WIDTH, 2.9 + high)
    grid = figure.add_gridspec(2, 2, height_ratios=(high, 2.9))
    classes, crowding, sizes, shapes = (
        figure.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    _draw_classes(classes, splits, shown, len(names))
    style(crowding, "Objects in an image", "objects", "images")
    style(sizes, "Object sizes", "root of the area, pixels", "objects")
    style(shapes, "Image sizes", "width, pixels", "height, pixels")
    top = max((int(stats.per_image.max(initial=0)) for stats in splits.values()), default=0)
    wide = -(-(top + 1) // 40)  # whole numbers, so that no bin is emptier by its width
    edges = np.arange(0, top + 1 + wide, wide) - 0.5
    for (split, stats), color in zip(splits.items(), colors(len(splits)), strict=True):
        look: dict[str, Any] = {"color": color, "alpha": 0.65, "label": split}
        crowding.hist(stats.per_image, bins=edges.tolist(), **look)
        sides = np.sqrt(stats.areas[stats.areas > 0])
        sizes.hist(
            sides, bins=np.geomspace(1, max(2048, sides.max(initial=1)), 34).tolist(), **look
        )
        _draw_sizes(shapes, stats, look)
    sizes.set_xscale("log", base=2)
    sizes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    shapes.set_xlim(left=0)
    shapes.set_ylim(bottom=0)
    if len(splits) > 1:
        legend(crowding, loc="upper right")
    save_figure(figure, path)


def plot_classes(splits: Mapping[str, LabelStats] | Mapping[str, MapStats], path: Path) -> None:
    """Save a figure: images of each class, or its share of the pixels, and image sizes."""
    names = list(dict.fromkeys(name for stats in splits.values() for name in stats.per_class))
    total = {name: sum(s.per_class.get(name, 0) for s in splits.values()) for name in names}
    shown = sorted(names, key=lambda name: -total[name])[:MOST_CLASSES]
    figure = new_figure(WIDTH, 2.4 + 0.09 * len(shown) * (1 + len(splits)) / 2)
    classes, shapes = figure.subplots(1, 2)
    _draw_classes(classes, splits, shown, len(names))
    style(shapes, "Image sizes", "width, pixels", "height, pixels")
    each: list[tuple[str, AnyStats]] = list(splits.items())
    for (split, stats), color in zip(each, colors(len(splits)), strict=True):
        _draw_sizes(shapes, stats, {"color": color, "alpha": 0.65, "label": split})
    shapes.set_xlim(left=0)
    shapes.set_ylim(bottom=0)
    if len(splits) > 1:
        legend(classes, loc="lower right")
    save_figure(figure, path)


def _draw_sizes(ax: Axes, stats: AnyStats, look: dict[str, Any]) -> None:
    if stats.image_sizes:
        height, width = np.array(list(stats.image_sizes)).T
        weight = np.array(list(stats.image_sizes.values()))
        ax.scatter(width, height, s=12 + 160 * weight / weight.max(), linewidths=0, **look)


def _draw_classes(
    ax: Axes,
    splits: Mapping[str, SplitStats] | Mapping[str, LabelStats] | Mapping[str, MapStats],
    shown: list[str],
    classes: int,
) -> None:
    """Draw what the most frequent classes have, a bar for each split."""
    found: list[AnyStats] = list(splits.values())
    count = sum(s.objects if isinstance(s, SplitStats) else s.images for s in found)
    what = "objects" if all(isinstance(s, SplitStats) for s in found) else "images"
    of = "" if len(shown) == classes else f" of the {len(shown)} most frequent classes"
    maps = all(isinstance(s, MapStats) for s in found)
    label = "share of the pixels, percent" if maps else what
    style(ax, f"{count:,} {what}, {classes:,} {plural(classes, 'class')}", f"{label}{of}")
    if maps:  # rare classes are what one looks for
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        least = [v for s in found if isinstance(s, MapStats) for v in s.shares.values() if v]
        ax.set_xlim(left=min(least, default=1) / 2)
    ax.grid(False, axis="y")
    thick = 0.8 / max(len(splits), 1)
    palette = colors(len(splits))
    for k, (split, stats, color) in enumerate(zip(splits, found, palette, strict=True)):
        where = np.arange(len(shown)) - 0.4 + thick * (k + 0.5)
        each = stats.shares if isinstance(stats, MapStats) else stats.per_class
        counts = [each.get(name, 0) for name in shown]
        ax.barh(where, counts, height=0.92 * thick, color=color, label=split)
    ax.set_yticks(range(len(shown)), [as_text(name) for name in shown], color=SOFT)
    ax.set_ylim(max(len(shown), 3) - 0.4, -0.6)
