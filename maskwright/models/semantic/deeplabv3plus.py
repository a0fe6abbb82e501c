"""DeepLabv3+ (Chen et al. 2018): DeepLabv3 as an encoder, and a decoder with a finer map.

The output of `nn.semantic.aspp.ASPP` is enlarged to the map at stride 4, which a 1x1 convolution
has brought to 48 channels; both are joined, and two 3x3 convolutions and the classes follow
(section 3.1).

What is published under this name differs, and weights know only one form:

| form | joined | 3x3 behind | 3x3 before | separable 3x3 |
| --- | --- | --- | --- | --- |
| paper | ASPP, map | 2 | | all or none, with a norm in their middle |
| smp | ASPP, map | 1 | 1 | those of the decoder, and of ASPP if wanted, without |

"smp" is segmentation_models_pytorch, whose networks also have all rates of a dilated stage equal,
rates of 12, 24, 36 at any output stride and the corners aligned: its weights bring these options
along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.semantic.aspp import ASPP, conv1x1, conv3x3
from ..names import register_on_backbones
from .base import Segmenter
from .deeplabv3 import DeepLabV3Options
from .dilated import DilatedNetwork, init_head

LOW = 48  # channels of the finer map


@dataclass(frozen=True)
class Form:
    """A published form of the decoder.

    Attributes:
        before: 3x3 convolutions between ASPP and what joins it.
        behind: 3x3 convolutions behind.
        separable: whether these are; None: as those of ASPP.
        norm_between: see `SeparableConv`.
    """

    before: int
    behind: int
    separable: bool | None
    norm_between: bool


FORMS = {
    "paper": Form(before=0, behind=2, separable=None, norm_between=True),
    "smp": Form(before=1, behind=1, separable=True, norm_between=False),
}


@dataclass(frozen=True)
class DeepLabV3PlusOptions(DeepLabV3Options):
    """Options of DeepLabv3+.

    Attributes:
        form: of the decoder: "paper", or "smp" as in segmentation_models_pytorch.
        low_level: whether the decoder has the finer map; without it its convolutions run at the
            stride of the last map, whose logits are enlarged at once.
    """

    output_stride: int = 16
    auxiliary: float = 0.0
    dropout: float = 0.1
    form: str = "paper"
    low_level: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise OptionError(f"form is one of {', '.join(FORMS)}; got {self.form!r}")


class DeepLabV3Plus(DilatedNetwork):
    """A dilated backbone, `ASPP` on its last map and a decoder; see `DilatedNetwork`."""

    final = "classifier"

    def __init__(self, num_classes: int, options: DeepLabV3PlusOptions) -> None:
        super().__init__(num_classes, options, (4, 32) if options.low_level else (32,))
        form, width = FORMS[options.form], options.width
        separable = options.separable if form.separable is None else form.separable
        self.aspp = ASPP(
            self.channels[-1],
            options.rates,
            width,
            dropout=options.dropout,
            image_pooling=options.image_pooling,
            separable=options.separable,
            norm_between=form.norm_between,
        )

        def convs(cin: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    nn.Sequential(
                        *conv3x3(
                            width if number else cin,
                            width,
                            separable=separable,
                            norm_between=form.norm_between,
                        )
                    )
                    for number in range(count)
                )
            )

        self.before = convs(width, form.before)
        self.low = nn.Sequential(*conv1x1(self.channels[0], LOW)) if options.low_level else None
        self.behind = convs(width + (LOW if options.low_level else 0), form.behind)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        for part in (self.aspp, self.before, self.low, self.behind):
            if part is not None:
                init_head(part)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits at stride 4, or at that of the last map without a finer one."""
        x = self.before(self.aspp(maps[-1]))
        if self.low is not None:
            low = self.low(maps[0])
            size = low.shape[-2:]
            x = F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners)
            x = torch.cat([x, low], 1)
        logits: Tensor = self.classifier(self.behind(x))
        return logits


def deeplabv3plus(num_classes: int, options: DeepLabV3PlusOptions) -> Segmenter:
    """Build DeepLabv3+."""
    return Segmenter(num_classes, DeepLabV3Plus(num_classes, options), options)


register_on_backbones(
    "deeplabv3plus_",
    deeplabv3plus,
    options=DeepLabV3PlusOptions,
    task="semantic",
    paper="Chen et al. 2018",
    tiny={"width": 16, "imgsz": 64},
    listed={
        **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
        "mobilenetv2_100": {"backbone": "mobilenetv2_100", "separable": True},
        "lite0": {"backbone": "tf_efficientnet_lite0", "separable": True},
    },
)
