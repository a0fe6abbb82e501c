"""Dropout (Srivastava et al. 2014) on regions and images, with numbers that a resumed run repeats.

They come from where the samplers have theirs: from a generator, or from the key of the image, the
slot of the region among the sampled ones, and the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .random import ImageNoise, RandomSource, image_noise


@dataclass(frozen=True)
class RegionNoise:
    """Random numbers for the units of layers that run on regions.

    Attributes:
        source: a generator goes on by itself; the numbers of `ImageNoise` hang on nothing else
            than image, slot and unit.
        image: (R,) int64, image of each region.
        slot: (R,) int64, its slot among the regions of the image.
    """

    source: RandomSource
    image: Tensor
    slot: Tensor

    def uniform(self, layer: int, width: int) -> Tensor:
        """Return (R, width) float32 in [0, 1) for the units of a layer."""
        device = self.slot.device
        if isinstance(self.source, ImageNoise):
            keys = self.source.stream(layer).keys[self.image]
            units = torch.arange(width, device=device)
            return ImageNoise(keys).uniform(self.slot[:, None] * width + units)
        shape = (len(self.slot), width)
        if self.source is None:
            return torch.rand(shape, device=device)
        return torch.rand(shape, generator=self.source, device=self.source.device).to(device)


def drop_units(x: Tensor, share: float, noise: Tensor) -> Tensor:
    """Set a share of the units to 0 and enlarge the others, so that the expectation stays.

    Args:
        x: (R, width).
        share: of the units that are dropped, in [0, 1).
        noise: (R, width) in [0, 1): units below the share are dropped.
    """
    return x * ((noise >= share).to(x.dtype) / (1 - share))


class Dropout(nn.Dropout):
    """`nn.Dropout` on the units of whole images, with random numbers from a source."""

    def forward(self, x: Tensor, source: RandomSource = None) -> Tensor:
        """Return (B, width) of the same; in training a share of the units is 0."""
        if not self.training or self.p == 0:
            return x
        return drop_units(x, self.p, image_noise(source, len(x), x.shape[1], x.device))


def run_with_dropout(layers: nn.Sequential, x: Tensor, source: RandomSource) -> Tensor:
    """Return what a sequence makes of (B, width), each `Dropout` in it with numbers of its own."""
    for number, layer in enumerate(layers):
        if isinstance(layer, Dropout):
            own = source.stream(number) if isinstance(source, ImageNoise) else source
            x = layer(x, own)
        else:
            x = layer(x)
    return x
