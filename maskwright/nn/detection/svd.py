"""Truncated SVD of fully connected layers (Girshick 2015, Fast R-CNN, section 3.1).

A layer of u x v weights becomes two, without anything between them: v to t and t to u, with the t
largest singular values: t (u + v) weights in place of u v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import OptionError


class LowRankLinear(nn.Module):
    """A linear layer as the product of two, the first without bias.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        rank: size between them.

    Raises:
        OptionError: if the rank is not from 1 to the smaller of both sizes.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        check_rank(rank, inputs, outputs)
        self.inner = nn.Linear(inputs, rank, bias=False)
        self.outer = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) of (..., inputs)."""
        y: Tensor = self.outer(self.inner(x))
        return y


def check_rank(rank: int, inputs: int, outputs: int) -> None:
    """Raise OptionError if a layer of these sizes cannot have the rank."""
    if not 1 <= rank <= min(inputs, outputs):
        raise OptionError(
            f"svd: a layer of {inputs} to {outputs} has a rank from 1 to {min(inputs, outputs)}, "
            f"got {rank}"
        )


@torch.no_grad()
def truncate(layer: nn.Linear, rank: int) -> LowRankLinear:
    """Return the best approximation of a layer at a rank (Girshick 2015, eq. 5).

    Args:
        layer: a linear layer; it stays as it is.
        rank: how many singular values are kept.

    Raises:
        OptionError: if the rank exceeds the sizes of the layer.
    """
    outputs, inputs = layer.weight.shape
    made = LowRankLinear(inputs, outputs, rank)
    u, s, vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    # The singular values are shared between both, so that further training sees equal scales.
    root = s[:rank].sqrt()
    made.inner.weight.copy_(root[:, None] * vh[:rank])
    made.outer.weight.copy_(u[:, :rank] * root)
    nn.init.zeros_(made.outer.bias)
    for bias in layer.parameters():
        if bias.dim() == 1:  # the layer may have none
            made.outer.bias.copy_(bias)
    return made.to(layer.weight.device)
