"""Faster R-CNN on one map beside torchvision's, assembled there with the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign, roi_pool
from torchvision.ops.misc import FrozenBatchNorm2d

from maskwright.models import PostProcess, TwoStageDetector, build
from maskwright.nn.detection.samplers import BalancedSampler
from maskwright.structures import Images, Instances

CLASSES, SIDES = 3, (24.0, 48.0, 80.0)


class OneMap(nn.Module):
    """The stages of a ResNet up to C4 as torchvision's detectors want a backbone."""

    out_channels = 256

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        return body.layer3(body.layer2(body.layer1(x)))


class Res5(nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.layer4 = body.layer4

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x).mean((2, 3))


class MaxPool(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Any, proposals: list[Tensor], sizes: Any) -> Tensor:
        return roi_pool(next(iter(features.values())), proposals, self.side, 1 / 16)


def pair(head: str, pooling: str) -> tuple[FasterRCNN, TwoStageDetector]:
    """torchvision's model and ours with equal weights, scaled so that scores have an order."""
    torch.manual_seed(0)
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    side = 14 if head == "res5" else 7
    width = 512 if head == "res5" else 32
    model = FasterRCNN(
        OneMap(body),
        min_size=96,
        max_size=400,
        rpn_anchor_generator=AnchorGenerator((SIDES,), ((0.5, 1.0, 2.0),)),
        rpn_head=RPNHead(256, 9),
        rpn_pre_nms_top_n_train=120,
        rpn_pre_nms_top_n_test=400,
        rpn_post_nms_top_n_train=20,
        rpn_post_nms_top_n_test=20,
        rpn_batch_size_per_image=4000,
        box_roi_pool=MultiScaleRoIAlign(["0"], side, 2),
        box_head=Res5(body) if head == "res5" else TwoMLPHead(256 * 49, width),
        box_predictor=FastRCNNPredictor(width, CLASSES + 1),
        box_batch_size_per_image=4000,
    )
    if pooling == "pool":
        model.roi_heads.box_roi_pool = MaxPool(side)
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    with torch.no_grad():
        model.rpn.head.cls_logits.weight.mul_(20)
        model.rpn.head.bbox_pred.weight.mul_(3)
        model.roi_heads.box_predictor.cls_score.weight.mul_(0.3 if head == "res5" else 3)
    detector = build(
        "faster_rcnn_resnet18_c4",
        CLASSES,
        head=head,
        pooling=pooling,
        box_width=width,
        rpn_width=256,
        anchor_sizes=SIDES,
        proposals=20,
        train_proposals=20,
        rois=4000,
        imgsz=(96, 400),
        conventions="torchvision",
    )
    assert isinstance(detector, TwoStageDetector)
    detector.rpn.sampler = BalancedSampler(4000, 0.5)
    theirs = model.state_dict()
    state = {}
    for key in detector.state_dict():
        name = key.replace("rpn.convs.0.", "rpn.head.conv.0.0.")
        name = name.replace("rpn.logits", "rpn.head.cls_logits")
        name = name.replace("rpn.deltas", "rpn.head.bbox_pred")
        name = name.replace("box_head.logits", "box_predictor.cls_score")
        name = name.replace("box_head.deltas", "box_predictor.bbox_pred")
        name = name.replace("fcs.0", "fc6").replace("fcs.1", "fc7")
        value = theirs[name]
        if "cls_score" in name:
            value = value.roll(-1, 0)  # background first there, last here
        elif "bbox_pred" in name and "roi_heads" in name:
            value = value[4:]
        elif "fc6.weight" in name:
            value = value.unflatten(1, (256, 7, 7)).permute(0, 2, 3, 1).flatten(1)
        state[key] = value
    detector.load_state_dict(state)
    return model, detector


def make_images() -> tuple[list[Tensor], Images]:
    generator = torch.Generator().manual_seed(3)
    pixels = [torch.rand(3, 96, w, generator=generator) for w in (160, 128)]
    batch = torch.zeros(2, 3, 96, 160)
    for i, image in enumerate(pixels):
        batch[i, :, :, : image.shape[2]] = image * 255
    sizes = torch.tensor([[96, 160], [96, 128]])
    return pixels, Images(batch, sizes, sizes)


CASES = [("res5", "align"), ("res5", "pool"), ("fc", "pool"), ("fc", "align")]


@pytest.mark.parametrize(("head", "pooling"), CASES)
def test_same_detections_as_an_assembly_of_torchvision(head: str, pooling: str) -> None:
    model, detector = pair(head, pooling)
    pixels, images = make_images()
    with torch.no_grad():
        expected = model.eval()(pixels)
        found = detector.eval()(images, PostProcess(0.05, 0.5, 100))
    for i, theirs in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(theirs["boxes"]) > 5
        assert torch.equal(found.labels[i, :count] + 1, theirs["labels"])
        torch.testing.assert_close(found.scores[i, :count], theirs["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes[i, :count], theirs["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "pooling"),
    [*(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[:2]), CASES[2]],
)
def test_same_losses_and_gradients_as_an_assembly_of_torchvision(head: str, pooling: str) -> None:
    """All anchors and proposals are sampled on both sides, so nothing is left to chance.

    In double precision: in single, rounding decides which of two almost equal pixels is a maximum
    of RoIPool.
    """
    model, detector = (side.double() for side in pair(head, pooling))
    pixels, images = make_images()
    pixels = [one.double() for one in pixels]
    images = replace(images, pixels=images.pixels.double())
    boxes = torch.tensor([[[8.0, 8, 60, 70], [90, 20, 150, 90]], [[20, 10, 100, 60], [0, 0, 0, 0]]])
    boxes = boxes.double()
    valid = torch.tensor([[True, True], [True, False]])
    labels = torch.tensor([[0, 2], [1, 0]])
    goals = [
        {"boxes": boxes[i][valid[i]], "labels": labels[i][valid[i]] + 1} for i in range(len(boxes))
    ]
    theirs = model.train()(pixels, goals)
    ours = detector.train().losses(images, Instances(boxes, labels, valid))
    for mine, other in (
        ("rpn/objectness", "loss_objectness"),
        ("rpn/box", "loss_rpn_box_reg"),
        ("roi/class", "loss_classifier"),
        ("roi/box", "loss_box_reg"),
    ):
        assert theirs[other] > 0
        assert float(ours[mine].detach()) == pytest.approx(
            float(theirs[other].detach()), rel=1e-6, abs=1e-7
        )
    sum(theirs.values()).backward()
    sum(ours.values()).backward()
    body = model.backbone.body
    for layer in ("layer2", "layer3", "layer4") if head == "res5" else ("layer2", "layer3"):
        mine = detector.backbone.get_submodule(f"body.{layer}.0.conv1").weight.grad
        other = getattr(body, layer)[0].conv1.weight.grad
        assert float((mine - other).norm()) < 1e-5 * float(other.norm()) > 0
