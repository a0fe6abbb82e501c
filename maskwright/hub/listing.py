"""Tables of the models that there are: a line for each family, or for each model of some."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..models.registry import ModelEntry, build_blank
from ..terminal import console
from .backbone_weights import pretrained_place

FEW = 3  # backbones of a family that its line names


def show_families(entries: Sequence[ModelEntry]) -> None:
    """Print a line for each family of some models, by task and name."""
    families: dict[str, list[ModelEntry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.task, entry.family)):
        families.setdefault(entry.family, []).append(entry)
    columns = ["family", "task", "paper", "models", "backbones", "weights="]
    rows = [_family_row(family, members) for family, members in families.items()]
    console.table("Families of models", columns, rows)


def _family_row(family: str, members: Sequence[ModelEntry]) -> list[object]:
    papers = [paper for member in members for paper in member.paper.split("; ")]
    found = {str(member.arguments().get("backbone")) for member in members} - {"None"}
    backbones = sorted(found, key=_natural)
    shown = ", ".join(backbones[:FEW])
    if len(backbones) > FEW:
        shown += f" and {len(backbones) - FEW} more"
    return [
        family,
        ", ".join(sorted({member.task for member in members})),
        "; ".join(dict.fromkeys(papers)),
        len(members),
        shown or None,
        ", ".join(dict.fromkeys(key for member in members for key in member.weights)) or None,
    ]


def _natural(name: str) -> list[tuple[str, int]]:
    """Return what sorts "resnet18" before "resnet101"."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def show_models(entries: Sequence[ModelEntry]) -> None:
    """Print a line for each of some models."""
    rows: list[list[object]] = []
    for entry in entries:
        licences = {weights.licence for weights in entry.weights.values()}
        backbone = entry.arguments().get("backbone")  # a classification network may have none
        rows.append(
            [
                entry.name,
                entry.task,
                backbone,
                pretrained_place(backbone) if backbone else None,
                f"{count_parameters(entry.name) / 1e6:.1f} M",
                ", ".join(entry.weights) or None,
                ", ".join(sorted(licences)) or None,
            ]
        )
    columns = ["name", "task", "backbone", "its ImageNet weights", "parameters"]
    console.table("Models", [*columns, "weights=", "licence of these"], rows)


def count_parameters(name: str) -> int:
    """Return the number of parameters of a model with 80 classes, without making its tensors."""
    return sum(p.numel() for p in build_blank(name, 80).parameters())
