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
from training import one_class, paired

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.metrics import boundary_iou
from maskwright.models.detection.base import TwoStageDetector
from maskwright.ops.boxes import box_iou
from maskwright.ops.masks import paste_masks
from maskwright.structures import Instances
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.detection.views import to_detections
from maskwright.terminal import console

FIGURES = {"iou": "mask IoU", "boundary": "boundary IoU"}


@torch.inference_mode()
def pairs(file: Path, data: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield the found and the true mask (H, W) of every object, and how well their boxes agree."""
    detector = mw.load(file, device="cpu").detector
    assert isinstance(detector, TwoStageDetector)
    for batch in console.track(TASK.eval_loader(detector, data), file.stem):
        known, index = batch.targets, batch.indices[0]
        assert known.crowd is not None
        use = known.valid & ~known.crowd
        given = Instances(known.boxes, known.labels, use, torch.ones_like(known.boxes[..., 0]))
        (found,) = to_detections(
            detector.refine(batch.images, given), batch.images, detector.mask_reach
        )
        record = data[index]
        own = np.flatnonzero(~record.crowd)
        if not len(own):
            continue
        assert found.mask_probs is not None
        overlaps = box_iou(torch.as_tensor(record.boxes[own]).float(), found.boxes)
        masks = paste_masks(found.mask_probs, found.boxes, found.size, mode="grid")
        for k, overlap in zip(own.tolist(), overlaps, strict=True):
            best = int(overlap.argmax())
            goal = np.zeros(found.size, bool)
            crop, (x1, y1, x2, y2) = data.mask(index, k)
            goal[y1:y2, x1:x2] = crop
            yield np.asarray(masks[best], bool), goal, float(overlap[best])


def quality(file: Path, data: Dataset) -> dict[str, float]:
    """Return the mean IoUs of the masks and of their borders, in percent."""
    ious, borders, without = [], [], 0
    for found, goal, overlap in pairs(file, data):
        if overlap < 0.9:  # the object got no box of its own, so nothing was asked for it
            without += 1
            continue
        ious.append((found & goal).sum() / max((found | goal).sum(), 1))
        borders.append(boundary_iou(found, goal))
    if without:
        console.warn(f"{without} of {without + len(ious)} objects had no box of their own")
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
