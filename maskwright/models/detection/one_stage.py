"""Detectors without regions: backbone, maps of many sizes and a head that judges every place."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...nn.backbones.backbone import Backbone
from ...nn.detection.dense.head import DenseHead, DenseOutput
from ...nn.detection.dense.multibox import ExtraLevels
from ...nn.fpn import FPN
from ...nn.random import RandomSource
from ...structures import Images, Instances
from .base import Detector, PostProcess


class OneStageDetector(Detector):
    """Backbone, pyramid and dense head.

    Args:
        num_classes: real classes.
        backbone: its maps feed the pyramid.
        fpn: the pyramid, or smaller maps behind those of the backbone.
        head: judges its levels.
        **conventions: of `Detector`.
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone,
        fpn: FPN | ExtraLevels,
        head: DenseHead,
        **conventions: Any,
    ) -> None:
        super().__init__(num_classes, **conventions)
        self.backbone = backbone
        self.fpn = fpn
        self.head = head

    def features(self, images: Images) -> tuple[Tensor, ...]:
        """Return the pyramid, fine to coarse: (B, C, H / stride, W / stride) each."""
        levels: tuple[Tensor, ...] = self.fpn(self.backbone(self.normalise(images)))
        return levels

    def judged(self, images: Images) -> DenseOutput:
        """Return what the head says of every place."""
        output: DenseOutput = self.head(self.features(images), images.pixels.shape[-2:])
        return output

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`."""
        post = post or PostProcess()
        return self.head.detect(
            self.judged(images),
            images,
            score_thresh=post.score_thresh,
            nms_thresh=post.nms_thresh,
            max_det=post.max_det,
            soft_nms=post.soft_nms,
        )

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `dense/class` and `dense/box`."""
        return self.head.losses(self.judged(images), targets, generator=generator)
