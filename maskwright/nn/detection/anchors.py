"""Anchors of a pyramid (Ren et al. 2015, section 3.1.1; Lin et al. 2017: one size per level)."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        rounded: round the corners to whole pixels, half to even (torchvision).
        stride_from_maps: take padded side // map side as the stride, per axis (torchvision).

    Attributes:
        per_cell: anchors of one cell (the same on all levels); ratio outer, size inner.
    """

    def __init__(
        self,
        sizes: Sequence[float | Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        *,
        rounded: bool = False,
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
        for level, sides in enumerate(per_level):
            height_ratio = torch.as_tensor(tuple(ratios)).sqrt()
            side = torch.as_tensor(sides, dtype=torch.float32)
            widths = ((1 / height_ratio)[:, None] * side).flatten()
            heights = (height_ratio[:, None] * side).flatten()
            cell = torch.stack([-widths, -heights, widths, heights], 1) / 2
            self.register_buffer(
                f"cell{level}", cell.round() if rounded else cell, persistent=False
            )

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
