"""Names of localizers: a few stand in the list of models, on any other backbone they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...nn.backbones import is_backbone
from ..registry import Builder, ModelEntry, register, register_pattern

LISTED = ("resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv2_100")


def register_localizers(
    beginning: str,
    builder: Builder,
    *,
    options: type,
    task: str,
    paper: str,
    tiny: Mapping[str, Any] | None = None,
) -> None:
    """Register a localizer for each backbone: `<beginning><backbone>`.

    Args:
        beginning: of the names.
        builder: makes the model.
        options: its options, `backbone` among them.
        task: see `Model`.
        paper: authors and year.
        tiny: options of the smallest instance beside its size.
    """
    family = beginning.rstrip("_")
    for name in LISTED:
        register(
            f"{beginning}{name}",
            options=options,
            task=task,
            paper=paper,
            tiny={"imgsz": 64, **(tiny or {})} if name == LISTED[0] else None,
            presets={"backbone": name},
            family=family,
        )(builder)

    def resolve(name: str) -> ModelEntry | None:
        backbone = name.removeprefix(beginning)
        if not is_backbone(backbone):
            return None
        presets = {"backbone": backbone}
        return ModelEntry(name, builder, options, task, presets, None, {}, paper, family)

    register_pattern(beginning, resolve, "any backbone of a detector, ours or timm's")
