"""R-FCN against the paper's equations with torchvision's pooling, and its sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import ps_roi_align, ps_roi_pool

from maskwright.errors import OptionError
from maskwright.models import build, build_tiny
from maskwright.models.transfer import transfer
from maskwright.nn.detection.poolers import PartPooler
from maskwright.nn.detection.rfcn_head import RFCNHead
from maskwright.nn.detection.roi_heads import RoIHeads
from maskwright.nn.detection.samplers import HardSampler


def draw(count: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    maps = torch.randn(2, 8, 12, 15)
    corner = torch.rand(count, 2) * 120
    boxes = torch.cat([corner, corner + 10 + torch.rand(count, 2) * 90], 1)
    return maps, boxes, torch.arange(count) % 2


@pytest.mark.parametrize(("kind", "k"), [("pool", 3), ("pool", 7), ("align", 3)])
def test_votes_equal_the_equations_with_torchvisions_pooling(kind: str, k: int) -> None:
    torch.manual_seed(0)
    classes = 4
    head = RFCNHead(8, classes, pool=k, width=16)
    heads = RoIHeads(head, pooler=PartPooler(16, kind=kind))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    maps, boxes, index = draw()
    maps.requires_grad_()
    output = head(heads.pool(head.maps([maps]), boxes, index, k))

    x = F.conv2d(maps, head.reduce[0].weight, head.reduce[0].bias).relu()
    rois = torch.cat([index[:, None].float(), boxes], 1)
    expected = []
    for layer in (head.logits, head.deltas):
        score_maps = F.conv2d(x, layer.weight, layer.bias)
        if kind == "pool":
            bins = ps_roi_pool(score_maps, rois, k, 1 / 16)
        else:
            bins = ps_roi_align(score_maps, rois, k, 1 / 16, 2)
        votes = sum(bins[:, :, i, j] for i in range(k) for j in range(k)) / k**2
        expected.append(votes)
    torch.testing.assert_close(output.logits, expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.deltas, expected[1][:, None], rtol=1e-4, atol=1e-4)
    leaves = [maps, *head.parameters()]
    found = torch.autograd.grad(output.logits.square().sum() + output.deltas.sum(), leaves)
    theirs = torch.autograd.grad(expected[0].square().sum() + expected[1].sum(), leaves)
    for ours, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_a_region_votes_high_only_where_its_parts_lie() -> None:
    """Maps that fire where a part of one object lies: the box of the object wins (fig. 3, 4)."""
    k, stride = 3, 16
    head = RFCNHead(1, 1, pool=k)
    heads = RoIHeads(head, pooler=PartPooler(stride))
    # The object covers pixels 3 to 11 of the map, each part three of them.
    maps = torch.zeros(1, 6 * k * k, 16, 16)
    for i in range(k):
        for j in range(k):
            maps[0, i * k + j, 3 + 3 * i : 6 + 3 * i, 3 + 3 * j : 6 + 3 * j] = 1
    object_box = torch.tensor([3.0, 3, 12, 12]) * stride
    shifts = torch.tensor([[0.0, 0], [1, 0], [0, 2], [3, 3], [-3, 0]]) * stride
    boxes = object_box + shifts.repeat(1, 2)
    votes = head(heads.pool([maps], boxes, torch.zeros(5, dtype=torch.int64), k)).logits[:, 0]
    assert votes[0] == 1
    assert bool((votes[1:] < 0.8).all()) and votes[3] == 0


def test_sizes_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        detector, small = build("rfcn_resnet101", 20), build("rfcn_lite0", 20)
    assert small.roi_heads.box_head.reduce[0].weight.shape == (1024, 320, 1, 1)
    head = detector.roi_heads.box_head
    assert head.reduce[0].weight.shape == (1024, 2048, 1, 1)
    assert head.logits.weight.shape[0] == 7 * 7 * 21 and head.deltas.weight.shape[0] == 4 * 7 * 7
    assert detector.rpn.convs[0].weight.shape == (512, 1024, 3, 3)
    # Of the published training (rfcn_end2end_ohem.yml): NMS leaves 300 of 6000 boxes.
    assert detector.rpn.post_nms == (300, 300) and detector.rpn.pre_nms == (6000, 6000)
    assert detector.backbone.strides == (16, 16)
    sampler = detector.roi_heads.sampler
    assert isinstance(sampler, HardSampler) and (sampler.count, sampler.nms_thresh) == (128, 0.7)
    pooler = detector.roi_heads.pooler
    assert isinstance(pooler, PartPooler) and (pooler.kind, pooler.stride) == ("pool", 16)


def test_anchors_are_the_nine_of_the_paper() -> None:
    """Beside those of the authors' code, whose sides are rounded in a cell of 16 pixels."""
    published = torch.tensor(
        [
            [-83, -39, 100, 56],
            [-175, -87, 192, 104],
            [-359, -183, 376, 200],
            [-55, -55, 72, 72],
            [-119, -119, 136, 136],
            [-247, -247, 264, 264],
            [-35, -79, 52, 96],
            [-79, -167, 96, 184],
            [-167, -343, 184, 360],
        ]
    ).float()
    theirs = published[:, 2:] - published[:, :2] + 1
    with torch.device("meta"):
        detector = build("faster_rcnn_vgg16", 20)
    with torch.device("cpu"):
        cell = type(detector.rpn.anchors)(((128, 256, 512),), (0.5, 1.0, 2.0), (16,))(
            [(1, 1)], (16, 16)
        )[0]
    assert detector.rpn.anchors.per_cell == 9 and detector.rpn.anchors.strides == (16,)
    ours = cell[:, 2:] - cell[:, :2]
    torch.testing.assert_close(ours, theirs, rtol=0.07, atol=0)
    assert torch.equal(ours[3:6], theirs[3:6])  # squares need no rounding
    torch.testing.assert_close(ours.prod(1), torch.tensor([128.0, 256, 512]).square().repeat(3))


def test_score_maps_go_over_by_class_name() -> None:
    torch.manual_seed(0)
    source, target = build_tiny("rfcn_resnet50", 3), build_tiny("rfcn_resnet50", 2)
    transfer(target, ["dog", "cat"], source.state_dict(), ["cat", "cow", "dog"])
    bins = 9
    ours, theirs = (d.roi_heads.box_head.logits.weight for d in (target, source))
    assert torch.equal(ours[:bins], theirs[2 * bins : 3 * bins])
    assert torch.equal(ours[bins : 2 * bins], theirs[:bins])
    assert torch.equal(ours[2 * bins :], theirs[3 * bins :])  # background
    boxes = (d.roi_heads.box_head.deltas.weight for d in (target, source))
    assert torch.equal(*boxes)


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(OptionError, match="bins must be a whole number from 1 to 32"):
        build("rfcn_resnet18", 1, bins=0)
    with pytest.raises(OptionError, match="pooling is one of align, pool"):
        build("rfcn_resnet18", 1, pooling="ps_pool")
