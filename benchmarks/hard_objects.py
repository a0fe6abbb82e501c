"""Which objects detectors find: small ones, neighbours in one cell of a grid, long ones.

    python benchmarks/hard_objects.py DATA runs/compare/NAME/train/* [--cell 32] [--side 320]

DATA is a data set of boxes; the folders are those of trainings, as `maskwright compare` makes them,
MODEL-seedN, which hold what was found on the split val. A model takes so many of its best finds as
there are objects, all images together, so that precision and recall over all are one number. An
object is found if a find of its class has an IoU of 0.5 with it, each find counting for one.

| objects | which |
| --- | --- |
| small | the third of the smallest |
| cell shared | the centre of another object lies in the same cell of the network's input |
| long | one side is half as long again as the other, and more |
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskwright.data.discover import open_dataset
from maskwright.ops.boxes import box_iou, boxes_xywh_to_xyxy

LONG = 1.5
Row = dict[str, Any]


def groups(content: Row, cell: float, side: float) -> dict[str, np.ndarray]:
    """Return which annotations are of each kind."""
    rows = content["annotations"]
    boxes = np.array([row["bbox"] for row in rows], float)
    longest = {one["id"]: max(one["width"], one["height"]) for one in content["images"]}
    factors = np.array([side / longest[row["image_id"]] for row in rows])[:, None]
    centres = (boxes[:, :2] + boxes[:, 2:] / 2) * factors // cell
    cells = [(row["image_id"], *place) for row, place in zip(rows, centres.tolist(), strict=True)]
    many = defaultdict(int)
    for one in cells:
        many[one] += 1
    areas = (boxes[:, 2:] * factors).prod(1)
    ratios = boxes[:, 2:].max(1) / boxes[:, 2:].min(1).clip(1e-9)
    return {
        "all": np.ones(len(rows), bool),
        "small": areas <= np.quantile(areas, 1 / 3),
        "cell shared": np.array([many[one] > 1 for one in cells]),
        "long": ratios >= LONG,
    }


def recall(content: Row, finds: list[Row]) -> np.ndarray:
    """Return which annotations are found by the best finds, as many as there are annotations."""
    rows = content["annotations"]
    found = np.zeros(len(rows), bool)
    places = defaultdict(list)
    for index, row in enumerate(rows):
        places[row["image_id"], row["category_id"]].append(index)
    boxes = boxes_xywh_to_xyxy(torch.tensor([row["bbox"] for row in rows], dtype=torch.float64))
    for find in sorted(finds, key=lambda one: -one["score"])[: len(rows)]:
        near = [i for i in places[find["image_id"], find["category_id"]] if not found[i]]
        if near:
            box = boxes_xywh_to_xyxy(torch.tensor([find["bbox"]], dtype=torch.float64))
            best, at = box_iou(box, boxes[near])[0].max(0)
            if best >= 0.5:
                found[near[int(at)]] = True
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--cell", type=float, default=32, help="side, pixels of the network")
    parser.add_argument("--side", type=float, default=320, help="long side of the network's input")
    args = parser.parse_args()
    content = open_dataset(args.data, "val").to_coco(by_label=True)
    kinds = groups(content, args.cell, args.side)
    shares: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in args.runs:
        found = recall(content, json.loads((run / "detections.json").read_text()))
        shares[run.name.rpartition("-seed")[0] or run.name].append(
            {kind: 100 * float(found[which].mean()) for kind, which in kinds.items()}
        )
    heads = [f"{kind} ({which.sum()})" for kind, which in kinds.items()]
    print("| model | " + " | ".join(heads) + " |")
    print("| --- " * (len(kinds) + 1) + "|")
    for model, rows in shares.items():
        cells = []
        for kind in kinds:
            values = [row[kind] for row in rows]
            single = f" ({min(values):.0f} to {max(values):.0f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{single}")
        print(f"| {model} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
