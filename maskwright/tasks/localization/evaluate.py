"""What localizers are scored by: class and box as in ILSVRC, or the errors of keypoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...data.loader import Batch
from ...data.records import Dataset
from ...errors import OptionError, nearest
from ...metrics.landmarks import (
    box_side,
    box_size,
    distances,
    eye_distance,
    landmark_metrics,
    normalised_errors,
)
from ...metrics.localization import RIGHT, Located, best_overlaps, localization_metrics
from ...structures import Images, Places, Skeleton
from ..evaluation import Evaluation, Evaluator
from .objects import choose
from .result import Place

TOP = 5  # classes of an image that count at most
# What our keys call the numbers of `localization_metrics`.
_BOX_KEYS = {"located1": "top1_loc", "located5": "top5_loc", "gt_known": "gt_known"}


@dataclass(frozen=True)
class LocationEvaluation(Evaluation):
    """What an evaluation found.

    Attributes:
        metrics: "box/top1_loc" (first class right and its box overlaps an object of it by half),
            "box/top5_loc" (any of five pairs), "box/gt_known" (box of the true class), "box/IoU",
            "class/top1"; or "keypoints/NME", "keypoints/failure", "keypoints/AUC",
            "keypoints/PCK"; nan where no image has what they measure.
        rows: what was found in each image and what is true, plain data, in the order of the data.
        unknown: images that were left out, because only regions are annotated that count neither
            as objects nor as background.
    """

    rows: list[dict[str, Any]]
    unknown: int = 0

    @property
    def fitness(self) -> float:
        """See `fitness`."""
        return fitness(self.metrics)

    def remarks(self) -> list[str]:
        """Return how many images could not be scored."""
        if not self.unknown:
            return []
        return [
            f"{self.unknown} images were not scored: nothing in them counts as an object (with "
            "keypoints: none is labelled) or as background"
        ]


def fitness(metrics: Mapping[str, float]) -> float:
    """Return the localized top-1, or for keypoints 1 / (1 + NME); nan if it is undefined."""
    if "keypoints/NME" in metrics:
        return 1 / (1 + metrics["keypoints/NME"])
    return metrics.get("box/top1_loc", math.nan)


def to_places(found: Places, images: Images) -> list[Place]:
    """Return what was found in each image, in its own pixels, on the CPU."""
    ratio = (images.original_sizes / images.sizes).flip(1)[:, None]  # x, y
    probs = None if found.logits is None else found.logits.float().softmax(-1).cpu()
    boxes = points = None
    if found.boxes is not None:
        limit = images.original_sizes.flip(1).repeat(1, 2)[:, None]
        scaled = found.boxes.float() * ratio.repeat(1, 1, 2)
        boxes = torch.minimum(scaled, limit.to(scaled)).cpu()
    if found.keypoints is not None:
        points = (found.keypoints.float() * ratio).float().cpu()
    return [
        Place(
            None if probs is None else probs[i],
            None if boxes is None else boxes[i].float(),
            None if points is None else points[i],
        )
        for i in range(len(images))
    ]


class BoxEvaluator(Evaluator):
    """Collects class and boxes of each image.

    Args:
        dataset: the images; its labels are those of the model.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._rows: list[dict[str, Any]] = []

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Keep what a localizer finds in a batch; see `Evaluator`."""
        batch = batches[0]
        for index, place in zip(
            batch.indices, to_places(network(batch.images), batch.images), strict=True
        ):
            chosen = choose(self.dataset[index])
            assert place.probs is not None and place.boxes is not None
            background = len(place.boxes)
            named = place.named[:TOP]
            # The background has no box: an empty one overlaps nothing.
            every = torch.cat([place.boxes, torch.zeros(1, 4)]).double().numpy()
            label = background if chosen.label is None else chosen.label
            overlaps, known = (
                best_overlaps(every[which][None], [chosen.boxes])[0]
                for which in (named.numpy(), np.array([label]))
            )
            self._rows.append(
                {
                    "index": index,
                    "file": self.dataset[index].path.name,
                    "label": label,
                    "unknown": chosen.unknown,
                    "named": named.tolist(),
                    "scores": place.probs[named].tolist(),
                    "box": every[int(named[0])].tolist(),
                    "overlaps": overlaps.tolist(),
                    "known": float(known[0]),
                }
            )

    def share(self) -> Any:
        """Return what this process has found by image."""
        return self._rows

    def finish(self, shares: Sequence[Any], ms: float) -> LocationEvaluation:
        """Score the images of all processes; see `Evaluator`."""
        rows = _in_order(shares)
        scored = [row for row in rows if not row["unknown"]]
        metrics = box_metrics(scored, len(self.dataset.names))
        return LocationEvaluation(metrics, ms, rows, len(rows) - len(scored))


def box_metrics(rows: Sequence[Mapping[str, Any]], background: int) -> dict[str, float]:
    """Return the metrics of rows of `LocationEvaluation`; see there.

    Args:
        rows: images whose truth is known.
        background: label of an image without an object.
    """
    labels = np.array([row["label"] for row in rows], np.int64)
    width = min(TOP, background + 1)
    named = np.array([row["named"] for row in rows], np.int64).reshape(-1, width)
    found = Located(
        named,
        np.array([row["overlaps"] for row in rows], np.float64).reshape(-1, width),
        labels,
        np.array([row["known"] for row in rows], np.float64),
    )
    # An image without an object has no place, whatever was said of it.
    found = Located(
        found.classes,
        np.where(labels[:, None] == background, math.nan, found.overlaps),
        labels,
        np.where(labels == background, math.nan, found.known),
    )
    values = localization_metrics(found)
    metrics = {f"box/{_BOX_KEYS.get(key, key)}": value for key, value in values.items()}
    right = named[:, 0] == labels
    metrics["class/top1"] = float(right.mean()) if len(rows) else math.nan
    return metrics


class KeypointEvaluator(Evaluator):
    """Collects the keypoints of each image.

    Distances are those at the input of the network, and so are the lengths that they are divided
    by: their ratio is that of the original image.

    Args:
        dataset: the images.
        skeleton: the keypoints of the model.
        pair: names of the keypoints whose distance errors are divided by; None: by the root of the
            area of the box.
        limit: normalised error from which on an image has failed.
        around: the network sees the surroundings of the objects, not the images.

    Raises:
        ValueError: if the data set has other keypoints than the model.
        OptionError: if it has no keypoint of the pair.
    """

    def __init__(
        self,
        dataset: Dataset,
        skeleton: Skeleton | None,
        pair: tuple[str, str] | None,
        limit: float,
        *,
        around: bool = False,
    ) -> None:
        own = None if dataset.skeleton is None else dataset.skeleton.names
        if skeleton is None or own != skeleton.names:
            wanted = "none" if skeleton is None else ", ".join(skeleton.names)
            raise ValueError(
                f"{dataset.source} has the keypoints {', '.join(own or ('none',))}, the model "
                f"knows {wanted}"
            )
        self.dataset = dataset
        self.names = skeleton.names
        self.limit = limit
        self.around = around
        self.pair = None
        if pair is not None:
            for name in pair:
                if name not in self.names:
                    raise OptionError(
                        f"nme_pair: there is no keypoint {name!r}{nearest(name, self.names)}"
                    )
            self.pair = (self.names.index(pair[0]), self.names.index(pair[1]))
        self._rows: list[dict[str, Any]] = []

    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Keep the keypoints that a localizer finds in a batch; see `Evaluator`."""
        batch = batches[0]
        found: Places = network(batch.images)
        assert found.keypoints is not None
        points = found.keypoints.float().cpu().numpy()
        truth = batch.targets.to("cpu").first_slot()
        for i, index in enumerate(batch.indices):
            self._rows.append(
                {
                    "index": index,
                    "file": self.dataset[index].path.name,
                    "unknown": not bool((truth.keypoints[i, :, 2] > 0).any()),
                    "points": points[i].tolist(),
                    "true": truth.keypoints[i].tolist(),
                    "box": truth.boxes[i].tolist(),
                    "side": int(batch.images.sizes[i].max()),
                    "around": self.around,
                }
            )

    def share(self) -> Any:
        """Return what this process has found by image."""
        return self._rows

    def finish(self, shares: Sequence[Any], ms: float) -> LocationEvaluation:
        """Score the images of all processes; see `Evaluator`."""
        rows = _in_order(shares)
        scored = [row for row in rows if not row["unknown"]]
        count = len(self.names)
        points = np.array([row["points"] for row in scored], np.float64).reshape(-1, count, 2)
        true = np.array([row["true"] for row in scored], np.float64).reshape(-1, count, 3)
        boxes = np.array([row["box"] for row in scored], np.float64).reshape(-1, 4)
        visible = true[..., 2] > 0
        gaps = distances(points, true, visible)
        norm = box_size(boxes)
        if self.pair is not None:
            norm = eye_distance(true, visible, *self.pair)
        values = landmark_metrics(gaps, norm, self.names, limit=self.limit, size=box_side(boxes))
        for row, error in zip(scored, normalised_errors(gaps, norm).tolist(), strict=True):
            row["error"] = error
        metrics = {f"keypoints/{key}": value for key, value in values.items()}
        return LocationEvaluation(metrics, ms, rows, len(rows) - len(scored))


def _in_order(shares: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows of all processes, each image once, in the order of the data."""
    rows = {row["index"]: row for share in shares for row in share}
    return [rows[index] for index in sorted(rows)]


def mistake(row: Mapping[str, Any], background: int) -> str:
    """Return what is wrong with an image: "class", "box", "both", "object", or "" if nothing is.

    Args:
        row: of `LocationEvaluation`.
        background: label of an image without an object.
    """
    first = row["named"][0]
    if row["label"] == background:
        return "" if first == background else "object"
    placed = row["known"] >= RIGHT
    if first == row["label"]:
        return "" if placed else "box"
    return "class" if placed else "both"
