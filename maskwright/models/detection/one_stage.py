"""Detectors without regions: backbone, pyramid and a head that judges every place of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...nn.backbones import Backbone
from ...nn.detection.dense.head import DenseHead
from ...nn.fpn import FPN
from ...nn.random import RandomSource
from ...structures import Images, Instances
from .base import Detector, PostProcess


class OneStageDetector(Detector):
    """Backbone, pyramid and dense head.

    Args:
        num_classes: real classes.
        backbone: its maps feed the pyramid.
        fpn: the pyramid.
        head: judges its levels.
        **conventions: of `Detector`.
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone,
        fpn: FPN,
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

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`."""
        post = post or PostProcess()
        return self.head.detect(
            self.head(self.features(images)),
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
        output = self.head(self.features(images))
        return self.head.losses(output, targets, generator=generator)
