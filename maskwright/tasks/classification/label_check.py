"""Labels of images beside what a classifier says of them, by confident learning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ...data.records import Dataset
from ...metrics.confident import confident, margins
from ...models.meta import Meta
from ..label_check import LabelCheck, Suspect
from .evaluate import ClassificationEvaluation


class ClassificationCheck(LabelCheck):
    """Compares labels of images; see `metrics.confident`. Of several labels each one by itself."""

    kinds: ClassVar[Mapping[str, str]] = {
        "class": "the model is sure of another class",
        "missing": "the model is sure of a class that the image is not labelled with",
        "false": "the model is sure that a class of the image is not there",
    }

    def suspects(
        self, result: ClassificationEvaluation, data: Dataset, meta: Meta
    ) -> list[Suspect]:
        """Return all doubts; see `LabelCheck`."""
        if result.multilabel:
            return [
                _one_of_several(result, label, index, score)
                for label in range(len(result.names))
                for index, score in _doubted(*_alone(result, label))
            ]
        probs, labels, names = result.probs, result.labels, result.names
        guesses = confident(probs, labels).guesses
        return [
            Suspect(
                "class",
                score,
                index,
                label=names[int(labels[index])],
                found=names[int(guesses[index])],
                confidence=float(probs[index, guesses[index]]),
            )
            for index, score in _doubted(probs, labels)
        ]

    def remarks(self, result: ClassificationEvaluation) -> list[str]:
        """Return how many labels are estimated to be wrong; see `LabelCheck`."""
        if result.multilabel or not len(result.labels):
            return []
        share = confident(result.probs, result.labels).share
        if math.isnan(share):
            return []
        return [
            f"about {share * len(result.labels):.0f} of {len(result.labels):,} labels "
            f"({share:.1%}) are estimated to be wrong, if the model has not seen them in training"
        ]


def _doubted(probs: np.ndarray, labels: np.ndarray) -> list[tuple[int, float]]:
    """Return the images whose label is doubted, and how much."""
    scores = margins(probs, labels, confident(probs, labels).guesses)
    return [(index, float(scores[index])) for index in np.flatnonzero(scores > 0).tolist()]


def _alone(result: ClassificationEvaluation, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (N, 2) that a class is not there, and is, and the labels (N,)."""
    there = result.probs[:, label]
    return np.stack([1 - there, there], 1), result.labels[:, label].astype(np.int64)


def _one_of_several(
    result: ClassificationEvaluation, label: int, index: int, score: float
) -> Suspect:
    name, prob = result.names[label], float(result.probs[index, label])
    if result.labels[index, label]:
        return Suspect("false", score, index, label=name, confidence=1 - prob)
    return Suspect("missing", score, index, found=name, confidence=prob)
