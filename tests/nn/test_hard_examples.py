"""Online hard example mining against the rule spelt out, and what must not change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from maskwright.models import build, get_entry
from maskwright.nn.detection.box_head import BoxHead
from maskwright.nn.detection.poolers import AlignPooler
from maskwright.nn.detection.roi_heads import RoIHeads
from maskwright.nn.detection.samplers import HardSampler
from maskwright.ops import encode_deltas
from maskwright.structures import Images, Instances, PackedMasks

CLASSES = 3


def make_case(count: int = 60) -> tuple[RoIHeads, list[Tensor], Instances, Instances]:
    torch.manual_seed(0)
    head = BoxHead(4, CLASSES, pool=3, fcs=1, width=16)
    nn.init.normal_(head.logits.weight, std=1.0)
    nn.init.normal_(head.deltas.weight, std=1.0)
    heads = RoIHeads(head, pooler=AlignPooler((8,)), sampler=HardSampler(12))
    corner = torch.rand(2, count, 2) * 70
    boxes = torch.cat([corner, corner + 8 + torch.rand(2, count, 2) * 40], 2)
    gt = torch.tensor([[[10.0, 10, 50, 40], [40, 40, 90, 100]], [[5.0, 20, 60, 80], [0, 0, 0, 0]]])
    valid = torch.ones(2, count, dtype=torch.bool)
    valid[1, -9:] = False
    boxes[:, :10] = gt[:, :1] + torch.randn(2, 10, 4)  # some positives
    targets = Instances(gt, torch.tensor([[0, 2], [1, 0]]), torch.tensor([[1, 1], [1, 0]]).bool())
    proposals = Instances(boxes, torch.zeros(2, count, dtype=torch.int64), valid)
    return heads, [torch.randn(2, 4, 16, 16)], proposals, targets


def loss_of(heads: RoIHeads, maps: list[Tensor], image: int, box: Tensor, t: Instances) -> Any:
    """The two losses of one box, from the papers."""
    feats = heads.pool(maps, box[None], torch.tensor([image]), heads.box_head.pool)
    logits, deltas = heads.box_head(feats)
    gt = t.boxes[image][t.valid[image]]
    iou, best = box_iou(gt, box[None])[:, 0].max(0)
    label = int(t.labels[image, best]) if iou >= 0.5 else CLASSES
    of_class = F.cross_entropy(logits, torch.tensor([label]))
    if label == CLASSES:
        return of_class, torch.zeros(())
    goal = encode_deltas(gt[best][None], box[None], (10, 10, 5, 5))[0]
    difference = (deltas[0, label] - goal).abs()
    beta = heads.box_head.beta
    smooth = torch.where(difference < beta, difference**2 / 2 / beta, difference - beta / 2)
    return of_class, smooth.sum()


def plain_ohem(heads: RoIHeads, maps: list[Tensor], p: Instances, t: Instances) -> Any:
    """Loss by loss: take the hardest, drop what overlaps it, and so on (section 4)."""
    kept = []
    for image in range(len(p)):
        boxes = [*p.boxes[image][p.valid[image]], *t.boxes[image][t.valid[image]]]
        losses = [loss_of(heads, maps, image, box, t) for box in boxes]
        order = sorted(range(len(boxes)), key=lambda i: -sum(losses[i]).item())
        chosen: list[int] = []
        for i in order:
            overlaps = [float(box_iou(boxes[i][None], boxes[j][None])) for j in chosen]
            if len(chosen) < heads.sampler.count and all(v <= 0.7 for v in overlaps):
                chosen.append(i)
        kept += [losses[i] for i in chosen]
    of_class, of_box = zip(*kept, strict=True)
    return torch.stack(of_class).sum() / len(kept), torch.stack(of_box).sum() / len(kept)


def run(heads: RoIHeads, maps: list[Tensor], p: Instances, t: Instances) -> dict[str, Tensor]:
    sizes = torch.tensor([[128, 128], [128, 128]])
    return heads.losses(maps, p, t, sizes)


@pytest.mark.parametrize("part", [None, 3])
def test_losses_and_gradients_equal_the_rule_spelt_out(part: int | None) -> None:
    heads, maps, proposals, targets = make_case()
    heads.part = part
    found = run(heads, maps, proposals, targets)
    expected = plain_ohem(heads, maps, proposals, targets)
    assert expected[1] > 0.1  # there are positives among the hardest
    torch.testing.assert_close((found["roi/class"], found["roi/box"]), expected)
    weights = list(heads.parameters())
    ours = torch.autograd.grad(sum(found.values()), weights)
    theirs = torch.autograd.grad(sum(expected), weights)
    torch.testing.assert_close(ours, theirs)


def test_order_and_copies_of_proposals_change_nothing() -> None:
    heads, maps, proposals, targets = make_case()
    expected = run(heads, maps, proposals, targets)
    order = torch.randperm(proposals.boxes.shape[1])
    twice = torch.cat([order, order])
    for index in (order, twice):
        other = Instances(
            proposals.boxes[:, index], proposals.labels[:, index], proposals.valid[:, index]
        )
        torch.testing.assert_close(run(heads, maps, other, targets), expected)


def test_what_is_in_empty_slots_changes_nothing() -> None:
    heads, maps, proposals, targets = make_case()
    expected = run(heads, maps, proposals, targets)
    boxes = torch.where(proposals.valid[..., None], proposals.boxes, torch.tensor([0.0, 0, 99, 99]))
    torch.testing.assert_close(run(heads, maps, replace(proposals, boxes=boxes), targets), expected)


def test_without_nms_the_largest_losses_are_taken() -> None:
    torch.manual_seed(1)
    boxes, losses = torch.rand(2, 40, 4).cumsum(2), torch.rand(2, 40)
    state = torch.randint(-1, 2, (2, 40)).to(torch.int8)
    sample = HardSampler(7, nms_thresh=1.0)(state, boxes, losses)
    masked = torch.where(state >= 0, losses, -1)
    assert torch.equal(sample.slot.sort(1)[0], masked.topk(7, 1)[1].sort(1)[0])
    assert sample.valid.all()
    assert torch.equal(sample.positive, state.gather(1, sample.slot) == 1)
    assert bool((sample.positive.to(torch.int8).diff(dim=1) <= 0).all()), "positives first"
    few = HardSampler(7)(torch.full_like(state, -1), boxes, losses)
    assert not few.valid.any() and not few.positive.any()


def test_ranking_leaves_no_trace_in_batch_norm() -> None:
    heads, maps, proposals, targets = make_case()
    heads.box_head = BoxHead(4, CLASSES, pool=3, convs=1, fcs=1, width=16, norm="bn")
    picked = heads.sample(
        proposals, targets, hardness=lambda boxes, gt, state: boxes.sum(2)
    )  # no forward: statistics as they start
    assert picked[2].valid.any()
    norm = next(m for m in heads.modules() if isinstance(m, nn.BatchNorm2d))
    heads.train()
    run(heads, maps, proposals, targets)
    assert int(norm.num_batches_tracked) == 1 and norm.training


def test_hard_sampler_refuses_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="count >= 1"):
        HardSampler(0)
    with pytest.raises(ValueError, match="nms_thresh"):
        HardSampler(4, 0.0)


@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_resnet50_fpn",
        "mask_keypoint_rcnn_resnet50_fpn",
        "refine_mask_resnet50_fpn",
        "faster_rcnn_resnet50_c4",
        "fast_rcnn_vgg16",
        "sppnet_vgg16",
        "rcnn_vgg16",
    ],
)
def test_every_detector_with_regions_has_the_option(name: str) -> None:
    torch.manual_seed(0)
    tiny = {**(get_entry(name).tiny or {}), "backbone": "test_efficientnet"}
    detector = build(name, 2, **tiny, ohem=True).train()
    assert isinstance(detector.roi_heads.sampler, HardSampler)
    size = torch.tensor([[64, 64]])
    corner = torch.rand(1, 40, 2) * 40
    regions = torch.cat([corner, corner + 4 + torch.rand(1, 40, 2) * 20], 2)
    proposals = None
    if name.startswith(("fast_rcnn", "sppnet", "rcnn")):
        labels = torch.zeros(1, 40, dtype=torch.int64)
        proposals = Instances(regions, labels, labels == 0)
    images = Images(torch.rand(1, 3, 64, 64) * 255, size, size, proposals)
    box = torch.tensor([[[8.0, 8, 40, 48]]])
    valid = torch.ones(1, 1, dtype=torch.bool)
    masks = PackedMasks(
        torch.ones(32 * 40, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.int64), box.long()
    )
    points = torch.tensor([20.0, 20, 2]).expand(1, 1, 5, 3)
    targets = Instances(
        box, torch.zeros(1, 1, dtype=torch.int64), valid, masks=masks, keypoints=points
    )
    losses = detector.losses(images, targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    missing = [k for k, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
