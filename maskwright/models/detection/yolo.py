"""YOLO v1 (Redmon et al. 2016) and v2 (Redmon & Farhadi 2017): boxes from the cells of one map.

| name | network | boxes |
| --- | --- | --- |
| `yolo_v1` | 24 convolutions, two fully connected layers, 448 pixels | two in each of 7 x 7 cells |
| `yolo_v1_tiny` | 8 convolutions, one fully connected layer, 448 pixels | the same |
| `yolo_v2` | Darknet-19 with a passthrough, any size | five anchors in each cell of 32 pixels |
| `yolo_v2_tiny` | 8 convolutions, any size | the same |
| `yolo_lite` | EfficientNet-Lite0, the head of `yolo_v2` | the same |

All but the last are tables of layers in Darknet's language (`models.darknet`), which the option
`layers` replaces: the networks of `.cfg` files are built alike. With `conventions="darknet"` photos
become input as there: stretched in v1, put into the middle of a grey canvas in v2, which is done
here, so that whatever makes batches knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.darknet.layers import UnbiasedBatchNorm2d, reorg
from ...nn.darknet.network import DarknetNetwork
from ...nn.darknet.table import (
    Section,
    Table,
    head_of,
    with_anchors,
    with_classes,
    write_table,
)
from ...nn.detection.dense.canvas import GREY, STRIDE, Canvas
from ...nn.detection.dense.grid_head import GridHead
from ...nn.detection.dense.region_head import RegionHead, pick_best
from ...nn.norm import conv_block
from ...nn.random import RandomSource
from ...ops.boxes import boxes_cxcywh_to_xyxy
from ...structures import Images, Instances, Resize
from ..conventions import get_conventions
from ..darknet import COCO_ANCHORS, FORMS, TINY, table_of
from ..options import check_ranges
from ..registry import register
from ..semantic.encoder import Encoder
from .base import PostProcess
from .one_stage import OneStageDetector

UNIT = 255.0
CALM = 0.1  # of the usual spread, weights of a last layer before training


CONVENTIONS = ("darknet", "darknet_cpu", "maskwright")


@dataclass(frozen=True)
class YoloOptions:
    """Options of YOLO v1 and v2.

    Attributes:
        form: the published network: v1, v1_tiny, v2 or v2_tiny; or v1_local, the form of v1 that
            was released with batch norm and a layer of local filters.
        layers: another network, in the language of Darknet's `.cfg` files; "": that of `form`.
        anchors: width and height of each anchor of v2 in cells of 32 pixels, one after the other;
            None: those of the network.
        imgsz: network input of v2: side of a square, or (height, width); None: that of the
            network. Multiples of 32.
        conventions: how a photo becomes input: "darknet" (stretched in v1, in the middle of a grey
            canvas in v2) or "maskwright" (as large as fits, padded right and below).
            "darknet_cpu": as "darknet", and batch norm adds 1e-6 to the deviation at test, as
            Darknet does on CPUs, not 1e-5 to the variance, as on GPUs.
    """

    form: str = "v2"
    layers: str = ""
    anchors: tuple[float, ...] | None = None
    imgsz: int | tuple[int, int] | None = None
    conventions: str = "darknet"

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.form == "darknet19":
            known = ", ".join(form for form in FORMS if form.startswith("v"))
            raise OptionError(f"form is one of {known}; got {self.form!r}")
        if self.conventions not in CONVENTIONS:
            raise OptionError(
                f"conventions is one of {', '.join(CONVENTIONS)}; got {self.conventions!r}"
            )
        check_anchors(self.anchors)


def check_anchors(anchors: Sequence[float] | None) -> None:
    """Raise OptionError for what are no widths and heights."""
    if anchors is not None and (len(anchors) % 2 or not anchors or min(anchors) <= 0):
        raise OptionError(
            f"anchors are width and height of each, in cells, all above 0; got {anchors!r}"
        )


class DarknetBackbone(Encoder):
    """A network of a table as the whole of a detector but for its boxes.

    Args:
        table: the network.
    """

    def __init__(self, table: Table) -> None:
        super().__init__((), "unit")
        self.body = DarknetNetwork(table)

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers by stage; see `DarknetNetwork.stages`."""
        return self.body.stages()

    def forward(self, x: Tensor, generator: RandomSource = None) -> tuple[Tensor, ...]:
        """Return the map or the row of numbers that the boxes are made of."""
        return (self.body(x, generator),)


class Yolo(OneStageDetector):
    """A network whose one map, or row of numbers, a head reads as boxes.

    Args:
        num_classes: real classes.
        backbone: its maps feed the neck.
        neck: makes of them the map of the head; None: the backbone itself does, see
            `DarknetBackbone`.
        head: reads it.
        canvas: where the network sees the images.
        usual: thresholds where nobody asks for others.
        **conventions: of `Detector`.
    """

    backbone: Any
    head: Any

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Any,
        neck: nn.Module | None,
        head: RegionHead | GridHead,
        canvas: Canvas,
        usual: PostProcess | None = None,
        **conventions: Any,
    ) -> None:
        super().__init__(
            num_classes,
            backbone=backbone,
            fpn=nn.Identity() if neck is None else neck,  # type: ignore[arg-type]
            head=head,  # type: ignore[arg-type]
            **conventions,
        )
        self.canvas = canvas
        self.usual = usual or PostProcess()
        self.nms_thresh = self.usual.nms_thresh
        if canvas.fixed is not None:
            self.buckets = (canvas.fixed,)
            if canvas.fixed[0] % STRIDE or canvas.fixed[1] % STRIDE:
                self.size_divisor = 1

    @property
    def fill(self) -> tuple[float, ...]:
        """What lies beyond an image: grey on a canvas of Darknet's; see `Model`."""
        return super().fill if self.canvas.unit is None else (GREY * UNIT,) * self.channels

    def normalise(self, images: Images) -> Tensor:
        """Return the canvas (B, 3, H', W') of a batch; see `Canvas`.

        Raises:
            ValueError: if an image is larger than the only input that the network takes.
        """
        fixed = self.canvas.fixed
        if fixed is not None and not torch.compiler.is_compiling() and len(images):
            height, width = images.sizes.amax(0).tolist()
            if height > fixed[0] or width > fixed[1]:
                raise ValueError(
                    f"this network takes images of {fixed[1]}x{fixed[0]} pixels and no others, for "
                    f"its fully connected layers; got one of {width}x{height}"
                )
        pixels = super().normalise(images)
        return self.canvas.place(pixels, images.sizes, self._canvas_size(images))

    def _canvas_size(self, images: Images) -> tuple[Any, Any]:
        return self.canvas.size(images.pixels.shape[-2], images.pixels.shape[-1])

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`."""
        post = post or self.usual
        output = self.head(*self.features(images))
        height, width = self._canvas_size(images)
        raw = output[2] if isinstance(output, tuple) else output
        found = self.head.boxes(raw).reshape(raw.shape[0], -1, 4)
        _, scores = self.head.scores(output, post.score_thresh)
        scale = found.new_tensor([1.0, 1.0, 1.0, 1.0])
        scale = torch.stack([scale[0] * width, scale[1] * height] * 2)
        boxes = boxes_cxcywh_to_xyxy(found * scale)
        if self.canvas.unit is not None:
            # Half of what is free, also of an odd number: as Darknet has it.
            away = (scale[:2] - images.sizes.flip(1)) / 2
            boxes = boxes - away.repeat(1, 2)[:, None]
        return pick_best(
            boxes,
            scores,
            images.sizes,
            score_thresh=post.score_thresh,
            nms_thresh=post.nms_thresh,
            max_det=post.max_det,
            soft_nms=post.soft_nms,
            outside=self.canvas.unit is not None or self.canvas.fixed is not None,
        )

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `yolo/box`, `yolo/objectness`, `yolo/class`, and of v2 `yolo/prior`."""
        pixels = self.normalise(images)
        own = (generator,) if isinstance(self.backbone, DarknetBackbone) else ()  # of dropout
        maps = self.backbone(pixels, *own)
        size = self._canvas_size(images)
        corner = self.canvas.corners(images.sizes, size).repeat(1, 2)[:, None]
        moved = targets.boxes + corner.to(targets.boxes.dtype)
        goal = Instances(moved, targets.labels, targets.valid, crowd=targets.crowd)
        found: dict[str, Tensor] = self.head.losses(
            self.head(*self.fpn(maps)), goal, size, generator=generator
        )
        return found

    def limits(self, post: PostProcess, default: PostProcess) -> PostProcess:
        """Return thresholds; a score that nobody asked for is the network's own.

        One that is asked for to see everything, as in a validation, stays.
        """
        if post.score_thresh == default.score_thresh >= self.usual.score_thresh:
            return replace(post, score_thresh=self.usual.score_thresh)
        return post

    def class_places(self, num_classes: int) -> dict[str, Tensor]:
        """Return the rows (C, n) of each class in the tensors that have some; see `transfer`."""
        places = self.head.class_places(num_classes)
        layer = "fpn.predict"
        if isinstance(self.backbone, DarknetBackbone):
            network = self.backbone.body
            kinds = {"convolutional": "conv", "connected": "linear"}
            inner = kinds.get(network.sections[-1].kind) if network.sections else None
            if inner is None:
                return {}
            layer = f"backbone.body.layers.{network.sections[-1].number}.{inner}"
        return {f"{layer}.{kind}": places for kind in ("weight", "bias")}


def make_head(head: Section, num_classes: int) -> RegionHead | GridHead:
    """Return the head of a `detection` or `region` section."""
    scales = {
        name: float(head[name])
        for name in ("object_scale", "noobject_scale", "class_scale", "coord_scale")
    }
    softmax, rescore = bool(head["softmax"]), bool(head["rescore"])
    if head.kind == "detection":
        return GridHead(
            num_classes,
            side=head["side"],
            boxes=head["num"],
            softmax=softmax,
            sqrt=bool(head["sqrt"]),
            rescore=rescore,
            forced=bool(head["forced"]),
            random=bool(head["random"]),
            **scales,
        )
    count = head["num"]
    sizes = head["anchors"] or (0.5,) * (2 * count)
    return RegionHead(
        num_classes,
        list(zip(sizes[: 2 * count : 2], sizes[1 : 2 * count : 2], strict=True)),
        softmax=softmax,
        rescore=rescore,
        thresh=head["thresh"],
        bias_match=bool(head["bias_match"]),
        most_objects=head["max"],
        **scales,
    )


def yolo(num_classes: int, options: YoloOptions) -> Yolo:
    """Build a YOLO out of a table of layers.

    Raises:
        ValueError: if the table is none, or makes no boxes.
    """
    table = table_of(options.form, options.layers)
    if head_of(table) is None:
        raise ValueError("layers: the last layer is neither [region] nor [detection]")
    table = with_classes(table, num_classes)
    section = head_of(table)
    assert section is not None
    if options.anchors is not None:
        if section.kind != "region":
            raise OptionError("anchors is for networks that end with [region]: YOLO v2")
        table = with_anchors(table, tuple(options.anchors))
        section = head_of(table)
        assert section is not None
    backbone = DarknetBackbone(table)
    head = make_head(section, num_classes)
    c, h, w = backbone.body.output
    fits = c == head.channels if section.kind == "region" else c * h * w == head.channels
    if not fits:
        raise ValueError(
            f"layers: {section.called} takes {head.channels} "
            f"{'channels' if section.kind == 'region' else 'numbers'}, the layer before it gives "
            f"{c} x {h} x {w}"
        )
    channels, *side = backbone.body.input
    if channels != 3:
        raise ValueError(f"layers: [net] has channels={channels}, and photos have 3")
    size = (side[0], side[1])
    _calm(backbone.body, head)
    for layer in backbone.modules():
        if isinstance(layer, UnbiasedBatchNorm2d):
            layer.outside = options.conventions == "darknet_cpu"
    canvas, resize = _input(size, options, whole=section.kind == "detection")
    return Yolo(
        num_classes,
        backbone=backbone,
        neck=None,
        head=head,
        canvas=canvas,
        usual=PostProcess(0.2, 0.4) if section.kind == "detection" else PostProcess(0.25, 0.45),
        mean=(0.0, 0.0, 0.0),
        std=(UNIT, UNIT, UNIT),
        resize=resize,
    )


def _input(size: tuple[int, int], options: YoloOptions, *, whole: bool) -> tuple[Canvas, Resize]:
    """Return the canvas and how photos are resized for it; `whole`: it has one size alone."""
    if options.conventions == "maskwright":
        rule = Resize(None, None, within=size)
    elif whole:
        rule = Resize(None, None, stretch=size, corners=True, antialias=False)
    else:
        rule = Resize(None, None, within=size, corners=True, rounding="whole", antialias=False)
    rule = rule.to(options.imgsz)
    wanted = rule.stretch or rule.within
    assert wanted is not None
    if wanted != size and (whole or any(side % STRIDE for side in wanted)):
        able = f"{size[0]},{size[1]} alone" if whole else f"height and width, multiples of {STRIDE}"
        raise OptionError(f"imgsz of this network is {able}; got {options.imgsz!r}")
    if whole:
        return Canvas(size), rule
    if options.conventions == "maskwright":
        return Canvas(), rule
    shared = 1
    if not wanted[0] % STRIDE and not wanted[1] % STRIDE:
        shared = gcd(wanted[0] // STRIDE, wanted[1] // STRIDE)
    return Canvas(unit=(wanted[0] // shared, wanted[1] // shared)), rule


def _calm(network: DarknetNetwork, head: RegionHead | GridHead) -> None:
    """Let the last layer begin with small numbers around a box in the middle of its cell."""
    last = [m for m in network.layers[-1:].modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if not last or network.sections[-1].kind not in ("convolutional", "connected"):
        return
    layer = last[0]
    with torch.no_grad():
        layer.weight.mul_(CALM)
        if (
            isinstance(head, GridHead)
            and layer.bias is not None
            and layer.bias.numel() == (head.channels)
        ):
            classes, sure, _ = layer.bias.split(
                [head.side**2 * n for n in (head.num_classes, head.per_cell, 4 * head.per_cell)]
            )
            layer.bias.fill_(0.5)
            classes.fill_(1 / head.num_classes)
            sure.fill_(0.1)


@dataclass(frozen=True)
class YoloLiteOptions:
    """Options of the head of YOLO v2 on a backbone of ours.

    Attributes:
        backbone: one of our ResNets or any timm name.
        norm: batch norm of the backbone: "frozen", "affine" or "bn"; None: as fits the backbone.
        width: channels of the head, a multiple of 32.
        anchors: width and height of each anchor in cells of 32 pixels, one after the other.
        imgsz: network input: long side.
    """

    backbone: str = "tf_efficientnet_lite0"
    norm: str | None = None
    width: int = 256
    anchors: tuple[float, ...] = COCO_ANCHORS
    imgsz: int | tuple[int, int] | str = 320

    def __post_init__(self) -> None:
        check_ranges(self, {"width": (32, 8192)})
        if self.width % 32:
            raise OptionError(f"width must be a multiple of 32, got {self.width}")
        check_anchors(self.anchors)


class Passthrough(nn.Module):
    """The head of YOLO v2 on the maps at strides 16 and 32.

    Args:
        channels: of both maps.
        width: of the convolutions.
        out: channels of the result.
        classes: rows of each class in the result, see `RegionHead.class_places`.
    """

    def __init__(self, channels: Sequence[int], width: int, out: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            conv_block(channels[1], width, norm="bn"), conv_block(width, width, norm="bn")
        )
        self.fine = conv_block(channels[0], width // 8, 1, norm="bn")
        self.joined = conv_block(width + width // 2, width, norm="bn")
        self.predict = nn.Conv2d(width, out, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        assert self.predict.bias is not None
        nn.init.zeros_(self.predict.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the map (B, out, H / 32, W / 32)."""
        fine = reorg(self.fine(maps[0]), 2)
        return (self.predict(self.joined(torch.cat([fine, self.deep(maps[1])], 1))),)


def yolo_lite(num_classes: int, options: YoloLiteOptions) -> Yolo:
    """Build the head of YOLO v2 on a backbone."""
    rules = get_conventions("maskwright")
    backbone = Backbone(options.backbone, norm=options.norm, eps=rules.bn_eps, strides=(16, 32))
    sizes = options.anchors
    head = RegionHead(num_classes, list(zip(sizes[::2], sizes[1::2], strict=True)))
    return Yolo(
        num_classes,
        backbone=backbone,
        neck=Passthrough(backbone.channels, options.width, head.channels),
        head=head,
        canvas=Canvas(),
        mean=backbone.mean,
        std=backbone.std,
        resize=Resize.parse(options.imgsz),
    )


_TINY = {form: write_table(table) for form, table in TINY.items()}
for _name, _form, _paper in (
    ("yolo_v1", "v1", "Redmon et al. 2016"),
    ("yolo_v1_tiny", "v1_tiny", "Redmon et al. 2016"),
    ("yolo_v2", "v2", "Redmon & Farhadi 2017"),
    ("yolo_v2_tiny", "v2_tiny", "Redmon & Farhadi 2017"),
):
    register(
        _name,
        options=YoloOptions,
        task="detect",
        paper=_paper,
        tiny={"layers": _TINY[_form]} if _form in _TINY else None,
        presets={"form": _form},
        family=f"yolo_{_form[:2]}",
    )(yolo)
register(
    "yolo_lite",
    options=YoloLiteOptions,
    task="detect",
    paper="Redmon & Farhadi 2017",
    tiny={"backbone": "resnet18", "width": 32, "imgsz": 96, "anchors": (0.5, 0.7, 1.2, 1.0)},
    family="yolo_lite",
)(yolo_lite)
