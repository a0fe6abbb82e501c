"""mmdetection 1 to 3: Faster and Mask R-CNN, RefineMask and RetinaNet on ResNets, and SSD.

RefineMask's published weights come from its authors' copy of that library. Classes stand in the
same order, background last, but first in version 1, whose names have no `roi_head`. What differs:
names, and the first fully connected layer, which flattens (channel, row, column) there and (row,
column, channel) here; and the rows of RetinaNet's logits, which go by anchor and then by class
there. SSD stands in `ssd`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..nn.detection.refine_head import FUSION_PARTS
from . import ssd
from .anatomy import find_backbone
from .common import (
    COUNTER,
    Converted,
    ConvertReport,
    count_rows,
    flat_columns,
    for_each_class,
    plain_classes,
    put_back_counters,
    require,
)

_HEAD = "roi_heads.mask_head."
_THEIR_HEAD = "roi_head.mask_head."
_FUSE = r"roi_heads\.mask_head\.stages\.(\d+)\."
# Our prefix as a pattern, theirs.
_PREFIXES = [
    (r"backbone\.body\.(conv1|bn1|layer\d)\.", r"backbone.\1."),
    (r"fpn\.lateral\.(\d+)\.0\.", r"neck.lateral_convs.\1.conv."),
    (r"fpn\.output\.(\d+)\.0\.", r"neck.fpn_convs.\1.conv."),
    (r"rpn\.convs\.0\.", "rpn_head.rpn_conv."),
    (r"rpn\.logits\.", "rpn_head.rpn_cls."),
    (r"rpn\.deltas\.", "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fcs\.(\d+)\.", r"roi_head.bbox_head.shared_fcs.\1."),
    (r"roi_heads\.box_head\.logits\.", "roi_head.bbox_head.fc_cls."),
    (r"roi_heads\.box_head\.deltas\.", "roi_head.bbox_head.fc_reg."),
    # Mask R-CNN
    (r"roi_heads\.mask_head\.convs\.(\d+)\.0\.", r"roi_head.mask_head.convs.\1.conv."),
    (r"roi_heads\.mask_head\.upsample\.", "roi_head.mask_head.upsample."),
    (r"roi_heads\.mask_head\.logits\.(?!\d)", "roi_head.mask_head.conv_logits."),
    # RetinaNet
    (r"fpn\.last\.p6\.", "neck.fpn_convs.3.conv."),
    (r"fpn\.last\.p7\.", "neck.fpn_convs.4.conv."),
    (r"head\.class_convs\.(\d+)\.0\.", r"bbox_head.cls_convs.\1.conv."),
    (r"head\.box_convs\.(\d+)\.0\.", r"bbox_head.reg_convs.\1.conv."),
    (r"head\.logits\.(?!\d)", "bbox_head.retina_cls."),
    (r"head\.deltas\.(?!\d)", "bbox_head.retina_reg."),
    # RefineMask
    (
        r"roi_heads\.mask_head\.(instance|semantic)_convs\.(\d+)\.0\.",
        r"roi_head.mask_head.\1_convs.\2.conv.",
    ),
    (r"roi_heads\.mask_head\.semantic_logits\.", "roi_head.mask_head.semantic_logits."),
    (_FUSE + r"semantic_(in|out)\.", r"roi_head.mask_head.stages.\1.semantic_transform_\2."),
    (_FUSE + r"fuse\.", r"roi_head.mask_head.stages.\1.fuse_conv.0."),
    (_FUSE + r"merge\.", r"roi_head.mask_head.stages.\1.fuse_conv.1.merge_conv.conv."),
    (_FUSE + r"out\.", r"roi_head.mask_head.stages.\1.fuse_transform_out."),
]
_BRANCH = re.compile(_FUSE + r"branches\.(\d)\.")
_STAGE_LOGITS = re.compile(r"roi_heads\.mask_head\.logits\.(\d+)\.")
_CLASSES = "roi_head.bbox_head.fc_cls."
_BOXES = "roi_head.bbox_head.fc_reg."
_DENSE = "bbox_head.retina_"
ANCHORS = 9  # of RetinaNet
# Options of RefineMask of which the published code knows one value.
_PUBLISHED = {
    "mask_stages": 4,
    "boundary": True,
    "boundary_width": 1,
    "sigmoid_masks": True,
    "upsample_features": False,
}
_SLOW = {"masks_first": False, "avg_branch": False}


def check_options(model: str, options: Mapping[str, Any]) -> None:
    """Refuse models that mmdetection would load and compute otherwise.

    Args:
        model: registered name.
        options: builder options of the model that is to be written.

    Raises:
        ValueError: naming the option.
    """
    fast = bool(options.get("fast", model.startswith("refine_mask_fast")))
    for name, value in {**_PUBLISHED, **({} if fast else _SLOW)}.items():
        if options.get(name, value) != value:
            raise ValueError(
                f"mmdetection's RefineMask has {name}={value}, not {options[name]}: it would give "
                "other masks"
            )
    needed = [part for part in FUSION_PARTS if not (fast and "mask" in part)]
    parts = options.get("fusion_parts", needed)
    if missing := [part for part in needed if part not in parts]:
        raise ValueError(f"mmdetection's RefineMask has no fusion without {', '.join(missing)}")


def their_names(names: Iterable[str]) -> dict[str, str]:
    """Return mmdetection's names of the tensors of one detector.

    Raises:
        ValueError: if one has no counterpart.
    """
    names = list(names)
    stages = [int(m.group(1)) for name in names if (m := _STAGE_LOGITS.match(name))]
    last = max(stages, default=0)
    # The faster variant of RefineMask has no semantic logits, and its predictors in one list.
    fast = bool(stages) and f"{_HEAD}semantic_logits.weight" not in names
    return {name: _their_name(name, fast=fast, last=last) for name in names}


def _their_name(name: str, *, fast: bool, last: int) -> str:
    if match := _STAGE_LOGITS.match(name):
        stage = int(match.group(1))
        theirs = "final_instance_logits." if stage == last else f"stages.{stage}.instance_logits."
        if fast:
            theirs = f"stage_instance_logits.{stage}."
        return _THEIR_HEAD + theirs + name[match.end() :]
    if match := _BRANCH.match(name):
        stage, branch = int(match.group(1)), int(match.group(2))
        theirs = f"stages.{stage}.fuse_conv.1.dilation_conv_{branch + 1}.conv."
        return _THEIR_HEAD + theirs + name[match.end() :]
    for ours, theirs in _PREFIXES:
        if match := re.match(ours, name):
            return match.expand(theirs) + name[match.end() :]
    raise ValueError(f"mmdetection's R-CNN models have no counterpart of {name!r}")


def to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
    conventions: str | None = None,
) -> Converted:
    """Convert mmdetection's weights.

    Args:
        state: mmdetection's tensors by name.
        our_names: names of the tensors of the detector to fill.
        drop_unused: no effect: mmdetection has no unused classes.
        names: class names; None: COCO's if there are 80.
        conventions: see `models.conventions`; None: "mmdetection", of version 1 "mmdetection_v1",
            and the form with `_caffe` of both for ResNeXt-101 32x8d, which is Caffe's.

    Raises:
        ValueError: if a tensor is missing or left over, or the class rows do not fit together.
    """
    if is_ssd(state):
        first = conventions is not None and conventions.startswith("mmdetection_v1")
        return ssd.mmdetection_to_maskwright(state, our_names, names, background_last=not first)
    report = ConvertReport()
    older = is_version1(state)
    if older:
        state = _modern(state)
    if conventions is None:
        conventions = "mmdetection_v1" if older else "mmdetection"
        if find_backbone(state, "mmdetection") == "resnext101_32x8d":
            conventions += "_caffe"
    options: dict[str, Any] = {"conventions": conventions}
    if f"{_DENSE}cls.weight" in state:
        rows = _dense_classes(state)
        p6 = require(state, "neck.fpn_convs.3.conv.weight")
        options["p6_of_p5"] = p6.shape[1] == p6.shape[0]
        if conventions.startswith("mmdetection_v1"):
            options["box_loss"] = "smooth_l1"
    else:
        shared = {_BOXES: 4, f"{_THEIR_HEAD}conv_logits.": 1}
        state = for_each_class(state, len(require(state, f"{_CLASSES}weight")) - 1, shared, report)
        rows = count_rows(state, _CLASSES, _BOXES, background=False) - 1
        if conventions.startswith("mmdetection_v1"):
            options["box_beta"] = 1.0  # of the box head alone
    names, ids = plain_classes(names, rows)
    converted: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    for ours, key in their_names(our_names).items():
        value = require(state, key)
        report.used.append(key)
        if ours == "roi_heads.box_head.fcs.0.weight":
            channels = require(state, "neck.fpn_convs.0.conv.weight").shape[0]
            value = flat_columns(value, channels, ours=True)
        elif key.startswith(f"{_DENSE}cls."):
            value = value.unflatten(0, (ANCHORS, rows)).transpose(0, 1).flatten(0, 1)
        converted[ours] = value.contiguous()
    refined = sorted(
        key for key in converted if re.fullmatch(r".*mask_head\.logits\.\d\.bias", key)
    )
    if refined:
        options["class_agnostic_last"] = rows > 1 and len(converted[refined[-1]]) == 1
    for key in sorted(set(state) - set(report.used)):
        if key.endswith(COUNTER):
            extras[key] = state[key]
            report.ignored[key] = "a counter that frozen batch norm does not have; kept for export"
        elif key.startswith("ema_"):
            report.ignored[key] = "a running average of another tensor"
        else:
            raise ValueError(
                f"{key} is no tensor of this model: the network that the file is of has more, or "
                "is another one"
            )
    if conventions.startswith("mmdetection_v1"):
        report.notes.append(
            "of version 1, whose boxes count the last pixel: theirs end a pixel earlier, and on "
            "photos that are resized by a scale s another 1/s - 1 pixels"
        )
    return Converted(converted, options, names, ids, extras, report)


def is_ssd(names: Iterable[str]) -> bool:
    """Whether tensors are those of an SSD, by our names or by theirs."""
    marks = ("bbox_head.cls_convs.0.0.weight", "bbox_head.cls_convs.0.weight")
    return any(mark in names for mark in marks) or "head.logits.0.weight" in names


def is_version1(names: Iterable[str]) -> bool:
    """Whether tensors are those of heads on regions in mmdetection 1."""
    return "bbox_head.fc_cls.weight" in names


def _modern(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of version 1 by the names of version 2, the background last."""
    count_rows(state, "bbox_head.fc_cls.", "bbox_head.fc_reg.", background=True)
    found = {}
    for key, value in state.items():
        if key.startswith(("bbox_head.", "mask_head.")):
            if key.startswith("bbox_head.fc_cls."):
                value = value.roll(-1, 0)
            elif key.startswith("bbox_head.fc_reg."):
                value = value[4:]
            elif key.startswith("mask_head.conv_logits."):
                value = value[1:] if len(value) > 1 else value  # one mask for all classes
            key = f"roi_head.{key}"
        found[key] = value
    return found


def _dense_classes(state: Mapping[str, Tensor]) -> int:
    """Return how many classes a RetinaNet has.

    Raises:
        ValueError: if its rows are not those of nine anchors.
    """
    logits = require(state, f"{_DENSE}cls.weight").shape[0]
    deltas = require(state, f"{_DENSE}reg.weight").shape[0]
    if deltas != 4 * ANCHORS or logits % ANCHORS:
        raise ValueError(
            f"{_DENSE}cls.weight has {logits} rows and {_DENSE}reg.weight {deltas}: nine anchors "
            "need a multiple of nine of those, and 36 of these"
        )
    return logits // ANCHORS


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to mmdetection's names and layouts.

    Args:
        state: our tensors by name.
        extras: what `to_maskwright` kept aside.
        category_ids: not used: there as here classes are counted by their place.

    Raises:
        ValueError: if the model has parts that mmdetection's has not.
    """
    if is_ssd(state):
        return ssd.mmdetection_from_maskwright(state)
    report = ConvertReport()
    result: dict[str, Tensor] = {}
    for ours, key in their_names(state).items():
        value = state[ours]
        if ours == "roi_heads.box_head.fcs.0.weight":
            value = flat_columns(value, state["fpn.output.0.0.weight"].shape[0], ours=False)
        elif key.startswith(f"{_DENSE}cls."):
            value = value.unflatten(0, (-1, ANCHORS)).transpose(0, 1).flatten(0, 1)
        result[key] = value.contiguous()
        report.used.append(ours)
    put_back_counters(result, extras)
    return result, report
