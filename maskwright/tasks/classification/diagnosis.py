"""What an evaluation of classes tells beyond its metrics: confusions, mistakes, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...metrics.calibration import Calibration, bin_scores, fit_temperature
from ...metrics.classification import (
    ClassScores,
    answers_of,
    class_scores,
    confusion_matrix,
    multilabel_scores,
)
from .evaluate import ClassificationEvaluation, probabilities

MISTAKES = 16  # that are shown
CONFUSIONS = 12  # rows of the table
BINS = 15


@dataclass(frozen=True)
class Diagnosis:
    """What a report is made of.

    Attributes:
        scores: of each class.
        matrix: (C, C) images, rows true; None where an image may have several classes.
        mistakes: positions of the images that were wrongly answered, the surest answer first.
        confusions: true class, answer and number of images, the most frequent first.
        temperature: that fits these images.
        before: calibration of the probabilities.
        after: with the temperature, each half of the images with that of the other half.
    """

    scores: ClassScores
    matrix: npt.NDArray[np.int64] | None
    mistakes: list[int]
    confusions: list[tuple[int, int, int]]
    temperature: float
    before: Calibration
    after: Calibration


def diagnose(result: ClassificationEvaluation) -> Diagnosis:
    """Return what an evaluation tells."""
    probs, labels = result.probs, result.labels
    temperature = fit_temperature(result.logits, labels)
    before, after = _reliability(result, probs), _reliability(result, _crossed(result))
    if result.multilabel:
        given = probs > result.settings.conf
        surest = np.where(given != labels, np.abs(probs - 0.5), -1).max(1, initial=-1)
        order = np.argsort(-surest, kind="stable")
        wrong = [int(i) for i in order if surest[i] >= 0]
        return Diagnosis(
            multilabel_scores(given, labels), None, wrong, [], temperature, before, after
        )
    answers = answers_of(probs)
    matrix = confusion_matrix(labels, answers, len(result.names))
    sure = np.where(answers != labels, probs.max(1, initial=0), -1)
    wrong = [int(i) for i in np.argsort(-sure, kind="stable") if sure[i] >= 0]
    mixed = matrix.copy()
    np.fill_diagonal(mixed, 0)
    largest = np.argsort(-mixed, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(i), len(matrix)) for i in largest if mixed.flat[i]]
    confusions = [(true, said, int(mixed[true, said])) for true, said in pairs]
    return Diagnosis(class_scores(matrix), matrix, wrong, confusions, temperature, before, after)


def _reliability(result: ClassificationEvaluation, probs: npt.NDArray[np.float64]) -> Calibration:
    """Return how often answers are right by their probability; of several labels each one."""
    if result.multilabel:
        return bin_scores(probs.ravel(), result.labels.ravel(), BINS)
    if not probs.size:
        return bin_scores([], [], BINS)
    return bin_scores(probs.max(1), answers_of(probs) == result.labels, BINS)


def _crossed(result: ClassificationEvaluation) -> npt.NDArray[np.float64]:
    """Return the probabilities of each half of the images by the temperature of the other half.

    A temperature is best on the images that it was fitted on: so it tells what new ones would get.
    """
    probs = np.zeros_like(result.probs)
    for half in (0, 1):
        mine, others = slice(half, None, 2), slice(1 - half, None, 2)
        fitted = fit_temperature(result.logits[others], result.labels[others])
        probs[mine] = probabilities(result.logits[mine], result.multilabel, fitted)
    return probs
