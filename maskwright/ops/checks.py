"""What the operators take: number types of boxes and indices, shapes, maps that hold pixels.

One rule for all of them. Boxes of integers or half types become float32, as an area in float16 ends
at 65504 and bfloat16 knows no odd pixel beyond 256; float32 and float64 stay. An index may be of
any integer type.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor


def as_float(values: Tensor) -> Tensor:
    """Return integers and half types as float32; float32 and float64 as they are."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float()


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type in which a tensor is pooled: half types in float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def as_index(name: str, index: Tensor) -> Tensor:
    """Return an index of any integer type as int64.

    Raises:
        ValueError: if it holds anything but integers.
    """
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"{name}: expected integers, got {index.dtype}")
    return index.long()


def box_index(name: str, index: Tensor, boxes: Tensor) -> Tensor:
    """Return (R,) int64, one number for each of the boxes (R, 4).

    Raises:
        ValueError: if there are more or fewer, or they are not integers.
    """
    if index.dim() != 1 or index.shape[0] != boxes.shape[0]:
        expected = f"({boxes.shape[0]},) as boxes"
        raise ValueError(f"{name}: expected {expected}, got {tuple(index.shape)}")
    return as_index(name, index)


def check_boxes(boxes: Tensor) -> Tensor:
    """Return boxes (R, 4) as `as_float` does.

    Raises:
        ValueError: if they have another shape.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected (R, 4) xyxy, got {tuple(boxes.shape)}")
    return as_float(boxes)


def check_maps(*maps: Tensor) -> None:
    """Make sure that the maps (B, C, H, W) have pixels and one floating-point type.

    Raises:
        ValueError: if not. The kernels would read beyond a map without pixels.
    """
    shapes = [tuple(m.shape) for m in maps]
    if any(m.dim() != 4 or m.shape[:2] != maps[0].shape[:2] for m in maps):
        raise ValueError(f"features: expected (B, C, H, W) with equal B and C, got {shapes}")
    if any(m.dtype != maps[0].dtype or not m.is_floating_point() for m in maps):
        types = [str(m.dtype) for m in maps]
        raise ValueError(f"features: expected one floating-point type, got {types}")
    # In a graph for images of any size, sides are symbols; it would get a guard for each.
    if torch.compiler.is_compiling():
        return
    if any(side < 1 for m in maps for side in m.shape[2:]):
        raise ValueError(f"features: expected maps with at least one pixel, got {shapes}")


def check_size(output_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return bins (h, w).

    Raises:
        ValueError: if that is not one or two positive integers.
    """
    pair: Any = output_size
    # Not `tuple | list`: torch 2.9 cannot compile that.
    if not (isinstance(pair, tuple) or isinstance(pair, list)):  # noqa: SIM101
        pair = (pair, pair)
    try:
        h, w = (operator.index(side) for side in pair)
    except (TypeError, ValueError):
        h = w = 0
    if h < 1 or w < 1:
        raise ValueError(f"output_size: expected one or two positive integers, got {output_size}")
    return h, w


def from_host(numbers: Any, device: torch.device) -> Tensor:
    """Return numbers, such as positions in a list, as a tensor; no card is waited for."""
    if device.type != "cuda":
        return torch.tensor(numbers, device=device)
    return torch.tensor(numbers).to(device, non_blocking=True)


def check_images(batch_index: Tensor, fmap: Tensor) -> None:
    """Raise ValueError if an index names no image; on the CPU only, elsewhere it would wait."""
    if batch_index.device.type == "cpu":
        low, high = (int(v) for v in batch_index.aminmax())
        if low < 0 or high >= len(fmap):
            got = f"{low} to {high}"
            raise ValueError(f"batch_index: expected 0 to {len(fmap) - 1}, got {got}")
