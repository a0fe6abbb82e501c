"""What residual classifiers share: stochastic depth (Huang et al. 2016) as an option of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...nn.random import RandomSource
from ...nn.stochastic_depth import Share, StochasticDepth, check_depth
from .base import ClassifierOptions, Network


@dataclass(frozen=True)
class ResidualOptions(ClassifierOptions):
    """Options of all residual classifiers.

    Attributes:
        drop_path: stochastic depth: how often the residual branch of the last block is left out in
            training; the first ones are nearly always kept, the others in between. The paper: 0.5.
        drop_path_mode: "batch": one draw for the mini-batch, and what is left out does not run
            (the paper); "row": one for each image, all run (timm and torchvision).
    """

    drop_path: float = 0.0
    drop_path_mode: str = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_depth(self.drop_path, self.drop_path_mode)


class ResidualNetwork(Network):
    """A network of residual blocks.

    Attributes:
        depth: what the branch of each block is multiplied by.
    """

    depth: StochasticDepth

    def last_layers(self) -> list[str]:
        """Return the name of the layer that ends the branch of each block, from the input on."""
        raise NotImplementedError

    def run(self, x: Tensor, shares: Sequence[Share]) -> Tensor:
        """Return the last maps (B, K, h, w).

        Args:
            x: (B, 3, H, W).
            shares: of the branch of each block; none: all are 1.
        """
        raise NotImplementedError

    def maps(self, x: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the last maps; in training branches are left out at random."""
        return self.run(x, self.depth.shares(x, self.training, generator))

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits; see `Network`."""
        return [(self.head(self.maps(x, generator)), 1.0)]
