"""Cascade of box heads against a plain reference, image by image, with torchvision's parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from maskwright.errors import OptionError
from maskwright.models import PostProcess, build_tiny
from maskwright.models.registry import build
from maskwright.structures import Images, Instances

IOUS = (0.5, 0.6, 0.7)
CODERS = [BoxCoder(tuple(k * w for w in (10.0, 10.0, 5.0, 5.0))) for k in (1, 2, 3)]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    made = build_tiny("cascade_rcnn_resnet50_fpn", 3)
    heads = [made.roi_heads.box_head, *made.roi_heads.later]
    for head in heads:  # logits and boxes that differ from stage to stage
        torch.nn.init.normal_(head.logits.weight, std=1.0)
        torch.nn.init.normal_(head.deltas.weight, std=0.1)
    return made


@pytest.fixture
def images() -> Images:
    pixels = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1)) * 255
    size = torch.tensor([[96, 128], [80, 100]])
    return Images(pixels, size, size)


def heads_of(model: Any) -> list[Any]:
    return [model.roi_heads.box_head, *model.roi_heads.later]


def run(model: Any, head: Any, pyramid: list[Tensor], boxes: Tensor, image: int) -> Any:
    feats = model.roi_heads.pool(pyramid, boxes, torch.full((len(boxes),), image), 7)
    return head(feats)


@torch.no_grad()
def test_found_as_by_a_loop_over_images(model: Any, images: Images) -> None:
    model.eval()
    post = PostProcess(score_thresh=0.2, max_det=30)
    found = model(images, post)
    pyramid = model.features(images)
    proposals = model.rpn.propose(model.rpn(pyramid), images)
    for b in range(2):
        size = tuple(images.sizes[b].tolist())
        boxes = proposals.boxes[b][proposals.valid[b]]
        scores = torch.zeros(len(boxes), 3)
        for head, coder in zip(heads_of(model), CODERS, strict=True):
            out = run(model, head, pyramid, boxes, b)
            scores += out.logits.softmax(-1)[:, :3] / 3
            moved = coder.decode(out.deltas.flatten(1), [boxes])[:, 0]
            boxes = clip_boxes_to_image(moved, size)
        row, label = (scores > 0.2).nonzero(as_tuple=True)
        keep = batched_nms(boxes[row], scores[row, label], label, 0.5)[:30]
        valid = found.valid[b]
        assert valid.sum() == len(keep) > 3
        torch.testing.assert_close(found.boxes[b][valid], boxes[row][keep], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.scores[b][valid], scores[row, label][keep])
        assert torch.equal(found.labels[b][valid], label[keep])


def targets_of(images: Images) -> Instances:
    boxes = torch.tensor(
        [[[10.0, 10, 60, 70], [50, 20, 120, 90]], [[5.0, 5, 40, 60], [0, 0, 0, 0]]]
    )
    valid = torch.tensor([[True, True], [True, False]])
    return Instances(boxes, torch.tensor([[0, 2], [1, 0]]), valid)


def test_losses_as_by_a_loop_over_heads(model: Any, images: Images) -> None:
    model.train()
    heads = model.roi_heads
    targets = targets_of(images)
    pyramid = model.features(images)
    # Boxes around the objects, of which some pass the higher thresholds and some do not.
    noise = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(3)) * 6
    near = (targets.boxes[:, [0] * 20 + [1] * 20] + noise).clamp(min=0)
    near = torch.cat([near[..., :2], torch.maximum(near[..., 2:], near[..., :2] + 2)], -1)
    proposals = Instances(near, torch.zeros(2, 40, dtype=torch.int64), torch.ones(2, 40).bool())
    losses = heads.losses(
        pyramid, proposals, targets, images.sizes, generator=torch.Generator().manual_seed(5)
    )
    boxes, _, sample = heads.sample(proposals, targets, generator=torch.Generator().manual_seed(5))
    current = [boxes[b][sample.valid[b]] for b in range(2)]
    assert min(len(rows) for rows in current) >= 8
    for number, (head, coder, iou) in enumerate(zip(heads_of(model), CODERS, IOUS, strict=True)):
        classes, moved, count, positives = torch.zeros(()), torch.zeros(()), 0, 0
        after = []
        for b, rois in enumerate(current):
            truth = targets.boxes[b][targets.valid[b]]
            match = Matcher(iou, iou)(box_iou(truth, rois))
            label = torch.where(match >= 0, targets.labels[b][match.clamp(min=0)], 3)
            out = run(model, head, pyramid, rois, b)
            classes = classes + F.cross_entropy(out.logits, label, reduction="sum")
            goal = coder.encode([truth[match.clamp(min=0)]], [rois])[0]
            hit = match >= 0
            moved = moved + F.smooth_l1_loss(
                out.deltas[hit, 0], goal[hit], beta=1 / 9, reduction="sum"
            )
            count, positives = count + len(rois), positives + int(hit.sum())
            next_boxes = coder.decode(out.deltas.flatten(1).detach(), [rois])[:, 0]
            next_boxes = clip_boxes_to_image(next_boxes, tuple(images.sizes[b].tolist()))
            after.append(next_boxes[(next_boxes[:, 2:] - next_boxes[:, :2] >= 1e-2).all(1)])
        ending = "" if number == 0 else f"_{number + 1}"
        weight = 0.5**number
        torch.testing.assert_close(losses[f"roi/class{ending}"], classes / count * weight)
        torch.testing.assert_close(losses[f"roi/box{ending}"], moved / count * weight)
        assert positives > 0
        current = after


def test_no_gradient_reaches_a_head_through_the_boxes_of_the_one_before(
    model: Any, images: Images
) -> None:
    model.train()
    losses = model.losses(images, targets_of(images), generator=torch.Generator().manual_seed(0))
    (losses["roi/class_3"] + losses["roi/box_3"]).backward()
    first, second, third = heads_of(model)
    assert first.deltas.weight.grad is None and second.deltas.weight.grad is None
    assert third.deltas.weight.grad is not None and third.logits.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("ious", [(), (0.5, 0.5), (0.7, 0.6), (0.0, 0.5), (0.5, 1.0)])
def test_ious_rise(ious: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="rising numbers between 0 and 1"):
        build("cascade_rcnn_resnet18_fpn", 2, ious=ious)


def test_masks_are_cut_from_the_last_boxes(images: Images) -> None:
    torch.manual_seed(0)
    model = build_tiny("cascade_mask_rcnn_resnet50_fpn", 2).eval()
    with torch.no_grad():
        found = model(images, PostProcess(score_thresh=0.0, max_det=5))
        again = model.refine(images, found)
    assert found.mask_crops is not None and again is not None
    torch.testing.assert_close(again.mask_crops, found.mask_crops)
