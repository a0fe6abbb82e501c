"""Names of tensors that changed: checkpoints of earlier versions are read by their new names.

The one place for it. What follows hangs on the model that a checkpoint describes, never on names
alone: another network may call its tensors alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from ..models.meta import Meta
from ..models.registry import find_entry
from ..nn.backbones.vgg import VGGS

Value = TypeVar("Value")

# A VGG was timm's network of maps: backbone.body.body.features_0, with what stands before and
# behind (`alternate` trains two networks, optimisers have several values of a tensor).
_TIMM_VGG = re.compile(r"\bbackbone\.body\.body\.features_(\d+)\.")


def backbone_of(meta: Meta) -> str | None:
    """Return the backbone of the model that a checkpoint describes; None: it has none."""
    entry = find_entry(meta.model)
    known = entry.arguments() if entry is not None else {}
    name = {**known, **meta.args}.get("backbone")
    return name if isinstance(name, str) else None


def modern_names(tensors: Mapping[str, Value], backbone: str | None) -> dict[str, Value]:
    """Return tensors by the names that they have now.

    Args:
        tensors: by the names of the version that wrote them.
        backbone: of their model.
    """
    if backbone not in VGGS:
        return dict(tensors)
    return {_TIMM_VGG.sub(r"backbone.body.features.\1.", k): v for k, v in tensors.items()}
