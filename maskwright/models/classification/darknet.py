"""Darknet-19 (Redmon & Farhadi 2017, section 3): the backbone of YOLO v2 as a classifier.

| maps | layers |
| --- | --- |
| 112 | 3x3 32, pooling |
| 56 | 3x3 64, pooling |
| 28 | 3x3 128, 1x1 64, 3x3 128, pooling |
| 14 | 3x3 256, 1x1 128, 3x3 256, pooling |
| 7 | 3x3 512, 1x1 256, 3x3 512, 1x1 256, 3x3 512, pooling |
| 7 | 3x3 1024, 1x1 512, 3x3 1024, 1x1 512, 3x3 1024 |
| 1 | 1x1 to the classes, mean |

Batch norm and a leaky ReLU of 0.1 behind each convolution but the last. The network is a table of
layers in Darknet's language, which the option `layers` replaces: any of its classifiers is built.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...errors import OptionError
from ...nn.darknet.layers import GroupSoftmax, UnbiasedBatchNorm2d
from ...nn.darknet.network import DarknetNetwork
from ...nn.darknet.table import Table, head_of, with_classes, write_table
from ...nn.random import RandomSource
from ..darknet import TINY, table_of
from ..registry import register
from .base import Classifier, ClassifierOptions, Network


@dataclass(frozen=True)
class DarknetOptions(ClassifierOptions):
    """Options of Darknet's classifiers.

    Attributes:
        layers: another network, in the language of Darknet's `.cfg` files; "": Darknet-19.
        conventions: "darknet", or "darknet_cpu": batch norm adds 1e-6 to the deviation at test, as
            Darknet does on CPUs, not 1e-5 to the variance, as on GPUs.
    """

    statistics: str = "unit"
    layers: str = ""
    conventions: str = "darknet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conventions not in ("darknet", "darknet_cpu"):
            raise OptionError(
                f"conventions is darknet or darknet_cpu here; got {self.conventions!r}"
            )


class DarknetClassifier(Network):
    """A table of layers of which the last one with weights has a row for each class.

    Args:
        table: the network.
        conventions: see `DarknetOptions`.
    """

    def __init__(self, table: Table, conventions: str) -> None:
        super().__init__()
        self.body = DarknetNetwork(table)
        inner = {"convolutional": "conv", "connected": "linear"}
        numbers = [section.number for section in self.body.sections if section.kind in inner]
        self._last = numbers[-1]
        self.final = f"body.layers.{self._last}.{inner[self.body.sections[self._last].kind]}"
        for layer in self.modules():
            if isinstance(layer, UnbiasedBatchNorm2d):
                layer.outside = conventions == "darknet_cpu"

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers by size of their maps, without the last one; see `DarknetNetwork`."""
        own = list(self.body.layers[: self._last])
        found = [[layer for layer in stage if layer in own] for stage in self.body.stages()]
        return [stage for stage in found if stage]

    def _split(self, x: Tensor, generator: RandomSource = None) -> tuple[Tensor, Tensor]:
        """Return the maps before the last layer with weights, and the logits (B, C)."""
        maps = logits = x
        for number, made in enumerate(self.body.each(x, generator)):
            if number < self._last:
                maps = made
            elif not isinstance(self.body.layers[number], GroupSoftmax):
                logits = made
        return maps, logits.flatten(1)

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps that the last layer with weights takes."""
        return self._split(x)[0]

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the maps: the last layers, but for the softmax."""
        for layer in self.body.layers[self._last :]:
            if not isinstance(layer, GroupSoftmax):
                maps = layer(maps)
        return maps.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of (B, 3, H, W)."""
        return self._split(x)[1]

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits; see `Network`."""
        return [(self._split(x, generator)[1], 1.0)]


@register(
    "darknet19",
    options=DarknetOptions,
    task="classify",
    paper="Redmon & Farhadi 2017",
    tiny={"layers": write_table(TINY["darknet19"]), "imgsz": 32},
)
def darknet19(num_classes: int, options: DarknetOptions) -> Classifier:
    """Build Darknet-19, or the classifier of another table of layers.

    Raises:
        ValueError: if the table is none, or no classifier of photos.
    """
    table = with_classes(table_of("darknet19", options.layers), num_classes)
    if (head := head_of(table)) is not None:
        raise ValueError(f"layers: {head.called} makes boxes; this is a classifier")
    network = DarknetClassifier(table, options.conventions)
    if network.body.output != (num_classes, 1, 1) or network.body.input[0] != 3:
        raise ValueError(
            f"layers: photos of 3 channels should come to {num_classes} numbers, got "
            f"{network.body.input[0]} and {network.body.output}"
        )
    return Classifier(num_classes, network, options)
