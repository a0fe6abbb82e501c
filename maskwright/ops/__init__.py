"""Pure tensor functions: boxes, NMS, RoI pooling, masks. No modules, no options objects."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "boxes": (
        "box_area",
        "box_ioa",
        "box_iou",
        "clip_boxes",
        "complete_box_iou",
        "decode_deltas",
        "distance_box_iou",
        "encode_deltas",
        "generalized_box_iou",
    ),
    "masks": ("crop_masks", "paste_masks", "paste_rle"),
    "nms": ("batched_nms", "nms", "nms_padded"),
    "roi_align": ("roi_align",),
    "roi_pool": ("roi_pool",),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
# `maskwright.ops.roi_align` is the function of the contract; the package attribute must not be
# replaced by the submodule of the same name once that is imported, hence the assignment below.
__all__ = sorted(_NAMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
