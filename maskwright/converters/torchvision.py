"""torchvision's Faster and Mask R-CNN, both versions, and Keypoint R-CNN, ResNet-50 and FPN.

RetinaNet's and SSD's tensors are told by their names, and go on to `torchvision_dense` and `ssd`.

The differences: background is class 0 there and the last class here; box and mask rows of the
background, which nobody reads, exist there only (kept as extras, so that the way back is equal to
the bit); the first fully connected layer flattens (channel, row, column) there and (row, column,
channel) here. Names of files from before torchvision 0.13 are understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..structures import COCO_PERSON
from . import ssd
from . import torchvision_dense as dense
from .common import (
    COCO_91_NAMES,
    COUNTER,
    Converted,
    ConvertReport,
    count_rows,
    default_skeleton,
    flat_columns,
    kept_classes,
    put_back_counters,
    renamed,
    require,
    rows_of_classes,
)

# See `renamed`.
_PREFIXES = [
    ("backbone.body.", "backbone.body."),
    ("fpn.lateral.#.", "backbone.fpn.inner_blocks.#."),
    ("fpn.output.#.", "backbone.fpn.layer_blocks.#."),
    ("rpn.convs.#.", "rpn.head.conv.#.0."),
    ("rpn.logits.", "rpn.head.cls_logits."),
    ("rpn.deltas.", "rpn.head.bbox_pred."),
    ("roi_heads.box_head.convs.#.", "roi_heads.box_head.#."),
    ("roi_heads.box_head.logits.", "roi_heads.box_predictor.cls_score."),
    ("roi_heads.box_head.deltas.", "roi_heads.box_predictor.bbox_pred."),
    ("roi_heads.mask_head.convs.#.", "roi_heads.mask_head.#."),
    ("roi_heads.mask_head.upsample.", "roi_heads.mask_predictor.conv5_mask."),
    ("roi_heads.mask_head.logits.", "roi_heads.mask_predictor.mask_fcn_logits."),
    ("roi_heads.keypoint_head.logits.", "roi_heads.keypoint_predictor.kps_score_lowres."),
]
# Their list of convolutions counts the ReLUs between them.
_KEYPOINT_CONVS = re.compile(r"^roi_heads\.keypoint_head\.convs\.(\d+)\.0\.")
_FCS = {
    False: {"fcs.0.": "fc6.", "fcs.1.": "fc7."},  # version 1
    True: {"fcs.0.": "5."},  # version 2: four convolutions stand before it
}
_OLDER = [
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
]
_OLD_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")
_CLASSES = "roi_heads.box_predictor.cls_score."
_BOXES = "roi_heads.box_predictor.bbox_pred."
_KEYPOINTS = "roi_heads.keypoint_predictor.kps_score_lowres."
_MASKS = "roi_heads.mask_predictor.mask_fcn_logits."
# Rows that belong to the background, first in their tensors.
_BACKGROUND_ROWS = {_BOXES: 4, _MASKS: 1}


def their_name(name: str, *, version2: bool) -> str:
    """Return torchvision's name of our tensor.

    Raises:
        ValueError: if torchvision's detectors have no such tensor.
    """
    for ours, theirs in _FCS[version2].items():
        prefix = f"roi_heads.box_head.{ours}"
        if name.startswith(prefix):
            return f"roi_heads.box_head.{theirs}{name[len(prefix) :]}"
    if match := _KEYPOINT_CONVS.match(name):
        return f"roi_heads.keypoint_head.{2 * int(match.group(1))}.{name[match.end() :]}"
    if (found := renamed(name, _PREFIXES)) is not None:
        return found
    raise ValueError(f"torchvision's R-CNN models have no counterpart of {name!r}")


def _modern(name: str) -> str:
    for pattern, new in _OLDER:
        name = re.sub(pattern, new, name)
    match = _OLD_MASK.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match.group(1)) - 1}.0.{match.group(2)}"
    return name


def to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
    conventions: str | None = None,
) -> Converted:
    """Convert torchvision's weights.

    Args:
        state: torchvision's tensors by name, new or older names.
        our_names: names of the tensors of the detector to fill.
        drop_unused: leave out the classes without a name (lossy: the way back fills them).
        names: class names without background; None: COCO's if there are 91 rows, or one class
            with the 17 keypoints of a person.
        conventions: "torchvision" or "torchvision_v1" (batch norm with an epsilon of 0, as the
            published files of version 1); None: the latter for files with the older names.

    Raises:
        ValueError: if a tensor is missing or the class rows do not fit together.
    """
    if dense.is_dense(state):
        return dense.to_maskwright(
            state, our_names, drop_unused=drop_unused, names=names, conventions=conventions
        )
    if ssd.is_ssd(state):
        return ssd.torchvision_to_maskwright(state, our_names, drop_unused=drop_unused, names=names)
    report = ConvertReport()
    older = any(_modern(key) != key for key in state)
    theirs = {_modern(key): value for key, value in state.items()}
    rows = count_rows(theirs, _CLASSES, _BOXES, background=True)
    # A model without a keypoint head leaves theirs aside.
    wanted = any(key.startswith("roi_heads.keypoint_head.") for key in our_names)
    joints = require(theirs, _KEYPOINTS + "weight").shape[1] if wanted else 0
    skeleton = default_skeleton(joints)
    if names is None and rows == 91:
        names = list(COCO_91_NAMES)
    elif names is None and rows == 2 and skeleton == COCO_PERSON:
        names = ["person"]
    elif names is None:
        names = [f"class_{i}" for i in range(1, rows)]
    keep = kept_classes(names, rows, drop_unused, report)
    classes = torch.tensor(keep) + 1  # rows of the kept classes; background is row 0
    version2 = "roi_heads.box_head.5.weight" in theirs
    converted: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    for ours in our_names:
        key = their_name(ours, version2=version2)
        value = require(theirs, key)
        report.used.append(key)
        prefix = key[: key.rindex(".") + 1]
        if prefix == _CLASSES:
            value = value[torch.cat([classes, torch.zeros(1, dtype=torch.int64)])]
        elif prefix in _BACKGROUND_ROWS:
            group = _BACKGROUND_ROWS[prefix]
            extras[key] = value[:group].clone()
            value = value.unflatten(0, (rows, group))[classes].flatten(0, 1)
        elif ours == "roi_heads.box_head.fcs.0.weight":
            channels = require(theirs, "backbone.fpn.layer_blocks.0.0.weight").shape[0]
            value = flat_columns(value, channels, ours=True)
        converted[ours] = value.contiguous()
    for key in sorted(set(theirs) - set(report.used)):
        if key.endswith(COUNTER):
            extras[key] = theirs[key]
            report.ignored[key] = "a counter that frozen batch norm does not have; kept for export"
        elif key.startswith(("roi_heads.mask_", "roi_heads.keypoint_")):
            report.ignored[key] = "of a head that this model has not"
        else:
            raise ValueError(
                f"{key} is no tensor of this model: the network that the file is of has more, or "
                "is another one"
            )
    others = [key for key in report.ignored if not key.endswith(COUNTER)]
    if others:
        report.notes.append(
            f"{len(others)} tensors are no part of the model that was asked for, among them "
            f"{others[0]}"
        )
    if conventions is None:
        conventions = "torchvision_v1" if older else "torchvision"
    options: dict[str, Any] = {"conventions": conventions}
    if joints:
        options["num_keypoints"] = joints
    kept = [names[i] for i in keep]
    ids = [i + 1 for i in keep]
    return Converted(converted, options, kept, ids, extras, report, skeleton)


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to torchvision's names and layouts.

    Args:
        state: our tensors by name.
        extras: what `to_maskwright` kept aside; without it the background's rows are zeros.
        category_ids: the row of each class in torchvision, 1 for the first.

    Raises:
        ValueError: if the model has parts that torchvision's has not.
    """
    if any(key.startswith("head.class_convs.") for key in state):
        return dense.from_maskwright(state, extras, category_ids)
    if ssd.is_ssd(state):
        return ssd.torchvision_from_maskwright(state, category_ids)
    report = ConvertReport()
    version2 = any(key.startswith("roi_heads.box_head.convs.") for key in state)
    ids = rows_of_classes(category_ids, report)
    # Rows for every id up to the highest; what has no class stays zero.
    rows = int(ids.max()) + 1
    result: dict[str, Tensor] = {}
    for ours, value in state.items():
        key = their_name(ours, version2=version2)
        prefix = key[: key.rindex(".") + 1]
        if prefix == _CLASSES:
            full = value.new_zeros((rows, *value.shape[1:]))
            full[ids] = value[:-1]
            full[0] = value[-1]
            value = full
            unused = rows - 1 - len(ids)
            if unused:
                # A class that nobody trained must never win: torchvision ranks raw logits.
                missing = torch.ones(rows, dtype=torch.bool)
                missing[ids], missing[0] = False, False
                if key.endswith("bias"):
                    value[missing] = -1e4
                report.filled[key] = f"{unused} unused classes, with a bias that keeps them silent"
        elif prefix in _BACKGROUND_ROWS:
            group = _BACKGROUND_ROWS[prefix]
            full = value.new_zeros((rows, group, *value.shape[1:]))
            full[ids] = value.unflatten(0, (-1, group))
            if key in extras:
                full[0] = extras[key]
            else:
                report.filled[key] = "zeros in the rows of the background, which nobody reads"
            value = full.flatten(0, 1)
        elif ours == "roi_heads.box_head.fcs.0.weight":
            value = flat_columns(value, state["fpn.output.0.0.weight"].shape[0], ours=False)
        result[key] = value.contiguous()
        report.used.append(ours)
    put_back_counters(result, extras)
    return result, report
