"""Compare the masks of trained models where boxes play no part: in those of the ground truth.

    python benchmarks/mask_quality.py DATA FOLDER [--one-class]

DATA is a data set with the split val; FOLDER holds what `refine_mask.py --save` wrote there: one
file for each side and seed. Every object that is no crowd counts once: the IoU of its mask, and
that of the masks' borders (Cheng et al. 2021), with the mask that the model finds in its true box
and for its true class. Printed are the means of each run, and the paired differences of the sides.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from training import one_class, paired

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.engine import console
from maskwright.engine.detect import to_detections
from maskwright.engine.evaluate import eval_loader
from maskwright.metrics import boundary_iou
from maskwright.models.base import TwoStageDetector
from maskwright.ops.boxes import box_iou
from maskwright.ops.masks import paste_masks
from maskwright.ops.rle import decode_rle, rasterise_polygons
from maskwright.structures import Instances

FIGURES = {"iou": "mask IoU", "boundary": "boundary IoU"}


def truths(data: Dataset) -> dict[int, list[dict]]:
    """Return the annotations of each image id that are no crowds."""
    found: dict[int, list[dict]] = {}
    for row in data.to_coco()["annotations"]:
        if not row["iscrowd"]:
            found.setdefault(row["image_id"], []).append(row)
    return found


def full(segmentation: dict | list, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) of a run-length code or polygons."""
    if isinstance(segmentation, dict):
        crop, (x1, y1, x2, y2) = decode_rle(segmentation)
    else:
        crop, (x1, y1, x2, y2) = rasterise_polygons(segmentation, size)
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = crop
    return mask


@torch.inference_mode()
def pairs(file: Path, data: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield the found and the true mask (H, W) of every object, and how well their boxes agree."""
    detector = mw.load(file, device="cpu").detector
    assert isinstance(detector, TwoStageDetector)
    goals = truths(data)
    for batch in console.track(eval_loader(detector, data), file.stem):
        known = batch.targets
        assert known.crowd is not None
        use = known.valid & ~known.crowd
        given = Instances(known.boxes, known.labels, use, torch.ones_like(known.boxes[..., 0]))
        (found,) = to_detections(detector.refine(batch.images, given), batch.images)
        assert found.mask_probs is not None
        own = goals.get(data[batch.indices[0]].image_id, [])
        if not own:
            continue
        corners = torch.tensor([row["bbox"] for row in own], dtype=torch.float32)
        corners[:, 2:] += corners[:, :2]
        overlaps: Tensor = box_iou(corners, found.boxes)
        masks = paste_masks(found.mask_probs, found.boxes, found.size, mode="grid")
        for row, overlap in zip(own, overlaps, strict=True):
            best = int(overlap.argmax())
            goal = full(row["segmentation"], found.size)
            yield np.asarray(masks[best], bool), goal, float(overlap[best])


def quality(file: Path, data: Dataset) -> dict[str, float]:
    """Return the mean IoUs of the masks and of their borders, in percent."""
    ious, borders = [], []
    for found, goal, overlap in pairs(file, data):
        if overlap < 0.9:  # the object got no box of its own, so nothing was asked for it
            continue
        ious.append((found & goal).sum() / max((found | goal).sum(), 1))
        borders.append(boundary_iou(found, goal))
    return {"iou": 100 * float(np.mean(ious)), "boundary": 100 * float(np.mean(borders))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one-class", action="store_true", help="take all objects as one class")
    args = parser.parse_args()
    files = sorted(args.folder.glob("*_*.safetensors"))
    if not files:
        raise SystemExit(f"{args.folder} has no files SIDE_SEED.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        data = open_dataset(
            one_class(args.data, Path(folder)) if args.one_class else args.data, "val"
        )
        rows = []
        print(f"| side | seed | {' | '.join(FIGURES.values())} |\n| --- | --- | --- | --- |")
        for file in files:
            side, _, seed = file.stem.rpartition("_")
            row = {"side": side.replace("_", " "), "seed": int(seed), **quality(file, data)}
            rows.append(row)
            print(f"| {row['side']} | {seed} | {row['iou']:.2f} | {row['boundary']:.2f} |")
    sides = list(dict.fromkeys(row["side"] for row in rows))
    for side in sides[1:]:
        print("\n".join(paired(rows, side, sides[0], FIGURES)))


if __name__ == "__main__":
    main()
