"""The pictures of a run folder: what the network was shown, and what it made of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.loader import Batch
from ...data.maps.counts import PixelCounts
from ...data.maps.samples import map_of
from ...data.records import Dataset
from ...drawing.draw import mosaic
from ...drawing.figures import as_text, new_figure, plural, save_figure, style
from ...drawing.label_maps import WRONG, class_palette, draw_errors, draw_label_map, with_legend
from ...files import replacing, replacing_picture, write_whole
from ...structures import IGNORED
from ...text import to_json
from .evaluate import SemanticEvaluation
from .kept import WORST, PackedMap, spread

MAX_CELLS = 16  # images in one mosaic
CELL = 320  # pixels
EVALUATION = "pixels.npz"
IMAGES = "images.csv"
SHOWN_CLASSES = 24  # with a bar
LOOKED = 200  # label maps whose pixels are counted for a picture
SAMPLES = 6
LETTERS = 13.0  # points of the legend of a mosaic


def save_batch(path: Path, batch: Batch, dataset: Dataset) -> None:
    """Draw the augmented images of a batch with their label maps: exactly what the network sees."""
    pictures, maps = [], []
    colors = class_palette(dataset.names, dataset.colors)
    for i in range(min(len(batch.indices), MAX_CELLS)):
        height, width = batch.images.sizes[i].tolist()
        pixels = batch.images.pixels[i, :, :height, :width].permute(1, 2, 0)
        labels = batch.targets.maps[i, :height, :width].numpy()
        image = pixels.clamp(0, 255).byte().contiguous().numpy()
        pictures.append(
            draw_label_map(image, labels, dataset.names, colors=colors, legend=False, side=CELL)
        )
        maps.append(labels)
    if pictures:
        titles = [dataset[i % len(dataset)].path.name for i in batch.indices[:MAX_CELLS]]
        columns = max(math.ceil(math.sqrt(len(pictures))), 1)
        _save(path, mosaic(pictures, titles, columns, CELL), _legend(maps, dataset.names, colors))


def save_annotations(path: Path, dataset: Dataset) -> None:
    """Draw the share of the pixels that each class has, and some images with their label maps."""
    picked = _evenly(len(dataset), LOOKED)
    counts = PixelCounts.none(len(dataset.names))
    for index in picked:
        counts.add(map_of(dataset, index))
    order = np.argsort(-counts.pixels, kind="stable")
    if len(order) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])
    figure = new_figure(11, 1.0 + 0.32 * max(len(order), 12))
    grid = figure.add_gridspec(1, 2, width_ratios=(1.1, 1))
    ax = figure.add_subplot(grid[0, 0])
    classes = len(dataset.names)
    some = "" if len(picked) == len(dataset) else f" (pixels of {len(picked)})"
    title = f"{len(dataset):,} images{some}, {classes:,} {plural(classes, 'class')}"
    style(ax, title, "share of the pixels")
    ax.grid(False, axis="y")
    place, shares = np.arange(len(order)), counts.shares[order]
    colors = class_palette(dataset.names, dataset.colors)
    ax.barh(
        place, shares, color=colors[order] / 255, height=0.7, edgecolor="#8a93a5", linewidth=0.5
    )
    for y, share in zip(place.tolist(), shares.tolist(), strict=True):
        text = f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"
        ax.annotate(text, (share, y), xytext=(3, 0), textcoords="offset points", va="center",
                    fontsize=7.5)  # fmt: skip
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    ax.set_xlim(0, 1.18 * max(shares.max(initial=0), 0.01))
    ax.set_yticks(place.tolist(), [as_text(dataset.names[i]) for i in order.tolist()])
    ax.set_ylim(max(len(order), 12) - 0.4, -0.6)
    samples = [
        draw_label_map(
            dataset.photo(index),
            map_of(dataset, index),
            dataset.names,
            colors=colors,
            legend=False,
            side=CELL,
        )
        for index in _evenly(len(dataset), SAMPLES)
    ]
    if samples:
        ax = figure.add_subplot(grid[0, 1])
        style(ax, "Samples")
        ax.imshow(np.asarray(mosaic(samples, [""] * len(samples), 2, CELL)))
        ax.set_axis_off()
    save_figure(figure, path)


def save_validation(folder: Path, result: SemanticEvaluation, dataset: Dataset) -> None:
    """Write metrics, counts and pictures of some images; the report comes on top.

    Args:
        folder: the run folder; gets `metrics.json`, `pixels.npz` (see `load_validation`),
            `images.csv` and `val_batch0.jpg`.
        result: the evaluation.
        dataset: the images that were evaluated.
    """
    save_metrics(folder / "metrics.json", result.metrics)
    _save_evaluation(folder / EVALUATION, result)
    write_whole(folder / IMAGES, _table(result, dataset))
    picked = [index for index in spread(len(dataset)) if index in result.maps]
    draw_images(folder / "val_batch0.jpg", result, dataset, picked, "Truth and prediction")


def save_metrics(path: Path, metrics: Mapping[str, float], **more: Any) -> None:
    """Write numbers by key, what is undefined as null, and further fields."""
    tree = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
    write_whole(path, to_json({**tree, **more}, indent=1, allow_nan=False) + "\n")


def _save_evaluation(path: Path, result: SemanticEvaluation) -> None:
    kept = result.maps
    arrays: dict[str, Any] = {
        "confusion": result.confusion,
        "images": result.images,
        "counts": result.counts,
        "kept": np.array(list(kept), np.int64),
        "ious": np.array([one.iou for one in kept.values()], np.float64),
        "sizes": np.array([one.size for one in kept.values()], np.int64).reshape(-1, 2),
        **{f"map{index}": np.frombuffer(one.data, np.uint8) for index, one in kept.items()},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_validation(
    folder: Path, metrics: dict[str, float], names: Sequence[str]
) -> SemanticEvaluation | None:
    """Return the evaluation that `save_validation` left in a run folder, or None.

    Args:
        folder: the run folder.
        metrics: of the evaluation.
        names: class names of the model.
    """
    try:
        with np.load(folder / EVALUATION, allow_pickle=False) as stored:
            maps = {
                int(index): PackedMap(float(iou), (int(height), int(width)), data.tobytes())
                for index, iou, (height, width), data in zip(
                    stored["kept"],
                    stored["ious"],
                    stored["sizes"],
                    (stored[f"map{index}"] for index in stored["kept"].tolist()),
                    strict=True,
                )
            }
            confusion, images, counts = (stored[key] for key in ("confusion", "images", "counts"))
    except (OSError, ValueError, KeyError):
        return None
    if confusion.shape != (len(names), len(names) + 1):
        return None
    return SemanticEvaluation(metrics, math.nan, confusion, images, counts, names, maps)


def worst_images(result: SemanticEvaluation) -> list[int]:
    """Return the positions of the images with the lowest IoU that are kept, the worst first."""
    wrong = [index for index, one in result.maps.items() if one.iou < 1]
    return sorted(wrong, key=lambda index: (result.maps[index].iou, index))[:WORST]


def draw_images(
    path: Path,
    result: SemanticEvaluation,
    dataset: Dataset,
    picked: Sequence[int],
    heading: str,
) -> None:
    """Draw a row for each image: the photo, its truth, the prediction, and where it is wrong.

    Args:
        path: the file; without an image it is removed.
        result: the evaluation; it has kept the predictions of these images.
        dataset: its images.
        picked: positions of those that are drawn.
        heading: a line above them.
    """
    if not picked:
        path.unlink(missing_ok=True)
        return
    cells, titles, maps = [], [], []
    colors = class_palette(result.names, dataset.colors)  # the model's classes are those scored
    for index in picked:
        image, truth = dataset.photo(index), map_of(dataset, index)
        said = result.maps[index].labels
        both = [
            draw_label_map(image, labels, result.names, colors=colors, legend=False, side=CELL)
            for labels in (truth, said)
        ]
        cells += [image, *both, draw_errors(image, said, truth, side=CELL)]
        valid = truth != IGNORED
        share = (said != truth)[valid].mean() if valid.any() else math.nan
        iou = result.maps[index].iou
        titles += [dataset[index].path.name, "truth", f"prediction, IoU {iou:.2f}"]
        titles.append("nothing to score" if math.isnan(share) else f"wrong: {share:.1%}")
        maps += [truth, said]
    rows = [("wrong", np.array(WRONG), None), *_legend(maps, result.names, colors)]
    _save(path, mosaic(cells, titles, 4, CELL, heading=heading), rows)


def _legend(
    maps: Sequence[npt.NDArray[np.uint8]], names: Sequence[str], colors: npt.NDArray[np.uint8]
) -> list[tuple[str, Any, None]]:
    """Return names and colours of the classes that occur in label maps, the largest first."""
    counts = sum(np.bincount(labels.ravel(), minlength=IGNORED + 1) for labels in maps)
    order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]  # type: ignore
    return [("ignored", None, None) if i == IGNORED else (names[i], colors[i], None) for i in order]


def _save(path: Path, board: Any, rows: Sequence[tuple[str, Any, None]]) -> None:
    with replacing_picture(path) as temporary:
        with_legend(board, rows, LETTERS).save(temporary, quality=90)


def _evenly(count: int, most: int) -> list[int]:
    """Return up to `most` positions from all parts of a data set."""
    if not count:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, most)).astype(int).tolist()))


def _table(result: SemanticEvaluation, dataset: Dataset) -> str:
    """Return a line of CSV for each image: file, mean IoU, pixels that count, wrong ones."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "IoU", "pixels", "wrong"])
    rows = zip(result.images.tolist(), result.iou_of_images, result.counts, strict=True)
    for index, iou, (right, true, _) in rows:
        value = "" if math.isnan(iou) else f"{iou:.6f}"
        total = int(true.sum())
        writer.writerow([str(dataset[index].path), value, total, total - int(right.sum())])
    return stream.getvalue()
