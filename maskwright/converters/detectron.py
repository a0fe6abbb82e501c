"""Detectron's files (`blobs`, of Caffe2), by detectron2's names, the background last.

The anchors of a cell go by ratio and then by size there, by size and then by ratio in detectron2.

What fine-tuning keeps beside the weights (`..._momentum`) is left aside. A frozen batch norm is a
factor and a summand there; here it gets a mean of 0 and a variance that makes its root 1. ImageNet
backbones of Caffe have the same names, and backbones of detectron2 those that follow from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .common import require

EPS = 1e-5  # of the norms
_RATIOS = 3  # of the anchors
MOMENTUM = "_momentum"
_ENDINGS = {"w": "weight", "b": "bias"}
_BRANCHES = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_BLOCK = re.compile(r"res(\d)_(\d+)_(branch\w+?)(_bn|_gn)?_([wsb])")
_STEM = re.compile(r"(?:conv1|res_conv1_(bn|gn))_([wsb])")
# Names without their ending, `#` for a number that is kept; see `converters.common.renamed`.
_LAYERS = [
    (r"fpn_inner_res(\d)_\d+_sum_lateral", r"backbone.fpn_lateral\1"),
    (r"fpn_inner_res(\d)_\d+_sum", r"backbone.fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum", r"backbone.fpn_output\1"),
    (r"conv_rpn(?:_fpn2)?", "proposal_generator.rpn_head.conv"),
    (r"rpn_cls_logits(?:_fpn2)?", "proposal_generator.rpn_head.objectness_logits"),
    (r"rpn_bbox_pred(?:_fpn2)?", "proposal_generator.rpn_head.anchor_deltas"),
    (r"fc6", "roi_heads.box_head.fc1"),
    (r"fc7", "roi_heads.box_head.fc2"),
    (r"head_conv(\d)", r"roi_heads.box_head.conv\1"),
    (r"cls_score", "roi_heads.box_predictor.cls_score"),
    (r"bbox_pred", "roi_heads.box_predictor.bbox_pred"),
    (r"_\[mask\]_fcn(\d)", r"roi_heads.mask_head.mask_fcn\1"),
    (r"conv5_mask", "roi_heads.mask_head.deconv"),
    (r"mask_fcn_logits", "roi_heads.mask_head.predictor"),
    (r"conv_fcn(\d)", r"roi_heads.keypoint_head.conv_fcn\1"),
    (r"kps_score_lowres", "roi_heads.keypoint_head.score_lowres"),
]
_LAYER = re.compile(r"(.+?)(_gn)?_([wsb])")
# A tensor of a backbone by detectron2's names, without what stands before them in a detector.
_BODY = re.compile(r"(?:stem|res(\d)\.(\d+))\.(conv|shortcut)(\d?)\.(norm\.)?(\w+)")


def body_name(name: str) -> str | None:
    """Return the name that a blob of a backbone has in detectron2, None for any other blob.

    Examples:
        >>> body_name("res2_0_branch2a_bn_s"), body_name("conv1_w"), body_name("fc6_w")
        ('res2.0.conv1.norm.weight', 'stem.conv1.weight', None)
    """
    if match := _STEM.fullmatch(name):
        norm, ending = match.groups()
        at = "stem.conv1"
    elif (match := _BLOCK.fullmatch(name)) and match[3] in _BRANCHES:
        stage, block, branch, norm, ending = match.groups()
        at = f"res{stage}.{block}.{_BRANCHES[branch]}"
    else:
        return None
    return f"{at}.{_ended(norm, ending)}"


def _ended(norm: str | None, ending: str) -> str:
    return f"norm.{'weight' if ending == 's' else 'bias'}" if norm else _ENDINGS.get(ending, ending)


def _layer_name(name: str) -> str | None:
    match = _LAYER.fullmatch(name)
    if match is None:
        return None
    layer, norm, ending = match.groups()
    for pattern, theirs in _LAYERS:
        if found := re.fullmatch(pattern, layer):
            return f"{found.expand(theirs)}.{_ended(norm, ending)}"
    return None


def body_to_detectron2(blobs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a backbone by detectron2's names without prefixes; others are left out.

    Args:
        blobs: tensors by Caffe2's names.
    """
    found = {}
    for key, value in blobs.items():
        name = body_name(key)
        # The convolution before a norm has a bias of zeros in some files.
        if name is not None and not (name.endswith(".bias") and "norm" not in name):
            found[name] = value
    return with_statistics(found)


def is_body(name: str) -> bool:
    """Whether a tensor is one of a backbone, by Caffe2's names or detectron2's."""
    return body_name(name) is not None or _BODY.fullmatch(name) is not None


def body_to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a backbone by torchvision's names, which are ours; others are left out.

    Args:
        state: tensors of which `is_body` knows some.
    """
    if any(body_name(key) is not None for key in state):
        state = body_to_detectron2(state)
    found = {}
    for key, value in with_statistics(state).items():
        match = _BODY.fullmatch(key)
        if match is None:
            continue
        stage, block, kind, number, norm, ending = match.groups()
        if kind == "shortcut":
            layer = f"downsample.{1 if norm else 0}"
        else:
            layer = f"{'bn' if norm else 'conv'}{number}"
        at = "" if stage is None else f"layer{int(stage) - 1}.{block}."
        found[f"{at}{layer}.{ending}"] = value
    return found


def with_statistics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with the mean and variance of the norms that are factor and summand alone."""
    full = dict(state)
    for key, value in state.items():
        norm = key.removesuffix("weight")
        if re.search(r"(^|\.)(stem|res\d\.\d+)\.\w+\.norm\.weight$", key):
            full.setdefault(f"{norm}running_mean", torch.zeros_like(value))
            full.setdefault(f"{norm}running_var", torch.ones_like(value) - EPS)
    return full


class Renamed(NamedTuple):
    """Tensors by other names.

    Attributes:
        tensors: by their new names.
        origins: new name to the one that the tensor had; those that are made have none.
        ignored: names of those that are left aside, each with the reason.
        conventions: the rules that the former names tell, see `models.conventions`.
    """

    tensors: dict[str, Tensor]
    origins: dict[str, str]
    ignored: dict[str, str]
    conventions: str | None = None


# What detectron2 matches by the end of a name (`matching_heuristics`), and what stands before it.
_ENDS = [
    (r"(fpn_(lateral|output)\d|top_block)\.", "backbone."),
    (r"rpn_head\.", "proposal_generator."),
    (r"(box|mask|keypoint)_head\.|box_predictor\.", "roi_heads."),
    (r"(cls|bbox)_subnet\.|cls_score\.|bbox_pred\.", "head."),
]


def completed(state: Mapping[str, Tensor]) -> Renamed | None:
    """Return the tensors of a detector by detectron2's whole names, None: they have them already.

    Args:
        state: tensors by detectron2's names, with or without what stands before them.
    """
    pyramid = any("fpn_lateral" in key for key in state)
    full = any(key.endswith("box_head.fc1.weight") for key in state)
    origins: dict[str, str] = {}
    for key in state:
        prefix = next((before for end, before in _ENDS if re.match(end, key)), "")
        if _BODY.fullmatch(key):
            on_regions = key.startswith("res5.") and not pyramid and not full
            prefix = "roi_heads." if on_regions else "backbone." + "bottom_up." * pyramid
        origins[prefix + key] = key
    if all(name == key for name, key in origins.items()):
        return None
    return Renamed({name: state[key] for name, key in origins.items()}, origins, {})


def to_detectron2(blobs: Mapping[str, Tensor]) -> Renamed:
    """Return the tensors of a detector by detectron2's names, the background last.

    Args:
        blobs: tensors by Caffe2's names.

    Raises:
        ValueError: if one has no counterpart.
    """
    pyramid = any(key.startswith("fpn_") for key in blobs)
    full = "fc6_w" in blobs
    found: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for key, value in blobs.items():
        if key.endswith(MOMENTUM):
            ignored[key] = "what the optimiser kept"
            continue
        name = body_name(key)
        if name is not None:
            on_regions = name.startswith("res5.") and not pyramid and not full
            prefix = "backbone.bottom_up." if pyramid else "backbone."
            name = ("roi_heads." if on_regions else prefix) + name
            if name.endswith(".bias") and ".norm." not in name:
                if value.any():
                    raise ValueError(f"{key}: the convolution before a norm has a bias")
                ignored[key] = "a bias of zeros before a norm"
                continue
        else:
            name = _layer_name(key)
        if name is None:
            raise ValueError(
                f"{key} is no tensor of a model that Detectron and maskwright both have"
            )
        found[name] = value
        origins[name] = key
    predictor, masks = "roi_heads.box_predictor.", "roi_heads.mask_head.predictor."
    rpn = "proposal_generator.rpn_head."
    require(found, f"{predictor}cls_score.weight")
    for key, value in found.items():
        if key.startswith(f"{predictor}cls_score."):
            found[key] = value.roll(-1, 0)
        elif key.startswith(f"{predictor}bbox_pred."):
            found[key] = value[4:]
        elif key.startswith(masks):
            found[key] = value[1:]
        elif key.startswith((f"{rpn}objectness_logits.", f"{rpn}anchor_deltas.")):
            found[key] = _by_size(value, 4 if "deltas" in key else 1)
    rules = "detectron" if pyramid else "detectron_c4"
    return Renamed(with_statistics(found), origins, ignored, rules)


def _by_size(rows: Tensor, each: int) -> Tensor:
    """Return rows of the anchors of a cell, by ratio and then by size, as detectron2 has them.

    Args:
        rows: (ratios * sizes * each, ...).
        each: rows of an anchor.
    """
    if rows.shape[0] % (_RATIOS * each):
        return rows  # of other ratios: the shapes are refused later
    cells: Tensor = rows.unflatten(0, (_RATIOS, -1, each))
    return cells.transpose(0, 1).flatten(0, 2)
