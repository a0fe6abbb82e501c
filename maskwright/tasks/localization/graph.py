"""What export and the readers of exported files ask localization: see `tasks.graph.GraphKind`.

    pixels (B, 3, S, S) float32 RGB 0 to 255, sizes (B, 2) int64 (height, width)
    -> probs (B, C + 1), the background last, and boxes (B, C, 4) xyxy; or keypoints (B, J, 2)

S is the square that the localizer was made for, places are in its pixels, boxes inside `sizes`.
`LocalizationTask.graph` is `GRAPHS` below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data.pixels.resizing import collate_images, resize_image
from ...errors import OptionError
from ...models.base import Model
from ...models.localization.base import Localizer
from ...structures import IMAGENET_MEAN, IMAGENET_STD, Images, Places
from ..base import Settings
from ..graph import USUAL_SIZE, GraphKind, GraphModel, GraphSpec, Interface, Photo, Run
from .batches import square
from .result import Place

PROB = 5e-4  # probabilities of two computations may differ by this
PIXELS = 0.02  # and places by this, at the input of the network
TINY = 1e-30  # a probability of 0 would have no logarithm


@dataclass(frozen=True)
class LocationInterface(Interface):
    """What the graph of a localizer takes and gives.

    Attributes:
        count: classes, background not counted.
        keypoints: keypoints of an object; 0 for a model of a class and a box.
        region: what the network sees, "image" or "object"; see `KeypointOptions`.
    """

    count: int
    keypoints: int = 0
    region: str = "image"

    @property
    def outputs(self) -> list[str]:
        """Probabilities and boxes, or keypoints."""
        return ["keypoints"] if self.keypoints else ["probs", "boxes"]

    @property
    def settings(self) -> Settings:
        """There are none; see `Interface`."""
        return Settings()

    def shape(self, output: str) -> tuple[int, ...]:
        """Return the sizes of an output behind the batch; see `Interface`."""
        shapes = {"probs": (self.count + 1,), "boxes": (self.count, 4)}
        return shapes.get(output, (self.keypoints, 2))

    def fields(self) -> dict[str, Any]:
        """Return the fields of the description; see `Interface`."""
        return {"num_keypoints": self.keypoints, "region": self.region}

    def check(self, spec: GraphSpec) -> None:
        """Check sizes and words; see `Interface`."""
        long = spec.resize.long
        if long is None or spec.size != (square(spec.resize),) * 2:
            raise ValueError(f"its description scales to {long} for a graph of {spec.size}")
        if self.keypoints < 0 or self.region not in ("image", "object"):
            raise ValueError(
                f"its description has {self.keypoints} keypoints and the region {self.region!r}"
            )


class WholeLocalizer(nn.Module):
    """From pixels to places with plain tensors, in evaluation mode, without gradients."""

    def __init__(self, localizer: Any) -> None:
        super().__init__()
        self.localizer = localizer

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities and boxes, or keypoints."""
        found: Places = self.localizer(Images(pixels, sizes, sizes))
        if found.keypoints is not None:
            # Keypoints do not ask for the sizes, which a graph must not lose as an input.
            return (found.keypoints + 0 * sizes[:, :1, None].to(found.keypoints.dtype),)
        assert found.logits is not None and found.boxes is not None
        return found.logits.softmax(-1), found.boxes


class GraphLocalizer(Localizer, GraphModel):
    """A localizer whose network is an exported graph; it predicts and does not train.

    Args:
        spec: the description in the file.
        run: calls the graph.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, run: Run, source: str) -> None:
        own: LocationInterface = spec.own
        Model.__init__(self, own.count, mean=IMAGENET_MEAN, std=IMAGENET_STD, resize=spec.resize)
        self.task = spec.task
        self.num_keypoints, self.region = own.keypoints, own.region
        self.spec, self.source, self._run = spec, source, run
        self.mean = torch.zeros(spec.channels, 1, 1)  # the graph has its own inside
        self.size_divisor = spec.divisor
        self.side = square(spec.resize)
        self.buckets = [(self.side, self.side)]

    def forward(self, images: Images) -> Places:
        """Return what the graph says, with logits that have its probabilities."""
        made = self._run(images)
        if self.num_keypoints:
            return Places(keypoints=made["keypoints"])
        return Places(made["probs"].clamp(min=TINY).log(), made["boxes"])


@dataclass(frozen=True)
class PlaceMatch:
    """How the places in an image agree.

    Attributes:
        label: the most probable class; -1 for keypoints.
        other: that of the other side.
        prob: largest difference of a probability; 0 for keypoints.
        place: largest difference of a coordinate, pixels at the input of the network.
    """

    label: int
    other: int
    prob: float
    place: float


class LocalizationGraphs(GraphKind):
    """Graphs from pixels to places, judged by localized top-1 or PCK."""

    columns = ("class", "same class", "furthest probability", "furthest place, px")
    judged: ClassVar[Mapping[str, str]] = {
        "box/top1_loc": "localized top-1",
        "keypoints/PCK": "PCK",
    }
    unit = "accuracy"

    def size(self, model: Localizer, imgsz: Any) -> tuple[int, int]:
        """Return the square of the localizer; see `GraphKind`."""
        side = square(model.resize)
        if imgsz not in (USUAL_SIZE, side, (side, side), [side, side]):
            raise OptionError(
                f"imgsz={imgsz}: the graph of this localizer takes squares of {side} pixels, for "
                "which it was made: leave it out"
            )
        return side, side

    def usual_size(self, model: Localizer) -> tuple[int, int]:
        """Return the square of the localizer; see `GraphKind`."""
        side = square(model.resize)
        return side, side

    def interface(self, model: Localizer, settings: Any) -> LocationInterface:
        """Return what the graph of a localizer takes and gives; see `GraphKind`."""
        region = getattr(model, "region", "image")
        return LocationInterface(model.num_classes, model.num_keypoints, region)

    def read(self, data: Mapping[str, Any]) -> LocationInterface:
        """Return the interface in a file's description; see `GraphKind`."""
        return LocationInterface(
            len(data["names"]), int(data["num_keypoints"]), str(data["region"])
        )

    def wrap(self, network: Any, spec: GraphSpec) -> nn.Module:
        """Return the network with plain tensors; see `GraphKind`."""
        return WholeLocalizer(network)

    def open(self, spec: GraphSpec, run: Run, source: str) -> GraphLocalizer:
        """Return the localizer that a graph is; see `GraphKind`."""
        return GraphLocalizer(spec, run, source)

    def batch(
        self, photos: Sequence[Photo], model: Localizer, spec: GraphSpec, factor: float = 1.0
    ) -> Images:
        """Return photos on squares, smaller by a factor; places stay in their pixels."""
        rule = spec.resize.scaled(factor)
        scaled = []
        for photo in photos:
            size = rule.target_size(*photo.pixels.shape[:2])
            scaled.append((resize_image(photo.pixels, size, rule), size))
        side = square(spec.resize)
        return collate_images(scaled, 32, [(side, side)])

    def compare(self, wanted: Place, found: Place, spec: GraphSpec) -> PlaceMatch:
        """Return how two places agree; see `GraphKind`."""
        if wanted.keypoints is not None and found.keypoints is not None:
            apart = float((wanted.keypoints - found.keypoints).abs().max())
            return PlaceMatch(-1, -1, 0.0, apart)
        assert wanted.probs is not None and found.probs is not None
        assert wanted.boxes is not None and found.boxes is not None
        return PlaceMatch(
            int(wanted.probs.argmax()),
            int(found.probs.argmax()),
            float((wanted.probs - found.probs).abs().max()),
            float((wanted.boxes - found.boxes).abs().max()),
        )

    def agrees(self, matches: Sequence[PlaceMatch]) -> bool:
        """Whether all probabilities and places do; see `GraphKind`."""
        return all(match.prob <= PROB and match.place <= PIXELS for match in matches)

    def gap(self, match: PlaceMatch) -> float:
        """Return how far both are apart, in tolerances; see `GraphKind`."""
        worst = max(match.prob / PROB, match.place / PIXELS)
        return math.inf if math.isnan(match.prob + match.place) else worst

    def describe(self, match: PlaceMatch) -> str:
        """Return a match in words; see `GraphKind`."""
        return f"probabilities up to {match.prob:.1e} apart, places up to {match.place:.1e} pixels"

    def row(self, match: PlaceMatch) -> list[object]:
        """Return the cells of a match; see `GraphKind`."""
        same = "yes" if match.label == match.other else "a tie"
        label: object = "-" if match.label < 0 else match.label
        return [label, same, f"{match.prob:.1e}", f"{match.place:.1e}"]

    def tolerances(self, matches: Sequence[PlaceMatch]) -> list[str]:
        """Return how far both may be apart; see `GraphKind`."""
        return [f"tolerance: {PROB} of a probability, {PIXELS} pixels of a place"]

    def nothing(self, value: float) -> str:
        """Return what is missing; see `GraphKind`."""
        return "has no object" if math.isnan(value) else "has no image that the model gets right"


GRAPHS = LocalizationGraphs()
