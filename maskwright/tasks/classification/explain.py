"""What convinced a classifier: CAM, Grad-CAM and Grad-CAM++ of a class, on the photo itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...nn.cam import explain
from ...reports.result import Mark
from ...structures import Images, Preprocess
from ..evidence import Explainer, check_method, class_of, on_image


def make_explainer(
    model: Any, names: Sequence[str], method: Any, target: Any, called: str
) -> Explainer:
    """Return what explains a class of a result.

    Args:
        model: a `Classifier` itself, not one rearranged for inference.
        names: class names.
        method: see `nn.cam.METHODS`.
        target: the class by its name or number; None: the most probable one.
        called: how the user calls the model.

    Raises:
        OptionError: if the method or the class is unknown, or the method does not fit the network.
    """
    method = check_method(method, model, called)
    label = None if target is None else class_of(target, names)

    def made(result: Any, collate: Any, rule: Any) -> tuple[np.ndarray, Mark]:
        images: Images = collate([result.image])
        own = int(result.label) if label is None else label
        # Of several cuts the last is the middle.
        last = Images(images.pixels[-1:], images.sizes[-1:], images.original_sizes[-1:])
        heat = explain(model.network, model.normalise(last), torch.tensor([own]), method)[0]
        mark = (names[own], int(1000 * float(result.probs[own])), None)
        return on_image(heat, result.size, middle(rule.preprocess, result.size)), mark

    return made


def middle(rule: Preprocess, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return what of a photo a classifier sees: xyxy in its own pixels.

    Args:
        rule: how a photo is scaled and cut.
        size: (height, width) of the photo.
    """
    height, width = rule.target_size(*size)
    top, left = round((height - rule.crop) / 2), round((width - rule.crop) / 2)
    sy, sx = size[0] / height, size[1] / width
    return left * sx, top * sy, (left + rule.crop) * sx, (top + rule.crop) * sy
