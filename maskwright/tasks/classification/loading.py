"""Batches of images and labels: augmented for a training, cut at the middle for a validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...data.batches import Chance
from ...data.records import Dataset
from ...structures import Images, Labels
from .settings import Cut
from .views import collate


@dataclass(frozen=True)
class TestBatches:
    """Makes batches of images as a prediction sees them, with their labels.

    Attributes:
        dataset: images with labels.
        cut: the rule.
    """

    dataset: Dataset
    cut: Cut

    def make(self, indices: list[int], others: list[int], chance: Chance) -> tuple[Images, Labels]:
        """Return the images and their labels; see `data.batches.Batches`."""
        images = collate([self.dataset.image(index) for index in indices], self.cut)
        return images, labels_of(self.dataset, indices)


def labels_of(dataset: Dataset, indices: list[int]) -> Labels:
    """Return the labels of images, 1 for each of theirs."""
    probs = np.zeros((len(indices), len(dataset.names)), np.float32)
    for row, index in enumerate(indices):
        probs[row, dataset[index].image_labels] = 1
    return Labels(torch.from_numpy(probs))
