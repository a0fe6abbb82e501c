"""The layers of Darknet's networks, each with its habits: pools, local layers, reorg, batch norm.

A layer takes and gives maps (B, C, H, W); fully connected ones give (B, C, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..convolution import Conv2d
from ..dropout import Dropout
from ..norm import BatchNorm2d, norm_outside
from ..packed import Leaky
from ..random import RandomSource


class UnbiasedBatchNorm2d(BatchNorm2d):
    """Batch norm that in training divides by the unbiased deviation, and forgets slowly.

    Darknet's: over n values of a channel the squares are divided by n - 1, and statistics move by a
    hundredth.

    Attributes:
        outside: without training, 1e-6 is added to the deviation, as Darknet does on a CPU, and not
            1e-5 to the variance, as it does on GPUs.
        unbiased: tells `parallel.SharedBatchNorm2d`, which takes its place in several processes.
    """

    outside = False
    unbiased = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.01)

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same."""
        if not self.training and self.outside:
            return norm_outside(self, input)
        count = input.shape[0] * input.shape[2] * input.shape[3]
        if not self.training or not input.numel() or count == 1:
            normed: Tensor = super().forward(input)
            return normed
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        # Weights by sqrt((n - 1) / n): of the biased deviation it makes the unbiased one.
        weight = self.weight * ((count - 1) / count) ** 0.5
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            weight,
            self.bias,
            True,
            self.momentum or 0.0,
            self.eps,
        )


class _Activation(nn.Module):
    """The activations that torch has no module for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Return what the activation makes of each value."""
        if self.name == "relie":
            return torch.where(x > 0, x, 0.01 * x)
        if self.name == "ramp":
            return x.relu() + 0.1 * x
        return 2 * x.sigmoid() - 1  # loggy

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return self.name


def make_activation(name: str) -> nn.Module:
    """Return an activation by Darknet's name of it.

    Raises:
        ValueError: if there is none.
    """
    known: dict[str, Callable[[], nn.Module]] = {
        "linear": nn.Identity,
        "leaky": lambda: Leaky(inplace=True),
        "logistic": nn.Sigmoid,
        "relu": lambda: nn.ReLU(inplace=True),
        "tanh": nn.Tanh,
        "elu": nn.ELU,
        "selu": nn.SELU,
        "hardtan": nn.Hardtanh,
        **{own: partial(_Activation, own) for own in ("relie", "ramp", "loggy")},
    }
    if name not in known:
        raise ValueError(f"activation is one of {', '.join(known)}; got {name!r}")
    return known[name]()


class Convolution(nn.Module):
    """Convolution, batch norm or bias, activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        norm: bool = True,
        activation: str = "leaky",
    ) -> None:
        super().__init__()
        if cin % groups or cout % groups:
            raise ValueError(f"groups={groups} divides neither {cin} nor {cout} channels")
        self.conv = Conv2d(cin, cout, size, stride, padding, groups=groups, bias=not norm)
        self.norm = UnbiasedBatchNorm2d(cout) if norm else None
        self.activation = make_activation(activation)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (size * size * cin // groups)))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H', W')."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        activated: Tensor = self.activation(x)
        return activated


class Local(nn.Module):
    """A convolution with filters of its own at every place of the map."""

    def __init__(
        self, cin: int, cout: int, size: int, stride: int, pad: int, place: int, activation: str
    ) -> None:
        super().__init__()
        self.size, self.stride, self.pad, self.side = size, stride, pad, place
        inputs = cin * size * size
        self.weight = nn.Parameter(torch.empty(place, cout, inputs))
        self.bias = nn.Parameter(torch.zeros(cout, place))
        self.activation = make_activation(activation)
        bound = math.sqrt(2 / inputs)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H', W')."""
        height, width = (
            (side + 2 * self.pad - self.size) // self.stride + 1 for side in x.shape[-2:]
        )
        columns = F.unfold(x, self.size, padding=self.pad, stride=self.stride)  # (B, inputs, P)
        # One product for each place: (P, cout, inputs) x (P, inputs, B).
        made = torch.matmul(self.weight, columns.permute(2, 1, 0))
        made = made.permute(2, 1, 0) + self.bias
        activated: Tensor = self.activation(made.unflatten(2, (height, width)))
        return activated


class Connected(nn.Module):
    """A fully connected layer on all channels and places."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=not norm)
        self.norm = UnbiasedBatchNorm2d(outputs) if norm else None
        self.activation = make_activation(activation)
        bound = math.sqrt(2 / inputs)
        nn.init.uniform_(self.linear.weight, -bound, bound)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, 1, 1)."""
        x = self.linear(x.flatten(1))[:, :, None, None]
        if self.norm is not None:
            x = self.norm(x)
        activated: Tensor = self.activation(x)
        return activated


class Pool(nn.Module):
    """Max-pooling; what is padded never wins.

    Args:
        size: side of the window.
        stride: of the window.
        padding: rows and columns that are added in all, the smaller half before: with 2 and stride
            1 the map keeps its size, with 2 and stride 2 odd sides round up.
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, (H + padding - size) // stride + 1, ...)."""
        if self.size == self.stride == 2 and self.padding == 1:
            return F.max_pool2d(x, 2, 2, ceil_mode=True)
        if self.padding:
            before = self.padding // 2
            after = self.padding - before
            x = F.pad(x, (before, after, before, after), value=-math.inf)
        return F.max_pool2d(x, self.size, self.stride)

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"size={self.size}, stride={self.stride}, padding={self.padding}"


def reorg(x: Tensor, stride: int) -> Tensor:
    """Return maps (B, C, H, W) as (B, C s^2, H / s, W / s), as Darknet lays them out.

    The memory of C maps of H x W is read as C / s^2 maps of s H x s W; every s-th row and column of
    these make the C maps, whose memory is read as the result. It is no space-to-depth: weights that
    were trained with it know no other order.

    Args:
        x: C a multiple of s^2, H and W of s.
        stride: s.

    Example:
        >>> [*reorg(torch.arange(16.0).view(1, 4, 2, 2), 2)[0, :4, 0, 0].tolist()]
        [0.0, 2.0, 8.0, 10.0]
    """
    images, channels, height, width = x.shape
    small = channels // stride**2
    # (B, c, row, row offset, column, column offset), the offsets first then
    y = x.reshape(images, small, height, stride, width, stride).permute(0, 3, 5, 1, 2, 4)
    # Rows fall into s parts, and these parts of all rows into s^2 maps. (Read as such at once, a
    # graph for any size would not know the width of the result.)
    parts: Tensor = y.unflatten(5, (stride, width // stride)).flatten(4, 5)
    maps: Tensor = parts.unflatten(4, (stride**2, height // stride))
    return maps.flatten(1, 4)


def reorg_back(x: Tensor, stride: int) -> Tensor:
    """Return maps (B, C, H, W) as (B, C / s^2, s H, s W): `reverse=1` of a reorg layer."""
    images, channels, height, width = x.shape
    small = channels // stride**2
    y = x.reshape(images, stride, stride, small, height, width).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(images, small, height * stride, width * stride)


class Reorg(nn.Module):
    """Smaller maps, and more of them, or the other way round; see `reorg`.

    Args:
        stride: how much smaller.
        reverse: larger, and fewer.
        flatten: the order of all values is (place, channel) read anew, in place of the offsets.
    """

    def __init__(self, stride: int, reverse: bool = False, flatten: bool = False) -> None:
        super().__init__()
        self.stride, self.reverse, self.flatten = stride, reverse, flatten

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Return channels, height and width of what the layer makes of such maps."""
        s = self.stride
        if self.reverse:
            return channels // s**2, height * s, width * s
        return channels * s**2, height // s, width // s

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps as `shape` says."""
        if not self.flatten:
            return (reorg_back if self.reverse else reorg)(x, self.stride)
        images, channels, height, width = x.shape
        rows = (height * width, channels) if self.reverse else (channels, height * width)
        y = x.reshape(images, *rows).transpose(1, 2)
        return y.reshape(images, *self.shape(channels, height, width))

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"stride={self.stride}, reverse={self.reverse}, flatten={self.flatten}"


class DropMaps(nn.Module):
    """Dropout of the values of an image, with numbers that a resumed run repeats."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.drop = Dropout(share)

    def forward(self, x: Tensor, source: RandomSource = None) -> Tensor:
        """Return (B, C, H, W) of the same; in training a share of the values is 0."""
        dropped: Tensor = self.drop(x.flatten(1), source)
        return dropped.view(x.shape)


class Upsample(nn.Module):
    """Every value becomes a square of `stride` x `stride`, times `scale`."""

    def __init__(self, stride: int, scale: float) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, s H, s W)."""
        return self.scale * F.interpolate(x, scale_factor=float(self.stride), mode="nearest")


class GroupSoftmax(nn.Module):
    """Softmax over the channels of each group, of values divided by a temperature."""

    def __init__(self, groups: int, temperature: float) -> None:
        super().__init__()
        self.groups, self.temperature = groups, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same, all values of an image being one row."""
        rows: Tensor = x.flatten(1).unflatten(1, (self.groups, -1)) / self.temperature
        return rows.softmax(-1).view(x.shape)


class Mean(nn.Module):
    """The mean of each channel: (B, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means of (B, C, H, W)."""
        return x.mean((2, 3), keepdim=True)
