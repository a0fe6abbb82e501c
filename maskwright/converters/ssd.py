"""SSD and SSDLite of torchvision, SSD of ssd.pytorch ("amdegroot") and of mmdetection.

All have a layer for each map whose rows go by box and then by class, the background first, in
mmdetection from version 2 on last; here they go by class and then by box, the background last. All
else are names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .common import (
    COCO_91_NAMES,
    Converted,
    ConvertReport,
    kept_classes,
    renamed,
    require,
    rows_of_classes,
)

_VOC = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,"
    "person,pottedplant,sheep,sofa,train,tvmonitor"
)
# Default boxes of ssd.pytorch on Pascal VOC by the number of maps; those on COCO are ours.
_VOC_SIZES = {
    6: (30, 60, 111, 162, 213, 264, 315),
    7: (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6),
}
_LAST = re.compile(r"head\.logits\.(\d+)\.(1\.)?(weight|bias)")  # whose rows are classes
_BODY = re.compile(r"backbone\.body\.features\.(\d+)\.")
_EXTRA = re.compile(r"fpn\.extras\.(\d+)\.(\d+)\.")
_POOL4 = 23  # of VGG-16: what lies behind is no longer in torchvision's `features`
_EXPANDED = 13  # the block of MobileNetV3 whose expansion is a map
_SILENT = -1e4  # the bias of a class that nobody trained
# Our beginnings of names and theirs, where no numbers change; see `renamed`.
_TORCHVISION = [
    ("fpn.scale", "backbone.scale_weight"),
    ("fpn.fc6.", "backbone.extra.0.7.1."),
    ("fpn.fc7.", "backbone.extra.0.7.3."),
    ("head.logits.#.", "head.classification_head.module_list.#."),
    ("head.deltas.#.", "head.regression_head.module_list.#."),
]
_MMDETECTION = [
    ("backbone.body.features.#.", "backbone.features.#."),
    ("fpn.scale", "neck.l2_norm.weight"),
    ("fpn.fc6.", "backbone.features.31."),
    ("fpn.fc7.", "backbone.features.33."),
    ("head.logits.#.", "bbox_head.cls_convs.#.0."),
    ("head.deltas.#.", "bbox_head.reg_convs.#.0."),
]
# Shares of the input, in percent, between which the default boxes of mmdetection lie, by the number
# of maps: on COCO and on Pascal VOC; and those of the first map.
_MM_SHARES = {6: (15, 20), 7: (10, 15)}
_MM_FIRST = {(6, 15): 7, (6, 20): 10, (7, 10): 4, (7, 15): 7}
# Before its version 2.14 the extra layers stood in one row.
_MM_OLDER = re.compile(r"backbone\.extra\.(\d+)\.(\w+)|bbox_head\.(cls|reg)_convs\.(\d+)\.(\w+)")
_AMDEGROOT = [
    ("backbone.body.features.#.", "vgg.#."),
    ("fpn.scale", "L2Norm.weight"),
    ("fpn.fc6.", "vgg.31."),
    ("fpn.fc7.", "vgg.33."),
    ("head.logits.#.", "conf.#."),
    ("head.deltas.#.", "loc.#."),
]


def is_ssd(names: Iterable[str]) -> bool:
    """Whether tensors are those of an SSD, by our names or torchvision's."""
    mark = re.compile(r"head\.(logits|classification_head\.module_list)\.0\.(1\.)?weight")
    return any(mark.fullmatch(name) for name in names)


def torchvision_name(name: str, *, lite: bool) -> str:
    """Return torchvision's name of our tensor.

    Args:
        name: ours.
        lite: of its SSDLite on MobileNetV3, else of its SSD300 on VGG-16.

    Raises:
        ValueError: if it has no such tensor.
    """
    if match := _BODY.match(name):
        number, rest = int(match[1]), name[match.end() :]
        if not lite:
            behind = f"extra.0.{number - _POOL4}." if number > _POOL4 else f"features.{number}."
            return f"backbone.{behind}{rest}"
        if number == _EXPANDED and rest.startswith("block.0."):
            return f"backbone.features.0.{number}.{rest.removeprefix('block.0.')}"
        if number < _EXPANDED:
            return f"backbone.features.0.{number}.{rest}"
        if number == _EXPANDED:
            return f"backbone.features.1.0.{rest.removeprefix('block.')}"
        return f"backbone.features.1.{number - _EXPANDED}.{rest}"
    if match := _EXTRA.match(name):
        return f"backbone.extra.{int(match[1]) + (not lite)}.{match[2]}.{name[match.end() :]}"
    if (found := renamed(name, _TORCHVISION)) is not None:
        return found
    raise ValueError(f"torchvision's SSD has no counterpart of {name!r}")


def amdegroot_name(name: str) -> str:
    """Return ssd.pytorch's name of our tensor.

    Raises:
        ValueError: if it has no such tensor.
    """
    if match := _EXTRA.match(name):  # its ReLUs are not counted
        return f"extras.{2 * int(match[1]) + int(match[2]) // 2}.{name[match.end() :]}"
    if (found := renamed(name, _AMDEGROOT)) is not None:
        return found
    raise ValueError(f"ssd.pytorch has no counterpart of {name!r}")


def mmdetection_name(name: str) -> str:
    """Return mmdetection's name of our tensor.

    Raises:
        ValueError: if it has no such tensor.
    """
    if match := _EXTRA.match(name):
        place = int(match[2]) // 2
        return f"neck.extra_layers.{match[1]}.{place}.conv.{name[match.end() :]}"
    if (found := renamed(name, _MMDETECTION)) is not None:
        return found
    raise ValueError(f"mmdetection's SSD has no counterpart of {name!r}")


def modern_mmdetection(name: str) -> str:
    """Return the name that a tensor of mmdetection's SSD has from version 2.14 on."""
    if name == "backbone.l2_norm.weight":
        return "neck.l2_norm.weight"
    match = _MM_OLDER.fullmatch(name)
    if match is None:
        return name
    if match[1] is not None:
        pair, place = divmod(int(match[1]), 2)
        return f"neck.extra_layers.{pair}.{place}.conv.{match[2]}"
    return f"bbox_head.{match[3]}_convs.{match[4]}.0.{match[5]}"


def _namer(names: Iterable[str], library: str) -> Callable[[str], str]:
    """Return what gives a library's names of our tensors.

    Raises:
        ValueError: if it has no SSD on such a backbone.
    """
    names = set(names)
    lite = "fpn.scale" not in names
    last = "features.16.0.weight" if lite else "features.28.weight"
    if f"backbone.body.{last}" not in names or (lite and library != "torchvision"):
        other = " and SSDLite on MobileNetV3" if library == "torchvision" else ""
        raise ValueError(f"{library} has SSD on VGG-16{other}, on no other backbone")
    if library != "torchvision":
        return amdegroot_name if library == "amdegroot" else mmdetection_name
    return lambda name: torchvision_name(name, lite=lite)


def _to_ours(
    state: Mapping[str, Tensor],
    our_names: list[str],
    library: str,
    names: list[str | None] | None,
    drop_unused: bool,
    *,
    background_last: bool = False,
) -> Converted:
    report = ConvertReport()
    theirs = _namer(our_names, library)
    boxes = _boxes(state, our_names, theirs)
    rows = _rows(state, our_names, theirs, boxes)
    if names is None:
        named: dict[int, list[str | None]] = {
            91: list(COCO_91_NAMES),
            81: [name for name in COCO_91_NAMES if name is not None],
            21: list(_VOC.split(",")),
        }
        usual = library != "torchvision" or rows == 91
        unknown: list[str | None] = [f"class_{number}" for number in range(1, rows)]
        names = named.get(rows, unknown) if usual else unknown
    keep = kept_classes(names, rows, drop_unused, report)
    order = torch.tensor([*(i + 1 for i in keep), 0])  # the background last
    if background_last:
        order = torch.tensor([*keep, rows - 1])
    converted: dict[str, Tensor] = {}
    for ours in our_names:
        key = theirs(ours)
        value = require(state, key)
        report.used.append(key)
        if _LAST.fullmatch(ours):
            value = value.unflatten(0, (-1, rows))[:, order].transpose(0, 1).flatten(0, 1)
        converted[ours] = value.contiguous()
    for key in sorted(set(state) - set(report.used)):
        raise ValueError(f"{key} is no tensor of this SSD: the file is of a network that has more")
    options: dict[str, Any] = {"conventions": "torchvision"}
    if library == "mmdetection":
        options["conventions"] = "mmdetection" if background_last else "mmdetection_v1"
        if rows == 21 or len(boxes) == 7:  # the others are ours
            share, side = _MM_SHARES[len(boxes)][rows == 21], 512 if len(boxes) == 7 else 300
            options["anchor_sizes"] = mmdetection_sizes(side, share, 90)
            if rows == 21:
                report.notes.append(
                    "20 classes: default boxes of Pascal VOC, unless the file has a configuration"
                )
    tail = "backbone.features.1.3.0.weight"
    if tail in state and state[tail].shape[0] == 480:
        options["reduced_tail"] = True
    if library == "amdegroot" and rows == 21 and len(boxes) in _VOC_SIZES:
        options["anchor_sizes"] = _VOC_SIZES[len(boxes)]
    kept, ids = [names[i] for i in keep], [i + 1 for i in keep]
    return Converted(converted, options, kept, ids, {}, report)


def mmdetection_sizes(side: int, low: int, high: int) -> tuple[int, ...] | None:
    """Return the sides of default boxes as its SSD cuts them to whole pixels, None: unknown ones.

    Args:
        side: of the input, 300 or 512.
        low: the smallest share of it behind the first map, percent.
        high: the largest share.

    Examples:
        >>> mmdetection_sizes(300, 15, 90)
        (21, 45, 99, 153, 207, 261, 315)
    """
    maps = {300: 6, 512: 7}.get(side, 0)
    first = _MM_FIRST.get((maps, low))
    if first is None or not low < high:
        return None
    step = (high - low) // (maps - 2)
    shares = [first, *(low + i * step for i in range(maps))]
    return tuple(side * share // 100 for share in shares)


def _boxes(
    state: Mapping[str, Tensor], our_names: list[str], theirs: Callable[[str], str]
) -> dict[str, int]:
    """Return the default boxes of a cell of each map, by its number."""
    layers = [re.fullmatch(r"head\.deltas\.(\d+)\.(?:1\.)?weight", name) for name in our_names]
    return {match[1]: require(state, theirs(match[0])).shape[0] // 4 for match in layers if match}


def _rows(
    state: Mapping[str, Tensor],
    our_names: list[str],
    theirs: Callable[[str], str],
    boxes: Mapping[str, int],
) -> int:
    """Return how many classes the layers have, with the background.

    Raises:
        ValueError: if they do not agree.
    """
    found: dict[str, float] = {}
    for name in our_names:
        match = re.fullmatch(r"head\.logits\.(\d+)\.(?:1\.)?weight", name)
        if match:
            key = theirs(name)
            found[key] = require(state, key).shape[0] / max(boxes[match[1]], 1)
    rows = set(found.values())
    if len(rows) != 1 or (count := rows.pop()) < 2 or count != int(count):
        told = ", ".join(f"{key}: {value:g}" for key, value in found.items())
        raise ValueError(f"the layers of the maps have not the same number of classes: {told}")
    return int(count)


def mmdetection_to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    names: list[str | None] | None,
    *,
    background_last: bool,
) -> Converted:
    """Convert mmdetection's weights of SSD; see `mmdetection.to_maskwright`."""
    state = {modern_mmdetection(key): value for key, value in state.items()}
    return _to_ours(state, our_names, "mmdetection", names, False, background_last=background_last)


def mmdetection_from_maskwright(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights of SSD to those of mmdetection 2.14 and later."""
    report = ConvertReport(used=list(state))
    theirs = _namer(state, "mmdetection")
    result: dict[str, Tensor] = {}
    for ours, value in state.items():
        if match := _LAST.fullmatch(ours):
            boxes = state[f"head.deltas.{match[1]}.bias"].shape[0] // 4
            value = value.unflatten(0, (-1, boxes)).transpose(0, 1).flatten(0, 1)
        result[theirs(ours)] = value.contiguous()
    return result, report


def _from_ours(
    state: Mapping[str, Tensor], category_ids: list[int], library: str
) -> tuple[dict[str, Tensor], ConvertReport]:
    report = ConvertReport()
    theirs = _namer(state, library)
    ids = rows_of_classes(category_ids, report)
    rows = int(ids.max()) + 1
    missing = torch.ones(rows, dtype=torch.bool)
    missing[ids], missing[0] = False, False
    classes = len(ids) + 1
    result: dict[str, Tensor] = {}
    for ours, value in state.items():
        key = theirs(ours)
        if _LAST.fullmatch(ours):
            given = value.unflatten(0, (classes, -1)).transpose(0, 1)  # (A, classes, ...)
            full = value.new_zeros((given.shape[0], rows, *value.shape[1:]))
            full[:, ids], full[:, 0] = given[:, :-1], given[:, -1]
            if missing.any():
                if ours.endswith("bias"):
                    full[:, missing] = _SILENT
                text = f"{int(missing.sum())} unused classes, with a bias that keeps them silent"
                report.filled[key] = text
            value = full.flatten(0, 1)
        result[key] = value.contiguous()
        report.used.append(ours)
    return result, report


def torchvision_to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
) -> Converted:
    """Convert torchvision's weights of SSD; see `torchvision.to_maskwright`."""
    return _to_ours(state, our_names, "torchvision", names, drop_unused)


def torchvision_from_maskwright(
    state: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights of SSD to torchvision's; see `torchvision.from_maskwright`."""
    return _from_ours(state, category_ids, "torchvision")


def to_maskwright(
    state: Mapping[str, Tensor],
    our_names: list[str],
    *,
    drop_unused: bool = False,
    names: list[str | None] | None = None,
    conventions: str | None = None,
) -> Converted:
    """Convert ssd.pytorch's weights; see `torchvision.to_maskwright`.

    Class names of files of Pascal VOC and COCO are known, and the default boxes of both.
    """
    return _to_ours(state, our_names, "amdegroot", names, drop_unused)


def from_maskwright(
    state: Mapping[str, Tensor], extras: Mapping[str, Tensor], category_ids: list[int]
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to ssd.pytorch's names; see `torchvision.from_maskwright`."""
    return _from_ours(state, category_ids, "amdegroot")
