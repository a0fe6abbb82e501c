"""From a photo to the input of a classifier: random crops and changes, or the middle, or ten crops.

Photos are resampled by Pillow in their own depth with a low-pass filter, as torchvision does with
`antialias`. RandomResizedCrop is that of GoogLeNet (Szegedy et al. 2015, section 6); RandAugment
(Cubuk et al. 2020), TrivialAugment (Müller and Hutter 2021) and random erasing (Zhong et al. 2020)
are torchvision's, their random numbers those of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.structures import Preprocess

from .augment.colours import photometric
from .pixels.resizing import resized

CROP_TRIES = 10
POLICIES = ("none", "randaugment", "trivialaugment")
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelAugment:
    """Random changes of a training image with labels, and of a batch of them.

    Attributes:
        scale: smallest and largest share of the area that a random crop shows.
        ratio: smallest and largest width : height of it.
        flip: probability of mirroring left and right; 0 for digits and text.
        vflip: probability of mirroring top and bottom.
        rotate90: probability of a turn by 90, 180 or 270 degrees.
        policy: "none", "randaugment" or "trivialaugment".
        operations: changes that randaugment makes, one after the other.
        magnitude: how strong they are, 0 to 30.
        photometric: change brightness, contrast, saturation and hue, each with probability 1/2.
        erase: probability that a rectangle is replaced by the mean colour.
        mixup: alpha of the Beta distribution of the shares of two mixed images; 0: never.
        cutmix: the same of a rectangle of another image; with both, each batch has one of the two.
        smoothing: share of the label that goes evenly to all classes.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vflip: float = 0.0
    rotate90: float = 0.0
    policy: str = "none"
    operations: int = 2
    magnitude: int = 9
    photometric: bool = False
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "vflip", "rotate90", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise OptionError(
                f"scale is two shares of the area, 0 < low <= high <= 1: {self.scale}"
            )
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise OptionError(f"ratio is (low, high) with 0 < low <= high, got {self.ratio}")
        if self.policy not in POLICIES:
            raise OptionError(f"policy is one of {', '.join(POLICIES)}; got {self.policy!r}")
        if self.operations < 1 or not 0 <= self.magnitude <= 30:
            raise OptionError(
                "randaugment makes at least one change of a magnitude from 0 to 30, got "
                f"operations={self.operations}, magnitude={self.magnitude}"
            )
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise OptionError(f"smoothing must lie in [0, 1), got {self.smoothing}")


def augmented(
    pixels: np.ndarray, fit: Preprocess, augment: LabelAugment, rng: np.random.Generator
) -> Tensor:
    """Return a random view of a photo.

    Args:
        pixels: (H, W, C), 0 to 255, uint8 or float32.
        fit: side of the result, interpolation, and the mean that fills what is erased.
        augment: what may happen to it.
        rng: source of all randomness.

    Returns:
        (C, crop, crop) float32, 0 to 255.
    """
    x1, y1, x2, y2 = draw_crop((pixels.shape[0], pixels.shape[1]), augment, rng)
    view = resample(pixels[y1:y2, x1:x2], (fit.crop, fit.crop), fit.interpolation)
    flip, vflip, turn = rng.random(3) < (augment.flip, augment.vflip, augment.rotate90)
    view = view[:: -1 if vflip else 1, :: -1 if flip else 1]
    if turn:
        view = np.rot90(view, int(rng.integers(1, 4)))
    made = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
    if augment.policy != "none":
        made = _with_policy(made, augment, rng)
    result = made.float()
    if augment.photometric:
        result = photometric(result, rng)
    if augment.erase and rng.random() < augment.erase:
        result = _erased(result, fit, rng)
    return result


def draw_crop(size: tuple[int, int], augment: LabelAugment, rng: np.random.Generator) -> Box:
    """Draw a crop: even in its share of the area, and in the logarithm of its width : height.

    Args:
        size: (height, width) of the photo.
        augment: the limits of both.
        rng: source of randomness.

    Returns:
        xyxy; where none fits in ten tries, the largest in the middle.
    """
    height, width = size
    low, high = augment.ratio
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*augment.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return x, y, x + w, y + h
    w = min(width, max(round(height * high), 1))
    h = min(height, max(round(width / low), 1))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def resample(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Return pixels (H, W, C), uint8 or float32, at another (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    return resized(np.ascontiguousarray(pixels), size, interpolation)


def scaled(pixels: np.ndarray, fit: Preprocess) -> np.ndarray:
    """Return a photo (H, W, C) with the short side that `fit` asks for."""
    return resample(pixels, fit.target_size(*pixels.shape[:2]), fit.interpolation)


def centred(pixels: np.ndarray, fit: Preprocess) -> Tensor:
    """Return the middle of a photo as it is seen at test, (C, crop, crop) float32, 0 to 255.

    Args:
        pixels: (H, W, C), 0 to 255, uint8 or float32.
        fit: short side, square and interpolation.
    """
    whole = scaled(pixels, fit)
    y, x = (round((side - fit.crop) / 2) for side in whole.shape[:2])
    return _cut(whole, x, y, fit.crop)


def ten_crops(pixels: np.ndarray, fit: Preprocess) -> Tensor:
    """Return corners and middle of a photo, and the same mirrored: (10, C, crop, crop) float32.

    Args:
        pixels: (H, W, C), 0 to 255, uint8 or float32.
        fit: short side, square and interpolation.

    Reference: Krizhevsky et al. 2012, section 4.1; their order is torchvision's.
    """
    whole, c = scaled(pixels, fit), fit.crop
    views = []
    for image in (whole, whole[:, ::-1]):
        height, width = image.shape[:2]
        middle = (round((width - c) / 2), round((height - c) / 2))
        corners = [(0, 0), (width - c, 0), (0, height - c), (width - c, height - c)]
        views += [_cut(image, x, y, c) for x, y in (*corners, middle)]
    return torch.stack(views)


def _cut(pixels: np.ndarray, x: int, y: int, side: int) -> Tensor:
    part = pixels[y : y + side, x : x + side].transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(part)).float()


def _with_policy(pixels: Tensor, augment: LabelAugment, rng: np.random.Generator) -> Tensor:
    """Return (3, h, w) changed by a policy of torchvision, which takes float32 from 0 to 1."""
    from torchvision.transforms import v2

    if len(pixels) != 3:
        raise OptionError(
            f"policy={augment.policy} changes red, green and blue, and these images have "
            f"{len(pixels)} channels: leave it at policy=none"
        )

    policy: Any = v2.TrivialAugmentWide()
    if augment.policy == "randaugment":
        policy = v2.RandAugment(augment.operations, augment.magnitude)
    if pixels.dtype == torch.uint8:
        return _seeded(policy, pixels, rng)
    return _seeded(policy, pixels / 255, rng) * 255


def _erased(pixels: Tensor, fit: Preprocess, rng: np.random.Generator) -> Tensor:
    from torchvision.transforms import v2

    fill = (list(fit.mean) * len(pixels))[: len(pixels)]  # as `models.channels` repeats it
    return _seeded(v2.RandomErasing(p=1.0, value=fill), pixels, rng)


def _seeded(change: Any, pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Apply a transform of torchvision; it draws from torch's own numbers, here those of `rng`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        changed: Tensor = change(pixels)
    return changed
