"""How many pixels each class has in a data set, and what each should count in a loss for that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskwright.structures import IGNORED
from maskwright.terminal import console

from ..records import Dataset
from .samples import map_of

IntArray = npt.NDArray[np.int64]


@dataclass
class PixelCounts:
    """Pixels of the classes of a data set; C classes.

    Attributes:
        pixels: (C,) int64, of each class.
        images: (C,) int64, images that show it.
        around: (C,) int64, all pixels of these images that are not ignored.
        ignored: pixels that are ignored.
    """

    pixels: IntArray
    images: IntArray
    around: IntArray
    ignored: int = 0

    @classmethod
    def none(cls, classes: int) -> PixelCounts:
        """Return the counts of no image."""
        pixels, images, around = (np.zeros(classes, np.int64) for _ in range(3))
        return cls(pixels, images, around)

    def add(self, labels: np.ndarray) -> IntArray:
        """Count an image, (H, W) uint8, and return its pixels of each class, (C,)."""
        found = np.bincount(labels.ravel(), minlength=IGNORED + 1)
        own = found[: len(self.pixels)].astype(np.int64)
        self.pixels += own
        self.images += own > 0
        self.around += np.where(own > 0, own.sum(), 0)
        self.ignored += int(found[IGNORED])
        return own

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """(C,) share of each class of the pixels that are not ignored."""
        return self.pixels / max(int(self.pixels.sum()), 1)


def count_pixels(dataset: Dataset, *, enabled: bool = True) -> PixelCounts:
    """Count the pixels of all label maps, one after the other.

    Args:
        dataset: images with label maps.
        enabled: False shows no progress, for all processes but the first.

    Raises:
        ValueError: if a label map cannot be used.
    """
    counts = PixelCounts.none(len(dataset.names))
    label = f"pixels of classes, {dataset.split}"
    for index in console.track(range(len(dataset)), label, unit="img", enabled=enabled):
        counts.add(map_of(dataset, index))
    return counts


def median_weights(dataset: Dataset, *, enabled: bool = True) -> npt.NDArray[np.float64]:
    """Return how much each class counts in a loss, of the pixels that are counted for it.

    Args:
        dataset: the training images.
        enabled: see `count_pixels`.

    Raises:
        ValueError: see `count_pixels` and `median_frequency`.
    """
    return median_frequency(count_pixels(dataset, enabled=enabled))


def median_frequency(counts: PixelCounts) -> npt.NDArray[np.float64]:
    """Return how much each class counts in a loss: the median of the frequencies over its own.

    The frequency of a class is its share of the pixels of those images that show it.

    Args:
        counts: of the training images.

    Returns:
        (C,) above 0; 0 for classes without a pixel.

    Raises:
        ValueError: if no class has a pixel.

    Reference: Eigen and Fergus 2015; so do SegNet's authors on CamVid.

    Example:
        >>> counts = PixelCounts.none(2)
        >>> counts.add(np.array([[0, 0, 0, 1]])).tolist()
        [3, 1]
        >>> median_frequency(counts).round(3).tolist()
        [0.667, 2.0]
    """
    there = counts.pixels > 0
    if not there.any():
        raise ValueError("weights of classes need label maps with pixels of them, got none")
    frequency = counts.pixels[there] / counts.around[there]
    weights = np.zeros(len(there))
    weights[there] = np.median(frequency) / frequency
    return weights
