"""Segmenters of other libraries: one row of a table for each family.

- smp: segmentation_models_pytorch 0.4 to 0.6, its Unet and FPN on ResNets, VGGs, mobilenet_v2 and
  encoders of timm.
- milesial: Pytorch-UNet.
- wkentaro: pytorch-fcn, FCN on VGG-16.
- crfasrnn: crfasrnn_pytorch, CRF-RNN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..models.semantic.fcn import STEPS, bilinear_kernel
from ..nn.backbones.vgg import VGGS
from .common import require
from .layout import Layout, Rules, State, Table

# Of an encoder what stands behind its maps, and a second head for the whole image.
SPARE_OF_ENCODER = r"encoder\.(model\.)?(fc|classifier|head|conv_head|bn2)\.|classification_head\."
ENCODER: Rules = (
    (r"^backbone\.body\.body\.", "encoder.model."),
    (r"^backbone\.body\.", "encoder."),
)
OWN = r"((resnet|resnext)\d+\w*|mobilenet_v2)"  # encoders that are not timm's
# Older encoders of timm had no wrapper.
_UNWRAPPED: Rules = ((r"^encoder\.(?!model\.)", "encoder.model."),)


def _unet_options(state: State) -> dict[str, Any]:
    widths = [len(require(state, f"decoder.blocks.{i}.conv1.0.weight")) for i in range(5)]
    found: dict[str, Any] = {} if widths == [256, 128, 64, 32, 16] else {"widths": widths}
    return {**found, "middle": True} if "decoder.center.0.0.weight" in state else found


def _smp_unet(older: Rules = (), *, middle: bool = False) -> Layout:
    return Layout(
        names=(
            *ENCODER,
            (r"^blocks\.", "decoder.blocks."),
            (r"^middle\.", "decoder.center."),
            (r"^head\.", "segmentation_head.0."),
        ),
        older=older,
        options=_unet_options,
        spare=SPARE_OF_ENCODER,
        single=True,
        statistics=(None,),
        fixed={"middle": middle},
    )


def _fpn_options(state: State) -> dict[str, Any]:
    pyramid = len(require(state, "decoder.p5.weight"))
    width = len(require(state, "decoder.seg_blocks.0.block.0.block.0.weight"))
    found = {"pyramid_width": (pyramid, 256), "width": (width, 128)}
    return {name: value for name, (value, usual) in found.items() if value != usual}


def _smp_fpn(older: Rules = ()) -> Layout:
    return Layout(
        names=(
            *ENCODER,
            (r"^laterals\.3\.", "decoder.p5."),
            *((rf"^laterals\.{n}\.", f"decoder.p{n + 2}.skip_conv.") for n in range(3)),
            *(
                (rf"^levels\.{n}\.(\d)\.", rf"decoder.seg_blocks.{3 - n}.block.\1.block.")
                for n in range(4)
            ),
            (r"^head\.", "segmentation_head.0."),
        ),
        older=older,
        options=_fpn_options,
        spare=SPARE_OF_ENCODER,
        single=True,
        statistics=(None,),
    )


def _bilinear(state: State) -> dict[str, Any]:
    width = len(require(state, "inc.double_conv.0.weight"))
    found: dict[str, Any] = {} if width == 64 else {"width": width}
    if "up1.up.weight" not in state:
        found["bilinear"] = True
    return found


_MILESIAL = Layout(
    names=(
        (r"^backbone\.levels\.0\.", "inc.double_conv."),
        (r"^backbone\.levels\.(\d)\.1\.", r"down\1.maxpool_conv.1.double_conv."),
        *((rf"^decoder\.{n}\.", f"up{n + 1}.") for n in range(4)),
        (r"^(up\d)\.convs\.", r"\1.conv.double_conv."),
        (r"(double_conv)\.0\.([01])\.", r"\1.\2."),
        (r"(double_conv)\.1\.0\.", r"\1.3."),
        (r"(double_conv)\.1\.1\.", r"\1.4."),
        (r"^head\.", "outc.conv."),
    ),
    options=_bilinear,
    spare="$",
    single=True,
    statistics=("unit", None),
)


def _conv_names() -> Rules:
    """Return the names of VGG-16's convolutions in Caffe: by block and place in it."""
    rules, place = [], 0
    for block, count in enumerate(VGGS["vgg16"], 1):
        for number in range(1, count + 1):
            rules.append((rf"^backbone\.body\.features\.{place}\.", f"conv{block}_{number}."))
            place += 2
        place += 1
    return tuple(rules)


def _fixed_kernels(state: State) -> dict[str, Tensor]:
    """Return the transposed convolutions of an FCN that has constants in their place.

    Args:
        state: its tensors by our names.
    """
    classes = len(require(state, "score_fr.weight"))
    stride = 32 >> sum(f"score_pool{n}.weight" in state for n in (4, 3))
    found = {}
    for step in STEPS[stride]:
        if f"{step.name}.weight" not in state:
            weight = torch.zeros(classes, classes, step.kernel, step.kernel)
            for label in range(classes):
                weight[label, label] = bilinear_kernel(step.kernel)
            found[f"{step.name}.weight"] = weight
    return found


def _width(state: State) -> dict[str, Any]:
    width = len(require(state, "fc6.weight"))
    return {} if width == 4096 else {"width": width}


def _fcn_options(state: State) -> dict[str, Any]:
    """Return the width, and whether transposed convolutions are other than bilinear."""
    found = _width(state)
    fixed = _fixed_kernels({k: v for k, v in state.items() if not k.startswith("upscore")})
    if not all(torch.equal(require(state, key).float(), value) for key, value in fixed.items()):
        found["learn_upsampling"] = True
    return found


_WKENTARO = Layout(
    names=_conv_names(),
    options=_fcn_options,
    constants=_fixed_kernels,
    spare=r"upscore\w*\.weight$",
    statistics=("caffe",),
    fixed={"backbone": "vgg16"},
)
_CRFASRNN = Layout(
    names=_conv_names(),
    options=_width,
    spare="$",
    statistics=("caffe",),
    fixed={"backbone": "vgg16", "learn_upsampling": True},
)
LAYOUTS: Table = (
    (r"unet", {"milesial": _MILESIAL}),
    (r"unet_vgg\d+\w*", {"smp": _smp_unet(middle=True)}),
    (rf"unet_{OWN}", {"smp": _smp_unet()}),
    (r"unet_(?!mobilenet_v3)\w+", {"smp": _smp_unet(_UNWRAPPED)}),
    (rf"semantic_fpn_({OWN}|vgg\d+\w*)", {"smp": _smp_fpn()}),
    (r"semantic_fpn_(?!mobilenet_v3)\w+", {"smp": _smp_fpn(_UNWRAPPED)}),
    (r"fcn(32|16|8)s_vgg16", {"wkentaro": _WKENTARO}),
    (r"crf_rnn", {"crfasrnn": _CRFASRNN}),
)
