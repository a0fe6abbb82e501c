"""U-Net: a decoder that doubles the maps and takes those of the encoder along (Ronneberger 2015).

Two forms. `unet` is the paper's, with padded convolutions and batch norm (milesial): levels of two
convolutions of 3x3 with 64, 128, 256, 512 and 1024 channels, halved by maxima, doubled by
transposed convolutions of 2x2, or bilinearly, and joined as [encoder's, enlarged]. Differences from
the paper: sizes are kept in place of 572 to 388 pixels, batch norm in place of dropout, no weights
of pixels by their distance to the next objects. It starts from random weights.

`unet_<backbone>` has any backbone as the encoder (segmentation_models_pytorch): maps at strides 32
to 2, doubled to the nearest, joined as [enlarged, encoder's], two convolutions with batch norm of
256, 128, 64, 32 and 16 channels, the last of them at the size of the image, scores by a convolution
of 3x3. Backbones without a map at stride 2 have none there. It starts from ImageNet weights.

Sides need not be even: an enlarged map is brought to the size of what it joins, by zeros all around
in the one form, by nearest neighbours in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import STRIDES, Backbone, finest_stride
from ...nn.norm import conv_block, init_convs
from ..names import register_on_backbones
from ..options import check_ranges
from ..registry import register
from .base import PixelNetwork, Segmenter, SegmenterOptions
from .encoder import Encoder

LEVELS = 5


@dataclass(frozen=True)
class UNetOptions(SegmenterOptions):
    """Options of the U-Net of the paper.

    Attributes:
        width: channels of the first level; each later one has twice as many.
        bilinear: maps are doubled bilinearly, without parameters, and halve their channels in the
            convolutions behind; otherwise by transposed convolutions.
    """

    width: int = 64
    bilinear: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"width": (2, 1024)})


def _double(cin: int, middle: int, cout: int) -> nn.Sequential:
    return nn.Sequential(conv_block(cin, middle, norm="bn"), conv_block(middle, cout, norm="bn"))


class _Up(nn.Module):
    """Doubles a map, joins that of the encoder, and convolves both twice.

    Args:
        cin: channels of the map; that of the encoder has half of them.
        cout: of the result.
        bilinear: see `UNetOptions`.
    """

    def __init__(self, cin: int, cout: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.convs = _double(cin, cin // 2, cout)
        else:
            self.up = nn.ConvTranspose2d(cin, cin // 2, 2, stride=2)
            self.convs = _double(cin, cout, cout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, cout, H, W) of a map at half the size and that of the encoder (B, ?, H, W)."""
        x = self.up(x)
        high, wide = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        if high or wide:
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        out: Tensor = self.convs(torch.cat([skip, x], 1))
        return out


class UNet(PixelNetwork):
    """The U-Net of the paper, padded and with batch norm; sides from 16 on."""

    divisor = 2 ** (LEVELS - 1)
    final = "head"

    def __init__(self, num_classes: int, options: UNetOptions) -> None:
        super().__init__()
        widths = [options.width * 2**level for level in range(LEVELS)]
        share = 2 if options.bilinear else 1  # a map that is doubled bilinearly has half of them
        ends = [*widths[:-1], widths[-1] // share]
        levels = [_double(3, widths[0], widths[0])]
        levels += [
            nn.Sequential(nn.MaxPool2d(2), _double(cin, cout, cout))
            for cin, cout in zip(widths, ends[1:], strict=False)
        ]
        self.backbone = Encoder(levels, statistics="unit")
        self.decoder = nn.ModuleList(
            _Up(2 * width, width // (share if level else 1), options.bilinear)
            for level, width in reversed(list(enumerate(widths[:-1])))
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        init_convs(self)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of (B, 3, H, W)."""
        *maps, x = self.backbone(x)
        for up, skip in zip(self.decoder, reversed(maps), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits


@dataclass(frozen=True)
class UNetBackboneOptions(SegmenterOptions):
    """Options of the U-Net on a backbone.

    Attributes:
        backbone: one of our ResNets, VGGs or MobileNets, or a timm name.
        norm: of the backbone, which starts from ImageNet weights. "bn": batch norm trains, as
            published; "affine": weight and bias train, the statistics stay, for batches of few
            images; "frozen": neither.
        widths: channels of the decoder, from the coarsest map to the image.
        middle: two more convolutions of 3x3 on the coarsest map, as segmentation_models_pytorch has
            them on a VGG.
    """

    backbone: str = "resnet34"
    norm: str = "bn"
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    middle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", tuple(self.widths))  # plain data has lists
        if len(self.widths) != LEVELS or not all(
            type(width) is int and 1 <= width <= 4096 for width in self.widths
        ):
            raise OptionError(
                f"widths are {LEVELS} numbers of channels, 1 to 4096; got {list(self.widths)}"
            )


class _Block(nn.Module):
    """Brings a map to a size by nearest neighbours, joins that of the encoder, convolves twice."""

    def __init__(self, cin: int, skip: int, cout: int) -> None:
        super().__init__()
        self.conv1 = conv_block(cin + skip, cout, norm="bn")
        self.conv2 = conv_block(cout, cout, norm="bn")

    def forward(self, x: Tensor, size: Sequence[int], skip: Tensor | None) -> Tensor:
        """Return (B, cout, *size) of a map and, where there is one, that of the encoder."""
        x = F.interpolate(x, size, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], 1)
        out: Tensor = self.conv2(self.conv1(x))
        return out


class BackboneUNet(PixelNetwork):
    """A U-Net whose encoder is a backbone."""

    divisor = 32
    final = "head"

    def __init__(self, num_classes: int, options: UNetBackboneOptions) -> None:
        super().__init__()
        finest = finest_stride(options.backbone)
        strides = [stride for stride in STRIDES if stride >= finest]
        backbone = Backbone(options.backbone, norm=options.norm, strides=strides)
        self.backbone = backbone
        # No map at the size of the image, and of some backbones none at half of it.
        missing = [0 for stride in (1, *STRIDES) if stride < finest]
        *skips, last = [*missing, *backbone.channels]
        channels = zip((last, *options.widths), reversed(skips), options.widths, strict=False)
        self.middle = _double(last, last, last) if options.middle else nn.Sequential()
        self.blocks = nn.ModuleList(_Block(cin, skip, cout) for cin, skip, cout in channels)
        self.head = nn.Conv2d(options.widths[-1], num_classes, 3, padding=1)
        init_convs(self.middle)
        init_convs(self.blocks)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of (B, 3, H, W)."""
        height, width = x.shape[-2:]
        *maps, x = self.backbone(x)
        x = self.middle(x)
        skips: list[Tensor | None] = [None] * (len(self.blocks) - len(maps)) + maps
        for block, stride in zip(self.blocks, (16, 8, 4, 2, 1), strict=True):
            skip = skips.pop()
            # As many cells as a network that rounds up has at this stride.
            size = (-(-height // stride), -(-width // stride)) if skip is None else skip.shape[-2:]
            x = block(x, size, skip)
        logits: Tensor = self.head(x)
        return logits


def unet(num_classes: int, options: UNetOptions) -> Segmenter:
    """Build the U-Net of the paper."""
    return Segmenter(num_classes, UNet(num_classes, options), options)


def backbone_unet(num_classes: int, options: UNetBackboneOptions) -> Segmenter:
    """Build a U-Net on a backbone."""
    return Segmenter(num_classes, BackboneUNet(num_classes, options), options)


register(
    "unet",
    options=UNetOptions,
    task="semantic",
    paper="Ronneberger et al. 2015",
    tiny={"width": 8, "imgsz": 64},
)(unet)
register_on_backbones(
    "unet_",
    backbone_unet,
    options=UNetBackboneOptions,
    task="semantic",
    paper="Ronneberger et al. 2015",
    tiny={"imgsz": 64},
    listed={
        **{name: name for name in ("resnet18", "resnet34", "resnet50", "mobilenetv2_100")},
        "lite0": "tf_efficientnet_lite0",
    },
)
