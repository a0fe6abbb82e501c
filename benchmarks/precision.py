"""What a shorter arithmetic costs in average precision: the same trained model, images and objects.

    python benchmarks/precision.py MODEL DATA [--precision bf16] [--max-det 500]

MODEL is a checkpoint, a run folder or a registered name with trained weights; DATA a data set with
the split val. Both arithmetics see the same images. The interval of 90% of the loss comes from
samples of the images with replacement, each scored on both sides (paired bootstrap).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.prediction.predictor import Predictor
from maskwright.tasks.detection.evaluate import DetectionEvaluation, score
from maskwright.tasks.detection.post import make_post
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.evaluation import evaluate

FIGURES = ("box/AP", "box/AP50", "mask/AP", "mask/AP50", "mask/AP75")
Rows = list[dict[str, Any]]


def detect(predictor: Predictor, args: argparse.Namespace) -> DetectionEvaluation:
    """Return what a model finds in the validation images."""
    dataset = open_dataset(args.data, "val")
    settings = DetectionSettings(make_post(0.001, 0.5, args.max_det))
    result = evaluate(
        TASK.evaluator(predictor.model, predictor.meta, dataset, settings, {}),
        predictor.model,
        TASK.eval_loader(predictor.model, dataset, workers=args.workers),
        total=len(dataset),
        precision=predictor.precision,
        label=predictor.precision,
    )
    assert isinstance(result, DetectionEvaluation)
    return result


def by_image(rows: Rows) -> dict[int, Rows]:
    """Return the rows of each image."""
    grouped: dict[int, Rows] = defaultdict(list)
    for row in rows:
        grouped[row["image_id"]].append(row)
    return grouped


def drawn(
    gt: dict[str, Any], objects: dict[int, Rows], found: dict[int, Rows], images: np.ndarray
) -> tuple[dict[str, Any], Rows]:
    """Return ground truth and detections of a sample of images, in which one may come twice.

    Args:
        gt: the ground truth.
        objects: its annotations by image.
        found: the detections by image.
        images: places in the list of images.
    """
    sample: dict[str, Any] = {**gt, "images": [], "annotations": []}
    rows: Rows = []
    for new, place in enumerate(images.tolist(), start=1):
        image = gt["images"][place]
        sample["images"].append({**image, "id": new})
        for row in objects[image["id"]]:
            number = len(sample["annotations"]) + 1
            sample["annotations"].append({**row, "image_id": new, "id": number})
        rows += [{**row, "image_id": new} for row in found[image["id"]]]
    return sample, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="checkpoint, run folder or registered name")
    parser.add_argument("data", type=Path)
    parser.add_argument("--precision", default="bf16", help="bf16, or fp16 on a GPU")
    parser.add_argument("--max-det", type=int, default=100)
    parser.add_argument("--samples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    results = [
        detect(mw.load(args.model, device=args.device, precision=precision), args)
        for precision in ("float32", args.precision)
    ]
    gt, masks = results[0].gt, "mask/AP" in results[0].metrics
    objects, found = by_image(gt["annotations"]), [by_image(r.detections) for r in results]
    losses: dict[str, list[float]] = defaultdict(list)
    rng = np.random.default_rng(0)
    for _ in range(args.samples):
        chosen = rng.integers(0, len(gt["images"]), len(gt["images"]))
        both = [
            score(*drawn(gt, objects, side, chosen), masks=masks, max_det=args.max_det)
            for side in found
        ]
        for key in FIGURES[: 5 if masks else 2]:
            losses[key].append(100 * (both[0][key] - both[1][key]))
    print(f"{args.model}, {len(gt['images'])} images, torch {torch.__version__}; {machine()}\n")
    print(f"| figure | float32 | {args.precision} | loss | 90% interval |")
    print("| --- | --- | --- | --- | --- |")
    for key, values in losses.items():
        exact, rounded = (100 * result.metrics[key] for result in results)
        low, high = np.nanquantile(values, [0.05, 0.95])
        name = key.replace("/", " ")
        print(
            f"| {name} | {exact:.2f} | {rounded:.2f} | {exact - rounded:+.2f} "
            f"| {low:+.2f} to {high:+.2f} |"
        )


if __name__ == "__main__":
    main()
