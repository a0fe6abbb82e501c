"""Names of segmenters: a few stand in the list of models, on any other backbone they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...nn.backbones import is_backbone
from ..registry import Builder, ModelEntry, PublishedWeights, register, register_pattern


def register_segmenters(
    beginning: str,
    builder: Builder,
    listed: Mapping[str, Mapping[str, Any]],
    *,
    options: type,
    paper: str,
    tiny: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, PublishedWeights]] | None = None,
    others: str,
) -> None:
    """Register a segmenter for each backbone: `<beginning><backbone>`.

    Args:
        beginning: of the names.
        builder: makes the model.
        listed: what else the name says, to the options that this fixes beside the backbone, which
            it is called after unless they name one. The first is the family's smallest.
        options: its options, `backbone` among them.
        paper: authors and year.
        tiny: options of the smallest instance.
        weights: published ones by the same names.
        others: in words, which other backbones there may be.
    """
    family = beginning.rstrip("_")
    for number, (name, presets) in enumerate(listed.items()):
        register(
            f"{beginning}{name}",
            options=options,
            task="semantic",
            paper=paper,
            tiny=None if number else tiny,
            weights=(weights or {}).get(name),
            presets={"backbone": name, **presets},
            family=family,
        )(builder)

    def resolve(name: str) -> ModelEntry | None:
        backbone = name.removeprefix(beginning)
        if not is_backbone(backbone):
            return None
        presets = {"backbone": backbone}
        return ModelEntry(name, builder, options, "semantic", presets, None, {}, paper, family)

    register_pattern(beginning, resolve, others)
