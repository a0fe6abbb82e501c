"""RetinaNet: what it is made of, and what its options change."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.ops import generalized_box_iou_loss

from maskwright.errors import OptionError
from maskwright.models import PostProcess, build, build_tiny
from maskwright.nn.detection.dense.mining import MININGS
from maskwright.structures import Images, Instances


def tiny(**options):
    torch.manual_seed(0)
    base = {"backbone": "resnet18", "width": 16, "convs": 1, "imgsz": 96}
    return build("retinanet_resnet50_fpn", 3, **{**base, **options})


def batch() -> tuple[Images, Instances]:
    size = torch.tensor([[96, 128]] * 2)
    pixels = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1)) * 255
    boxes = torch.tensor([[[10.0, 12, 50, 60], [70, 20, 120, 80]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [False, False]])
    labels = torch.tensor([[0, 2], [0, 0]])
    return Images(pixels, size, size), Instances(boxes, labels, valid)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("retinanet_resnet50_fpn", retinanet_resnet50_fpn),
        ("retinanet_resnet50_fpn_v2", retinanet_resnet50_fpn_v2),
    ],
)
def test_as_many_parameters_as_torchvision(name, theirs) -> None:
    with torch.device("meta"):
        ours = build(name, 91)
        wanted = theirs(weights=None, weights_backbone=None, num_classes=91)
    # Frozen batch norm has buffers where it has parameters when it trains: both count.
    count = [
        sum(v.numel() for k, v in one.state_dict().items() if "num_batches" not in k)
        for one in (ours, wanted)
    ]
    assert count[0] == count[1]


def test_nine_anchors_of_three_octaves() -> None:
    detector = build("retinanet_lite0_fpn", 2, anchor_sizes=(32, 64, 128, 256, 512))
    levels = detector.head.anchors([(1, 1)] * 5, (128, 128))
    for size, boxes in zip((32, 64, 128, 256, 512), levels, strict=True):
        width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
        areas = (width * height).sqrt().reshape(3, 3)
        wanted = torch.tensor([size * 2 ** (step / 3) for step in range(3)])
        torch.testing.assert_close(areas, wanted.expand(3, 3))
        ratios = (height / width).reshape(3, 3)[:, 0]
        torch.testing.assert_close(ratios, torch.tensor([0.5, 1, 2]))


def test_before_training_each_class_has_a_hundredth() -> None:
    images, _ = batch()
    detector = tiny().eval()
    with torch.no_grad():
        scores = torch.cat(detector.judged(images).logits, 1).sigmoid()
    torch.testing.assert_close(scores.mean(), torch.tensor(0.01), rtol=0.2, atol=0)


def test_p6_stands_on_c5_or_p5() -> None:
    images, _ = batch()
    for of_p5 in (True, False):
        detector = tiny(p6_of_p5=of_p5).eval()
        with torch.no_grad():
            maps = detector.backbone(detector.normalise(images))
            levels = detector.fpn(maps)
            below = levels[2] if of_p5 else maps[-1]
            conv = detector.fpn.last.p6
            six = torch.nn.functional.conv2d(below, conv.weight, conv.bias, 2, 1)
        torch.testing.assert_close(levels[3], six)
        assert [tuple(level.shape[-2:]) for level in levels] == [
            (12, 16),
            (6, 8),
            (3, 4),
            (2, 2),
            (1, 1),
        ]


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("loss", ["focal", "ce"])
def test_every_way_to_count_trains_everything(mining: str, loss: str) -> None:
    images, targets = batch()
    detector = tiny(mining=mining, loss=loss)
    losses = detector.losses(images, targets, generator=torch.Generator().manual_seed(0))
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    # Fewer places, a smaller loss; the boxes are the same.
    every = tiny(loss=loss).losses(images, targets)
    assert losses["dense/class"] <= every["dense/class"] * (1 + 1e-5)
    torch.testing.assert_close(losses["dense/box"], every["dense/box"])


def test_the_box_loss_by_giou_is_that_of_the_positive_anchors() -> None:
    images, targets = batch()
    detector = tiny(box_loss="giou", box_weight=2.0)
    output = detector.judged(images)
    found = detector.head.losses(output, targets)["dense/box"]
    anchors, deltas = torch.cat(output.anchors), torch.cat(output.deltas, 1)
    match = detector.head.matcher(anchors, targets.boxes, targets.valid)
    total, count = 0.0, 0
    for b, place in (match.state == 1).nonzero().tolist():
        x1, y1, x2, y2 = anchors[place].tolist()
        dx, dy, dw, dh = deltas[b, place].unbind()
        cx, cy = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        w, h = (x2 - x1) * dw.exp(), (y2 - y1) * dh.exp()
        box = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        goal = targets.boxes[b, match.slot[b, place]]
        total, count = total + generalized_box_iou_loss(box, goal), count + 1
    assert count >= 2
    torch.testing.assert_close(found, 2 * total / count, rtol=1e-4, atol=1e-5)


def test_no_more_is_found_than_is_there_at_a_threshold_of_one() -> None:
    images, _ = batch()
    with torch.no_grad():
        found = build_tiny("retinanet_resnet50_fpn").eval()(images, PostProcess(score_thresh=1.0))
    assert found.boxes.shape == (2, 100, 4)
    assert not found.valid.any() and not found.boxes.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss is focal or ce"),
        ({"mining": "easy"}, "mining is one of none, random"),
        ({"box_loss": "iou"}, "box_loss is one of l1, smooth_l1, giou"),
        ({"alpha": 1.0}, "alpha lies between 0 and 1"),
        ({"gamma": -1}, "gamma is at least 0"),
        ({"convs": -1}, "convs must be a whole number from 0 to 64"),
        ({"anchor_sizes": (32, 64)}, "anchor_sizes needs one size for each of the 5"),
        ({"head_norm": "ln"}, "norm is None, 'bn', 'gn' or 'gn32'"),
    ],
)
def test_wrong_options_say_what_is_right(options, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny(**options)
