"""Moving between fixed slots (B, K) and the list of slots that are worth computing.

Eager code works on the valid slots only; compiled and exported graphs need shapes that do not
depend on data, so there every slot counts as worth computing and the losses mask the empty ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Where an image has fewer proposals than this for each object found in it, and one of the last
# tenth of them still gave an object, those that a limit left out may have given more.
PER_OBJECT = 10
# Objects of smaller scores are many in every image, and say nothing of how many there are.
GOOD_SCORE = 0.25


def last_tenth(count: int) -> int:
    """Return the first place of the last tenth of `count` places."""
    return count - -(-count // 10)


def gather_slots(values: Tensor, index: Tensor) -> Tensor:
    """Pick slots per image.

    Args:
        values: (B, N) or (B, N, D).
        index: (B, S) int64.

    Returns:
        (B, S) or (B, S, D).
    """
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def with_area(boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return an order of slots that has the valid ones with an area first, and which these are.

    Args:
        boxes: (B, N, 4) xyxy.
        valid: (B, N) bool.

    Returns:
        index (B, N) int64, otherwise in the order that was; valid (B, N) bool of these.
    """
    kept = valid & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    count = kept.shape[1]
    index = (kept.long() * count - torch.arange(count, device=kept.device)).topk(count, 1)[1]
    return index, kept.gather(1, index)


def active_slots(valid: Tensor) -> Tensor:
    """Return the flat positions (R,) of the slots to compute: the valid ones, or all in a graph.

    Args:
        valid: (B, K) bool.
    """
    if torch.compiler.is_compiling():
        return torch.arange(valid.numel(), device=valid.device)
    return valid.flatten().nonzero()[:, 0]


def take(values: Tensor, rows: Tensor) -> Tensor:
    """Return the rows (R, ...) at flat positions `rows` of (B, K, ...)."""
    return values.flatten(0, 1)[rows]


def put_back(values: Tensor, rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return (B, K, ...) with `values` (R, ...) at flat positions `rows`, zeros elsewhere."""
    full = values.new_zeros((shape[0] * shape[1], *values.shape[1:]))
    # In place: as many slots as a caller asks for may be gigabytes of masks.
    return full.index_copy_(0, rows, values).reshape(*shape, *values.shape[1:])


def in_parts(run: Callable[..., list[Tensor]], size: int, *values: Tensor) -> list[Tensor]:
    """Run a head on a few regions at a time, to bound its memory where that may be done.

    With gradients all of it is kept in any case, and in a graph the number of parts would depend
    on data: there it runs once.

    Args:
        run: takes slices of `values`, returns tensors (r, ...).
        size: regions of a part.
        *values: (R, ...) each.

    Returns:
        What `run` returns for all regions, (R, ...) each.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or len(values[0]) <= size:
        return run(*values)
    parts = [run(*part) for part in zip(*(v.split(size) for v in values), strict=True)]
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def least(a: Any, b: Any) -> Any:
    """Return the smaller of two sizes, which in a graph for images of any size may be symbols."""
    # torch 2.9 compiles the one for numbers alone, and traces the other for symbols alone.
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else torch.sym_min(a, b)


def most(a: Any, b: Any) -> Any:
    """Return the larger of two sizes; see `least`."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else torch.sym_max(a, b)


def covered_pixels(boxes: Tensor, counted: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Return which pixels of a map have their centre in a box.

    Args:
        boxes: (B, K, 4) xyxy, padded-image pixels.
        counted: (B, K) bool, which of them count.
        size: (h, w) of the map.
        stride: image pixels from one pixel of the map to the next.

    Returns:
        (B, h, w) bool.
    """
    y, x = ((torch.arange(side, device=boxes.device) + 0.5) * stride for side in size)
    x1, y1, x2, y2 = boxes.unbind(-1)
    rows = (y >= y1[..., None]) & (y < y2[..., None]) & counted[..., None]
    columns = (x >= x1[..., None]) & (x < x2[..., None])
    return (rows.mT.float() @ columns.float()) > 0


def read_pixels(boxes: Tensor, batch_index: Tensor, shape: Sequence[int], stride: int) -> Tensor:
    """Return which pixels of maps are read for regions, with one to spare: (B, h, w) bool.

    Args:
        boxes: (R, 4) xyxy, padded-image pixels.
        batch_index: (R,) int64, map of each region.
        shape: (B, C, h, w) of the maps.
        stride: image pixels from one pixel of a map to the next.
    """
    count, _, *size = shape
    one, other = boxes.split(2, 1)  # corners of a box in any order
    far = 2 * stride  # the neighbours of an interpolated value, half a pixel, and the one to spare
    grown = torch.cat([torch.minimum(one, other) - far, torch.maximum(one, other) + far], 1)
    own = torch.arange(count, device=boxes.device)[:, None] == batch_index
    return covered_pixels(grown.expand(count, -1, -1), own, size, stride)
