"""Confident learning (Northcutt, Jiang, Chuang 2021): which labels the probabilities contradict.

An image is taken for one of a class where its probability reaches the mean of the images that are
labelled so: classes of which a model is rarely sure are then not all called faults. Probabilities
have to come from a model that was not trained on these labels, or they repeat their faults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .calibration import FloatArray, IntArray


@dataclass(frozen=True)
class Confident:
    """What probabilities say of the labels of N images.

    Attributes:
        thresholds: (C,) mean probability of each class over the images labelled with it; nan for a
            class without images, of which nothing is said.
        guesses: (N,) the most probable class among those at or above their threshold; -1: none is.
        joint: (C, C) images by label (rows) and guess.
        images: (C,) images by label.
    """

    thresholds: FloatArray
    guesses: IntArray
    joint: IntArray
    images: IntArray

    @property
    def share(self) -> float:
        """Estimated share of wrong labels: the joint, calibrated to the labels; nan without any.

        Reference: equation 3 of the paper, summed off the diagonal.
        """
        rows = self.joint.sum(1)
        there = rows > 0
        if not there.any():
            return math.nan
        wrong = (rows - np.diagonal(self.joint))[there] / rows[there]
        return float(np.average(wrong, weights=self.images[there]))


def confident(probs: FloatArray, labels: IntArray) -> Confident:
    """Compare labels (N,) with probabilities (N, C).

    Example:
        >>> import numpy as np
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95]])
        >>> confident(probs, np.array([0, 0, 1, 0])).guesses.tolist()
        [0, 0, 1, 1]
    """
    count = probs.shape[1]
    images = np.bincount(labels, minlength=count)
    own = probs[np.arange(len(labels)), labels]
    sums = np.bincount(labels, own, minlength=count)
    thresholds = np.divide(sums, images, out=np.full(count, np.nan), where=images > 0)
    # Rounding must not keep an image that is as sure as all others of its class.
    sure = probs >= np.where(images > 0, thresholds, np.inf) - 1e-12
    guesses = np.where(sure, probs, -1.0).argmax(1)
    guesses = np.where(sure.any(1), guesses, -1)
    joint = np.zeros((count, count), np.int64)
    np.add.at(joint, (labels[guesses >= 0], guesses[guesses >= 0]), 1)
    return Confident(thresholds, guesses, joint, images)


def margins(probs: FloatArray, labels: IntArray, guesses: IntArray) -> FloatArray:
    """Return (N,) how much likelier the guess is than the label, in [0, 1]; 0 where they agree.

    The order of "prune by noise rate" (section 3.2 of the paper).
    """
    rows = np.arange(len(labels))
    gap = probs[rows, guesses] - probs[rows, labels]
    found: FloatArray = np.where((guesses >= 0) & (guesses != labels), np.maximum(gap, 0.0), 0.0)
    return found
