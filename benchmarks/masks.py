"""Mask paste and run-length codes against torchvision's paste and pycocotools' encoder.

    python benchmarks/masks.py [--repeats 11]

100 smooth 28 x 28 masks on an 800 x 1216 image; the mode "torchvision" is checked to give the same
masks and codes before it is timed. Then mask targets for 128 RoIs against torchvision's RoIAlign
on full-size float masks.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Comparison, compare
from pycocotools import mask as coco
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from maskwright.ops import crop_masks, paste_masks, paste_rle
from maskwright.structures import PackedMasks

SIZE = (800, 1216)
# Smallest and largest side of the boxes.
SIDES = {"small, 16 to 100 px": (16, 100), "mixed, 16 to 600 px": (16, 600)}
SIDES["large, 300 to 800 px"] = (300, 800)


def draw_boxes(count: int, low: int, high: int) -> Tensor:
    """Return boxes with log-uniform sides, clipped to the image."""
    extent = torch.tensor([SIZE[1], SIZE[0]])
    half = low * (high / low) ** torch.rand(count, 2) / 2
    centre = torch.rand(count, 2) * extent
    boxes = torch.cat([centre - half, centre + half], 1).clamp(min=0)
    return torch.minimum(boxes, extent.repeat(2))


def torchvision_paste(probs: Tensor, boxes: Tensor) -> Tensor:
    return paste_masks_in_image(probs[:, None], boxes, SIZE)[:, 0] > 0.5


def torchvision_rle(probs: Tensor, boxes: Tensor) -> list[dict[str, Any]]:
    full = torchvision_paste(probs, boxes).numpy().view(np.uint8)
    return [coco.encode(np.asfortranarray(mask)) for mask in full]


def compare_paste(title: str, low: int, high: int, repeats: int) -> list[Comparison]:
    torch.manual_seed(0)
    boxes = draw_boxes(100, low, high)
    coarse = torch.rand(100, 1, 5, 5)
    probs = F.interpolate(coarse, size=(28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    args = (probs, boxes)
    want = torchvision_paste(*args)
    assert torch.equal(paste_masks(*args, SIZE, mode="torchvision"), want)
    assert paste_rle(*args, SIZE, mode="torchvision") == torchvision_rle(*args)
    rows = []
    for mode in ("torchvision", "grid"):

        def ours_rle(mode: str = mode) -> Any:
            return paste_rle(*args, SIZE, mode=mode)

        def ours_masks(mode: str = mode) -> Any:
            return paste_masks(*args, SIZE, mode=mode)

        rle, masks = (lambda: torchvision_rle(*args)), (lambda: torchvision_paste(*args))
        name = f"codes, {title}, {mode}"
        rows.append(compare(name, rle, ours_rle, repeats=repeats, warmup=1))
        name = f"bool masks, {title}, {mode}"
        rows.append(compare(name, masks, ours_masks, repeats=repeats, warmup=1))
    return rows


def compare_targets(title: str, low: int, high: int, repeats: int) -> Comparison:
    torch.manual_seed(0)
    boxes = draw_boxes(32, low, high)
    frames = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long()
    crops = [torch.rand(int(y2 - y1), int(x2 - x1)) > 0.3 for x1, y1, x2, y2 in frames]
    full = torch.zeros(32, 1, *SIZE)
    for mask, crop, (x1, y1, x2, y2) in zip(full, crops, frames.tolist(), strict=True):
        mask[0, y1:y2, x1:x2] = crop
    lengths = torch.tensor([0] + [crop.numel() for crop in crops[:-1]]).cumsum(0)
    data = torch.cat([crop.flatten() for crop in crops]).to(torch.uint8)
    packed = PackedMasks(data, lengths[None], frames[None])
    index = torch.arange(32).repeat(4)
    rois = boxes[index] + torch.randn(128, 4) * 2
    sizes, valid = torch.tensor([SIZE]), torch.ones(1, 128, dtype=torch.bool)

    def theirs() -> Tensor:
        return roi_align(full, torch.cat([index[:, None], rois], 1), 28, 1.0, -1, True)[:, 0]

    def ours() -> Tensor:
        return crop_masks(packed, rois[None], index[None], valid, 28, image_sizes=sizes)[0]

    torch.testing.assert_close(ours(), theirs(), rtol=0, atol=1e-4)
    return compare(f"targets, {title}", theirs, ours, repeats=repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    rows = []
    for title, sides in SIDES.items():
        rows += compare_paste(title, *sides, repeats)
    for title, sides in SIDES.items():
        rows.append(compare_targets(title, *sides, repeats))
    print("| what | torchvision, ms | maskwright, ms | ratio |\n| --- | --- | --- | --- |")
    for row in rows:
        times = f"{row.baseline.median:.1f} | {row.ours.median:.1f}"
        print(f"| {row.title} | {times} | {row.ratio:.1f} |")


if __name__ == "__main__":
    main()
