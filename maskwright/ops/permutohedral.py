"""Gaussian filtering of any points in linear time, with gradients: the permutohedral lattice.

The lattice itself is `crf.lattice`; here tensors are filtered by it so that gradients go back to
the values, by the transposed filter. Positions of points get none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..crf.lattice import Lattice
from .checks import as_float


def permutohedral_filter(values: Tensor, lattice: Lattice) -> Tensor:
    """Return for each of N points the sum of the values of all points, weighted by their nearness.

    Args:
        values: (N, C), with gradients.
        lattice: of the points, on the same device; see `crf.lattice.build_lattice`.

    Returns:
        (N, C), in float32 for half types.

    Example:
        >>> from maskwright.crf.lattice import build_lattice
        >>> lattice = build_lattice(torch.tensor([[0.0], [0.5], [9.0]]))
        >>> permutohedral_filter(torch.ones(3, 1), lattice).flatten()
        tensor([1.5704, 1.4891, 0.7539])
    """
    filtered: Tensor = _Filter.apply(as_float(values), lattice)
    return filtered


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice) -> Tensor:
        ctx.lattice = lattice
        filtered: Tensor = lattice @ values.contiguous()
        return filtered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return permutohedral_filter(grad, ctx.lattice.T), None
