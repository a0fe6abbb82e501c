"""Losses of trainings from files of other libraries, written out again for the same targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from maskwright.models import build
from maskwright.nn.detection.box_head import BoxOutput, BoxTargets
from maskwright.nn.detection.dense.head import DenseOutput
from maskwright.nn.detection.samplers import BalancedSampler
from maskwright.structures import Images, Instances, PackedMasks

TINY: dict[str, Any] = {"width": 8, "imgsz": 96}
BOXES = torch.tensor([[10.0, 10, 42, 42], [50, 50, 90, 80], [2, 60, 30, 90], [70, 10, 77, 17]])
LABELS = torch.tensor([0, 2, 1, 1])
# What a converter tells of a file, and where the losses of RPN and box head turn straight there.
RCNN = {
    "detectron2": ({"conventions": "detectron2"}, 0.0, 0.0),
    "its comparisons": ({"conventions": "detectron2_legacy", "box_beta": 1.0}, 1 / 9, 1.0),
    "its keypoints": ({"conventions": "detectron2", "box_beta": 0.5}, 0.0, 0.5),
    "Detectron": ({"conventions": "detectron", "box_beta": 1.0}, 1 / 9, 1.0),
    "mmdetection": ({"conventions": "mmdetection"}, 0.0, 0.0),
    "its version 1": ({"conventions": "mmdetection_v1", "box_beta": 1.0}, 1 / 9, 1.0),
}


def iou(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def states(
    boxes: Tensor, high: float, low: float, every: bool, least: float = 0.0
) -> tuple[Tensor, Tensor]:
    """1, 0 or -1 for each box, and its object.

    `every` object has the boxes that overlap it most, and by `least`.
    """
    overlap = iou(boxes, BOXES)
    best, slot = overlap.max(1)
    state = torch.where(best >= high, 1, torch.where(best < low, 0, -1))
    if every:
        most = overlap.max(0)[0]
        state[((overlap == most) & (most >= least)).any(1)] = 1
    return state, slot


def deltas_to(goal: Tensor, boxes: Tensor, weights: tuple[float, ...]) -> Tensor:
    side, wanted = boxes[:, 2:] - boxes[:, :2], goal[:, 2:] - goal[:, :2]
    shift = (goal[:, :2] + goal[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / side
    return torch.cat([shift, (wanted / side).log()], 1) * torch.tensor(weights)


def smooth(difference: Tensor, beta: float) -> float:
    away = difference.abs()
    if beta == 0:
        return float(away.sum())
    return float(torch.where(away < beta, away**2 / (2 * beta), away - beta / 2).sum())


def targets() -> Instances:
    return Instances(BOXES[None], LABELS[None], torch.ones(1, 4, dtype=torch.bool))


def images() -> Images:
    size = torch.tensor([[96, 96]])
    return Images(torch.zeros(1, 3, 96, 96), size, size)


@pytest.mark.parametrize("source", RCNN)
@torch.no_grad()
def test_losses_of_rpn_and_box_head(source: str) -> None:
    options, rpn_beta, box_beta = RCNN[source]
    made = build("faster_rcnn_resnet18_fpn", 3, box_width=8, **TINY, **options)
    torch.manual_seed(1)
    out = made.rpn([torch.rand(1, 8, 96 >> k, 96 >> k) for k in range(2, 7)])
    out = out._replace(logits=[torch.randn_like(x) for x in out.logits])
    out = out._replace(deltas=[torch.randn_like(x) / 2 for x in out.deltas])
    anchors, logits, deltas = torch.cat(out.anchors), *(torch.cat(x, 1)[0] for x in out[:2])
    assert (made.rpn.sampler.count, made.rpn.sampler.max_positives) == (256, 128)
    made.rpn.sampler = BalancedSampler(len(anchors), 1.0)  # all, so that none is drawn
    theirs = str(options["conventions"]).startswith("mmdetection")
    state, slot = states(anchors, 0.7, 0.3, every=True, least=0.3 if theirs else 0.0)
    counted, positive = state >= 0, state == 1
    assert (slot[positive] == 3).any() != theirs  # the small object
    assert positive.sum() > 3 and (state == -1).any()
    found = made.rpn.losses(out, images(), targets())
    wanted = F.binary_cross_entropy_with_logits(logits[counted], positive[counted].float())
    torch.testing.assert_close(found["rpn/objectness"], wanted)
    goal = deltas_to(BOXES[slot], anchors, (1, 1, 1, 1))
    sums = smooth((deltas - goal)[positive], rpn_beta)
    assert float(found["rpn/box"]) == pytest.approx(sums / int(counted.sum()), rel=1e-4)
    # The box head: all boxes of the sample count, an object has the deltas of its class.
    heads = made.roi_heads
    assert (heads.sampler.count, heads.sampler.max_positives) == (512, 128)
    middle = torch.rand(40, 2) * 90
    rois = torch.cat([BOXES + torch.randn(4, 4), torch.cat([middle, middle + 20], 1)])
    state, slot = states(rois, 0.5, 0.5, every=False)
    assert torch.equal(heads.matcher(rois[None], *targets_of()).state[0].long(), state)
    classes = torch.where(state == 1, LABELS[slot], 3)
    logits, deltas = torch.randn(44, 4), torch.randn(44, 3, 4)
    valid = torch.ones(44, dtype=torch.bool)
    found = heads.box_head.loss(
        BoxOutput(logits, deltas), rois, BoxTargets(classes, BOXES[slot]), valid
    )
    torch.testing.assert_close(found["roi/class"], F.cross_entropy(logits, classes))
    positive = state == 1
    own = deltas[positive, classes[positive]]
    goal = deltas_to(BOXES[slot], rois, (10, 10, 5, 5))[positive]
    assert float(found["roi/box"]) == pytest.approx(smooth(own - goal, box_beta) / 44, rel=1e-4)


@pytest.mark.parametrize("source", RCNN)
@torch.no_grad()
def test_losses_of_masks_and_keypoints(source: str) -> None:
    """Of all regions on an object: masks cut at the centres of pixels, whatever RoIAlign sees.

    Keypoints count that are labelled and in the region, by how many these are.
    """
    options = {**RCNN[source][0], "num_keypoints": 3, "keypoint_convs": 1, "keypoint_width": 8}
    made = build("mask_keypoint_rcnn_resnet18_fpn", 3, box_width=8, **TINY, **options)
    heads = made.roi_heads
    heads.sampler = BalancedSampler(64, 1.0)  # all, so that none is drawn
    torch.manual_seed(1)
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    full = []  # leaning ellipses
    for x1, y1, x2, y2 in BOXES.tolist():
        u, v = (x - (x1 + x2) / 2) / (x2 - x1), (y - (y1 + y2) / 2) / (y2 - y1)
        full.append(u**2 + v**2 + 0.8 * u * v <= 0.15)
    masks = PackedMasks(
        torch.cat([mask.flatten() for mask in full]).to(torch.uint8),
        torch.arange(4)[None] * 96 * 96,
        torch.tensor([[[0, 0, 96, 96]] * 4]),
    )
    points = torch.rand(1, 4, 3, 3) * 1.2 - 0.1
    points[..., :2] = BOXES[:, None, :2] + points[..., :2] * (BOXES[:, 2:] - BOXES[:, :2])[:, None]
    points[0, :, :, 2] = torch.tensor([[2, 1, 0], [2, 2, 2], [0, 0, 0], [1, 2, 2]])
    points[0, 0, 0, :2] = BOXES[0, 2:]  # on the border, which is in the region
    given = Instances(
        BOXES[None], LABELS[None], torch.ones(1, 4, dtype=torch.bool), masks=masks, keypoints=points
    )
    rois = torch.cat([BOXES + torch.randn(4, 4) * 3 for _ in range(6)]).clamp(0, 96)
    proposals = Instances(
        rois[None], torch.zeros(1, 24, dtype=torch.int64), torch.ones(1, 24, dtype=torch.bool)
    )
    seen: dict[str, Any] = {}
    heads.mask_head.register_forward_hook(lambda _, at, out: seen.update(at=at, masks=out))
    heads.keypoint_head.register_forward_hook(lambda _, __, out: seen.update(points=out))
    maps = [torch.rand(1, 8, 96 >> k, 96 >> k) for k in range(2, 6)]
    found = heads.losses(maps, proposals, given, images().sizes)
    # Which regions there are, and of which objects: those that overlap one by a half, and objects.
    regions, labels = seen["at"][2], seen["at"][4]
    state, slot = states(torch.cat([rois, BOXES]), 0.5, 0.5, every=False)
    wanted = torch.cat([rois, BOXES])[state == 1]
    assert 10 < len(wanted) < 28 and (state == 0).any()
    assert sorted(regions.tolist()) == sorted(wanted.tolist())
    slot = iou(regions, BOXES).argmax(1)
    assert torch.equal(labels, LABELS[slot])
    box = torch.cat([slot[:, None], regions], 1)
    goal = roi_align(torch.stack(full)[:, None].float(), box, 28, 1.0, 0, aligned=True) >= 0.5
    loss = F.binary_cross_entropy_with_logits(seen["masks"].logits[0], goal[:, 0].float())
    torch.testing.assert_close(found["roi/mask"], loss)
    total, counted = 0.0, 0
    for region, own, logits in zip(regions.tolist(), slot.tolist(), seen["points"], strict=True):
        for (px, py, shown), one in zip(points[0, own].tolist(), logits, strict=True):
            x1, y1, x2, y2 = region
            if shown and x1 <= px <= x2 and y1 <= py <= y2:
                column = min(int((px - x1) * 56 / (x2 - x1)), 55)
                row = min(int((py - y1) * 56 / (y2 - y1)), 55)
                total += float(one.logsumexp((0, 1)) - one[row, column])
                counted += 1
    assert 10 < counted < 3 * len(regions)
    assert float(found["roi/keypoints"]) == pytest.approx(total / counted, rel=1e-4)


def targets_of() -> tuple[Tensor, Tensor]:
    return BOXES[None], torch.ones(1, 4, dtype=torch.bool)


DENSE = {
    "detectron2": ({"conventions": "detectron2", "box_loss": "smooth_l1"}, 0.1),
    "mmdetection": ({"conventions": "mmdetection"}, 0.0),
    "its version 1": ({"conventions": "mmdetection_v1", "box_loss": "smooth_l1"}, 0.11),
}


@pytest.mark.parametrize("source", DENSE)
def test_losses_of_retinanet(source: str) -> None:
    """A focal loss of all anchors but the unclear ones, divided by the positive ones."""
    options, beta = DENSE[source]
    head = build("retinanet_resnet18_fpn", 3, convs=0, **TINY, **options).head
    torch.manual_seed(1)
    anchors = head.anchors([(96 >> k, 96 >> k) for k in range(3, 8)], (96, 96))
    count = sum(map(len, anchors))
    logits, deltas = torch.randn(1, count, 3), torch.randn(1, count, 4)
    found = head.losses(DenseOutput([logits], [deltas], [torch.cat(anchors)]), targets())
    state, slot = states(torch.cat(anchors), 0.5, 0.4, every=True)
    positive = state == 1
    total = float(positive.sum())
    if source == "detectron2":
        total = 0.9 * 100 + 0.1 * total
    goal = torch.zeros(count, 3)
    goal[positive, LABELS[slot[positive]]] = 1
    p = logits[0].sigmoid()
    sure = torch.where(goal == 1, p, 1 - p)
    focal = -(0.25 * goal + 0.75 * (1 - goal)) * (1 - sure) ** 2 * sure.log()
    wanted = float(focal[state >= 0].sum()) / total
    assert float(found["dense/class"]) == pytest.approx(wanted, rel=1e-4)
    away = (deltas[0] - deltas_to(BOXES[slot], torch.cat(anchors), (1, 1, 1, 1)))[positive]
    assert float(found["dense/box"]) == pytest.approx(smooth(away, beta) / total, rel=1e-4)
    assert (smooth(away, beta) != smooth(away, 0.1)) == (source != "detectron2")


@torch.no_grad()
def test_losses_of_ssd_in_mmdetection() -> None:
    """Three negatives for a positive, the hardest; smooth L1 from 1 on; by the positive ones."""
    head = build("ssd300_vgg16", 3, conventions="mmdetection").head
    torch.manual_seed(1)
    anchors = torch.cat(
        head.anchors([(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)], (300, 300))
    )
    logits, deltas = torch.randn(1, len(anchors), 4), torch.randn(1, len(anchors), 4)
    found = head.losses(DenseOutput([logits], [deltas], [anchors]), targets())
    state, slot = states(anchors, 0.5, 0.5, every=True)
    positive = state == 1
    classes = torch.where(positive, LABELS[slot], 3)
    each = F.cross_entropy(logits[0], classes, reduction="none")
    total = int(positive.sum())
    hard = each[~positive].sort(descending=True)[0][: 3 * total].sum()
    wanted = float(each[positive].sum() + hard) / total
    assert float(found["dense/class"]) == pytest.approx(wanted, rel=1e-4)
    away = (deltas[0] - deltas_to(BOXES[slot], anchors, (10, 10, 5, 5)))[positive]
    assert float(found["dense/box"]) == pytest.approx(smooth(away, 1.0) / total, rel=1e-4)
