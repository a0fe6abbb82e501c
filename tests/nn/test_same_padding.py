"""Fixed padding in place of TensorFlow's "same", against the layers of timm themselves."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.layers.std_conv import ScaledStdConv2dSame, StdConv2dSame
from torch import Tensor, nn

from maskwright.nn.inference import share
from maskwright.nn.same_padding import fix_padding

LAYERS = [
    lambda: Conv2dSame(3, 4, 3, stride=2),
    lambda: Conv2dSame(3, 6, (5, 3), stride=(2, 1), groups=3, bias=False),
    lambda: Conv2dSame(3, 4, 7, stride=4, dilation=2),
    lambda: Conv2dSame(3, 4, 2, stride=4),  # narrower than its stride: pads nothing
    lambda: StdConv2dSame(3, 4, 3, stride=2, padding="same"),
    lambda: ScaledStdConv2dSame(3, 4, 5, stride=2, padding="same"),
    lambda: MaxPool2dSame(3, 2),
    lambda: AvgPool2dSame(2, 1),
]


def run(net: nn.Module, blocks: int) -> Tensor:
    return net(torch.linspace(-3, 3, 3 * (8 * blocks) ** 2).view(1, 3, 8 * blocks, 8 * blocks))


@pytest.mark.parametrize("make", LAYERS)
@torch.no_grad()
def test_gives_what_the_layer_gives_at_every_size_of_whole_blocks(make) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), make()).eval()
    copied = share(net)
    assert fix_padding(copied, run) == 1
    assert type(net[1]) is not type(copied[1])  # the network itself stays as it is
    for height, width in ((8, 8), (16, 40), (72, 24)):
        x = torch.randn(2, 3, height, width)
        assert torch.equal(copied(x), net(x))


@torch.no_grad()
def test_whole_networks_give_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    for name in ("tf_efficientnet_lite0", "tf_mobilenetv3_small_minimal_100"):
        net = timm.create_model(name, features_only=True, pretrained=False).eval()
        copied = share(net)

        def run(module: nn.Module, blocks: int) -> object:
            return module(torch.zeros(1, 3, 32 * blocks, 32 * blocks))

        assert fix_padding(copied, run) >= 5
        assert not any("Same" in type(layer).__name__ for layer in copied.modules())
        x = torch.randn(1, 3, 96, 160)
        for one, other in zip(net(x), copied(x), strict=True):
            assert torch.equal(one, other)


@torch.no_grad()
def test_a_layer_whose_padding_depends_on_the_size_stays() -> None:
    """Behind a stride that does not divide a block, the sides are odd and even in turn."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3, stride=8, padding=1), Conv2dSame(3, 3, 3, stride=2))
    copied = share(net.eval())
    assert fix_padding(copied, run) == 0 and type(copied[1]) is Conv2dSame


@torch.no_grad()
def test_layers_on_parts_of_one_size_are_fixed_as_well() -> None:
    class OnCrops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Conv2dSame(3, 3, 3, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x[..., :6, :6])

    net = OnCrops().eval()
    copied = share(net)
    x = torch.randn(1, 3, 8, 8)
    assert fix_padding(copied, run) == 1 and torch.equal(copied(x), net(x))
