"""Anchors of a pyramid (Ren et al. 2015, section 3.1.1; Lin et al. 2017), SSD's default boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import OptionError


class AnchorGenerator(nn.Module):
    """Boxes of fixed shape at every cell of every level, centred on the cell's top-left corner.

    Args:
        sizes: per level, the side in pixels of the square anchor with the same area; or a
            sequence of sides.
        ratios: height over width.
        strides: nominal stride of each level.
        rounded: round the corners to whole pixels, half to even (torchvision); "middle": of boxes
            that count their last pixel, around the middle of the cell (mmdetection 1); "base":
            there too, the sides of a box of the cell's area rounded and then enlarged (Detectron).
        stride_from_maps: take padded side // map side as the stride, per axis (torchvision).

    Attributes:
        per_cell: anchors of one cell (the same on all levels); ratio outer, size inner.
        per_level: the same for each level.
    """

    def __init__(
        self,
        sizes: Sequence[float | Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        *,
        rounded: bool | str = False,
        stride_from_maps: bool = False,
    ) -> None:
        super().__init__()
        per_level = [tuple(s) if isinstance(s, Sequence) else (s,) for s in sizes]
        if len(per_level) != len(strides) or len({len(s) for s in per_level}) != 1:
            raise OptionError(
                f"anchor_sizes needs one size for each of the {len(strides)} pyramid levels, "
                f"as many on each; got {tuple(sizes)}"
            )
        numbers = [*ratios, *(side for sides in per_level for side in sides)]
        if not ratios or not all(0 < number < math.inf for number in numbers):
            raise OptionError("anchor sizes and ratios must be above 0 and finite")
        self.strides = tuple(strides)
        self.stride_from_maps = stride_from_maps
        self.per_cell = len(per_level[0]) * len(ratios)
        self.per_level = (self.per_cell,) * len(strides)
        for level, sides in enumerate(per_level):
            # In NumPy: on the device "meta" torch would import its compiler for a root.
            height_ratio = np.sqrt(np.asarray(ratios, np.float32))
            side = np.asarray(sides, np.float32)
            widths = ((1 / height_ratio)[:, None] * side).ravel()
            heights = (height_ratio[:, None] * side).ravel()
            middle = np.float32(strides[level] / 2)
            if rounded == "base":
                base = np.round(np.sqrt(strides[level] ** 2 / np.asarray(ratios, np.float64)))
                both = base, np.round(base * ratios)
                widths, heights = (np.outer(s, side / strides[level]).ravel() for s in both)
            cell = np.stack([-widths, -heights, widths, heights], 1).astype(np.float32) / 2
            if rounded == "base":
                cell = cell + middle
            elif rounded == "middle":
                last = np.array([0, 0, 1, 1], np.float32)
                cell = (cell + middle - last).round() + last
            elif rounded:
                cell = cell.round()
            kept = torch.tensor(cell)
            self.register_buffer(f"cell{level}", kept, persistent=False)

    def forward(
        self, map_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]
    ) -> list[Tensor]:
        """Return the anchors of each level.

        Args:
            map_sizes: (height, width) of each level's map.
            padded_size: (height, width) of the padded image.

        Returns:
            Per level (height * width * per_cell, 4) xyxy, padded-image pixels, row by row.
        """
        levels = []
        for level, (height, width) in enumerate(map_sizes):
            cell = self.get_buffer(f"cell{level}")
            step_y = step_x = self.strides[level]
            if self.stride_from_maps:
                step_y, step_x = padded_size[0] // height, padded_size[1] // width
            y = torch.arange(height, device=cell.device, dtype=cell.dtype) * step_y
            x = torch.arange(width, device=cell.device, dtype=cell.dtype) * step_x
            shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
            shift = torch.stack([shift_x, shift_y, shift_x, shift_y], -1)  # (height, width, 4)
            levels.append((shift[:, :, None] + cell).reshape(-1, 4))
        return levels


class DefaultBoxes(nn.Module):
    """Boxes of some shapes in the middle of every cell of every map (Liu et al. 2016, section 2.2).

    The shapes of a cell, in this order: a square of the map's size s, one of the root of s and the
    next map's size, and for each ratio r the box of s * sqrt(r) by s / sqrt(r), lying and standing.
    Computed as torchvision does, to the bit.

    Args:
        sizes: of each map, as a share of the image's sides, and one more behind the last.
        ratios: of each map, the ratios of a long to a short side beside 1.
        steps: pixels between the cells of each map; None: the image's side by the map's.
        capped: no box is wider or higher than the image (torchvision, ssd.pytorch).
        rounded: corners, and last pixels, are whole pixels (mmdetection 1).

    Attributes:
        per_level: boxes of a cell of each map.
    """

    def __init__(
        self,
        sizes: Sequence[float],
        ratios: Sequence[Sequence[float]],
        *,
        steps: Sequence[float] | None = None,
        capped: bool = False,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        self.rounded = rounded
        if len(sizes) != len(ratios) + 1 or (steps is not None and len(steps) != len(ratios)):
            raise OptionError(
                f"{len(ratios)} maps have default boxes, so anchor_sizes needs {len(ratios) + 1} "
                f"sizes, the last for the second square of the last map; got {len(sizes)}"
            )
        numbers = [*sizes, *(ratio for own in ratios for ratio in own)]
        if not all(0 < number < math.inf for number in numbers):
            raise OptionError("anchor sizes and ratios must be above 0 and finite")
        self.steps = None if steps is None else tuple(steps)
        self.per_level = tuple(2 + 2 * len(own) for own in ratios)
        for level, own in enumerate(ratios):
            size, between = sizes[level], math.sqrt(sizes[level] * sizes[level + 1])
            shapes = [(size, size), (between, between)]
            for ratio in own:
                long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
                shapes += [(long, short), (short, long)]
            shape = torch.as_tensor(shapes)  # (A, 2) width, height
            self.register_buffer(
                f"cell{level}", shape.clamp(max=1) if capped else shape, persistent=False
            )

    def forward(
        self, map_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]
    ) -> list[Tensor]:
        """Return the boxes of each map; see `AnchorGenerator.forward`."""
        levels = []
        for level, (height, width) in enumerate(map_sizes):
            shape = self.get_buffer(f"cell{level}")
            across: float = width
            down: float = height
            if self.steps is not None:
                across, down = (
                    padded_size[1] / self.steps[level],
                    padded_size[0] / self.steps[level],
                )
            y = (torch.arange(height, device=shape.device) + 0.5) / down
            x = (torch.arange(width, device=shape.device) + 0.5) / across
            centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack([centre_x, centre_y], -1).to(shape.dtype)[:, :, None]
            half = 0.5 * shape
            corners = torch.stack([centre - half, centre + half], -2)  # (h, w, A, 2, 2)
            sides = (corners[..., 0] * padded_size[1], corners[..., 1] * padded_size[0])
            found = torch.stack(sides, -1).reshape(-1, 4)
            levels.append(_whole(found) if self.rounded else found)
        return levels


def _whole(boxes: Tensor) -> Tensor:
    """Return boxes (N, 4) whose first and last pixels are whole, halves going to the even one."""
    last, halves = boxes.new_tensor([0, 0, 1, 1]), (boxes * 2).round() / 2
    # Of boxes with whole sides many corners are halves, which single precision may miss.
    return (torch.where((boxes - halves).abs() < 1e-3, halves, boxes) - last).round() + last
