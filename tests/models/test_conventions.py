"""What the rules of other libraries change in boxes, levels, statistics and losses, in numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from crowded_boxes import crowd
from torchvision.ops import nms

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.models.conventions import CONVENTIONS
from maskwright.nn.detection.box_head import BoxHead
from maskwright.nn.detection.dense.head import DenseOutput
from maskwright.ops.pooling.roi_align import fpn_levels
from maskwright.structures import Images, Instances

TINY: dict[str, Any] = {"backbone": "resnet18", "width": 16, "imgsz": 96}


def box_head(rules: str) -> Any:
    return build(
        "faster_rcnn_resnet18_fpn", 1, box_width=8, **TINY, conventions=rules
    ).roi_heads.box_head


def decoded(
    head: BoxHead, deltas: list[list[float]], scores: list[float], size: int = 400, **limits: Any
) -> Any:
    """What a head makes of one proposal, 100 pixels a side, with these deltas and scores."""
    count = len(deltas)
    rois = torch.tensor([[100.0, 100, 200, 200]]).expand(1, count, 4)
    return head.decode(
        torch.tensor(scores).view(1, count, 1),
        torch.tensor(deltas).view(1, count, 1, 4),
        rois,
        torch.ones(1, count, dtype=torch.bool),
        torch.tensor([[size, size]]),
        **{"score_thresh": 0.05, "nms_thresh": 0.5, "max_det": 2, **limits},
    )


FREE = 100 * math.exp(-6.0)


@pytest.mark.parametrize(
    ("rules", "width"),
    [("mmdetection", 1.6), ("mmdetection_v1", 1.6), ("detectron2", FREE), ("detectron", FREE)],
)
def test_mmdetection_bounds_deltas_below(rules: str, width: float) -> None:
    head = box_head(rules)
    boxes, _, _, valid, _ = decoded(head, [[0, 0, -30.0, 0]], [0.9])
    assert valid[0].tolist() == [True, False]
    assert float(boxes[0, 0, 2] - boxes[0, 0, 0]) == pytest.approx(width, rel=1e-3)
    boxes, *_ = decoded(head, [[990.0, 0, 30.0, 0]], [0.9], size=20_000)  # far from all sides
    assert float(boxes[0, 0, 2] - boxes[0, 0, 0]) == pytest.approx(6250, rel=1e-4)
    clamp = build("faster_rcnn_resnet18_fpn", 1, **TINY, conventions=rules).rpn.clamp
    high = math.log(1000 / 16)
    assert clamp == ((-high, high) if rules.startswith("mmdetection") else high)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [("detectron2", 2), ("mmdetection", 1), ("mmdetection_caffe", 1), ("torchvision", 1)],
)
def test_boxes_of_retinanet_are_clipped_behind_the_nms_in_detectron2(rules: str, kept: int) -> None:
    """Boxes that reach beyond the image: whole they overlap by half, clipped they are one."""
    head = build("retinanet_resnet18_fpn", 1, **TINY, convs=0, conventions=rules).head
    anchors = torch.tensor([[-100.0, 0, 50, 50], [-25.0, 0, 50, 50]])
    output = DenseOutput([torch.tensor([[[2.0], [1.0]]])], [torch.zeros(1, 2, 4)], [anchors])
    size = torch.tensor([[96, 96]])
    images = Images(torch.zeros(1, 3, 96, 96), size, size)
    found = head.detect(output, images, score_thresh=0.05, nms_thresh=0.6, max_det=5)
    assert int(found.valid.sum()) == kept
    assert (found.boxes[found.valid] == torch.tensor([0.0, 0, 50, 50])).all()


@pytest.mark.parametrize(("rules", "kept"), [("torchvision", [0.8, 0.7]), ("detectron2", [0.8])])
def test_a_box_without_area_takes_its_place_in_detectron2(rules: str, kept: list[float]) -> None:
    """The best box lies beyond the image: gone at once, or once two boxes are chosen."""
    deltas = [[30.0, 0, 0, 0], [0, 0, 0, 0], [10.0, 0, 0, 0]]
    _, scores, _, valid, slot = decoded(box_head(rules), deltas, [0.9, 0.8, 0.7])
    assert scores[valid].tolist() == pytest.approx(kept)
    assert valid[0].tolist() == [True, len(kept) > 1] and int(slot[0, 0]) == 1


def test_equal_scores_go_by_their_place() -> None:
    deltas = [[10.0, 0, 0, 0], [0, 0, 0, 0], [-10.0, 0, 0, 0]]
    for order in ([0, 1, 2], [2, 0, 1]):
        boxes, *_ = decoded(
            box_head("detectron2"), [deltas[i] for i in order], [0.5] * 3, max_det=3
        )
        wanted = [100 + 10 * deltas[i][0] for i in order]
        assert boxes[0, :, 0].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("rules", "moved"),
    [
        ("maskwright", ()),
        ("mmdetection_v1", ()),
        ("detectron2", (600,)),
        ("torchvision", (600,)),
        ("mmdetection", (600, 1100)),
    ],
)
@pytest.mark.parametrize("count", [600, 1100])
def test_classes_are_kept_apart_as_in_the_library(rules: str, moved: Any, count: int) -> None:
    """By moving boxes, which rounds them: by up to 1000 or any number of boxes, or not at all."""
    boxes, scores, labels = crowd(count, 13 if count == 600 else 17)
    every = torch.zeros(1, count, 80)
    every[0, torch.arange(count), labels] = scores
    head = build(
        "faster_rcnn_resnet18_fpn", 80, box_width=8, **TINY, conventions=rules
    ).roi_heads.box_head
    *_, valid, slot = head.decode(
        every,
        torch.zeros(1, count, 80, 4),
        boxes[None],
        torch.ones(1, count, dtype=torch.bool),
        torch.tensor([[2000, 2000]]),
        score_thresh=0.0,
        nms_thresh=0.5,
        max_det=count,
    )
    first = 1 if rules == "torchvision" else 0
    far = (labels + first).float()[:, None] * (boxes.max() + 1)
    by_moving = nms(boxes + far, scores, 0.5).tolist()
    alone = nms(boxes.double() + far, scores.double(), 0.5).tolist()
    assert by_moving != alone
    assert slot[0][valid[0]].tolist() == (by_moving if count in moved else alone)


def test_levels_differ_at_the_border_of_two() -> None:
    """A side of 224 less 3e-7 of it: torchvision's small number lifts it, detectron2's does not."""
    side = 224 * (1 - 3e-7)
    boxes = torch.tensor([[0.0, 0, side, side], [0, 0, 500, 500], [0, 0, 10, 10]])
    strides = (4, 8, 16, 32)
    assert fpn_levels(boxes, strides, "torchvision").tolist() == [2, 3, 0]
    assert fpn_levels(boxes, strides, "detectron2").tolist() == [1, 3, 0]
    assert fpn_levels(boxes[1:], strides, "mmdetection").tolist() == [3, 0]
    reversed_box = torch.tensor([[10.0, 0, 0, 10]])
    assert fpn_levels(reversed_box, strides, "detectron2").tolist() == [-1]


@pytest.mark.parametrize("name", ["faster_rcnn_resnet18_fpn", "retinanet_resnet18_fpn"])
def test_statistics_of_pixels_are_red_green_blue(name: str) -> None:
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    for rules in ("detectron2", "mmdetection"):
        made = build(name, 1, **TINY, conventions=rules, pixel_mean=mean, pixel_std=std)
        assert made.fill == mean
        order = -1 if made.bgr else 1
        assert made.std.flatten().tolist() == list(std[::order])
    with pytest.raises(OptionError, match="pixel_std is red,green,blue"):
        build(name, 1, **TINY, pixel_std=(1.0, 0.0, 1.0))


def test_only_what_has_no_pyramid_goes_without_padding() -> None:
    made = {rules: build("faster_rcnn_resnet18_c4", 1, conventions=rules) for rules in CONVENTIONS}
    bare = {rules for rules, model in made.items() if model.size_divisor == 1}
    assert bare == {rules for rules in CONVENTIONS if rules.startswith("detectron")}
    assert build("faster_rcnn_resnet18_fpn", 1, **TINY, conventions="detectron2").size_divisor == 32


def test_losses_of_retinanet_by_a_running_mean() -> None:
    """Each step takes a tenth of the batch's positive anchors into the mean, from 100 on."""
    torch.manual_seed(0)
    options = {**TINY, "convs": 1, "anchor_sizes": (8, 16, 32, 64, 96), "box_loss": "smooth_l1"}
    made = build("retinanet_resnet18_fpn", 2, **options, conventions="detectron2", norm="frozen")
    size = torch.tensor([[96, 96]])
    images = Images(torch.rand(1, 3, 96, 96) * 255, size, size)
    boxes = torch.tensor([[[10.0, 10, 42, 42], [50, 50, 90, 80]]])
    targets = Instances(boxes, torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    anchors = torch.cat(made.judged(images).anchors)
    positive = int((made.head.matcher(anchors, boxes, targets.valid).state == 1).sum())
    assert positive > 2 and made.head.box.beta == 0.1
    mean, sums = 100.0, []
    for _ in range(2):
        losses = made.losses(images, targets)
        mean = 0.9 * mean + 0.1 * positive
        assert float(made.head.positives) == pytest.approx(mean)
        sums.append({key: float(value.detach()) * mean for key, value in losses.items()})
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    with torch.no_grad():
        made.losses(images, targets)  # of a validation
    assert float(made.head.positives) == pytest.approx(mean)
    assert "head.positives" in made.state_dict()
    plain = build("retinanet_resnet18_fpn", 2, **options)
    assert not plain.head.running and "head.positives" not in plain.state_dict()
