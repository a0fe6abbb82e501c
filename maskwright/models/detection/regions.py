"""Detectors whose regions come from outside, with the images: the line from R-CNN to Fast R-CNN.

`ProposalDetector` is one map and heads on regions (Girshick 2015); `SVMDetector` adds the stage
after training that R-CNN (Girshick et al. 2014) and SPPnet (He et al. 2014) have, linear SVMs and
box regression on the features of regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nn.backbones.backbone import Backbone
from ...nn.detection.poolers import Trunk
from ...nn.detection.roi_heads import RoIHeads
from ...nn.detection.svm_fit import MEMORY, Objects, RegionFitter, require_solver
from ...nn.detection.svm_head import SVMHead
from ...nn.ragged import last_tenth
from ...nn.random import RandomSource
from ...nn.track import Track
from ...structures import Images, Instances
from .base import Detector, PostProcess

PART = 256  # regions whose features are computed at once


class ProposalDetector(Detector):
    """Backbone and heads on regions that come with the images: the line up to Fast R-CNN.

    Args:
        num_classes: real classes.
        backbone: returns one map.
        roi_heads: pool from that map, with a `MapPooler` if there are several scales.
        proposal_source: see `Detector`.
        max_proposals: see `Detector`.
        scales: sizes of the image pyramid, the largest being the network input; one: no pyramid.
        pyramid_training: train on all scales at once; False: on the network input as it comes.
        **conventions: of `Detector`.
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone,
        roi_heads: RoIHeads,
        proposal_source: str,
        max_proposals: int,
        scales: Sequence[int] = (),
        pyramid_training: bool = False,
        **conventions: Any,
    ) -> None:
        super().__init__(num_classes, **conventions)
        self.backbone = backbone
        self.roi_heads = roi_heads
        self.proposal_source = proposal_source
        self.max_proposals = max_proposals
        self.ratios = tuple(scale / max(scales) for scale in scales) or (1.0,)
        self.pyramid_training = pyramid_training
        self.train_scales = () if pyramid_training or len(scales) < 2 else tuple(scales)

    def features(self, images: Images, *, pyramid: bool = True) -> tuple[Tensor, ...]:
        """Return the map of the images, or with `pyramid` those at all scales."""
        pixels = self.normalise(images)
        maps: list[Tensor] = []
        for ratio in self.ratios if pyramid else (1.0,):
            maps += self.backbone(_rescale(pixels, images.sizes, ratio))
        return tuple(maps)

    @property
    def trunk(self) -> Trunk | None:
        """What runs on pooled regions before the heads, or None."""
        return None

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`."""
        post = post or PostProcess()
        proposals = require_proposals(images)
        if not torch.compiler.is_compiling():
            proposals = self._mark_late(proposals)
        return self.roi_heads.predict(
            self.features(images),
            proposals,
            images.sizes,
            score_thresh=post.score_thresh,
            nms_thresh=post.nms_thresh,
            max_det=post.max_det,
            soft_nms=post.soft_nms,
            trunk=self.trunk,
        )

    def _mark_late(self, proposals: Instances) -> Instances:
        """Mark the last tenth of the regions of images from which some were left out."""
        rank = torch.arange(proposals.valid.shape[1], device=proposals.valid.device)
        full = proposals.valid.sum(1, keepdim=True) >= self.max_proposals
        return replace(proposals, late=full & (rank >= last_tenth(self.max_proposals)))

    def num_proposals(self, max_det: int) -> int:
        """Return how many regions of an image are looked at: the best ones."""
        return self.max_proposals

    def short_advice(self, max_det: int) -> str:
        """Return what takes more regions; see `Detector`."""
        return (
            f"the model looks at the best {self.max_proposals} regions of an image, from "
            f"{self.proposal_source}: train it with more, such as proposals="
            f"{2 * self.max_proposals}"
        )

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `roi/class` and, where the head regresses boxes in training, `roi/box`."""
        maps = self.features(images, pyramid=self.pyramid_training)
        return self.roi_heads.losses(
            maps,
            require_proposals(images),
            targets,
            images.sizes,
            generator=generator,
            trunk=self.trunk,
        )


def require_proposals(images: Images) -> Instances:
    """Return the proposals of the images.

    Raises:
        ValueError: if there are none.
    """
    if images.proposals is None:
        raise ValueError(
            "this detector takes its regions from outside, but the images have no proposals: load "
            "it with maskwright.load, which computes them, or set Images.proposals"
        )
    return images.proposals


def _rescale(pixels: Tensor, sizes: Tensor, ratio: float) -> Tensor:
    """Return standardised images (B, 3, H, W) of `sizes` (B, 2) at a smaller scale, zero-padded."""
    if ratio == 1:
        return pixels
    small = F.interpolate(
        pixels, scale_factor=ratio, mode="bilinear", antialias=True, recompute_scale_factor=False
    )
    limits = (sizes * ratio).round()
    rows = torch.arange(small.shape[2], device=small.device) < limits[:, :1]
    columns = torch.arange(small.shape[3], device=small.device) < limits[:, 1:]
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], small, 0)


class SVMDetector(ProposalDetector):
    """A detector whose head gets SVMs and box regression after training; see `nn.svm_fit`."""

    @property
    def fits_after_training(self) -> bool:
        """True: `fit_after_training` gives the head its SVMs and its box regression."""
        return True

    @property
    def fit_advice(self) -> str:
        """Softmax scores, if SVMs are fitted; see `Detector`."""
        text = "with few objects to learn from, classifier=softmax may serve better"
        return text if self._wants_svm else ""

    @property
    def _wants_svm(self) -> bool:
        return getattr(self.roi_heads.box_head, "classifier", None) == "svm"

    def check_fitting(self) -> None:
        """Make sure that the head's SVMs, if it gets any, can be fitted; see `Detector`."""
        if self._wants_svm:
            require_solver()

    @torch.no_grad()
    def fit_after_training(
        self,
        batches: Callable[[], Iterable[tuple[Images, Instances]]],
        count: int,
        names: Sequence[str],
        say: Callable[[str], None],
        track: Track,
    ) -> None:
        """Fit SVMs and box regression to the regions of the training images; see `Detector`."""
        head = self.roi_heads.box_head
        assert isinstance(head, SVMHead)
        fitter = RegionFitter(
            names,
            head.svm_weight.shape[1],
            head.ridge_weight.shape[2],
            svm=head.classifier == "svm",
            images=count,
            say=say,
            track=track,
        )
        room = MEMORY if fitter.svm else 0
        seen: dict[int, tuple[Tensor, Objects]] = {}  # for the second pass, while there is memory
        for number, (image, objects) in enumerate(_one_by_one(batches())):
            rows, owner = fitter.pairs(objects)
            last, pooled = self._features(image, objects.all_boxes, rows)
            fitter.see(number, last, objects, rows, owner, pooled)
            room -= last.numel() * last.itemsize
            if room >= 0:
                seen[number] = (last, objects)
        fitter.begin()
        if fitter.svm and len(seen) == count:
            for number in track("hard negatives", range(count)):
                fitter.mine(number, *seen[number])
        elif fitter.svm:
            for number, (image, objects) in enumerate(_one_by_one(batches())):
                if number in seen:
                    last = seen.pop(number)[0]
                else:
                    last, _ = self._features(image, objects.all_boxes, None)
                fitter.mine(number, last, objects)
        head.set_fit(*fitter.finish())

    def _features(self, image: Images, boxes: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what SVMs and ridge see of the regions of one image, on the CPU.

        Args:
            image: one image.
            boxes: (n, 4) xyxy, network-input pixels.
            rows: those whose pooled features are wanted; None: none.

        Returns:
            (n, width) features of the last layer, (rows, pooled) features that were pooled.
        """
        head = self.roi_heads.box_head
        assert isinstance(head, SVMHead)
        device = self.mean.device
        image = image.to(device)
        maps = self.features(image)
        wanted = torch.zeros(len(boxes), dtype=torch.bool)
        if rows is not None:
            wanted[rows] = True
        last, pooled = [], []
        for part, chosen in zip(boxes.split(PART), wanted.split(PART), strict=True):
            index = torch.zeros(len(part), dtype=torch.int64, device=device)
            feats = self.roi_heads.regions(
                maps, part.to(device), index, head.pool, self.trunk
            ).float()
            last.append(head.hidden(feats).cpu())
            pooled.append(head.flat(feats)[chosen.to(device)].cpu())
        empty = torch.zeros(0, head.svm_weight.shape[1]), torch.zeros(0, head.ridge_weight.shape[2])
        return torch.cat([empty[0], *last]), torch.cat([empty[1], *pooled])


def _one_by_one(
    batches: Iterable[tuple[Images, Instances]],
) -> Iterator[tuple[Images, Objects]]:
    """Yield each image with its regions and objects, without empty slots, on the CPU."""
    for images, targets in batches:
        regions = require_proposals(images)
        for b in range(len(images)):
            here, known = regions.valid[b], targets.valid[b]
            crowd = torch.zeros_like(known) if targets.crowd is None else targets.crowd[b]
            part = slice(b, b + 1)
            yield (
                Images(images.pixels[part], images.sizes[part], images.original_sizes[part]),
                Objects(
                    regions.boxes[b][here],
                    targets.boxes[b][known],
                    targets.labels[b][known],
                    crowd[known],
                ),
            )
