"""Options of the RPN on one map: anchors inside the image, width, weight and beta of the boxes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.nn.detection.anchors import AnchorGenerator
from maskwright.nn.detection.matchers import IoUMatcher
from maskwright.nn.detection.rpn import RPN
from maskwright.nn.detection.samplers import BalancedSampler
from maskwright.ops import encode_deltas
from maskwright.structures import Images, Instances

SIZES = torch.tensor([[120, 160], [96, 128]])


def make_rpn(**options: object) -> RPN:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((24, 48, 96),), (0.5, 1.0, 2.0), (16,))
    return RPN(8, anchors, sampler=BalancedSampler(5000, 0.5), width=12, **options)  # type: ignore[arg-type]


def make_case() -> tuple[list[torch.Tensor], Images, Instances]:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 8, 8, 10, generator=generator)]
    images = Images(torch.zeros(2, 3, 128, 160), SIZES, SIZES)
    boxes = torch.tensor([[[0.0, 0, 60, 50], [60, 30, 158, 110]], [[40, 30, 90, 80], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    return maps, images, Instances(boxes, torch.zeros(2, 2, dtype=torch.int64), valid)


@pytest.mark.parametrize("inside_only", [False, True])
@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_losses_equal_the_rule_spelt_out(inside_only: bool, beta: float) -> None:
    """Anchor by anchor (Ren et al. 2015, sections 3.1.2 and 3.3), with all of them sampled."""
    rpn = make_rpn(inside_only=inside_only, beta=beta, box_weight=2.5)
    maps, images, targets = make_case()
    output = rpn(maps)
    found = rpn.losses(output, images, targets)
    (anchors,) = output.anchors
    objectness, box, count = torch.zeros(()), torch.zeros(()), 0
    crossing = 0
    for i in range(2):
        height, width = SIZES[i].tolist()
        gt = targets.boxes[i][targets.valid[i]]
        kept = []
        for n, (x1, y1, x2, y2) in enumerate(anchors.tolist()):
            inside = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
            crossing += not inside
            if inside or not inside_only:
                kept.append(n)
        iou = box_iou(gt, anchors[kept])
        for column, n in enumerate(kept):
            overlap, match = iou[:, column].max(0)
            best = bool((iou[:, column] == iou.max(1)[0]).any()) and overlap > 0
            positive = bool(overlap >= 0.7) or best
            if not positive and overlap >= 0.3:
                continue
            count += 1
            objectness = objectness + F.binary_cross_entropy_with_logits(
                output.logits[0][i, n], torch.tensor(float(positive))
            )
            if positive:
                goal = encode_deltas(gt[match][None], anchors[n][None], (1, 1, 1, 1))[0]
                box = box + F.smooth_l1_loss(
                    output.deltas[0][i, n], goal, beta=beta, reduction="sum"
                )
    assert crossing > 100
    torch.testing.assert_close(found["rpn/objectness"], objectness / count)
    torch.testing.assert_close(found["rpn/box"], 2.5 * box / count)


def test_an_image_smaller_than_all_anchors_costs_nothing() -> None:
    rpn = make_rpn(inside_only=True)
    maps, images, targets = make_case()
    small = Images(images.pixels, torch.full((2, 2), 12), torch.full((2, 2), 12))
    losses = rpn.losses(rpn(maps), small, targets)
    assert not any(value.any() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in rpn.parameters())


def test_boxes_that_must_not_be_used_are_ignored_and_win_no_ground_truth() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [50, 50, 60, 60]])
    gt, valid = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[True]])
    matcher = IoUMatcher(0.7, 0.3, low_quality=True)
    assert matcher(boxes, gt, valid).state.tolist() == [[1, -1, 0]]
    usable = torch.tensor([[False, True, True]])
    assert matcher(boxes, gt, valid, usable_boxes=usable).state.tolist() == [[-1, 1, 0]]


def test_the_network_of_the_paper() -> None:
    """VGG-16 with its sizes, and the betas of the authors' code."""
    with torch.device("meta"):
        detector = build("faster_rcnn_vgg16", 20)
    rpn, head = detector.rpn, detector.roi_heads.box_head
    assert rpn.convs[0].weight.shape == (512, 512, 3, 3)
    assert rpn.logits.weight.shape[0] == 9 and rpn.deltas.weight.shape[0] == 36
    assert rpn.inside_only and rpn.beta == pytest.approx(1 / 9) and head.beta == 1
    assert (rpn.sampler.count, rpn.sampler.max_positives) == (256, 128)
    assert [tuple(fc.weight.shape) for fc in head.fcs] == [(4096, 25088), (4096, 4096)]
    sampler = detector.roi_heads.sampler
    assert (sampler.count, sampler.max_positives) == (128, 32)
    assert detector.resize.target_size(375, 500) == (600, 800)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpn_box_weight": 0.0}, "rpn_box_weight must be above 0"),
        ({"box_beta": -1.0}, "box_beta must be at least 0"),
        ({"level": "c3"}, "level is one of c4, c5, dc5"),
        ({"level": "dc5"}, "head=res5 runs on regions of c4"),
        ({"pooling": "max"}, "pooling is one of align, pool"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build("faster_rcnn_resnet18_c4", 1, **options)


def test_one_map_without_rpn_width_keeps_its_channels() -> None:
    rpn = RPN(8, AnchorGenerator(((32,),), (1.0,), (16,)))
    assert rpn.convs[0].weight.shape == (8, 8, 3, 3)
