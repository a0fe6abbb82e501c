"""Random colours of images: a mild change, and the strong one that SSD is trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def photometric(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of (C, h, w) pixels, 0 to 255.

    Where C is not 3 there is no saturation and no hue, and contrast turns around the mean of all.
    """
    from torchvision.transforms.v2 import functional as tv

    changes: list[tuple[Any, float, float]] = [
        (tv.adjust_brightness, 0.75, 1.25),
        (tv.adjust_contrast, 0.6, 1.4),
        (tv.adjust_saturation, 0.6, 1.4),
        (tv.adjust_hue, -0.05, 0.05),
    ]
    if len(pixels) != 3:
        changes = [(_brightness, 0.75, 1.25), (_contrast, 0.6, 1.4)]
    unit = pixels / 255
    for change, low, high in changes:
        if rng.random() < 0.5:
            unit = change(unit, rng.uniform(low, high))
    return torch.clamp(unit * 255, 0, 255)


def _brightness(unit: Tensor, factor: float) -> Tensor:
    return (unit * factor).clamp(0, 1)


def _contrast(unit: Tensor, factor: float) -> Tensor:
    """Change the contrast of (C, h, w) from 0 to 1 around its mean."""
    return torch.lerp(unit.mean().expand_as(unit), unit, factor).clamp(0, 1)


def distort(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the same as SSD is trained (Liu et al. 2016, section 2.2, after Howard 2013).

    With probability 1/2 each: up to 32 steps more or less brightness; contrast, a factor of all
    samples, and saturation by 0.5 to 1.5; hue by up to 18 degrees. Contrast comes before or after
    the last two. Channels stay in their order, as in the published trainings.

    Args:
        pixels: (C, h, w) float32, 0 to 255; where C is not 3, saturation and hue stay.
        rng: source of the randomness.
    """
    if rng.random() < 0.5:
        pixels = (pixels + rng.uniform(-32, 32)).clamp(0, 255)
    first, contrast = rng.random() < 0.5, rng.random() < 0.5
    factor = rng.uniform(0.5, 1.5) if contrast else 1.0
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-18, 18) if rng.random() < 0.5 else 0.0
    if contrast and first:
        pixels = (pixels * factor).clamp(0, 255)
    if len(pixels) == 3 and (saturation != 1 or hue):
        pixels = turn_colours(pixels, saturation=saturation, hue=hue)
    if contrast and not first:
        pixels = (pixels * factor).clamp(0, 255)
    return pixels


def turn_colours(pixels: Tensor, *, saturation: float, hue: float) -> Tensor:
    """Return (3, h, w) pixels of 0 to 255 with another saturation and hue in HSV.

    Args:
        pixels: red, green and blue.
        saturation: factor; what would pass 1 is 1.
        hue: degrees to turn the colours by.
    """
    red, green, blue = pixels
    value = pixels.amax(0)
    spread = value - pixels.amin(0)
    some = spread.clamp(min=1e-6)
    # Sixths of the circle: from red at 0 over green at 2 to blue at 4.
    angle = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, (blue - red) / some + 2, (red - green) / some + 4),
    )
    chroma = torch.minimum(spread * saturation, value)
    shift = torch.tensor([5.0, 3.0, 1.0])[:, None, None] + hue / 60
    k = (angle + shift).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
