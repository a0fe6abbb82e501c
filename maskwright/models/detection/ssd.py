"""SSD (Liu et al. 2016, "Single shot multibox detector") and SSDLite (Sandler et al. 2018).

| part | SSD300 and SSD512 | SSDLite320 |
| --- | --- | --- |
| maps | conv4_3 (each pixel of length 1, times a scale) and fc7 of VGG-16 | strides 16, 32 |
| extra maps | four, or five, of a 1x1 and a 3x3 convolution each | four, depthwise |
| default boxes | 4 or 6 a cell, 8,732 or 24,564 in all | 6 a cell, 3,234 in all |
| layers of a map | a 3x3 convolution each for classes and boxes | depthwise 3x3 and 1x1 |

Every image is stretched to one size. Classes and background share a softmax. Each object owns a
default box; every other one with an IoU from 0.5 on goes to its best object. Three hard negatives
count for each positive.

On other backbones than VGG SSD takes the maps at strides 8 and 16 as they are. SSDLite takes of
torchvision's MobileNets the expansion of the block that strides to 32 and the last convolution, as
published, and of other networks the maps at strides 16 and 32. Differences from the paper: an image
gives three negatives in any case, so that empty ones teach something (`min_negatives`). With
`conventions="torchvision"` (also those of ssd.pytorch) there is no such least number, objects may
share their best box, default boxes are not larger than the image, no more than `candidates` boxes
of a class are looked at, and pixels are brought to the networks' input as there. With those of
mmdetection the mean alone is taken from pixels, and `candidates` counts pairs of each map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.backbones.mobilenets import MOBILENETS
from ...nn.backbones.vgg import VGGS
from ...nn.detection.anchors import DefaultBoxes
from ...nn.detection.dense.head import BOX_LOSSES, BoxRule
from ...nn.detection.dense.mining import Mining, get_mining, hard_negatives
from ...nn.detection.dense.multibox import Extra, ExtraLevels, MultiBoxHead
from ...nn.detection.dense.scores import SoftmaxScores
from ...nn.detection.matchers import OwningMatcher
from ..conventions import get_conventions
from ..options import check_pixels, check_ranges
from ..registry import register
from .faster_rcnn import torchvision_weights
from .one_stage import OneStageDetector

# Of the input of SSD300, whose sides its maps do not divide.
STEPS_300 = (8, 16, 32, 64, 100, 300)
CODE = (10.0, 10.0, 5.0, 5.0)  # factors of the deltas
# Mean and deviation in torchvision's files, 0 to 255.
_CAFFE = tuple(255 * value for value in (0.48235, 0.45882, 0.40784)), (1.0, 1.0, 1.0)
_HALF = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)


@dataclass(frozen=True)
class SSDOptions:
    """Options of SSD and SSDLite.

    Attributes:
        backbone: one of our networks or any timm name.
        norm: batch norm of the backbone: "frozen", "affine" or "bn"; None: as fits the backbone.
        lite: depthwise convolutions behind the backbone, and maps from stride 16 on.
        reduced_tail: MobileNetV3 with half of its last channels (torchvision's published SSDLite).
        fc_width: channels of fc6 and fc7 behind a VGG.
        extras: channels of the maps behind those of the backbone.
        anchor_sizes: side of the default boxes of each map, pixels of the network input, and one
            more.
        anchor_ratios: of each map, the largest ratio of a long to a short side: 1 (squares alone),
            2, or 3, which stands for 2 and 3.
        mining: which boxes count for the classes: "hard_negatives" (three for each positive),
            "none" (all), "random" or "ohem" (256 of an image).
        min_negatives: hard negatives that an image gives in any case, also an empty one; None: 3,
            and 0 by torchvision's conventions.
        box_loss: "smooth_l1", "l1" or "giou".
        box_weight: factor of the box loss.
        candidates: boxes of a class that the suppression sees, 400 if None; by mmdetection's
            conventions pairs of box and class of each map, 1,000 if None.
        imgsz: network input: side of the square, or (height, width).
        conventions: whose rules: "maskwright", "torchvision" (or "torchvision_v1"), "mmdetection".
        pixel_mean: of red, green and blue, 0 to 255, where it is not that of the conventions.
        pixel_std: the deviation, alike.
    """

    backbone: str = "vgg16"
    norm: str | None = None
    lite: bool = False
    reduced_tail: bool = False
    fc_width: int = 1024
    extras: tuple[int, ...] = (512, 256, 256, 256)
    anchor_sizes: tuple[float, ...] = (21, 45, 99, 153, 207, 261, 315)
    anchor_ratios: tuple[int, ...] = (2, 3, 3, 3, 2, 2)
    mining: str = "hard_negatives"
    min_negatives: int | None = None
    box_loss: str = "smooth_l1"
    box_weight: float = 1.0
    candidates: int | None = None
    imgsz: int | tuple[int, int] | str = 300
    conventions: str = "maskwright"
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_pixels(self)
        for name in ("extras", "anchor_sizes", "anchor_ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_ranges(self, {"fc_width": (1, 8192)})
        for name, low in (("min_negatives", 0), ("candidates", 1)):
            if getattr(self, name) is not None:
                check_ranges(self, {name: (low, 100_000)})
        if not all(isinstance(width, int) and 2 <= width <= 8192 for width in self.extras):
            raise OptionError(f"extras are channels from 2 to 8192, got {self.extras}")
        maps = len(self.extras) + 2
        known = all(isinstance(most, int) and 1 <= most <= 9 for most in self.anchor_ratios)
        if len(self.anchor_ratios) != maps or not known:
            raise OptionError(
                f"anchor_ratios needs a whole number from 1 to 9 for each of {maps} maps (two of "
                f"the backbone, and the extras); got {self.anchor_ratios}"
            )
        get_mining(self.mining)
        if self.box_loss not in BOX_LOSSES:
            raise OptionError(f"box_loss is one of {', '.join(BOX_LOSSES)}; got {self.box_loss!r}")
        if not 0 < self.box_weight < math.inf:
            raise OptionError(f"box_weight must be above 0 and finite, got {self.box_weight!r}")


class SSD(OneStageDetector):
    """SSD: every image has one size.

    Args:
        num_classes: real classes.
        lite: it trains on patches alone (torchvision's SSDLite), not on canvases and other colours.
        **parts: of `OneStageDetector`.
    """

    def __init__(self, num_classes: int, *, lite: bool, **parts: Any) -> None:
        super().__init__(num_classes, **parts)
        own: dict[str, Any] = {} if lite else {"photometric": "strong", "expand": 0.5}
        self.train_views = {"patches": True, **own}
        assert self.resize.stretch is not None
        self.size_divisor = 1 if any(side % 32 for side in self.resize.stretch) else 32


def extra_maps(side: int, channels: tuple[int, ...], *, lite: bool) -> list[Extra]:
    """Return how the extra maps are made of one that is `side` cells wide.

    Each is half as large as the one before; of SSD maps of 5 and 3 cells lose a cell on either side
    and one of 2 cells becomes one, which gives the published networks.
    """
    made = []
    for width in channels:
        extra = Extra(width)
        if not lite and side in (3, 5):
            extra = Extra(width, stride=1, padding=0)
        elif not lite and side == 2:
            extra = Extra(width, kernel=4, stride=1)
        side = (side + 2 * extra.padding - extra.kernel) // extra.stride + 1
        made.append(extra)
    return made


def ssd(num_classes: int, options: SSDOptions) -> SSD:
    """Build an SSD or SSDLite."""
    rules = get_conventions(options.conventions)
    theirs = options.conventions.startswith("torchvision")
    by_map = options.conventions.startswith("mmdetection")
    limit = options.candidates or (1000 if by_map else 400)
    resize = replace(rules.resize, short=None, long=None, rounding="nearest", stretch=(300, 300))
    resize = resize.to(options.imgsz)
    assert resize.stretch is not None
    height, width = resize.stretch
    backbone = Backbone(
        options.backbone,
        norm=options.norm,
        strides=(16, 32) if options.lite else (8, 16),
        expansion=options.lite and options.backbone in MOBILENETS,
        reduced_tail=options.reduced_tail,
    )
    dilated = options.backbone in VGGS and not options.lite
    if dilated:
        pools = [layer for layer in backbone.modules() if isinstance(layer, nn.MaxPool2d)]
        pools[2].ceil_mode = True  # 75 cells become 38
    side = -(-min(height, width) // backbone.strides[-1])
    fpn = ExtraLevels(
        backbone.channels,
        extra_maps(side, options.extras, lite=options.lite),
        fc_width=options.fc_width if dilated else 0,
        lite=options.lite,
    )
    scale = math.sqrt(height * width)
    anchors = DefaultBoxes(
        [size / scale for size in options.anchor_sizes],
        [range(2, most + 1) for most in options.anchor_ratios],
        steps=STEPS_300 if dilated and resize.stretch == (300, 300) else None,
        capped=theirs,
        rounded=rules.round_anchors == "middle",
    )
    least = options.min_negatives
    if least is None:
        least = 0 if theirs else 3
    mining: Mining = get_mining(options.mining)
    if mining is hard_negatives:
        mining = partial(hard_negatives, least=least)
    head = MultiBoxHead(
        fpn.channels,
        num_classes,
        anchors,
        lite=options.lite,
        scores=SoftmaxScores(candidates=limit, growing=not theirs, by_level=by_map),
        matcher=OwningMatcher(0.5, shared=theirs),
        mining=mining,
        box=BoxRule(options.box_loss, options.box_weight, 1.0, CODE, **rules.boxes),
    )
    mean, std = (_HALF if options.lite else _CAFFE) if theirs else (backbone.mean, backbone.std)
    if by_map:
        std = (1.0, 1.0, 1.0)
    return SSD(
        num_classes,
        lite=options.lite,
        backbone=backbone,
        fpn=fpn,
        head=head,
        mean=options.pixel_mean or mean,
        std=options.pixel_std or std,
        resize=resize,
    )


_LITE = {
    "lite": True,
    "extras": (512, 256, 256, 128),
    "anchor_sizes": (64, 112, 160, 208, 256, 304, 320),
    "anchor_ratios": (3,) * 6,
    "candidates": 300,
    "imgsz": 320,
}
_NAMES: dict[str, dict[str, Any]] = {
    "ssd300_vgg16": {},
    "ssd512_vgg16": {
        "extras": (512, 256, 256, 256, 256),
        "anchor_sizes": (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
        "anchor_ratios": (2, 3, 3, 3, 3, 2, 2),
        "imgsz": 512,
    },
    "ssdlite320_mobilenet_v3_large": {"backbone": "mobilenet_v3_large", **_LITE},
    "ssdlite320_mobilenet_v2": {"backbone": "mobilenetv2_100", **_LITE},
    "ssdlite320_lite0": {"backbone": "tf_efficientnet_lite0", **_LITE},
}
_TINY = {
    "ssd300_vgg16": {
        "backbone": "vgg11",
        "fc_width": 32,
        "extras": (32,),
        "anchor_sizes": (24, 34, 56, 72),
        "anchor_ratios": (2, 3, 2),
        "imgsz": 64,
    },
    "ssdlite320_mobilenet_v3_large": {
        "backbone": "test_efficientnet",
        "extras": (32,),
        "anchor_sizes": (24, 30, 100, 110),
        "anchor_ratios": (2, 3, 2),
        "imgsz": 96,
    },
}
_COCO = {
    "ssd300_vgg16": torchvision_weights("ssd300_vgg16", "b556d3b4", box=25.1),
    "ssdlite320_mobilenet_v3_large": torchvision_weights(
        "ssdlite320_mobilenet_v3_large", "a79551df", {"reduced_tail": True}, box=21.3
    ),
}
for _name, _presets in _NAMES.items():
    _lite = bool(_presets.get("lite"))
    register(
        _name,
        options=SSDOptions,
        task="detect",
        paper="Sandler et al. 2018" if _lite else "Liu et al. 2016",
        tiny=_TINY.get(_name),
        weights={"coco": _COCO[_name]} if _name in _COCO else {},
        presets=_presets,
        family="ssdlite" if _lite else "ssd",
    )(ssd)
