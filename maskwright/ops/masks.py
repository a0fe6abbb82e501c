"""Paste the mask probabilities that a mask head predicts in its boxes into the image.

He et al. 2017 (Mask R-CNN), section 3.1. All floats live inside the boxes; nothing of the size of
all masks times the image exists but the bool result of `paste_masks`, and `paste_rle` has none.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .rle import Crop, Frame, encode_crops

# Pixels that are interpolated at once: few enough to stay in cache, enough for all threads.
_BLOCK = 1 << 18
_TOGETHER = 1 << 26  # pixels of masks that are coded at once
# Bytes of masks that are worth pages of their own.
_PAGES = 1 << 20


def paste_masks(
    probs: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    thresh: float = 0.5,
    mode: str = "grid",
) -> Tensor:
    """Return the binary masks of one image at its full size.

    Args:
        probs: (N, M, M) mask probabilities in the frames of their boxes.
        boxes: (N, 4) xyxy, original-image pixels.
        size: (height, width) of the original image.
        thresh: in (0, 1).
        mode: how the square is laid over the box, a convention of the weights.
            "grid" samples it bilinearly at the centres of the image's pixels, zero outside it,
            and keeps what reaches `thresh` (detectron2; exact for boxes between pixels).
            "torchvision" enlarges mask and box by a border, cuts the box to whole pixels,
            resizes the square to it and keeps what is above `thresh`, as torchvision's
            `paste_masks_in_image` and its reference evaluation do.

    Returns:
        (N, H, W) bool. Equal to pasting the floats into full images and then thresholding.

    Raises:
        ValueError: if shapes, `thresh` or `mode` do not fit.

    Example:
        >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 0, 3, 1]]), (2, 4)).int().tolist()
        [[[0, 1, 1, 0], [0, 0, 0, 0]]]
    """
    out = _blank(len(probs), size, probs.device)
    for i, (x1, y1, x2, y2), crop in _pasted(probs, boxes, size, thresh, mode):
        out[i, y1:y2, x1:x2] = crop
    return out


def _blank(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Return (count, H, W) bool of zeros."""
    if device.type != "cpu":
        return torch.zeros((count, *size), dtype=torch.bool, device=device)
    length = count * size[0] * size[1]
    if length < _PAGES or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros((count, *size), dtype=torch.bool)
    # Zeroed pages from the system, of which those outside of the boxes are never touched;
    # torch.zeros writes all of them, and NumPy asks for pages of 2 MiB, which takes longer than
    # the masks.
    pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.bool, count=length).view(count, *size)


def paste_rle(
    probs: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    thresh: float = 0.5,
    mode: str = "grid",
) -> list[dict[str, Any]]:
    """Return the masks of one image as COCO run-length codes, without making the full masks.

    Args:
        probs: (N, M, M) mask probabilities in the frames of their boxes.
        boxes: (N, 4) xyxy, original-image pixels.
        size: (height, width) of the original image.
        thresh: in (0, 1).
        mode: "grid" or "torchvision", see `paste_masks`.

    Returns:
        N dicts {"size": [height, width], "counts": bytes}: what `pycocotools.mask.encode` makes
        of the masks of `paste_masks`, byte for byte.

    Raises:
        ValueError: if shapes, `thresh` or `mode` do not fit.
    """
    codes: list[dict[str, Any]] = []
    crops: list[Crop] = []
    frames: list[Frame] = []
    pixels = 0
    # Coded together, which is faster, as many as are no burden: in a photo of 50 megapixels a
    # hundred large masks would be 5 GB.
    for _, frame, crop in _pasted(probs.cpu(), boxes.cpu(), size, thresh, mode):
        if pixels + crop.numel() > _TOGETHER:
            codes += encode_crops(crops, frames, size)
            crops, frames, pixels = [], [], 0
        crops.append(crop.numpy())
        frames.append(frame)
        pixels += crop.numel()
    return codes + encode_crops(crops, frames, size)


def paste_probs(
    probs: Tensor, boxes: Tensor, frames: Sequence[Frame], *, mode: str = "grid"
) -> list[Tensor]:
    """Return the mask probabilities at the pixels of a crop for each object, zero beyond its box.

    Args:
        probs: (N, M, M) mask probabilities in the frames of their boxes.
        boxes: (N, 4) xyxy, original-image pixels.
        frames: N crops, xyxy in whole pixels.
        mode: "grid" or "torchvision", see `paste_masks`.

    Returns:
        N tensors (h, w) float32. Those that reach the threshold are the pixels of `paste_masks`.

    Raises:
        ValueError: if shapes or `mode` do not fit.
    """
    _check(probs, boxes, mode)
    probs, places = probs.float(), boxes.float()
    if mode == "torchvision":
        probs, places = F.pad(probs, (1, 1, 1, 1)), _torchvision_boxes(places, probs.shape[-1])
        places = torch.cat([places[:, :2], places[:, 2:] + 1], 1).float()
    crops = []
    for one, (x1, y1, x2, y2), (left, top, right, bottom) in zip(
        probs, places.tolist(), frames, strict=True
    ):
        shape = (max(bottom - top, 0), max(right - left, 0))
        if not (x2 > x1 and y2 > y1 and math.prod(shape)):
            crops.append(probs.new_zeros(shape))
            continue
        x = (torch.arange(left, right, device=probs.device) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(top, bottom, device=probs.device) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack([x.expand(shape), y[:, None].expand(shape)], -1)
        crops.append(F.grid_sample(one[None, None], grid[None], align_corners=False)[0, 0])
    return crops


def _pasted(
    probs: Tensor, boxes: Tensor, size: tuple[int, int], thresh: float, mode: str
) -> Iterator[tuple[int, Frame, Tensor]]:
    """Yield the number, the frame and the (h, w) bool crop of each mask, in order."""
    _check(probs, boxes, mode)
    if not 0 < thresh < 1:
        raise ValueError(f"thresh must lie between 0 and 1, got {thresh}")
    if mode == "grid":
        return _pasted_grid(probs.float(), boxes.float(), size, thresh)
    return _pasted_torchvision(probs.float(), boxes.float(), size, thresh)


def _check(probs: Tensor, boxes: Tensor, mode: str) -> None:
    """Make sure that masks and boxes fit together, and that there is such a mode."""
    count = len(probs)
    square = probs.ndim == 3 and probs.shape[1] == probs.shape[2] > 0
    if not square or boxes.shape != (count, 4):
        raise ValueError(
            "expected probs (N, M, M), M from 1 on, and boxes (N, 4), "
            f"got {tuple(probs.shape)} and {tuple(boxes.shape)}"
        )
    if mode not in ("grid", "torchvision"):
        raise ValueError(f"mode is 'grid' or 'torchvision', got {mode!r}")


def _pasted_grid(
    probs: Tensor, boxes: Tensor, size: tuple[int, int], thresh: float
) -> Iterator[tuple[int, Frame, Tensor]]:
    side = probs.shape[-1]
    x, y = (torch.arange(length, device=boxes.device) + 0.5 for length in reversed(size))
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    gx = (x - x1) / (x2 - x1) * 2 - 1  # (N, W), -1 to 1 inside the box
    gy = (y - y1) / (y2 - y1) * 2 - 1
    padded = F.pad(probs, (1, 1, 1, 1))
    (col, col_frac), (row, row_frac) = _cells(gx, side), _cells(gy, side)
    # The separable sum differs from grid_sample in the last bits. Where that could decide, within
    # this distance from the threshold, grid_sample itself is asked.
    largest = probs.nan_to_num(0.0).abs().flatten(1).amax(1) if probs.numel() else probs.sum((1, 2))
    doubts = (1e-6 * side * largest).tolist()
    for i, frame in enumerate(_grid_frames(boxes, size, side)):
        left, top, right, bottom = frame
        crop = torch.zeros((bottom - top, right - left), dtype=torch.bool, device=probs.device)
        if not crop.numel():
            yield i, frame, crop
            continue
        at = col[i, left:right]
        across = padded[i].index_select(1, at)
        across = across.lerp(padded[i].index_select(1, at + 1), col_frac[i, left:right])
        rows = max(_BLOCK // (right - left), 1)
        for begin in range(top, bottom, rows):
            end = min(begin + rows, bottom)
            at = row[i, begin:end]
            value = across.index_select(0, at).lerp_(
                across.index_select(0, at + 1), row_frac[i, begin:end, None]
            )
            block = crop[begin - top : end - top]
            torch.ge(value, thresh + doubts[i], out=block)
            near = value.ge(thresh - doubts[i]).logical_xor_(block).nonzero()
            if len(near):
                dy, dx = near.unbind(1)
                points = torch.stack([gx[i, left + dx], gy[i, begin + dy]], -1)
                exact = F.grid_sample(probs[i, None, None], points[None, None], align_corners=False)
                block[dy, dx] = exact[0, 0, 0] >= thresh
        yield i, frame, crop


def _cells(grid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return where grid_sample looks: the lower of two samples in the padded square, the weight.

    Args:
        grid: (N, L) positions, -1 to 1 inside the square of `side` samples.
    """
    at = ((grid + 1) * side - 1) / 2
    # Beyond the border of zeros all is zero; a box without area gives nan and nothing.
    at = at.nan_to_num(nan=-1.0).clamp(-1, side) + 1
    low = at.floor().clamp(max=side)
    return low.long(), at - low


def _grid_frames(boxes: Tensor, size: tuple[int, int], side: int) -> list[Frame]:
    """Return for each box the whole pixels where its mask can be above zero."""
    low = torch.minimum(boxes[:, :2], boxes[:, 2:]).double()
    high = torch.maximum(boxes[:, :2], boxes[:, 2:]).double()
    # A sample reaches half a cell beyond the box; one pixel more for the rounding.
    margin = (high - low) / (2 * side) + 1
    limit = boxes.new_tensor([size[1], size[0]], dtype=torch.float64)
    low = torch.minimum((low - margin).floor().clamp(min=0), limit)
    high = torch.minimum((high + margin).ceil().clamp(min=0), limit)
    real = boxes.isfinite().all(1, keepdim=True) & (boxes[:, :2] != boxes[:, 2:]).all(1, True)
    frames = torch.where(real, torch.cat([low, high], 1), 0).long().tolist()
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in frames]


def _pasted_torchvision(
    probs: Tensor, boxes: Tensor, size: tuple[int, int], thresh: float
) -> Iterator[tuple[int, Frame, Tensor]]:
    height, width = size
    side = probs.shape[-1]
    padded = F.pad(probs, (1, 1, 1, 1))
    for i, (x1, y1, x2, y2) in enumerate(_torchvision_boxes(boxes, side).tolist()):
        left, right = max(x1, 0), min(x2 + 1, width)
        top, bottom = max(y1, 0), min(y2 + 1, height)
        if left >= right or top >= bottom:
            yield i, (0, 0, 0, 0), probs.new_empty((0, 0), dtype=torch.bool)
            continue
        full = (y2 - y1 + 1, x2 - x1 + 1)
        value = F.interpolate(padded[i, None, None], full, mode="bilinear", align_corners=False)
        crop = value[0, 0, top - y1 : bottom - y1, left - x1 : right - x1] > thresh
        yield i, (left, top, right, bottom), crop


def _torchvision_boxes(boxes: Tensor, side: int) -> Tensor:
    """Return (N, 4) int64, the first and last pixels of boxes enlarged by a cell on each side.

    The same operations in the same order as torchvision: the cut to integers follows.
    """
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((side + 2) / side)
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    wide = torch.cat([centre - half, centre + half], 1)
    return torch.where(wide.isfinite().all(1, keepdim=True), wide, -2.0).long()
