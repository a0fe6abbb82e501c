"""NMS against torchvision: class by class, and padded output that stops early.

    python benchmarks/nms.py [--repeats 11]

Random boxes on an 800 x 1216 image, scores without ties. Before it is timed, every case is checked
to keep the same boxes.
"""

from __future__ import annotations

import argparse

import torch
from common import Comparison, compare
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from maskwright.ops import batched_nms, nms_padded

# What it stands for, candidates, classes, threshold, wanted.
CASES = [
    ("proposals, 5 levels", 4_500, 5, 0.7, 1000),
    ("detections, 80 classes", 1_000, 80, 0.5, 100),
    ("detections, 80 classes", 4_096, 80, 0.5, 100),
    ("detections, 80 classes", 20_000, 80, 0.5, 100),
    ("detections, 80 classes", 88_000, 80, 0.5, 100),
    ("one class", 4_096, 1, 0.5, 100),
]


def per_class(boxes: Tensor, scores: Tensor, labels: Tensor, thresh: float, wanted: int) -> Tensor:
    """Run torchvision's kernel class by class, as its own `batched_nms` does for many boxes."""
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for label in labels.unique():
        at = torch.where(labels == label)[0]
        kept[at[torchvision_nms(boxes[at], scores[at], thresh)]] = True
    position = torch.where(kept)[0]
    return position[scores[position].argsort(stable=True, descending=True)][:wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    rows: list[tuple[str, str, Comparison]] = []
    for what, count, classes, thresh, wanted in CASES:
        torch.manual_seed(count)
        centre = torch.rand(count, 2) * torch.tensor([1216, 800])
        half = torch.rand(count, 2) * 75 + 3
        boxes, scores = torch.cat([centre - half, centre + half], 1), torch.rand(count)
        labels = torch.randint(0, classes, (count,))
        valid = torch.ones(1, count, dtype=torch.bool)
        args = (boxes, scores, labels, thresh)

        def ragged(args: tuple = args) -> Tensor:
            return batched_nms(*args)

        def padded(args: tuple = args, valid: Tensor = valid, wanted: int = wanted) -> Tensor:
            boxes, scores, labels, thresh = args
            index, filled = nms_padded(
                boxes[None], scores[None], valid, thresh, wanted, labels=labels[None]
            )
            return index[0][filled[0]]

        def torchvision_all(args: tuple = args, count: int = count) -> Tensor:
            return per_class(*args, count)

        assert torch.equal(torchvision_all(), ragged())
        assert torch.equal(torchvision_all()[:wanted], padded())
        title = f"{what}, {count:,} boxes"
        rows.append((title, "all", compare("", torchvision_all, ragged, repeats=repeats)))
        rows.append(
            (title, f"best {wanted}", compare("", torchvision_all, padded, repeats=repeats))
        )
    print("| case | kept | torchvision, ms | maskwright, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for title, kept, row in rows:
        times = f"{row.baseline.median:.1f} | {row.ours.median:.1f}"
        print(f"| {title} | {kept} | {times} | {row.ratio:.1f} |")


if __name__ == "__main__":
    main()
