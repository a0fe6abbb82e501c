"""Segmenters on dilated backbones of other libraries: FCN, DeepLabv3 and v3+, LR-ASPP.

- torchvision: all that it has, with an auxiliary head or without.
- smp: segmentation_models_pytorch 0.2 to 0.6, its DeepLabV3 and DeepLabV3Plus on ResNets,
  mobilenet_v2 and encoders of timm (`tu-...`). Their tensors do not tell the output stride: of
  DeepLabV3 it is 8, of DeepLabV3Plus 16, unless `output_stride` is given.
"""

from __future__ import annotations

from typing import Any

from .common import require
from .layout import Layout, Rules, State, Table
from .semantic import ENCODER, OWN, SPARE_OF_ENCODER

_BEFORE = {None, False}  # the first block of a stage has the dilation of the stage before


def voc_names() -> list[str | None]:
    """Return the 21 classes of Pascal VOC in the order of torchvision's files."""
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    found: list[str] = FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    return ["background", *found[1:]]


def _torchvision(**fixed: Any) -> Layout:
    return Layout(
        names=((r"^backbone\.body\.(features\.)?", "backbone."),),
        spare=r"aux_classifier\.",  # for a model without that head
        statistics=(None, "imagenet"),
        fixed={"align_corners": False, "multi_grid": (), **fixed},
        classes=lambda count: voc_names() if count == 21 else None,
    )


_HEAD = {"rates": (12, 24, 36), "image_pooling": True, "separable": False, "width": 256}
_SEPARABLE: Rules = ((r"\.depthwise\.", ".0."), (r"\.pointwise\.", ".1."))


def _smp(names: Rules, pyramid: str, *, timm: bool, older: Rules = (), **form: Any) -> Layout:
    """Return the layout of a DeepLab of segmentation_models_pytorch.

    Args:
        names: our names of the head, and theirs.
        pyramid: their name of ASPP.
        timm: whether the encoder is timm's, and dilated by it.
        older: names of older files.
        **form: further options that it always has.
    """
    dilation = {} if timm else {"full_dilation": True}
    fixed = {**form, **dilation, "align_corners": True}

    def options(state: State) -> dict[str, Any]:
        width = len(require(state, f"{pyramid}.convs.0.0.weight"))
        found: dict[str, Any] = {} if width == 256 else {"width": width}
        found["separable"] = f"{pyramid}.convs.1.0.0.weight" in state
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in fixed.items()}
        return {**found, **plain, "dropout": 0.5}

    return Layout(
        names=(*ENCODER, *names, *_SEPARABLE),
        older=older,
        options=options,
        spare=SPARE_OF_ENCODER,
        single=True,
        statistics=(None,),
        fixed={
            **fixed,
            **({"full_dilation": _BEFORE} if timm else {}),
            "image_pooling": True,
            "multi_grid": (),
            "auxiliary": 0.0,
        },
    )


def _smp_v3(*, timm: bool) -> Layout:
    return _smp(
        (
            (r"^classifier\.0\.", "decoder.aspp."),
            (r"^classifier\.1\.", "decoder.conv."),
            (r"^classifier\.2\.", "decoder.bn."),
            (r"^classifier\.4\.", "segmentation_head.0."),
        ),
        "decoder.aspp",
        timm=timm,
        older=(
            (r"^decoder\.0\.", "decoder.aspp."),
            (r"^decoder\.1\.", "decoder.conv."),
            (r"^decoder\.2\.", "decoder.bn."),
        ),
        auxiliary=0.0,
    )


def _smp_v3plus(*, timm: bool) -> Layout:
    return _smp(
        (
            (r"^aspp\.", "decoder.aspp.0."),
            (r"^before\.0\.0\.", "decoder.aspp.1."),
            (r"^before\.0\.1\.", "decoder.aspp.2."),
            (r"^low\.", "decoder.block1."),
            (r"^behind\.0\.", "decoder.block2."),
            (r"^classifier\.", "segmentation_head.0."),
        ),
        "decoder.aspp.0",
        timm=timm,
        form="smp",
        rates=(12, 24, 36),
        low_level=True,
    )


LAYOUTS: Table = (
    (
        r"fcn_resnet(50|101)",
        {"torchvision": _torchvision(output_stride=8, full_dilation=_BEFORE)},
    ),
    (
        r"deeplabv3_resnet(50|101)",
        {
            "torchvision": _torchvision(output_stride=8, full_dilation=_BEFORE, **_HEAD),
            "smp": _smp_v3(timm=False),
        },
    ),
    (
        r"deeplabv3_mobilenet_v3_large",
        {"torchvision": _torchvision(output_stride=16, full_dilation={None, True}, **_HEAD)},
    ),
    (
        r"lraspp_mobilenet_v3_large",
        {"torchvision": _torchvision(output_stride=16, full_dilation={None, True}, width=128)},
    ),
    (rf"deeplabv3_{OWN}", {"smp": _smp_v3(timm=False)}),
    (r"deeplabv3_(?!vgg)\w+", {"smp": _smp_v3(timm=True)}),
    (rf"deeplabv3plus_{OWN}", {"smp": _smp_v3plus(timm=False)}),
    (r"deeplabv3plus_(?!vgg|mobilenet_v3)\w+", {"smp": _smp_v3plus(timm=True)}),
)
