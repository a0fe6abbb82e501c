"""What another library must be told, so that weights of ours find there what they find here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..models.base import Model


def settings_there(model: Model, target: str) -> list[str]:
    """Return settings of a library in its own words; [] for one that has none to make.

    Args:
        model: of ours, whose weights go there.
        target: the library: "detectron2", "mmdetection" or "torchvision".
    """
    tell = _TELLERS.get(target)
    return [] if tell is None else tell(model)


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{float(value):g}" for value in values) + "]"


def _pooling(model: Any) -> tuple[int, bool] | None:
    """Return samples and alignment of a model's RoIAlign, None without one."""
    pooler: Any = getattr(getattr(model, "roi_heads", None), "pooler", None)
    if not hasattr(pooler, "aligned"):
        return None
    return pooler.sampling_ratio, pooler.aligned


def _anchor_sides(model: Any) -> list[list[float]]:
    """Return the sides of the anchors of each level: of the squares, or the roots of areas.

    Those of others are off where corners or sides are rounded.
    """
    source = model.rpn if hasattr(model, "rpn") else model.head
    levels = []
    for number in range(len(source.anchors.per_level)):
        cell = source.anchors.get_buffer(f"cell{number}")
        if cell.shape[1] != 4:
            return []
        sides = cell[:, 2:] - cell[:, :2]
        squares = sides[(sides[:, 0] - sides[:, 1]).abs() < 0.01]
        areas = (sides if not len(squares) else squares).prod(1)
        levels.append(sorted({round(float(area) ** 0.5, 1) for area in areas}))
    return levels


def _detectron2(model: Any) -> list[str]:
    first = model.backbone.body.layer2[0].conv1
    found = [
        f"INPUT.FORMAT {'BGR' if model.bgr else 'RGB'}",
        f"MODEL.PIXEL_MEAN {_numbers(model.mean.flatten())}",
        f"MODEL.PIXEL_STD {_numbers(model.std.flatten())}",
        f"MODEL.RESNETS.STRIDE_IN_1X1 {first.kernel_size == (1, 1) and first.stride == (2, 2)}",
        f"MODEL.ANCHOR_GENERATOR.SIZES {_anchor_sides(model)}",
    ]
    if model.resize.short is not None:
        found += [
            f"INPUT.MIN_SIZE_TEST {model.resize.short}",
            f"INPUT.MAX_SIZE_TEST {model.resize.long}",
        ]
    if (pooling := _pooling(model)) is not None:
        ratio, aligned = pooling
        found.append(f"MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO {ratio}")
        found.append(f"MODEL.ROI_BOX_HEAD.POOLER_TYPE {'ROIAlignV2' if aligned else 'ROIAlign'}")
    return found


def _mmdetection(model: Any) -> list[str]:
    found = [
        f"data_preprocessor mean={_numbers(model.mean.flatten())}",
        f"std={_numbers(model.std.flatten())}",
        f"bgr_to_rgb={not model.bgr}",
        f"anchors of {_anchor_sides(model)} pixels",
    ]
    if model.resize.short is not None:
        found.append(f"Resize scale=({model.resize.long}, {model.resize.short})")
    if (pooling := _pooling(model)) is not None:
        found.append(f"RoIAlign sampling_ratio={pooling[0]} aligned={pooling[1]}")
    return found


def _torchvision(model: Any) -> list[str]:
    mean, std = ([float(v) / 255 for v in values.flatten()] for values in (model.mean, model.std))
    found = [f"image_mean={_numbers(mean)}", f"image_std={_numbers(std)}"]
    eps = getattr(getattr(model.backbone.body, "bn1", None), "eps", 1e-5)
    if eps != 1e-5:
        found.append(f"FrozenBatchNorm2d eps={eps:g}")
    if model.bgr:
        found.append("images with blue first")
    if model.resize.short is not None:
        found += [f"min_size={model.resize.short}", f"max_size={model.resize.long}"]
    found.append(f"anchors of {_anchor_sides(model)} pixels")
    if (pooling := _pooling(model)) is not None:
        found.append(f"MultiScaleRoIAlign sampling_ratio={pooling[0]}")
    return found


_TELLERS: dict[str, Callable[[Any], list[str]]] = {
    "detectron2": _detectron2,
    "mmdetection": _mmdetection,
    "torchvision": _torchvision,
}
