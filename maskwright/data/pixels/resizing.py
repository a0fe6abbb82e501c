"""From pixels to network input: resizing by a model's rule, and batches of unequal images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskwright.structures import Images, Resize


def resize_image(
    pixels: np.ndarray,
    size: tuple[int, int],
    rule: Resize,
    *,
    window: tuple[int, int, int, int] | None = None,
    fill: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Return the image at a new size, or a window of it, resampled once.

    Args:
        pixels: (H, W, C), 0 to 255, uint8 or float32.
        size: (height, width) of the whole image after resizing.
        rule: whose `antialias`, `corners` and `fixed_point` say how samples are made. With
            `antialias` by Pillow's bilinear filter, widened when shrinking, in the type of the
            pixels. Without by bilinear sampling of the float image without a filter, as
            torchvision's detection transform does; or, with `corners`, as Darknet does; or, with
            `fixed_point`, as OpenCV does.
        window: xyxy in whole pixels of the resized image, which may reach beyond it; None: all.
        fill: of each channel the value beyond the image; zero for all where there are more.

    Returns:
        (C, h, w) float32, 0 to 255.
    """
    height, width = size
    if window is None:
        return _resample(pixels, size, rule, (0, 0, width, height))
    x1, y1, x2, y2 = window
    inner = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if inner == tuple(window):
        return _resample(pixels, size, rule, inner)
    beyond = torch.tensor(fill, dtype=torch.float32)
    if not any(fill):
        beyond = beyond.new_zeros(pixels.shape[2])
    result = beyond[:, None, None].repeat(1, y2 - y1, x2 - x1)
    left, top, right, bottom = inner
    if right > left and bottom > top:
        part = _resample(pixels, size, rule, inner)
        result[:, top - y1 : bottom - y1, left - x1 : right - x1] = part
    return result


def _resample(
    pixels: np.ndarray, size: tuple[int, int], rule: Resize, window: tuple[int, int, int, int]
) -> Tensor:
    """Return a window that lies inside the resized image."""
    height, width = size
    x1, y1, x2, y2 = window
    if pixels.shape[:2] == (height, width):
        part = np.ascontiguousarray(pixels[y1:y2, x1:x2].transpose(2, 0, 1))
        return torch.from_numpy(part).float()
    if rule.fixed_point and pixels.dtype == np.uint8:
        made = fixed_point(pixels, size)[y1:y2, x1:x2]
        return torch.from_numpy(made.transpose(2, 0, 1).astype(np.float32))
    if not rule.antialias:
        whole = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()
        whole = F.interpolate(whole[None], size, mode="bilinear", align_corners=rule.corners)[0]
        return whole[:, y1:y2, x1:x2].contiguous()
    sx, sy = pixels.shape[1] / width, pixels.shape[0] / height
    # Pixels beyond the box still feed the filter, so a window equals the cut of the whole.
    box = (x1 * sx, y1 * sy, min(x2 * sx, pixels.shape[1]), min(y2 * sy, pixels.shape[0]))
    part = resized(pixels, (y2 - y1, x2 - x1), "bilinear", box)
    return torch.from_numpy(part.transpose(2, 0, 1).copy()).float()


def fixed_point(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (h, w, C) integers: 8-bit pixels (H, W, C) resized to the bit as OpenCV does.

    Bilinear without a filter, along rows and then along columns, with weights of eleven bits; at
    the half of both sides the mean of four.

    Args:
        pixels: (H, W, C) uint8.
        size: (height, width) of the result.
    """
    if pixels.shape[:2] == (2 * size[0], 2 * size[1]):
        four = pixels.reshape(size[0], 2, size[1], 2, -1).astype(np.int32)
        return np.asarray((four.sum((1, 3)) + 2) >> 2)
    values = torch.from_numpy(np.ascontiguousarray(pixels)).int()
    for axis in (1, 0):
        old = pixels.shape[axis]
        step = 1.0 / (size[axis] / old)
        at = ((np.arange(size[axis]) + 0.5) * step - 0.5).astype(np.float32)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32)
        if axis == 1:  # beyond the first and last column there is but one
            share[(low < 0) | (low >= old - 1)] = 0
        else:
            values >>= 4
        parts = []
        for more, weight in ((0, np.float32(1) - share), (1, share)):
            place = torch.from_numpy((low + more).clip(0, old - 1))
            factor = torch.from_numpy(np.rint(weight * np.float32(2048)).astype(np.int32))
            part = values.index_select(axis, place).mul_(
                factor[:, None] if axis else factor[:, None, None]
            )
            parts.append(part if axis else part.bitwise_right_shift_(16))
        values = parts[0].add_(parts[1])
    return values.add_(2).bitwise_right_shift_(2).numpy()


def resized(
    pixels: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Return pixels resized by Pillow with a low-pass filter, in their own type.

    Args:
        pixels: (H, W, C), uint8 or float32.
        size: (height, width) of the result.
        interpolation: "bilinear" or "bicubic"; of float32 what it overshoots is cut at 0 and 255.
        box: xyxy of the part to be resized, in pixels; None: all.
    """
    from PIL import Image

    way = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        image = Image.fromarray(pixels).resize(size[::-1], way[interpolation], box)
        return np.asarray(image)
    # Pillow has no images of other kinds with several channels.
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        for channel in range(pixels.shape[2])
    ]
    parts = [np.asarray(plane.resize(size[::-1], way[interpolation], box)) for plane in planes]
    made = np.stack(parts, -1)
    return made if made.dtype == np.uint8 else made.clip(0, 255)


def collate_images(
    images: Sequence[tuple[Tensor, tuple[int, int]]],
    divisor: int = 32,
    buckets: Sequence[tuple[int, int]] | None = None,
    *,
    others: Sequence[tuple[int, int]] = (),
    channels: int = 3,
) -> Images:
    """Put images of different sizes into one batch, padded with zeros at the right and bottom.

    Args:
        images: pairs of pixels (C, h, w) float32 and the (height, width) of the original file.
        divisor: the padded sides are multiples of it.
        buckets: allowed padded (height, width), for compiled graphs: the smallest one that holds
            the batch is taken. A batch that fits into none is padded to the divisor.
        others: (height, width) of images that are not in this batch, but would fit into it: those
            of the other processes. With them the batch may be empty.
        channels: C of a batch without images.

    Raises:
        ValueError: if there is no image, or a bucket is no multiple of the divisor.
    """
    sizes = [(pixels.shape[1], pixels.shape[2]) for pixels, _ in images]
    if not sizes and not others:
        raise ValueError("a batch needs at least one image, got none")
    height = max(size[0] for size in (*sizes, *others))
    width = max(size[1] for size in (*sizes, *others))
    fitting = []
    for bucket in buckets or ():
        if bucket[0] % divisor or bucket[1] % divisor:
            raise ValueError(f"buckets must be multiples of {divisor}, got {tuple(bucket)}")
        if bucket[0] >= height and bucket[1] >= width:
            fitting.append((bucket[0] * bucket[1], bucket))
    if fitting:
        height, width = min(fitting)[1]
    else:
        height = math.ceil(height / divisor) * divisor
        width = math.ceil(width / divisor) * divisor
    channels = images[0][0].shape[0] if images else channels
    batch = torch.zeros(len(images), channels, height, width)
    for slot, (pixels, _) in zip(batch, images, strict=True):
        slot[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return Images(
        batch,
        torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        torch.tensor([original for _, original in images], dtype=torch.int64).reshape(-1, 2),
    )
