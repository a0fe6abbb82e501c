"""Names of models on any backbone: a few stand in the list of models, the others are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..nn.backbones.backbone import is_backbone
from .registry import Builder, ModelEntry, PublishedWeights, register, register_pattern

# Endings of the listed names, and their backbones.
LISTED = {
    name: name for name in ("resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv2_100")
}


def register_on_backbones(
    beginning: str,
    builder: Builder,
    *,
    options: type,
    task: str,
    paper: str,
    tiny: Mapping[str, Any] | None,
    listed: Mapping[str, str | Mapping[str, Any]] = LISTED,
    weights: Mapping[str, Mapping[str, PublishedWeights]] | None = None,
    presets: Mapping[str, Any] | None = None,
    family: str = "",
) -> None:
    """Register a model for each backbone: `<beginning><backbone>`.

    Args:
        beginning: of the names.
        builder: makes the model.
        options: its options, `backbone` among them.
        task: see `Model`.
        paper: authors and year.
        tiny: options of the smallest instance, which is on the first of `listed`; None: another
            beginning of the family has it.
        listed: endings of the names in the list of models, and their backbones, or the options
            that they fix.
        weights: published weights by the endings.
        presets: further options that all these names fix.
        family: of the models; "": the beginning.
    """
    family = family or beginning.rstrip("_")
    shared = presets or {}
    for number, (ending, fixed) in enumerate(listed.items()):
        register(
            f"{beginning}{ending}",
            options=options,
            task=task,
            paper=paper,
            tiny=None if number else tiny,
            weights=(weights or {}).get(ending),
            presets={**shared, **({"backbone": fixed} if isinstance(fixed, str) else fixed)},
            family=family,
        )(builder)

    def resolve(name: str) -> ModelEntry | None:
        backbone = name.removeprefix(beginning)
        if not is_backbone(backbone):
            return None
        named = {**shared, "backbone": backbone}
        return ModelEntry(name, builder, options, task, named, None, {}, paper, family)

    register_pattern(beginning, resolve, "any backbone of a detector, ours or timm's")
