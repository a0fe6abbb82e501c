"""The conventions in which libraries differ, as one table of switches per library.

A checkpoint names its conventions, so that converted weights see exactly the inputs, anchors and
RoIs that they were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError
from ..nn.backbones import Backbone
from ..structures import Resize


@dataclass(frozen=True)
class Conventions:
    """Switches that change the numbers, not the architecture.

    Attributes:
        resize: how a photo becomes network input.
        round_anchors: corners of the cell anchors rounded to whole pixels.
        stride_from_maps: the anchor stride of a level is padded side // map side, per axis,
            instead of the nominal stride.
        aligned: RoIAlign with the half-pixel shift.
        sampling_ratio: samples per bin and axis; 0: adaptive.
        bn_eps: epsilon of the backbone's batch norm.
        paste_mode: see `ops.paste_masks`.
        smooth_l1_beta: where the box losses turn from square to linear.
        binary_mask_targets: mask targets thresholded at 0.5, or the raw interpolated values.
        keypoint_scores: "probability" or "logit", see `nn.keypoint_head.KeypointHead`.
        kept_for_training: proposals that survive in training, times those of inference.
        caffe: the networks are those of Caffe: blue comes first, samples are not divided by their
            deviation, and bottlenecks stride in their first convolution. ResNeXts were made later:
            blue first is all that they have of it.
    """

    resize: Resize
    round_anchors: bool
    stride_from_maps: bool
    aligned: bool
    sampling_ratio: int
    bn_eps: float
    paste_mode: str
    smooth_l1_beta: float
    binary_mask_targets: bool
    keypoint_scores: str
    kept_for_training: int = 2
    caffe: bool = False

    def backbone(self, name: str, **options: Any) -> Backbone:
        """Build a backbone whose norms and strides are as the weights expect; see `Backbone`."""
        first = self.caffe and not name.startswith("resnext")
        return Backbone(name, eps=self.bn_eps, stride_in_1x1=first, **options)

    def pixels(self, backbone: Backbone) -> dict[str, Any]:
        """Return how pixels are standardised for a backbone: arguments of `Model`."""
        mean, std = backbone.mean, backbone.std
        if self.caffe:
            plain = (1.0, 1.0, 1.0) if not backbone.name.startswith("resnext") else std[::-1]
            mean, std = mean[::-1], plain
        return {"mean": mean, "std": std, "bgr": self.caffe}


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
        resize=Resize(800, 1333, antialias=False),
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
    ),
}
# Its configurations on networks of Caffe, as `..._caffe_...` in their names.
CONVENTIONS["mmdetection_caffe"] = replace(CONVENTIONS["mmdetection"], caffe=True)
# As there, but for Pillow's filter.
CONVENTIONS["detectron2"] = replace(CONVENTIONS["mmdetection_caffe"], resize=Resize(800, 1333))
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
