"""Backbones cut and dilated: C4 alone, C5's stage on regions, C5 at stride 16."""

from __future__ import annotations

import pytest
import torch
from tiny_models import random_norms
from torch import nn
from torchvision.models import resnet18

from maskwright.errors import OptionError
from maskwright.nn.backbones.backbone import Backbone
from maskwright.nn.backbones.resnet import RESNETS, ResNet

BACKBONES = ["resnet18", "test_efficientnet", "tf_efficientnet_lite0"]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_cut_backbone_gives_the_maps_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    whole, cut = Backbone(name).eval(), Backbone(name, strides=(16,)).eval()
    with_tail = Backbone(name, strides=(8, 16), tail=True).eval()
    random_norms(whole)
    cut.load_state_dict({k: v for k, v in whole.state_dict().items() if k in cut.state_dict()})
    with_tail.load_state_dict(whole.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, (c4,), (c3, same) = whole(x), cut(x), with_tail(x)
        assert torch.equal(c4, maps[2]) and torch.equal(same, c4) and torch.equal(c3, maps[1])
        assert torch.equal(with_tail.tail(c4), maps[3])
    assert (cut.channels, cut.strides) == ((whole.channels[2],), (16,))
    assert with_tail.tail_channels == whole.channels[3]
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_freezing_reaches_all_stages_of_a_cut_backbone(name: str) -> None:
    backbone = Backbone(name, norm="bn", strides=(16,), tail=True)
    assert all(p.requires_grad for p in backbone.parameters())
    backbone.freeze(4)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    in_tail = {id(p) for module in backbone.body.stages()[4] for p in module.parameters()}
    assert {id(p) for n, p in backbone.named_parameters() if n in trained} == in_tail != set()
    backbone.freeze(5)
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "stride_in_1x1"), [("resnet18", False), ("resnet50", False), ("resnet50", True)]
)
def test_every_second_pixel_of_the_dilated_map_is_the_strided_map(
    name: str, stride_in_1x1: bool
) -> None:
    torch.manual_seed(0)
    plain = ResNet(name, norm="bn", stride_in_1x1=stride_in_1x1).eval()
    random_norms(plain)
    dilated = ResNet(name, norm="bn", stride_in_1x1=stride_in_1x1, output_stride=16).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 96, 112)  # C4 has an odd side
    with torch.no_grad():
        c4, c5 = plain(x)[2:]
        same, fine = dilated(x)[2:]
    assert torch.equal(same, c4)
    assert fine.shape[-2:] == c4.shape[-2:]
    torch.testing.assert_close(fine[:, :, ::2, ::2], c5, rtol=1e-4, atol=1e-4 * c5.abs().max())


def test_dilated_resnet_beside_torchvision() -> None:
    """Other weights, another first convolution: only sizes and receptive fields are equal."""
    theirs = resnet18(weights=None).layer4
    ours = ResNet("resnet18", output_stride=16)
    assert {k: v.shape for k, v in theirs.state_dict().items() if "num_batches" not in k} == {
        k: v.shape for k, v in ours.layer4.state_dict().items() if "num_batches" not in k
    }


def test_vgg_ends_with_its_last_convolution_and_freezes_by_halvings() -> None:
    with torch.device("meta"):
        backbone = Backbone("vgg16", strides=(16,))
    assert (backbone.channels, backbone.strides) == ((512,), (16,))
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 13
    backbone.freeze(1)  # conv1 and conv2, as Ren et al. 2015 do
    assert [c.weight.requires_grad for c in convs] == [False] * 4 + [True] * 9


def test_what_cannot_be_cut_or_dilated_says_so() -> None:
    with torch.device("meta"):
        with pytest.raises(OptionError, match="no last stage that could run on regions"):
            Backbone("vgg16", strides=(16,), tail=True)
        with pytest.raises(OptionError, match="cannot dilate backbone 'densenet121'"):
            Backbone("densenet121", output_stride=16)


@pytest.mark.parametrize("name", [*BACKBONES, "vgg11_bn", "mobilenetv2_100"])
def test_the_map_at_stride_2_ends_the_stem(name: str) -> None:
    torch.manual_seed(0)
    coarse, fine = Backbone(name).eval(), Backbone(name, strides=(2, 4, 8, 16, 32)).eval()
    random_norms(coarse)
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        first, *others = fine(x)
        assert all(torch.equal(a, b) for a, b in zip(others, coarse(x), strict=True))
        assert first.shape == (1, fine.channels[0], 32, 48)
        stem = x
        for module in fine.body.stages()[0]:
            stem = module(stem)
        if name in RESNETS:
            stem = stem.relu()
            assert torch.equal(fine.body.layer1(fine.body.maxpool(first)), others[0])
    assert torch.equal(first, stem)
    assert len(fine.body.stages()) == len(coarse.body.stages())


def test_a_backbone_without_stride_2_says_so() -> None:
    with pytest.raises(ValueError, match=r"has maps at strides \[4, 8, 16, 32\]; needed are 2, 4"):
        Backbone("convnext_atto", strides=(2, 4))
    with pytest.raises(OptionError, match="alexnet has maps at strides 4, 8 and 16"):
        Backbone("alexnet", strides=(2, 16))
