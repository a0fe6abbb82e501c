from __future__ import annotations

import pytest
import torch
from torch import nn

from maskwright.nn.winograd import Conv2d, WinogradConv2d, repays, suits_winograd


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
    assert found.is_contiguous(memory_format=torch.channels_last)
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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 64, 28, 28), (2, 64, 29, 31), (1, 64, 4, 300), (4, 256, 14, 14)]
)
def test_gradients_equal_those_of_the_direct_convolution(
    shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    conv = Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias)
    exact = nn.Conv2d(shape[1], shape[1] + 8, 3, padding=1, bias=bias).double()
    exact.load_state_dict(conv.state_dict())
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    x, x_exact = x.requires_grad_(), x.detach().double().requires_grad_()
    out, expected = conv(x), exact(x_exact)
    assert repays(shape, shape[1] + 8) and "_Convolution" in str(out.grad_fn)
    grad = torch.randn_like(expected)
    # In place, as the layers behind it are.
    out.mul_(0.5).backward(grad.float())
    (expected * 0.5).backward(grad)
    pairs = [(x.grad, x_exact.grad), (conv.weight.grad, exact.weight.grad)]
    if bias:
        pairs.append((conv.bias.grad, exact.bias.grad))
    for mine, truth in pairs:
        limit = 1e-4 * truth.abs().max().item()
        torch.testing.assert_close(mine.double(), truth, rtol=0, atol=limit)


def test_only_what_needs_a_gradient_gets_one() -> None:
    conv = Conv2d(64, 64, 3, padding=1)
    x = torch.randn(1, 64, 32, 32)
    conv(x).sum().backward()
    assert x.grad is None and conv.weight.grad is not None
    conv.requires_grad_(False)
    conv.zero_grad()
    conv(x.requires_grad_()).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


def test_without_gradients_it_is_the_plain_convolution_to_the_bit() -> None:
    conv = Conv2d(64, 64, 3, padding=1)
    x = torch.randn(1, 64, 32, 32)
    with torch.no_grad():
        assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    conv.requires_grad_(False)
    assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    small = torch.randn(1, 64, 8, 8).requires_grad_()
    assert torch.equal(conv(small), nn.Conv2d.forward(conv, small))
