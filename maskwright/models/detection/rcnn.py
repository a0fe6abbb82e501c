"""R-CNN (Girshick et al. 2014): each region is warped to the network's input and seen alone.

As published: regions warped with 16 pixels of context to a fixed size, what lies outside the image
filled with the mean; a network fine-tuned for classes and background on batches of 32 objects (IoU
from 0.5) and 96 others; then one linear SVM for each class and a ridge regression of the boxes
(`nn.svm_fit`). Differences: in a batch come the regions of two images, not of many, and random
images are flipped before, not after, their regions are cut; the last map is pooled by maxima of as
many bins as the classifier of its network has, so that any backbone will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...nn.backbones.backbone import Backbone
from ...nn.detection.matchers import IoUMatcher
from ...nn.detection.poolers import CropPooler, Trunk
from ...nn.detection.roi_heads import RoIHeads
from ...nn.detection.svm_head import SVMHead
from ...structures import Images, Resize
from ..options import check_ranges
from .fast_rcnn import TINY, RegionOptions, assemble_regions, register_family
from .regions import SVMDetector
from .two_stage import make_sampler

PART = 64  # regions that are warped and seen at once at test


@dataclass(frozen=True)
class RCNNOptions(RegionOptions):
    """Options of R-CNN.

    Attributes:
        stride: the map that a region's features come from, by its stride in the warped region.
        warp: side of a warped region.
        context: pixels of it on each side that lie around the region.
        pool: bins along each side of the map that the fully connected layers see.
        classifier: "svm": linear SVMs, fitted after training; "softmax": that of the training.
        imgsz: size of the image that regions are cut from: long side, (short, long) or a factor as
            "1.25x"; None: its own.
    """

    backbone: str = "alexnet"
    warp: int = 224
    context: int = 16
    pool: int = 6
    classifier: str = "svm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"warp": (8, 2048), "pool": (1, 64)})
        check_ranges(self, {"context": (0, (self.warp - 1) // 2)})

    def resize(self) -> Resize:
        """Return the rule for the image: its own size, or `imgsz`."""
        return Resize(None, None, 1.0) if self.imgsz is None else Resize.parse(self.imgsz)


class RCNN(SVMDetector, Trunk):
    """R-CNN: see `SVMDetector`; what runs on regions before the head is the whole backbone.

    Args:
        pool: bins along each side of a region's map.
        **parts: of `SVMDetector`.
    """

    def __init__(self, num_classes: int, *, pool: int, **parts: Any) -> None:
        super().__init__(num_classes, **parts)
        self.pool = pool

    def features(self, images: Images, *, pyramid: bool = True) -> tuple[Tensor, ...]:
        """Return the standardised images themselves: (B, 3, H, W)."""
        return (self.normalise(images),)

    @property
    def trunk(self) -> Trunk:
        """The detector itself; see `tail`."""
        return self

    def tail(self, x: Tensor) -> Tensor:
        """Return features (R, C, pool, pool) of warped regions (R, 3, warp, warp)."""
        (single,) = self.backbone(x)
        return F.adaptive_max_pool2d(single, self.pool)


def rcnn(num_classes: int, options: RCNNOptions) -> RCNN:
    """Build R-CNN."""
    backbone = Backbone(options.backbone, norm=options.norm, strides=(options.stride,))
    head = SVMHead(
        backbone.channels[0],
        num_classes,
        classifier=options.classifier,
        pool=options.pool,
        fcs=options.box_fcs,
        width=options.box_width,
        dropout=options.dropout,
        ranks=options.svd,
    )
    roi_heads = RoIHeads(
        head,
        pooler=CropPooler(options.warp, options.context),
        matcher=IoUMatcher(0.5, 0.5),
        sampler=make_sampler(options.rois, options.ohem),
        part=PART,
    )
    return assemble_regions(
        RCNN, num_classes, options, backbone=backbone, roi_heads=roi_heads, pool=options.pool
    )


register_family(
    "rcnn",
    rcnn,
    options=RCNNOptions,
    paper="Girshick et al. 2014",
    family={
        "alexnet": {"backbone": "alexnet", "dropout": 0.5},
        "vgg16": {"backbone": "vgg16", "pool": 7, "dropout": 0.5},
        "resnet18": {"backbone": "resnet18", "stride": 32, "pool": 3, "box_width": 1024},
        "lite0": {
            "backbone": "tf_efficientnet_lite0",
            "stride": 32,
            "warp": 128,
            "context": 9,
            "pool": 4,
            "box_width": 512,
        },
    },
    tiny={
        **TINY,
        "backbone": "resnet18",
        "stride": 8,
        "imgsz": None,
        "warp": 32,
        "context": 4,
        "pool": 2,
    },
)
