"""The pictures of a run folder: what the network was shown, and what it answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.loader import Batch
from ...data.records import Dataset
from ...drawing.draw import save_mosaic
from ...drawing.figures import SERIES, as_text, new_figure, plural, save_figure, style
from ...files import write_whole
from ...text import to_json
from .evaluate import ClassificationEvaluation, present_classes, score
from .settings import ClassificationSettings

if TYPE_CHECKING:
    from PIL import Image

MAX_CELLS = 16  # images in one mosaic
CELL = 320  # pixels
PREDICTIONS = "predictions.npz"
SHOWN_CLASSES = 12  # with a row of samples
SAMPLES = 6  # of a class
THUMB = 110  # pixels of a sample
LEAST_SHARE = 0.005  # of a label that is worth a word


def save_batch(path: Path, batch: Batch, dataset: Dataset) -> None:
    """Draw the augmented images of a batch with their labels, mixed ones with their shares."""
    pictures, titles = [], []
    for i in range(min(len(batch.indices), MAX_CELLS)):
        height, width = batch.images.sizes[i].tolist()
        pixels = batch.images.pixels[i, :, :height, :width].permute(1, 2, 0)
        pictures.append(_square(pixels.clamp(0, 255).byte().contiguous().numpy()))
        titles.append(label_text(batch.targets.probs[i].tolist(), dataset.names))
    if pictures:
        save_mosaic(path, pictures, titles, CELL)


def label_text(probs: Sequence[float], names: Sequence[str]) -> str:
    """Return the label of an image: its class; shares where it has several, the largest first.

    Smoothing, which gives all classes the same small share, is not worth a word.

    Args:
        probs: share of each class.
        names: class names.
    """
    floor = min(probs) if len(probs) > 2 else 0.0
    order = sorted(range(len(probs)), key=lambda label: -probs[label])
    shown = [label for label in order if probs[label] - floor > LEAST_SHARE]
    if not shown:
        return "no class"
    if len(shown) == 1 or all(probs[label] == 1 for label in shown):
        return ", ".join(names[label] for label in shown)
    return ", ".join(f"{names[label]} {probs[label]:.2f}" for label in shown[:3])


def save_labels(path: Path, dataset: Dataset) -> None:
    """Draw how many images each class has, and some of them."""
    from PIL import Image

    images, labels = dataset.classes_of_images()
    counts = np.bincount(labels, minlength=len(dataset.names))
    order = np.argsort(-counts, kind="stable")
    if len(order) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])
    rows = max(len(order), 3)
    figure = new_figure(11, 1.0 + 0.78 * rows)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.55))
    ax = figure.add_subplot(grid[0, 0])
    classes = len(dataset.names)
    of = "" if classes <= SHOWN_CLASSES else ", the most and the least frequent"
    title = f"{len(dataset):,} images, {classes:,} {plural(classes, 'class')}{of}"
    style(ax, title, "images")
    ax.grid(False, axis="y")
    ax.barh(range(len(order)), counts[order], color=SERIES, height=0.7)
    ax.set_yticks(
        range(len(order)), [f"{as_text(dataset.names[i])} ({counts[i]:,})" for i in order.tolist()]
    )
    ax.set_ylim(rows - 0.5, -0.5)
    sheet = Image.new("RGB", (SAMPLES * THUMB, rows * THUMB), "white")
    for row, label in enumerate(order.tolist()):
        mine = images[labels == label]
        picked = mine[np.linspace(0, len(mine) - 1, min(SAMPLES, len(mine))).astype(int)]
        for column, index in enumerate(picked.tolist()):
            thumb = _square(dataset.photo(index), THUMB - 6)
            sheet.paste(thumb, (column * THUMB + 3, row * THUMB + 3))
    ax = figure.add_subplot(grid[0, 1])
    style(ax, "Samples")
    ax.grid(False)
    ax.imshow(np.asarray(sheet), aspect="auto", extent=(0, SAMPLES, rows - 0.5, -0.5))
    ax.set_axis_off()
    save_figure(figure, path)


def save_validation(folder: Path, result: ClassificationEvaluation, dataset: Dataset) -> None:
    """Write metrics, all answers and pictures of some; the report comes on top.

    Args:
        folder: the run folder; gets `metrics.json`, `predictions.npz` (see `load_predictions`),
            `predictions.csv` and `val_batch0.jpg`.
        result: the evaluation.
        dataset: the images that were evaluated.
    """
    save_metrics(folder / "metrics.json", result.metrics)
    save_predictions(folder / PREDICTIONS, result)
    write_whole(folder / "predictions.csv", _table(result, dataset))
    count = min(len(dataset), MAX_CELLS)
    picked = (
        np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist() if count else []
    )
    if picked:
        draw_answers(folder / "val_batch0.jpg", result, dataset, picked, "Answers and true classes")


def save_metrics(path: Path, metrics: dict[str, float], **more: Any) -> None:
    """Write numbers by key, what is undefined as null, and further fields."""
    tree = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
    write_whole(path, to_json({**tree, **more}, indent=1, allow_nan=False) + "\n")


def save_predictions(path: Path, result: ClassificationEvaluation) -> None:
    """Write the logits and true classes of all images, in the order of the data set."""
    from ...files import replacing

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, logits=result.logits, labels=result.labels)


def load_predictions(
    path: Path, names: Sequence[str], settings: ClassificationSettings, dataset: Dataset
) -> ClassificationEvaluation | None:
    """Return the evaluation that `save_predictions` wrote, or None if there is none that fits.

    Args:
        path: the file.
        names: class names of the model.
        settings: of the evaluation.
        dataset: the images.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            logits, labels = stored["logits"], stored["labels"]
    except (OSError, ValueError, KeyError):
        return None
    if logits.shape != (len(dataset), len(names)) or len(labels) != len(logits):
        return None
    metrics = score(logits, labels, names, settings)
    has = present_classes(labels, len(names))
    unseen = [name for name, there in zip(names, has, strict=True) if not there]
    return ClassificationEvaluation(metrics, math.nan, logits, labels, names, settings, unseen)


def draw_answers(
    path: Path,
    result: ClassificationEvaluation,
    dataset: Dataset,
    picked: Sequence[int],
    heading: str,
) -> None:
    """Draw images with the model's answer, and with the true class where it is another.

    Args:
        path: the file.
        result: the evaluation.
        dataset: its images.
        picked: positions of those that are drawn.
        heading: a line above them.
    """
    pictures = [_square(dataset.photo(index)) for index in picked]
    titles = [answer_text(result, index) for index in picked]
    save_mosaic(path, pictures, titles, CELL, heading=heading)


def answer_text(result: ClassificationEvaluation, index: int) -> str:
    """Return what the model answers to an image, and what would be right."""
    probs, names = result.probs[index], result.names
    if result.multilabel:
        given = [i for i in np.argsort(-probs, kind="stable") if probs[i] > result.settings.conf]
        said = ", ".join(f"{names[i]} {probs[i]:.2f}" for i in given) or "no class"
        true = np.flatnonzero(result.labels[index]).tolist()
        right = sorted(given) == true
        return said if right else f"{said} (true: {', '.join(names[i] for i in true) or 'none'})"
    label, true_label = int(probs.argmax()), int(result.labels[index])
    said = f"{names[label]} {probs[label]:.2f}"
    return said if label == true_label else f"{said} (true: {names[true_label]})"


def _table(result: ClassificationEvaluation, dataset: Dataset) -> str:
    """Return all answers as CSV: file, true class, answer, its probability."""
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "label", "answer", "probability"])
    names = result.names
    for index in range(len(dataset)):
        probs = result.probs[index]
        if result.multilabel:
            true = ";".join(names[i] for i in np.flatnonzero(result.labels[index]).tolist())
            given = np.flatnonzero(probs > result.settings.conf).tolist()
            answer = ";".join(names[i] for i in given)
            share = ";".join(f"{probs[i]:.6f}" for i in given)
        else:
            true, label = names[int(result.labels[index])], int(probs.argmax())
            answer, share = names[label], f"{probs[label]:.6f}"
        writer.writerow([str(dataset[index].path), true, answer, share])
    return stream.getvalue()


def _square(pixels: np.ndarray, side: int = CELL) -> Image.Image:
    """Return an image fitted into a square; small ones are enlarged without smoothing."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    kind = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return picture.resize(size, kind)
