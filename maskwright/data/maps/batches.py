"""Batches of images with label maps: what semantic segmentation trains on and is scored with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskwright.structures import IGNORED, Images, LabelMaps, Resize

from ..batches import Chance
from ..pixels.resizing import collate_images, resize_image
from ..records import Dataset
from .samples import MapAugment, MapSample, draw_map_view, draw_place, make_map_sample, map_of


class MapBatches:
    """Makes batches of images with the class of every pixel; see `batches.Batches`.

    Args:
        dataset: images with label maps.
        resize: resize rule of the model.
        augment: random changes; None: the whole image, for evaluation.
        divisor: padded sides are multiples of it.
        buckets: allowed padded (height, width) of whole images, see `collate_images`.
        weights: (C,) how much the loss of each class counts; None: all the same.

    Raises:
        ValueError: if the images have no label maps.
    """

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        augment: MapAugment | None,
        *,
        divisor: int = 1,
        buckets: Sequence[tuple[int, int]] | None = None,
        weights: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        if dataset.records != "maps":
            raise ValueError(f"{dataset.source} has no label maps: open it with records='maps'")
        self.dataset = dataset
        self.resize = resize
        self.augment = augment
        self.divisor = divisor
        self.buckets = buckets
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def make(
        self, indices: list[int], others: list[int], chance: Chance
    ) -> tuple[Images, LabelMaps | tuple[Tensor, ...]]:
        """Return the images and their labels.

        For training `LabelMaps`, of the size of the padded images: with a crop of its size, else
        of that of the largest image of the block. For evaluation the label map (H, W) uint8 of
        each image in its original pixels, in which it is scored.
        """
        if self.augment is None:
            return self._whole(indices)
        samples = [
            make_map_sample(
                self.dataset, draw % len(self.dataset), self.resize, self.augment, chance.of(draw)
            )
            for draw in indices
        ]
        buckets, sizes = self.buckets, []
        if self.augment.crop is not None:
            side = [math.ceil(s / self.divisor) * self.divisor for s in self.augment.crop_size]
            buckets = [(side[0], side[1])]
            sizes = [self.augment.crop_size] * len(others)
        else:
            sizes = [self._size(draw, chance) for draw in others]
        images = collate_images(
            [(sample.pixels, sample.original_size) for sample in samples],
            self.divisor,
            buckets,
            channels=self.dataset.num_channels,
            others=sizes,
        )
        height, width = images.pixels.shape[-2:]
        return images, LabelMaps(padded_maps(samples, (height, width)), self.weights)

    def _size(self, draw: int, chance: Chance) -> tuple[int, int]:
        """Return the size of an image that another process makes."""
        assert self.augment is not None
        whole = self.dataset[draw % len(self.dataset)].size
        size, rng = self.augment.part(whole), chance.of(draw)
        if size != whole:
            draw_place(whole, size, rng)  # the same numbers are used up
        return draw_map_view(size, self.resize, self.augment, rng).size

    def _whole(self, indices: list[int]) -> tuple[Images, tuple[Tensor, ...]]:
        """Return the images by the rule of the model alone, and the maps as they are scored."""
        pixels, maps = [], []
        for index in indices:
            image = self.dataset.image(index)
            size = (image.shape[0], image.shape[1])
            resized = resize_image(image, self.resize.target_size(*size), self.resize)
            pixels.append((resized, size))
            maps.append(torch.from_numpy(map_of(self.dataset, index)))
        return collate_images(pixels, self.divisor, self.buckets), tuple(maps)


def padded_maps(samples: Sequence[MapSample], size: tuple[int, int]) -> Tensor:
    """Return the label maps of samples (B, H, W) uint8, what lies outside of them ignored.

    Args:
        samples: B of them, possibly none.
        size: (H, W) of the padded images.
    """
    maps = torch.full((len(samples), *size), IGNORED, dtype=torch.uint8)
    for own, sample in zip(maps, samples, strict=True):
        height, width = sample.labels.shape
        own[:height, :width] = sample.labels
    return maps
