"""What export and the readers of exported files ask classification: see `tasks.graph.GraphKind`.

    pixels (B, 3, S, S) float32 RGB 0 to 255, sizes (B, 2) int64 -> probs (B, C) float32

S is the square that the classifier was made for. `probs` are probabilities, not logits: they are
what programs in other languages show, and how they follow from logits is then no question.
`ClassificationTask.graph` is `GRAPHS` below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data.label_samples import centred
from ...errors import OptionError
from ...models.classification.base import (
    INTERPOLATIONS,
    Classifier,
    ClassifierOptions,
    Network,
)
from ...structures import Images, Preprocess, Resize
from .. import get_task
from ..graph import USUAL_SIZE, GraphKind, GraphModel, GraphSpec, Interface, Photo, Run

PROB = 5e-4  # probabilities of two computations may differ by this
TINY = 1e-30  # a probability of 0 would have no logit


@dataclass(frozen=True)
class ClassificationInterface(Interface):
    """What the graph of a classifier takes and gives.

    Attributes:
        count: classes.
        crop: side of the square that is cut out of the middle of a scaled photo, S.
        interpolation: how a photo is scaled: "bilinear" or "bicubic", with a low-pass filter.
        multilabel: each probability is one of its own; False: they sum to 1.
    """

    count: int
    crop: int
    interpolation: str
    multilabel: bool

    @property
    def outputs(self) -> list[str]:
        """The probabilities."""
        return ["probs"]

    @property
    def settings(self) -> Any:
        """Those of a prediction that nobody asks anything of."""
        return get_task("classify").settings(self, {}, {})

    def shape(self, output: str) -> tuple[int, ...]:
        """Return the number of classes; see `Interface`."""
        return (self.count,)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the description; see `Interface`."""
        return {
            "crop": self.crop,
            "interpolation": self.interpolation,
            "multilabel": self.multilabel,
        }

    def check(self, spec: GraphSpec) -> None:
        """Check sizes and words; see `Interface`."""
        short = spec.resize.short
        if spec.size != (self.crop, self.crop) or short is None or not self.crop <= short <= 8192:
            raise ValueError(
                f"its description cuts {self.crop} pixels of {short} for a graph of {spec.size}"
            )
        if self.interpolation not in INTERPOLATIONS:
            known = " or ".join(INTERPOLATIONS)
            raise ValueError(f"its description says {self.interpolation!r}, not {known}")


class WholeClassifier(nn.Module):
    """From pixels to probabilities with plain tensors, in evaluation mode, without gradients."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor]:
        """Return the probabilities (B, C)."""
        logits = self.classifier(Images(pixels, sizes, sizes))
        return (self.classifier.probabilities(logits),)


class _NoNetwork(Network):
    """Stands where the network of a graph would: it has no stages that could be seen."""

    def stages(self) -> list[list[nn.Module]]:
        return []


class GraphClassifier(Classifier, GraphModel):
    """A classifier whose network is an exported graph; it predicts and does not train.

    Args:
        spec: the description in the file.
        run: calls the graph.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, run: Run, source: str) -> None:
        own: ClassificationInterface = spec.own
        options = ClassifierOptions(
            own.crop, spec.resize.short, own.interpolation, multilabel=own.multilabel
        )
        super().__init__(own.count, _NoNetwork(), options)
        self.spec, self.source = spec, source
        self.mean = torch.zeros(spec.channels, 1, 1)  # the graph has its own inside
        self.size_divisor = spec.divisor
        self.buckets = [(own.crop, own.crop)]
        self._run = run

    def forward(self, images: Images) -> Tensor:
        """Return logits (B, C) that have the probabilities of the graph.

        Raises:
            ValueError: if the pixels have another size than the graph's.
        """
        probs = self._run(images)["probs"].clamp(min=TINY)
        return probs.logit(eps=1e-7) if self.multilabel else probs.log()


@dataclass(frozen=True)
class ClassMatch:
    """How the probabilities of an image agree.

    Attributes:
        label: the most probable class.
        score: its probability.
        other: the most probable class of the other side.
        apart: largest difference of a probability.
        spread: between the largest and the smallest probability.
    """

    label: int
    score: float
    other: int
    apart: float
    spread: float


class ClassificationGraphs(GraphKind):
    """Graphs from pixels to probabilities, judged by accuracy."""

    columns = ("class", "probability", "same class", "furthest probability")
    judged: ClassVar[Mapping[str, str]] = {
        "top1": "top-1 accuracy",
        "mAP": "mean average precision",
    }
    unit = "accuracy"

    def size(self, model: Classifier, imgsz: Any) -> tuple[int, int]:
        """Return the square of the classifier; see `GraphKind`."""
        side = model.crop
        if imgsz not in (USUAL_SIZE, side, (side, side), [side, side]):
            raise OptionError(
                f"imgsz={imgsz}: the graph of this classifier takes squares of {side} pixels, for "
                "which it was made: leave it out"
            )
        return side, side

    def usual_size(self, model: Classifier) -> tuple[int, int]:
        """Return the square of the classifier; see `GraphKind`."""
        return model.crop, model.crop

    def resize(self, model: Classifier, size: tuple[int, int] | None) -> Resize:
        """Return the rule before the cut; see `GraphKind`."""
        return model.preprocess.resize()

    def interface(self, model: Classifier, settings: Any) -> ClassificationInterface:
        """Return what the graph of a classifier takes and gives; see `GraphKind`."""
        rule = model.preprocess
        return ClassificationInterface(
            model.num_classes, rule.crop, rule.interpolation, model.multilabel
        )

    def read(self, data: Mapping[str, Any]) -> ClassificationInterface:
        """Return the interface in a file's description; see `GraphKind`."""
        return ClassificationInterface(
            len(data["names"]),
            int(data["crop"]),
            str(data["interpolation"]),
            bool(data["multilabel"]),
        )

    def wrap(self, network: Any, spec: GraphSpec) -> nn.Module:
        """Return the network with plain tensors; see `GraphKind`."""
        return WholeClassifier(network)

    def open(self, spec: GraphSpec, run: Run, source: str) -> GraphClassifier:
        """Return the classifier that a graph is; see `GraphKind`."""
        return GraphClassifier(spec, run, source)

    def batch(
        self, photos: Sequence[Photo], model: Classifier, spec: GraphSpec, factor: float = 1.0
    ) -> Images:
        """Return the middle of photos; a smaller `factor` looks closer, for the square stays."""
        rule: Preprocess = model.preprocess
        rule = replace(rule, short=round(rule.short / factor))
        pixels = torch.stack([centred(photo.pixels, rule) for photo in photos])
        sizes = torch.full((len(photos), 2), rule.crop, dtype=torch.int64)
        return Images(pixels, sizes, sizes)

    def compare(self, wanted: Any, found: Any, spec: GraphSpec) -> ClassMatch:
        """Return how the probabilities of two answers agree; see `GraphKind`."""
        label = int(wanted.argmax())
        return ClassMatch(
            label,
            float(wanted[label]),
            int(found.argmax()),
            float((wanted - found).abs().max()),
            float(wanted.max() - wanted.min()),
        )

    def agrees(self, matches: Sequence[ClassMatch]) -> bool:
        """Whether all probabilities do, so that classes differ at a tie alone; see `GraphKind`."""
        return all(match.apart <= PROB for match in matches)  # False for nan

    def gap(self, match: ClassMatch) -> float:
        """Return how far probabilities are apart; see `GraphKind`."""
        return math.inf if math.isnan(match.apart) else match.apart

    def describe(self, match: ClassMatch) -> str:
        """Return a match in words; see `GraphKind`."""
        return (
            f"probabilities up to {match.apart:.1e} apart, class {match.other} in place of "
            f"{match.label}"
        )

    def row(self, match: ClassMatch) -> list[object]:
        """Return the cells of a match; see `GraphKind`."""
        same = "yes" if match.label == match.other else "a tie"
        return [match.label, f"{match.score:.4f}", same, f"{match.apart:.1e}"]

    def tolerances(self, matches: Sequence[ClassMatch]) -> list[str]:
        """Return how far probabilities may be apart; see `GraphKind`."""
        return [f"tolerance: {PROB} of a probability"]

    def doubts(self, matches: Sequence[ClassMatch]) -> list[str]:
        """Return whether all classes are as probable; see `GraphKind`."""
        if any(match.spread > 10 * PROB for match in matches):
            return []
        return [
            "the model finds all classes as probable in all of the images, so that the comparison "
            "says little: give source=... with images that it knows"
        ]

    def nothing(self, value: float) -> str:
        """Return what is missing; see `GraphKind`."""
        return "has no labels" if math.isnan(value) else "has no image that the model gets right"


GRAPHS = ClassificationGraphs()
