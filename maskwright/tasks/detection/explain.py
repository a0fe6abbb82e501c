"""What convinced a detector of one of its detections: Grad-CAM of the last stage of its backbone.

Selvaraju et al. 2017 explain the logit of a class of the image; here it is the log odds of the
score of one detection, ln(p / (1 - p)), with a gradient at every layer that it was computed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...models.detection.base import Detector, PostProcess
from ...nn.cam import evidence, gradcam, gradcam_plus_plus, heatmaps
from ...ops.boxes import box_iou
from ...reports.result import Mark
from ...structures import Images, Instances
from ..evidence import Explainer, check_method, class_of, on_image
from .result import Result

SURE = 1e-6  # beyond it a score has no log odds in float32


def make_explainer(
    detector: Detector, names: Sequence[str], method: Any, target: Any, called: str
) -> Explainer:
    """Return what explains a detection of a result.

    Args:
        detector: the model itself, not one rearranged for inference.
        names: class names.
        method: "gradcam" or "gradcam++".
        target: number of the detection from 0 on, or a class, whose best detection is meant; None:
            the best of all.
        called: how the user calls the model.

    Raises:
        OptionError: if the method or the class is unknown, or the method does not fit.
    """
    method = check_method(method, detector, called)
    if method == "cam":
        raise OptionError(
            f"explain=cam needs one linear layer on the mean of the last maps, and {called} has "
            "more behind them: take gradcam or gradcam++"
        )
    number = int(str(target)) if target is not None and str(target).isdigit() else None
    label = None if target is None or number is not None else class_of(target, names)

    def explain(result: Result, collate: Any, rule: Any) -> tuple[np.ndarray, Mark] | None:
        chosen = _chosen(result, number, label)
        if chosen is None:
            return None
        images: Images = collate([result.image])
        box, own = result.boxes[chosen], int(result.labels[chosen])
        heat = explain_detection(detector, images, box, own, method)
        return heat, result.marks()[chosen]

    return explain


def _chosen(result: Result, number: int | None, label: int | None) -> int | None:
    """Return which detection is to be explained, or None if there is no such one."""
    if number is not None:
        return number if number < len(result) else None
    of_class = [i for i, own in enumerate(result.labels.tolist()) if label in (None, own)]
    return of_class[0] if of_class else None


def explain_detection(
    detector: Detector, images: Images, box: Tensor, label: int, method: str = "gradcam"
) -> np.ndarray:
    """Return where the evidence for one detection of an image lies.

    Args:
        detector: the model.
        images: one image.
        box: (4,) xyxy of the detection, pixels of the original image.
        label: its class.
        method: "gradcam" or "gradcam++".

    Returns:
        (H, W) float32 in [0, 1], of the original image.

    Raises:
        ValueError: if the model finds nothing of this class in the image.
    """
    height, width = images.original_sizes[0].tolist()
    ratio = (images.sizes[0] / images.original_sizes[0]).flip(0).repeat(2)
    scaled = box.to(ratio) * ratio

    def score(found: Instances) -> Tensor:
        assert found.scores is not None
        same = found.valid[0] & (found.labels[0] == label)
        if not bool(same.any()):
            raise ValueError("the model finds nothing of this class in the image any more")
        overlap = box_iou(scaled[None].to(found.boxes), found.boxes[0].detach())[0]
        slot = int(torch.where(same, overlap, -1).argmax())
        return torch.logit(found.scores[0, slot].clamp(SURE, 1 - SURE))

    post = PostProcess(score_thresh=0.001)
    made = evidence(detector, last_stage(detector), lambda: detector(_usable(images), post), score)
    raw = (gradcam if method == "gradcam" else gradcam_plus_plus)(made)
    size = (images.pixels.shape[-2], images.pixels.shape[-1])
    heat = heatmaps(raw, size, images.sizes)[0]
    h, w = images.sizes[0].tolist()
    return on_image(heat[:h, :w], (height, width), (0, 0, width, height))


def last_stage(detector: Detector) -> nn.Module:
    """Return the last layer of the backbone."""
    stages = detector.backbone.body.stages()
    return [module for modules in stages for module in modules][-1]


def _usable(images: Images) -> Images:
    """Return images that a graph may hold, which those made in inference mode are not."""
    return Images(images.pixels.clone(), images.sizes, images.original_sizes, images.proposals)
