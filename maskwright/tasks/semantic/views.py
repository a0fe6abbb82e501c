"""How a segmenter looks at an image: at several sizes, mirrored, in windows; and what comes of it.

The logits of a network are coarse: they are brought to the pixels of the original image in one
bilinear step, and only there is the best class of a pixel chosen. The softmax probabilities of
several looks are averaged. Large images are looked at in windows that overlap by half, blended with
weights that fall to the edge of a window, where it knows least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...structures import Images
from ...structures.tiling import ramps, starts
from ..views import mirror_pixels
from .settings import SemanticSettings

BAND = 2**20  # values of a band of rows that is worked on at once: they stay in the cache
HALF = 2**28  # values from which on blended logits are kept in half precision


@dataclass(frozen=True)
class SemanticFound:
    """The classes of the pixels of one image.

    Attributes:
        labels: (H, W) uint8, pixels of the original image.
        probs: (C, H, W) float32 probabilities, or None.
    """

    labels: np.ndarray
    probs: np.ndarray | None = None


@dataclass(frozen=True)
class Look:
    """What a network said of a batch at one size.

    Attributes:
        logits: (B, C, h, w), which cover the padded images.
        images: the batch; only its sizes are read.
        mirrored: the images were.
        align_corners: see `PixelNetwork`.
    """

    logits: Tensor
    images: Images
    mirrored: bool
    align_corners: bool


def look(network: Any, scaled: Sequence[Images], settings: SemanticSettings) -> list[Look]:
    """Return what a network says of the same images at each size, and mirrored if asked for.

    Args:
        network: a `Segmenter` in evaluation mode.
        scaled: the same B images at each size.
        settings: of the prediction.
    """
    views = [(images, False) for images in scaled]
    if settings.views is not None and settings.views.flip:
        views += [(mirror_pixels(images), True) for images in scaled]
    corners = network.network.align_corners
    return [
        Look(_logits(network, images, settings.slide), images, mirrored, corners)
        for images, mirrored in views
    ]


def _logits(network: Any, images: Images, slide: int | None) -> Tensor:
    """Return the logits of images, out of windows where they are larger than these."""
    height, width = images.pixels.shape[-2:]
    if slide is None or max(height, width) <= slide:
        logits: Tensor = network.coarse(images)
        return logits
    # Windows have sides that the network takes.
    sides = [min(slide + -slide % network.size_divisor, side) for side in (height, width)]
    rows, columns = starts(height, sides[0]), starts(width, sides[1])
    whole: Tensor | None = None
    for y, share_y in zip(rows, blend(height, sides[0]), strict=True):
        for x, share_x in zip(columns, blend(width, sides[1]), strict=True):
            pixels = images.pixels[..., y : y + sides[0], x : x + sides[1]]
            inside = (images.sizes - images.sizes.new_tensor([y, x])).clamp(min=0)
            part = Images(pixels, inside.minimum(inside.new_tensor(sides)), images.original_sizes)
            found = network(part)
            if whole is None:
                shape = (*found.shape[:2], height, width)
                half = math.prod(shape) > HALF
                whole = found.new_zeros(shape, dtype=torch.float16 if half else None)
            share = share_y.to(found)[:, None] * share_x.to(found)
            whole[..., y : y + sides[0], x : x + sides[1]] += (found * share).to(whole.dtype)
    assert whole is not None
    return whole


def blend(length: int, window: int) -> list[Tensor]:
    """Return the weights (window,) of the windows of `starts`: together they are 1 everywhere."""
    return [torch.tensor(weights) for weights in ramps(length, starts(length, window), window)]


def to_maps(looks: Sequence[Look], settings: SemanticSettings) -> list[SemanticFound]:
    """Return the classes of the pixels of the original images, on the CPU.

    Args:
        looks: of the same B images.
        settings: of the prediction; probabilities are there if it wants them, or a CRF will.
    """
    keep = settings.probs or settings.crf is not None
    count = len(looks[0].images)
    return [_to_map([_of_image(one, b) for one in looks], keep) for b in range(count)]


def _of_image(one: Look, b: int) -> Look:
    sizes = {name: getattr(one.images, name)[b : b + 1] for name in ("sizes", "original_sizes")}
    images = replace(one.images, pixels=one.images.pixels[b : b + 1], proposals=None, **sizes)
    return replace(one, logits=one.logits[b : b + 1], images=images)


def _to_map(looks: Sequence[Look], keep: bool) -> SemanticFound:
    """Return the classes of one image of several looks, a band of rows after the other."""
    height, width = looks[0].images.original_sizes[0].tolist()
    classes = looks[0].logits.shape[1]
    labels = np.empty((height, width), np.uint8)
    probs = np.empty((classes, height, width), np.float32) if keep else None
    axes = [_axes(one) for one in looks]
    rows = max(BAND // max(classes * width, 1), 1)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        made = [_resampled(one, *both, band) for one, both in zip(looks, axes, strict=True)]
        mean = made[0]
        if keep or len(made) > 1:
            mean = torch.stack([part.softmax(-1) for part in made]).mean(0)
        labels[band] = mean.argmax(-1).to(torch.uint8).cpu().numpy()
        if probs is not None:
            probs[:, band] = mean.permute(2, 0, 1).cpu().numpy()
    return SemanticFound(labels, probs)


def _axes(one: Look) -> tuple[Tensor, Tensor, Tensor]:
    """Return what brings logits to the original: a matrix for the rows, `between` for the columns.

    The matrix stays on the host, where its zeros are looked for. There are many columns for each
    cell, and a matrix would be nearly all zeros.
    """
    sides = []
    shapes = (one.images.sizes[0].tolist(), one.images.original_sizes[0].tolist())
    for axis, (size, original) in enumerate(zip(*shapes, strict=True)):
        padded = one.images.pixels.shape[2 + axis]
        sides.append((one.logits.shape[2 + axis], padded, size, original, one.align_corners))
    device = one.logits.device
    lower, share = between(*sides[1])
    if one.mirrored:
        lower, share = lower.flip(0), share.flip(0)
    late = device.type == "cuda"
    lower, share = (x.to(device, non_blocking=late) for x in (lower, share.float()))
    return resampling(*sides[0]), lower, share


def resampling(
    cells: int, padded: int, size: int, original: int, align_corners: bool = False
) -> Tensor:
    """Return the matrix (original, cells) of a bilinear resampling along one axis.

    Args:
        cells: values along the axis, which cover the padded input.
        padded: length of the padded input in pixels.
        size: length of the image in it.
        original: length of the original image.
        align_corners: whether the first and last cell lie on the first and last pixel of the
            input; False: each covers its share of it.
    """
    lower, share = between(cells, padded, size, original, align_corners)
    matrix = torch.zeros(original, cells, dtype=torch.float64)
    matrix.scatter_add_(1, lower[:, None], 1 - share[:, None])
    matrix.scatter_add_(1, (lower[:, None] + 1).clamp(max=cells - 1), share[:, None])
    return matrix.float()


def between(
    cells: int, padded: int, size: int, original: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the two cells that each pixel lies between; see `resampling`.

    Returns:
        (original,) int64, the cell before it, and float64, the share of the cell behind that.
    """
    # Where the centre of each original pixel lies in the input, from its first pixel's centre on.
    place = (torch.arange(original, dtype=torch.float64) + 0.5) * size / original - 0.5
    if align_corners:
        place = place * (cells - 1) / max(padded - 1, 1)
    else:
        place = (place + 0.5) * cells / padded - 0.5
    place = place.clamp(0, cells - 1)
    below = place.floor().clamp(max=max(cells - 2, 0))
    return below.long(), place - below


def _resampled(one: Look, by_row: Tensor, lower: Tensor, share: Tensor, band: slice) -> Tensor:
    """Return the logits (rows, W, C) float32 of a band of rows of the original image.

    Classes last: what is found at a place is moved, blended and compared as a whole.
    """
    used = by_row[band]
    there = used.any(0).nonzero()[:, 0]  # a band needs few of the cells
    first, last = int(there[0]), int(there[-1]) + 1
    part = one.logits[0, :, first:last].float().permute(1, 2, 0)
    used = used[:, first:last].to(part.device, non_blocking=part.is_cuda)
    rows = (used @ part.flatten(1)).unflatten(1, part.shape[1:])
    upper = (lower + 1).clamp(max=part.shape[1] - 1)
    return torch.lerp(rows[:, lower], rows[:, upper], share[:, None])
