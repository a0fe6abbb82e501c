"""Keypoint R-CNN (He et al. 2017, section 5): Faster R-CNN with a head for keypoints beside it.

Two families: keypoints alone, and keypoints together with masks. The number of keypoints and
their names come from the data; 17 are those of a person in COCO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...nn.detection.keypoint_head import KeypointHead
from ..conventions import get_conventions
from ..options import check_ranges
from .base import TwoStageDetector
from .faster_rcnn import FPNOptions, register_fpn_family, torchvision_weights, two_stage_fpn
from .mask_rcnn import make_mask_head


@dataclass(frozen=True)
class KeypointOptions(FPNOptions):
    """Options of the detectors of keypoints.

    Attributes:
        num_keypoints: keypoints of an object; training takes the number from the data.
        keypoint_convs: 3x3 convolutions of the keypoint head.
        keypoint_width: their channels.
    """

    num_keypoints: int = 17
    keypoint_convs: int = 8
    keypoint_width: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, _RANGES)


_RANGES = {"num_keypoints": (1, 10_000), "keypoint_convs": (1, 64), "keypoint_width": (1, 8192)}


TINY: dict[str, Any] = {"num_keypoints": 5, "keypoint_convs": 2, "keypoint_width": 16}
SMALL: dict[str, Any] = {"keypoint_convs": 4, "keypoint_width": 256}


def make_keypoint_head(options: KeypointOptions) -> KeypointHead:
    """Build the keypoint head: maps of 56 x 56 per keypoint."""
    return KeypointHead(
        options.width,
        options.num_keypoints,
        convs=options.keypoint_convs,
        width=options.keypoint_width,
        norm=options.head_norm,
        scores=get_conventions(options.conventions).keypoint_scores,
    )


def keypoint_rcnn(num_classes: int, options: KeypointOptions) -> TwoStageDetector:
    """Build Keypoint R-CNN with a pyramid."""
    return two_stage_fpn(num_classes, options, keypoint_head=make_keypoint_head(options))


def mask_keypoint_rcnn(num_classes: int, options: KeypointOptions) -> TwoStageDetector:
    """Build Mask R-CNN with a pyramid and a keypoint head as well."""
    mask_head = make_mask_head(num_classes, options)
    return two_stage_fpn(num_classes, options, mask_head, make_keypoint_head(options))


register_fpn_family(
    "keypoint_rcnn",
    keypoint_rcnn,
    options=KeypointOptions,
    task="keypoints",
    paper="He et al. 2017",
    coco={
        "resnet50_fpn": torchvision_weights(
            "keypointrcnn_resnet50_fpn", "fc266e95", box=54.6, keypoints=65.0
        )
    },
    tiny=TINY,
    small=SMALL,
)
register_fpn_family(
    "mask_keypoint_rcnn",
    mask_keypoint_rcnn,
    options=KeypointOptions,
    task="segment+keypoints",
    paper="He et al. 2017",
    coco={},
    tiny=TINY,
    small=SMALL,
)
