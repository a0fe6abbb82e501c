"""Feature pyramid (Lin et al. 2017): lateral 1x1, top-down sum, 3x3 per level, coarser levels.

What comes above the map of the last stage is P5 subsampled (two-stage detectors), or two strided
convolutions (`LastLevels`, RetinaNet).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import conv_block


class LastLevels(nn.Module):
    """P6 and P7: strided 3x3 convolutions of C5 or P5 (Lin et al. 2017b).

    Args:
        in_channels: channels of C5.
        channels: channels of the pyramid.
        of_pyramid: P6 is made of P5, not of C5.
        relu: there is a ReLU between them; not in mmdetection.
    """

    def __init__(
        self, in_channels: int, channels: int, *, of_pyramid: bool, relu: bool = True
    ) -> None:
        super().__init__()
        self.of_pyramid = of_pyramid
        self.relu = relu
        first = channels if of_pyramid else in_channels
        self.p6 = nn.Conv2d(first, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, c5: Tensor, p5: Tensor) -> tuple[Tensor, Tensor]:
        """Return P6 and P7, half and a quarter of the size of P5."""
        p6 = self.p6(p5 if self.of_pyramid else c5)
        return p6, self.p7(F.relu(p6) if self.relu else p6)


class FPN(nn.Module):
    """Maps such as C2 to C5 become P2 to P6, or C3 to C5 become P3 to P7, of equal channels.

    Args:
        in_channels: channels of the backbone's maps, fine to coarse.
        strides: their strides.
        channels: channels of the pyramid.
        norm: None, "bn" or "gn" after each convolution.
        last: makes two levels above; None: there is one, which is subsampled.

    Attributes:
        strides: strides of all levels, the extra ones included.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        *,
        norm: str | None = None,
        last: LastLevels | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        above = (2,) if last is None else (2, 4)
        self.strides = (*strides, *(strides[-1] * times for times in above))
        self.last = last
        self.lateral = nn.ModuleList(
            conv_block(c, channels, 1, norm=norm, relu=False) for c in in_channels
        )
        self.output = nn.ModuleList(
            conv_block(channels, channels, 3, norm=norm, relu=False) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return all levels of the maps, fine to coarse."""
        laterals = [conv(x) for conv, x in zip(self.lateral, maps, strict=True)]
        merged = laterals[-1]
        levels = [self.output[-1](merged)]
        for lateral, output in zip(
            reversed(laterals[:-1]), reversed(list(self.output)[:-1]), strict=True
        ):
            merged = _add_upsampled(lateral, merged)
            levels.insert(0, output(merged))
        if self.last is not None:
            return (*levels, *self.last(maps[-1], levels[-1]))
        # P6 only serves the large anchors of the RPN, so it needs no convolution of its own
        # (Lin et al. 2017, footnote 1).
        levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)


def _add_upsampled(lateral: Tensor, above: Tensor) -> Tensor:
    """Return a lateral map plus the map above it, each pixel of which meets 2 x 2 (nearest).

    In place: large maps cost more memory than arithmetic.
    """
    (height, width), (high, wide) = lateral.shape[-2:], above.shape[-2:]
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if plain or (height, width) != (2 * high, 2 * wide):
        return lateral.add_(F.interpolate(above, size=(height, width), mode="nearest"))
    pixels = lateral.unflatten(2, (high, 2)).unflatten(4, (wide, 2))  # (B, C, h, 2, w, 2)
    pixels += above[:, :, :, None, :, None]
    return lateral
