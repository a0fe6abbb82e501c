"""Mask R-CNN on C4: one stage of the backbone feeds boxes and masks (He et al. 2017, fig. 4)."""

from __future__ import annotations

import torch
from test_contract import OBJECTS, SIZES, make_images, make_targets
from torch import nn
from torchvision.ops import roi_align

from maskwright.models import PostProcess, TwoStageDetector, build
from maskwright.models.detection.faster_rcnn_single import TINY


def make_detector() -> TwoStageDetector:
    torch.manual_seed(0)
    detector = build("mask_rcnn_resnet50_c4", 2, **{**TINY, "backbone": "test_efficientnet"})
    assert isinstance(detector, TwoStageDetector)
    with torch.no_grad():
        detector.roi_heads.box_head.logits.weight.mul_(100)
    return detector


def test_masks_equal_the_layers_one_by_one() -> None:
    detector, images = make_detector().eval(), make_images(SIZES)
    with torch.no_grad():
        out = detector(images, PostProcess(score_thresh=0.01, max_det=8))
        (c4,) = detector.features(images)
        assert out.mask_crops is not None and out.mask_crops.shape == (2, 8, 14, 14)
        head = detector.roi_heads.mask_head
        assert isinstance(head, nn.Module)
        for image in range(2):
            kept = out.valid[image]
            boxes, labels = out.boxes[image][kept], out.labels[image][kept]
            pooled = roi_align(c4[image : image + 1], [boxes], 14, 1 / 16, 2, True)
            seen = detector.backbone.tail(pooled)
            assert seen.shape[2:] == (7, 7)
            maps = head.logits(head.upsample(seen).relu()).sigmoid()
            expected = maps[torch.arange(len(labels)), labels]
            torch.testing.assert_close(out.mask_crops[image][kept], expected, rtol=1e-4, atol=1e-4)


def test_masks_and_boxes_train_the_shared_stage() -> None:
    detector = make_detector().train()
    losses = detector.losses(make_images(SIZES), make_targets(OBJECTS))
    tail = [p for m in detector.backbone.body.stages()[4] for p in m.parameters()]
    tail = [p for p in tail if p.requires_grad]
    for term in ("roi/mask", "roi/box"):
        grads = torch.autograd.grad(losses[term], tail, retain_graph=True, allow_unused=True)
        assert all(g is not None and g.abs().sum() > 0 for g in grads), term
    unused = torch.autograd.grad(losses["rpn/box"], tail, retain_graph=True, allow_unused=True)
    assert all(g is None for g in unused)
