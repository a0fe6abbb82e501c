"""What convinced a segmenter of a class: Grad-CAM of the last stage of its backbone.

Selvaraju et al. 2017 explain the logit of a class of the image; here it is the mean logit of the
pixels that were taken for the class (Vinogradova et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import OptionError
from ...models.semantic.base import Segmenter
from ...nn.cam import evidence, gradcam, gradcam_plus_plus, heatmaps
from ...reports.result import Mark
from ...structures import Images
from ..evidence import Explainer, check_method, class_of, on_image


def make_explainer(
    segmenter: Segmenter, names: Sequence[str], method: Any, target: Any, called: str
) -> Explainer:
    """Return what explains a class of the pixels of a result.

    Args:
        segmenter: the model itself, not one rearranged for inference.
        names: class names.
        method: "gradcam" or "gradcam++".
        target: the class by its name or number; None: the one with most pixels beside the first,
            which is the background of many data sets.
        called: how the user calls the model.

    Raises:
        OptionError: if the method or the class is unknown, or the method does not fit.
    """
    method = check_method(method, segmenter, called)
    if method == "cam":
        raise OptionError(
            f"explain=cam needs one linear layer on the mean of the last maps, and {called} has "
            "a class for every pixel: take gradcam or gradcam++"
        )
    label = None if target is None else class_of(target, names)

    def explain(result: Any, collate: Any, rule: Any) -> tuple[np.ndarray, Mark] | None:
        counts = np.bincount(result.labels.ravel(), minlength=len(names))
        chosen = label
        if chosen is None:
            chosen = 1 + int(counts[1:].argmax()) if counts[1:].any() else 0
        heat = explain_class(segmenter, collate([result.image]), chosen, method)
        share = counts[chosen] / result.labels.size
        return None if heat is None else (heat, (names[chosen], int(1000 * share), None))

    return explain


def explain_class(
    segmenter: Segmenter, images: Images, label: int, method: str = "gradcam"
) -> np.ndarray | None:
    """Return where the evidence for the pixels of a class lies; None where there are none.

    Args:
        segmenter: the model.
        images: one image.
        label: the class.
        method: "gradcam" or "gradcam++".

    Returns:
        (H, W) float32 in [0, 1], of the original image.
    """
    height, width = images.original_sizes[0].tolist()
    images = Images(images.pixels.clone(), images.sizes, images.original_sizes)
    with torch.no_grad():
        mine = segmenter.coarse(images).argmax(1) == label
    if not bool(mine.any()):
        return None

    def score(logits: Tensor) -> Tensor:
        return logits[:, label][mine].mean()

    made = evidence(
        segmenter, segmenter.network.last_stage(), lambda: segmenter.coarse(images), score
    )
    raw = (gradcam if method == "gradcam" else gradcam_plus_plus)(made)
    size = (images.pixels.shape[-2], images.pixels.shape[-1])
    heat = heatmaps(raw, size, images.sizes)[0]
    h, w = images.sizes[0].tolist()
    return on_image(heat[:h, :w], (height, width), (0, 0, width, height))
