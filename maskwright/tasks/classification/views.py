"""How a classifier looks at an image: once, mirrored as well, or at corners and middle.

The probabilities of several looks are averaged (Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...structures import Images
from .settings import Cut

TINY = 1e-7  # a probability of 0 would have no logit


def collate(photos: Sequence[np.ndarray], cut: Cut) -> Images:
    """Return photos as network input: for each its square, or five of them one after the other.

    Args:
        photos: (H, W, 3) uint8 RGB each.
        cut: the rule.
    """
    squares = [square for photo in photos for square in _squares(photo, cut)]
    side = cut.preprocess.crop
    pixels = torch.zeros(len(squares), 3, side, side)
    for place, square in enumerate(squares):
        pixels[place] = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))
    sizes = torch.full((len(squares), 2), side)
    own = [photo.shape[:2] for photo in photos for _ in range(cut.count)]
    return Images(pixels, sizes, torch.tensor(own, dtype=torch.int64).view(-1, 2))


def _squares(photo: np.ndarray, cut: Cut) -> list[np.ndarray]:
    """Return the middle of a scaled photo, or its corners and the middle, (side, side, 3) each."""
    scaled = scale_photo(photo, cut)
    side = cut.preprocess.crop
    height, width = scaled.shape[:2]
    top, left = round((height - side) / 2), round((width - side) / 2)  # as torchvision rounds
    places = [(top, left)]
    if cut.corners:
        below, right = height - side, width - side
        places = [(0, 0), (0, right), (below, 0), (below, right), (top, left)]
    return [scaled[y : y + side, x : x + side] for y, x in places]


def scale_photo(photo: np.ndarray, cut: Cut) -> np.ndarray:
    """Return a photo scaled to the short side of the rule, as Pillow does it."""
    from PIL import Image

    rule = cut.preprocess
    height, width = rule.target_size(*photo.shape[:2])
    if (height, width) == photo.shape[:2]:
        return photo
    kind = (
        Image.Resampling.BICUBIC if rule.interpolation == "bicubic" else Image.Resampling.BILINEAR
    )
    return np.asarray(Image.fromarray(photo).resize((width, height), kind))


def look(network: Any, model: Any, images: Images, tta: str | None) -> Tensor:
    """Return the logits (B, C) of B images; of several looks those of the mean probability.

    Args:
        network: gives the logits of images.
        model: tells the probabilities of logits.
        images: B images, with `tta` "tencrop" five squares of each.
        tta: see `ClassificationSettings`.
    """
    logits: Tensor = network(images).float()
    if tta is None:
        return logits
    mirrored = Images(images.pixels.flip(3), images.sizes, images.original_sizes)
    both = torch.stack([logits, network(mirrored).float()])
    probs: Tensor = model.probabilities(both).mean(0)
    if tta == "tencrop":
        probs = probs.unflatten(0, (-1, 5)).mean(1)
    probs = probs.clamp(TINY, 1 - TINY)
    return probs.logit() if model.multilabel else probs.log()
