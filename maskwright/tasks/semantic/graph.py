"""What export and the readers of exported files ask semantic segmentation: `tasks.graph.GraphKind`.

    pixels (B, 3, H, W) float32 RGB 0 to 255, sizes (B, 2) int64 (height, width)
    -> logits (B, C, h, w) float32, which cover the padded pixels at the stride of the network

A program that wants a class for every pixel enlarges the logits bilinearly, cuts off the padding
and takes the largest. `SemanticTask.graph` is `GRAPHS` below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data.pixels.resizing import collate_images, resize_image
from ...models.semantic.base import PixelNetwork, Segmenter, SegmenterOptions
from ...structures import IMAGENET_MEAN, IMAGENET_STD, Images
from .. import get_task
from ..graph import GraphKind, GraphModel, GraphSpec, Interface, Photo, Run

PROB = 1e-3  # probabilities of two computations may differ by this


@dataclass(frozen=True)
class SemanticInterface(Interface):
    """What the graph of a segmenter takes and gives.

    Attributes:
        count: classes.
        align_corners: how the logits lie on the pixels, see `PixelNetwork`.
    """

    count: int
    align_corners: bool

    @property
    def outputs(self) -> list[str]:
        """The logits."""
        return ["logits"]

    @property
    def settings(self) -> Any:
        """Those of a prediction that keeps probabilities, to compare them."""
        return get_task("semantic").settings(self, {"probs": True}, {})

    def shape(self, output: str) -> tuple[int, ...]:
        """Return the number of classes; see `Interface`."""
        return (self.count,)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the description; see `Interface`."""
        return {"align_corners": self.align_corners}

    def check(self, spec: GraphSpec) -> None:
        """Check nothing more than all files are checked for; see `Interface`."""


class CoarseSegmenter(nn.Module):
    """From pixels to logits with plain tensors, in evaluation mode, without gradients."""

    def __init__(self, segmenter: Any) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor]:
        """Return the logits (B, C, h, w)."""
        return (self.segmenter.coarse(Images(pixels, sizes, sizes)),)


class _NoNetwork(PixelNetwork):
    """Stands where the network of a graph would, for how its logits lie on the pixels."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners


class GraphSegmenter(Segmenter, GraphModel):
    """A segmenter whose network is an exported graph; it predicts and does not train.

    Args:
        spec: the description in the file.
        run: calls the graph.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, run: Run, source: str) -> None:
        own: SemanticInterface = spec.own
        super().__init__(
            own.count,
            _NoNetwork(own.align_corners),
            SegmenterOptions(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        )
        self.spec, self.source, self._run = spec, source, run
        self.mean = torch.zeros(spec.channels, 1, 1)  # the graph has its own inside
        self.resize = spec.resize
        self.size_divisor = spec.divisor
        self.buckets = [] if spec.size is None else [spec.size]

    def coarse(self, images: Images) -> Tensor:
        """Return the logits (B, C, h, w) of the graph."""
        return self._run(images)["logits"]


@dataclass(frozen=True)
class MapMatch:
    """How the classes of the pixels of an image agree.

    Attributes:
        pixels: how many there are.
        other: how many have another class.
        apart: largest difference of a probability.
        classes: classes that occur.
    """

    pixels: int
    other: int
    apart: float
    classes: int


class SemanticGraphs(GraphKind):
    """Graphs from pixels to logits, judged by mean IoU."""

    columns = ("classes", "pixels", "of another class", "furthest probability")
    judged: ClassVar[Mapping[str, str]] = {"mIoU": "mean IoU"}
    unit = "points of IoU"

    def usual_size(self, model: Segmenter) -> tuple[int, int] | None:
        """Return any size: the network is convolutional; see `GraphKind`."""
        return None

    def interface(self, model: Segmenter, settings: Any) -> SemanticInterface:
        """Return what the graph of a segmenter takes and gives; see `GraphKind`."""
        return SemanticInterface(model.num_classes, model.network.align_corners)

    def read(self, data: Mapping[str, Any]) -> SemanticInterface:
        """Return the interface in a file's description; see `GraphKind`."""
        return SemanticInterface(len(data["names"]), bool(data["align_corners"]))

    def wrap(self, network: Any, spec: GraphSpec) -> nn.Module:
        """Return the network with plain tensors; see `GraphKind`."""
        return CoarseSegmenter(network)

    def open(self, spec: GraphSpec, run: Run, source: str) -> GraphSegmenter:
        """Return the segmenter that a graph is; see `GraphKind`."""
        return GraphSegmenter(spec, run, source)

    def batch(
        self, photos: Sequence[Photo], model: Segmenter, spec: GraphSpec, factor: float = 1.0
    ) -> Images:
        """Return photos as network input, smaller by a factor; see `GraphKind`."""
        rule = spec.resize.scaled(factor)
        scaled = []
        for photo in photos:
            size = rule.target_size(*photo.pixels.shape[:2])
            scaled.append((resize_image(photo.pixels, size, rule), size))
        return collate_images(scaled, spec.divisor, [] if spec.size is None else [spec.size])

    def compare(self, wanted: Any, found: Any, spec: GraphSpec) -> MapMatch:
        """Return how two maps with probabilities agree; see `GraphKind`."""
        apart = abs(wanted.probs.astype("float32") - found.probs.astype("float32"))
        return MapMatch(
            wanted.labels.size,
            int((wanted.labels != found.labels).sum()),
            float(apart.max(initial=0.0)),
            len(set(wanted.labels.ravel().tolist())),
        )

    def agrees(self, matches: Sequence[MapMatch]) -> bool:
        """Whether all probabilities do, so that classes differ at a tie alone; see `GraphKind`."""
        return all(match.apart <= PROB for match in matches)  # False for nan

    def gap(self, match: MapMatch) -> float:
        """Return how far probabilities are apart; see `GraphKind`."""
        return math.inf if math.isnan(match.apart) else match.apart

    def describe(self, match: MapMatch) -> str:
        """Return a match in words; see `GraphKind`."""
        return (
            f"probabilities up to {match.apart:.1e} apart, another class at {match.other} of "
            f"{match.pixels} pixels"
        )

    def row(self, match: MapMatch) -> list[object]:
        """Return the cells of a match; see `GraphKind`."""
        return [match.classes, match.pixels, match.other, f"{match.apart:.1e}"]

    def tolerances(self, matches: Sequence[MapMatch]) -> list[str]:
        """Return how far probabilities may be apart; see `GraphKind`."""
        return [f"tolerance: {PROB} of a probability"]

    def doubts(self, matches: Sequence[MapMatch]) -> list[str]:
        """Return whether one class is everywhere; see `GraphKind`."""
        if any(match.classes > 1 for match in matches):
            return []
        return [
            "the model takes all pixels of each image for one class, so that the comparison says "
            "little: give source=... with images that it knows"
        ]

    def nothing(self, value: float) -> str:
        """Return what is missing; see `GraphKind`."""
        return "has no labelled pixel" if math.isnan(value) else "has no pixel that is found right"


GRAPHS = SemanticGraphs()
