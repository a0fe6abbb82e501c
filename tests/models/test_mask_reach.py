"""Masks that go on beyond their boxes (`mask_reach`)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.models.registry import get_entry
from maskwright.nn.detection.mask_head import ConvMaskHead, MaskOutput
from maskwright.nn.detection.roi_heads import RoIHeads
from maskwright.ops import paste_masks
from maskwright.structures import Images, Instances, PackedMasks, widened
from maskwright.tasks.detection.views import to_detections

REACH = 1.75  # of a box of 16 pixels: 28, as many as a mask has cells
SIZE = (64, 80)


class Seeing(ConvMaskHead):
    """A head that knows what belongs to an object: what is bright in its region."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.pool = 28

    def forward(
        self, roi_feats: Tensor, pyramid: Any, boxes: Tensor, batch_index: Tensor, labels: Tensor
    ) -> MaskOutput:
        return MaskOutput(((roi_feats[:, 0] - 0.5) * 100,))

    def targets(self, *given: Any, **named: Any) -> Any:
        self.pool = 14  # masks of a convolutional head are twice as wide as what it sees
        made = super().targets(*given, **named)
        self.pool = 28
        return made


def pixels_of(maps: Sequence[Tensor], boxes: Tensor, image: Tensor, side: int) -> Tensor:
    """Take regions from the image itself, with another library's operator."""
    regions = torch.cat([image[:, None].to(boxes), boxes], 1)
    return roi_align(maps[0], regions, side, 1.0, 1, True)


def heads(reach: float) -> RoIHeads:
    box_head: Any = nn.Identity()
    box_head.maps = lambda maps: maps
    return RoIHeads(box_head, Seeing(), pooler=pixels_of, mask_reach=reach)


def with_reach(name: str, reach: Any) -> Any:
    return build(name, 2, **{**get_entry(name).tiny, "mask_reach": reach})


def scene() -> tuple[Images, Instances, Tensor]:
    """An object of 20 x 24 pixels with a hole, and a box that leaves out two of its sides."""
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[20:44, 30:50] = True
    truth[28:33, 36:41] = False
    frame = torch.tensor([[[30, 20, 50, 44]]])
    data = truth[20:44, 30:50].flatten().to(torch.uint8)
    masks = PackedMasks(data, torch.zeros(1, 1, dtype=torch.int64), frame)
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Instances(frame.float(), torch.zeros(1, 1, dtype=torch.int64), one, masks=masks)
    size = torch.tensor([SIZE])
    return Images(truth[None, None].float(), size, size), targets, truth


BOX = torch.tensor([[[32.0, 24, 48, 40]]])  # the object sticks out on all sides


@pytest.mark.parametrize(("reach", "whole"), [(REACH, True), (1.0, False)])
def test_a_mask_is_whole_though_its_box_is_not(reach: float, whole: bool) -> None:
    images, targets, truth = scene()
    found = Instances(BOX, targets.labels, targets.valid, torch.ones(1, 1))
    with torch.no_grad():
        made = heads(reach).refine([images.pixels], found)
    (one,) = to_detections(made, images, reach)
    assert torch.equal(one.boxes, BOX[0]), "the box stays what it is"
    (mask,) = paste_masks(one.mask_probs, one.mask_frames, SIZE)
    assert torch.equal(mask, truth) == whole
    inside = torch.zeros_like(truth)
    inside[24:40, 32:48] = truth[24:40, 32:48]
    if not whole:
        assert torch.equal(mask, inside)
    assert one.keep(torch.tensor([True])).mask_reach == reach


def test_what_is_to_be_learned_lies_in_the_same_frame() -> None:
    """A head that sees all has nothing to learn; one that looks elsewhere than it is told has."""
    images, targets, _ = scene()
    model = heads(REACH)
    one = torch.ones(1, 1, dtype=torch.bool)
    drawn = (BOX, targets.labels, SimpleNamespace(positive=one, valid=one))
    model.sample = lambda *_, **__: drawn  # type: ignore[assignment,method-assign,return-value]
    model.box_losses = lambda *_: {}  # type: ignore[method-assign]
    loss = model.losses([images.pixels], targets, targets, images.sizes)["roi/mask"]
    assert loss < 1e-6
    model.mask_reach = 1.2
    head: Any = model.mask_head
    other = head.targets(targets, widened(BOX, REACH), targets.labels, one, images.sizes, [])
    seen = model.regions_for_branches([images.pixels], BOX[0], torch.zeros(1).long(), None)
    wrong = head.loss(MaskOutput(((seen[28, 1.2][:, 0] - 0.5) * 100,)), other, one[0])["roi/mask"]
    assert wrong > 1


@pytest.mark.parametrize("name", ["mask_rcnn", "refine_mask", "cascade_mask_rcnn"])
def test_masks_of_all_heads_have_the_frames_that_the_model_tells(name: str) -> None:
    """A head that says yes everywhere fills its frame: the box, and as far as the option goes."""
    torch.manual_seed(0)
    model = with_reach(f"{name}_resnet50_fpn", 1.5).eval()
    assert model.mask_reach == 1.5
    for part, values in model.roi_heads.mask_head.named_parameters():
        values.data.fill_(30.0 if part.endswith("bias") else 0.0)
    size = torch.tensor([[96, 96]])
    images = Images(torch.rand(1, 3, 96, 96) * 255, size, size)
    labels = torch.zeros(1, 1, dtype=torch.int64)
    found = Instances(torch.tensor([[[20.0, 32, 60, 64]]]), labels, labels == 0, torch.ones(1, 1))
    with torch.no_grad():
        made = model.refine(images, found)
    (one,) = to_detections(made, images, model.mask_reach)
    (mask,) = paste_masks(one.mask_probs, one.mask_frames, (96, 96), thresh=0.3)
    goal = torch.zeros(96, 96, dtype=torch.bool)
    goal[24:72, 10:70] = True
    assert torch.equal(mask, goal)


@pytest.mark.parametrize("reach", [0.5, 4, "wide", True, float("nan")])
def test_a_reach_that_cannot_be_is_refused(reach: Any) -> None:
    with pytest.raises(OptionError, match="mask_reach must be a number from 1 to 3"):
        with_reach("mask_rcnn_resnet50_fpn", reach)


def test_detectors_without_masks_have_no_such_option() -> None:
    with pytest.raises(ValueError, match="has no option 'mask_reach'"):
        with_reach("faster_rcnn_resnet50_fpn", 1.5)
