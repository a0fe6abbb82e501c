"""FCN on a dilated ResNet, as torchvision has it (after Long et al. 2015).

The last map, at stride 8, goes through a 3x3 convolution to a quarter of its channels and one of
the classes; a second such head on the map before trains the middle of the network and is left out
at test. Unlike the network of the paper there are no steps of upsampling: dilation keeps the
detail that these bring back.

| | resnet50 | resnet101 |
| --- | --- | --- |
| parameters, 21 classes | 35,322,218 | 54,314,346 |
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..registry import register
from .base import Segmenter
from .dilated import AuxiliaryOptions, DilatedNetwork, fcn_head, torchvision_segmenter


class FCNResNet(DilatedNetwork):
    """A dilated backbone with an FCN on its last map; see `DilatedNetwork`."""

    final = "classifier.4"

    def __init__(self, num_classes: int, options: AuxiliaryOptions) -> None:
        super().__init__(num_classes, options)
        self.classifier = fcn_head(self.channels[0], num_classes, options.dropout)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits at the stride of the last map."""
        logits: Tensor = self.classifier(maps[0])
        return logits


def fcn_resnet(num_classes: int, options: AuxiliaryOptions) -> Segmenter:
    """Build an FCN on a dilated ResNet."""
    return Segmenter(num_classes, FCNResNet(num_classes, options), options)


for _name, _file, _miou, _pixels in (
    ("resnet50", "fcn_resnet50_coco-1167a1af", 60.5, 91.4),
    ("resnet101", "fcn_resnet101_coco-7ecb50ca", 63.7, 91.9),
):
    register(
        f"fcn_{_name}",
        options=AuxiliaryOptions,
        task="semantic",
        paper="Long et al. 2015",
        tiny={"backbone": "resnet18", "imgsz": 64} if _name == "resnet50" else None,
        weights=torchvision_segmenter(_file, _miou, _pixels),
        presets={"backbone": _name},
    )(fcn_resnet)
