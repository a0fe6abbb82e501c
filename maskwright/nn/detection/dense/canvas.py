"""Where a network sees the images of a batch: at the upper left, or each in the middle of grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ragged import most

STRIDE = 32  # batches are padded to multiples of it
GREY = 0.5  # around images in the middle of a canvas


@dataclass(frozen=True)
class Canvas:
    """What the network sees: images of a batch at the upper left corner, or each in the middle.

    Attributes:
        fixed: (height, width) that it always has; None: as large as the batch needs.
        unit: (height, width) of which its sides are the same multiple, where images are centred.
    """

    fixed: tuple[int, int] | None = None
    unit: tuple[int, int] | None = None

    def size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Return height and width of the canvas for a batch of this size."""
        if self.fixed is not None:
            return self.fixed
        if self.unit is None:
            return height, width
        # A batch is padded to multiples of 32 beyond what is in it.
        times = most((height - STRIDE) // self.unit[0] + 1, (width - STRIDE) // self.unit[1] + 1)
        return times * self.unit[0], times * self.unit[1]

    def corners(self, sizes: Tensor, canvas: tuple[Any, Any]) -> Tensor:
        """Return (B, 2) x and y of the upper left pixel of each image.

        Args:
            sizes: (B, 2) height and width of the images.
            canvas: height and width of the canvas.
        """
        if self.unit is None:
            return torch.zeros_like(sizes)
        free = torch.stack([canvas[1] - sizes[:, 1], canvas[0] - sizes[:, 0]], 1)
        return torch.div(free, 2, rounding_mode="floor")

    def place(self, pixels: Tensor, sizes: Tensor, canvas: tuple[Any, Any]) -> Tensor:
        """Return the canvas (B, 3, H', W') of pixels (B, 3, H, W), 0 to 1."""
        height, width = pixels.shape[-2:]
        if self.unit is None and self.fixed is None:
            return pixels
        if self.unit is None and isinstance(height, int) and isinstance(width, int):
            pixels = pixels[..., : canvas[0], : canvas[1]]
            right, below = canvas[1] - pixels.shape[-1], canvas[0] - pixels.shape[-2]
            return F.pad(pixels, (0, right, 0, below))
        x, y = self.corners(sizes, canvas).unbind(1)
        columns = torch.arange(canvas[1], device=pixels.device) - x[:, None]  # (B, W')
        rows = torch.arange(canvas[0], device=pixels.device) - y[:, None]
        shape = (pixels.shape[0], pixels.shape[1])
        taken = rows.clamp(0, height - 1)[:, None, :, None].expand(*shape, -1, width)
        moved = pixels.gather(2, taken)
        taken = columns.clamp(0, width - 1)[:, None, None, :].expand(*shape, canvas[0], -1)
        moved = moved.gather(3, taken)
        inside = ((rows >= 0) & (rows < sizes[:, :1]))[:, :, None]
        inside = inside & ((columns >= 0) & (columns < sizes[:, 1:]))[:, None, :]
        return torch.where(inside[:, None], moved, 0.0 if self.unit is None else GREY)
