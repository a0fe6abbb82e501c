"""Dilated 3x3 convolutions for training on the CPU.

Of a map not much larger than the dilation most products of a filter's outer taps are with zeros
beyond the border: at rate 24 on a map of 30 x 40 seven of ten. oneDNN leaves them out of the
convolution, but not of its gradients; those of `dilated_convolution` go tap by tap, each a matrix
product of the pixels that meet inside the map.

Where the dilation is small, the pixels of one remainder of rows and columns form a map of their
own, on which the convolution is not dilated: `apart` and `together` (as in the `a trous` algorithm
and its inverse, Holschneider et al. 1990; Chen et al. 2017, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def apart(x: Tensor, rate: int) -> Tensor:
    """Return the pixels of each remainder as maps of their own, filled up with zeros.

    Args:
        x: (B, C, H, W).
        rate: the dilation d.

    Returns:
        (B * d * d, C, ceil(H / d), ceil(W / d)), channels-last.
    """
    images, channels, height, width = x.shape
    high, wide = -(-height // rate), -(-width // rate)
    pixels = x.permute(0, 2, 3, 1)
    if (high * rate, wide * rate) != (height, width):
        pixels = F.pad(pixels, (0, 0, 0, wide * rate - width, 0, high * rate - height))
    pixels = pixels.reshape(images, high, rate, wide, rate, channels)
    parts = pixels.permute(0, 2, 4, 1, 3, 5).reshape(-1, high, wide, channels)
    return parts.permute(0, 3, 1, 2)


def together(parts: Tensor, rate: int, size: tuple[int, int]) -> Tensor:
    """Return the map (B, C, H, W), channels-last, of a size whose parts `apart` gives."""
    high, wide = parts.shape[2:]
    pixels = parts.permute(0, 2, 3, 1).unflatten(0, (-1, rate, rate))
    pixels = pixels.permute(0, 3, 1, 4, 2, 5).reshape(-1, high * rate, wide * rate, parts.shape[1])
    made: Tensor = pixels[:, : size[0], : size[1]].permute(0, 3, 1, 2)
    return made.contiguous(memory_format=torch.channels_last)


def inside(size: tuple[int, int], rate: int) -> float:
    """Return the share of the products of a dilated convolution that lie inside a map (H, W)."""
    met = 1.0
    for side in size:
        met *= (side + 2 * max(side - rate, 0)) / (3 * side)
    return met


def dilated_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, rate: int) -> Tensor:
    """Return the convolution (B, K, H, W), padded by its dilation, for maps not much larger.

    Args:
        x: (B, C, H, W).
        weight: (K, C, 3, 3).
        bias: (K,) or None.
        rate: the dilation.
    """
    made: Tensor = _Taps.apply(x, weight, bias, rate)
    return made


def _meetings(size: tuple[int, int], rate: int) -> Iterator[tuple[int, int, Any, Any]]:
    """Yield row and column of each tap with the rows and columns of input and output that meet."""

    def along(side: int, tap: int) -> tuple[slice, slice]:
        shift = (tap - 1) * rate
        first, last = max(shift, 0), side + min(shift, 0)
        return slice(first, last), slice(first - shift, last - shift)

    for i in range(3):
        rows, goal_rows = along(size[0], i)
        for j in range(3):
            columns, goal_columns = along(size[1], j)
            if rows.stop > rows.start and columns.stop > columns.start:
                every = slice(None)
                yield i, j, (every, rows, columns), (every, goal_rows, goal_columns)


class _Taps(torch.autograd.Function):
    """The direct convolution, and its gradients tap by tap; no double backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rate = rate
        return F.conv2d(x, weight, bias, padding=rate, dilation=rate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        pixels, goal = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
        taps = weight.permute(2, 3, 0, 1).contiguous()  # (3, 3, K, C)
        before = torch.zeros_like(pixels) if needs_x else None
        learned = torch.zeros_like(taps) if needs_weight else None
        for i, j, here, there in _meetings(pixels.shape[1:3], ctx.rate):
            part = goal[there].reshape(-1, len(weight))
            if before is not None:
                before[here] += (part @ taps[i, j]).view(before[here].shape)
            if learned is not None:
                learned[i, j] = part.T @ pixels[here].reshape(-1, weight.shape[1])
        return (
            None if before is None else before.permute(0, 3, 1, 2),
            None if learned is None else learned.permute(2, 3, 0, 1),
            grad.sum((0, 2, 3)) if needs_bias else None,
            None,
        )
