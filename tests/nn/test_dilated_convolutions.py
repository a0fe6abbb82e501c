"""Dilated convolutions beside torch's: values, gradients, and which way is taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskwright.nn.convolution import Conv2d, WinogradConv2d
from maskwright.nn.dilation import apart, dilated_convolution, inside, together


@pytest.mark.parametrize("rate", [1, 2, 3, 5, 7, 30])
def test_gradients_tap_by_tap_equal_torchs(rate: int) -> None:
    torch.manual_seed(rate)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    made = dilated_convolution(x, weight, bias, rate)
    plain = F.conv2d(x, weight, bias, padding=rate, dilation=rate)
    torch.testing.assert_close(made, plain, rtol=0, atol=1e-12)
    grad = torch.randn_like(plain)
    found = torch.autograd.grad(made, (x, weight, bias), grad)
    wanted = torch.autograd.grad(plain, (x, weight, bias), grad)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [2, 3, 8])
def test_parts_are_maps_without_dilation(rate: int) -> None:
    x, weight = torch.randn(2, 3, 7, 9).double(), torch.randn(4, 3, 3, 3).double()
    parts = F.conv2d(apart(x, rate), weight, padding=1)
    plain = F.conv2d(x, weight, padding=rate, dilation=rate)
    torch.testing.assert_close(together(parts, rate, (7, 9)), plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(together(apart(x, rate), rate, (7, 9)), x, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(7, 9), (1, 40)])
@pytest.mark.parametrize("rate", [1, 3, 8, 40])
def test_the_share_of_products_inside_is_that_of_a_map_of_ones(
    size: tuple[int, int], rate: int
) -> None:
    ones = torch.ones(1, 1, *size)
    met = F.conv2d(ones, torch.ones(1, 1, 3, 3), padding=rate, dilation=rate).sum()
    assert inside(size, rate) == pytest.approx(float(met) / (9 * size[0] * size[1]))


# Rate, size and which way training takes.
WAYS = [
    (2, (28, 29), "CloneBackward"),
    (4, (31, 32), "CloneBackward"),
    (12, (17, 20), "_Taps"),
    (2, (5, 5), "Conv"),
]


@pytest.mark.parametrize(("rate", "size", "way"), WAYS)
def test_layers_equal_torchs_in_training_and_at_inference(
    rate: int, size: tuple[int, int], way: str
) -> None:
    torch.manual_seed(0)
    layer = Conv2d(256, 264, 3, padding=rate, dilation=rate)
    exact = nn.Conv2d(256, 264, 3, padding=rate, dilation=rate).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, 256, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    truth = x.detach().double().requires_grad_()
    made, wanted = layer(x), exact(truth)
    names = []
    step = made.grad_fn
    while step is not None and len(names) < 4:
        names.append(type(step).__name__)
        step = step.next_functions[0][0] if step.next_functions else None
    assert any(way in name for name in names), names
    grad = torch.randn_like(wanted)
    made.backward(grad.float())
    wanted.backward(grad)
    with torch.inference_mode():
        fast = WinogradConv2d(layer)(x.detach())
    for mine, right in (
        (made, wanted),
        (fast, wanted),
        (x.grad, truth.grad),
        (layer.weight.grad, exact.weight.grad),
        (layer.bias.grad, exact.bias.grad),
    ):
        limit = 1e-5 * right.abs().max().item()
        torch.testing.assert_close(mine.double(), right, rtol=0, atol=limit)
