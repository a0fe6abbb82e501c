"""Fast R-CNN: its parts against other implementations, its options, and its regions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from test_contract import OBJECTS, SIZES, make_images, make_targets

from maskwright.errors import OptionError
from maskwright.hub.backbone_weights import apply_pretrained
from maskwright.models import PostProcess, build
from maskwright.models.detection.fast_rcnn import TINY
from maskwright.models.detection.regions import _rescale
from maskwright.nn.detection.box_head import BoxHead
from maskwright.nn.detection.matchers import IoUMatcher
from maskwright.nn.detection.poolers import MapPooler, nearest_scale

BOXES = torch.tensor([[0.0, 0, 40, 40], [10, 20, 200, 120], [5, 5, 500, 300], [30, 8, 62, 200]])
INDEX = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("kind", ["pool", "align"])
def test_regions_of_one_map_are_those_of_torchvision(kind: str) -> None:
    maps = torch.randn(2, 5, 20, 32)
    pooled = MapPooler(16, kind=kind)([maps], BOXES, INDEX, 7)
    rois = torch.cat([INDEX[:, None].float(), BOXES], 1)
    if kind == "pool":
        expected = torchvision.ops.roi_pool(maps, rois, 7, 1 / 16)
    else:
        expected = torchvision.ops.roi_align(maps, rois, 7, 1 / 16, 2, True)
    torch.testing.assert_close(pooled, expected)


def test_pooling_has_two_kinds() -> None:
    with pytest.raises(OptionError, match=r"'pool' .* or 'align'"):
        MapPooler(16, kind="max")


def test_each_region_comes_from_the_scale_where_it_is_nearest_to_224() -> None:
    scales = (480, 576, 688, 864, 1200)
    ratios = [scale / 1200 for scale in scales]
    boxes = torch.tensor([[0.0, 0, side, side] for side in (30, 260, 350, 480, 570, 1100)])
    # The rule by hand: the side at each scale, and the least difference of areas.
    expected = [
        min(range(5), key=lambda i: abs((side * ratios[i]) ** 2 - 224**2))
        for side in (30, 260, 350, 480, 570, 1100)
    ]
    assert nearest_scale(boxes, ratios).tolist() == expected
    assert expected[0] == 4 and expected[-1] == 0 and len(set(expected)) > 3


@pytest.mark.parametrize("training", [False, True])
def test_regions_at_several_scales_are_pooled_one_by_one(training: bool) -> None:
    scales = (48, 96, 160)
    maps = [torch.randn(2, 3, 2 * s // 16, 3 * s // 16, requires_grad=training) for s in scales]
    boxes = torch.tensor([[0.0, 0, 230, 150], [10, 5, 40, 60], [0, 0, 240, 160], [3, 3, 240, 150]])
    boxes = torch.cat([boxes, boxes * 3])
    index = torch.arange(8) % 2
    pooled = MapPooler(16, scales=scales)(maps, boxes, index, 4)
    for row, (box, image) in enumerate(zip(boxes, index, strict=True)):
        area = (box[2] - box[0]) * (box[3] - box[1])
        gaps = [abs(area * (s / 160) ** 2 - 224**2) for s in scales]
        best = gaps.index(min(gaps))
        roi = torch.cat([image[None].float(), box * scales[best] / 160])[None]
        expected = torchvision.ops.roi_pool(maps[best], roi, 4, 1 / 16)
        torch.testing.assert_close(pooled[row : row + 1], expected)
    if training:
        pooled.sum().backward()
        assert all(single.grad is not None for single in maps)


def test_smaller_images_of_the_pyramid_are_those_of_the_image_alone() -> None:
    pixels = torch.randn(1, 3, 64, 96)
    sizes = torch.tensor([[64, 96]])
    small = _rescale(pixels, sizes, 0.5)
    expected = F.interpolate(pixels, (32, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(small, expected)
    assert _rescale(pixels, sizes, 1) is pixels
    padded = torch.zeros(1, 3, 128, 128)
    padded[:, :, :64, :96] = pixels
    inner = _rescale(padded, sizes, 0.5)
    torch.testing.assert_close(inner[:, :, :31, :47], expected[:, :, :31, :47])
    assert not inner[:, :, 32:].any() and not inner[:, :, :, 48:].any()


def test_background_has_a_floor_except_in_images_without_objects() -> None:
    gt = torch.tensor([[[0.0, 0, 100, 100]], [[0, 0, 0, 0]]])
    valid = torch.tensor([[True], [False]])
    sides = torch.tensor([60.0, 40, 20, 71])  # IoU 0.36, 0.16, 0.04, 0.504
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), sides, sides], 1)
    state = IoUMatcher(0.5, 0.5, floor=0.1)(boxes, gt, valid).state
    assert state.tolist() == [[0, 0, -1, 1], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="floor"):
        IoUMatcher(0.5, 0.5, floor=0.6)


def tiny(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("fast_rcnn_vgg16", 2, **{**TINY, **options})


@pytest.mark.parametrize(
    "options", [{"pooling": "align"}, {"imgsz": None, "scales": (48, 64, 96)}, {"stride": 8}]
)
def test_variants_train_and_predict(options: dict[str, object]) -> None:
    detector = tiny(**options)
    losses = detector.losses(make_images(SIZES), make_targets(OBJECTS))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
    with torch.no_grad():
        out = detector.eval()(make_images(SIZES), PostProcess(score_thresh=0.01))
    assert out.valid.any()


def test_scales_rule_the_input_in_training_and_at_test() -> None:
    detector = tiny(imgsz=None, scales=(480, 576, 688, 864, 1200))
    assert (detector.resize.short, detector.resize.long) == (1200, 2000)
    assert detector.train_scales == (480, 576, 688, 864, 1200)
    with torch.no_grad():
        maps = detector.eval().features(make_images([(160, 192)]))
    assert [tuple(m.shape[2:]) for m in maps] == [(4, 5), (5, 6), (6, 7), (8, 9), (10, 12)]
    assert tiny().train_scales == ()


def test_scales_of_a_compiled_graph_are_those_of_eager_code() -> None:
    detector = tiny(imgsz=None, scales=(48, 64, 96)).eval()
    compiled = torch.compile(detector, fullgraph=True, backend="eager")
    images, post = make_images(SIZES), PostProcess(score_thresh=0.01)
    with torch.no_grad():
        expected, out = detector(images, post), compiled(images, post)
    torch.testing.assert_close(out.scores, expected.scores)
    torch.testing.assert_close(out.boxes, expected.boxes, rtol=1e-4, atol=1e-3)


def test_lambda_and_beta_act_on_the_box_loss_alone() -> None:
    images, targets = make_images(SIZES), make_targets(OBJECTS)

    def losses(**options: object) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        return tiny(**options).losses(images, targets, generator=generator)

    plain, heavy, sharp = losses(), losses(box_loss_weight=3.0), losses(beta=0.01)
    torch.testing.assert_close(heavy["roi/class"], plain["roi/class"])
    torch.testing.assert_close(heavy["roi/box"], 3 * plain["roi/box"])
    torch.testing.assert_close(sharp["roi/class"], plain["roi/class"])
    assert sharp["roi/box"] > plain["roi/box"]


def test_images_without_proposals_are_refused_and_empty_ones_find_nothing() -> None:
    detector = tiny().eval()
    images = make_images(SIZES)
    with pytest.raises(ValueError, match="no proposals"):
        detector(replace(images, proposals=None))
    none = replace(images.proposals, valid=torch.zeros_like(images.proposals.valid))
    with torch.no_grad():
        assert not detector(replace(images, proposals=none), PostProcess(0.0)).valid.any()
    losses = detector.losses(replace(images, proposals=none), make_targets(OBJECTS))
    assert all(torch.isfinite(value) for value in losses.values()), "the objects are regions too"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 12}, "stride must be 4, 8, 16 or 32"),
        ({"scales": (600,), "imgsz": 600}, "leave one out"),
        ({"scales": (5,), "imgsz": None}, "scales must be whole numbers"),
        ({"pooling": "mean"}, "pooling is"),
        ({"beta": 0.0}, "beta must be above 0"),
        ({"background": 0.7}, "background must lie"),
        ({"rois": 0}, "rois must be"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny(**options)


def test_the_head_starts_from_the_classifier_of_a_vgg() -> None:
    """The region that is the whole image gives what timm's network computes from it."""
    torch.manual_seed(0)
    whole = timm.create_model("vgg11", mlp_ratio=0.01).eval()  # layers of 40 and 4096
    detector = build("fast_rcnn_vgg16", 2, backbone="vgg11", box_width=40, box_fcs=1).eval()
    report = apply_pretrained(detector, whole.state_dict(), "a test")
    assert report == "a test, 1 fully connected layers included"
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = whole.pre_logits.fc1(whole.features(x)).relu().flatten(1)
        # RoIPool's last pixel counts as inside: 13 of 14 pixels are the whole map.
        whole_image = torch.tensor([[0.0, 0, 13 * 16, 13 * 16]])
        head = detector.roi_heads.box_head
        maps = detector.backbone(x)
        hidden = head.hidden(detector.roi_heads.pool(maps, whole_image, torch.tensor([0]), 7))
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


def test_layers_of_a_classifier_are_taken_while_they_fit() -> None:
    head = BoxHead(4, 2, pool=3, fcs=2, width=8)
    first, second = torch.nn.Conv2d(4, 8, 3), torch.nn.Linear(8, 8)
    layers = [(first.weight, first.bias), (second.weight[..., None, None], second.bias)]
    assert head.load_classifier(layers) == 2
    x = torch.randn(5, 4, 3, 3)
    expected = second(first(x).flatten(1).relu()).relu()
    torch.testing.assert_close(head.hidden(x), expected)
    assert head.load_classifier([(torch.zeros(9, 4, 3, 3), torch.zeros(9)), layers[1]]) == 0
