"""Our operators in ONNX: RoIAlign and NMS as the standard `RoiAlign` and `NonMaxSuppression`.

The functions here are translations for `torch.onnx.export`: they take and return values of the
graph under construction. Kept sets and their order are those of `ops.nms_padded`: the standard
operator suppresses per class, its survivors are then sorted by score with equal scores by
position, as ONNX defines TopK.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import nms, roi_align, roi_pool  # noqa: F401  (registers the operators)

# A score below all scores; what stands at or under half of it is no candidate.
_LOWEST = -1e30
# Corners of a box that lies beside every map, where RoIAlign gives zeros.
_OUTSIDE = [-1e6, -1e6, -1e6 + 1, -1e6 + 1]


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the translation of each of our operators that ONNX has as a standard one."""
    ours = torch.ops.maskwright
    return {
        ours.roi_align.default: _roi_align,
        ours.roi_pool.default: _roi_pool,
        ours.nms_padded.default: _nms_padded,
    }


def _roi_align(
    features: Sequence[Any],
    boxes: Any,
    batch_index: Any,
    levels: Any,
    strides: Sequence[int],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    from onnxscript import opset18 as op

    def pool(level: int, rois: Any, image: Any) -> Any:
        return op.RoiAlign(
            features[level],
            rois,
            image,
            # Both shift by half a pixel or not at all; "output" refers to the sampled grid.
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=1.0 / strides[level],
        )

    if len(features) == 1:
        # A box of no level gives zeros; moving it is less work than clearing its output.
        inside = op.Unsqueeze(op.Equal(levels, _integers(0)), _integers([1]))
        return pool(0, op.Where(inside, boxes, _floats([_OUTSIDE])), batch_index)
    # Level by level, each box on its own: pooling all boxes from all maps costs a multiple.
    parts, places = [], []
    for level in range(len(features)):
        place = op.Squeeze(op.NonZero(op.Equal(levels, _integers(level))), _integers([0]))
        parts.append(pool(level, op.Gather(boxes, place), op.Gather(batch_index, place)))
        places.append(place)
    place = op.Concat(*places, axis=0)
    found = op.Shape(place)
    # A row of zeros behind all parts serves the boxes of no level.
    channels = op.Shape(features[0], start=1, end=2)
    blank = op.Concat(_integers([1]), channels, _integers(list(output_size)), axis=0)
    rows = op.Concat(*parts, op.Expand(_floats(0.0), blank), axis=0)
    row = op.Range(_integers(0), op.Squeeze(found), _integers(1))
    at = op.ScatterElements(op.Expand(found, op.Shape(levels)), place, row, axis=0)
    return op.Gather(rows, at, axis=0)


def _roi_pool(
    features: Any,
    boxes: Any,
    batch_index: Any,
    stride: int,
    output_size: Sequence[int],
    with_argmax: bool,
) -> tuple[Any, Any]:
    from onnx import TensorProto
    from onnxscript import opset18 as op

    image = op.Cast(op.Unsqueeze(batch_index, _integers([1])), to=TensorProto.FLOAT)
    rois = op.Concat(image, boxes, axis=1)
    pooled = op.MaxRoiPool(
        features, rois, pooled_shape=list(output_size), spatial_scale=1.0 / stride
    )
    return pooled, op.Cast(op.Shape(rois, end=0), to=TensorProto.INT32)  # nobody reads it


def _nms_padded(
    boxes: Any, scores: Any, valid: Any, iou_thresh: float, max_out: int, labels: Any = None
) -> tuple[Any, Any]:
    from onnxscript import opset18 as op

    lowest, least = _floats(_LOWEST), _floats(_LOWEST / 2)
    key = op.Where(valid, scores, lowest)  # (B, N)
    per_label = op.Unsqueeze(key, _integers([1]))  # (B, labels, N)
    if labels is not None:
        count = op.Add(op.ReduceMax(labels, keepdims=0), _integers(1))
        each = op.Unsqueeze(op.Range(_integers(0), count, _integers(1)), _integers([0, 2]))
        own = op.Equal(op.Unsqueeze(labels, _integers([1])), each)
        per_label = op.Where(own, per_label, lowest)
    found = op.NonMaxSuppression(
        boxes,
        per_label,
        _integers([max_out]),
        _floats([iou_thresh]),
        op.Unsqueeze(least, _integers([0])),
    )  # (n, 3): image, label, position
    at = op.Gather(found, _integers([0, 2]), axis=1)
    ones = op.Expand(_floats(1.0), op.Shape(found, end=1))
    kept = op.ScatterND(op.Expand(_floats(0.0), op.Shape(scores)), at, ones)
    key = op.Where(op.Greater(kept, _floats(0.5)), key, lowest)
    # There may be fewer boxes than slots.
    extra = op.Concat(op.Shape(scores, end=1), _integers([max_out]), axis=0)
    key = op.Concat(key, op.Expand(lowest, extra), axis=1)
    top, index = op.TopK(key, _integers([max_out]), axis=1)
    filled = op.Greater(top, least)
    return op.Where(filled, index, _integers(0)), filled


def _integers(value: int | list[int]) -> Any:
    from onnxscript import opset18 as op

    kind = {"value_int": value} if isinstance(value, int) else {"value_ints": value}
    return op.Constant(**kind)


def _floats(value: float | list[Any]) -> Any:
    import numpy as np
    from onnx.numpy_helper import from_array
    from onnxscript import opset18 as op

    return op.Constant(value=from_array(np.array(value, np.float32)))
