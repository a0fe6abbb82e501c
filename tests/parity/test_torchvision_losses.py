"""Losses of torchvision's Mask R-CNN with the same weights and sampled boxes: the same here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskwright.converters.torchvision import from_maskwright
from maskwright.drawing.scene import drawn_scene
from maskwright.nn.detection.samplers import Sample
from maskwright.structures import Images, Instances, PackedMasks
from maskwright.timing.comparable import random_predictor

CLASSES = 3
SIZES = [(128, 160), (96, 144)]
BOXES = [[[10.5, 12, 60, 70.25], [50, 40, 150, 120], [100, 5, 120, 30]], [[4, 8, 90, 90]]]
NAMES = {
    "loss_objectness": "rpn/objectness",
    "loss_rpn_box_reg": "rpn/box",
    "loss_classifier": "roi/class",
    "loss_box_reg": "roi/box",
    "loss_mask": "roi/mask",
}


def discs() -> tuple[Instances, list[dict[str, Tensor]]]:
    """Return ellipses that fill their boxes, for us and as torchvision wants them."""
    slots = max(map(len, BOXES))
    boxes = torch.zeros(2, slots, 4)
    frames = torch.zeros(2, slots, 4, dtype=torch.int64)
    offsets, labels = torch.zeros(2, slots, dtype=torch.int64), torch.zeros_like(frames[..., 0])
    valid = torch.zeros(2, slots, dtype=torch.bool)
    crops: list[Tensor] = []
    theirs = []
    for i, (objects, (height, width)) in enumerate(zip(BOXES, SIZES, strict=True)):
        y, x = np.mgrid[:height, :width] + 0.5
        full = []
        for k, (x1, y1, x2, y2) in enumerate(objects):
            away = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2
            mask = torch.from_numpy(away <= 0.25).to(torch.uint8)
            full.append(mask)
            frame = (int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2)))
            boxes[i, k] = torch.tensor(objects[k])
            frames[i, k] = torch.tensor(frame)
            offsets[i, k], labels[i, k], valid[i, k] = sum(map(len, crops)), k % CLASSES, True
            crops.append(mask[frame[1] : frame[3], frame[0] : frame[2]].flatten())
        count = len(objects)
        theirs.append(
            {
                "boxes": boxes[i, :count],
                "labels": labels[i, :count] + 1,
                "masks": torch.stack(full),
            }
        )
    masks = PackedMasks(torch.cat(crops), offsets, frames)
    return Instances(boxes, labels, valid, masks=masks), theirs


def test_same_losses_and_gradients_for_the_same_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"conventions": "torchvision", "norm": "frozen"}
    predictor = random_predictor(
        "mask_rcnn_resnet18_fpn", CLASSES, drawn_scene(256, 320), options=options
    )
    detector: Any = predictor.detector.train()
    targets, their_targets = discs()
    generator = torch.Generator().manual_seed(0)
    photos = [torch.rand(3, *size, generator=generator) for size in SIZES]
    pixels = torch.zeros(2, 3, *SIZES[0])
    for i, (photo, (height, width)) in enumerate(zip(photos, SIZES, strict=True)):
        pixels[i, :, :height, :width] = 255 * photo
    sizes = torch.tensor(SIZES)
    seen: dict[str, Any] = {}

    def watch(owner: Any, method: str) -> None:
        inner = getattr(owner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen[method] = inner(*args, **kwargs)
            return seen[method]

        monkeypatch.setattr(owner, method, call)

    watch(detector.rpn, "sampler")
    watch(detector.roi_heads, "sample")
    losses = detector.losses(Images(pixels, sizes, sizes), targets, generator=generator)
    sum(losses.values()).backward()

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    # Images as they come; boxes of a padded side, as ours, are found by nobody in training.
    peer = MaskRCNN(backbone, CLASSES + 1, _skip_resize=True).train()
    state, _ = from_maskwright(detector.state_dict(), {}, predictor.meta.category_ids)
    peer.load_state_dict(state)
    peer.rpn.fg_bg_sampler = lambda labels: rpn_sample(seen["sampler"], len(labels[0]))
    roi_heads = peer.roi_heads

    def roi_sample(proposals: list[Tensor], given: list[dict[str, Tensor]]) -> Any:
        boxes, matched, sample = seen["sample"]
        chosen, rows, labels, truth = [], [], [], []
        for i, target in enumerate(given):
            valid = sample.valid[i]
            row = matched[i][valid]
            chosen.append(boxes[i][valid])
            rows.append(row)
            labels.append(torch.where(sample.positive[i][valid], target["labels"][row], 0))
            truth.append(target["boxes"][row])
        return chosen, rows, labels, roi_heads.box_coder.encode(truth, chosen)

    monkeypatch.setattr(roi_heads, "select_training_samples", roi_sample)
    theirs = peer(photos, their_targets)
    sum(theirs.values()).backward()

    assert int(seen["sample"][2].positive.sum()) > 4
    for name, own in NAMES.items():
        torch.testing.assert_close(losses[own], theirs[name], rtol=1e-4, atol=1e-5)
    gradients = {name: weight.grad for name, weight in detector.named_parameters()}
    own_gradients, _ = from_maskwright(
        {**detector.state_dict(), **gradients}, {}, predictor.meta.category_ids
    )
    # A ReLU whose input is a rounding away from zero may pass the gradient on one side only; behind
    # the last layers there is none.
    last = ("cls_logits", "cls_score", "bbox_pred", "mask_fcn_logits")
    for name, weight in peer.named_parameters():
        away = float((own_gradients[name] - weight.grad).norm() / weight.grad.norm())
        assert away < (1e-4 if any(part in name for part in last) else 2e-2), name


def rpn_sample(sample: Sample, anchors: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the sampled anchors as torchvision wants them: positives and negatives by image."""
    masks: tuple[list[Tensor], list[Tensor]] = ([], [])
    for slot, positive, valid in zip(*sample, strict=True):
        for part, chosen in zip(masks, (positive & valid, ~positive & valid), strict=True):
            mask = torch.zeros(anchors, dtype=torch.bool)
            mask[slot[chosen]] = True
            part.append(mask)
    return masks
