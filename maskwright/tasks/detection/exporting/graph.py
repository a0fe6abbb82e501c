"""What export and the readers of exported files ask detection: see `tasks.graph.GraphKind`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....data.pixels.resizing import collate_images, resize_image
from ....data.proposals import with_regions
from ....data.records import Dataset
from ....models.detection.base import Detector
from ....models.detection.regions import ProposalDetector, require_proposals
from ....nn.detection.poolers import MapPooler, Pooler
from ....structures import Detections, Images
from ...graph import GraphKind, GraphSpec, Photo, Run
from ..regions import proposal_store
from ..settings import DetectionSettings
from .agreement import (
    BOX_PX,
    KEYPOINT_PX,
    MASK_IOU,
    SCORE,
    UNDECIDED,
    Match,
    agrees,
    compare,
)
from .interface import DetectionInterface, WholeDetector
from .model import GraphDetector


class DetectionGraphs(GraphKind):
    """Graphs from pixels to instances, compared object by object, judged by AP."""

    columns = ("objects", "found", "at a threshold", "box, px", "score", "mask IoU", "keypoint, px")
    judged: ClassVar[Mapping[str, str]] = {
        "box/AP": "box AP",
        "mask/AP": "mask AP",
        "keypoints/AP": "keypoint AP",
    }
    unit = "AP"

    def usual_size(self, model: Detector) -> tuple[int, int]:
        """Return what any photo fits into by the model's rule; see `GraphKind`.

        By the rule of the papers, of a short and a long side, that of a photo in landscape.
        """
        rule = model.resize
        if rule.one_size:
            return rule.stretch or rule.within or (800, 1216)
        if rule.short is None and rule.long is not None:
            side = rule.long + -rule.long % model.size_divisor
            return side, side
        return 800, 1216

    def interface(self, model: Detector, settings: DetectionSettings) -> DetectionInterface:
        """Return what the graph of a detector takes and gives; see `GraphKind`."""
        return DetectionInterface.of(model, settings.post)

    def read(self, data: Mapping[str, Any]) -> DetectionInterface:
        """Return the interface in a file's description; see `GraphKind`."""
        return DetectionInterface.read(data)

    def wrap(self, network: Any, spec: GraphSpec) -> nn.Module:
        """Return the network with plain tensors; see `GraphKind`."""
        return WholeDetector(network, spec.own)

    def example(self, spec: GraphSpec, pixels: Tensor) -> list[Tensor]:
        """Return the whole image as every region; see `GraphKind`."""
        if spec.own.regions is None:
            return []
        batch, _, height, width = pixels.shape
        # Not expanded: compiled graphs take the strides of the example for granted.
        whole = torch.tensor([0.0, 0, width, height])
        return [whole.repeat(batch, spec.own.regions.slots, 1)]

    def extra(self, images: Images, spec: GraphSpec) -> list[Tensor]:
        """Return the regions (B, slots, 4), boxes of zeros in empty slots; see `GraphKind`."""
        if spec.own.regions is None:
            return []
        found, slots = require_proposals(images), spec.own.regions.slots
        boxes = torch.where(found.valid[..., None], found.boxes, 0)[:, :slots]
        return [F.pad(boxes, (0, 0, 0, slots - boxes.shape[1]))]

    def open(self, spec: GraphSpec, run: Run, source: str) -> GraphDetector:
        """Return the detector that a graph is; see `GraphKind`."""
        return GraphDetector(spec, run, source)

    def batch(
        self, photos: Sequence[Photo], model: Detector, spec: GraphSpec, factor: float = 1.0
    ) -> Images:
        """Return photos as network input, with regions if need be; see `GraphKind`."""
        store = proposal_store(model)
        pooler = model.roi_heads.pooler if isinstance(model, ProposalDetector) else None
        scaled, regions = [], []
        for photo in photos:
            whole = photo.pixels.shape[:2]
            height, width = (int(side * factor) for side in spec.resize.target_size(*whole))
            size = max(height, 1), max(width, 1)
            scaled.append((resize_image(photo.pixels, size, spec.resize), size))
            if store is None:
                continue
            found = np.zeros((0, 4), np.float32)
            if not photo.blank:
                found = store(photo.pixels, image_file=Path(photo.name)).boxes
            ratio = np.divide(size, whole)[[1, 0, 1, 0]].astype(np.float32)
            regions.append(_distinct(found * ratio, pooler))
        made = collate_images(scaled, spec.divisor, [] if spec.size is None else [spec.size])
        return with_regions(made, regions) if regions else made

    def compare(self, wanted: Detections, found: Detections, spec: GraphSpec) -> Match:
        """Return how the detections of an image are found again; see `GraphKind`."""
        return compare(wanted, found, spec.own.post, spec.own.paste_mode)

    def agrees(self, matches: Sequence[Match]) -> bool:
        """Whether all is found again, but for a few at thresholds; see `GraphKind`."""
        return agrees(matches)

    def gap(self, match: Match) -> tuple[int, int]:
        """Return how many were not found again; see `GraphKind`."""
        return match.unexplained, match.at_threshold

    def describe(self, match: Match) -> str:
        """Return a match in words; see `GraphKind`."""
        parts = [f"{match.found} of {match.total} detections found again (it has {match.ours})"]
        parts += [f"boxes up to {match.box:.1e} px apart", f"scores {match.score:.1e}"]
        if match.mask is not None:
            parts.append(f"mask IoU from {match.mask:.5f}")
        if match.keypoint is not None:
            parts.append(f"keypoints {match.keypoint:.1e} px")
        return ", ".join(parts)

    def row(self, match: Match) -> list[object]:
        """Return the cells of a match; see `GraphKind`."""
        return [
            match.total,
            match.found,
            match.at_threshold,
            f"{match.box:.1e}",
            f"{match.score:.1e}",
            None if match.mask is None else f"{match.mask:.5f}",
            None if match.keypoint is None else f"{match.keypoint:.1e}",
        ]

    def tolerances(self, matches: Sequence[Match]) -> list[str]:
        """Return the tolerances, and how many masks rounding decided; see `GraphKind`."""
        wanted = f"{BOX_PX} px, score {SCORE}, mask IoU {MASK_IOU}, keypoints {KEYPOINT_PX} px"
        notes = [f"tolerances: {wanted}"]
        if undecided := sum(match.undecided for match in matches):
            notes.append(
                f"{undecided} masks differ in pixels whose probability is within {UNDECIDED} of "
                "the threshold, which count as equal"
            )
        return notes

    def doubts(self, matches: Sequence[Match]) -> list[str]:
        """Return whether there was nothing to compare; see `GraphKind`."""
        if any(match.total for match in matches):
            return []
        return [
            "the model found nothing above conf in any of the images, so that the comparison says "
            "little: give source=... with objects in it, or a smaller conf"
        ]

    def judges(self, model: Detector, data: Dataset) -> None:
        """Make sure that there are masks and keypoints where the model finds some; see above."""
        for wanted, there, what in (
            (model.predicts_masks, data.has_masks, "masks"),
            (model.num_keypoints > 0, data.has_keypoints, "labelled keypoints"),
        ):
            if wanted and not there:
                raise ValueError(
                    f"{data.source} has no {what} in its val split, so what int8 does to those "
                    f"that the model finds cannot be measured: give data with {what}"
                )

    def nothing(self, value: float) -> str:
        """Return which objects are missing; see `GraphKind`."""
        return "has no objects" if math.isnan(value) else "has no objects that the model finds"


def _distinct(boxes: np.ndarray, pooler: Pooler | None) -> np.ndarray:
    """Return boxes (n, 4) in network-input pixels without those that pool what an earlier one does.

    RoIPool cannot tell them apart, so their scores tie, and rounding says which one is kept.
    """
    if isinstance(pooler, MapPooler) and pooler.kind == "pool":
        for ratio in pooler.ratios:
            cells = np.floor(boxes * (ratio / pooler.stride) + 0.5)
            boxes = boxes[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
    return boxes


GRAPHS = DetectionGraphs()
