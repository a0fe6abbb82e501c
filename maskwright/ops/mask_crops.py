"""Cut ground-truth masks to boxes, and unite them: the training targets of a mask head.

Bilinear RoIAlign of every box over the mask matched to it (He et al. 2017, section 3), read from
packed crops. Sampling on a regular grid is separable: a target is (bins x rows) @ (rows x columns)
@ (columns x bins), the weights of an axis holding all samples of its bins.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..structures import PackedMasks
from .checks import as_index, from_host
from .operators import operator

# On the CPU windows up to this many pixels are gathered together, larger ones cut one by one.
_SMALL = 64 * 64
# Largest number of gathered pixels at once.
_GATHER = 1 << 22


def crop_masks(
    masks: PackedMasks,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    size: int,
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
    image_sizes: Tensor | None = None,
) -> Tensor:
    """Return ground-truth masks inside boxes, resampled to squares: the targets of a mask head.

    Bilinear RoIAlign (He et al. 2017, section 3) over the full-size mask, read from its crop.

    Args:
        masks: packed masks of the ground truth, padded-image pixels.
        boxes: (B, S, 4) xyxy, padded-image pixels.
        gt_index: (B, S) integers, which mask of its image each box reads.
        valid: (B, S) bool.
        size: side of the squares.
        sampling_ratio: samples per bin and axis; 0: the box side over `size`, rounded up.
        aligned: False shifts samples by half a pixel, as RoIAlign did before detectron2.
        image_sizes: (B, 2) int64 (height, width) where the masks end. RoIAlign repeats the last
            row and column for samples beyond their centre; without sizes they fade to zero.

    Returns:
        (B, S, size, size) float32 in [0, 1], without gradient; zeros where not valid.

    Raises:
        ValueError: if `gt_index` holds no integers, or `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected 1 or more, got {size}")
    result: Tensor = _crop_masks(
        masks.data,
        masks.offsets,
        masks.frames,
        boxes,
        as_index("gt_index", gt_index),
        valid,
        image_sizes,
        size,
        sampling_ratio,
        aligned,
    )
    return result


@operator("maskwright::crop_masks")
def _crop_masks(
    data: Tensor,
    offsets: Tensor,
    frames: Tensor,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    image_sizes: Tensor | None,
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    count, slots = valid.shape
    device = boxes.device
    out = torch.zeros((count * slots, size, size), dtype=torch.float32, device=device)
    if not data.numel():
        return out.view(count, slots, size, size)
    batch = torch.arange(count, device=device)[:, None]
    frame = frames[batch, gt_index].flatten(0, 1)
    offset = offsets[batch, gt_index].flatten()
    box = boxes.detach().float().flatten(0, 1)
    shift = 0.5 if aligned else 0.0
    start = box[:, :2] - shift
    extent = (box[:, 2:] - shift) - start  # rounded as the reference kernel rounds it
    if not aligned:
        extent = extent.clamp(min=1)
    per_bin = torch.ceil(extent / size).long().clamp(min=0)
    if sampling_ratio > 0:
        per_bin = torch.full_like(per_bin, sampling_ratio)
    # The window: pixels of the crop between the first and the last sample, at least one.
    ends = torch.stack([start, start + extent])
    inside = frame[:, 2:] - 1
    low = torch.maximum(torch.minimum(ends.amin(0).floor().long(), inside), frame[:, :2])
    high = torch.maximum(torch.minimum(ends.amax(0).floor().long() + 1, inside), frame[:, :2])
    limit = None
    if image_sizes is not None:
        limit = image_sizes.flip(-1).repeat_interleave(slots, 0)
    has_mask = (frame[:, 2:] > frame[:, :2]).all(1) & (per_bin > 0).all(1) & valid.flatten()
    table = torch.cat(
        [has_mask[:, None], high - low + 1, per_bin, low - frame[:, :2], frame, offset[:, None]], 1
    ).tolist()  # the only wait for the device

    with torch.autocast(device.type, enabled=False):
        for members in _window_groups(table):
            at = from_host(members, device)
            x_weights, y_weights = (
                _axis_weights(
                    start[at, axis],
                    extent[at, axis],
                    per_bin[at, axis],
                    low[at, axis],
                    high[at, axis],
                    None if limit is None else limit[at, axis],
                    length=max(table[i][1 + axis] for i in members),
                    samples=max(table[i][3 + axis] for i in members),
                    size=size,
                )
                for axis in (0, 1)
            )
            length, height = x_weights.shape[2], y_weights.shape[2]
            if device.type == "cpu" and length * height > _SMALL:
                for i, x_weight, y_weight in zip(members, x_weights, y_weights, strict=True):
                    _, w, h, _, _, x, y, x1, y1, x2, y2, begin = table[i]
                    crop = data[begin : begin + (x2 - x1) * (y2 - y1)].view(y2 - y1, x2 - x1)
                    window = crop[y : y + h, x : x + w].float()
                    out[i] = y_weight[:, :h] @ window @ x_weight[:, :w].T
            else:
                # Pixels past the window of a smaller member have weight 0; any will do.
                first, last = (low - frame[:, :2])[at], (frame[:, 2:] - frame[:, :2])[at] - 1
                cols = torch.arange(length, device=device) + first[:, :1]
                rows = torch.arange(height, device=device) + first[:, 1:]
                cols = torch.minimum(cols, last[:, :1])
                rows = torch.minimum(rows, last[:, 1:]) * (last[:, :1] + 1) + offset[at, None]
                window = data[rows[:, :, None] + cols[:, None]].float()
                out[at] = y_weights @ window @ x_weights.transpose(1, 2)
    # Divided last: samples that are halves and quarters then add up exactly, and a pixel that is
    # covered by half stays at 0.5.
    out /= per_bin.prod(1).clamp(min=1)[:, None, None]
    return out.view(count, slots, size, size)


@_crop_masks.register_fake
def _(
    data: Tensor,
    offsets: Tensor,
    frames: Tensor,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    image_sizes: Tensor | None,
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return boxes.new_empty((*valid.shape, size, size), dtype=torch.float32)


def _window_groups(table: list[list[int]]) -> Iterator[list[int]]:
    """Yield the RoIs that are computed together: windows of about one size.

    Args:
        table: per RoI whether it counts, then width and height of its window.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (counts, width, height, *_) in enumerate(table):
        if counts:
            key = (max(width - 1, 31).bit_length(), max(height - 1, 31).bit_length())
            groups.setdefault(key, []).append(i)
    for (width_bits, height_bits), members in groups.items():
        step = max(_GATHER >> (width_bits + height_bits), 1)
        for begin in range(0, len(members), step):
            yield members[begin : begin + step]


def _axis_weights(
    start: Tensor,
    extent: Tensor,
    per_bin: Tensor,
    low: Tensor,
    high: Tensor,
    limit: Tensor | None,
    *,
    length: int,
    samples: int,
    size: int,
) -> Tensor:
    """Return what each pixel of a window gives each bin along one axis, summed over samples.

    Args:
        start, extent: (R,) first edge and length of the RoI, pixel centres at whole numbers.
        per_bin: (R,) samples per bin, at most `samples`.
        low, high: (R,) first and last pixel of the window.
        limit: (R,) length of the image, or None.
        length: pixels of the largest window.
        samples: largest number of samples per bin.
        size: number of bins.

    Returns:
        (R, size, length) float32.
    """
    device = start.device
    bins = torch.arange(size, device=device)[:, None]
    sample = torch.arange(samples, device=device)
    n = per_bin[:, None, None]
    step = (extent / size)[:, None, None]
    at = start[:, None, None] + bins * step + (sample + 0.5) * step / n  # (R, size, samples)
    used = (sample < n) & (at >= -1)
    at = at.clamp(min=0)
    if limit is not None:
        used &= at <= limit[:, None, None]
        at = torch.minimum(at, limit[:, None, None] - 1.0)
    pixel = at.floor()
    frac = at - pixel
    pixel = pixel.long() - low[:, None, None]
    last = (high - low)[:, None, None]
    weights = start.new_zeros((len(start), size, length))
    for neighbour, weight in ((pixel, 1 - frac), (pixel + 1, frac)):
        inside = used & (neighbour >= 0) & (neighbour <= last)
        weights.scatter_add_(2, neighbour.clamp(0, length - 1), torch.where(inside, weight, 0))
    return weights


def unite_masks(masks: PackedMasks, use: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where any mask of an image is.

    Args:
        masks: packed masks, (B, K) slots.
        use: (B, K) bool, the masks that take part.
        size: (height, width) of the padded image.

    Returns:
        (B, height, width) uint8, 0 or 1.
    """
    height, width = size
    result: Tensor = _unite_masks(masks.data, masks.offsets, masks.frames, use, height, width)
    return result


@operator("maskwright::unite_masks")
def _unite_masks(
    data: Tensor, offsets: Tensor, frames: Tensor, use: Tensor, height: int, width: int
) -> Tensor:
    out = torch.zeros((len(use), height, width), dtype=torch.uint8, device=data.device)
    image, slot = use.nonzero(as_tuple=True)
    table = torch.cat([image[:, None], offsets[image, slot][:, None], frames[image, slot]], 1)
    for number, begin, x1, y1, x2, y2 in table.tolist():
        crop = data[begin : begin + (y2 - y1) * (x2 - x1)].view(y2 - y1, x2 - x1)
        part = out[number, y1:y2, x1:x2]
        part |= crop[: part.shape[0], : part.shape[1]]
    return out


@_unite_masks.register_fake
def _(
    data: Tensor, offsets: Tensor, frames: Tensor, use: Tensor, height: int, width: int
) -> Tensor:
    return data.new_empty((use.shape[0], height, width), dtype=torch.uint8)
