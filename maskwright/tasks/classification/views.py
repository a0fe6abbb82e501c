"""How a classifier looks at an image: once, mirrored as well, or at corners and middle.

The probabilities of several looks are averaged (Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.label_samples import centred, ten_crops
from ...structures import Images
from .settings import Cut

TINY = 1e-7  # a probability of 0 would have no logit


def collate(photos: Sequence[np.ndarray], cut: Cut) -> Images:
    """Return photos as network input: for each its square, or ten of them one after the other.

    Args:
        photos: (H, W, 3) uint8 RGB each.
        cut: the rule.
    """
    fit = cut.preprocess
    if cut.ten:
        pixels = torch.cat([ten_crops(photo, fit) for photo in photos])
    else:
        pixels = torch.stack([centred(photo, fit) for photo in photos])
    own = torch.tensor([photo.shape[:2] for photo in photos], dtype=torch.int64)
    sizes = torch.full((len(pixels), 2), fit.crop, dtype=torch.int64)
    return Images(pixels, sizes, own.repeat_interleave(cut.count, 0))


def look(network: Any, model: Any, images: Images, tta: str | None) -> Tensor:
    """Return the logits (B, C) of B images; of several looks those of the mean probability.

    Args:
        network: gives the logits of images.
        model: tells the probabilities of logits.
        images: B images, with `tta` "tencrop" ten squares of each.
        tta: see `ClassificationSettings`.
    """
    logits: Tensor = network(images).float()
    if tta is None:
        return logits
    if tta == "tencrop":
        looks = model.probabilities(logits).unflatten(0, (-1, 10))
    else:
        mirrored = Images(images.pixels.flip(3), images.sizes, images.original_sizes)
        looks = model.probabilities(torch.stack([logits, network(mirrored).float()], 1))
    probs: Tensor = looks.mean(1).clamp(TINY, 1 - TINY)
    return probs.logit() if model.multilabel else probs.log()
