"""Photos in memory, scaled by the rule of a model, before they are put into one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..data.pixels.resizing import resize_image
from ..structures import Resize


def scale_photos(
    photos: Sequence[np.ndarray], resize: Resize
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Return photos as `data.pixels.images.collate_images` takes them.

    Args:
        photos: (H, W, 3) uint8 RGB each.
        resize: how they are resized.

    Returns:
        Pixels (3, h, w) float32 and the (height, width) of the photo, for each.
    """
    scaled = []
    for photo in photos:
        height, width = photo.shape[:2]
        size = resize.target_size(height, width)
        scaled.append((resize_image(photo, size, resize), (height, width)))
    return scaled
