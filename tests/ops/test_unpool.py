"""Unpooling beside PyTorch's own, and as the exact counterpart of pooling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskwright.ops.unpool import max_pool, max_unpool

SIZES = [(8, 6), (7, 6), (5, 9), (1, 1), (1, 4), (2, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_as_the_layers_of_pytorch(size: tuple[int, int], memory: torch.memory_format) -> None:
    x = torch.randn(2, 3, *size).contiguous(memory_format=memory)
    values, places = max_pool(x)
    pool = nn.MaxPool2d(2, stride=2, ceil_mode=True, return_indices=True)
    expected, indices = pool(x)
    assert torch.equal(values, expected) and torch.equal(places, indices)
    assert values.shape[2:] == tuple(-(-side // 2) for side in size)
    small = torch.randn(values.shape)
    large = nn.MaxUnpool2d(2, stride=2)(small, indices, output_size=size)
    assert torch.equal(max_unpool(small, places, size), large)


@pytest.mark.parametrize("size", SIZES)
def test_maxima_come_back_to_their_places(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) + 0.1
    values, places = max_pool(x)
    large = max_unpool(values, places, size)
    assert large.shape == x.shape
    assert bool(((large == 0) | (large == x)).all())
    assert torch.equal(max_pool(large)[0], values)
    assert int((large != 0).sum()) == values.numel()


def test_of_equal_maxima_the_first_is_the_place() -> None:
    _, places = max_pool(torch.ones(1, 1, 3, 3))
    assert places.tolist() == [[[[0, 2], [6, 8]]]]


def test_the_gradient_is_read_at_the_places() -> None:
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    values, places = max_pool(x)
    small = values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: max_unpool(v, places, (5, 5)), small)


def test_no_image() -> None:
    values, places = max_pool(torch.zeros(0, 3, 5, 4))
    assert max_unpool(values, places, (5, 4)).shape == (0, 3, 5, 4)
