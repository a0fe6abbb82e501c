"""`GraphDetector`: an open file in place of a detector.

A predictor gives it images and thresholds and gets instances. Thresholds are part of a graph, so
that it can only be asked for less than it has.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ....errors import OptionError
from ....models.detection.base import Detector, PostProcess
from ....nn.ragged import GOOD_SCORE
from ....structures import Images, Instances
from ...graph import GraphModel, GraphSpec, Run
from .interface import DetectionInterface

# With fewer proposals than this for an object found, some objects may have had none: in a crowd of
# nuclei 3 found nine of ten, 5 all but one in forty.
FEW_PER_OBJECT = 5


class GraphDetector(Detector, GraphModel):
    """A detector whose network is an exported graph; it predicts and does not train.

    Args:
        spec: the description in the file.
        run: calls the graph.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, run: Run, source: str) -> None:
        own: DetectionInterface = spec.own
        super().__init__(
            len(spec.meta.names),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            resize=spec.resize,
            paste_mode=own.paste_mode,
        )
        self.spec, self.source, self.own = spec, source, own
        self.mean = torch.zeros(spec.channels, 1, 1)  # the graph has its own inside
        self.task = spec.task
        self.num_keypoints, self.mask_reach = own.num_keypoints, own.mask_reach
        self.nms_thresh = own.post.nms_thresh  # which is part of the graph
        self.size_divisor = spec.divisor
        self.buckets = [] if spec.size is None else [spec.size]
        if own.regions is not None:
            self.proposal_source, self.max_proposals = own.regions.source, own.regions.slots
        self._run = run

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`.

        Raises:
            OptionError: if `post` asks for more than the graph was exported with.
            ValueError: if the pixels have another size than the graph's.
        """
        own = self.own.post
        post = post or own
        self._check(post)
        found = self._run(images)
        valid = torch.arange(own.max_det) < found["count"][:, None]
        # NMS decides a box by the better ones alone, so the best of what it kept are what it
        # would have kept under a stricter threshold.
        valid = (valid & (found["scores"] > post.score_thresh))[:, : post.max_det]
        cut = {name: value[:, : post.max_det] for name, value in found.items() if name != "count"}
        clean = {
            name: value * valid.view(*valid.shape, *[1] * (value.ndim - 2))
            for name, value in cut.items()
        }
        short = None
        if self.own.proposals is not None:  # a graph does not say which proposal an object is from
            good = valid & (clean["scores"] >= GOOD_SCORE)
            short = FEW_PER_OBJECT * good.sum(1) > self.own.proposals
        return Instances(
            clean["boxes"],
            clean["labels"],
            valid,
            clean["scores"],
            mask_crops=clean.get("mask_probs"),
            keypoints=clean.get("keypoints"),
            short=short,
        )

    def num_proposals(self, max_det: int) -> int | None:
        """Return how many proposals of an image the graph looks at, as the file says."""
        return self.own.proposals

    def short_advice(self, max_det: int) -> str:
        """Return how to export a graph with more; see `Detector`."""
        count = self.own.proposals
        if self.own.regions is not None:
            return f"{self.source} takes {count} regions of an image: train and export with more"
        return (
            f"{self.source} looks at {count} proposals of an image: export it anew with a larger "
            f"max_det, such as max_det={2 * (count or 0)}"
        )

    def limits(self, post: PostProcess, default: PostProcess) -> PostProcess:
        """Return the thresholds with those of the graph in place of defaults that it cannot meet.

        See `Detector.limits`.
        """
        own = self.own.post
        conf, most = post.score_thresh, post.max_det
        return replace(
            post,
            score_thresh=max(conf, own.score_thresh) if conf == default.score_thresh else conf,
            max_det=min(most, own.max_det) if most == default.max_det else most,
        )

    def _check(self, post: PostProcess) -> None:
        own = self.own.post
        wrong = None
        if post.score_thresh < own.score_thresh:
            wrong = f"conf={own.score_thresh:g}, so it has no objects down to {post.score_thresh:g}"
        elif post.max_det > own.max_det:
            wrong = f"max_det={own.max_det}, so it cannot find {post.max_det} objects"
        elif post.nms_thresh != own.nms_thresh:
            wrong = f"iou={own.nms_thresh:g}, which is part of its graph, not {post.nms_thresh:g}"
        elif post.soft_nms != own.soft_nms:
            raise OptionError(
                f"{self.source} has plain NMS in its graph, and no format holds soft-NMS: take the "
                "model itself"
            )
        if wrong:
            raise OptionError(
                f"{self.source} was exported with {wrong}: leave it out, export it anew, or take "
                "the model itself"
            )
