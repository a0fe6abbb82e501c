"""What segmenters on dilated backbones share: options, backbone, a second head that only trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import OUTPUT_STRIDES, Backbone
from ...nn.norm import init_convs
from ...nn.semantic.aspp import conv3x3
from ..options import check_auxiliary, check_dropout
from ..registry import PublishedWeights
from .base import PixelNetwork, SegmenterOptions


@dataclass(frozen=True)
class DilatedOptions(SegmenterOptions):
    """Options of segmenters on a dilated backbone.

    Attributes:
        backbone: one of our ResNets or MobileNets, or a network of timm that dilates.
        output_stride: of its last map: 8 is finer and some three times as slow as 16; 32: it is
            not dilated.
        full_dilation: the first block of a dilated stage has the dilation of the stage
            (segmentation_models_pytorch, the ports of Caffe), not that of the stage before
            (torchvision). None: as the publisher of the backbone has it.
        multi_grid: factors of the dilations of the blocks of the last stage, such as [1, 2, 4]
            (Chen et al. 2017); empty: all 1.
        norm: of the backbone, which starts from ImageNet weights. "bn": batch norm trains, as in
            all published segmenters, of batches of eight images and more; "affine": weight and
            bias train, the statistics stay, for batches of fewer; "frozen": neither.
        align_corners: whether the cells of the corners lie on the pixels of the corners.
    """

    backbone: str = "resnet50"
    output_stride: int = 8
    full_dilation: bool | None = None
    multi_grid: tuple[int, ...] = ()
    norm: str = "bn"
    align_corners: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "multi_grid", tuple(self.multi_grid))  # plain data has lists
        if self.output_stride not in OUTPUT_STRIDES:
            raise OptionError(
                f"output_stride is one of {', '.join(map(str, OUTPUT_STRIDES))}; got "
                f"{self.output_stride!r}"
            )


@dataclass(frozen=True)
class AuxiliaryOptions(DilatedOptions):
    """Options of those that train a second head, on the map before the last stage.

    Attributes:
        auxiliary: how much its loss counts; 0: there is none. It is left out at test.
        dropout: share of the maps before the classes that training sets to 0.
    """

    auxiliary: float = 0.5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_auxiliary(self.auxiliary)
        check_dropout(self.dropout)


class DilatedNetwork(PixelNetwork):
    """A dilated backbone, a head on its maps, and perhaps an FCN on one of them that only trains.

    Subclasses set `final` and give `head`.

    Args:
        num_classes: rows of the last layers.
        options: see `DilatedOptions`.
        strides: of the maps that the head takes, as they are without dilation.
        stride_in_1x1: see `Backbone`.
    """

    def __init__(
        self,
        num_classes: int,
        options: DilatedOptions,
        strides: Sequence[int] = (32,),
        *,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.auxiliary_weight = getattr(options, "auxiliary", 0.0)
        # torchvision's auxiliary head stands on a finer map of its MobileNet.
        before = 8 if options.backbone == "mobilenet_v3_large" else 16
        wanted = sorted({*strides, *([before] if self.auxiliary_weight else [])})
        self.backbone = Backbone(
            options.backbone,
            norm=options.norm,
            stride_in_1x1=stride_in_1x1,
            strides=wanted,
            output_stride=options.output_stride,
            full_dilation=options.full_dilation,
            multi_grid=options.multi_grid,
        )
        self.align_corners = options.align_corners
        self._taken = [wanted.index(stride) for stride in strides]
        self.channels = [self.backbone.channels[index] for index in self._taken]
        self.aux_classifier: nn.Sequential | None = None
        if self.auxiliary_weight:
            self._before = wanted.index(before)
            self.aux_classifier = fcn_head(self.backbone.channels[self._before], num_classes)
            self.auxiliary = ("aux_classifier.4",)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits of the maps that were asked for, fine to coarse."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits; see `PixelNetwork`."""
        maps = self.backbone(x)
        return self.head([maps[index] for index in self._taken])

    def all_logits(self, x: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits of both heads; see `PixelNetwork`."""
        maps = self.backbone(x)
        found = [(self.head([maps[index] for index in self._taken]), 1.0)]
        if self.aux_classifier is not None:
            found.append((self.aux_classifier(maps[self._before]), self.auxiliary_weight))
        return found


def fcn_head(cin: int, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """Return a 3x3 convolution to a quarter of the channels, norm, ReLU, dropout and classes."""
    width = cin // 4
    head = nn.Sequential(
        *conv3x3(cin, width), nn.Dropout(dropout), nn.Conv2d(width, num_classes, 1)
    )
    init_head(head, "4")
    return head


def init_head(head: nn.Module, *finals: str) -> None:
    """Initialise a head: its layers of classes begin without an opinion."""
    init_convs(head)
    for final in finals:
        layer = head.get_submodule(final)
        assert isinstance(layer, nn.Conv2d)
        nn.init.normal_(layer.weight, std=0.01)


def torchvision_segmenter(file: str, miou: float, pixels: float) -> Mapping[str, PublishedWeights]:
    """Describe a file of torchvision, trained on COCO with the 21 classes of Pascal VOC.

    Args:
        file: its name, which ends with the beginning of its SHA-256.
        miou: published mean IoU in percent, on the images of COCO val2017.
        pixels: published accuracy of the pixels in percent.
    """
    weights = PublishedWeights(
        url=f"https://download.pytorch.org/models/{file}.pth",
        sha256=file.rsplit("-", 1)[1],
        format="torchvision",
        licence="BSD-3-Clause (torchvision); trained on COCO",
        source="torchvision, COCO train2017 with the classes of Pascal VOC",
        metrics={"miou": miou, "pixel_accuracy": pixels},
    )
    return {"coco": weights}


def check_rates(rates: Sequence[int], count: range) -> None:
    """Make sure that dilations of parallel convolutions are some.

    Raises:
        OptionError: if not.
    """
    good = all(type(rate) is int and rate >= 1 for rate in rates)
    if not good or len(rates) not in count:
        raise OptionError(
            f"rates are dilations from 1 up, {count[0]} to {count[-1]} of them; got {list(rates)}"
        )
