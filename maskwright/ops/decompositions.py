"""Our operators as plain tensor operations, for graphs that must run where this package is not.

Same results as the operators themselves, with shapes that do not depend on data. Eager code has
better ways; these serve `torch.export` (`.pt2`, compiled code) and, for what ONNX lacks, ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import nms  # noqa: F401  (these register the operators)
from .keypoints import CUBIC
from .pooling import ps_roi, roi_align  # noqa: F401
from .pooling.roi_pool import box_bins

# Patches of a map that may hold its highest pixel, looked at one pixel after another.
_PATCHES = 16
_FAR = 2**30  # beyond the pixels of any box


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the tensor form of each of our operators, as `run_decompositions` takes them."""
    ours = torch.ops.maskwright
    return {
        ours.nms_padded.default: nms_padded,
        ours.roi_align.default: roi_align_gathered,
        ours.locate_keypoints.default: locate_keypoints,
        ours.roi_pool.default: roi_pool_windows,
        ours.ps_roi.default: ps_roi_gathered,
    }


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    iou_thresh: float,
    max_out: int,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Greedy NMS of a batch, a survivor of each image per turn; see `ops.nms.nms_padded`.

    A turn costs N operations and no turn is made when no candidate is left: less work than a
    matrix of all pairs, which 5,000 proposals do not fit into the caches with.
    """
    # Not `while_loop` itself, which compiles its parts: within an export, torch 2.9 fails in it.
    from torch._higher_order_ops.while_loop import while_loop_op

    key = torch.where(valid, scores, -torch.inf)
    order = key.sort(dim=1, descending=True, stable=True)[1]
    left = valid.gather(1, order)
    box = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    label = torch.zeros_like(order) if labels is None else labels.gather(1, order)
    area = (box[..., 2:] - box[..., :2]).prod(-1)
    slots = torch.arange(max_out, device=boxes.device)
    # What the loop reads from outside must be tensors.
    turns = torch.full((), max_out, dtype=torch.int64, device=boxes.device)
    thresh = boxes.new_full((), iou_thresh)
    index = torch.zeros_like(order[:, :1]).expand(-1, max_out).clone()
    filled = torch.zeros_like(index, dtype=torch.bool)

    slots_of_boxes = torch.arange(order.shape[1], device=boxes.device)
    start = torch.zeros((), dtype=torch.int64, device=boxes.device)
    carried: Any = (start, left, index, filled)
    read = (box, area, label, order, turns, thresh, slots, slots_of_boxes)
    _, _, index, filled = while_loop_op(_go_on, _take_best, carried, read)
    return index, filled


def _go_on(turn: Tensor, left: Tensor, *others: Tensor) -> Tensor:
    """Whether `nms_padded` takes another turn: its state, and what it reads."""
    turns = others[6]
    return (turn < turns) & left.any()


def _take_best(
    turn: Tensor,
    left: Tensor,
    index: Tensor,
    filled: Tensor,
    box: Tensor,
    area: Tensor,
    label: Tensor,
    order: Tensor,
    turns: Tensor,
    thresh: Tensor,
    slots: Tensor,
    slots_of_boxes: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the state of `nms_padded` after one turn."""
    any_left = left.any(1, keepdim=True)
    at = left.to(torch.int8).argmax(1, keepdim=True)  # the first one left is the best
    best = box.gather(1, at[..., None].expand(-1, -1, 4))
    low = torch.maximum(box[..., :2], best[..., :2])
    high = torch.minimum(box[..., 2:], best[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    iou = shared / (area + area.gather(1, at) - shared)
    same = label == label.gather(1, at)
    left = left & ~((iou > thresh) & same) & (slots_of_boxes != at)
    here = (slots == turn) & any_left
    index = torch.where(here, order.gather(1, at), index)
    return turn + 1, left, index, filled | here


def roi_align_gathered(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign as weighted sums of rows of one table; see `ops.roi_align`.

    With the adaptive ratio (0), a box may be as large as its map, not larger.
    """
    table = torch.cat([fmap.permute(0, 2, 3, 1).flatten(0, 2) for fmap in features]).float()
    level = levels.long()
    scale = torch.zeros_like(boxes[:, 0])
    height, width, first = (torch.zeros_like(level) for _ in range(3))
    longest: Any = 1
    begin = 0
    for place, (fmap, stride) in enumerate(zip(features, strides, strict=True)):
        images, _, h, w = fmap.shape
        here = level == place
        scale = torch.where(here, 1.0 / stride, scale)
        height, width, first = height + here * h, width + here * w, first + here * begin
        begin = begin + images * h * w
        longest = torch.sym_max(longest, torch.sym_max(h, w))
    on_map = (height > 0)[:, None]
    low = boxes * scale[:, None] - (0.5 if aligned else 0.0)
    entries = []
    for axis, side in ((1, height), (0, width)):
        bins = output_size[0] if axis == 1 else output_size[1]
        most = sampling_ratio or -(-longest // bins)
        entries.append(
            _axis_entries(low[:, axis], low[:, axis + 2], side, bins, most, sampling_ratio, aligned)
        )
    (y, wy), (x, wx) = entries  # (R, bins, K) each
    base = first + batch_index.long() * height * width
    rows = base[:, None, None] + y * width[:, None, None]
    index = rows[:, :, None, :, None] + x[:, None, :, None, :]  # (R, h, w, Ky, Kx)
    weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
    weight = weight * on_map[:, :, None, None, None]
    count = index.shape[3] * index.shape[4]
    # By hand: the offsets of embedding_bag would be sizes that torch writes and cannot read again.
    bags = torch.arange(boxes.shape[0] * output_size[0] * output_size[1], device=boxes.device)
    out = F.embedding_bag(
        index.flatten(), table, bags * count, mode="sum", per_sample_weights=weight.flatten()
    )
    out = out.reshape(boxes.shape[0], output_size[0], output_size[1], table.shape[1])
    return out.permute(0, 3, 1, 2).to(features[0].dtype)


def _axis_entries(
    low: Tensor, high: Tensor, side: Tensor, bins: int, most: int, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Return pixels and weights (R, bins, K) of the bins along one axis.

    Args:
        low, high: (R,) ends of the boxes in pixels of their maps.
        side: (R,) pixels of the maps.
        bins: number of bins.
        most: samples of a bin, at most.
        ratio: samples of a bin; 0: the length of the bin, rounded up.
        aligned: see `ops.roi_align`.
    """
    extent = high - low if aligned else (high - low).clamp(min=1)
    step = (extent / bins).nan_to_num(0.0)
    count = torch.full_like(step, ratio) if ratio else step.ceil()
    count = count.clamp(min=0)[:, None, None]
    sample = torch.arange(most, device=low.device)
    bin_low = low[:, None] + torch.arange(bins, device=low.device) * step[:, None]
    at = bin_low[..., None] + (sample + 0.5) * step[:, None, None] / count.clamp(min=1)
    end = side[:, None, None]
    used = (sample < count) & (at >= -1) & (at <= end)
    at = torch.minimum(at.nan_to_num(0.0).clamp(min=0), (end - 1).clamp(min=0).to(at.dtype))
    pixel = at.floor().long()  # (R, bins, most)
    share = used / count.clamp(min=1)
    upper = (at - pixel) * share
    lower = share - upper
    last = (end - 1).clamp(min=0)
    if ratio:
        index = torch.cat([pixel, torch.minimum(pixel + 1, last)], 2)
        return index, torch.cat([lower, upper], 2)
    # Samples less than a pixel apart share their pixels: as many slots as a bin can touch.
    begin = pixel[:, :, :1]
    slot = pixel - begin
    weight = lower.new_zeros((low.shape[0], bins, most + 2))
    slot = slot.clamp(max=most)
    weight = weight.scatter_add(2, slot, lower).scatter_add(2, slot + 1, upper)
    index = torch.minimum(begin + torch.arange(most + 2, device=low.device), last)
    return index, weight


def roi_pool_windows(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    with_argmax: bool,
) -> tuple[Tensor, Tensor]:
    """RoIPool as maxima of four windows for each bin; see `ops.roi_pool`.

    A window of 2^j by 2^i pixels holds the maximum of its pixels; four of them, which may overlap,
    cover a bin exactly.

    Raises:
        ValueError: if the size of the map is not fixed: it decides how many windows there are.
    """
    height, width = features.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise ValueError("RoIPool as tensor operations needs a graph of fixed size: give imgsz")
    corners = boxes.float() * (1 / stride)
    y = box_bins(corners[:, 1], corners[:, 3], output_size[0], height)
    x = box_bins(corners[:, 0], corners[:, 2], output_size[1], width)
    rows = features.permute(0, 2, 3, 1)
    powers = [
        max(-(-side // bins) + 1, 1).bit_length()
        for side, bins in zip((height, width), output_size, strict=True)
    ]
    tables = []
    for i in range(powers[0]):
        if i:
            rows = _widen(rows, 1, 1 << (i - 1))
        part = rows
        for j in range(powers[1]):
            if j:
                part = _widen(part, 2, 1 << (j - 1))
            tables.append(part)
    table = torch.cat([part.flatten(0, 2) for part in tables])
    high, wide = (_power(bins.length) for bins in (y, x))  # (R, bins)
    which = high[:, :, None] * powers[1] + wide[:, None, :]
    base = (which * features.shape[0] + batch_index.long()[:, None, None]) * height
    best: Tensor | None = None
    for top in (y.first, y.first + y.length - (1 << high)):
        for left in (x.first, x.first + x.length - (1 << wide)):
            at = (base + top[:, :, None]) * width + left[:, None, :]
            value = table[at]  # (R, h, w, C)
            best = value if best is None else torch.maximum(best, value)
    assert best is not None
    empty = y.empty[:, :, None] | x.empty[:, None, :]
    best = torch.where(empty[..., None], 0, best).permute(0, 3, 1, 2)
    return best, torch.zeros_like(best[:0], dtype=torch.int32)


def _widen(table: Tensor, axis: int, step: int) -> Tensor:
    """Return the maxima of two windows each, `step` pixels apart; beyond the map the last one."""
    side = table.shape[axis]
    far = (torch.arange(side, device=table.device) + step).clamp(max=side - 1)
    return torch.maximum(table, table.index_select(axis, far))


def _power(length: Tensor) -> Tensor:
    """Return the largest power of two that is not above a length from 1 on, as its exponent."""
    exponents = torch.arange(1, 24, device=length.device)
    return (length[..., None] >> exponents > 0).sum(-1)


def ps_roi_gathered(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    sampling_ratio: int,
    whole: bool,
) -> Tensor:
    """Position-sensitive pooling, bins of whole pixels or bilinear samples; see `ops.ps_roi`."""
    h, w = output_size
    height, width = features.shape[2:]
    parts = features.unflatten(1, (-1, h, w)).double()  # (B, D, h, w, H, W)
    kinds = parts.shape[1]
    image = batch_index.long()[:, None] * kinds + torch.arange(kinds, device=boxes.device)
    bins = torch.arange(h, device=boxes.device)[:, None] * w + torch.arange(w, device=boxes.device)
    base = image[:, :, None, None] * (h * w) + bins  # (R, D, h, w): which map
    if not whole:
        corners = boxes * (1 / stride) - 0.5
        entries = []
        for axis, side, count in ((1, height, h), (0, width, w)):
            most = sampling_ratio or -(-side // count)
            sides = torch.zeros_like(batch_index.long()) + side
            entries.append(
                _axis_entries(
                    corners[:, axis], corners[:, axis + 2], sides, count, most, sampling_ratio, True
                )
            )
        (y, wy), (x, wx) = entries
        at = (base[..., None] * height + y[:, None, :, None]) * width  # (R, D, h, w, Ky)
        at = at[..., None] + x[:, None, None, :, None]
        values = parts.flatten()[at] * wy[:, None, :, None, :, None] * wx[:, None, None, :, None]
        pooled: Tensor = values.sum((4, 5)).to(features.dtype)
        return pooled
    # Sums over rectangles from sums over all pixels before each, in double precision and around
    # the mean, so that their differences keep the precision of the values.
    mean = parts.mean((4, 5), keepdim=True)
    sums = F.pad((parts - mean).cumsum(4).cumsum(5), (1, 0, 1, 0)).flatten()
    low, high = _cell_edges(boxes, stride, (h, w), (height, width))
    corner = base * (height + 1)
    total: Tensor | None = None
    for sign, rows in ((1, high[0]), (-1, low[0])):
        for other, columns in ((1, high[1]), (-1, low[1])):
            at = (corner + rows[:, None, :, None]) * (width + 1) + columns[:, None, None, :]
            part = sums[at] * (sign * other)
            total = part if total is None else total + part
    assert total is not None
    area = (high[0] - low[0]).clamp(min=0)[:, :, None] * (high[1] - low[1]).clamp(min=0)[:, None]
    own = mean.flatten()[base]
    found = torch.where(area[:, None] > 0, total / area.clamp(min=1)[:, None] + own, 0)
    return found.to(features.dtype)


def _cell_edges(
    boxes: Tensor, stride: int, bins: Sequence[int], sides: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return first and end pixel of the bins along y and x, (R, bins) each, as torchvision's."""
    corners = boxes.float() * (1 / stride)
    corners = (corners + torch.where(corners < 0, -0.5, 0.5)).trunc()
    low, high = [], []
    for axis, count, side in ((1, bins[0], sides[0]), (0, bins[1], sides[1])):
        start = corners[:, axis, None]
        step = (corners[:, axis + 2, None] - start).clamp(min=1) / count
        k = torch.arange(count, device=boxes.device)
        # The last row and column of a map belong to no bin, as in torchvision's kernel.
        low.append(((k * step).floor() + start).clamp(0, side - 1).long())
        high.append((((k + 1) * step).ceil() + start).clamp(0, side - 1).long())
    return low, high


def locate_keypoints(maps: Tensor, boxes: Tensor, longest: int | None = None) -> Tensor:
    """Find the highest pixel of each map enlarged to its box; see `ops.locate_keypoints`.

    Between two samples along each axis the enlarged map is a bicubic polynomial, which its Bezier
    points bound. The pixels of the patches with the highest bounds are computed: exact unless more
    than `_PATCHES` patches of a map could hold its highest pixel.

    Args:
        maps: (R, J, M, M).
        boxes: (R, 4) xyxy, pixels, inside the image.
        longest: longest side that a box can have; must be given.
    """
    if longest is None:
        raise ValueError("a graph needs to know how long the sides of boxes can be: longest=...")
    count, joints, side, _ = maps.shape
    maps, boxes = maps.float(), boxes.float()
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    lengths = extent.ceil()
    bound_x, bound_y = (_patch_bounds(line, side) for line in lengths.unbind(1))
    first, number = (bound_x[0], bound_y[0]), (bound_x[1], bound_y[1])
    # Bounds of all patches: the largest of 4 x 4 Bezier points, each linear in the map.
    patches = side + 1
    half = maps.flatten(1, 2) @ bound_x[2].flatten(1, 2).transpose(1, 2)  # (R, J * M, 4 patches)
    half = half.reshape(count, joints, side, 4 * patches)
    bound: Tensor | None = None
    for point in range(4):
        value = bound_y[2][:, point, None] @ half  # (R, J, patches, 4 * patches)
        value = value.unflatten(3, (4, patches)).amax(3)
        bound = value if bound is None else torch.maximum(bound, value)
    assert bound is not None
    full = (number[1] > 0)[:, :, None] & (number[0] > 0)[:, None, :]
    bound = torch.where(full[:, None], bound, -torch.inf).flatten(2)
    at = bound.topk(min(_PATCHES, patches * patches), 2)[1]  # (R, J, T)
    spots, weights, taps = [], [], []
    pixels = torch.arange(longest // side + 2, device=maps.device)
    for axis, patch in ((0, at % patches), (1, at // patches)):
        flat = patch.flatten(1)
        begin = first[axis].gather(1, flat).view_as(patch)[..., None]
        inside = pixels < number[axis].gather(1, flat).view_as(patch)[..., None]
        pixel = begin + pixels  # (R, J, T, S)
        length = lengths[:, axis].view(-1, 1, 1, 1)
        place = (side / length) * (pixel + 0.5) - 0.5
        weights.append(_cubic(place - (patch[..., None] - 1)))  # (R, J, T, S, 4)
        spots.append((pixel, inside))
        tap = patch[..., None] + torch.arange(-2, 2, device=maps.device)
        taps.append(tap.clamp(0, side - 1))
    cells = taps[1][..., :, None] * side + taps[0][..., None, :]  # (R, J, T, 4, 4)
    near = maps.flatten(2).gather(2, cells.flatten(2)).view_as(cells)
    value = weights[1] @ near @ weights[0].transpose(3, 4)  # (R, J, T, S rows, S columns)
    (column, in_x), (row, in_y) = spots
    shown = in_y[..., :, None] & in_x[..., None, :]
    value = torch.where(shown, value, -torch.inf).flatten(2)
    best = value.amax(2, keepdim=True)
    # Of equal pixels the first row and then the first column wins.
    rows = row[..., :, None].expand_as(shown).flatten(2)
    columns = column[..., None, :].expand_as(shown).flatten(2)
    equal = value == best
    top = torch.where(equal, rows, _FAR).amin(2, keepdim=True)
    left = torch.where(equal & (rows == top), columns, _FAR).amin(2, keepdim=True)
    spot = torch.cat([left, top], 2).float()
    xy = (spot + 0.5) * (extent / lengths)[:, None] + boxes[:, None, :2]
    return torch.cat([xy, best], 2)


def _patch_bounds(lengths: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the pixels of a line between each two samples can come to.

    Args:
        lengths: (R,) pixels of the line.
        side: samples of the line; patch p lies between the samples p - 1 and p.

    Returns:
        First pixel and number of pixels of each patch, (R, side + 1), and (R, 4, side + 1, side):
        the weights of the samples in four values of which the pixels are averages.
    """
    patch = torch.arange(side + 1, device=lengths.device)
    # The pixel p lies at (side / length) (p + 0.5) - 0.5.
    edge = (patch - 0.5)[None] * lengths[:, None] / side - 0.5
    first = edge.ceil().clamp(min=0).minimum(lengths[:, None]).long()
    next_first = torch.cat([first[:, 1:], lengths[:, None].long()], 1)
    number = next_first - first
    slope = -CUBIC / 3
    # A table of numbers would become a constant, which a decomposition must not make.
    a, b, c, d = torch.eye(4, device=lengths.device).unbind()
    bezier = torch.stack([b, b + slope * (c - a), c + slope * (b - d), c])
    # A patch with one pixel at most is bounded by that pixel.
    place = (side / lengths)[:, None] * (first + 0.5) - 0.5 - (patch - 1)
    single = _cubic(place)[:, None].expand(-1, 4, -1, -1)  # (R, 4, side + 1, 4)
    few = (lengths <= side)[:, None, None, None]
    points = torch.where(few, single, bezier[None, :, None, :])
    tap = (patch[:, None] + torch.arange(-2, 2, device=lengths.device)).clamp(0, side - 1)
    weights = points.new_zeros((lengths.shape[0], 4, side + 1, side))
    return first, number, weights.scatter_add(3, tap.expand_as(points), points)


def _cubic(t: Tensor) -> Tensor:
    """Return (..., 4) weights of the four nearest samples at distance `t` behind the second."""
    d = (t[..., None] + 1 - torch.arange(4, device=t.device)).abs()
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC
    return torch.where(d <= 1, near, far)
