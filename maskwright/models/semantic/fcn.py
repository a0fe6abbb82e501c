"""FCN: a classifier run as convolutions, its scores enlarged (Long et al. 2015).

The fully connected layers of VGG-16 become convolutions of 7 x 7 and 1 x 1 (section 3.1), and the
scores of its classes go back to pixels by transposed convolutions with bilinear kernels (3.3). The
scores of earlier poolings join on the way (4.2):

| model | scores of | transposed convolutions, kernel / stride | crops |
| --- | --- | --- | --- |
| FCN-32s | pool5 | 64 / 32 | 19 |
| FCN-16s | pool5, pool4 | 4 / 2, 32 / 16 | 5, 27 |
| FCN-8s | pool5, pool4, pool3 | 4 / 2, 4 / 2, 16 / 8 | 5, 9, 31 |
| on AlexNet | pool5 | 63 / 32 | 18 |

The first convolution is padded by 100 pixels, so that an image of any size leaves fc6 something,
and the poolings round sizes up; what that shifts, the crops cut off: they are the offsets of the
published networks. Staged training, as published: FCN-16s starts from a run of FCN-32s, FCN-8s from
one of FCN-16s (`weights=`); all layers that both have bear equal names, those of wkentaro's port.
New scores start at zero. On AlexNet: that of torchvision, so with other widths and without response
normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.backbones.vgg import VGGS
from ...nn.convolution import Conv2d
from ..options import check_dropout, check_ranges
from ..registry import register
from .base import PixelNetwork, Segmenter, SegmenterOptions

PADDING = 100  # of the first convolution


@dataclass(frozen=True)
class FCNOptions(SegmenterOptions):
    """Options of FCN.

    Attributes:
        backbone: one of `nn.backbones.vgg.VGGS`, or alexnet for FCN-32s.
        stride: of the finest scores that count, 32, 16 or 8.
        width: channels of fc6 and fc7.
        dropout: share of the values behind fc6 and fc7 that are 0 in training.
        learn_upsampling: the kernels of the transposed convolutions start bilinear and train, each
            from all classes to all; otherwise they stay bilinear.
        at_once: FCN-8s that is trained in one go, without the two before it: pool4 is multiplied by
            0.01 and pool3 by 0.0001.
    """

    backbone: str = "vgg16"
    stride: int = 32
    width: int = 4096
    dropout: float = 0.5
    learn_upsampling: bool = False
    at_once: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)
        check_ranges(self, {"width": (1, 65536)})
        if self.backbone not in (*VGGS, "alexnet"):
            raise OptionError(
                f"backbone is one of {', '.join(VGGS)}, alexnet; got {self.backbone!r}"
            )
        if self.stride not in (32, 16, 8):
            raise OptionError(f"stride is 32, 16 or 8; got {self.stride!r}")
        if self.backbone == "alexnet" and self.stride != 32:
            raise OptionError(f"on alexnet there is FCN-32s alone, got stride={self.stride}")
        if self.at_once and self.stride != 8:
            raise OptionError(f"at_once is for FCN-8s, got stride={self.stride}")


def bilinear_kernel(side: int) -> Tensor:
    """Return the kernel (side, side) of a transposed convolution that interpolates bilinearly.

    Example:
        >>> bilinear_kernel(4)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
    """
    factor = (side + 1) // 2
    centre = factor - 1 if side % 2 else factor - 0.5
    line = 1 - (torch.arange(side) - centre).abs() / factor
    return line[:, None] * line


class Bilinear(nn.Module):
    """A transposed convolution with a fixed bilinear kernel, each channel by itself.

    The kernel is no tensor of the weights. At the borders less than a whole kernel is summed, so
    that values fade, which the crops of FCN leave in part, as published.

    Args:
        kernel: side of the kernel.
        stride: how much larger the maps get.
    """

    kernel: Tensor

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", bilinear_kernel(kernel)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, (h - 1) * stride + kernel, (w - 1) * stride + kernel) of (B, C, h, w)."""
        batch, channels, height, width = x.shape
        single = x.reshape(batch * channels, 1, height, width)
        large = F.conv_transpose2d(single, self.kernel.to(x.dtype), stride=self.stride)
        return large.reshape(batch, channels, *large.shape[-2:])


def upscore(classes: int, kernel: int, stride: int, *, learned: bool, bias: bool) -> nn.Module:
    """Return what enlarges scores: a transposed convolution that is bilinear, or starts so.

    Args:
        classes: channels; a learned kernel leads from each to each.
        kernel: side of the kernel.
        stride: how much larger the scores get.
        learned: whether it trains.
        bias: whether a learned one has a bias.
    """
    if not learned:
        return Bilinear(kernel, stride)
    layer = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=bias)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight.diagonal().copy_(bilinear_kernel(kernel)[..., None].expand(-1, -1, classes))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


@dataclass(frozen=True)
class Step:
    """A transposed convolution, and what follows it.

    Attributes:
        name: of the layer.
        kernel: side of its kernel.
        stride: how much larger the scores get.
        offset: where the crop behind it begins: of the scores of an earlier pooling, which are
            added, or without these of its result, at the size of the image.
        skip: name of the layer that makes these scores; "": there are none.
        factor: what the pooling is multiplied by before it where all is trained at once.
    """

    name: str
    kernel: int
    stride: int
    offset: int
    skip: str = ""
    factor: float = 1.0


_POOL4 = Step("upscore2", 4, 2, 5, "score_pool4", 0.01)
_POOL3 = Step("upscore_pool4", 4, 2, 9, "score_pool3", 0.0001)
# stride of the finest scores: the way from the coarsest ones to the image
STEPS = {
    32: (Step("upscore", 64, 32, 19),),
    16: (_POOL4, Step("upscore16", 32, 16, 27)),
    8: (_POOL4, _POOL3, Step("upscore8", 16, 8, 31)),
}
_ON_ALEXNET = (Step("upscore", 63, 32, 18),)
_POOL_WIDTHS = (512, 256)  # of pool4 and pool3


class FCN(PixelNetwork):
    """FCN at one of three strides.

    Args:
        num_classes: channels of the scores.
        options: which form.
        upscore_bias: learned transposed convolutions have a bias.
    """

    divisor = 32  # pools halve evenly: graphs for other programs stay simple
    final = "score_fr"

    def __init__(
        self, num_classes: int, options: FCNOptions, *, upscore_bias: bool = False
    ) -> None:
        super().__init__()
        alexnet = options.backbone == "alexnet"
        self.backbone = Backbone(options.backbone, norm="bn", strides=(16,))
        features: Any = self.backbone.body.features
        features[0].padding = (PADDING, PADDING)
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.last_pool = nn.MaxPool2d(3 if alexnet else 2, 2, ceil_mode=True)
        width = options.width
        self.fc6 = Conv2d(self.backbone.channels[-1], width, 6 if alexnet else 7)
        self.fc7 = Conv2d(width, width, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(options.dropout)
        self.at_once = options.at_once
        self.score_fr = _score(width, num_classes)
        self.steps = _ON_ALEXNET if alexnet else STEPS[options.stride]
        for step, channels in zip(self.steps, (*_POOL_WIDTHS, 0), strict=False):
            if step.skip:
                self.add_module(step.skip, _score(channels, num_classes))
            large = upscore(
                num_classes,
                step.kernel,
                step.stride,
                learned=options.learn_upsampling,
                bias=upscore_bias,
            )
            self.add_module(step.name, large)

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The layers with a row for each class; see `transfer.class_rows`."""
        names = [name for step in self.steps for name in (step.skip, step.name) if name]
        return dict.fromkeys((self.final, *names), (1, False))

    @property
    def class_squares(self) -> list[str]:
        """The tensors from each class to each; see `transfer.class_squares`."""
        return [f"{step.name}.weight" for step in self.steps]

    def last_stage(self) -> nn.Module:
        """Return the layer whose maps are explained: fc7, as its cells lie on the image."""
        return self.fc7

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of (B, 3, H, W)."""
        pools = self._pools(x)
        hidden = self.dropout(F.relu(self.fc6(pools.pop())))
        scores: Tensor = self.score_fr(self.dropout(F.relu(self.fc7(hidden))))
        for step in self.steps:
            scores = self.get_submodule(step.name)(scores)
            if step.skip:
                pool = pools.pop()
                skip = self.get_submodule(step.skip)(pool * step.factor if self.at_once else pool)
                scores = scores + _crop(skip, step.offset, scores)
        return _crop(scores, self.steps[-1].offset, x)

    def _pools(self, x: Tensor) -> list[Tensor]:
        """Return what each pooling makes of (B, 3, H, W)."""
        found = []
        for layer in (*self.backbone.body.features, self.last_pool):
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
        return found

    def load_classifier(self, layers: Sequence[tuple[Tensor, Tensor]]) -> int:
        """Start fc6 and fc7 from the fully connected layers of a classifier.

        Args:
            layers: weight (out, C, h, w) or (out, in) and bias of each.

        Returns:
            How many were taken: the first ones, as long as their sizes fit.
        """
        own = (self.fc6, self.fc7)
        for number, (layer, (weight, bias)) in enumerate(zip(own, layers, strict=False)):
            assert layer.bias is not None
            if weight.numel() != layer.weight.numel() or bias.shape != layer.bias.shape:
                return number
            with torch.no_grad():
                layer.weight.copy_(weight.view_as(layer.weight))
                layer.bias.copy_(bias)
        return min(len(own), len(layers))


def _score(channels: int, classes: int) -> Conv2d:
    """Return a convolution to scores, which starts at zero."""
    layer = Conv2d(channels, classes, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Return the part of maps from an offset on, on both axes, at the size of others."""
    height, width = like.shape[-2:]
    return x.narrow(-2, offset, height).narrow(-1, offset, width)


def fcn(num_classes: int, options: FCNOptions) -> Segmenter:
    """Build an FCN."""
    return Segmenter(num_classes, FCN(num_classes, options), options)


_TINY = {"backbone": "vgg11", "width": 16, "imgsz": 64}
for _name, _stride, _backbone in (
    ("fcn32s_vgg16", 32, "vgg16"),
    ("fcn16s_vgg16", 16, "vgg16"),
    ("fcn8s_vgg16", 8, "vgg16"),
    ("fcn32s_alexnet", 32, "alexnet"),
):
    register(
        _name,
        options=FCNOptions,
        task="semantic",
        paper="Long et al. 2015",
        tiny=_TINY if _name == "fcn8s_vgg16" else None,
        presets={"stride": _stride, "backbone": _backbone},
    )(fcn)
