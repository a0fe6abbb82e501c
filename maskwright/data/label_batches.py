"""Batches of images with labels: what classifiers train on; mixed, smoothed, balanced.

mixup: Zhang et al. 2018. CutMix: Yun et al. 2019, with the share recomputed from the box as it was
clipped. Images are mixed in pairs that stand side by side in a block, both with the same share, so
that two processes with an even batch make what one makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.structures import Images, Labels, Preprocess

from .batches import Chance
from .label_samples import LabelAugment, augmented, centred, ten_crops
from .records import Dataset
from .sampling import weighted_order

TEN = 10


class LabelBatches:
    """Makes batches of images with their labels; see `batches.Batches`.

    Args:
        dataset: images with labels.
        fit: how a photo becomes network input.
        augment: random changes; None: the middle of the photo, as at test.
        multilabel: an image may have several labels, or none.
        weights: (C,) how much the loss of each class counts; None: all the same.
        ten_crop: ten views of each image, one after the other: a batch of B images has 10 B
            rows of pixels and B labels. Only without `augment`.

    Raises:
        OptionError: if options contradict each other.
        ValueError: if the data has no labels, or several an image where there must be one.
    """

    def __init__(
        self,
        dataset: Dataset,
        fit: Preprocess,
        augment: LabelAugment | None,
        *,
        multilabel: bool = False,
        weights: Sequence[float] | np.ndarray | None = None,
        ten_crop: bool = False,
    ) -> None:
        if dataset.records != "labels":
            raise ValueError(f"{dataset.source} has objects but no labels of images")
        if dataset.multilabel and not multilabel:
            raise ValueError(_not_one(dataset))
        if ten_crop and augment is not None:
            raise OptionError("ten_crop is for evaluation: leave out the augmentation, or it")
        if multilabel and augment is not None and augment.smoothing:
            raise OptionError(
                f"smoothing={augment.smoothing} divides one label among all classes: with several "
                "labels an image leave it at 0"
            )
        self.dataset = dataset
        self.fit = fit
        self.augment = augment
        self.ten_crop = ten_crop
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def make(self, indices: list[int], others: list[int], chance: Chance) -> tuple[Images, Labels]:
        """Return the images, all of one size, and their labels."""
        dataset, augment, fit = self.dataset, self.augment, self.fit
        views: list[Tensor] = []
        probs = torch.zeros(len(indices), len(dataset.names))
        sizes: list[tuple[int, int]] = []
        for row, draw in enumerate(indices):
            index = draw % len(dataset)
            image = dataset.image(index)
            sizes.append((image.shape[0], image.shape[1]))
            if augment is not None:
                views.append(augmented(image, fit, augment, chance.of(draw)))
            else:
                views.append(ten_crops(image, fit) if self.ten_crop else centred(image, fit))
            probs[row, dataset.labels_of(index)] = 1
        many = TEN if self.ten_crop else 1
        pixels = torch.zeros(0, dataset.num_channels, fit.crop, fit.crop)
        if views:
            pixels = torch.cat(views) if self.ten_crop else torch.stack(views)
        if augment is not None:
            probs = probs * (1 - augment.smoothing) + augment.smoothing / len(dataset.names)
            pixels, probs = mixed(pixels, probs, augment, chance.of_block())
        originals = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        images = Images(
            pixels,
            torch.full((len(pixels), 2), fit.crop, dtype=torch.int64),
            originals.repeat_interleave(many, 0),
        )
        return images, Labels(probs, self.weights)


def mixed(
    pixels: Tensor, probs: Tensor, augment: LabelAugment, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return images mixed in pairs, all by mixup or all by CutMix; the last of an odd number alone.

    Args:
        pixels: (B, 3, H, W).
        probs: (B, C).
        augment: alpha of both ways.
        rng: random numbers of the whole block.
    """
    ways = [way for way in ("mixup", "cutmix") if getattr(augment, way)]
    if not ways:
        return pixels, probs
    way = ways[int(rng.integers(len(ways)))]
    alpha = getattr(augment, way)
    share = float(rng.beta(alpha, alpha))
    height, width = pixels.shape[-2:]
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    partner = torch.arange(len(pixels)) ^ 1
    partner[partner >= len(pixels)] -= 1  # the last of an odd number is its own
    if way == "mixup":
        pixels = share * pixels + (1 - share) * pixels[partner]
    else:
        (x1, y1, x2, y2), share = cut_box(share, centre, (height, width))
        whole, pixels = pixels, pixels.clone()
        pixels[..., y1:y2, x1:x2] = whole[partner][..., y1:y2, x1:x2]
    return pixels, share * probs + (1 - share) * probs[partner]


def cut_box(
    share: float, centre: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int, int, int], float]:
    """Return the xyxy of a rectangle within the image, and the share of the image it leaves.

    Args:
        share: what it would leave if nothing were clipped.
        centre: x and y.
        size: (height, width) of the image.

    Reference: Yun et al. 2019, equation 2.
    """
    (x, y), (height, width) = centre, size
    half = 0.5 * math.sqrt(1 - share)
    dx, dy = int(half * width), int(half * height)
    x1, y1, x2, y2 = max(x - dx, 0), max(y - dy, 0), min(x + dx, width), min(y + dy, height)
    return (x1, y1, x2, y2), 1 - (x2 - x1) * (y2 - y1) / (width * height)


def balanced_draws(
    dataset: Dataset, weights: Sequence[float] | np.ndarray
) -> Callable[[np.random.Generator], np.ndarray]:
    """Return what draws the images of an epoch by the weights of their classes, for `load_batches`.

    Args:
        dataset: images with labels.
        weights: (C,), see `sampling.class_weights`.
    """
    images, classes = dataset.classes_of_images()
    if dataset.multilabel:
        labels = np.zeros((len(dataset), len(dataset.names)), bool)
        labels[images, classes] = True
    else:
        labels = classes

    def draw(rng: np.random.Generator) -> np.ndarray:
        return weighted_order(labels, weights, len(dataset), rng)

    return draw


def _not_one(dataset: Dataset) -> str:
    images, _ = dataset.classes_of_images()
    counts = np.bincount(images, minlength=len(dataset))
    wrong = np.flatnonzero(counts != 1)
    record = dataset[int(wrong[0])]
    return (
        f"{dataset.source}: {len(wrong)} of {len(dataset)} images have not exactly one label, the "
        f"first: {record.path} with {counts[wrong[0]]}; multilabel=true learns several labels"
    )
