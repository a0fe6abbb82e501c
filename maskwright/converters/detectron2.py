"""detectron2's Faster, Mask and Keypoint R-CNN with a pyramid, and RetinaNet, on ResNets.

Classes stand in the same order, background last. What differs: names; the first fully connected
layer, which flattens (channel, row, column) there and (row, column, channel) here; and RetinaNet's
nine anchors, which go by size and then by ratio there, by ratio and then by size here, and whose
rows of logits go by anchor and then by class there, the other way round here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .common import (
    Converted,
    ConvertReport,
    count_rows,
    default_skeleton,
    flat_columns,
    plain_classes,
    renamed,
    require,
)

SIZES = RATIOS = 3  # of RetinaNet's anchors
_BODY = re.compile(r"^backbone\.body\.(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.(\w+)$")
# See `renamed`; numbers that are counted from another one stand below.
_PREFIXES = [
    ("fpn.last.", "backbone.top_block."),
    ("rpn.convs.0.", "proposal_generator.rpn_head.conv."),
    ("rpn.logits.", "proposal_generator.rpn_head.objectness_logits."),
    ("rpn.deltas.", "proposal_generator.rpn_head.anchor_deltas."),
    ("roi_heads.box_head.logits.", "roi_heads.box_predictor.cls_score."),
    ("roi_heads.box_head.deltas.", "roi_heads.box_predictor.bbox_pred."),
    ("roi_heads.mask_head.upsample.", "roi_heads.mask_head.deconv."),
    ("roi_heads.mask_head.logits.", "roi_heads.mask_head.predictor."),
    ("roi_heads.keypoint_head.logits.", "roi_heads.keypoint_head.score_lowres."),
    ("head.logits.", "head.cls_score."),
    ("head.deltas.", "head.bbox_pred."),
]
# Ours with a number at `#`, theirs, and how their number follows: a factor and where they begin.
_COUNTED = [
    ("roi_heads.box_head.fcs.#.", "roi_heads.box_head.fc#.", 1, 1),
    ("roi_heads.mask_head.convs.#.0.", "roi_heads.mask_head.mask_fcn#.", 1, 1),
    ("roi_heads.keypoint_head.convs.#.0.", "roi_heads.keypoint_head.conv_fcn#.", 1, 1),
    ("head.class_convs.#.0.", "head.cls_subnet.#.", 2, 0),
    ("head.box_convs.#.0.", "head.bbox_subnet.#.", 2, 0),
]
_PYRAMID = re.compile(r"^fpn\.(lateral|output)\.(\d+)\.0\.(\w+)$")
_UNREAD = re.compile(r"^(pixel_mean|pixel_std|.*anchor_generator\.cell_anchors\.\d+)$")


def is_retinanet(names: Mapping[str, Any]) -> bool:
    """Whether tensors are those of a RetinaNet, by our names or by theirs."""
    return "head.deltas.weight" in names or "head.bbox_pred.weight" in names


def their_name(name: str, *, finest: int) -> str:
    """Return detectron2's name of our tensor.

    Args:
        name: ours.
        finest: number of the first map that the pyramid takes: 2, of RetinaNet 3.

    Raises:
        ValueError: if detectron2's detectors have no such tensor.
    """
    if match := _BODY.match(name):
        stage, block, kind, number, ending = match.groups()
        at = "stem" if stage is None else f"res{int(stage) + 1}.{block}"
        if kind == "downsample.":
            conv, norm = "shortcut", number == "1"
        else:
            conv, norm = f"conv{number}", kind == "bn"
        return f"backbone.bottom_up.{at}.{conv}.{'norm.' if norm else ''}{ending}"
    if match := _PYRAMID.match(name):
        kind, level, ending = match.groups()
        return f"backbone.fpn_{kind}{int(level) + finest}.{ending}"
    for ours, theirs, factor, start in _COUNTED:
        if match := re.match(re.escape(ours).replace(r"\#", r"(\d+)"), name):
            number = int(match.group(1)) * factor + start
            return theirs.replace("#", str(number)) + name[match.end() :]
    if (found := renamed(name, _PREFIXES)) is not None:
        return found
    raise ValueError(f"detectron2's detectors have no counterpart of {name!r}")


def _by_class(rows: Tensor) -> Tensor:
    """Return rows (anchors * classes, ...) of logits as ours (classes * anchors, ...)."""
    return _turned(rows, (SIZES, RATIOS, -1))


def _by_anchor(rows: Tensor) -> Tensor:
    """Return our rows (classes * anchors, ...) of logits as theirs; see `_by_class`."""
    return _turned(rows, (-1, RATIOS, SIZES))


def _turned(rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return rows that count through a grid, counted through it the other way round."""
    cells: Tensor = rows.unflatten(0, grid)
    return cells.transpose(0, 2).flatten(0, 2)


def _other_anchors(rows: Tensor) -> Tensor:
    """Return rows (anchors * 4, ...) with the anchors in the other order; its own inverse."""
    cells: Tensor = rows.unflatten(0, (SIZES, RATIOS, 4))
    return cells.transpose(0, 1).flatten(0, 2)


def to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
    conventions: str | None = None,
) -> Converted:
    """Convert detectron2's weights.

    Args:
        state: detectron2's tensors by name.
        our_names: names of the tensors of the detector to fill.
        drop_unused: no effect: detectron2 has no unused classes.
        names: class names; None: COCO's if there are 80, or one class with the 17 keypoints of a
            person.
        conventions: see `models.conventions`; None: "detectron2".

    Raises:
        ValueError: if a tensor is missing, is left over, or the rows do not fit together.
    """
    report = ConvertReport()
    dense = is_retinanet(state)
    options: dict[str, Any] = {"conventions": conventions or "detectron2"}
    joints = 0
    if dense:
        logits = require(state, "head.cls_score.weight").shape[0]
        deltas = require(state, "head.bbox_pred.weight").shape[0]
        if deltas != 4 * SIZES * RATIOS or logits % (SIZES * RATIOS):
            raise ValueError(
                f"head.cls_score.weight has {logits} rows and head.bbox_pred.weight {deltas}; "
                f"nine anchors need 36 of these, and a multiple of nine of those"
            )
        rows = logits // (SIZES * RATIOS)
        p6 = require(state, "backbone.top_block.p6.weight")
        options["p6_of_p5"] = p6.shape[1] == p6.shape[0]
    else:
        classes, boxes = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."
        rows = count_rows(state, classes, boxes, background=False) - 1
        points = state.get("roi_heads.keypoint_head.score_lowres.weight")
        joints = 0 if points is None else points.shape[1]
        if joints:
            options |= {"num_keypoints": joints, "box_beta": 0.5}
    names, ids = plain_classes(names, rows, joints=joints)
    converted: dict[str, Tensor] = {}
    for ours in our_names:
        key = their_name(ours, finest=3 if dense else 2)
        value = require(state, key)
        report.used.append(key)
        if ours == "roi_heads.box_head.fcs.0.weight":
            channels = require(state, "backbone.fpn_output2.weight").shape[0]
            value = flat_columns(value, channels, ours=True)
        elif ours.startswith("head.logits."):
            value = _by_class(value)
        elif ours.startswith("head.deltas."):
            value = _other_anchors(value)
        converted[ours] = value.contiguous()
    for key in sorted(set(state) - set(report.used)):
        if not _UNREAD.match(key):
            raise ValueError(
                f"{key} is no tensor of this model: the network that the file is of has more, or "
                "is another one"
            )
        report.ignored[key] = "a constant that the conventions have already"
    return Converted(converted, options, names, ids, {}, report, default_skeleton(joints))


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to detectron2's names and layouts.

    Args:
        state: our tensors by name.
        extras: not used: nothing is left aside.
        category_ids: not used: there as here classes are counted by their place.

    Raises:
        ValueError: if the model has parts that detectron2's has not.
    """
    report = ConvertReport()
    dense = is_retinanet(state)
    result: dict[str, Tensor] = {}
    for ours, value in state.items():
        key = their_name(ours, finest=3 if dense else 2)
        if ours == "roi_heads.box_head.fcs.0.weight":
            value = flat_columns(value, state["fpn.output.0.0.weight"].shape[0], ours=False)
        elif ours.startswith("head.logits."):
            value = _by_anchor(value)
        elif ours.startswith("head.deltas."):
            value = _other_anchors(value)
        result[key] = value.contiguous()
        report.used.append(ours)
    return result, report
