"""Stochastic depth (Huang et al. 2016): residual branches that are left out at random in training.

Block l of L keeps its branch with probability p_l = 1 - (l / L) (1 - p_L) (eq. 4), in two ways:

- "batch", the paper's: one draw for the mini-batch. A branch that is left out does not run, which
  is the time saved, nor do the statistics of its norms move; one that runs is taken as it is, and
  at test multiplied by p_l (eq. 5).
- "row", that of timm and torchvision: a draw for each image. All branches run; kept ones are
  divided by p_l in training, and at test nothing is left to do. (There l counts from 0.)

The expectation is p_l f(x) in the first way and f(x) in the second: `fold` turns trained weights of
the first into those of the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import OptionError
from .random import RandomSource, batch_noise, image_noise

MODES = ("batch", "row")
# What the branch of a block is multiplied by, a number or (B, 1, 1, 1); 0.0: it does not run.
Share = Tensor | float


def check_depth(drop_path: float, mode: str) -> None:
    """Make sure that the options of stochastic depth are right.

    Raises:
        OptionError: if not.
    """
    number = isinstance(drop_path, int | float) and not isinstance(drop_path, bool)
    if not (number and 0 <= drop_path < 1):
        raise OptionError(f"drop_path must lie in [0, 1), got {drop_path!r}")
    if mode not in MODES:
        raise OptionError(f"drop_path_mode is one of {', '.join(MODES)}; got {mode!r}")


class StochasticDepth:
    """The rule of a network: what the branch of each of its blocks is multiplied by.

    Args:
        blocks: L, how many there are.
        rate: 1 - p_L, how often the last one is left out, in [0, 1); 0: none ever is.
        mode: "batch" or "row".
    """

    def __init__(self, blocks: int, rate: float = 0.0, mode: str = "batch") -> None:
        check_depth(rate, mode)
        self.mode = mode
        self.rate = rate
        self.kept = [1 - rate * block / blocks for block in range(1, blocks + 1)]

    def shares(self, x: Tensor, training: bool, source: RandomSource = None) -> Sequence[Share]:
        """Return the share of each block; nothing where all are 1.

        Args:
            x: (B, ...), the images.
            training: whether to draw.
            source: where the numbers come from; those of a mini-batch hang on the keys of its
                images, whatever their order, over all processes.
        """
        if not self.rate:
            return ()
        if not training:
            return self.kept if self.mode == "batch" else ()
        if self.mode == "batch":
            noise = batch_noise(source, len(self.kept), x.device)
            pairs = zip(noise.tolist(), self.kept, strict=True)
            return [1.0 if number < kept else 0.0 for number, kept in pairs]
        numbers = image_noise(source, len(x), len(self.kept), x.device)
        kept = torch.tensor(self.kept, device=x.device)
        scales = ((numbers < kept) / kept).to(x.dtype)
        return list(scales.T[:, :, None, None, None])


class Stage(nn.Sequential):
    """Residual blocks one after the other."""

    def forward(self, x: Tensor, shares: Sequence[Share] = ()) -> Tensor:
        """Return the maps behind the last block.

        Args:
            x: (B, C, H, W).
            shares: of each block, see `StochasticDepth`; none: all are 1.
        """
        for index, block in enumerate(self):
            x = block(x, *shares[index : index + 1])
        return x


def scaled(branch: Tensor, share: Share) -> Tensor:
    """Return the branch of a block times its share."""
    return branch if isinstance(share, float) and share == 1 else branch * share


def left_out(share: Share) -> bool:
    """Whether the branch of a block does not run at all."""
    return isinstance(share, float) and share == 0


def idle(x: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return `x`, with a gradient of zeros for parameters that had no part in it.

    So the optimiser treats a branch that was left out alike in one process and in several, where
    every parameter must have its gradient.
    """
    own = [parameter for parameter in parameters if parameter.requires_grad]
    result: Tensor = _Idle.apply(x, *own) if own and torch.is_grad_enabled() else x
    return result


class _Idle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


def fold(state: Mapping[str, Tensor], last_layers: Sequence[str], rate: float) -> dict[str, Tensor]:
    """Return weights trained by mode "batch" as those of the same network without it.

    Args:
        state: tensors by name.
        last_layers: the layer that ends the branch of each block, from the first block on: its
            weight and bias are multiplied by p_l.
        rate: see `StochasticDepth`.
    """
    folded = dict(state)
    kept = StochasticDepth(len(last_layers), rate).kept
    for layer, share in zip(last_layers, kept, strict=True):
        for key in (f"{layer}.weight", f"{layer}.bias"):
            if key in folded:
                folded[key] = folded[key] * share
    return folded
