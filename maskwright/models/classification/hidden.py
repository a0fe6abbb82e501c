"""What AlexNet and VGG share: two hidden fully connected layers behind the convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.backbones.vgg import parts_at_pools
from ...nn.dropout import Dropout, run_with_dropout
from ...nn.random import RandomSource
from ..options import check_dropout, check_ranges
from .base import ClassifierOptions, Network


@dataclass(frozen=True)
class HiddenOptions(ClassifierOptions):
    """Options of AlexNet and VGG.

    Attributes:
        dropout: share of the units of the hidden layers that are dropped in training.
        width: units of each of the two hidden layers.
    """

    dropout: float = 0.5
    width: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)
        check_ranges(self, {"width": (1, 65536)})


class HiddenNetwork(Network):
    """Convolutions, two hidden layers with dropout, classes; names as torchvision has them.

    Args:
        features: the convolutions, with the pooling behind the last one.
        num_classes: rows of the last layer.
        channels: of the last maps.
        bins: their side at the published size; maps of another one are averaged to it.
        options: widths and dropout.
        drop_first: dropout stands before the hidden layers (AlexNet), not behind them (VGG).
    """

    final = "classifier.6"

    def __init__(
        self,
        features: nn.Sequential,
        num_classes: int,
        *,
        channels: int,
        bins: int,
        options: HiddenOptions,
        drop_first: bool,
    ) -> None:
        super().__init__()
        self.features = features
        self.bins = bins
        layers: list[nn.Module] = []
        for cin in (channels * bins**2, options.width):
            dropped = Dropout(options.dropout)
            hidden = (nn.Linear(cin, options.width), nn.ReLU(inplace=True))
            layers += (dropped, *hidden) if drop_first else (*hidden, dropped)
        self.classifier = nn.Sequential(*layers, nn.Linear(options.width, num_classes))
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def stages(self) -> list[list[nn.Module]]:
        """Return the convolutions between two poolings, each with the pooling before it."""
        *parts, last = parts_at_pools(self.features)
        return [*parts[:-1], parts[-1] + last]

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps behind the last pooling."""
        maps: Tensor = self.features(x)
        return maps

    def head(self, maps: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        if maps.shape[-2:] != (self.bins, self.bins):
            maps = F.adaptive_avg_pool2d(maps, self.bins)
        return run_with_dropout(self.classifier, maps.flatten(1), generator)

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits; see `Network`."""
        return [(self.head(self.maps(x), generator), 1.0)]
