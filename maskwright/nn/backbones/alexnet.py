"""The convolutions of AlexNet (Krizhevsky et al. 2012) in the single-column form of torchvision.

Maps at strides 4, 8 and 16, each behind its ReLU and before the pooling, so that 6 x 6 maxima over
the last one of a 224 x 224 image are pool5. Names are torchvision's (`features.0`). Differences
from the paper: no groups, no response normalisation, other widths (Krizhevsky 2014).
Backbones take the maps, classifiers the sequence `features`: one network, two uses.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..convolution import Conv2d
from ..norm import init_convs
from .vgg import parts_at_pools

# Position of the last module of each stage among torchvision's `features`.
_ENDS = {4: 1, 8: 4, 16: 11}


class AlexNet(nn.Module):
    """Five convolutions.

    Args:
        deepest: stride of the last map; what comes behind it is not built.
    """

    def __init__(self, deepest: int = 16) -> None:
        super().__init__()
        self.strides = tuple(stride for stride in _ENDS if stride <= deepest)
        self.channels = (64, 192, 256)[: len(self.strides)]
        self.tail_channels = 0  # no stage is left for regions
        layers: list[nn.Module] = [
            Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
        ]
        self.features = nn.Sequential(*layers[: _ENDS[self.strides[-1]] + 1])
        init_convs(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage: what leads to each map."""
        return parts_at_pools(self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        maps = []
        for stage in self.stages():
            for module in stage:
                x = module(x)
            maps.append(x)
        return tuple(maps)

    def tail(self, x: Tensor) -> Tensor:
        """There is none: `Backbone` refuses to ask for it."""
        raise NotImplementedError
