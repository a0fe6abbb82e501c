"""Blocks of branches on the same maps (Szegedy et al. 2016), written as tables of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norm import ConvNorm

Kernel = int | tuple[int, int]  # side, or (height, width)


class Layer(NamedTuple):
    """A convolution of a branch.

    Attributes:
        name: inside its block; with a dot, inside a sequence.
        width: channels of its output.
        kernel: side, or (height, width).
        stride: 2 halves the size, without padding.
        padded: whether the size is kept otherwise.
    """

    name: str
    width: int
    kernel: Kernel = 1
    stride: int = 1
    padded: bool = True


# What a branch is made of: layers, "mean" (3x3) or "pool" (3x3/2), and at its end perhaps several
# layers that all see the same.
Step = Layer | str | tuple[Layer, ...]


class Block(nn.Module):
    """Branches that see the same maps; their own stand one behind the other.

    Args:
        cin: channels of the input.
        branches: what each consists of.
        count_padding: whether the mean of 3x3 counts the zeros around the maps.

    Attributes:
        channels: of the output.
    """

    def __init__(
        self, cin: int, branches: Sequence[Sequence[Step]], *, count_padding: bool
    ) -> None:
        super().__init__()
        self.branches = branches
        self.count_padding = count_padding
        self.channels = 0
        for branch in branches:
            width = cin
            for step in branch:
                if isinstance(step, str):
                    continue
                layers = (step,) if isinstance(step, Layer) else step
                for layer in layers:
                    self._add(width, layer)
                width = sum(layer.width for layer in layers)
            self.channels += width

    def _add(self, cin: int, layer: Layer) -> None:
        *outer, name = layer.name.split(".")
        parent: nn.Module = self
        if outer:
            if not hasattr(self, outer[0]):
                self.add_module(outer[0], nn.Module())
            parent = self.get_submodule(outer[0])
        padding = 0 if layer.stride == 2 or not layer.padded else None
        parent.add_module(name, ConvNorm(cin, layer.width, layer.kernel, layer.stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of all branches (B, channels, h, w)."""
        return torch.cat([self._run(branch, x) for branch in self.branches], 1)

    def _run(self, branch: Sequence[Step], x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, str):
                mean = step == "mean"
                padding = self.count_padding
                x = F.avg_pool2d(x, 3, 1, 1, False, padding) if mean else F.max_pool2d(x, 3, 2)
            elif isinstance(step, Layer):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(layer.name)(x) for layer in step], 1)
        return x


# Width, kernel and stride of a layer; what is left out is 1.
Spec = tuple[int] | tuple[int, Kernel] | tuple[int, Kernel, int]


def chain(name: str, *specs: Spec, last_padded: bool = True) -> list[Step]:
    """Return layers one behind the other.

    Args:
        name: "branch1.": they are called branch1.0, branch1.1; "branch1_": branch1_1, branch1_2.
        *specs: of the layers.
        last_padded: whether the last one keeps the size.
    """
    first = 0 if name.endswith(".") else 1
    layers = [Layer(f"{name}{first + number}", *spec) for number, spec in enumerate(specs)]
    layers[-1] = layers[-1]._replace(padded=last_padded)
    return [*layers]
