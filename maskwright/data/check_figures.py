"""Figures of `check_data`: a mosaic of annotated images, and the statistics of the splits."""

from __future__ import annotations

import colorsys
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskwright.structures import Resize

from .records import Dataset
from .transforms import make_sample

if TYPE_CHECKING:
    from PIL import Image

    from .check import SplitStats

TILE = 320  # pixels


def draw_samples(dataset: Dataset, count: int) -> Image.Image | None:
    """Return a mosaic of `count` images, evenly spread over the data set, with their objects.

    Masks are tinted, each object in its own colour, keypoints are joined; boxes are named if there
    are several classes. Images that cannot be read are passed over; None if there is nothing to
    draw.
    """
    from PIL import Image

    tiles = []
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
    for index in chosen.tolist():
        try:
            tiles.append(_draw_tile(dataset, index))
        except ValueError:  # listed among the faults
            continue
    if not tiles:
        return None
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    mosaic = Image.new("RGB", (columns * TILE, rows * TILE), "white")
    for position, tile in enumerate(tiles):
        mosaic.paste(tile, (position % columns * TILE, position // columns * TILE))
    return mosaic


def _draw_tile(dataset: Dataset, index: int) -> Image.Image:
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0)  # without augmentation nothing is drawn from it
    sample = make_sample(dataset, index, Resize(None, TILE), None, rng)
    pixels = sample.pixels.numpy().transpose(1, 2, 0).copy()
    colours = [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(0.618034 * k % 1, 0.8, 1.0))
        for k in range(len(sample.boxes))
    ]
    for k, (crop, (x1, y1, x2, y2)) in enumerate(sample.masks or ()):
        part = pixels[y1:y2, x1:x2]
        part[crop] = 0.5 * part[crop] + 0.5 * np.array(colours[k])
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for k, (x1, y1, x2, y2) in enumerate(sample.boxes.tolist()):
        colour = (255, 255, 255) if sample.crowd[k] else colours[k]
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour)
        if sample.keypoints is not None and dataset.skeleton is not None:
            points = sample.keypoints[k]
            for a, b in dataset.skeleton.bones:
                if points[a, 2] > 0 and points[b, 2] > 0:
                    draw.line((*points[a, :2].tolist(), *points[b, :2].tolist()), fill=colour)
            for x, y, shown in points.tolist():
                if shown > 0:
                    draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill="white")
        if len(dataset.names) > 1:
            text = dataset.names[sample.labels[k]].encode("latin-1", "replace").decode("latin-1")
            draw.text((x1 + 2, y1 + 1), text, fill=colour)
    return image


def plot_statistics(splits: Mapping[str, SplitStats], path: Path) -> None:
    """Save a figure: objects of each class, objects in an image, object sizes, image sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    classes, crowding, sizes, shapes = figure.subplots(2, 2).ravel()
    names = list(next(iter(splits.values())).per_class)
    total = {name: sum(s.per_class.get(name, 0) for s in splits.values()) for name in names}
    names = sorted(names, key=lambda name: -total[name])[:30]
    bar = 0.8 / len(splits)
    for number, (split, stats) in enumerate(splits.items()):
        places = np.arange(len(names)) + number * bar
        classes.bar(places, [stats.per_class.get(n, 0) for n in names], bar, label=split)
        crowding.hist(stats.per_image, bins=30, alpha=0.6, label=split)
        sides = np.sqrt(stats.areas[stats.areas > 0])
        sizes.hist(sides, bins=np.geomspace(1, 2048, 34).tolist(), alpha=0.6, label=split)
        height, width = np.array(list(stats.image_sizes)).T
        weight = np.array(list(stats.image_sizes.values()))
        shapes.scatter(width, height, s=10 + 200 * weight / weight.max(), alpha=0.5, label=split)
    # A dollar sign would begin a formula.
    shown = ["".join(c for c in " ".join(name.split()) if c.isprintable()) for name in names]
    labels = [name[:20].replace("$", r"\$") for name in shown]
    classes.set_xticks(np.arange(len(names)), labels, rotation=60, ha="right", fontsize=8)
    classes.set_title("objects of each class" + (" (30 most)" if len(total) > 30 else ""))
    crowding.set_title("objects in an image")
    crowding.set_ylabel("images")
    sizes.set_title("object sizes: square root of the area")
    sizes.set_xscale("log", base=2)
    sizes.set_xlabel("pixels")
    shapes.set_title("image sizes")
    shapes.set_xlabel("width")
    shapes.set_ylabel("height")
    for axes in (classes, crowding, sizes, shapes):
        axes.legend()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        figure.savefig(path, dpi=100)
