"""What graphs of detectors take and give, and their network with plain tensors.

    pixels (B, 3, H, W) float32 RGB 0 to 255, sizes (B, 2) int64 (height, width) before padding
    -> boxes (B, K, 4), scores (B, K), labels (B, K) int64, mask_probs (B, K, M, M), count (B,)
       int64, keypoints (B, K, J, 3)

by falling score, in padded-image pixels; slots from `count` on are zeros. Detectors that take their
regions from outside have a third input: regions (B, R, 4) in padded-image pixels, of which those
without area do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....models.detection.base import Detector, PostProcess
from ....structures import Images, Instances
from ...graph import GraphSpec, Interface
from ..settings import DetectionSettings

# Outputs in their order; masks and keypoints only where the model has them.
OUTPUTS = ("boxes", "scores", "labels", "mask_probs", "count", "keypoints")
OPTIONAL = {"mask_probs": "segment", "keypoints": "keypoints"}
PASTE_MODES = ("grid", "torchvision")
MOST_SLOTS = 100_000


@dataclass(frozen=True)
class RegionInput:
    """The regions that a graph takes with the pixels, for detectors that do not find them.

    Attributes:
        slots: of an image, no more regions.
        source: where the detector got them from in training; see `proposals.make_source`.
    """

    slots: int
    source: str


@dataclass(frozen=True)
class DetectionInterface(Interface):
    """What the graph of a detector takes and gives.

    Attributes:
        finds: what the detector finds, see `Detector.task`.
        post: thresholds in the graph.
        paste_mode: how masks return to the image (see `ops.paste_masks`).
        mask_reach: how far masks reach beyond their boxes (see `structures.widened`).
        num_keypoints: keypoints of an object, 0 for none.
        regions: what the graph takes beside the pixels; None: it finds its regions itself.
        proposals: of an image, that the graph looks at; None: not known.
    """

    finds: str
    post: PostProcess
    paste_mode: str
    num_keypoints: int
    regions: RegionInput | None = None
    proposals: int | None = None
    mask_reach: float = 1.0

    @classmethod
    def of(cls, detector: Detector, post: PostProcess) -> DetectionInterface:
        """Return that of a detector."""
        source = detector.proposal_source
        return cls(
            detector.task,
            post,
            detector.paste_mode,
            detector.num_keypoints,
            None if source is None else RegionInput(detector.max_proposals, source),
            detector.num_proposals(post.max_det),
            detector.mask_reach,
        )

    @property
    def extra_inputs(self) -> list[str]:  # type: ignore[override]
        """The regions, for detectors that take them."""
        return [] if self.regions is None else ["regions"]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs in order."""
        kinds = self.finds.split("+")
        return [name for name in OUTPUTS if OPTIONAL.get(name, kinds[0]) in kinds]

    @property
    def settings(self) -> DetectionSettings:
        """The thresholds as settings."""
        return DetectionSettings(self.post)

    def shape(self, output: str) -> tuple[int, ...]:
        """Return the number of slots; see `Interface`."""
        return () if output == "count" else (self.post.max_det,)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the description; see `Interface`."""
        return {
            "num_keypoints": self.num_keypoints,
            "conf": self.post.score_thresh,
            "iou": self.post.nms_thresh,
            "max_det": self.post.max_det,
            "proposals": self.proposals,
            "paste_mode": self.paste_mode,
            "mask_reach": self.mask_reach,
            "regions": None if self.regions is None else asdict(self.regions),
        }

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> DetectionInterface:
        """Return what `fields` gave; see `GraphKind.read`."""
        regions = data.get("regions")
        return cls(
            str(data["task"]),
            PostProcess(float(data["conf"]), float(data["iou"]), int(data["max_det"])),
            str(data["paste_mode"]),
            int(data["num_keypoints"]),
            regions and RegionInput(int(regions["slots"]), str(regions["source"])),
            None if data.get("proposals") is None else int(data["proposals"]),
            float(data.get("mask_reach", 1)),
        )

    def check(self, spec: GraphSpec) -> None:
        """Check sizes, numbers and words; see `Interface`."""
        slots = 1 if self.regions is None else self.regions.slots
        if slots < 1:
            raise ValueError(f"its description names impossible sizes: {slots} regions")
        bound = spec.resize.stretch or spec.resize.within
        if spec.size is not None and bound != spec.size:
            raise ValueError(f"its description resizes to {bound}, not {spec.size}")
        if not 1 <= self.mask_reach < math.inf:
            raise ValueError(f"its description says that masks reach {self.mask_reach} boxes far")
        if self.paste_mode not in PASTE_MODES:
            raise ValueError(
                f"its description says {self.paste_mode!r}, not {' or '.join(PASTE_MODES)}"
            )
        if max(self.post.max_det, slots) > MOST_SLOTS or not 0 <= self.num_keypoints <= MOST_SLOTS:
            raise ValueError("its description names impossible numbers of objects or keypoints")


class WholeDetector(nn.Module):
    """From pixels to instances with plain tensors, in evaluation mode, without gradients.

    Args:
        detector: the network.
        interface: thresholds and outputs.
    """

    def __init__(self, detector: nn.Module, interface: DetectionInterface) -> None:
        super().__init__()
        self.detector = detector
        self.interface = interface

    def forward(
        self, pixels: Tensor, sizes: Tensor, regions: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs that the interface names; see the module."""
        proposals = None
        if regions is not None:
            valid = (regions[..., 2:] > regions[..., :2]).all(-1)
            proposals = Instances(regions, torch.zeros_like(valid, dtype=torch.int64), valid)
        found = self.detector(Images(pixels, sizes, sizes, proposals), self.interface.post)
        values = {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels,
            "mask_probs": found.mask_crops,
            "count": found.valid.sum(1),
            "keypoints": found.keypoints,
        }
        return tuple(values[name] for name in self.interface.outputs)
