"""The conventions in which libraries differ, as one table of switches per library.

A checkpoint names its conventions, so that converted weights see exactly the inputs, anchors and
RoIs that they were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError
from ..nn.backbones.backbone import Backbone
from ..ops.boxes import DELTA_CLAMP
from ..ops.nms import ALONE, Apart
from ..structures import Resize

Triple = tuple[float, float, float]
Numbers = tuple[float, ...] | None
# Up to which number of boxes torchvision's `batched_nms` moves them apart; on cards up to more,
# which depends on its version. mmcv's always does.
_FEW, _ANY = 1000, 10**9
_ABOVE_ZERO = 1e-37  # the least side of a box with an area, nearly that of float32


@dataclass(frozen=True)
class Conventions:
    """Switches that change the numbers, not the architecture.

    Attributes:
        resize: how a photo becomes network input.
        round_anchors: corners of the cell anchors rounded to whole pixels; "middle", "base": see
            `AnchorGenerator`; boxes count their last pixel then.
        stride_from_maps: the anchor stride of a level is padded side // map side, per axis,
            instead of the nominal stride.
        aligned: RoIAlign with the half-pixel shift.
        sampling_ratio: samples per bin and axis; 0: adaptive.
        bn_eps: epsilon of the backbone's batch norm.
        paste_mode: see `ops.paste_masks`.
        smooth_l1_beta: where the box losses turn from square to linear.
        binary_mask_targets: mask targets sampled at the centres of pixels, thresholded at 0.5; or
            at their corners, and the raw interpolated values (torchvision).
        keypoint_scores: "probability", "enlarged" or "logit", see
            `nn.keypoint_head.KeypointHead`.
        kept_for_training: proposals that survive in training, times those of inference.
        before_nms: on a single map: boxes that NMS sees for each proposal that it may leave, in
            training and at test.
        caffe: the networks are those of Caffe: blue comes first, samples are not divided by their
            deviation, and bottlenecks stride in their first convolution. ResNeXts were made later:
            blue first is all that they have of it.
        mean: red, green and blue where they are not those of the backbone, 0 to 255.
        level_rule: which level of a pyramid a region comes from, see `fpn_levels` of RoIAlign.
        clamp_below: deltas of width and height have the bound below that all have above.
        drop_small: proposals and boxes of less than 1e-3 and 1e-2 pixels a side never count.
            Otherwise proposals must have an area, and boxes without one take part until the end.
        divisor: sides of the input of detectors on one map are multiples of it; of those on a
            pyramid, whose coarsest map needs that, always of 32.
        running_normaliser: RetinaNet divides by a running mean of the positive anchors.
        apart: how labels are kept apart in NMS, see `ops.nms.Apart`.
        least_overlap: what an object and its best anchor must overlap for the RPN to learn from it.
    """

    resize: Resize
    round_anchors: bool | str
    stride_from_maps: bool
    aligned: bool
    sampling_ratio: int
    bn_eps: float
    paste_mode: str
    smooth_l1_beta: float
    binary_mask_targets: bool
    keypoint_scores: str
    kept_for_training: int = 2
    before_nms: tuple[int, int] = (6, 20)
    caffe: bool = False
    mean: Triple | None = None
    level_rule: str = "torchvision"
    clamp_below: bool = False
    drop_small: bool = True
    divisor: int = 32
    running_normaliser: bool = False
    apart: Apart = ALONE
    least_overlap: float = 0.0

    @property
    def min_sides(self) -> tuple[float, float]:
        """Least sides of proposals and of boxes, pixels."""
        return (1e-3, 1e-2) if self.drop_small else (_ABOVE_ZERO, 0.0)

    @property
    def clamp(self) -> float | tuple[float, float]:
        """Bounds of the deltas of width and height; see `ops.decode_deltas`."""
        return (-DELTA_CLAMP, DELTA_CLAMP) if self.clamp_below else DELTA_CLAMP

    @property
    def boxes(self) -> dict[str, Any]:
        """What all heads follow: `clamp`, `apart`, and what remains of boxes beyond the image.

        This is a pixel where boxes count their last one, which then lies at the border.
        """
        border = 1.0 if self.round_anchors in ("middle", "base") else 0.0
        return {"clamp": self.clamp, "border": border, "apart": self.apart}

    @property
    def pooling(self) -> dict[str, Any]:
        """How regions are taken from maps: arguments of `AlignPooler`."""
        return {
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "level_rule": self.level_rule,
            "cut": 1.0 if self.round_anchors == "base" else 0.0,
        }

    @property
    def mask_targets(self) -> dict[str, Any]:
        """How the targets of masks are cut, whatever RoIAlign sees: arguments of `ConvMaskHead`."""
        return dict.fromkeys(("binary_targets", "aligned"), self.binary_mask_targets)

    def backbone(self, name: str, **options: Any) -> Backbone:
        """Build a backbone whose norms and strides are as the weights expect; see `Backbone`."""
        first = self.caffe and not name.startswith("resnext")
        return Backbone(name, eps=self.bn_eps, stride_in_1x1=first, **options)

    def pixels(
        self, backbone: Backbone, mean: Numbers = None, std: Numbers = None
    ) -> dict[str, Any]:
        """Return how pixels are standardised for a backbone: arguments of `Model`.

        Args:
            backbone: the backbone.
            mean: red, green and blue, 0 to 255, in place of what is usual.
            std: the same.
        """
        plain = self.caffe and not backbone.name.startswith("resnext")
        mean = mean or self.mean or backbone.mean
        std = std or ((1.0, 1.0, 1.0) if plain else backbone.std)
        turn = -1 if self.caffe else 1
        return {"mean": tuple(mean)[::turn], "std": tuple(std)[::turn], "bgr": self.caffe}


CONVENTIONS = {
    "maskwright": Conventions(
        resize=Resize(800, 1333),
        round_anchors=False,
        stride_from_maps=False,
        aligned=True,
        sampling_ratio=2,
        bn_eps=1e-5,
        paste_mode="grid",
        smooth_l1_beta=1 / 9,
        binary_mask_targets=True,
        keypoint_scores="probability",
    ),
    # OpenCV's bilinear resizing has no low-pass filter; the box losses are L1.
    "mmdetection": Conventions(
        resize=Resize(800, 1333, antialias=False, fixed_point=True),
        round_anchors=False,
        stride_from_maps=False,
        aligned=True,
        sampling_ratio=0,
        bn_eps=1e-5,
        paste_mode="grid",
        smooth_l1_beta=0.0,
        binary_mask_targets=True,
        keypoint_scores="probability",
        kept_for_training=1,
        level_rule="mmdetection",
        clamp_below=True,
        drop_small=False,
        apart=Apart(_ANY),
        least_overlap=0.3,
    ),
    "torchvision": Conventions(
        resize=Resize(800, 1333, rounding="floor", antialias=False),
        round_anchors=True,
        stride_from_maps=True,
        aligned=False,
        sampling_ratio=2,
        bn_eps=1e-5,
        paste_mode="torchvision",
        smooth_l1_beta=1 / 9,
        binary_mask_targets=False,
        keypoint_scores="logit",
        apart=Apart(_FEW, first=1),
    ),
}
# Its configurations on networks of Caffe, as `..._caffe_...` in their names.
CONVENTIONS["mmdetection_caffe"] = replace(CONVENTIONS["mmdetection"], caffe=True)
# Its versions 1 knew the older RoIAlign alone. Boxes count their last pixel: with it as their end
# deltas, overlaps and levels are those of continuous pixels, and anchors lie in the middle.
CONVENTIONS["mmdetection_v1"] = replace(
    CONVENTIONS["mmdetection"],
    round_anchors="middle",
    aligned=False,
    sampling_ratio=2,
    smooth_l1_beta=1 / 9,
    apart=ALONE,
)
CONVENTIONS["mmdetection_v1_caffe"] = replace(CONVENTIONS["mmdetection_v1"], caffe=True)
CONVENTIONS["detectron2"] = replace(
    CONVENTIONS["mmdetection_caffe"],
    resize=Resize(800, 1333, rounding="steps"),
    keypoint_scores="enlarged",
    kept_for_training=1,
    before_nms=(6, 6),
    level_rule="detectron2",
    clamp_below=False,
    divisor=1,
    running_normaliser=True,
    apart=Apart(_FEW),
    least_overlap=0.0,
)
# On ResNets as torchvision trains them, "R-50.pkl" of its folder `torchvision`.
CONVENTIONS["detectron2_rgb"] = replace(CONVENTIONS["detectron2"], caffe=False)
# Its configurations that compare with Detectron.
CONVENTIONS["detectron2_legacy"] = replace(
    CONVENTIONS["detectron2"], aligned=False, sampling_ratio=2, smooth_l1_beta=1 / 9
)
# Detectron itself, with the mean of Caffe, whose boxes count their last pixel as those of version 1
# of mmdetection do; and its detectors on one map.
CONVENTIONS["detectron"] = replace(
    CONVENTIONS["detectron2_legacy"],
    resize=Resize(800, 1333, antialias=False),
    mean=(122.7717, 115.9465, 102.9801),
    round_anchors="base",
    level_rule="detectron",
    apart=ALONE,
)
CONVENTIONS["detectron_c4"] = replace(CONVENTIONS["detectron"], sampling_ratio=0)
# The published v1 files of torchvision were trained with an epsilon of 0 in the frozen norm.
CONVENTIONS["torchvision_v1"] = replace(CONVENTIONS["torchvision"], bn_eps=0.0)


def get_conventions(name: str) -> Conventions:
    """Return the switches called `name`.

    Raises:
        ValueError: if there are none of this name.
    """
    if name not in CONVENTIONS:
        raise OptionError(f"conventions is one of {', '.join(CONVENTIONS)}; got {name!r}")
    return CONVENTIONS[name]
