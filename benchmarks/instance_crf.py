"""Dense CRF on the masks of objects: boundary AP with and without, in pairs of the same detections.

    python benchmarks/instance_crf.py FOLDER_OF_NUCLEI [--model nuclei] [--out rows.json]

The appearance and the smoothness kernel are searched on some training images by boundary AP. Then
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

import maskwright as mw
from maskwright.crf import Bilateral, Gaussian
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.metrics.detection.coco_map import coco_eval
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

    def score(self, rows: Sequence[Rows], kind: str, chosen: Sequence[int] | None = None) -> float:
        """Return the AP of some of the images, each as often as it is named, in percent."""
        images, objects, results = [], [], []
        for number, k in enumerate(range(len(self.images)) if chosen is None else chosen, 1):
            images.append({**self.images[k], "id": number})
            objects += [{**ann, "image_id": number} for ann in self.objects[k]]
            results += [{**row, "image_id": number} for row in rows[k]]
        objects = [{**ann, "id": number} for number, ann in enumerate(objects, 1)]
        results = [{k: v for k, v in row.items() if k != "bbox"} for row in results]
        gt = {"images": images, "annotations": objects, "categories": self.categories}
        return 100 * coco_eval(gt, results, kind, max_det=MOST)["AP"]


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
    parser.add_argument("--draws", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    args = parser.parse_args()
    predictor = mw.load(args.model, device="cpu")
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
            drawn = np.array([part.score(rows[side], code, one) for one in draws])
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
