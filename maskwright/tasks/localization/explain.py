"""What convinced a localizer of the class that it names: maps of its branch of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...models.localization.boxes import BoxLocalizer
from ...nn.cam import explain
from ...reports.result import Mark
from ...structures import Images
from ..evidence import Explainer, check_method, class_of, on_image
from .result import LocationResult


class ClassBranch(nn.Module):
    """The branch of classes alone, as `nn.cam` asks it."""

    def __init__(self, model: BoxLocalizer) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head_of = model.head
        self.final = "head_of.classes"

    def maps(self, x: Tensor) -> Tensor:
        """Return the last maps of (B, 3, H, W)."""
        maps: Tensor = self.backbone(x)[-1]
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C + 1) of the last maps."""
        logits: Tensor = self.head_of.classes(maps.mean((2, 3)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C + 1)."""
        return self.head(self.maps(x))


def make_explainer(
    model: Any, names: Sequence[str], method: Any, target: Any, called: str
) -> Explainer:
    """Return what explains the class of a result; see `Task.explainer`."""
    method = check_method(method, model, called)
    if not isinstance(model, BoxLocalizer):
        raise OptionError(f"explain is about classes, and {called} names none")
    branch = ClassBranch(model)
    label = None if target is None else class_of(target, names)

    def made(result: LocationResult, collate: Any, rule: Any) -> tuple[np.ndarray, Mark]:
        images: Images = collate([result.image])
        own = int(result.place.named[0]) if label is None else label
        x = model.normalise(images)
        heat = explain(branch, x, torch.tensor([own]), method, sizes=images.sizes)[0]
        h, w = images.sizes[0].tolist()
        height, width = result.size
        found = on_image(heat[:h, :w], (height, width), (0, 0, width, height))
        return found, result.mark(own)

    return made
