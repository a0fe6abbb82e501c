"""Running average of the weights (Polyak averaging), kept as a second model."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """A copy of a model whose weights follow the original's slowly.

    The effective decay after t updates is min(decay, (1 + t) / (10 + t)), so that the random
    start is forgotten quickly (the rule of TensorFlow's ExponentialMovingAverage).

    Attributes:
        model: the averaged model, in eval mode, without gradients.
        updates: number of updates so far; part of the state that a resumed run restores.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: M) -> None:
        """Move the average one step towards the weights of `model`; whole numbers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = model.state_dict()
        averages, values = [], []
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(current[name].to(average.dtype))
            else:
                average.copy_(current[name])
        if averages:  # in a few launches on a card
            torch._foreach_lerp_(averages, values, 1 - decay)
