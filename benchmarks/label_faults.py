"""How many planted faults of labels `data check model=` puts at the top of its list.

    python benchmarks/label_faults.py MODEL DATA [--split val] [--share 0.05] [--seeds 3]

MODEL is a checkpoint, a run folder or a registered name with trained weights; DATA is a data set of
objects, of images that the model was not trained on. Of its labels a share is taken away, as many
are moved by a quarter to a half of their size, as many get another class where there are several,
and as many are copied to where no label is. With n faults in all, the table says which
share of each kind stands among the first n / 2, n and 2 n of the list; as labels have faults of
their own, not all that stands there besides is wrong.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.metrics.detection.entries import compressed_rle
from maskwright.prediction.label_check import check_labels
from maskwright.tasks.label_check import Suspect

Row = dict[str, Any]
TRIES = 200  # places that are tried for a false label


def iou(a: Any, b: Any) -> float:
    """Return the IoU of two boxes, xyxy."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return both / max(sum(areas) - both, 1e-9)


def corners(row: Row) -> np.ndarray:
    """Return the box of an annotation, xyxy."""
    x, y, w, h = row["bbox"]
    return np.array([x, y, x + w, y + h], float)


def moved(row: Row, image: Row, dx: int, dy: int) -> Row:
    """Return an annotation moved by whole pixels; what leaves the image is cut off."""
    from pycocotools import mask as rle

    new = {**row, "bbox": [row["bbox"][0] + dx, row["bbox"][1] + dy, *row["bbox"][2:]]}
    if row.get("segmentation"):
        mask = rle.decode(compressed_rle(row["segmentation"], image))
        height, width = mask.shape
        whole = np.pad(mask, ((abs(dy),) * 2, (abs(dx),) * 2))
        part = whole[abs(dy) - dy :, abs(dx) - dx :][:height, :width]
        code = rle.encode(np.asfortranarray(part))
        new["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        new["bbox"], new["area"] = rle.toBbox(code).tolist(), int(part.sum())
    return new


def plant(content: Row, share: float, rng: np.random.Generator) -> tuple[Row, list[Row]]:
    """Return annotations with faults, and each fault with its kind, image and label or box."""
    content = copy.deepcopy(content)
    images = {image["id"]: image for image in content["images"]}
    rows: list[Row] = [row for row in content["annotations"] if not row.get("iscrowd")]
    crowds = [row for row in content["annotations"] if row.get("iscrowd")]
    kinds = ["missing", "place", "false"]
    classes = [category["id"] for category in content["categories"]]
    kinds += ["class"] * (len(classes) > 1)
    count = max(round(share * len(rows)), 1)
    picked = rng.permutation(len(rows))[: count * len(kinds)].reshape(len(kinds), -1)
    faults, gone = [], set()
    new = max(row["id"] for row in rows) + 1
    for kind, places in zip(kinds, picked.tolist(), strict=True):
        for place in places:
            row = rows[place]
            image = images[row["image_id"]]
            if kind == "missing":
                gone.add(place)
                faults.append({"kind": kind, "image": row["image_id"], "box": corners(row)})
                continue
            if kind == "class":
                row["category_id"] = int(
                    rng.choice([c for c in classes if c != row["category_id"]])
                )
            elif kind == "place":
                by = rng.uniform(0.25, 0.5, 2) * row["bbox"][2:] * rng.choice([-1, 1], 2)
                shift = np.rint(by).astype(int)
                shift = np.where(shift == 0, 1, shift)
                rows[place] = moved(row, image, int(shift[0]), int(shift[1]))
                if not rows[place]["area"]:
                    rows[place] = row
                    continue
            else:
                others = [corners(r) for r in rows if r["image_id"] == row["image_id"]]
                free = _free(row, image, others, rng)
                if free is None:
                    continue
                row = {**moved(row, image, *free), "id": new}
                rows.append(row)
                new += 1
            faults.append({"kind": kind, "image": row["image_id"], "id": row["id"]})
    kept = [row for place, row in enumerate(rows) if place not in gone]
    return {**content, "annotations": [*kept, *crowds]}, faults


def _free(
    row: Row, image: Row, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return how far to move a label to where no other one is; None: no place was found."""
    x, y, w, h = row["bbox"]
    for _ in range(TRIES):
        left = rng.uniform(0, max(image["width"] - w, 0))
        top = rng.uniform(0, max(image["height"] - h, 0))
        box = np.array([left, top, left + w, top + h])
        if all(iou(box, other) == 0 for other in others):
            return round(left - x), round(top - y)
    return None


def rank(fault: Row, suspects: list[Suspect], ids: list[int]) -> float:
    """Return where a fault stands in the list, from 0; infinity: nowhere."""
    for place, one in enumerate(suspects):
        if fault["kind"] != "missing":
            if one.annotation == fault["id"]:
                return place
        elif one.kind == "missing" and ids[one.index] == fault["image"]:
            assert one.found_box is not None
            if iou(np.array(one.found_box), fault["box"]) >= 0.5:
                return place
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="checkpoint, run folder or registered name")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels, by kind of fault")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--skip", type=int, default=0, help="images at the beginning")
    parser.add_argument("--images", type=int, default=0, help="that are taken then; 0: all")
    parser.add_argument("--max-det", type=int, default=100)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    predictor = mw.load(args.model, device=args.device)
    data = open_dataset(args.data, args.split)
    content = data.to_coco(by_label=True)
    if args.images or args.skip:
        content["images"] = content["images"][args.skip :][: args.images or None]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    shares: dict[tuple[str, float], list[float]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    for seed in range(args.seeds):
        changed, faults = plant(content, args.share, np.random.default_rng(seed))
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            (root / "annotations").mkdir()
            (root / "annotations" / f"{args.split}.json").write_text(json.dumps(changed))
            (root / "images").mkdir()
            (root / "images" / args.split).symlink_to(data.root.resolve(), True)
            options = {"conf": 0.0, "max_det": args.max_det, "workers": 0}
            found = check_labels(predictor, root, split=args.split, **options).suspects
        ids = [image["id"] for image in changed["images"]]
        ranks = [(fault["kind"], rank(fault, found, ids)) for fault in faults]
        for kind in ("all", *dict.fromkeys(kind for kind, _ in ranks)):
            own = np.array([place for name, place in ranks if kind in ("all", name)])
            numbers[kind] += len(own)
            for part in (0.5, 1, 2):
                shares[kind, part].append(float((own < part * len(faults)).mean()))
    print(f"{args.model} on {args.data}, {args.split}: {len(content['images'])} images, ", end="")
    print(f"{len(content['annotations'])} labels, {args.seeds} seeds, torch {torch.__version__}; ")
    print(f"{machine()}\n\n| fault | planted | first n / 2 | first n | first 2 n |")
    print("| --- | --- | --- | --- | --- |")
    for kind, planted in numbers.items():
        cells = (shares[kind, part] for part in (0.5, 1, 2))
        text = (f"{np.mean(cell):.0%} ({min(cell):.0%} to {max(cell):.0%})" for cell in cells)
        print(f"| {kind} | {planted / args.seeds:.0f} | {' | '.join(text)} |")


if __name__ == "__main__":
    main()
