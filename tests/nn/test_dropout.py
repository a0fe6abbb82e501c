"""Dropout of the fully connected layers: what it keeps, what its numbers hang on, where it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from maskwright.errors import OptionError
from maskwright.models import build
from maskwright.nn.detection.box_head import BoxHead
from maskwright.nn.detection.poolers import AlignPooler
from maskwright.nn.detection.roi_heads import RoIHeads
from maskwright.nn.detection.samplers import BalancedSampler
from maskwright.nn.dropout import RegionNoise, drop_units
from maskwright.nn.random import ImageNoise, RandomSource
from maskwright.structures import Instances

KEYS = torch.tensor([123456789012345, -987654321, 42])


def regions(source: RandomSource) -> RegionNoise:
    return RegionNoise(source, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 3, 0, 1, 2]))


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize(
    "source", [ImageNoise(torch.arange(300) * 7919), torch.Generator().manual_seed(0), None]
)
def test_the_expectation_stays(share: float, source: RandomSource) -> None:
    """Of 300 x 400 units, each of them 2, as many are dropped as should be."""
    torch.manual_seed(0)
    noise = RegionNoise(source, torch.arange(300), torch.zeros(300, dtype=torch.int64))
    found = drop_units(torch.full((300, 400), 2.0), share, noise.uniform(0, 400))
    torch.testing.assert_close(found.unique(), torch.tensor([0, 2 / (1 - share)]))
    spread = 2 * (share / (1 - share)) ** 0.5  # standard deviation of one unit
    assert abs(float(found.mean()) - 2) < 4 * spread / 120_000**0.5
    for axis in (0, 1):  # no unit and no region is favoured
        means = found.mean(axis)
        assert float((means - 2).abs().max()) < 5 * spread / found.shape[axis] ** 0.5


def test_the_numbers_hang_on_image_and_slot_alone() -> None:
    whole = regions(ImageNoise(KEYS)).uniform(0, 16)
    assert len(whole.unique()) == whole.numel(), "all regions and units differ"
    # The third image alone, and only one of its regions.
    alone = RegionNoise(ImageNoise(KEYS[2:]), torch.tensor([0]), torch.tensor([2]))
    assert torch.equal(alone.uniform(0, 16), whole[4:])
    other = regions(ImageNoise(KEYS)).uniform(1, 16)
    assert not (other[..., None] == whole.flatten()).any(), "each layer has its own"
    drawn = [regions(torch.Generator().manual_seed(seed)).uniform(0, 16) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def make_case(dropout: float) -> tuple[RoIHeads, tuple[Any, ...]]:
    torch.manual_seed(0)
    head = BoxHead(4, 2, pool=3, fcs=2, width=16, dropout=dropout)
    heads = RoIHeads(head, pooler=AlignPooler((8,)), sampler=BalancedSampler(6, 0.5))
    gt = torch.tensor([[[8.0, 8, 40, 40]], [[20.0, 10, 60, 50]]])
    corner = torch.rand(2, 9, 2) * 30
    boxes = torch.cat([corner, corner + 10 + torch.rand(2, 9, 2) * 30], 2)
    yes = torch.ones(2, 9, dtype=torch.bool)
    proposals = Instances(boxes, torch.zeros(2, 9, dtype=torch.int64), yes)
    targets = Instances(gt, torch.tensor([[0], [1]]), yes[:, :1])
    return heads, ([torch.randn(2, 4, 8, 8)], proposals, targets, torch.full((2, 2), 64))


def test_the_loss_is_that_of_units_dropped_by_hand() -> None:
    heads, (maps, proposals, targets, sizes) = make_case(0.5)
    source = ImageNoise(KEYS[:2])
    found = heads.losses(maps, proposals, targets, sizes, generator=source)
    boxes, gt, sample = heads.sample(proposals, targets, generator=source)
    assert sample.valid.all()
    image = torch.arange(2).repeat_interleave(6)
    slot = torch.arange(6).repeat(2)
    x = heads.pool(maps, boxes.flatten(0, 1), image, 3).permute(0, 2, 3, 1).flatten(1)
    for number, layer in enumerate(heads.box_head.fcs):
        kept = RegionNoise(source, image, slot).uniform(number, 16) >= 0.5
        x = F.relu(layer(x)) * kept * 2
    labels = torch.where(sample.positive, targets.labels.gather(1, gt), 2).flatten()
    expected = F.cross_entropy(heads.box_head.logits(x), labels)
    torch.testing.assert_close(found["roi/class"], expected)


def test_nothing_is_dropped_outside_of_training() -> None:
    heads, case = make_case(0.5)
    plain, _ = make_case(0.0)
    source = ImageNoise(KEYS[:2])
    losses = [h.losses(*case, generator=source)["roi/class"].item() for h in (heads, plain)]
    assert losses[0] != losses[1]
    heads.eval()
    plain.eval()
    losses = [h.losses(*case, generator=source)["roi/class"].item() for h in (heads, plain)]
    assert losses[0] == losses[1]
    maps, proposals, _, sizes = case
    options = {"score_thresh": 0.0, "nms_thresh": 0.5, "max_det": 8}
    for mode in (False, True):  # predictions have none in either mode
        heads.train(mode)
        scores = [h.predict(maps, proposals, sizes, **options).scores for h in (heads, plain)]
        assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("rcnn_alexnet", 0.5),
        ("rcnn_vgg16", 0.5),
        ("sppnet_vgg16", 0.5),
        ("fast_rcnn_vgg16", 0.5),
        ("faster_rcnn_vgg16", 0.5),
        ("fast_rcnn_resnet50", 0.0),
        ("rcnn_lite0", 0.0),
        ("faster_rcnn_lite0_dc5", 0.0),
    ],
)
def test_dropout_is_where_it_was_published(name: str, share: float) -> None:
    with torch.device("meta"):
        assert build(name, 3).roi_heads.box_head.dropout == share
        assert build(name, 3, dropout=0.3).roi_heads.box_head.dropout == 0.3
        with pytest.raises(OptionError, match="dropout must be a share"):
            build(name, 3, dropout=1.0)
