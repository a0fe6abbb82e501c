"""SPPnet (He et al. 2014, "Spatial pyramid pooling in deep convolutional networks", section 4).

As published: one or several maps of the whole image, each region pooled from the scale at which
its area is nearest to 224 x 224 into a pyramid of 50 bins (levels 1, 2, 3, 6), only the fully
connected layers trained, then linear SVMs on the last of them and box regression on the pooled
features as R-CNN has them. Differences: the pyramid pools the fine bins by RoIPool's rule, which
keeps a pixel more at the end; the convolutions stay fixed as the rule `freeze=` says, 0 trains them
as well, through the pooling, which the paper could not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.detection.matchers import IoUMatcher
from ...nn.detection.poolers import MapPooler
from ...nn.detection.roi_heads import RoIHeads
from ...nn.detection.svm_head import SVMHead
from .fast_rcnn import TINY, MapOptions, assemble_regions, register_family
from .regions import SVMDetector
from .two_stage import make_sampler


@dataclass(frozen=True)
class SPPNetOptions(MapOptions):
    """Options of SPPnet.

    Attributes:
        levels: bins along each side of the levels of the pyramid.
        classifier: "svm": linear SVMs, fitted after training; "softmax": that of the training.
    """

    levels: tuple[int, ...] = (1, 2, 3, 6)
    classifier: str = "svm"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(self.levels))
        whole = all(isinstance(level, int) and 1 <= level <= 64 for level in self.levels)
        if not self.levels or not whole:
            raise OptionError(f"levels must be whole numbers from 1 to 64, got {self.levels}")


class SPPNet(SVMDetector):
    """SPPnet: see `SVMDetector`; the backbone trains as a whole or not at all."""

    def freeze(self, stages: int) -> None:
        """Keep all convolutions as they are, whatever the number of stages; 0 trains them."""
        super().freeze(len(self.backbone.body.stages()) if stages else 0)


def sppnet(num_classes: int, options: SPPNetOptions) -> SPPNet:
    """Build SPPnet."""
    backbone = Backbone(options.backbone, norm=options.norm, strides=(options.stride,))
    pooler = MapPooler(options.stride, scales=options.scales or (1,), levels=options.levels)
    head = SVMHead(
        backbone.channels[0],
        num_classes,
        classifier=options.classifier,
        bins=pooler.bins,
        fcs=options.box_fcs,
        width=options.box_width,
        dropout=options.dropout,
        ranks=options.svd,
    )
    # Of the fine-tuning (section 4.1): a quarter objects with IoU from 0.5, the others from 0.1.
    roi_heads = RoIHeads(
        head,
        pooler=pooler,
        matcher=IoUMatcher(0.5, 0.5, floor=0.0 if options.ohem else 0.1),
        sampler=make_sampler(options.rois, options.ohem),
    )
    return assemble_regions(
        SPPNet,
        num_classes,
        options,
        backbone=backbone,
        roi_heads=roi_heads,
        scales=options.scales,
        pyramid_training=True,
    )


_TINY: dict[str, Any] = {**TINY, "levels": (1, 2)}
register_family(
    "sppnet", sppnet, options=SPPNetOptions, paper="He et al. 2014 (SPPnet)", tiny=_TINY
)
