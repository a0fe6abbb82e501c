"""SegNet: a decoder that puts values back where they were the maxima (Badrinarayanan et al. 2015).

The convolutions of VGG-16, each with batch norm, halve the map five times and remember where the
maxima stood; the decoder, their mirror image, puts its values to these places, zeros between, and
its convolutions fill them up (section 3). No fully connected layer, so 29.4 million parameters:

| stage of the decoder | convolutions of 3x3 |
| --- | --- |
| 5 | 512, 512, 512 |
| 4 | 512, 512, 256 |
| 3 | 256, 256, 128 |
| 2 | 128, 64 |
| 1 | 64, classes |

Poolings round up and the size before each is remembered, so that images of any size serve. SegNet
starts from ImageNet weights of VGG with batch norm. SegNet-Basic (section 4): four stages of one
convolution of 7x7 each, of which those of the decoder have no ReLU, behind a response normalisation
of the image. Differences from the published code: running statistics of batch norm in place of
those of the whole training set, which `recompute_norms` brings; RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.backbones.vgg import VGGS, WIDTHS
from ...nn.convolution import Conv2d
from ...nn.norm import ResponseNorm, init_convs
from ...nn.track import Track
from ...ops.unpool import max_pool, max_unpool
from ...structures import Images
from ..options import check_ranges
from ..registry import register
from .base import PixelNetwork, Segmenter, SegmenterOptions
from .encoder import Encoder

SHIFT = 0.001  # of fresh batch norms, as published


@dataclass(frozen=True)
class SegNetOptions(SegmenterOptions):
    """Options of SegNet.

    Attributes:
        backbone: one of `nn.backbones.vgg.VGGS` with batch norm.
        recompute_norms: after the training, batch norm gets the statistics of the whole training
            set in place of the running ones.
    """

    backbone: str = "vgg16_bn"
    recompute_norms: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_backbone(self.backbone)


def check_backbone(name: str) -> None:
    """Raise OptionError unless a backbone is a VGG with batch norm."""
    known = [vgg for vgg in VGGS if vgg.endswith("_bn")]
    if name not in known:
        raise OptionError(f"backbone is one of {', '.join(known)}; got {name!r}")


class Remembering(PixelNetwork):
    """A network whose decoder takes places from the encoder.

    Attributes:
        decoder: stages that begin at the last pooling, each behind a way back.
    """

    decoder: nn.ModuleList

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of the encoder in order, poolings of 2 x 2 among them."""
        raise NotImplementedError

    def between(self, x: Tensor) -> Tensor:
        """Return what the decoder begins with, of what the encoder ends with."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of (B, 3, H, W)."""
        pooled: list[tuple[Tensor, tuple[int, int]]] = []
        for layer in self.layers():
            if isinstance(layer, nn.MaxPool2d):
                size = (x.shape[2], x.shape[3])
                x, places = max_pool(x)
                pooled.append((places, size))
            else:
                x = layer(x)
        x = self.between(x)
        for stage in self.decoder:
            x = stage(max_unpool(x, *pooled.pop()))
        return x


def mirror(backbone: str) -> list[list[tuple[int, int]]]:
    """Return channels in and out of the convolutions that mirror a VGG, by stage, from the last on.

    Each stage has as many as the block, of its width; its last one leads to that of the block
    before.
    """
    widths = zip(VGGS[backbone], WIDTHS, (WIDTHS[0], *WIDTHS[:-1]), strict=True)
    return [
        list(pairwise([*[width] * count, before]))
        for count, width, before in reversed(list(widths))
    ]


def with_last_pool(backbone: Backbone) -> list[nn.Module]:
    """Return the layers of a VGG that ends before its last pooling, and that pooling."""
    features: Any = backbone.body.features
    return [*features, nn.MaxPool2d(2)]


def _conv(cin: int, cout: int, kernel: int = 3, *, relu: bool = True) -> list[nn.Module]:
    conv = Conv2d(cin, cout, kernel, padding=kernel // 2)
    return [conv, nn.BatchNorm2d(cout), *([nn.ReLU(inplace=True)] if relu else [])]


def start(network: nn.Module) -> None:
    """Give convolutions and norms the weights that a training begins with, as published."""
    init_convs(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, SHIFT)


class SegNet(Remembering):
    """VGG and its mirror image."""

    divisor = 32  # for graphs of any size; any other serves too

    def __init__(self, num_classes: int, backbone: str) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, norm="bn", strides=(16,))
        *stages, last = mirror(backbone)
        rows = [
            [layer for pair in pairs for layer in _conv(*pair)] for pairs in (*stages, last[:-1])
        ]
        rows[-1].append(Conv2d(last[-1][0], num_classes, 3, padding=1))
        self.decoder = nn.ModuleList(nn.Sequential(*row) for row in rows)
        self.final = f"decoder.4.{len(rows[-1]) - 1}"
        start(self)

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of the VGG; see `Remembering`."""
        return with_last_pool(self.backbone)


@dataclass(frozen=True)
class SegNetBasicOptions(SegmenterOptions):
    """Options of SegNet-Basic.

    Attributes:
        width: channels of all convolutions.
        recompute_norms: see `SegNetOptions`.
    """

    width: int = 64
    recompute_norms: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"width": (1, 4096)})


class SegNetBasic(Remembering):
    """Four stages of one convolution each way."""

    divisor = 16
    final = "decoder.3.2"

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        # Caffe's: alpha is divided by the maps of the sum.
        self.norm = ResponseNorm(alpha=1e-4 / 5, k=1.0)
        self.backbone = Encoder(
            (nn.Sequential(*_conv(c, width, 7), nn.MaxPool2d(2, 2)) for c in (3, *[width] * 3)),
            statistics="raw",
        )
        rows = [_conv(width, width, 7, relu=False) for _ in range(4)]
        rows[-1].append(Conv2d(width, num_classes, 1))
        self.decoder = nn.ModuleList(nn.Sequential(*row) for row in rows)
        start(self)

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of the stages; see `Remembering`."""
        return [self.norm, *(layer for level in self.backbone.levels for layer in level)]


class SegNetSegmenter(Segmenter):
    """A SegNet, whose norms may get other statistics after the training.

    Args:
        num_classes: see `Segmenter`.
        network: see `Segmenter`.
        options: see `SegNetOptions`.
    """

    def __init__(
        self,
        num_classes: int,
        network: PixelNetwork,
        options: SegNetOptions | SegNetBasicOptions,
    ) -> None:
        super().__init__(num_classes, network, options)
        self.recompute_norms = options.recompute_norms

    @property
    def fits_after_training(self) -> bool:
        """Whether norms get the statistics of the training set."""
        return self.recompute_norms

    @torch.no_grad()
    def fit_after_training(
        self,
        batches: Callable[[], Iterable[tuple[Images, Any]]],
        count: int,
        names: Sequence[str],
        say: Callable[[str], None],
        track: Track,
    ) -> None:
        """Give the norms that train the mean of the statistics of all batches; see `Model`.

        As the authors do: variances corrected by m / (m - 1), which those of PyTorch are.
        """
        self.train()
        live = [m for m in self.modules() if isinstance(m, _BatchNorm) and m.training]
        momenta = [layer.momentum for layer in live]
        for layer in live:
            layer.reset_running_stats()
            layer.momentum = None  # a mean in which all batches count alike
        for images, _ in batches():
            self(images.to(self.mean.device))
        for layer, momentum in zip(live, momenta, strict=True):
            layer.momentum = momentum
        self.eval()


def segnet(num_classes: int, options: SegNetOptions) -> Segmenter:
    """Build a SegNet."""
    return SegNetSegmenter(num_classes, SegNet(num_classes, options.backbone), options)


def segnet_basic(num_classes: int, options: SegNetBasicOptions) -> Segmenter:
    """Build a SegNet-Basic."""
    return SegNetSegmenter(num_classes, SegNetBasic(num_classes, options.width), options)


_PAPER = "Badrinarayanan et al. 2015"
register(
    "segnet",
    options=SegNetOptions,
    task="semantic",
    paper=_PAPER,
    tiny={"backbone": "vgg11_bn", "imgsz": 64},
)(segnet)
register(
    "segnet_basic",
    options=SegNetBasicOptions,
    task="semantic",
    paper=_PAPER,
    tiny={"width": 8, "imgsz": 64},
)(segnet_basic)
