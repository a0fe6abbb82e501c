"""Which part of an image is seen: the patches and the larger canvases that SSD is trained on.

Liu et al. 2016, section 2.2 and 3.6, with the numbers of their published code. A patch is a
rectangle of original pixels, which on a canvas reaches beyond the image; nothing is resampled here.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from maskwright.ops.boxes import box_iou
from maskwright.ops.rle import Frame

# IoU that a patch has with some object at least; None: any patch. The seventh is the whole image.
OVERLAPS: tuple[float | None, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, None)
TRIES = 50  # patches that are tried for each of them
SMALLEST = 0.3  # of the sides of a patch, as a share of the image's, at a ratio of 1
RATIO = 2.0  # largest ratio of these shares
LARGEST = 4.0  # sides of a canvas, as multiples of the image's


def draw_patch(
    size: tuple[int, int],
    boxes: np.ndarray,
    rng: np.random.Generator,
    *,
    expand: float = 0.0,
    patches: bool = False,
) -> Frame:
    """Draw the part of an image that is seen.

    Args:
        size: (height, width) of the image.
        boxes: (n, 4) xyxy of its objects.
        rng: source of the randomness.
        expand: probability of a canvas larger than the image, of which it fills a part.
        patches: draw one of seven rules that a patch keeps to, among those that some patch did.

    Returns:
        xyxy in whole original pixels, perhaps beyond the image.
    """
    height, width = size
    x = y = 0.0
    if rng.random() < expand:
        times = rng.uniform(1, LARGEST)
        x, y = (-rng.uniform(0, side * (times - 1)) for side in (width, height))
        width, height = width * times, height * times  # type: ignore[assignment]
    patch = (x, y, x + width, y + height)
    if patches:
        # The first rule in a random order that can be kept: each that can is as likely.
        for rule in rng.permutation(len(OVERLAPS) + 1):
            if rule == len(OVERLAPS):
                break
            found = _sampled(patch, boxes.astype(np.float64), OVERLAPS[rule], rng)
            if found is not None:
                patch = found
                break
    x1, y1 = math.floor(patch[0] + 0.5), math.floor(patch[1] + 0.5)
    x2, y2 = math.floor(patch[2] + 0.5), math.floor(patch[3] + 0.5)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def draw_tile(
    size: tuple[int, int], boxes: np.ndarray, side: int, rng: np.random.Generator
) -> Frame:
    """Draw a part of a large image at full resolution.

    Half of them show an object that is drawn first, so that those of sparse images are learned, the
    others lie anywhere, so that the background is.

    Args:
        size: (height, width) of the image.
        boxes: (n, 4) xyxy of its objects.
        side: of the square, which is cut to the image.
        rng: source of the randomness.

    Returns:
        xyxy in whole original pixels inside the image.
    """
    lengths = [min(side, length) for length in size]
    room = [length - part for length, part in zip(size, lengths, strict=True)]
    y, x = (int(rng.integers(most + 1)) for most in room)
    centred, place = rng.random() < 0.5, rng.uniform(0, 1, 2)
    if centred and len(boxes):
        box = boxes[int(rng.integers(len(boxes)))]
        middle = (box[:2] + box[2:]) / 2  # of the object, which comes to lie anywhere in the tile
        x = int(min(max(middle[0] - place[0] * lengths[1], 0), room[1]))
        y = int(min(max(middle[1] - place[1] * lengths[0], 0), room[0]))
    return x, y, x + lengths[1], y + lengths[0]


def _sampled(
    canvas: tuple[float, float, float, float],
    boxes: np.ndarray,
    overlap: float | None,
    rng: np.random.Generator,
) -> tuple[float, float, float, float] | None:
    """Return the first of some patches whose IoU with an object is large enough, or None."""
    left, top, width, height = canvas[0], canvas[1], canvas[2] - canvas[0], canvas[3] - canvas[1]
    side = rng.uniform(SMALLEST, 1, TRIES)
    ratio = rng.uniform(np.maximum(1 / RATIO, side**2), np.minimum(RATIO, 1 / side**2))
    share = np.stack([side * np.sqrt(ratio), side / np.sqrt(ratio)], 1).clip(max=1)
    corner = rng.uniform(0, 1, (TRIES, 2)) * (1 - share)
    low = corner * (width, height) + (left, top)
    patches = np.concatenate([low, low + share * (width, height)], 1)  # (TRIES, 4)
    if overlap is not None:
        overlaps = box_iou(torch.from_numpy(patches), torch.from_numpy(boxes)).numpy()
        kept = np.flatnonzero((overlaps >= overlap).any(1))
        if not len(kept):
            return None
        patches = patches[kept]
    x1, y1, x2, y2 = patches[0].tolist()
    return x1, y1, x2, y2
