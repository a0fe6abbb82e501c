"""The pictures of a run folder: what the network was shown, and what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....data.loader import Batch
from ....data.records import Dataset
from ....drawing.draw import draw_instances, save_mosaic
from ....metrics.detection.scores import OperatingPoint, above
from ....reports.zoom import LARGE
from ....storage.rundir import write_whole
from .diagnosis import describe_conf, save_numbers, shown_conf

if TYPE_CHECKING:
    from ..evaluate import DetectionEvaluation

MAX_CELLS = 16  # images in one mosaic
CELL = 480  # pixels: smaller images are drawn enlarged, so that their labels stay sharp
DETECTIONS = "detections.json"


def save_batch(path: Path, batch: Batch, dataset: Dataset) -> None:
    """Draw the augmented images of a batch with their targets: exactly what the network sees."""
    images, targets = batch.images, batch.targets
    pictures = []
    for i in range(min(len(batch.indices), MAX_CELLS)):
        height, width = images.sizes[i].tolist()
        pixels = images.pixels[i, :, :height, :width].permute(1, 2, 0)
        kept = targets.valid[i].nonzero()[:, 0]
        pictures.append(
            draw_instances(
                pixels.clamp(0, 255).byte().contiguous().numpy(),
                targets.boxes[i, kept],
                targets.labels[i, kept],
                dataset.names,
                masks=_crops(batch, i, kept.tolist()),
                crowd=None if targets.crowd is None else targets.crowd[i, kept],
                keypoints=None if targets.keypoints is None else targets.keypoints[i, kept],
                skeleton=dataset.skeleton,
                min_side=CELL,
            )
        )
    titles = [dataset[index].path.name for index in batch.indices[:MAX_CELLS]]
    save_mosaic(path, pictures, titles)


def save_labels(path: Path, dataset: Dataset) -> None:
    """Draw what the annotations look like: classes, sizes, places, objects per image."""
    from .label_figure import plot_labels

    labels, sizes, centres, per_image = [], [], [], []
    for i in range(len(dataset)):
        record = dataset[i]
        objects = ~record.crowd
        x1, y1, x2, y2 = record.boxes[objects].T
        height, width = record.size
        labels.append(record.labels[objects])
        sizes.append(np.stack([x2 - x1, y2 - y1], 1))
        centres.append(np.stack([(x1 + x2) / (2 * width), (y1 + y2) / (2 * height)], 1))
        per_image.append(int(objects.sum()))
    plot_labels(
        np.concatenate(labels),
        np.concatenate(sizes).astype(np.float64),
        np.concatenate(centres).astype(np.float64),
        np.array(per_image),
        dataset.names,
        path,
    )


def save_validation(
    folder: Path,
    result: DetectionEvaluation,
    dataset: Dataset,
    best: OperatingPoint | None,
    least: float = 0.0,
) -> None:
    """Write the metrics, the detections and pictures of an evaluation; the report comes on top.

    The pictures hold the detections that `predict` would find with the advised threshold.

    Args:
        folder: the run folder; gets `metrics.json`, `detections.json` (see `load_detections`),
            `val_batch0_labels.jpg` and `val_batch0_pred.jpg`.
        result: the evaluation.
        dataset: the images that were evaluated.
        best: the advised score threshold, see `diagnosis.advise`.
        least: that of the evaluation.
    """
    save_numbers(folder / "metrics.json", result.metrics, None)
    ids = dict(enumerate(dataset.own_ids, start=1))
    own = (row | {"category_id": ids[row["category_id"]]} for row in result.detections)
    rows = [json.dumps(_with_text(row), separators=(",", ":")) for row in own]
    write_whole(folder / DETECTIONS, "[" + ",\n".join(rows) + "]\n")
    # Larger images are not to be seen in such a picture.
    first = (dataset.sizes.amax(1) <= LARGE).nonzero()[:MAX_CELLS, 0].tolist()
    shown = {dataset[i].image_id for i in first}
    truth = [row for row in result.gt["annotations"] if row["image_id"] in shown]
    found = [row for row in result.detections if row["image_id"] in shown]
    conf = shown_conf(best, least)
    passed = above(np.array([row["score"] for row in found], np.float64), conf)
    found = [row for row, good in zip(found, passed, strict=True) if good]
    _save_rows(folder / "val_batch0_labels.jpg", dataset, first, truth, "Ground truth")
    heading = f"Found at {describe_conf(conf, best)}"
    _save_rows(folder / "val_batch0_pred.jpg", dataset, first, found, heading)


def load_detections(folder: Path, dataset: Dataset | None = None) -> list[dict[str, Any]]:
    """Return the detections of the best epoch as COCO results.

    Args:
        folder: the run folder.
        dataset: the images that were evaluated: category ids become label + 1, as in
            `DetectionEvaluation`. None: they stay those of its annotation file.
    """
    rows: list[dict[str, Any]] = json.loads((folder / DETECTIONS).read_bytes())
    if dataset is None:
        return rows
    places = {number: k for k, number in enumerate(dataset.own_ids, start=1)}
    if any(row["category_id"] not in places for row in rows):
        return rows  # of a version that counted the classes from 1
    return [row | {"category_id": places[row["category_id"]]} for row in rows]


def _with_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose run-length code is text, as JSON wants it."""
    mask = row.get("segmentation")
    if not isinstance(mask, dict) or not isinstance(mask["counts"], bytes):
        return row
    return row | {"segmentation": mask | {"counts": mask["counts"].decode("ascii")}}


def _save_rows(
    path: Path,
    dataset: Dataset,
    indices: Sequence[int],
    rows: Sequence[dict[str, Any]],
    heading: str,
) -> None:
    """Draw COCO annotations or results on some images of a data set."""
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    pictures, titles = [], []
    for i in indices:
        record = dataset[i]
        mine = by_image.get(record.image_id, [])
        boxes = np.array([row["bbox"] for row in mine], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [_as_rle(row.get("segmentation"), record.size) for row in mine]
        points = [row["keypoints"] for row in mine if "keypoints" in row]
        full = bool(mine) and len(points) == len(mine)
        pictures.append(
            draw_instances(
                dataset.photo(i),
                boxes,
                np.array([row["category_id"] - 1 for row in mine], np.int64),
                dataset.names,
                scores=[row["score"] for row in mine] if mine and "score" in mine[0] else None,
                masks=masks if all(mask is not None for mask in masks) else None,
                crowd=[bool(row.get("iscrowd")) for row in mine],
                keypoints=np.reshape(points, (len(mine), -1, 3)) if full else None,
                skeleton=dataset.skeleton,
                min_side=CELL,
                max_side=640,
            )
        )
        titles.append(record.path.name)
    if pictures:
        save_mosaic(path, pictures, titles, heading=heading)


def _as_rle(mask: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    """Return a COCO segmentation (polygons or RLE) as compressed RLE."""
    from pycocotools import mask as rle

    if not mask:
        return None
    if isinstance(mask, list):
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(mask, *size))
        return merged
    return dict(mask)


def _crops(batch: Batch, i: int, slots: Sequence[int]) -> list[Any] | None:
    masks = batch.targets.masks
    if masks is None:
        return None
    crops = []
    for k in slots:
        x1, y1, x2, y2 = masks.frames[i, k].tolist()
        first = int(masks.offsets[i, k])
        data = masks.data[first : first + (y2 - y1) * (x2 - x1)]
        crops.append((data.view(y2 - y1, x2 - x1).bool().numpy(), (x1, y1, x2, y2)))
    return crops
