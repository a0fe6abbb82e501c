"""Dilated backbones beside those of torchvision and timm, and what dilation promises."""

from __future__ import annotations

import pytest
import torch
import torchvision
from tiny_models import random_norms
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from maskwright.errors import OptionError
from maskwright.nn.backbones.backbone import Backbone
from maskwright.nn.backbones.resnet import ResNet


def rates(module: nn.Module) -> list[int]:
    """Return the dilations of the wide convolutions of a network in order."""
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert all(
        conv.padding
        == tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        for conv in convs
        if not type(conv).__name__.endswith("Same")
    )
    return [conv.dilation[0] for conv in convs]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("stride", [16, 8])
def test_resnet_is_torchvisions(stride: int) -> None:
    torch.manual_seed(0)
    replaced = [False, stride == 8, True]
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replaced).eval()
    random_norms(theirs)
    ours = ResNet("resnet50", norm="bn", output_stride=stride).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for layer, found in zip((1, 2, 3, 4), ours(x), strict=True):
            y = getattr(theirs, f"layer{layer}")(y)
            close(found, y)


def test_dilations_of_resnet_by_rule_and_grid() -> None:
    with torch.device("meta"):
        plain = ResNet("resnet50", output_stride=16)
        full = ResNet("resnet50", output_stride=8, full_dilation=True, multi_grid=(1, 2, 4))
        grid = ResNet("resnet50", output_stride=16, full_dilation=True, multi_grid=(1, 2, 4))
        basic = ResNet("resnet18", output_stride=8, full_dilation=True)
        caffe = ResNet("resnet101", output_stride=8, stride_in_1x1=True)
    assert (rates(plain.layer3), rates(plain.layer4)) == ([1] * 6, [1, 2, 2])
    assert (rates(full.layer3), rates(full.layer4)) == ([2] * 6, [4, 8, 16])
    assert rates(grid.layer4) == [2, 4, 8]
    assert (rates(basic.layer3), rates(basic.layer4)) == ([2] * 4, [4] * 4)
    # The 3x3 behind a 1x1 that strode sees a finer grid at once: the rule of Caffe's DeepLab.
    assert (rates(caffe.layer3), rates(caffe.layer4)) == ([2] * 23, [4] * 3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_stride_8_has_the_pixels_of_stride_32_and_others_between(name: str) -> None:
    torch.manual_seed(0)
    coarse, fine = Backbone(name, strides=(32,)).eval(), Backbone(name, output_stride=8).eval()
    random_norms(coarse)
    fine.load_state_dict(coarse.state_dict())
    assert fine.strides == (4, 8, 8, 8) and fine.channels[-1] == coarse.channels[0]
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        maps = fine(x)
        close(maps[-1][:, :, ::4, ::4], coarse(x)[0])
    assert [m.shape[-2:] for m in maps[1:]] == [maps[1].shape[-2:]] * 3


@pytest.mark.parametrize("full", [None, False])
def test_mobilenet_v3_is_torchvisions(full: bool | None) -> None:
    torch.manual_seed(0)
    theirs = mobilenet_v3_large(dilated=True).eval()
    random_norms(theirs)
    strides = (4, 8, 16, 32)
    ours = Backbone("mobilenet_v3_large", output_stride=16, full_dilation=full).eval()
    state = {k: v for k, v in theirs.state_dict().items() if k.startswith("features.")}
    ours.body.load_state_dict(state)
    x = torch.randn(1, 3, 65, 80)
    assert rates(ours)[-3:] == ([2] * 3 if full is None else [1, 2, 2])
    if full is not None:
        return
    with torch.no_grad():
        wanted, y = [], x
        for index, block in enumerate(theirs.features):
            y = block(y)
            if index in (2, 4, 7, 16):
                wanted.append(y)
        for found, other in zip(ours(x), wanted, strict=True):
            assert torch.equal(found, other)
    assert ours.channels == (24, 40, 80, 960) and ours.strides == (4, 8, 16, 16)
    assert len(ours.body.stages()) == len(strides) + 1
    assert sum(len(list(m.parameters())) for s in ours.body.stages() for m in s) == len(
        list(ours.parameters())
    )


@pytest.mark.parametrize(
    ("name", "stride"), [("mobilenetv2_100", 8), ("tf_efficientnet_lite0", 16)]
)
def test_full_dilation_of_timm_reaches_the_first_block(name: str, stride: int) -> None:
    with torch.device("meta"):
        before = Backbone(name, output_stride=stride, full_dilation=False)
        full = Backbone(name, output_stride=stride, full_dilation=True)
    stages = [[rates(nn.ModuleList(s)) for s in b.body.stages()[3:]] for b in (before, full)]
    last = {16: (1, 2), 8: (2, 4)}[stride]
    assert [set(found) for found in stages[1]] == [{rate} for rate in last]
    assert [found[0] for found in stages[0]] == [1, last[0]]
    assert full(torch.zeros(1, 3, 64, 64, device="meta"))[-1].shape[-1] == 64 // stride


def test_vgg_of_deeplab() -> None:
    with torch.device("meta"):
        vgg = Backbone("vgg16", strides=(32,), output_stride=8)
        sizes = [vgg(torch.zeros(1, 3, s, s, device="meta"))[0].shape[-1] for s in (321, 513, 1)]
        (plain,) = (Backbone("vgg16", strides=(32,)),)
    assert sizes == [41, 65, 1]
    assert rates(vgg) == [1] * 10 + [2] * 3
    assert vgg.state_dict().keys() == plain.state_dict().keys()


def test_what_cannot_be_dilated_so_says_why() -> None:
    with torch.device("meta"):
        with pytest.raises(OptionError, match="each block of the last stage, of which resnet18"):
            Backbone("resnet18", output_stride=8, multi_grid=(1, 2, 4))
        with pytest.raises(OptionError, match="multi_grid is for resnet18"):
            Backbone("vgg16", output_stride=8, multi_grid=(1, 2, 4))
        with pytest.raises(OptionError, match="output_stride is one of 32, 16, 8; got 4"):
            Backbone("resnet18", output_stride=4)
        with pytest.raises(OptionError, match="an output_stride of 8 needs a map at stride 32"):
            Backbone("resnet18", strides=(4, 8), output_stride=8)
        with pytest.raises(OptionError, match="cannot dilate backbone 'densenet121'"):
            Backbone("densenet121", output_stride=16)
