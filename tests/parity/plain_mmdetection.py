"""mmdetection's detectors a second time, in the plainest form, on its own tensors.

RetinaNet and SSD of its versions 2 and 3, and what version 1 does with boxes that count their last
pixel. Written from what is known of its rules; `Traps` puts back what is easily got wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import plain_detectron2 as d2
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

Params = dict[str, Tensor]
BOUND = torch.tensor(1000 / 16).log()


class Traps(NamedTuple):
    """What each rule would be if it were got wrong, one at a time."""

    relu: bool = False  # between P6 and P7
    size_outer: bool = False  # anchors of a cell
    rounded: bool = False
    half_cell: bool = False  # anchors of RetinaNet in the middle of cells, of SSD at their corner
    clip_last: bool = False
    background_first: bool = False
    unit_norm: bool = True  # of SSD's first map
    long_first: bool = False  # default boxes of SSD: the standing one before the lying one


def conv(state: Params, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def norm(state: Params, name: str, x: Tensor) -> Tensor:
    kinds = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{kind}"] for kind in kinds), eps=1e-5)


def resnet(state: Params, x: Tensor) -> list[Tensor]:
    """C2 to C5; the stride lies in the 3x3."""
    x = F.relu(norm(state, "backbone.bn1", conv(state, "backbone.conv1", x, stride=2, padding=3)))
    x, maps = F.max_pool2d(x, 3, 2, 1), []
    for stage in range(1, 5):
        i = 0
        while f"backbone.layer{stage}.{i}.conv1.weight" in state:
            at, step = f"backbone.layer{stage}.{i}.", 2 if i == 0 and stage > 1 else 1
            y = F.relu(norm(state, f"{at}bn1", conv(state, f"{at}conv1", x)))
            y = conv(state, f"{at}conv2", y, stride=step, padding=1)
            y = conv(state, f"{at}conv3", F.relu(norm(state, f"{at}bn2", y)))
            y = norm(state, f"{at}bn3", y)
            if i == 0:
                x = norm(
                    state, f"{at}downsample.1", conv(state, f"{at}downsample.0", x, stride=step)
                )
            x, i = F.relu(x + y), i + 1
        maps.append(x)
    return maps


def decoded(deltas: Tensor, anchors: Tensor, std: tuple[float, float]) -> Tensor:
    """Boxes of deltas that are multiplied by a deviation, dw and dh bounded on both sides."""
    side = anchors[:, 2:] - anchors[:, :2]
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[:, :2] * std[0] * side
    grown = (deltas[:, 2:] * std[1]).clamp(-BOUND, BOUND)
    half = side * grown.exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.stack([boxes[:, i].clamp(0, (width, height)[i % 2]) for i in range(4)], 1)


def grid(cell: Tensor, stride: float, height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shift = torch.stack([x, y, x, y], -1).view(-1, 1, 4) * stride
    return (shift + cell).view(-1, 4)


def around(sides: list[tuple[float, float]], middle: float = 0.0) -> Tensor:
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides]) + middle


def retinanet(state: Params, pixels: Tensor, traps: Traps | None = None) -> tuple[Tensor, ...]:
    """Boxes, scores and labels of (3, H, W) RGB."""
    t, size = traps or Traps(), tuple(pixels.shape[1:])
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    x = F.pad(
        (pixels - mean[:, None, None]) / std[:, None, None], (0, -size[1] % 32, 0, -size[0] % 32)
    )
    c3, c4, c5 = resnet(state, x[None])[1:]
    levels, above = [], None
    for i, c in ((2, c5), (1, c4), (0, c3)):
        inner = conv(state, f"neck.lateral_convs.{i}.conv", c)
        above = inner if above is None else inner + F.interpolate(above, size=inner.shape[2:])
        levels.insert(0, conv(state, f"neck.fpn_convs.{i}.conv", above, padding=1))
    levels.append(conv(state, "neck.fpn_convs.3.conv", c5, stride=2, padding=1))
    p6 = F.relu(levels[-1]) if t.relu else levels[-1]
    levels.append(conv(state, "neck.fpn_convs.4.conv", p6, stride=2, padding=1))
    boxes, scores, labels = [], [], []
    for i, level in enumerate(levels):
        a = b = level
        k = 0
        while f"bbox_head.cls_convs.{k}.conv.weight" in state:
            a = F.relu(conv(state, f"bbox_head.cls_convs.{k}.conv", a, padding=1))
            b = F.relu(conv(state, f"bbox_head.reg_convs.{k}.conv", b, padding=1))
            k += 1
        logits = conv(state, "bbox_head.retina_cls", a, padding=1)
        classes = logits.shape[1] // 9
        probs = logits[0].permute(1, 2, 0).reshape(-1, classes).sigmoid()
        deltas = (
            conv(state, "bbox_head.retina_reg", b, padding=1)[0].permute(1, 2, 0).reshape(-1, 4)
        )
        stride = 8 * 2**i
        ratios, octaves = (0.5, 1.0, 2.0), [4 * stride * 2 ** (k / 3) for k in range(3)]
        pairs = [(r, s) for r in ratios for s in octaves]
        if t.size_outer:
            pairs = [(r, s) for s in octaves for r in ratios]
        cell = around([(s / r**0.5, s * r**0.5) for r, s in pairs], stride / 2 * t.half_cell)
        anchors = grid(cell.round() if t.rounded else cell, stride, *level.shape[2:])
        row, label = (probs > 0.05).nonzero(as_tuple=True)
        top, order = probs[row, label].sort(descending=True)
        row, label = row[order][:1000], label[order][:1000]
        found = decoded(deltas[row], anchors[row], (1.0, 1.0))
        boxes.append(found if t.clip_last else clipped(found, size))
        scores.append(top[:1000])
        labels.append(label)
    box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    keep = batched_nms(box, score, label, 0.5)[:100]
    return clipped(box[keep], size), score[keep], label[keep]


def ssd300(state: Params, pixels: Tensor, traps: Traps | None = None) -> tuple[Tensor, ...]:
    """Boxes, scores and labels of (3, 300, 300) RGB."""
    t = traps or Traps()
    x = (pixels - torch.tensor([123.675, 116.28, 103.53])[:, None, None])[None]
    at, maps = 0, []
    for count, ceil in ((2, False), (2, False), (3, True), (3, False), (3, False)):
        for _ in range(count):
            x = F.relu(conv(state, f"backbone.features.{at}", x, padding=1))
            at += 2
        if at == 30:
            x = F.max_pool2d(x, 3, 1, 1)
            break
        if x.shape[1] == 512:
            length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
            first = x / length if t.unit_norm else x
            maps.append(first * state["neck.l2_norm.weight"][:, None, None])
        x, at = F.max_pool2d(x, 2, 2, ceil_mode=ceil), at + 1
    x = F.relu(conv(state, "backbone.features.31", x, padding=6, dilation=6))
    x = F.relu(conv(state, "backbone.features.33", x))
    maps.append(x)
    for i, (stride, padding) in enumerate(((2, 1), (2, 1), (1, 0), (1, 0))):
        x = F.relu(conv(state, f"neck.extra_layers.{i}.0.conv", x))
        x = conv(state, f"neck.extra_layers.{i}.1.conv", x, stride=stride, padding=padding)
        x = F.relu(x)
        maps.append(x)
    sizes, steps = (21, 45, 99, 153, 207, 261, 315), (8, 16, 32, 64, 100, 300)
    logits, deltas, every = [], [], []
    for i, level in enumerate(maps):
        sides = [(sizes[i], sizes[i]), ((sizes[i] * sizes[i + 1]) ** 0.5,) * 2]
        for ratio in (2,) if i in (0, 4, 5) else (2, 3):
            pair = [(sizes[i] * ratio**0.5, sizes[i] / ratio**0.5)]
            pair.append(pair[0][::-1])
            sides += pair[::-1] if t.long_first else pair
        deltas.append(conv(state, f"bbox_head.reg_convs.{i}.0", level, padding=1))
        logits.append(conv(state, f"bbox_head.cls_convs.{i}.0", level, padding=1))
        middle = 0.0 if t.half_cell else steps[i] / 2
        every.append(grid(around(sides, middle), steps[i], *level.shape[2:]))
    delta = torch.cat([d[0].permute(1, 2, 0).reshape(-1, 4) for d in deltas])
    rows = logits[0].shape[1] // (deltas[0].shape[1] // 4)
    probs = torch.cat([s[0].permute(1, 2, 0).reshape(-1, rows) for s in logits]).softmax(1)
    probs = probs[:, 1:] if t.background_first else probs[:, :-1]
    boxes = clipped(decoded(delta, torch.cat(every), (0.1, 0.2)), (300, 300))
    found, first = [], 0
    for logit in logits:  # the best pairs of each map
        part = probs[first : first + logit[0].numel() // rows]
        row, label = (part > 0.02).nonzero(as_tuple=True)
        top, at = part[row, label].topk(min(1000, len(row)))
        found.append((boxes[row[at] + first], top, label[at]))
        first += len(part)
    box, score, label = (torch.cat(values) for values in zip(*found, strict=True))
    keep = batched_nms(box, score, label, 0.45)[:200]
    return box[keep], score[keep], label[keep]


# Version 1: x2 and y2 are the last pixels, so that a side is x2 - x1 + 1.


def last_pixel_nms(boxes: Tensor, scores: Tensor, labels: Tensor, most: float) -> Tensor:
    """Places that stay, by falling score, by overlaps of boxes that count their last pixel."""
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    for i in scores.argsort(descending=True, stable=True).tolist():
        others = torch.tensor([j for j in kept if labels[j] == labels[i]], dtype=torch.long)
        low = torch.maximum(boxes[others, :2], boxes[i, :2])
        high = torch.minimum(boxes[others, 2:], boxes[i, 2:])
        shared = (high - low + 1).clamp(min=0).prod(1)
        if not (shared / (area[others] + area[i] - shared) > most).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def last_pixel_decoded(deltas: Tensor, rois: Tensor, std: tuple[float, float], size: Any) -> Tensor:
    side = rois[:, 2:] - rois[:, :2] + 1
    middle = (rois[:, :2] + rois[:, 2:]) / 2 + deltas[:, :2] * std[0] * side
    half = side * (deltas[:, 2:] * std[1]).clamp(-BOUND, BOUND).exp() / 2
    boxes = torch.cat([middle - half + 0.5, middle + half - 0.5], 1)
    return clipped(boxes, (size[0] - 1, size[1] - 1))


def faster_rcnn_1(state: Params, pixels: Tensor, *, centred: bool = True) -> tuple[Tensor, ...]:
    """Boxes with their last pixels, scores and labels, of version 1.

    Args:
        state: tensors by detectron2's names, the anchors of a cell by ratio.
        pixels: (3, H, W) RGB of the network's input.
        centred: the anchors lie around the middle of cells, not around their corners.
    """
    size = tuple(pixels.shape[1:])
    rules = d2.Traps(divided=True, red_first=True, stride_in_3x3=True)
    padded = d2.padded(pixels, 32, rules)
    levels = d2.pyramid(state, d2.body(state, "backbone.bottom_up.", padded, rules, dc5=False), 2)
    found, scores, level_of = [], [], []
    for i, level in enumerate([*levels, levels[-1][:, :, ::2, ::2]]):
        x = F.relu(d2.conv(state, f"{d2.RPN}conv", level, padding=1))
        logits = d2.conv(state, f"{d2.RPN}objectness_logits", x)[0].permute(1, 2, 0).flatten()
        deltas = d2.conv(state, f"{d2.RPN}anchor_deltas", x)[0].permute(1, 2, 0).reshape(-1, 4)
        stride, cell = 4 * 2**i, []
        middle = 0.5 * (stride - 1) if centred else -0.5
        for ratio in (0.5, 1.0, 2.0):
            w, h = 8 * stride / ratio**0.5, 8 * stride * ratio**0.5
            half_w, half_h = 0.5 * (w - 1), 0.5 * (h - 1)
            cell.append([middle - half_w, middle - half_h, middle + half_w, middle + half_h])
        own = grid(torch.tensor(cell).round(), stride, *level.shape[2:])
        top, at = logits.topk(min(1000, len(logits)))
        found.append(last_pixel_decoded(deltas[at], own[at], (1.0, 1.0), size))
        scores.append(top)
        level_of.append(torch.full((len(at),), i))
    box, score, of = torch.cat(found), torch.cat(scores), torch.cat(level_of)
    rois = box[last_pixel_nms(box, score, of, 0.7)[:1000]]
    area = (rois[:, 2:] - rois[:, :2] + 1).prod(1)
    place = (area.sqrt() / 56 + 1e-6).log2().floor().clamp(0, 3)
    x = rois.new_zeros(len(rois), levels[0].shape[1], 7, 7)
    ends = torch.cat([rois[:, :2], rois[:, 2:] + 1], 1)
    for i, level in enumerate(levels):
        taken = torch.cat([torch.zeros(int((place == i).sum()), 1), ends[place == i]], 1)
        x[place == i] = roi_align(level, taken, 7, 1 / (4 * 2**i), 2, aligned=False)
    x = x.flatten(1)
    for name in ("fc1", "fc2"):
        x = F.relu(d2.linear(state, f"roi_heads.box_head.{name}", x))
    probs = d2.linear(state, "roi_heads.box_predictor.cls_score", x).softmax(1)[:, :-1]
    deltas = d2.linear(state, "roi_heads.box_predictor.bbox_pred", x).view(len(rois), -1, 4)
    row, label = (probs > 0.05).nonzero(as_tuple=True)
    box = last_pixel_decoded(deltas[row, label], rois[row], (0.1, 0.2), size)
    score = probs[row, label]
    keep = last_pixel_nms(box, score, label, 0.5)[:100]
    return box[keep], score[keep], label[keep]
