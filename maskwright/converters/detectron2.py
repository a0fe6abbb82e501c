"""detectron2's Faster, Mask and Keypoint R-CNN (FPN, C4, DC5), and RetinaNet, on ResNets.

Classes stand in the same order, background last. What differs: names; the first fully connected
layer, which flattens (channel, row, column) there and (row, column, channel) here; the anchors of
one cell, which go by size and then by ratio there, by ratio and then by size here; and the rows of
RetinaNet's logits, which go by anchor and then by class there, the other way round here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..structures import IMAGENET_MEAN
from .common import (
    COUNTER,
    OURS_ALONE,
    Converted,
    ConvertReport,
    count_rows,
    default_skeleton,
    flat_columns,
    for_each_class,
    plain_classes,
    put_back_counters,
    renamed,
    require,
)

SIZES = RATIOS = 3  # of RetinaNet's anchors
SINGLE_SIZES = (32, 64, 128, 256, 512)  # of the anchors on one map
_BODY = re.compile(r"^backbone\.body\.(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.(\w+)$")
# See `renamed`; numbers that are counted from another one stand below.
_PREFIXES = [
    ("fpn.last.", "backbone.top_block."),
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
    ("rpn.convs.#.", "proposal_generator.rpn_head.conv.conv#.", 1, 0),
    ("roi_heads.box_head.fcs.#.", "roi_heads.box_head.fc#.", 1, 1),
    *(
        (f"roi_heads.{ours}.convs.#.{place}.", f"roi_heads.{ours}.{theirs}#.{norm}", 1, 1)
        for ours, theirs in (
            ("box_head", "conv"),
            ("mask_head", "mask_fcn"),
            ("keypoint_head", "conv_fcn"),
        )
        for place, norm in ((0, ""), (1, "norm."))
    ),
    ("head.class_convs.#.0.", "head.cls_subnet.#.", 2, 0),
    ("head.box_convs.#.0.", "head.bbox_subnet.#.", 2, 0),
]
_PYRAMID = re.compile(r"^fpn\.(lateral|output)\.(\d+)\.([01])\.(\w+)$")
_UNREAD = re.compile(r"^(pixel_mean|pixel_std|.*anchor_generator\.cell_anchors\.\d+)$")
_BINS = 49  # of a region that the fully connected layers see
_ANCHORS = "proposal_generator.rpn_head."


def is_retinanet(names: Mapping[str, Any]) -> bool:
    """Whether tensors are those of a RetinaNet, by our names or by theirs."""
    return "head.deltas.weight" in names or "head.bbox_pred.weight" in names


def their_names(names: Iterable[str]) -> dict[str, str]:
    """Return detectron2's names of the tensors of one detector, but for what only ours has.

    Raises:
        ValueError: if one has no counterpart.
    """
    known = set(names) - {OURS_ALONE}
    if "fpn.lateral.0.0.weight" in known:
        finest = 3 if is_retinanet(dict.fromkeys(known)) else 2
        body, last = "backbone.bottom_up.", "backbone.bottom_up."
    else:  # one map, behind which the last stage runs on regions if no layers of the head do
        finest, body = 0, "backbone."
        last = body if "roi_heads.box_head.fcs.0.weight" in known else "roi_heads."
    places = (body, last, finest)
    several = "rpn.convs.1.weight" in known
    return {name: _their_name(name, places, several) for name in names if name != OURS_ALONE}


def _their_name(name: str, places: tuple[str, str, int], several: bool) -> str:
    """Return detectron2's name of our tensor.

    Args:
        name: ours.
        places: what stands before the stages, what before the last one, and the number of the first
            map that the pyramid takes.
        several: the RPN has more than one convolution.

    Raises:
        ValueError: if detectron2's detectors have no such tensor.
    """
    body, last, finest = places
    if match := _BODY.match(name):
        stage, block, kind, number, ending = match.groups()
        at = "stem" if stage is None else f"res{int(stage) + 1}.{block}"
        if kind == "downsample.":
            conv, norm = "shortcut", number == "1"
        else:
            conv, norm = f"conv{number}", kind == "bn"
        prefix = last if stage == "4" else body
        return f"{prefix}{at}.{conv}.{'norm.' if norm else ''}{ending}"
    if match := _PYRAMID.match(name):
        kind, level, place, ending = match.groups()
        norm = "norm." if place == "1" else ""
        return f"backbone.fpn_{kind}{int(level) + finest}.{norm}{ending}"
    if not several and name.startswith("rpn.convs.0."):
        return name.replace("rpn.convs.0.", "proposal_generator.rpn_head.conv.")
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


def _other_anchors(rows: Tensor, outer: int, inner: int, each: int = 4) -> Tensor:
    """Return rows (outer * inner * each, ...) of anchors, counted the other way round."""
    cells: Tensor = rows.unflatten(0, (outer, inner, each))
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
    theirs = their_names(our_names)
    options: dict[str, Any] = {"conventions": conventions or "detectron2"}
    joints = 0
    if is_retinanet(state):
        logits = require(state, "head.cls_score.weight").shape[0]
        deltas = require(state, "head.bbox_pred.weight").shape[0]
        if deltas != 4 * SIZES * RATIOS or logits % (SIZES * RATIOS):
            raise ValueError(
                f"head.cls_score.weight has {logits} rows and head.bbox_pred.weight {deltas}; "
                f"nine anchors need 36 of these, and a multiple of nine of those"
            )
        rows = logits // (SIZES * RATIOS)
        p6 = require(state, "backbone.top_block.p6.weight")
        options |= {"p6_of_p5": p6.shape[1] == p6.shape[0], "box_loss": "smooth_l1"}
    else:
        classes, boxes = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."
        shared = {boxes: 4, "roi_heads.mask_head.predictor.": 1}
        count = len(require(state, f"{classes}weight")) - 1
        state = for_each_class(state, count, shared, report)
        rows = count_rows(state, classes, boxes, background=False) - 1
        points = state.get("roi_heads.keypoint_head.score_lowres.weight")
        joints = 0 if points is None else points.shape[1]
        if joints:
            options |= {"num_keypoints": joints, "box_beta": 0.5, "train_proposals": 1500}
        if options["conventions"] in ("detectron", "detectron_c4", "detectron2_legacy"):
            options["box_beta"] = 1.0  # of the box head alone
        options |= _single_options(state, theirs)
    options |= _pixels(state, options["conventions"], report)
    names, ids = plain_classes(names, rows, joints=joints)
    converted: dict[str, Tensor] = {}
    for ours, key in theirs.items():
        if key.endswith(COUNTER) and key not in state:
            converted[ours] = torch.tensor(0)
            report.filled[ours] = "0: the file does not count its batches"
            continue
        value = require(state, key)
        report.used.append(key)
        converted[ours] = _reordered(ours, value, ours=True).contiguous()
    if is_retinanet(state) and options["conventions"].startswith("detectron"):
        converted[OURS_ALONE] = torch.tensor(100.0)
        report.filled[OURS_ALONE] = "100, with which the running normaliser begins"
    extras: dict[str, Tensor] = {}
    for key in sorted(set(state) - set(report.used)):
        if key.endswith(COUNTER):
            extras[key] = state[key]
            report.ignored[key] = "a counter that frozen batch norm does not have; kept for export"
        elif _UNREAD.match(key):
            report.ignored[key] = "a constant that the conventions have already"
        else:
            raise ValueError(
                f"{key} is no tensor of this model: the network that the file is of has more, or "
                "is another one"
            )
    return Converted(converted, options, names, ids, extras, report, default_skeleton(joints))


def _reordered(name: str, value: Tensor, *, ours: bool) -> Tensor:
    """Return the numbers of a tensor, by our name, in our order or in detectron2's.

    Args:
        name: ours.
        value: in the other order.
        ours: which order is wanted.
    """
    if name == "roi_heads.box_head.fcs.0.weight":
        return flat_columns(value, value.shape[1] // _BINS, ours=ours)
    if name.startswith("head.logits."):
        return _by_class(value) if ours else _by_anchor(value)
    if name.startswith("head.deltas."):
        sizes, each = SIZES, 4
    elif name.startswith(("rpn.logits.", "rpn.deltas.")):
        each = 4 if "deltas" in name else 1
        sizes = value.shape[0] // (RATIOS * each)
    else:
        return value
    outer, inner = (sizes, RATIOS) if ours else (RATIOS, sizes)
    return _other_anchors(value, outer, inner, each)


def _single_options(state: Mapping[str, Tensor], theirs: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a detector on one map; {} for one on a pyramid.

    Raises:
        ValueError: if its anchors are not those of the model zoo and the file does not tell them.
    """
    anchors = require(state, f"{_ANCHORS}objectness_logits.weight").shape[0]
    boxes = require(state, f"{_ANCHORS}anchor_deltas.weight").shape[0]
    pyramid = "fpn.lateral.0.0.weight" in theirs
    if boxes != 4 * anchors or (pyramid and anchors != RATIOS):
        raise ValueError(
            f"{_ANCHORS}objectness_logits.weight has {anchors} rows and anchor_deltas.weight "
            f"{boxes}, for as many anchors of a cell and their sides: "
            + ("on a pyramid they are one size of three ratios, 3 and 12" if pyramid else "unequal")
        )
    if pyramid:
        return {}
    sizes: tuple[float, ...] = SINGLE_SIZES
    cells = [key for key in state if key.endswith("anchor_generator.cell_anchors.0")]
    if cells:
        whole = state[cells[0]]
        sides = (whole[:, 2:] - whole[:, :2]).prod(1).sqrt()
        sizes = tuple(round(float(side), 3) for side in sides[::RATIOS])
    if anchors != RATIOS * len(sizes):
        raise ValueError(
            f"{_ANCHORS}objectness_logits.weight has {anchors} rows, for as many anchors of a cell;"
            f" {len(sizes)} sizes of {RATIOS} ratios make {RATIOS * len(sizes)}"
        )
    return {
        "rpn_width": require(state, f"{_ANCHORS}conv.weight").shape[0],
        "anchor_sizes": sizes,
        "proposals": 1000,
        "train_proposals": 2000,
        "rois": 512,
        "imgsz": (800, 1333),
    }


def _pixels(state: Mapping[str, Tensor], conventions: str, report: ConvertReport) -> dict[str, Any]:
    """Return the options for statistics of pixels that a file tells and the conventions do not.

    Older files hold `pixel_mean` and `pixel_std` in the order of their input: blue first, unless
    the mean is that of red, green and blue.
    """
    if "pixel_mean" not in state or "pixel_std" not in state:
        return {}
    mean, std = (state[f"pixel_{name}"].flatten().float() for name in ("mean", "std"))
    plain = torch.tensor(IMAGENET_MEAN)
    if torch.allclose(mean, plain, atol=0.01) and conventions == "detectron2":
        report.notes.append("its mean is that of red, green and blue: conventions=detectron2_rgb")
        return {"conventions": "detectron2_rgb"}
    ones, plain_std = torch.ones(3), torch.tensor([57.375, 57.12, 58.395])
    usual = torch.allclose(mean, plain.flip(0), atol=0.01) and (
        torch.allclose(std, ones) or torch.allclose(std, plain_std, atol=0.01)
    )
    if usual or not conventions.startswith("detectron2") or conventions == "detectron2_rgb":
        return {}
    report.notes.append("pixel_mean and pixel_std of the file are kept")
    return {
        "pixel_mean": tuple(mean.flip(0).tolist()),
        "pixel_std": tuple(std.flip(0).tolist()),
    }


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to detectron2's names and layouts.

    Args:
        state: our tensors by name.
        extras: what `to_maskwright` kept aside.
        category_ids: not used: there as here classes are counted by their place.

    Raises:
        ValueError: if the model has parts that detectron2's has not.
    """
    report = ConvertReport()
    result: dict[str, Tensor] = {}
    for ours, key in their_names(state).items():
        result[key] = _reordered(ours, state[ours], ours=False).contiguous()
        report.used.append(ours)
    put_back_counters(result, extras)
    return result, report
