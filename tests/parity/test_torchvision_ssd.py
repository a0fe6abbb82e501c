"""torchvision's SSD300 and SSDLite with random weights: equal boxes, detections and losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from maskwright.converters.torchvision import from_maskwright, to_maskwright
from maskwright.models import PostProcess, build
from maskwright.nn.detection.anchors import DefaultBoxes
from maskwright.structures import Images, Instances

CLASSES = 5  # with the background
NAMES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
SIDES = {300: (38, 19, 10, 5, 3, 1), 320: (20, 10, 5, 3, 2, 1)}  # of the maps
SLOW_LARGE = [pytest.param("ssd300_vgg16", marks=pytest.mark.slow), "ssdlite320_mobilenet_v3_large"]


def theirs_and_ours(name: str):
    """A model whose scores differ enough to have an order, and ours with its weights."""
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    spreads = {}
    for head, spread in ((model.head.classification_head, 2.0), (model.head.regression_head, 1.0)):
        for layer in head.module_list:
            spreads[layer[1] if isinstance(layer, nn.Sequential) else layer] = spread

    def scale(layer: nn.Conv2d, _, output):
        layer.weight.mul_(spreads[layer] / output.std())
        layer.bias.normal_(std=0.3)

    handles = [layer.register_forward_hook(scale) for layer in spreads]
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer not in spreads:
            nn.init.kaiming_normal_(layer.weight)
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0  # the statistics of one batch
    with torch.no_grad():
        pixels = batch(NAMES[name]).pixels
        mean, std = model.transform.image_mean[0], model.transform.image_std[0]
        model.train().head(list(model.backbone((pixels / 255 - mean) / std).values()))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.running_var.clamp_(min=0.1)  # of a map of one cell next to nothing: rounding alone
    for handle in handles:
        handle.remove()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.device("meta"):
        names = list(build(name, 1).state_dict())
    converted = to_maskwright(state, names)
    ours = build(name, len(converted.names), **converted.options)
    ours.load_state_dict(converted.state)
    model.double(), ours.double()  # rounding decides nothing
    return model, ours, converted, state


def batch(side: int, dtype: torch.dtype = torch.float32) -> Images:
    coarse = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255
    size = torch.tensor([[side, side]] * 2)
    return Images(pixels.to(dtype), size, size)


@pytest.mark.parametrize("name", SLOW_LARGE)
def test_same_detections_and_the_way_back(name: str) -> None:
    model, ours, converted, state = theirs_and_ours(name)
    model.eval(), ours.eval()
    model.detections_per_img, model.score_thresh, model.nms_thresh = 2000, 0.02, 0.5
    images = batch(NAMES[name], torch.float64)
    with torch.no_grad():
        expected = model([one / 255 for one in images.pixels])
        found = ours(images, PostProcess(0.02, 0.5, 2000))
    for b, wanted in enumerate(expected):
        count = int(found.valid[b].sum())
        assert count == len(wanted["boxes"]) > 20
        torch.testing.assert_close(found.scores[b, :count], wanted["scores"], rtol=0, atol=1e-5)
        assert torch.equal(found.labels[b, :count] + 1, wanted["labels"])
        torch.testing.assert_close(found.boxes[b, :count], wanted["boxes"], rtol=2e-5, atol=2e-3)
    back, report = from_maskwright(ours.state_dict(), converted.extras, converted.category_ids)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert not report.filled


def speck_and_stripe(side: int) -> Instances:
    """An object that boxes fit, two in one place, a speck and a stripe; an empty image."""
    boxes = torch.zeros(2, 5, 4)
    rows = [[20, 30, 70, 90], [21, 31, 70, 91], [100, 50, 103, 52], [5, 200, side - 5, 208]]
    boxes[0, :4] = torch.tensor(rows).float()
    valid = torch.zeros(2, 5, dtype=torch.bool)
    valid[0, :4] = True
    labels = torch.tensor([[0, 1, 2, 3, 0], [0] * 5])
    return Instances(boxes, labels, valid)


@pytest.mark.parametrize("name", SLOW_LARGE)
@pytest.mark.parametrize("empty", [False, True])
def test_same_losses_and_gradients(name: str, empty: bool) -> None:
    model, ours, converted, _ = theirs_and_ours(name)
    side = NAMES[name]
    images, targets = batch(side, torch.float64), speck_and_stripe(side)
    if empty:
        targets = Instances(targets.boxes, targets.labels, torch.zeros_like(targets.valid))
    model.train(), ours.train()
    for one in (model, ours):  # statistics of the norms stay, on both sides
        for layer in one.modules():
            if isinstance(layer, nn.BatchNorm2d):
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
    torch.testing.assert_close(found["dense/box"], wanted["bbox_regression"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["dense/class"], wanted["classification"], rtol=1e-4, atol=1e-5)
    if empty:
        assert not any(value.any() for value in found.values())
        return
    (wanted["classification"] + wanted["bbox_regression"]).backward()
    sum(found.values()).backward()
    grads = {
        key: torch.zeros_like(value) if getattr(value, "grad", None) is None else value.grad
        for key, value in ours.state_dict(keep_vars=True).items()
    }
    back, _ = from_maskwright(grads, {}, converted.category_ids)
    compared = 0
    for key, value in model.named_parameters():
        if value.grad is None or not back[key].any():
            continue
        off = (back[key] - value.grad).norm()
        assert off <= 1e-5 * value.grad.norm() + 1e-8, key
        compared += 1
    assert compared > 30


def test_files_of_other_networks_are_refused() -> None:
    _, _, converted, state = theirs_and_ours("ssdlite320_mobilenet_v3_large")
    ours = list(converted.state)
    with pytest.raises(
        ValueError, match=r"no tensor 'head.classification_head.module_list.5.1.bias'"
    ):
        less = {key: value for key, value in state.items() if not key.endswith("list.5.1.bias")}
        to_maskwright(less, ours)
    with pytest.raises(ValueError, match="network that has more"):
        to_maskwright(
            {**state, "backbone.extra.9.weight": state["backbone.extra.0.0.0.weight"]}, ours
        )
    with torch.device("meta"):
        others = list(build("ssdlite320_lite0", 1).state_dict())
    with pytest.raises(ValueError, match="SSDLite on MobileNetV3, on no other backbone"):
        to_maskwright(state, others)
    odd = dict(state)
    key = "head.classification_head.module_list.2.1.weight"
    odd[key] = odd[key][:-6]
    with pytest.raises(ValueError, match="not the same number of classes"):
        to_maskwright(odd, ours)


SETTINGS = {
    "ssd300": {
        "sizes": (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        "ratios": ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        "steps": (8, 16, 32, 64, 100, 300),
        "maps": ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)),
        "image": (300, 300),
    },
    "not capped": {
        "sizes": (0.6, 0.9, 1.2),
        "ratios": ((2, 3), (2,)),
        "maps": ((3, 3), (1, 1)),
        "image": (300, 300),
        "capped": False,
    },
    "ssdlite": {
        "sizes": (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        "ratios": ((2, 3),) * 6,
        "maps": ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)),
        "image": (320, 320),
    },
    "wide": {
        "sizes": (0.1, 0.4, 0.8),
        "ratios": ((), (1.5, 4)),
        "maps": ((12, 20), (6, 10)),
        "image": (192, 320),
    },
    "wide with steps": {
        "sizes": (0.05, 0.3, 0.9),
        "ratios": ((2,), (3,)),
        "steps": (16, 40),
        "maps": ((12, 20), (5, 8)),
        "image": (200, 330),
        "capped": False,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_same_default_boxes(name: str) -> None:
    given = SETTINGS[name]
    capped = given.get("capped", True)
    ours = DefaultBoxes(given["sizes"], given["ratios"], steps=given.get("steps"), capped=capped)
    theirs = DefaultBoxGenerator(
        [list(own) for own in given["ratios"]],
        scales=list(given["sizes"]),
        steps=given.get("steps"),
        clip=capped,
    )
    maps = [torch.zeros(1, 1, *size) for size in given["maps"]]
    images = ImageList(torch.zeros(1, 3, *given["image"]), [given["image"]])
    assert torch.equal(torch.cat(ours(given["maps"], given["image"])), theirs(images, maps)[0])
    assert list(ours.per_level) == theirs.num_anchors_per_location()


@pytest.mark.parametrize("name", NAMES)
def test_the_models_have_their_boxes(name: str) -> None:
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=2)
    ours = build(name, 1, conventions="torchvision")
    sides = SIDES[NAMES[name]]
    size = (NAMES[name], NAMES[name])
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    wanted = model.anchor_generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)[0]
    assert torch.equal(torch.cat(ours.head.anchors([(side, side) for side in sides], size)), wanted)
