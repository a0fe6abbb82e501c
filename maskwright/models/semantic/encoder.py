"""What stands before the decoder of a network of its own, which nobody publishes weights of."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..freezing import first_stages, keep_statistics, stop_stages
from .base import STATISTICS


class Encoder(nn.Module):
    """Stages in a row that can be frozen from the input on, as those of a backbone.

    Args:
        stages: each takes what the one before it gives.
        statistics: how its input is standardised, one of `STATISTICS`.

    Attributes:
        fixed: numbers of the stages that do not train.
        mean, std: of the input, 0 to 255.
    """

    def __init__(self, stages: Iterable[nn.Module], statistics: str = "imagenet") -> None:
        super().__init__()
        self.mean, self.std, _ = STATISTICS[statistics]
        self.levels = nn.ModuleList(stages)
        self.fixed: frozenset[int] = frozenset()

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage, for freezing."""
        return [[level] for level in self.levels]

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` stages.

        Raises:
            OptionError: if there are fewer.
        """
        self.fixed = frozenset(first_stages(self.stages(), stages))
        stop_stages(self, self.stages(), self.fixed)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Switch the mode, except that batch norm of frozen stages keeps its statistics."""
        super().train(mode)
        if mode:
            keep_statistics(self, self.stages(), self.fixed)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what each stage makes of (B, 3, H, W)."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return tuple(maps)
