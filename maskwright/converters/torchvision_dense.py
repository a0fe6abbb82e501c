"""torchvision's RetinaNet, both versions.

The differences: the rows of the logits go by anchor and then by class there, by class and then by
anchor here; class 0 has logits of its own there, which are of no class (kept as extras, so that the
way back is equal to the bit). Names of files from before torchvision 0.13 are understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .common import (
    COCO_91_NAMES,
    COUNTER,
    Converted,
    ConvertReport,
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
    ("fpn.last.", "backbone.fpn.extra_blocks."),
    ("head.class_convs.#.", "head.classification_head.conv.#."),
    ("head.box_convs.#.", "head.regression_head.conv.#."),
    ("head.logits.", "head.classification_head.cls_logits."),
    ("head.deltas.", "head.regression_head.bbox_reg."),
]
_OLD_TOWER = re.compile(r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$")
_OLD_PYRAMID = re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$")
_CLASSES = "head.classification_head.cls_logits."
_BOXES = "head.regression_head.bbox_reg."
SILENT = -math.log((1 - 0.01) / 0.01)  # the bias of a class before training


def is_dense(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of such a detector, by torchvision's names."""
    return f"{_CLASSES}weight" in state


def their_name(name: str) -> str:
    """Return torchvision's name of our tensor.

    Raises:
        ValueError: if torchvision's RetinaNet has no such tensor.
    """
    if (found := renamed(name, _PREFIXES)) is not None:
        return found
    raise ValueError(f"torchvision's RetinaNet has no counterpart of {name!r}")


def _modern(name: str) -> str:
    if match := _OLD_TOWER.match(name):  # the ReLUs between were counted
        return f"{match.group(1)}.{int(match.group(2)) // 2}.0.{match.group(3)}"
    return _OLD_PYRAMID.sub(r"\1.0.\2", name)


def to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
    conventions: str | None = None,
) -> Converted:
    """Convert torchvision's weights; see `torchvision.to_maskwright`."""
    report = ConvertReport()
    older = any(_modern(key) != key for key in state)
    theirs = {_modern(key): value for key, value in state.items()}
    anchors = require(theirs, f"{_BOXES}weight").shape[0] // 4
    logits = require(theirs, f"{_CLASSES}weight").shape[0]
    if not anchors or logits % anchors or logits < 2 * anchors:
        raise ValueError(
            f"{_CLASSES}weight has {logits} rows, which are no classes and background of "
            f"{anchors} anchors, as {_BOXES}weight has them"
        )
    rows = logits // anchors
    if names is None:
        coco = list(COCO_91_NAMES) if rows == 91 else None
        names = coco or [f"class_{number}" for number in range(1, rows)]
    keep = kept_classes(names, rows, drop_unused, report)
    classes = torch.tensor(keep) + 1
    converted: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    for ours in our_names:
        key = their_name(ours)
        value = require(theirs, key)
        report.used.append(key)
        if key.startswith(_CLASSES):
            value = value.unflatten(0, (anchors, rows))
            extras[key] = value[:, 0].clone()
            value = value[:, classes].transpose(0, 1).flatten(0, 1)
        converted[ours] = value.contiguous()
    for key in sorted(set(theirs) - set(report.used)):
        if not key.endswith(COUNTER):
            raise ValueError(
                f"{key} is no tensor of this RetinaNet: the network that the file is of has more, "
                "or is of the other version"
            )
        extras[key] = theirs[key]
        report.ignored[key] = "a counter that frozen batch norm does not have; kept for export"
    if conventions is None:
        conventions = "torchvision_v1" if older else "torchvision"
    kept, ids = [names[i] for i in keep], [i + 1 for i in keep]
    return Converted(converted, {"conventions": conventions}, kept, ids, extras, report)


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to torchvision's names and layouts; see `torchvision.from_maskwright`."""
    report = ConvertReport()
    ids = rows_of_classes(category_ids, report)
    rows = int(ids.max()) + 1
    anchors = require(state, "head.deltas.weight").shape[0] // 4
    result: dict[str, Tensor] = {}
    for ours, value in state.items():
        key = their_name(ours)
        if key.startswith(_CLASSES):
            # Of no class, and never above a threshold.
            silent = SILENT if key.endswith("bias") else 0.0
            full = value.new_full((anchors, rows, *value.shape[1:]), silent)
            full[:, ids] = value.unflatten(0, (-1, anchors)).transpose(0, 1)
            if key in extras:
                full[:, 0] = extras[key]
            else:
                report.filled[key] = "rows of class 0, which nobody reads, as before training"
            value = full.flatten(0, 1)
        result[key] = value.contiguous()
        report.used.append(ours)
    put_back_counters(result, extras)
    return result, report
