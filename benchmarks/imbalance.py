"""Which share of the class loss of a dense detector its easy negatives take, by four ways to count.

    python benchmarks/imbalance.py runs/train/train DATA [--split val] [--out imbalance.png]

The model is a trained RetinaNet. Its anchors are matched to the objects of the images as in
training, and the loss of each negative is looked at under

| way | what counts |
| --- | --- |
| cross-entropy | every anchor alike |
| focal | every anchor, by its weight (gamma 2, alpha 0.25) |
| OHEM | cross-entropy of the 256 of an image with the largest losses |
| hard negatives | cross-entropy of the positives and of three negatives for each |

The figure is that of Lin et al. 2017 (figure 4, right): the share of the loss of all negatives that
the easiest of them have together. The same weights serve all ways, so that what differs is the
counting alone, and not what was learned by it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import machine
from torch import Tensor

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.drawing.figures import colors, legend, new_figure, save_figure, style
from maskwright.nn.detection.dense.mining import MININGS
from maskwright.nn.ragged import gather_slots
from maskwright.ops.focal import one_hot_losses

# Focal loss or not, and which anchors count.
WAYS = {
    "cross-entropy": (None, "none"),
    "focal": (0.25, "none"),
    "OHEM": (None, "ohem"),
    "hard negatives": (None, "hard_negatives"),
}
EASY, HARD = 0.9, 0.01  # shares of the negatives that the table tells of


@torch.inference_mode()
def losses_of(predictor: mw.Predictor, data: str, split: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for each way the losses of all positives and of all negatives."""
    model, task = predictor.model, predictor.task
    dataset = open_dataset(data, split, **task.finding(model))
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in WAYS}
    for batch in task.eval_loader(model, dataset):
        images, targets = batch.images, batch.targets.with_a_slot()
        output = model.head(model.features(images), tuple(images.pixels.shape[2:]))
        logits, anchors = torch.cat(output.logits, 1), torch.cat(output.anchors)
        match = model.head.matcher(anchors, targets.boxes, targets.valid, targets.crowd)
        positive = match.state == 1
        labels = gather_slots(targets.labels, match.slot)
        for name, (alpha, mining) in WAYS.items():
            each = one_hot_losses(logits, labels, positive, alpha=alpha)
            counted = MININGS[mining](each, match.state, None)
            each = torch.where(counted, each, 0.0)
            found[name][0].append(each[positive])
            found[name][1].append(each[match.state == 0])
    return {name: (torch.cat(a), torch.cat(b)) for name, (a, b) in found.items()}


def shares(losses: Tensor) -> np.ndarray:
    """Return the share of the sum that the easiest have together, for each number of them."""
    ordered = losses.double().sort().values.cumsum(0)
    return (ordered / ordered[-1].clamp(min=1e-12)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, default=Path("imbalance.png"))
    args = parser.parse_args()
    predictor = mw.load(args.model, device="cpu")
    found = losses_of(predictor, args.data, args.split)
    positives, negatives = (len(part) for part in found["focal"])
    print(f"{machine()}\n\n{positives} positive and {negatives} negative anchors\n")
    print("| way | negatives that count | their share of the class loss ", end="")
    print(
        f"| the easiest {EASY:.0%} | the hardest {HARD:.0%} |\n| --- | ---: | ---: | ---: | ---: |"
    )
    figure = new_figure(5.2, 4.0)
    ax = figure.add_subplot()
    style(ax, "", "share of the negatives, the easiest first", "share of their loss")
    for (name, (ones, zeros)), color in zip(found.items(), colors(len(found)), strict=True):
        curve, count = shares(zeros), int((zeros > 0).sum())
        whole = float(zeros.sum() / (zeros.sum() + ones.sum()))
        easy = curve[int(EASY * len(curve)) - 1]
        hard = 1 - curve[int((1 - HARD) * len(curve)) - 1]
        print(f"| {name} | {count} | {whole:.3f} | {easy:.4f} | {hard:.3f} |")
        places = np.unique(np.linspace(0, len(curve) - 1, 2000).astype(int))
        ax.plot((places + 1) / len(curve), curve[places], color=color, lw=1.7, label=name)
    legend(ax)
    print(f"\n{save_figure(figure, args.out)}")


if __name__ == "__main__":
    main()
