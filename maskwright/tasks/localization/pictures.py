"""The pictures of a run folder of a localizer: what it was shown, and what it found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...data.loader import Batch
from ...data.records import Dataset
from ...drawing.draw import save_mosaic
from ...drawing.labels import Color
from .evaluate import LocationEvaluation, mistake
from .objects import choose
from .result import BACKGROUND, draw_place

MAX_CELLS = 16  # images in one mosaic
CELL = 480
# Colours of Okabe and Ito (2008).
RIGHT: Color = (86, 180, 233)
TRUE: Color = (0, 158, 115)
WRONG: Color = (213, 94, 0)


def save_batch(path: Path, batch: Batch, dataset: Dataset) -> None:
    """Draw the augmented images of a batch with their targets: exactly what the network sees."""
    images, targets = batch.images, batch.targets
    pictures = []
    for i in range(min(len(batch.indices), MAX_CELLS)):
        height, width = images.sizes[i].tolist()
        pixels = images.pixels[i, :, :height, :width].permute(1, 2, 0)
        there = bool(targets.valid[i, 0]) and not bool(targets.crowd[i, 0])
        unknown = bool(targets.crowd[i, 0])
        label = int(targets.labels[i, 0])
        points = None if targets.keypoints is None else targets.keypoints[i, 0].numpy()
        pictures.append(
            draw_place(
                pixels.clamp(0, 255).byte().contiguous().numpy(),
                targets.boxes[i, 0].numpy() if there else None,
                points if there else None,
                label,
                dataset.names,
                text=dataset.names[label] if there else "unknown" if unknown else BACKGROUND,
                skeleton=dataset.skeleton,
                min_side=CELL,
            )
        )
    save_mosaic(path, pictures, [dataset[index].path.name for index in batch.indices[:MAX_CELLS]])


def save_annotations(path: Path, dataset: Dataset, *, keypoints: bool) -> None:
    """Draw the first images of a data set with the object that counts in each."""
    pictures, titles = [], []
    for index in range(min(len(dataset), MAX_CELLS)):
        record = choose(dataset[index], keypoints=keypoints).record
        label = int(record.labels[0]) if len(record.labels) else 0
        there = len(record.boxes) > 0
        points = record.keypoints[0] if there and record.keypoints is not None else None
        pictures.append(
            draw_place(
                dataset.photo(index),
                record.boxes[0] if there else None,
                points,
                label,
                dataset.names,
                text=dataset.names[label] if there else BACKGROUND,
                skeleton=dataset.skeleton,
                min_side=CELL,
                max_side=640,
            )
        )
        titles.append(record.path.name)
    save_mosaic(path, pictures, titles, heading="The object that counts in each image")


def worst_rows(result: LocationEvaluation, dataset: Dataset) -> list[Mapping[str, Any]]:
    """Return the images that came out worst, the worst first; those without a mistake are not."""
    known = [row for row in result.rows if not row["unknown"]]
    if known and "points" in known[0]:
        return sorted(known, key=lambda row: -_finite(row["error"]))
    background = len(dataset.names)
    wrong = [row for row in known if mistake(row, background)]
    # A sure mistake is worse than an unsure one.
    return sorted(wrong, key=lambda row: -row["scores"][0])


def save_worst(path: Path, result: LocationEvaluation, dataset: Dataset) -> bool:
    """Draw the worst images, truth and what was found; False if there is no mistake."""
    rows = worst_rows(result, dataset)[:MAX_CELLS]
    if not rows:
        path.unlink(missing_ok=True)
        return False
    pictures, titles = [], []
    for row in rows:
        draw = _draw_points if "points" in row else _draw_box
        pictures.append(draw(row, dataset))
        titles.append(_title(row, dataset))
    save_mosaic(
        path, pictures, titles, heading="The worst images: green is the truth, red what was found"
    )
    return True


def _title(row: Mapping[str, Any], dataset: Dataset) -> str:
    if "points" in row:
        return f"{row['file']}: error {row['error']:.3f}"
    names = [*dataset.names, BACKGROUND]
    kind = mistake(row, len(dataset.names))
    wrong = {"class": "class wrong", "box": "box wrong", "both": "class and box wrong"}
    true, taken = names[row["label"]], names[row["named"][0]]
    mixed = "" if true == taken else f", {true} taken for {taken}"
    return f"{row['file']}: {wrong.get(kind, 'nothing is there')}{mixed}"


def _draw_box(row: Mapping[str, Any], dataset: Dataset) -> Any:
    from ...drawing.draw import draw_instances

    true = choose(dataset[row["index"]]).boxes
    first, background = row["named"][0], len(dataset.names)
    boxes = [*true.tolist()] + ([row["box"]] if first != background else [])
    names = [*dataset.names, BACKGROUND]
    texts = [""] * len(true) + [f"{names[first]} {row['scores'][0]:.2f}"] * (first != background)
    return draw_instances(
        dataset.photo(row["index"]),
        np.array(boxes, np.float64).reshape(-1, 4),
        [0] * len(boxes),
        names,
        colors=[TRUE] * len(true) + [WRONG] * (len(boxes) - len(true)),
        texts=texts,
        min_side=CELL,
        max_side=640,
    )


def _draw_points(row: Mapping[str, Any], dataset: Dataset) -> Any:
    """Draw true and found keypoints on what the network saw."""
    from ...data.pixels.resizing import resize_image
    from ...drawing.draw import draw_instances
    from ...structures import Resize
    from .batches import LocationBatches

    makes = LocationBatches(dataset, Resize(None, CELL), None, keypoints=True, around=row["around"])
    record = choose(dataset[row["index"]], keypoints=True).record
    view = makes.view(record, np.random.default_rng(0))
    pixels = resize_image(dataset.photo(row["index"]), view.full, Resize(), window=view.window)
    scale = max(view.window_size) / row["side"]
    found = np.ones((len(row["points"]), 3))
    found[:, :2] = np.array(row["points"]) * scale
    true = np.array(row["true"]) * (scale, scale, 1)
    box = np.array(row["box"]) * scale
    return draw_instances(
        pixels.permute(1, 2, 0).clamp(0, 255).byte().contiguous().numpy(),
        [box, box],
        [0, 0],
        dataset.names,
        keypoints=np.stack([true, found]),
        colors=[TRUE, WRONG],
        texts=["", ""],
        skeleton=dataset.skeleton,
        boxed=False,
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0
