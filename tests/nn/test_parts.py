"""Anchors, matcher, sampler, pyramid and backbones against torchvision or plain references."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator as TVAnchors
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskwright.nn.backbones.backbone import Backbone
from maskwright.nn.detection.anchors import AnchorGenerator
from maskwright.nn.detection.matchers import IoUMatcher
from maskwright.nn.detection.samplers import BalancedSampler
from maskwright.nn.fpn import FPN
from maskwright.nn.norm import FrozenBatchNorm2d
from maskwright.nn.random import ImageNoise, streams


def random_boxes(count: int, side: float, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * side / 2], 1)


def test_anchors_equal_torchvision() -> None:
    sizes, ratios = ((32,), (64,), (128,)), (0.5, 1.0, 2.0)
    maps = [(25, 38), (13, 19), (7, 10)]
    reference = TVAnchors(sizes, (ratios,) * 3)
    features = [torch.zeros(1, 1, *size) for size in maps]
    images = ImageList(torch.zeros(1, 3, 100, 152), [(100, 152)])
    expected = reference(images, features)[0]
    ours = AnchorGenerator((32, 64, 128), ratios, (4, 8, 16), rounded=True, stride_from_maps=True)
    assert torch.equal(torch.cat(ours(maps, (100, 152))), expected)


def test_anchors_have_the_asked_area_ratio_and_centre() -> None:
    ours = AnchorGenerator((32,), (0.5, 2.0), (8,))
    (boxes,) = ours([(2, 3)], (16, 24))
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    torch.testing.assert_close(width * height, torch.full((12,), 1024.0))
    torch.testing.assert_close((height / width).view(6, 2), torch.tensor([[0.5, 2.0]]).expand(6, 2))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(centres[-1], torch.tensor([16.0, 8.0]))


@pytest.mark.parametrize("sizes", [(32, 64), (32, (1, 2), 3), (0, 1, 2)])
def test_anchors_refuse_sizes_that_do_not_fit(sizes: tuple) -> None:
    with pytest.raises(ValueError, match="anchor"):
        AnchorGenerator(sizes, (1.0,), (4, 8, 16))


@pytest.mark.parametrize("low_quality", [False, True])
def test_matcher_equals_torchvision(low_quality: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks, so that the running maximum over blocks is exercised.
    monkeypatch.setattr("maskwright.ops.overlaps._BLOCK", 1500)
    generator = torch.Generator().manual_seed(0)
    boxes, gt = random_boxes(400, 100, generator), random_boxes(9, 100, generator)
    gt[3] = gt[2]  # a tie between two objects
    iou = torchvision.ops.box_iou(gt, boxes)
    expected = Matcher(0.5, 0.3, low_quality)(iou)
    match = IoUMatcher(0.5, 0.3, low_quality=low_quality)(
        boxes, gt[None], torch.ones(1, 9, dtype=torch.bool)
    )
    state = torch.where(expected >= 0, 1, torch.where(expected == -1, 0, -1))
    assert torch.equal(match.state[0].long(), state)
    positive = expected >= 0
    assert positive.sum() > 9
    assert torch.equal(match.slot[0][positive], expected[positive])


def test_matcher_ignores_empty_slots_and_what_lies_in_crowds() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]])
    gt = torch.tensor([[[0.0, 0, 10, 10], [45, 45, 70, 70], [80, 80, 90, 90]]])
    valid = torch.tensor([[True, True, False]])
    crowd = torch.tensor([[False, True, False]])
    match = IoUMatcher(0.5, 0.5)(boxes, gt, valid, crowd)
    assert match.state.tolist() == [[1, -1, 0]]
    none = IoUMatcher(0.5, 0.5, low_quality=True)(boxes, gt, torch.zeros_like(valid))
    assert none.state.tolist() == [[0, 0, 0]]


def test_sampler_takes_its_share_of_positives_and_fills_with_negatives() -> None:
    state = torch.zeros(3, 100, dtype=torch.int8)
    state[0, :40] = 1  # more positives than wanted
    state[1, :3] = 1  # fewer
    state[1, 50:] = -1
    state[2] = -1  # nothing to take
    sample = BalancedSampler(32, 0.25)(state, generator=torch.Generator().manual_seed(0))
    assert sample.positive.sum(1).tolist() == [8, 3, 0]
    assert sample.valid.sum(1).tolist() == [32, 32, 0]
    taken = state.gather(1, sample.slot)
    assert bool((taken[sample.positive] == 1).all())
    assert bool((taken[sample.valid & ~sample.positive] == 0).all())
    for image in range(2):
        chosen = sample.slot[image][sample.valid[image]]
        assert len(chosen.unique()) == len(chosen)
    # Positives first: heads that work on positives only rely on it.
    assert sample.positive[0, :8].all()


def test_sampler_is_uniform() -> None:
    state = torch.zeros(1, 20, dtype=torch.int8)
    counts = torch.zeros(20)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2000):
        counts[BalancedSampler(5, 0.5)(state, generator=generator).slot[0]] += 1
    # Binomial with p = 1/4: 500 +- 19; five standard deviations.
    assert (counts - 500).abs().max() < 97


def test_image_noise_is_uniform_and_independent() -> None:
    """Against what uniform, independent numbers do: moments, even bins, no correlation."""
    noise = ImageNoise(torch.arange(40) + 2**40)  # neighbouring keys
    values = noise.uniform(torch.arange(5000)).double()
    assert values.shape == (40, 5000) and bool(((values >= 0) & (values < 1)).all())
    bins = torch.histc(values, 100, 0, 1)
    chi = ((bins - 2000) ** 2 / 2000).sum()
    assert 60 < float(chi) < 150  # 99 degrees of freedom: 0.1% lie outside 61 to 149
    centred = (values - 0.5) * 12**0.5
    for other in (
        centred.roll(1, 0),
        centred.roll(1, 1),
        (noise.stream(0).uniform(torch.arange(5000)).double() - 0.5) * 12**0.5,
    ):
        assert abs(float((centred * other).mean())) < 4 / 200_000**0.5
    assert len(torch.unique(noise.stream(0).keys)) == 40
    assert not torch.equal(noise.stream(0).keys, noise.stream(1).keys)


def test_image_noise_hangs_on_image_and_name_alone() -> None:
    keys = torch.tensor([5, -7, 2**62])
    noise = ImageNoise(keys)
    whole = noise.uniform(torch.arange(1000))
    assert torch.equal(ImageNoise(keys[1:2]).uniform(torch.arange(300))[0], whole[1, :300])
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise.uniform(order), whole[:, order])
    assert torch.equal(noise.uniform(order.expand(3, -1)), whole[:, order])
    # The hash is part of what a seed means: other numbers would be other trainings.
    first = [[5223522, 15968624], [13147822, 8747499], [10743760, 5766969]]
    assert (whole[:, :2] * 2**24).int().tolist() == first
    # Candidates in another order: the same ones are taken.
    state = torch.arange(1000).expand(3, -1) % 7 - 1
    state = torch.where(state > 1, 0, state).to(torch.int8)
    sampler = BalancedSampler(40, 0.25)
    plain = sampler(state, generator=noise)
    mixed = sampler(state[:, order], generator=noise, ids=order.expand(3, -1))
    assert torch.equal(order[mixed.slot], plain.slot)
    assert torch.equal(mixed.positive, plain.positive)
    generator = torch.Generator()
    assert streams(generator, 2) == [generator, generator] and streams(None, 1) == [None]


def test_fpn_equals_torchvision() -> None:
    torch.manual_seed(0)
    channels = (8, 12, 16, 20)
    ours = FPN(channels, (4, 8, 16, 32), 10)
    theirs = FeaturePyramidNetwork(list(channels), 10, LastLevelMaxPool())
    names = {"lateral": "inner_blocks", "output": "layer_blocks"}
    state = {}
    for key, value in ours.state_dict().items():
        part, rest = key.split(".", 1)
        state[f"{names[part]}.{rest}"] = value
    theirs.load_state_dict(state)
    maps = [torch.randn(2, c, s, s + 3) for c, s in zip(channels, (37, 19, 10, 5), strict=True)]
    expected = list(theirs({str(i): m for i, m in enumerate(maps)}).values())
    assert ours.strides == (4, 8, 16, 32, 64)
    for a, b in zip(ours(maps), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnext50_32x4d", pytest.param("resnext101_32x8d", marks=pytest.mark.slow)],
)
def test_resnet_equals_torchvision(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = Backbone(name).eval()
    state = {k: v for k, v in theirs.state_dict().items() if k in ours.body.state_dict()}
    ours.body.load_state_dict(state)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i, ours_map in enumerate(ours(x)):
            expected = getattr(theirs, f"layer{i + 1}")(expected)
            # Frozen norm multiplies and adds once; the difference is rounding.
            assert float((ours_map - expected).norm() / expected.norm()) < 1e-5
            assert ours_map.shape[1] == ours.channels[i]


def test_frozen_batch_norm_equals_batch_norm_in_evaluation() -> None:
    torch.manual_seed(0)
    reference = torch.nn.BatchNorm2d(5, eps=1e-3).eval()
    for value in reference.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    frozen = FrozenBatchNorm2d(5, eps=1e-3)
    frozen.load_state_dict(
        {k: v for k, v in reference.state_dict().items() if k != "num_batches_tracked"}
    )
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(frozen(x), reference(x))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_100"])
def test_backbone_freezes_by_stage_and_keeps_its_statistics(name: str) -> None:
    backbone = Backbone(name)
    stages = backbone.body.stages()
    assert len(stages) == 5
    every = {id(p) for p in backbone.parameters()}
    assert {id(p) for s in stages for m in s for p in m.parameters()} == every
    backbone.freeze(2)
    for index, modules in enumerate(stages):
        flags = {p.requires_grad for m in modules for p in m.parameters()}
        assert flags == {index >= 2}, index
    backbone.train()
    before = {k: v.clone() for k, v in backbone.named_buffers()}
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 64 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]
    assert all(torch.equal(before[k], v) for k, v in backbone.named_buffers())
    with pytest.raises(ValueError, match="freeze must lie in"):
        backbone.freeze(6)


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet", "vgg11"])
def test_backbone_ends_with_the_deepest_map_that_is_wanted(name: str) -> None:
    backbone = Backbone(name, strides=(16,)).eval()
    (single,) = backbone(torch.randn(1, 3, 64, 96))
    assert single.shape == (1, *backbone.channels, 4, 6)
    stages = backbone.body.stages()
    assert len(stages) == 4, "the stem, and what leads to the maps at strides 4, 8 and 16"
    single.sum().backward()
    unused = [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    if name == "vgg11":  # the first blocks of convolutions, conv1 and conv2, are the stem
        convs = [[m for m in stage if isinstance(m, torch.nn.Conv2d)] for stage in stages]
        assert [len(stage) for stage in convs] == [2, 2, 2, 2]
    else:
        deep = Backbone(name).eval()
        deep.load_state_dict(backbone.state_dict(), strict=False)
        torch.testing.assert_close(
            deep(torch.ones(1, 3, 64, 64))[2:3], backbone(torch.ones(1, 3, 64, 64))
        )
    with pytest.raises(ValueError, match="strides are rising ones"):
        Backbone(name, strides=(16, 8))


def test_backbone_with_live_norm_updates_only_unfrozen_stages() -> None:
    backbone = Backbone("resnet18", norm="bn")
    backbone.freeze(2)
    backbone.train()
    backbone(torch.randn(2, 3, 64, 64))
    body = backbone.body
    assert body.layer1[0].bn1.running_mean.abs().max() == 0
    assert body.layer2[0].bn1.running_mean.abs().max() > 0


def test_unknown_backbone_names_neighbours() -> None:
    with pytest.raises(ValueError, match="efficientnet_b0"):
        Backbone("efficientnet_lite00")
    with pytest.raises(ValueError, match="strides"):
        Backbone("vit_tiny_patch16_224")
