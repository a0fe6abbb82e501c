"""What every detector is: `Detector`, and the two-stage ones on a network that proposes regions.

`TwoStageDetector` is the line from Faster R-CNN (Ren et al. 2015) on: backbone and pyramid, region
proposals, heads on the regions. Detectors whose regions come from outside stand in `regions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.detection.roi_heads import RoIHeads
from ...nn.detection.rpn import RPN, USUAL_OBJECTS
from ...nn.fpn import FPN
from ...nn.ragged import most
from ...nn.random import RandomSource, streams
from ...ops.soft_nms import SoftNMS
from ...structures import Images, Instances
from ..base import Model


@dataclass(frozen=True)
class PostProcess:
    """What is kept of the raw predictions.

    Attributes:
        score_thresh: smallest score, in [0, 1].
        nms_thresh: IoU above which the weaker of two boxes of one class is dropped.
        max_det: most detections of an image.
        soft_nms: boxes that overlap a better one lose score by this rule instead of being dropped.
    """

    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    max_det: int = 100
    soft_nms: SoftNMS | None = None

    def __post_init__(self) -> None:
        for name in ("score_thresh", "nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.max_det < 1:
            raise OptionError(f"max_det must be at least 1, got {self.max_det}")


class Detector(Model):
    """Base of all detectors.

    Attributes:
        task: what it predicts beside classes: "detect" (boxes), "segment" (masks as well),
            "keypoints" (keypoints as well) or "segment+keypoints".
        num_keypoints: keypoints of an object, 0 for a model without them.
        paste_mode: how masks return to the image: "grid" or "torchvision" (see `ops.paste_masks`).
        mask_reach: how far masks reach beyond their boxes, see `structures.widened`.
        proposal_source: where regions come from, as `proposals.make_source` reads it, for a
            detector that takes them with the images; None: it needs none.
        max_proposals: most regions of an image.
        train_views: what chance changes in its training images beside what it does for all: of
            "photometric", "expand" and "patches", see the recipe.
        nms_thresh: IoU of its NMS where nobody asks for another.
    """

    backbone: Backbone
    num_keypoints = 0
    mask_reach = 1.0
    proposal_source: str | None = None
    max_proposals = 0
    train_views: Mapping[str, Any] = MappingProxyType({})
    nms_thresh = PostProcess.nms_thresh

    def __init__(self, num_classes: int, *, paste_mode: str = "grid", **conventions: Any) -> None:
        """Keep the conventions; `paste_mode` is one of them, the others are those of `Model`."""
        super().__init__(num_classes, **conventions)
        self.paste_mode = paste_mode

    @property
    def predicts_masks(self) -> bool:
        """True if detections have masks, and training needs them."""
        return "segment" in self.task.split("+")

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score.

        Args:
            images: B images.
            post: thresholds; None: the defaults of `PostProcess`.

        Returns:
            `Instances` with (B, max_det) slots in padded-image pixels.
        """
        raise NotImplementedError

    def look(self, pixels: Tensor) -> Instances:
        """Run the network on one image, the whole of which is a region; see `Model.look`."""
        height, width = pixels.shape[-2:]
        size = torch.tensor([[height, width]], device=pixels.device)
        whole = torch.tensor([[[0.0, 0.0, width, height]]], device=pixels.device)
        valid = torch.ones(1, 1, dtype=torch.bool, device=pixels.device)
        regions = Instances(whole, valid.long(), valid)  # for detectors that take them
        found: Instances = self(
            Images(pixels, size, size, regions), PostProcess(score_thresh=0.0, max_det=1)
        )
        return found

    def limits(self, post: PostProcess, default: PostProcess) -> PostProcess:
        """Return the thresholds to predict with; an exported graph has limits of its own.

        Args:
            post: what is asked for.
            default: what is asked for where nobody says anything: it gives way.
        """
        return post

    def num_proposals(self, max_det: int) -> int | None:
        """Return how many proposals of an image are looked at for so many objects; None: no limit.

        Args:
            max_det: objects that are wanted.
        """
        return None

    def short_advice(self, max_det: int) -> str:
        """Return what helps where the proposals were too few (`Instances.short`).

        Args:
            max_det: objects that were wanted.
        """
        return f"the model looks at {self.num_proposals(max_det)} proposals of an image"

    def refine(self, images: Images, found: Instances) -> Instances | None:
        """Return boxes from elsewhere with the masks and keypoints that the model finds in them.

        Args:
            images: B images.
            found: (B, K) slots in padded-image pixels, with labels.

        Returns:
            The same with `mask_crops` and `keypoints`; None if the model cannot do that.
        """
        return None

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return the loss terms, scalars by name, to be added up.

        Args:
            images: B images.
            targets: ground truth in padded-image pixels.
            generator: source of the random numbers of the samplers: a generator, or `ImageNoise`
                with a key for each image.
        """
        raise NotImplementedError


# What of a two-stage detector trains: everything; the RPN, or the heads on regions, with the
# backbone; or only those of their layers that the other does not use.
TRAIN_PARTS = ("all", "rpn", "heads", "rpn-only", "heads-only")


class TwoStageDetector(Detector):
    """Backbone, pyramid or none, region proposals, heads on regions: Faster R-CNN and its line.

    Args:
        num_classes: real classes.
        backbone: its maps, or its tail that runs on regions, feed everything else.
        fpn: pyramid over the maps; None: the maps themselves are what RPN and heads see.
        rpn: proposes regions.
        roi_heads: classify and refine them.
        **conventions: of `Detector`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone,
        fpn: FPN | None,
        rpn: RPN,
        roi_heads: RoIHeads,
        **conventions: Any,
    ) -> None:
        super().__init__(num_classes, **conventions)
        self.backbone = backbone
        self.fpn = fpn
        self.rpn = rpn
        self.roi_heads = roi_heads
        tasks = []
        if roi_heads.mask_head is not None:
            tasks.append("segment")
            self.mask_reach = roi_heads.mask_reach
        if roi_heads.keypoint_head is not None:
            tasks.append("keypoints")
            self.num_keypoints = roi_heads.keypoint_head.num_keypoints
        self.task = "+".join(tasks) or "detect"
        self.part = "all"

    def train_only(self, part: str) -> None:
        """Choose what trains, and which terms `losses` has: one of `TRAIN_PARTS`.

        A stage of the backbone that only the heads see, such as that which runs on regions, belongs
        to the heads. What was frozen stays so.

        Raises:
            OptionError: if there is no such part.

        Reference: Ren et al. 2015, section 3.2 (4-step alternating training).
        """
        if part not in TRAIN_PARTS:
            raise OptionError(f"train_part is one of {', '.join(TRAIN_PARTS)}; got {part!r}")
        self.part = part
        trains_rpn, trains_heads = self._trains("rpn"), self._trains("heads")
        stages = len(self.backbone.body.stages())
        more_maps = len(self.backbone.strides) > len(self.rpn.anchors.strides)
        shared = stages - (self.backbone.has_tail or (self.fpn is None and more_maps))
        fixed = set(range(shared)) if part.endswith("-only") else set()
        if not trains_heads:
            fixed |= set(range(shared, stages))
        self.backbone.fix(self.backbone.fixed | fixed)
        for module, trains in (
            (self.fpn, not part.endswith("-only")),
            (self.rpn, trains_rpn),
            (self.roi_heads, trains_heads),
        ):
            for parameter in () if module is None else module.parameters():
                parameter.requires_grad_(trains)

    def _trains(self, part: str) -> bool:
        return self.part == "all" or self.part.startswith(part)

    def train(self, mode: bool = True) -> TwoStageDetector:
        """Switch the mode, except that a pyramid that does not train keeps its statistics."""
        super().train(mode)
        if self.fpn is not None and self.part.endswith("-only"):
            self.fpn.eval()
        return self

    def features(self, images: Images) -> tuple[Tensor, ...]:
        """Return the pyramid P2 to P6, or the maps alone: (B, C, H / stride, W / stride) each."""
        maps: tuple[Tensor, ...] = self.backbone(self.normalise(images))
        return maps if self.fpn is None else self.fpn(maps)

    @property
    def trunk(self) -> Backbone | None:
        """The backbone, if a stage of it runs on regions."""
        return self.backbone if self.backbone.has_tail else None

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`."""
        post = post or PostProcess()
        pyramid = self.features(images)
        proposals = self.rpn.propose(self.rpn(pyramid), images, max_det=post.max_det)
        longest: Any = most(images.pixels.shape[2], images.pixels.shape[3])
        return self.roi_heads.predict(
            pyramid,
            proposals,
            images.sizes,
            score_thresh=post.score_thresh,
            nms_thresh=post.nms_thresh,
            max_det=post.max_det,
            trunk=self.trunk,
            soft_nms=post.soft_nms,
            longest=longest,
        )

    def num_proposals(self, max_det: int) -> int:
        """Return how many proposals the RPN leaves of an image; see `RPN.kept`."""
        return self.rpn.kept(max_det)[1]

    def short_advice(self, max_det: int) -> str:
        """Return which `max_det` takes more proposals; see `Detector`."""
        count = self.num_proposals(max_det)
        more = 2 * max(count, USUAL_OBJECTS)
        return f"the model looked at {count} proposals of an image; max_det={more} looks at more"

    def refine(self, images: Images, found: Instances) -> Instances:
        """Return boxes from elsewhere with masks and keypoints; see `Detector.refine`."""
        return self.roi_heads.refine(self.features(images), found, trunk=self.trunk)

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return `rpn/objectness`, `rpn/box`, `roi/class`, `roi/box` and the heads' own terms.

        Of a part that trains alone (see `train_only`) only its terms. Proposals that come with the
        images stand in for those of the RPN.
        """
        pyramid = self.features(images)
        first, second = streams(generator, 2)
        losses: dict[str, Tensor] = {}
        proposals = images.proposals
        if self._trains("rpn") or proposals is None:
            output = self.rpn(pyramid)
            if self._trains("rpn"):
                losses = self.rpn.losses(output, images, targets, generator=first)
            if proposals is None and self._trains("heads"):
                proposals = self.rpn.propose(output, images, training=True)
        if self._trains("heads"):
            assert proposals is not None
            losses.update(
                self.roi_heads.losses(
                    pyramid, proposals, targets, images.sizes, generator=second, trunk=self.trunk
                )
            )
        return losses

    @torch.no_grad()
    def propose(self, images: Images) -> Instances:
        """Return the proposals of the RPN as in training: to train another network's heads."""
        return self.rpn.propose(self.rpn(self.features(images)), images, training=True)
