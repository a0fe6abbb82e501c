"""Which of our models the tensors of a file are of: its name and options, by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .common import require

# Blocks of the third and fourth stage of a ResNet of bottlenecks to its depth; of basic blocks,
# those of the second.
_DEPTHS = {(6, 3): "50", (23, 3): "101", (36, 3): "152"}
# Groups of the 3x3 convolutions and their channels in the first stage.
_RESNEXTS = {(32, 128): "32x4d", (32, 256): "32x8d", (64, 256): "64x4d"}
# What stands before the stages, theirs with a number at `#`, by the library.
_STAGES = {
    "detectron2": (r"(?:backbone\.bottom_up|backbone|roi_heads)\.res#", 2),
    "mmdetection": (r"backbone\.layer#", 1),
    "torchvision": (r"backbone\.body\.layer#", 1),
}
_NORMS = {True: "bn", False: "gn32"}  # by whether there are running statistics
# Parts of networks of the same libraries that do not come in, by the beginning of their names.
_ELSEWHERE = (
    (r"roi_heads\.box_predictor\.\d\.|(roi_head\.)?bbox_head\.\d\.", "a cascade"),
    (r"(sem_seg_head|semantic_head|roi_head\.semantic_head)\.", "panoptic segmentation or HTC"),
    (r"roi_heads\.mask_head\.(coarse|point)_head\.|roi_head\.point_head\.", "PointRend"),
    (r"roi_heads\.densepose", "DensePose"),
    (
        r"proposal_generator\.fcos_head\.|bbox_head\.conv_(cls|centerness)\.|"
        r"head\.regression_head\.bbox_ctrness\.",
        "FCOS",
    ),
    (r"bbox_head\.atss_", "ATSS"),
    (r"bbox_head\.gfl_", "GFL"),
    (r"bbox_head\.multi_level_", "YOLOX"),
    (r"(bbox_head\.)?transformer\.|.*\b(en|de)coder\.layers\.\d", "DETR or its kin"),
    (r"roi_head\.mask_iou_head\.|roi_heads\.maskiou_head\.", "Mask Scoring R-CNN"),
)


def refuse_strange(names: Iterable[str]) -> None:
    """Refuse the tensors of a network that these libraries have and we have not.

    Args:
        names: by which a library calls them.

    Raises:
        ValueError: naming the network, if one of its tensors is there.
    """
    for name in names:
        for pattern, what in _ELSEWHERE:
            if re.match(pattern, name):
                raise ValueError(
                    f"{name} is of {what}, which does not come in; docs/migrate.md lists what does"
                )


def find_backbone(state: Mapping[str, Tensor], source: str) -> str | None:
    """Return the name of our backbone whose stages a file has, None if there is none such.

    Args:
        state: tensors by the names of a library.
        source: the library.
    """
    pattern, first = _STAGES[source]
    counts, middles = [], []
    for number in range(4):
        stage = pattern.replace("#", str(number + first))
        blocks = re.compile(rf"^{stage}\.(\d+)\.conv2\.weight$")
        found = {int(m[1]): key for key in state if (m := blocks.match(key))}
        counts.append(len(found))
        middles.append(state[found[0]] if 0 in found else None)
    basic = not any(re.search(r"\.conv3\.weight$", key) for key in state)
    middle = middles[0]
    if middle is None:
        return None
    if basic:
        return {2: "resnet18", 6: "resnet34"}.get(counts[2])
    depth = _DEPTHS.get((counts[2], counts[3]))
    groups = middle.shape[0] // max(middle.shape[1], 1)
    if depth is None or groups == 1:
        return depth and f"resnet{depth}"
    kind = _RESNEXTS.get((groups, middle.shape[0]))
    return kind and f"resnext{depth}_{kind}"


def find_model(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]] | None:
    """Return our name of a detector and the options that its shapes tell.

    Args:
        state: tensors by the names of a library.
        source: the library: "detectron2", "mmdetection", "torchvision" or "amdegroot".

    Returns:
        The name, which need not be registered, for its backbone may be another; and the options,
        that of the backbone too. None if the tensors do not tell.
    """
    if source == "amdegroot" or any(key.startswith("backbone.features.") for key in state):
        return _find_ssd(state, source)
    backbone = find_backbone(state, source)
    if backbone is None:
        return None
    if source == "detectron2":
        kind, options = _of_detectron2(state)
    elif source == "mmdetection":
        kind, options = _of_mmdetection(state)
    else:
        kind, options = _of_torchvision(state)
    return kind.replace("#", backbone), {"backbone": backbone, **options}


def _find_ssd(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]] | None:
    if source == "torchvision":
        if "backbone.features.0.0.0.weight" in state:
            return "ssdlite320_mobilenet_v3_large", {}
        return "ssd300_vgg16", {}
    heads = "loc." if source == "amdegroot" else "bbox_head.reg_convs."
    maps = {key.removeprefix(heads).split(".")[0] for key in state if key.startswith(heads)}
    name = {6: "ssd300_vgg16", 7: "ssd512_vgg16"}.get(len(maps))
    return None if name is None else (name, {})


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many numbers stand at the group of a pattern of weights."""
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _norm(state: Mapping[str, Tensor], layer: str) -> str | None:
    """Return our name of the norm whose tensors begin so."""
    return _NORMS[f"{layer}running_mean" in state] if f"{layer}weight" in state else None


def _of_detectron2(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return our name, with `#` for the backbone, and options; see `find_model`."""
    options: dict[str, Any] = {}
    stems = ("backbone.bottom_up.stem.conv1.norm.", "backbone.stem.conv1.norm.")
    if any(f"{stem}num_batches_tracked" in state for stem in stems):
        options["norm"] = "bn"
    pyramid = state.get("backbone.fpn_output5.weight")
    if "head.cls_score.weight" in state and pyramid is not None:
        options["convs"] = _count(state, r"head\.cls_subnet\.(\d+)\.weight")
        options["width"] = pyramid.shape[0]
        return "retinanet_#_fpn", options
    fcs = _count(state, r"roi_heads\.box_head\.fc(\d)\.weight")
    if fcs:
        options["box_fcs"] = fcs
        options["box_width"] = require(state, "roi_heads.box_head.fc1.weight").shape[0]
    mask = "roi_heads.mask_head.predictor.weight" in state
    points = state.get("roi_heads.keypoint_head.conv_fcn1.weight")
    kind = "mask" if mask else "faster"
    if pyramid is None:
        return f"{kind}_rcnn_#_{'dc5' if fcs else 'c4'}", options
    options["width"] = pyramid.shape[0]
    options["fpn_norm"] = _norm(state, "backbone.fpn_output5.norm.")
    options["rpn_convs"] = (
        _count(state, r"proposal_generator\.rpn_head\.conv\.conv(\d)\.weight") or 1
    )
    options["box_convs"] = _count(state, r"roi_heads\.box_head\.conv(\d)\.weight")
    options["head_norm"] = _norm(state, "roi_heads.box_head.conv1.norm.") or _norm(
        state, "roi_heads.mask_head.mask_fcn1.norm."
    )
    if points is not None:
        kind = "mask_keypoint" if mask else "keypoint"
        options["keypoint_width"] = points.shape[0]
        options["keypoint_convs"] = _count(state, r"roi_heads\.keypoint_head\.conv_fcn(\d)\.weight")
    return f"{kind}_rcnn_#_fpn", options


def _of_mmdetection(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {"width": require(state, "neck.fpn_convs.0.conv.weight").shape[0]}
    if "bbox_head.retina_cls.weight" in state:
        options["convs"] = _count(state, r"bbox_head\.cls_convs\.(\d+)\.conv\.weight")
        return "retinanet_#_fpn", options
    head = "roi_head." if any(key.startswith("roi_head.") for key in state) else ""
    fcs = rf"{re.escape(head)}bbox_head\.shared_fcs\.(\d+)\.weight"
    options["box_fcs"] = _count(state, fcs)
    first = state.get(f"{head}bbox_head.shared_fcs.0.weight")
    if first is not None:
        options["box_width"] = first.shape[0]
    mask = f"{head}mask_head."
    if f"{mask}stage_instance_logits.0.weight" in state:
        return "refine_mask_fast_#_fpn", options
    if f"{mask}final_instance_logits.weight" in state:
        return "refine_mask_#_fpn", options
    return ("mask" if f"{mask}conv_logits.weight" in state else "faster") + "_rcnn_#_fpn", options


def _of_torchvision(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    second = "backbone.fpn.inner_blocks.0.1.weight" in state
    if any(key.startswith("head.classification_head.") for key in state):
        second = "head.classification_head.conv.0.1.weight" in state
        return "retinanet_#_fpn" + "_v2" * second, {}
    mask = "roi_heads.mask_predictor.mask_fcn_logits.weight" in state
    points = "roi_heads.keypoint_predictor.kps_score_lowres.weight" in state
    kind = "keypoint" if points else "mask" if mask else "faster"
    return f"{kind}_rcnn_#_fpn" + "_v2" * second, {}
