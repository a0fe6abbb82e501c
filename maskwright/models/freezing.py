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


def stop_stages(
    network: nn.Module, stages: Stages, fixed: Iterable[int], fresh: Iterable[str] = ()
) -> None:
    """Stop the training of some stages of a network; all else in it trains.

    Args:
        network: the network.
        stages: its stages.
        fixed: numbers of those that stop.
        fresh: names of parameters that train in any case, as nothing has trained them yet.
    """
    network.requires_grad_(True)
    for index in fixed:
        for module in stages[index]:
            module.requires_grad_(False)
    for name in fresh:
        network.get_parameter(name).requires_grad_(True)


def keep_statistics(
    network: nn.Module, stages: Stages, fixed: Iterable[int], fresh: Iterable[str] = ()
) -> None:
    """Let the norms of some stages of a network that trains keep their running statistics.

    Args: see `stop_stages`.
    """
    own = {id(network.get_parameter(name)) for name in fresh}
    for index in fixed:
        for module in stages[index]:
            for layer in module.modules():
                if isinstance(layer, _BatchNorm) and id(layer.weight) not in own:
                    layer.eval()
