"""Cascade R-CNN and Cascade Mask R-CNN (Cai and Vasconcelos 2018): three box heads in a row.

The heads are trained at IoUs of 0.5, 0.6 and 0.7, each on the boxes of the one before it. Boxes
fit more closely, which the higher thresholds of AP show and masks need: what the box cuts off, the
mask lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from .base import TwoStageDetector
from .faster_rcnn import FPNOptions, MaskOptions, register_fpn_family, two_stage_fpn
from .mask_rcnn import make_mask_head


@dataclass(frozen=True)
class CascadeOptions(FPNOptions):
    """Options of a cascade.

    Attributes:
        ious: from which on a box is positive for each box head, rising; there are as many heads.
    """

    ious: tuple[float, ...] = (0.5, 0.6, 0.7)

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = sorted(set(self.ious)) == list(self.ious)
        if not self.ious or not rising or not 0 < self.ious[0] <= self.ious[-1] < 1:
            raise OptionError(f"ious are rising numbers between 0 and 1, got {self.ious}")


@dataclass(frozen=True)
class CascadeMaskOptions(CascadeOptions, MaskOptions):
    """Options of a cascade that cuts objects out."""


def cascade_rcnn(num_classes: int, options: CascadeOptions) -> TwoStageDetector:
    """Build Cascade R-CNN with a pyramid."""
    return two_stage_fpn(num_classes, options, ious=options.ious)


def cascade_mask_rcnn(num_classes: int, options: CascadeMaskOptions) -> TwoStageDetector:
    """Build Cascade Mask R-CNN with a pyramid."""
    mask_head = make_mask_head(num_classes, options)
    return two_stage_fpn(
        num_classes, options, mask_head, ious=options.ious, mask_reach=options.mask_reach
    )


for _name, _builder, _options, _task in (
    ("cascade_rcnn", cascade_rcnn, CascadeOptions, "detect"),
    ("cascade_mask_rcnn", cascade_mask_rcnn, CascadeMaskOptions, "segment"),
):
    register_fpn_family(
        _name,
        _builder,
        options=_options,
        task=_task,
        paper="Cai and Vasconcelos 2018",
        coco={},
        family=_name,
    )
