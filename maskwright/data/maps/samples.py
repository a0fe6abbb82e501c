"""From an image and its label map to network input: scale, crop, flips, turns, and colours.

The geometry is one `View`, as for objects: the image is resampled once, and each of its pixels gets
the label of the pixel of the map in which its centre lies, so that labels are never mixed and
never shifted. Crops of which one class fills too much are drawn again (as mmsegmentation does with
`cat_max_ratio`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.structures import IGNORED, Resize

from ..augment.colours import photometric
from ..augment.view import View
from ..pixels.large import large_image
from ..pixels.resizing import resize_image
from ..records import Dataset

CROP_TRIES = 10  # windows drawn before one is taken that a class fills


@dataclass(frozen=True)
class MapAugment:
    """Random changes of a training image with its label map. Every probability lies in [0, 1].

    Attributes:
        scale: (low, high) factor, drawn evenly, on top of the resize rule of the model.
        crop: (height, width) in network-input pixels of a random window, or one side for both;
            smaller images are padded to it, and what is added is ignored. None: the whole image.
        class_limit: largest share of one class among the pixels of a crop that count; a crop that
            has more, or one class only, is drawn again a few times. 1: any crop.
        flip: probability of mirroring left and right.
        vflip: probability of mirroring top and bottom.
        rotate90: probability of a turn by 90, 180 or 270 degrees.
        photometric: change brightness, contrast, saturation and hue, each with probability 1/2.
        tile: of an image with a longer side a random square of so many of its pixels stands for it;
            None: the whole image.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    crop: int | tuple[int, int] | None = 512
    class_limit: float = 1.0
    flip: float = 0.5
    vflip: float = 0.0
    rotate90: float = 0.0
    photometric: bool = False
    tile: int | None = None

    def __post_init__(self) -> None:
        for name in ("flip", "vflip", "rotate90"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise OptionError(f"scale is (low, high) with 0 < low <= high, got {self.scale}")
        if not 0 < self.class_limit <= 1:
            raise OptionError(
                f"class_limit is a share, above 0 and at most 1, got {self.class_limit}"
            )
        if self.crop is not None and min(self.crop_size) < 1:
            raise OptionError(f"crop must be at least one pixel, got {self.crop}")

    def part(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of what is seen of an image of a size."""
        return size if self.tile is None else (min(size[0], self.tile), min(size[1], self.tile))

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width) of the window; only with a crop."""
        assert self.crop is not None
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


@dataclass(frozen=True)
class MapSample:
    """One image with its label map as the network sees them, before padding.

    Attributes:
        original_size: (height, width) of the file.
        pixels: (3, h, w) float32, 0 to 255.
        labels: (h, w) uint8, `IGNORED` where nothing counts.
    """

    original_size: tuple[int, int]
    pixels: Tensor
    labels: Tensor


def make_map_sample(
    dataset: Dataset, index: int, resize: Resize, augment: MapAugment, rng: np.random.Generator
) -> MapSample:
    """Load an image and its label map and bring both to network input.

    Args:
        dataset: images with label maps.
        index: position of the image.
        resize: resize rule of the model.
        augment: random changes.
        rng: source of all randomness.

    Raises:
        ValueError: if a file cannot be read, or the two have different sizes.
    """
    labels = map_of(dataset, index)
    whole = (labels.shape[0], labels.shape[1])
    size = augment.part(whole)
    if size == whole:
        image = dataset.image(index)
    else:
        y, x = draw_place(whole, size, rng)
        place = slice(y, y + size[0]), slice(x, x + size[1])
        large = large_image(dataset, index)
        if large.shape[:2] != whole:
            raise ValueError(
                f"{dataset[index].path} has {large.shape[0]} x {large.shape[1]} pixels, its label "
                f"map {whole[0]} x {whole[1]}"
            )
        image, labels = large[place], labels[place]
    view = draw_map_view(size, resize, augment, rng)
    if augment.crop is not None:
        view = _draw_window(labels, view, augment, rng)
    pixels = resize_image(image, view.full, resize, window=view.window)
    pixels = view.orient_pixels(pixels)
    if augment.photometric:
        pixels = photometric(pixels, rng)
    seen = view.orient_array(sample_labels(labels, view))
    # A single pixel counts as contiguous even where its strides are negative.
    return MapSample(whole, pixels, torch.from_numpy(seen.copy()))


def draw_place(
    whole: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the first row and column of a part (height, width) of an image evenly."""
    return int(rng.integers(whole[0] - size[0] + 1)), int(rng.integers(whole[1] - size[1] + 1))


def map_of(dataset: Dataset, index: int) -> np.ndarray:
    """Return the label map of an image that must have one, (H, W) uint8.

    Raises:
        ValueError: if it has none, or see `Dataset.label_map`.
    """
    labels = dataset.label_map(index)
    if labels is None:
        raise ValueError(
            f"{dataset[index].path} has no label map: open the data with records='maps'"
        )
    return labels


def draw_map_view(
    size: tuple[int, int], resize: Resize, augment: MapAugment, rng: np.random.Generator
) -> View:
    """Draw scale, flips and turns of an image; the window is all of it.

    Args:
        size: (height, width) of the image.
        resize: resize rule of the model.
        augment: what may happen.
        rng: source of randomness.
    """
    height, width = size
    factor = rng.uniform(*augment.scale)
    full = resize.target_size(height, width)
    if factor != 1:
        factor *= resize.scale(height, width)
        full = max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
    flip, vflip, turn = rng.random(3) < (augment.flip, augment.vflip, augment.rotate90)
    turns = int(rng.integers(1, 4)) if turn else 0
    scale = (full[1] / width, full[0] / height)
    return View(full, scale, (0, 0, full[1], full[0]), bool(flip), bool(vflip), turns)


def _draw_window(
    labels: np.ndarray, view: View, augment: MapAugment, rng: np.random.Generator
) -> View:
    """Draw a window evenly; if one class fills too much of it, draw again a few times."""
    # What is turned to its side afterwards is cut out as high as the crop is wide.
    crop = augment.crop_size[::-1] if view.turns % 2 else augment.crop_size
    height, width = min(crop[0], view.full[0]), min(crop[1], view.full[1])
    tried = view
    for _ in range(CROP_TRIES):
        y = int(rng.integers(view.full[0] - height + 1))
        x = int(rng.integers(view.full[1] - width + 1))
        tried = replace(view, window=(x, y, x + width, y + height))
        if augment.class_limit == 1:
            break
        counts = np.bincount(sample_labels(labels, tried).ravel(), minlength=IGNORED + 1)[:IGNORED]
        if counts.max() < augment.class_limit * counts.sum():
            break
    return tried


def padding_share(size: tuple[int, int], resize: Resize, augment: MapAugment) -> float:
    """Return the mean share of the windows that lies beside an image, over all random scales.

    Args:
        size: (height, width) of the image.
        resize: resize rule of the model.
        augment: with a crop; turns are left out of account.
    """
    factors = np.linspace(*augment.scale, 101) * resize.scale(*size)
    covered = [
        np.minimum(np.maximum(factors * side, 1) / crop, 1)
        for side, crop in zip(size, augment.crop_size, strict=True)
    ]
    return float(1 - (covered[0] * covered[1]).mean())


def sample_labels(labels: np.ndarray, view: View) -> np.ndarray:
    """Return the label map in the window of a view: of each pixel that in which its centre lies.

    Args:
        labels: (H, W).
        view: its full size and its window are used.

    Example:
        >>> view = View((2, 6), (2.0, 2.0), (1, 0, 5, 2))
        >>> sample_labels(np.array([[1, 2, 3]]), view)[0].tolist()
        [1, 2, 2, 3]
    """
    x1, y1, x2, y2 = view.window
    rows = nearest(labels.shape[0], view.full[0])[y1:y2]
    columns = nearest(labels.shape[1], view.full[1])[x1:x2]
    seen: np.ndarray = labels[rows[:, None], columns]
    return seen


def nearest(old: int, new: int) -> np.ndarray:
    """Return (new,) int64: the old pixel in which the centre of each new one lies.

    In whole numbers: where a centre lies on an edge, the pixel behind it is taken.
    """
    return (2 * np.arange(new) + 1) * old // (2 * new)
