"""mmdetection's RetinaNet, SSD and version 1 against a plain second implementation."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from detectron2_forms import as_images, photo
from plain_mmdetection import Traps, faster_rcnn_1, retinanet, ssd300
from torch import Tensor

from maskwright.converters.detectron2 import their_names
from maskwright.converters.mmdetection import from_maskwright
from maskwright.models import PostProcess, build
from maskwright.nn.norm import FrozenBatchNorm2d

NARROW = {"width": 16, "convs": 1, "p6_of_p5": False}
LIMITS = {"retinanet": (0.05, 0.5, 100), "ssd": (0.02, 0.45, 200), "version 1": (0.05, 0.5, 100)}


@cache
@torch.no_grad()
def made(kind: str) -> Any:
    """A detector by mmdetection's rules whose weights and statistics are anything."""
    torch.manual_seed(2)
    name, options = {
        "retinanet": ("retinanet_resnet50_fpn", NARROW),
        "ssd": ("ssd300_vgg16", {}),
        "version 1": ("faster_rcnn_resnet50_fpn", {"width": 16, "box_width": 32}),
    }[kind]
    rules = "mmdetection_v1" if kind == "version 1" else "mmdetection"
    model = build(name, 3, **options, conventions=rules).eval()
    for layer in model.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.running_var.uniform_(0.7, 1.4)
    images = as_images(pixels(kind), model.size_divisor)
    levels = model.features(images)
    if kind == "version 1":
        for level, feature in zip(model.fpn.output, levels, strict=False):
            level[0].weight /= feature.std()
        out, head = model.rpn(model.features(images)), model.rpn
    else:
        if kind == "retinanet":
            for level, feature in zip(model.fpn.output, levels, strict=False):
                level[0].weight /= feature.std()
            model.head.logits.bias.fill_(-3.0)
        out, head = model.head(model.features(images), tuple(images.pixels.shape[2:])), model.head
    last = ([head.logits], [head.deltas]) if kind == "version 1" else head.last_layers
    spreads = (3.2, 0.8) if kind == "ssd" else (1.6, 0.4)
    for layers, values, spread in zip(last, (out.logits, out.deltas), spreads, strict=True):
        each = values if len(layers) > 1 else [torch.cat(values, 1)]
        for layer, value in zip(layers, each, strict=True):
            layer.weight *= spread / value.std()
    if kind == "version 1":
        box = model.roi_heads.box_head
        box.logits.weight *= 30
        box.deltas.weight *= 30
    return model


def pixels(kind: str) -> Tensor:
    size = (300, 300) if kind == "ssd" else (76, 100)
    return torch.from_numpy(photo(size)).permute(2, 0, 1).float()


@cache
@torch.no_grad()
def ours(kind: str) -> list[Tensor]:
    conf, iou, most = LIMITS[kind]
    model = made(kind)
    images = as_images(pixels(kind), model.size_divisor)
    found = model(images, PostProcess(score_thresh=conf, nms_thresh=iou, max_det=most))
    valid = found.valid[0]
    return [value[0][valid] for value in (found.boxes, found.scores, found.labels)]


@torch.no_grad()
def plain(kind: str, traps: Traps | None = None) -> tuple[Tensor, ...]:
    state, _ = from_maskwright(made(kind).state_dict(), {}, [1, 2, 3])
    return (retinanet if kind == "retinanet" else ssd300)(state, pixels(kind), traps)


def far(a: Any, b: Any) -> float:
    """Pixels between boxes of the same place, infinite where the detections are not the same."""
    if len(a[0]) != len(b[0]) or not torch.equal(a[2], b[2]):
        return float("inf")
    return float((a[0] - b[0]).abs().max())


@pytest.mark.parametrize("kind", ["retinanet", "ssd"])
def test_finds_what_a_plain_implementation_finds(kind: str) -> None:
    found, wanted = ours(kind), plain(kind)
    assert len(found[0]) > 20 and len(found[2].unique()) > 1
    assert far(found, wanted) < 1e-2
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-5)


TRAPS = [
    *(("retinanet", trap) for trap in ("relu", "size_outer", "rounded", "half_cell", "clip_last")),
    *(("ssd", trap) for trap in ("half_cell", "background_first", "unit_norm", "long_first")),
]


@pytest.mark.parametrize(("kind", "trap"), TRAPS)
def test_each_trap_gives_other_detections(kind: str, trap: str) -> None:
    wrong = plain(kind, Traps(**{trap: not Traps._field_defaults[trap]}))
    assert far(ours(kind), wrong) > 1e-2


@torch.no_grad()
def test_version_1_counts_the_last_pixel() -> None:
    """Its boxes end a pixel before ours, which are the same; anchors lie in the middle of cells."""
    own = made("version 1").state_dict()
    state = {key: own[name] for name, key in their_names(own).items()}
    fc = state["roi_heads.box_head.fc1.weight"].unflatten(1, (7, 7, 16))
    state["roi_heads.box_head.fc1.weight"] = fc.permute(0, 3, 1, 2).flatten(1)
    found, wanted = ours("version 1"), faster_rcnn_1(state, pixels("version 1"))
    assert len(found[0]) > 20
    ends = wanted[0] + torch.tensor([0, 0, 1, 1])
    assert far(found, (ends, *wanted[1:])) < 1e-2
    assert far(found, wanted) > 0.9
    corner = faster_rcnn_1(state, pixels("version 1"), centred=False)
    assert far(found, (corner[0] + torch.tensor([0, 0, 1, 1]), *corner[1:])) > 1
