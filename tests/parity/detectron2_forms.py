"""Narrow detectors by detectron2's rules whose weights are anything, and a picture for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from plain_detectron2 import SIZES
from torch import Tensor

from maskwright.converters.detectron2 import from_maskwright
from maskwright.models import build
from maskwright.nn.norm import FrozenBatchNorm2d
from maskwright.structures import Images

SINGLE = {"conventions": "detectron2", "rpn_width": 24, "anchor_sizes": SIZES, "proposals": 1000}
PYRAMID = {"conventions": "detectron2", "width": 16, "box_width": 32}
BASELINE = {
    **PYRAMID, "norm": "bn", "fpn_norm": "bn", "head_norm": "bn", "rpn_convs": 2, "box_convs": 4,
    "box_fcs": 1,
}  # fmt: skip
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "c4": ("mask_rcnn_resnet50_c4", SINGLE),
    "dc5": ("mask_rcnn_resnet50_dc5", {**SINGLE, "box_width": 16}),
    "fpn": ("mask_rcnn_resnet50_fpn", PYRAMID),
    "baseline": ("mask_rcnn_resnet50_fpn", BASELINE),
    "keypoints": (
        "keypoint_rcnn_resnet50_fpn",
        {**PYRAMID, "num_keypoints": 5, "keypoint_convs": 2, "keypoint_width": 16},
    ),
}
# By mmdetection's rules, under detectron2's names.
MORE = {"mmdetection": ("mask_rcnn_resnet50_fpn", {**PYRAMID, "conventions": "mmdetection"})}
SIZE = (44, 60)  # not multiples of 32


def photo(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth picture, of which no part is like another."""
    y, x = np.mgrid[: size[0], : size[1]] / 90
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x), np.sin(11 * x * y + 2)]
    return (np.stack(waves, -1) * 110 + 128).astype(np.uint8)


def as_images(pixels: Tensor, divisor: int) -> Images:
    height, width = pixels.shape[1:]
    full = torch.zeros(1, 3, height + -height % divisor, width + -width % divisor)
    full[0, :, :height, :width] = pixels
    size = torch.tensor([[height, width]])
    return Images(full, size, size)


@cache
@torch.no_grad()
def lively(form: str) -> Any:
    """A model by detectron2's rules whose weights and statistics are anything."""
    name, options = {**FORMS, **MORE}[form]
    torch.manual_seed(5)
    made = build(name, 1 if form == "keypoints" else 3, **options).eval()
    for layer in made.modules():
        if isinstance(layer, FrozenBatchNorm2d | torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.6, 1.2)
            layer.bias.normal_(std=0.2)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.3, 1.0)
    made.backbone.body.conv1.weight /= 60  # pixels are not divided
    images = as_images(torch.from_numpy(photo()).permute(2, 0, 1).float(), made.size_divisor)
    if made.fpn is not None:
        for level, feature in zip(made.fpn.output, made.features(images), strict=False):
            level[0].weight /= feature.std()
            if len(level) == 1:
                level[0].bias.normal_()
            else:
                level[1].running_var /= 4
    else:
        made.rpn.convs[0].weight /= made.features(images)[0].std()
    out = made.rpn(made.features(images))
    for layer, values, spread in (
        (made.rpn.logits, out.logits, 2),
        (made.rpn.deltas, out.deltas, 0.3),
    ):
        layer.weight *= spread / torch.cat([v.flatten() for v in values]).std()
    for _ in range(2):  # by what the heads see
        box = made.roi_heads.box_head
        seen = made.roi_heads.judge(
            made.features(images),
            made.rpn.propose(made.rpn(made.features(images)), images),
            images.sizes,
            made.trunk,
        )
        box.deltas.weight *= 1.0 / seen[1].std()
    taken: list[Tensor] = []
    hook = box.logits.register_forward_hook(lambda _, __, y: taken.append(y))
    made(images)
    hook.remove()
    box.logits.weight *= 1.5 / (taken[0] - taken[0].mean(0)).std()
    box.logits.bias -= (taken[0].mean(0)) * 1.5 / (taken[0] - taken[0].mean(0)).std()
    return made


@cache
def theirs(form: str) -> dict[str, Tensor]:
    made = lively(form)
    return from_maskwright(made.state_dict(), {}, list(range(1, made.num_classes + 1)))[0]
