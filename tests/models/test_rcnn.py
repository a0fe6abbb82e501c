"""R-CNN and SPPnet: warping and pooling against other implementations, options, weights."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torchvision
from test_contract import OBJECTS, SIZES, make_images, make_targets

from maskwright.errors import OptionError
from maskwright.hub.backbone_weights import apply_pretrained
from maskwright.models import PostProcess, build, build_tiny
from maskwright.models.detection.fast_rcnn import TINY
from maskwright.nn.backbones.alexnet import AlexNet
from maskwright.nn.backbones.backbone import Backbone
from maskwright.nn.detection.poolers import CropPooler, MapPooler


@pytest.mark.parametrize("context", [0, 3, 7])
def test_warped_regions_are_those_of_opencv(context: int) -> None:
    """An affine map of pixel centres, the region to the inner part of the square."""
    side = 32
    image = torch.randn(2, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[20.0, 15, 60, 40], [30.5, 20.25, 41.75, 44], [35, 25, 45, 35]])
    index = torch.tensor([0, 1, 1])
    warped = CropPooler(side, context)([image], boxes, index, 7)
    assert warped.shape == (3, 3, side, side)
    for region, box, number in zip(warped, boxes.tolist(), index.tolist(), strict=True):
        inner = side - 2 * context
        sx, sy = (box[2] - box[0]) / inner, (box[3] - box[1]) / inner
        # Pixel j of the square lies at x1 + (j + 0.5 - context) * sx, its centre at half-integers.
        matrix = np.array(
            [
                [sx, 0, box[0] + (0.5 - context) * sx - 0.5],
                [0, sy, box[1] + (0.5 - context) * sy - 0.5],
            ]
        )
        expected = cv2.warpAffine(
            image[number].permute(1, 2, 0).numpy(),
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderValue=(0, 0, 0),
        )
        # OpenCV rounds positions to 1/32 of a pixel.
        error = (region.permute(1, 2, 0).numpy() - expected).ravel()
        assert np.abs(error).mean() < 0.02 and np.abs(error).max() < 0.15


def test_outside_the_image_is_the_mean() -> None:
    image = torch.ones(1, 3, 40, 40)
    warped = CropPooler(32, 8)([image], torch.tensor([[0.0, 10, 16, 26]]), torch.tensor([0]), 1)
    # The region fills pixels 8 to 24; to its left are 8 pixels from outside the image.
    assert not warped[0, :, :, :7].any()
    torch.testing.assert_close(warped[0, :, 2:30, 9:], torch.ones(3, 28, 23))
    with pytest.raises(OptionError, match="context must lie"):
        CropPooler(32, 16)


def test_the_pyramid_is_the_pooling_at_each_level() -> None:
    maps = torch.randn(2, 5, 20, 32)
    boxes = torch.tensor([[0.0, 0, 200, 100], [30, 40, 400, 300], [5, 5, 60, 70]])
    index = torch.tensor([0, 1, 1])
    pooler = MapPooler(16, levels=(1, 2, 3, 6))
    assert pooler.bins == 50
    pooled = pooler([maps], boxes, index, 7)
    assert pooled.shape == (3, 5, 50, 1)
    rois = torch.cat([index[:, None].float(), boxes], 1)
    parts = [
        torchvision.ops.roi_pool(maps, rois, level, 1 / 16).flatten(2) for level in (1, 2, 3, 6)
    ]
    torch.testing.assert_close(pooled[..., 0], torch.cat(parts, 2))


def test_alexnet_is_that_of_torchvision() -> None:
    torch.manual_seed(0)
    whole = torchvision.models.alexnet().eval()
    detector = build("rcnn_alexnet", 2).eval()
    report = apply_pretrained(detector, whole.state_dict(), "a test")
    assert report == "a test, 2 fully connected layers included"
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = whole.classifier[:6](whole.avgpool(whole.features(x)).flatten(1))
        pooled = detector.tail(x)
        torch.testing.assert_close(pooled, whole.features(x))  # pool5
        hidden = detector.roi_heads.box_head.hidden(pooled)
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


def test_alexnet_offers_three_maps() -> None:
    backbone = Backbone("alexnet", strides=(4, 8, 16))
    shapes = [tuple(m.shape) for m in backbone(torch.randn(1, 3, 224, 224))]
    assert shapes == [(1, 64, 55, 55), (1, 192, 27, 27), (1, 256, 13, 13)]
    assert len(AlexNet(8).stages()) == 2
    backbone.freeze(1)
    assert [p.requires_grad for p in backbone.parameters()] == [False] * 2 + [True] * 8
    with pytest.raises(OptionError, match="strides 4, 8 and 16"):
        Backbone("alexnet", strides=(32,))


def test_regions_in_parts_are_regions_at_once() -> None:
    torch.manual_seed(0)
    detector = build_tiny("rcnn_alexnet").eval()
    images, post = make_images(SIZES), PostProcess(score_thresh=0.01)
    with torch.no_grad():
        whole = detector(images, post)
        detector.roi_heads.part = 4
        parts = detector(images, post)
    torch.testing.assert_close(parts.scores, whole.scores)
    torch.testing.assert_close(parts.boxes, whole.boxes)


@pytest.mark.parametrize("name", ["rcnn_alexnet", "sppnet_vgg16"])
def test_unfitted_detectors_give_softmax_scores_and_their_regions(name: str) -> None:
    torch.manual_seed(0)
    detector = build_tiny(name).eval()
    images = make_images(SIZES)
    with torch.no_grad():
        out = detector(images, PostProcess(score_thresh=0.0, nms_thresh=1.0, max_det=200))
    regions = images.proposals.boxes[0][images.proposals.valid[0]]
    found = out.boxes[0][out.valid[0]]
    distance = (found[:, None] - regions).abs().amax(2).amin(1)
    assert found.shape[0] == 2 * len(regions) and distance.max() < 1e-3


def test_the_convolutions_of_sppnet_are_fixed_unless_nothing_is() -> None:
    detector = build_tiny("sppnet_vgg16")
    detector.freeze(1)
    assert not any(p.requires_grad for p in detector.backbone.parameters())
    losses = detector.losses(make_images(SIZES), make_targets(OBJECTS))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
    detector.freeze(0)
    assert any(p.requires_grad for p in detector.backbone.parameters())


def test_sppnet_trains_on_all_scales_at_once() -> None:
    torch.manual_seed(0)
    options = {**TINY, "imgsz": None, "scales": (48, 96), "levels": (1, 2)}
    detector = build("sppnet_vgg16", 2, **options)
    assert detector.train_scales == ()
    seen = []
    handle = detector.backbone.register_forward_hook(lambda _, x, y: seen.append(y[0].shape[2:]))
    detector.losses(make_images(SIZES), make_targets(OBJECTS))
    handle.remove()
    assert [tuple(shape) for shape in seen] == [(3, 3), (6, 6)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sppnet_vgg16", {"levels": ()}, "levels must be"),
        ("sppnet_vgg16", {"levels": (0,)}, "levels must be"),
        ("sppnet_vgg16", {"classifier": "tree"}, "classifier is"),
        ("rcnn_alexnet", {"warp": 32, "context": 16}, "context must be a whole number"),
        ("rcnn_alexnet", {"svd": (10**6,)}, "has a rank from 1 to"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(name, 2, **{**TINY, **options})
