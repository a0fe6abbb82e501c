"""torchvision's RetinaNet with random weights: the same detections, losses and gradients here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from maskwright.converters.torchvision import from_maskwright, to_maskwright
from maskwright.models import PostProcess, build
from maskwright.structures import Images, Instances

CLASSES = 4  # one of which is of nothing
NAMES = ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"]


def theirs_and_ours(name: str):
    """A model whose scores differ enough to have an order, and ours with its weights."""
    torch.manual_seed(0)
    model = getattr(detection, name)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=128,
        max_size=160,
    )
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "bn" in key and key.endswith("weight"):
            value.uniform_(0.3, 0.8)
    with torch.no_grad():
        for key, value in model.head.named_parameters():
            if ".conv." in key and value.dim() == 4:
                torch.nn.init.kaiming_normal_(value)
        # Scores above the threshold, but no more than the suppression leaves room for.
        model.head.classification_head.cls_logits.weight.mul_(5 if name.endswith("v2") else 14)
        model.head.regression_head.bbox_reg.weight.mul_(2)
    options = {"imgsz": (128, 160)}
    with torch.device("meta"):
        names = list(build(name, 1, **options).state_dict())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    converted = to_maskwright(state, names)
    ours = build(name, len(converted.names), **options, **converted.options)
    ours.load_state_dict(converted.state)
    return model, ours, converted, state


def batch() -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, 128, 160, generator=generator) * 255
    size = torch.tensor([[128, 160]] * 2)
    return Images(pixels, size, size)


@pytest.mark.parametrize("name", NAMES)
def test_same_detections_and_the_way_back(name: str) -> None:
    model, ours, converted, state = theirs_and_ours(name)
    model.eval(), ours.eval()
    model.detections_per_img, model.score_thresh = 900, 0.3
    images = batch()
    with torch.no_grad():
        expected = model([one / 255 for one in images.pixels])
        found = ours(images, PostProcess(0.3, 0.5, 900))
    for b, wanted in enumerate(expected):
        real = wanted["labels"] > 0  # class 0 is of nothing, and of no use to us
        suppressed_alone = wanted["boxes"][real]  # suppression goes by class
        count = int(found.valid[b].sum())
        assert len(wanted["boxes"]) < 900
        assert count == len(suppressed_alone) > 10
        assert torch.equal(found.labels[b, :count] + 1, wanted["labels"][real])
        torch.testing.assert_close(
            found.scores[b, :count], wanted["scores"][real], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(found.boxes[b, :count], suppressed_alone, rtol=2e-5, atol=1e-3)
    back, report = from_maskwright(ours.state_dict(), converted.extras, converted.category_ids)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert not report.filled


def speck_and_stripe() -> Instances:
    """An object that anchors fit, a speck and a stripe that none fits; an empty image."""
    boxes = torch.zeros(2, 3, 4)
    boxes[0] = torch.tensor([[20.0, 30, 70, 90], [100, 50, 103, 52], [5, 100, 155, 108]])
    labels = torch.tensor([[0, 1, 2], [0, 0, 0]])
    valid = torch.tensor([[True, True, True], [False, False, False]])
    return Instances(boxes, labels, valid)


@pytest.mark.parametrize("name", NAMES)
def test_same_losses_and_gradients(name: str) -> None:
    model, ours, converted, _ = theirs_and_ours(name)
    images, targets = batch(), speck_and_stripe()
    # Statistics of the norms stay, on both sides.
    model.train(), ours.train()
    for one in (model, ours):
        for layer in one.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
    wanted = model(
        [one / 255 for one in images.pixels],
        [
            {"boxes": boxes[valid], "labels": labels[valid] + 1}
            for boxes, labels, valid in zip(
                targets.boxes, targets.labels, targets.valid, strict=True
            )
        ],
    )
    found = ours.losses(images, targets)
    # What their class 0 adds: the loss of logits of which none is true.
    torch.testing.assert_close(found["dense/box"], wanted["bbox_regression"], rtol=1e-4, atol=1e-5)
    extra = class_zero(model, images)
    torch.testing.assert_close(
        found["dense/class"] + extra, wanted["classification"], rtol=1e-4, atol=1e-4
    )
    (wanted["classification"] - extra + wanted["bbox_regression"]).backward()
    sum(found.values()).backward()
    back, _ = from_maskwright(
        {key: value.grad for key, value in ours.named_parameters() if value.grad is not None},
        {key: torch.zeros_like(value) for key, value in converted.extras.items()},
        converted.category_ids,
    )
    compared = 0
    for key, value in model.named_parameters():
        if value.grad is None or key not in back:
            continue
        off = (back[key] - value.grad).norm()
        assert off <= 5e-3 * value.grad.norm() + 1e-6, key
        compared += 1
    assert compared > 50


def class_zero(model: torch.nn.Module, images: Images) -> Tensor:
    """The loss of the logits of class 0, divided as theirs."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (model.transform.image_mean, model.transform.image_std)
    )
    maps = list(model.backbone((images.pixels / 255 - mean) / std).values())
    logits = model.head.classification_head(maps)[..., 0].double()
    anchors = model.anchor_generator(
        detection.image_list.ImageList(images.pixels, [(128, 160)] * 2), maps
    )
    total = torch.zeros((), dtype=torch.float64)
    for row, boxes, one in zip(logits, anchors, range(2), strict=True):
        targets = speck_and_stripe()
        real = targets.boxes[one][targets.valid[one]]
        used = torch.ones(len(boxes), dtype=torch.bool)
        positives = 0
        if len(real):
            from torchvision.ops import box_iou

            iou = box_iou(real, boxes)
            best = iou.max(0).values
            foremost = (iou == iou.max(1, keepdim=True).values).any(0)
            positive = (best >= 0.5) | foremost
            used = positive | (best < 0.4)
            positives = int(positive.sum())
        p = row.sigmoid()
        each = 0.75 * p**2 * torch.nn.functional.softplus(row)
        total = total + each[used].sum() / max(1, positives)
    return (total / 2).float()


def test_older_names_are_understood() -> None:
    _, _, converted, state = theirs_and_ours(NAMES[0])
    older = {}
    for key, value in state.items():
        if "_head.conv." in key:
            head, _, rest = key.partition(".conv.")
            number, _, kind = rest.split(".")
            key = f"{head}.conv.{2 * int(number)}.{kind}"
        older[key] = value
    again = to_maskwright(older, list(converted.state))
    assert again.options == {"conventions": "torchvision_v1"}
    assert all(torch.equal(again.state[key], converted.state[key]) for key in converted.state)
