"""What classifiers are scored by: the logits of all images of a data set, in its order.

Classes of model and data are matched by name, never by position. All that is measured follows from
the logits, so an evaluation is kept as them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.loader import Batch
from ...data.records import Dataset
from ...errors import first_few, require_known
from ...metrics.calibration import fit_temperature
from ...metrics.classification import classification_metrics, multilabel_metrics
from ...models.classification.base import Classifier
from ...models.meta import Meta
from ..evaluation import Evaluation, Evaluator
from .settings import ClassificationSettings
from .views import look

BY_CLASS = ("F1", "precision", "recall", "AP")  # as in "F1/<class name>"


@dataclass(frozen=True)
class ClassificationEvaluation(Evaluation):
    """What an evaluation found.

    Attributes:
        metrics: "top1", "top5", "macro/F1", "balanced_accuracy", "nll", "brier", "ece", and of
            several labels "mAP", "F1", ...; then "F1/<class name>" and others of `BY_CLASS`.
        logits: (N, C) float32 in the order of the data set.
        labels: (N,) int64, the true classes; or (N, C) bool.
        names: names of the C classes.
        settings: of the evaluation.
        unseen: classes that the model knows and the data has no image of.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    names: Sequence[str]
    settings: ClassificationSettings
    unseen: Sequence[str] = ()

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.ndim == 2

    @cached_property
    def probs(self) -> npt.NDArray[np.float64]:
        """(N, C) probabilities."""
        return probabilities(self.logits, self.multilabel)

    @property
    def fitness(self) -> float:
        """See `fitness`."""
        return fitness(self.metrics)

    def warnings(self, *, by: str = "model") -> list[str]:
        """Return what is wrong with the answers as a whole."""
        if self.multilabel or not len(self.labels) or len(self.names) < 2:
            return []
        given = set(self.probs.argmax(1).tolist())
        true = set(self.labels.tolist())
        if len(given) == 1 and len(true) > 1 and by == "model":
            name = self.names[given.pop()]
            return [f"the model answers {name!r} for all {len(self.labels)} images"]
        return []

    def remarks(self) -> list[str]:
        """Return which classes were not scored."""
        if not self.unseen:
            return []
        shown = first_few(self.unseen, 5)
        return [f"the images have none of {len(self.unseen)} classes of the model: {shown}"]


def fitness(metrics: Mapping[str, float]) -> float:
    """Return the top-1 accuracy, or of several labels the mean average precision."""
    return metrics.get("top1", metrics.get("mAP", math.nan))


def named(metric: str) -> tuple[str, str] | None:
    """Return what a metric of one class measures and the class; None for those of all."""
    kind, slash, name = metric.partition("/")
    return (kind, name) if slash and kind in BY_CLASS else None


def overall(metric: str) -> bool:
    """Tell whether a metric, by its key, is one of all classes together."""
    return named(metric) is None


def probabilities(
    logits: npt.NDArray[Any], multilabel: bool, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the probabilities (N, C) of logits (N, C)."""
    z = logits.astype(np.float64) / temperature
    if multilabel:
        half: npt.NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * z))
        return half
    if not z.size:
        return z
    z = np.exp(z - z.max(1, keepdims=True))
    whole: npt.NDArray[np.float64] = z / z.sum(1, keepdims=True)
    return whole


def score(
    logits: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    names: Sequence[str],
    settings: ClassificationSettings,
) -> dict[str, float]:
    """Return the metrics of logits (N, C) and labels (N,) or (N, C); see `metrics`."""
    multilabel = labels.ndim == 2
    probs = probabilities(logits, multilabel)
    if multilabel:
        metrics = multilabel_metrics(probs, labels, names, threshold=settings.conf)
    else:
        metrics = classification_metrics(probs, labels, names, topk=(settings.topk,))
    present = present_classes(labels, len(names))
    metrics = {key: value for key, value in metrics.items() if _scored(key, names, present)}
    at = list(metrics).index(next((key for key in metrics if not overall(key)), list(metrics)[-1]))
    rows = list(metrics.items())
    return dict([*rows[:at], ("temperature", fit_temperature(logits, labels)), *rows[at:]])


def present_classes(labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    """Return (C,) which classes occur in labels (N,) or (N, C)."""
    if labels.ndim == 2:
        return np.asarray(labels.any(0))
    return np.bincount(labels, minlength=count) > 0


def _scored(key: str, names: Sequence[str], present: npt.NDArray[np.bool_]) -> bool:
    """Tell whether a metric says something: not that of a class without images."""
    return overall(key) or bool(present[names.index(key.split("/", 1)[1])])


class ClassificationEvaluator(Evaluator):
    """Keeps the logits of a data set.

    Args:
        model: the classifier.
        dataset: the images with their labels.
        meta: what the model says of itself: class names.
        settings: how often it looks, and what counts.

    Raises:
        ValueError: if the data set has a class that the model does not know, or images with
            several labels where the model gives one.
    """

    def __init__(
        self, model: Classifier, dataset: Dataset, meta: Meta, settings: ClassificationSettings
    ) -> None:
        self.model, self.dataset, self.settings = model, dataset, settings
        self.names = class_names(meta)
        self.labels = true_labels(dataset, self.names, model.multilabel)
        self._found: list[tuple[list[int], npt.NDArray[np.float32]]] = []

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Keep the logits of a batch; see `Evaluator`."""
        logits = look(network, self.model, batches[0].images, self.settings.tta)
        self._found.append((list(batches[0].indices), logits.cpu().numpy()))

    def share(self) -> Any:
        """Return the logits of this process with the places of their images."""
        return self._found

    def finish(self, shares: Sequence[Any], ms: float) -> ClassificationEvaluation:
        """Score the logits of all processes; see `Evaluator`."""
        logits = np.zeros((len(self.dataset), len(self.names)), np.float32)
        for indices, rows in (part for share in shares for part in share):
            logits[indices] = rows
        metrics = score(logits, self.labels, self.names, self.settings)
        has = present_classes(self.labels, len(self.names))
        unseen = [name for name, there in zip(self.names, has, strict=True) if not there]
        return ClassificationEvaluation(
            metrics, ms, logits, self.labels, self.names, self.settings, unseen
        )


def class_names(meta: Meta) -> list[str]:
    """Return the names of a model's classes."""
    return [f"class {label}" if name is None else name for label, name in enumerate(meta.names)]


def true_labels(dataset: Dataset, names: Sequence[str], multilabel: bool) -> npt.NDArray[Any]:
    """Return the true classes of the images in the model's numbers.

    Args:
        dataset: images with labels.
        names: class names of the model.
        multilabel: whether an image may have several.

    Returns:
        (N,) int64; (N, C) bool with `multilabel`.

    Raises:
        ValueError: if the data has a class that the model does not know, or images without exactly
            one label where the model gives one.
    """
    images, labels = dataset.classes_of_images()
    used = sorted({dataset.names[label] for label in np.unique(labels).tolist()})
    require_known(used, names, f"{dataset.source} has images of classes")
    position = {name: label for label, name in enumerate(names)}
    number = np.array([position.get(name, -1) for name in dataset.names], np.int64)
    if multilabel:
        true = np.zeros((len(dataset), len(names)), bool)
        true[images, number[labels]] = True
        return true
    counts = np.bincount(images, minlength=len(dataset))
    if (counts != 1).any():
        first = int(np.flatnonzero(counts != 1)[0])
        raise ValueError(
            f"{dataset[first].path} has {counts[first]} labels, but this model gives each image "
            "one: train with multilabel=true for any number of them"
        )
    single: npt.NDArray[np.int64] = number[labels]
    return single
