"""Detectron's detectors a second time, in the plainest form, on its own blobs; and such blobs.

Written from what is known of its rules: blue first less the mean of Caffe, norms that are factor
and summand, boxes that count their last pixel, anchors in the middle of cells whose sides are
rounded before they are enlarged, by ratio and then by size, the older RoIAlign up to the last
pixel, the background first. `Traps` puts back what is easily got wrong.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from plain_mmdetection import last_pixel_nms
from torch import Tensor
from torchvision.ops import roi_align

Blobs = dict[str, Tensor]
LAST = {2: 2, 3: 3, 4: 5, 5: 2}  # block of each stage of a ResNet-50
BRANCH = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
HEADS = [
    (r"backbone\.fpn_lateral5", "fpn_inner_res5_2_sum"),
    *((rf"backbone\.fpn_lateral{n}", f"fpn_inner_res{n}_{LAST[n]}_sum_lateral") for n in LAST),
    *((rf"backbone\.fpn_output{n}", f"fpn_res{n}_{LAST[n]}_sum") for n in LAST),
    (r"proposal_generator\.rpn_head\.conv", "conv_rpn"),
    (r"proposal_generator\.rpn_head\.objectness_logits", "rpn_cls_logits"),
    (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn_bbox_pred"),
    (r"roi_heads\.box_head\.fc1", "fc6"),
    (r"roi_heads\.box_head\.fc2", "fc7"),
    (r"roi_heads\.box_predictor\.", ""),
    (r"roi_heads\.mask_head\.mask_fcn(\d)", r"_[mask]_fcn\1"),
    (r"roi_heads\.mask_head\.deconv", "conv5_mask"),
    (r"roi_heads\.mask_head\.predictor", "mask_fcn_logits"),
]


def as_blobs(state: Blobs) -> dict[str, Any]:
    """detectron2's tensors as Detectron has them: norms folded, the background first."""
    blobs: Blobs = {}
    pyramid = "backbone.fpn_lateral2.weight" in state
    for key, value in state.items():
        name, ending = key.rsplit(".", 1)
        body = re.sub(r"^(backbone\.(bottom_up\.)?|roi_heads\.(?=res5))", "", name)
        if re.match(r"(stem|res\d)\.", body):
            at = re.sub(r"(\w+)\.(\d+)\.(\w+)", lambda m: f"{m[1]}_{m[2]}_{BRANCH[m[3]]}", body)
            at = at.replace("stem.conv1", "res_conv1" if "norm" in at else "conv1")
            if not at.endswith(".norm"):
                blobs[f"{at}_w"] = value
            elif ending == "weight":
                one = {k: state[f"{name}.{k}"] for k in ("bias", "running_mean", "running_var")}
                scale = value / (one["running_var"] + 1e-5).sqrt()
                at = at.removesuffix(".norm") + "_bn"
                blobs[f"{at}_s"] = scale
                blobs[f"{at}_b"] = one["bias"] - one["running_mean"] * scale
            continue
        for pattern, theirs in HEADS:
            if re.match(pattern, name):
                name = re.sub(pattern, theirs, name)
                break
        if name in ("rpn_cls_logits", "rpn_bbox_pred"):  # by size and then by ratio there
            each = 4 if name == "rpn_bbox_pred" else 1
            value = value.unflatten(0, (-1, 3, each)).transpose(0, 1).flatten(0, 2)
        if "rpn" in name and pyramid:
            name += "_fpn2"
        if name == "cls_score":
            value = value.roll(1, 0)
        elif name in ("bbox_pred", "mask_fcn_logits"):
            extra = 4 if name == "bbox_pred" else 1
            value = torch.cat([torch.full_like(value[:extra], 7.0), value])
        blobs[f"{name}_{ending[0]}"] = value
    blobs["fc6_w_momentum"] = torch.zeros(2)
    return {key: value.numpy() for key, value in blobs.items()}


class Traps(NamedTuple):
    """What each rule would be if it were got wrong, one at a time."""

    divided: bool = False  # pixels by the deviation of ImageNet
    red_first: bool = False
    imagenet_mean: bool = False  # that of detectron2's files
    stride_in_3x3: bool = False
    size_outer: bool = False  # anchors of a cell
    exact: bool = False  # sides of anchors
    corner: bool = False  # anchors around the corner of cells
    aligned: bool = False
    samples: int | None = None
    whole: bool = False  # RoIAlign up to the end of the last pixel
    continuous: bool = False  # boxes end at their last pixel, which counts as a coordinate
    background_last: bool = False


def conv(blobs: Blobs, name: str, x: Tensor, norm: str = "", **options: Any) -> Tensor:
    """A convolution, and the factor and summand behind it."""
    if not norm:
        return F.conv2d(x, blobs[f"{name}_w"], blobs[f"{name}_b"], **options)
    x = F.conv2d(x, blobs[f"{name}_w"], None, **options)
    return x * blobs[f"{norm}_s"][:, None, None] + blobs[f"{norm}_b"][:, None, None]


def stage(blobs: Blobs, number: int, x: Tensor, stride: int, t: Traps) -> Tensor:
    i = 0
    while f"res{number}_{i}_branch2a_w" in blobs:
        at, step = f"res{number}_{i}_branch", stride if i == 0 else 1
        first, middle = (1, step) if t.stride_in_3x3 else (step, 1)
        y = F.relu(conv(blobs, f"{at}2a", x, f"{at}2a_bn", stride=first))
        y = F.relu(conv(blobs, f"{at}2b", y, f"{at}2b_bn", stride=middle, padding=1))
        y = conv(blobs, f"{at}2c", y, f"{at}2c_bn")
        skip = x if i else conv(blobs, f"{at}1", x, f"{at}1_bn", stride=step)
        x, i = F.relu(y + skip), i + 1
    return x


def cell_anchors(stride: int, sizes: tuple[int, ...], t: Traps) -> Tensor:
    """(A, 4) of the first cell, with their last pixels."""
    cells = []
    for ratio in (0.5, 1.0, 2.0):
        w = torch.tensor(stride**2 / ratio, dtype=torch.float64).sqrt()
        w = w if t.exact else w.round()
        h = w * ratio if t.exact else (w * ratio).round()
        for size in sizes:
            half_w, half_h = (0.5 * (float(side) * size / stride - 1) for side in (w, h))
            middle = -0.5 if t.corner else 0.5 * (stride - 1)
            cells.append([middle - half_w, middle - half_h, middle + half_w, middle + half_h])
    found = torch.tensor(cells)
    return found.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1) if t.size_outer else found


def decoded(deltas: Tensor, boxes: Tensor, weights: Any, size: Any, t: Traps) -> Tensor:
    one = 0 if t.continuous else 1
    side = boxes[:, 2:] - boxes[:, :2] + one
    middle = boxes[:, :2] + 0.5 * side + deltas[:, :2] / weights[0] * side
    most = float(torch.tensor(1000 / 16).log())
    grown = (deltas[:, 2:] / weights[1]).clamp(max=most)
    full = side * grown.exp()
    found = torch.cat([middle - 0.5 * full, middle + 0.5 * full - one], 1)
    return torch.stack([found[:, i].clamp(0, size[1 - i % 2] - one) for i in range(4)], 1)


def crops(levels: list[Tensor], boxes: Tensor, side: int, t: Traps) -> Tensor:
    """Regions from one map of stride 16, or from the four levels of a pyramid."""
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    level = (4 + (area.sqrt() / 224 + 1e-6).log2()).floor().clamp(2, 5) - 2
    first, samples = 4, 2
    if len(levels) == 1:
        level, first, samples = torch.zeros(len(boxes)), 16, 0
    samples = samples if t.samples is None else t.samples
    ends = torch.cat([boxes[:, :2], boxes[:, 2:] + t.whole], 1)
    found = boxes.new_zeros(len(boxes), levels[0].shape[1], side, side)
    for i, feature in enumerate(levels):
        own = level == i
        rois = torch.cat([torch.zeros(int(own.sum()), 1), ends[own]], 1)
        scale = 1 / first / 2**i
        found[own] = roi_align(feature, rois, side, scale, samples, aligned=t.aligned)
    return found


def detect(blobs: Blobs, pixels: Tensor, traps: Traps | None = None) -> tuple[Tensor, ...]:
    """Boxes with their last pixels, scores, labels, and masks if there is a head.

    Args:
        blobs: of a Faster or Mask R-CNN on a pyramid or C4.
        pixels: (3, H, W) RGB of the network's input, which is the photo.
        traps: what to get wrong.
    """
    t, size = traps or Traps(), tuple(pixels.shape[1:])
    fpn = "fpn_res2_2_sum_w" in blobs
    order = [0, 1, 2] if t.red_first else [2, 1, 0]
    mean = torch.tensor(
        [123.675, 116.28, 103.53] if t.imagenet_mean else [122.7717, 115.9465, 102.9801]
    )
    x = pixels[order] - mean[order, None, None]
    if t.divided:
        x = x / torch.tensor([58.395, 57.12, 57.375])[order, None, None]
    if fpn:
        x = F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))
    x = F.relu(conv(blobs, "conv1", x[None], "res_conv1_bn", stride=2, padding=3))
    x, maps = F.max_pool2d(x, 3, 2, 1), []
    for number in (2, 3, 4, 5) if fpn else (2, 3, 4):
        x = stage(blobs, number, x, 1 if number == 2 else 2, t)
        maps.append(x)
    levels = maps[-1:]
    if fpn:
        levels, above = [], None
        for n in (5, 4, 3, 2):
            name = f"fpn_inner_res{n}_{LAST[n]}_sum" + "_lateral" * (n < 5)
            inner = conv(blobs, name, maps[n - 2])
            above = inner if above is None else inner + F.interpolate(above, scale_factor=2.0)
            levels.insert(0, conv(blobs, f"fpn_res{n}_{LAST[n]}_sum", above, padding=1))
    found, scores, level_of = [], [], []
    every = [*levels, levels[-1][:, :, ::2, ::2]] if fpn else levels
    end = "_fpn2" if fpn else ""
    for i, level in enumerate(every):
        x = F.relu(conv(blobs, f"conv_rpn{end}", level, padding=1))
        logits = conv(blobs, f"rpn_cls_logits{end}", x)[0].permute(1, 2, 0).flatten()
        deltas = conv(blobs, f"rpn_bbox_pred{end}", x)[0].permute(1, 2, 0).reshape(-1, 4)
        stride = 4 * 2**i if fpn else 16
        cell = cell_anchors(stride, (32 * 2**i,) if fpn else (32, 64, 128, 256, 512), t)
        y, x_ = torch.meshgrid(*(torch.arange(n) for n in level.shape[2:]), indexing="ij")
        own = (torch.stack([x_, y, x_, y], -1).view(-1, 1, 4) * stride + cell).view(-1, 4)
        top, at = logits.topk(min(1000 if fpn else 6000, len(logits)))
        found.append(decoded(deltas[at], own[at], (1.0, 1.0), size, t))
        scores.append(top)
        level_of.append(torch.full((len(at),), i))
    box, score, of = torch.cat(found), torch.cat(scores), torch.cat(level_of)
    rois = box[last_pixel_nms(box, score, of, 0.7)[:1000]]
    if fpn:
        x = crops(levels, rois, 7, t).flatten(1)
        for name in ("fc6", "fc7"):
            x = F.relu(F.linear(x, blobs[f"{name}_w"], blobs[f"{name}_b"]))
    else:
        x = stage(blobs, 5, crops(levels, rois, 14, t), 2, t).mean((2, 3))
    probs = F.linear(x, blobs["cls_score_w"], blobs["cls_score_b"]).softmax(1)
    deltas = F.linear(x, blobs["bbox_pred_w"], blobs["bbox_pred_b"]).view(len(rois), -1, 4)
    probs, deltas = probs[:, 1:], deltas[:, 1:]
    if t.background_last:
        probs, deltas = probs.roll(1, 1), deltas.roll(1, 1)
    row, label = (probs > 0.05).nonzero(as_tuple=True)
    box = decoded(deltas[row, label], rois[row], (torch.tensor(10.0), 5.0), size, t)
    score = probs[row, label]
    keep = last_pixel_nms(box, score, label, 0.5)[:100]
    box, score, label = box[keep], score[keep], label[keep]
    if "mask_fcn_logits_w" not in blobs:
        return box, score, label
    x = crops(levels, box, 14, t)
    if not fpn:
        x = stage(blobs, 5, x, 2, t)
    for i in range(1, 5):
        if f"_[mask]_fcn{i}_w" in blobs:
            x = F.relu(conv(blobs, f"_[mask]_fcn{i}", x, padding=1))
    x = F.relu(F.conv_transpose2d(x, blobs["conv5_mask_w"], blobs["conv5_mask_b"], stride=2))
    masks = conv(blobs, "mask_fcn_logits", x).sigmoid()
    return box, score, label, masks[torch.arange(len(label)), label + 1]
