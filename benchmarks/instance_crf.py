"""Dense CRF on the masks of objects: boundary AP with and without, in pairs of the same detections.

    python benchmarks/instance_crf.py DATA [--model nuclei] [--no-search] [--out rows.json]

DATA is a data set of objects with masks, such as nuclei, with the splits train and val. The
appearance and the smoothness kernel are searched on some training images by boundary AP. Then
some validation images, which the search has not seen, are scored without a CRF and with the best
one; the interval of 95 % of the difference is by bootstrap over images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from pycocotools import mask as rle

import maskwright as mw
from maskwright.crf import Bilateral, Gaussian
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.metrics import boundary_iou
from maskwright.metrics.detection.coco_map import coco_eval
from maskwright.metrics.detection.evaluator import COCO_IOUS
from maskwright.structures import Detections
from maskwright.tasks.crf import CrfSettings
from maskwright.tasks.detection.crf import USUAL, refined
from maskwright.tasks.detection.evaluate import match_classes, to_coco_rows
from maskwright.terminal import console

KINDS = {"mask AP": "segm", "boundary AP": "boundary"}
CONF, MOST = 0.3, 500
SMOOTH = (Gaussian(1, 1), Gaussian(3, 3))
WEIGHTS, SXY, SRGB = (1.0, 3.0), (3.0, 10.0), (3.0, 8.0, 20.0)
Rows = list[dict[str, Any]]
Matches = tuple[np.ndarray, np.ndarray, int]  # scores, which are right at each IoU, objects


class Part:
    """Some images of a data set with what a model finds in them.

    Args:
        predictor: the model.
        data: the data set.
        count: how many images, drawn with seed 0.
    """

    def __init__(self, predictor: mw.Predictor, data: Dataset, count: int) -> None:
        chosen = np.random.default_rng(0).permutation(len(data))[:count].tolist()
        self.mode = predictor.detector.paste_mode
        self.labels = match_classes(predictor.meta.names, data.names)
        self.photos = [data.image(index) for index in chosen]
        self.found: list[Detections] = [
            predictor(photo, conf=CONF, max_det=MOST).detections for photo in self.photos
        ]
        whole = data.to_coco(by_label=True)
        self.categories = whole["categories"]
        ids = [data[index].image_id for index in chosen]
        images = {image["id"]: image for image in whole["images"]}
        self.images = [images[one] for one in ids]
        self.objects: list[Rows] = [
            [ann for ann in whole["annotations"] if ann["image_id"] == one] for one in ids
        ]

    def rows(self, crf: CrfSettings | None) -> list[Rows]:
        """Return the COCO results of each image."""
        found = self.found
        if crf is not None:
            pairs = zip(self.found, self.photos, strict=True)
            found = [refined(one, photo, crf, mode=self.mode) for one, photo in pairs]
        return [to_coco_rows(one, 0, self.labels, self.mode) for one in found]

    def score(self, rows: Sequence[Rows], kind: str) -> float:
        """Return COCO's AP of results by image, in percent."""
        gt = {"images": self.images, "annotations": [], "categories": self.categories}
        results: Rows = []
        for image, objects, found in zip(self.images, self.objects, rows, strict=True):
            gt["annotations"] += objects
            results += [
                {k: v for k, v in {**row, "image_id": image["id"]}.items() if k != "bbox"}
                for row in found
            ]
        return 100 * coco_eval(gt, results, kind, max_det=MOST)["AP"]

    def matches(self, rows: Sequence[Rows], kind: str) -> list[Matches]:
        """Return what is right in each image, as COCO matches it: the best score chooses first."""
        made = []
        for objects, found in zip(self.objects, rows, strict=True):
            assert not any(ann["iscrowd"] for ann in objects)
            scores = np.array([row["score"] for row in found])
            order = np.argsort(-scores, kind="mergesort")
            right = np.zeros((len(COCO_IOUS), len(found)), bool)
            if len(found) and objects:
                ious = overlaps(found, objects, kind)[order]
                for at, least in zip(right, COCO_IOUS, strict=True):
                    free = np.ones(len(objects), bool)
                    for d, row in enumerate(ious):
                        best = len(row) - 1 - int(np.where(free, row, -1)[::-1].argmax())
                        if free[best] and row[best] >= least:
                            at[d], free[best] = True, False
            made.append((scores[order], right, len(objects)))
        return made


def overlaps(found: Rows, objects: Rows, kind: str) -> np.ndarray:
    """Return the IoU (D, G) of masks, for "boundary" no more than that of their edges."""
    codes = [[one["segmentation"] for one in side] for side in (found, objects)]
    ious = np.asarray(rle.iou(*codes, [0] * len(objects)))
    if kind == "boundary":
        masks = [[rle.decode(code).astype(bool) for code in side] for side in codes]
        for d, g in np.argwhere(ious >= COCO_IOUS[0]):
            ious[d, g] = min(ious[d, g], boundary_iou(masks[0][d], masks[1][g]))
    return ious


def average_precision(parts: Sequence[Matches]) -> float:
    """Return the AP over images, in percent: by 101 points, the mean over COCO's IoUs."""
    order = np.argsort(-np.concatenate([scores for scores, _, _ in parts]), kind="mergesort")
    right = np.concatenate([one for _, one, _ in parts], 1)[:, order].cumsum(1)
    recall = right / sum(count for _, _, count in parts)
    precision = right / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    precision = np.pad(precision, ((0, 0), (0, 1)))
    points = np.linspace(0, 1, 101)
    pairs = zip(precision, recall, strict=True)
    return 100 * float(np.mean([p[np.searchsorted(r, points)] for p, r in pairs]))


def search(part: Part) -> tuple[CrfSettings, Rows]:
    """Return the CRF of the best boundary AP, and all that were tried, the best first."""
    places = [
        CrfSettings(near, Bilateral(sxy, srgb, weight), USUAL.iterations)
        for near, sxy, srgb, weight in product(SMOOTH, SXY, SRGB, WEIGHTS)
    ]
    tried = [
        (part.score(part.rows(crf), "boundary"), crf) for crf in console.track(places, "search")
    ]
    tried.sort(key=lambda pair: -pair[0])
    numbers = [{"crf": named(crf), "boundary AP": score} for score, crf in tried]
    alone = part.score(part.rows(None), "boundary")
    return tried[0][1], [{"crf": "none", "boundary AP": alone}, *numbers]


def named(crf: CrfSettings) -> str:
    """Return parameters in words."""
    (near, smooth), (sxy, srgb, weight) = crf.gaussian, crf.bilateral
    return f"smoothness {smooth:g} at {near:g} px, appearance {weight:g},{sxy:g},{srgb:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--train", type=int, default=6, help="training images of the search")
    parser.add_argument("--val", type=int, default=30, help="images that are scored")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--no-search", action="store_true", help="take that of crf=true")
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    args = parser.parse_args()
    predictor = mw.load(args.model, device="cpu")
    if args.no_search:
        best, trials = USUAL, []
    else:
        best, trials = search(Part(predictor, open_dataset(args.data, "train"), args.train))
    for trial in trials[:6]:
        print(f"{trial['crf']}: {trial['boundary AP']:.2f}", flush=True)
    part = Part(predictor, open_dataset(args.data, "val"), args.val)
    sides = {"none": None, named(best): best}
    rows = {side: part.rows(crf) for side, crf in sides.items()}
    draws = np.random.default_rng(1).integers(args.val, size=(args.draws, args.val)).tolist()
    table: Rows = []
    print("| CRF | " + " | ".join(f"{kind} | gain" for kind in KINDS) + " |")
    print("| --- |" + " --- |" * (2 * len(KINDS)))
    base: dict[str, np.ndarray] = {}
    for side in sides:
        row: dict[str, Any] = {"crf": side}
        for kind, code in KINDS.items():
            row[kind] = part.score(rows[side], code)
            found = part.matches(rows[side], code)
            assert abs(average_precision(found) - row[kind]) < 1e-6  # counted twice
            drawn = np.array([average_precision([found[k] for k in one]) for one in draws])
            apart = drawn - base.setdefault(kind, drawn)
            row[f"{kind}, gain"] = row[kind] - (table[0] if table else row)[kind]
            row[f"{kind}, interval"] = np.quantile(apart, (0.025, 0.975)).tolist()
        table.append(row)
        cells = [
            f"{row[kind]:.2f} | {row[f'{kind}, gain']:+.2f} "
            f"({row[f'{kind}, interval'][0]:+.2f} to {row[f'{kind}, interval'][1]:+.2f})"
            for kind in KINDS
        ]
        print(f"| {side} | " + " | ".join(cells) + " |", flush=True)
    if args.out is not None:
        content = {"machine": machine(), "search": trials, "rows": table}
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
