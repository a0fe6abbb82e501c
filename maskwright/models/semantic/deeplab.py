"""DeepLab v1 and v2 (Chen et al. 2015, 1412.7062; 2016, 1606.00915): convolutions with holes.

| model | backbone | head |
| --- | --- | --- |
| deeplab_largefov | VGG-16 at stride 8 | mean of 3 x 3, fc6 3x3 at rate 12, fc7, fc8 |
| deeplabv2_vgg16 | VGG-16 at stride 8 | the same without mean at rates 6, 12, 18, 24, summed |
| deeplabv2_resnet101 | ResNet-101 at stride 8 | 3x3 to the classes at these rates, summed |

fc6 and fc7 have 1024 channels. Logits at stride 8 are enlarged to the pixels. VGG's maxima round up
as in Caffe, and the corner cells lie on the corner pixels: 321 pixels have 41 cells, so images of
8k + 1 pixels fit best. Parameters with 21 classes: 20,505,429 and 37,877,652, ResNet-101 with 4
classes 42,795,088.

Difference from the papers: the loss is that of the enlarged logits, not of shrunk maps of labels.
`statistics=caffe` and `stride_in_1x1=true` are for weights of Caffe; `ops/dense_crf.py` is the
random field behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.vgg import VGGS, load_thinned
from ...nn.convolution import Conv2d
from ...nn.norm import init_convs
from ..options import check_dropout, check_ranges
from ..registry import register
from .base import Segmenter
from .dilated import DilatedNetwork, DilatedOptions, check_rates


@dataclass(frozen=True)
class DeepLabOptions(DilatedOptions):
    """Options of DeepLab v1 and v2.

    Attributes:
        rates: dilations of the branches, whose logits are summed.
        mean_first: the mean of 3 x 3 cells comes before the branches (LargeFOV).
        stride_in_1x1: a bottleneck of a ResNet strides in its first convolution, as in Caffe.
        scales: further sizes of the image, as shares of it, such as [0.75, 0.5]; of the logits of
            all sizes the greatest counts, cell by cell (section 4.1 of v2). In training the logits
            of each size have a loss of their own too.
        width: channels of fc6 and fc7.
        dropout: share of the maps behind fc6 and fc7 that training sets to 0.
    """

    backbone: str = "vgg16"
    rates: tuple[int, ...] = (6, 12, 18, 24)
    mean_first: bool = False
    stride_in_1x1: bool = False
    scales: tuple[float, ...] = ()
    width: int = 1024
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rates", "scales"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # plain data has lists
        check_rates(self.rates, range(1, 9))
        check_ranges(self, {"width": (1, 65536)})
        check_dropout(self.dropout)
        if not all(0 < scale <= 4 for scale in self.scales):
            raise OptionError(f"scales are shares above 0 and up to 4, got {list(self.scales)}")


class DeepLab(DilatedNetwork):
    """A dilated VGG or ResNet, and branches whose logits are summed; see `DilatedNetwork`."""

    final = "branches.0"

    def __init__(self, num_classes: int, options: DeepLabOptions) -> None:
        super().__init__(num_classes, options, stride_in_1x1=options.stride_in_1x1)
        body: Any = self.backbone.body
        if hasattr(body, "maxpool"):
            body.maxpool.ceil_mode = True  # as in Caffe
        cin, width, drop = self.channels[0], options.width, options.dropout
        self.mean = nn.AvgPool2d(3, stride=1, padding=1) if options.mean_first else None
        self.branches = nn.ModuleList()
        for rate in options.rates:
            wide = options.backbone in VGGS
            rows = width if wide else num_classes
            layers: list[nn.Module] = [Conv2d(cin, rows, 3, padding=rate, dilation=rate)]
            if wide:
                layers += [nn.ReLU(inplace=True), nn.Dropout(drop), nn.Conv2d(rows, rows, 1)]
                layers += [nn.ReLU(inplace=True), nn.Dropout(drop), nn.Conv2d(rows, num_classes, 1)]
                init_convs(nn.Sequential(*layers[:-1]))
            final = layers[-1]
            assert isinstance(final, nn.Conv2d) and final.bias is not None
            nn.init.normal_(final.weight, std=0.01)
            nn.init.zeros_(final.bias)
            self.branches.append(nn.Sequential(*layers))
        self.final = f"branches.0.{len(layers) - 1}"
        self.scales = [round(100 * scale) for scale in options.scales]

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The last layers of all branches; see `PixelNetwork`."""
        last = self.final.removeprefix("branches.0.")
        names = [f"branches.{number}.{last}" for number in range(len(self.branches))]
        return dict.fromkeys(names, (1, False))

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the sum of the logits of the branches."""
        x = maps[0] if self.mean is None else self.mean(maps[0])
        first, *others = (branch(x) for branch in self.branches)
        total: Tensor = sum(others, first)
        return total

    def load_classifier(self, layers: Sequence[tuple[Tensor, Tensor]]) -> int:
        """Start fc6 and fc7 of each branch from the layers of a VGG; see `load_thinned`."""
        found = []
        for branch in self.branches:
            convs = [one for one in branch.children() if isinstance(one, nn.Conv2d)]
            found.append(load_thinned(convs[:-1], layers))
        return min(found)

    def all_logits(self, x: Tensor) -> list[tuple[Tensor, float]]:
        """Return the greatest of the logits of all sizes, and those of each; see `PixelNetwork`."""
        found = [super().forward(x)]
        height, width = x.shape[-2:]
        for percent in self.scales:
            size = max(1, height * percent // 100), max(1, width * percent // 100)
            scaled = F.interpolate(x, size, mode="bilinear", align_corners=False)
            logits = super().forward(scaled)
            found.append(self._resized(logits, found[0]))
        if len(found) > 1:
            found.insert(0, torch.stack(found).amax(0))
        return [(logits, 1.0) for logits in found]

    def forward(self, x: Tensor) -> Tensor:
        """Return the greatest of the logits of all sizes, at the stride of the image's own size."""
        return self.all_logits(x)[0][0]

    def _resized(self, logits: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(
            logits, like.shape[-2:], mode="bilinear", align_corners=self.align_corners
        )


def deeplab(num_classes: int, options: DeepLabOptions) -> Segmenter:
    """Build DeepLab v1 or v2."""
    return Segmenter(num_classes, DeepLab(num_classes, options), options)


_VGG = {"backbone": "vgg16", "align_corners": True}
for _name, _presets, _tiny in (
    ("deeplab_largefov", {**_VGG, "rates": (12,), "mean_first": True}, {"backbone": "vgg11"}),
    ("deeplabv2_vgg16", _VGG, None),
    (
        "deeplabv2_resnet101",
        {"backbone": "resnet101", "full_dilation": True, "norm": "frozen"},
        {"backbone": "resnet18"},
    ),
):
    register(
        _name,
        options=DeepLabOptions,
        task="semantic",
        paper="Chen et al. 2015" if _name == "deeplab_largefov" else "Chen et al. 2016",
        tiny=None if _tiny is None else {**_tiny, "width": 16, "imgsz": 64},
        presets=_presets,
    )(deeplab)
