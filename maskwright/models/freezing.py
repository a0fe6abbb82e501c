"""Stages that do not train: their weights stay, and so do the statistics of their norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import OptionError

Stages = Sequence[Sequence[nn.Module]]  # modules by stage, from the input on


def first_stages(stages: Stages, count: int) -> range:
    """Return the numbers of the first `count` stages.

    Raises:
        OptionError: if there are fewer.
    """
    if not 0 <= count <= len(stages):
        raise OptionError(f"freeze must lie in 0..{len(stages)} for this network, got {count}")
    return range(count)


def stop_stages(network: nn.Module, stages: Stages, fixed: Iterable[int]) -> None:
    """Stop the training of some stages of a network, by number; all else in it trains."""
    network.requires_grad_(True)
    for index in fixed:
        for module in stages[index]:
            module.requires_grad_(False)


def keep_statistics(stages: Stages, fixed: Iterable[int]) -> None:
    """Let the norms of some stages of a network that trains keep their running statistics."""
    for index in fixed:
        for module in stages[index]:
            for layer in module.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
