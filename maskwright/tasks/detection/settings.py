"""The options of a prediction of objects: thresholds, views and CRF, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...models.detection.base import Detector, PostProcess
from ...structures import Detections, Resize
from ..base import Settings
from ..crf import CrfSettings
from ..thresholds import parse_conf
from ..views import Views
from .crf import make_crf
from .post import make_post


@dataclass(frozen=True)
class DetectionSettings(Settings):
    """Thresholds of what is kept, and how often an image is looked at.

    Attributes:
        post: thresholds.
        views: look at each image in these ways; None: once, as it is.
        crf: refine the borders of the masks by a dense CRF; None: not.
        floors: smallest score of each class, none below that of `post`; None: that counts for all.
    """

    post: PostProcess
    views: Views | None = None
    crf: CrfSettings | None = None
    floors: tuple[float, ...] | None = None

    def rules(self, resize: Resize) -> list[Resize]:
        """Return a rule for each size of the views."""
        return [resize] if self.views is None else self.views.resizes(resize)

    def kept(self, found: Detections) -> Detections:
        """Return the detections that are above the smallest score of their class.

        NMS decides a box by the better ones of its class alone, so what it kept of all is what it
        would have kept of these.
        """
        if self.floors is None:
            return found
        above = found.scores > torch.tensor(self.floors)[found.labels]
        return replace(found.keep(above), full=len(found) >= self.post.max_det)


def make_settings(
    model: Detector, given: Mapping[str, Any], defaults: Mapping[str, Any], names: Sequence[str]
) -> DetectionSettings:
    """Return the checked options of a prediction or validation.

    Args:
        model: the detector.
        given: options by name.
        defaults: what they are if nobody says anything.
        names: class names.

    Raises:
        OptionError: if one is wrong, or does not fit the model.
    """
    conf = parse_conf(given["conf"])
    floors = conf.by_label(names, defaults["conf"]) if conf.named else None
    least = min(floors) if floors else conf.others
    assert least is not None
    iou = model.nms_thresh if given["iou"] is None else given["iou"]
    asked = make_post(least, iou, given["max_det"], given.get("soft_nms"))
    usual = make_post(defaults["conf"], iou, defaults["max_det"])
    views, crf = Views.parse(given.get("tta")), make_crf(given.get("crf"), model)
    return DetectionSettings(model.limits(asked, usual), views, crf, floors)
