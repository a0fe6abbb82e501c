"""The registry: one dictionary from a model's name to the function that builds it.

Whole models only; parts are ordinary classes that a builder puts together. One builder may
stand under several names with other presets: `@register("mask_rcnn_resnet18_fpn",
backbone="resnet18")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from ..errors import OptionError, nearest
from .base import Model
from .channels import with_channels

# What a model is, by the first word of its task.
KINDS = {
    **dict.fromkeys(("detect", "segment", "keypoints"), "detector"),
    "classify": "classifier",
    "localize": "localizer",
    "semantic": "segmenter",
}
# (num_classes, options) -> model; the options are a frozen dataclass of documented fields.
Builder = Callable[[int, Any], Model]
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file that somebody published, in the format of its library.

    Attributes:
        url: where it can be fetched.
        sha256: its SHA-256 in hexadecimal, or the beginning of it that the publisher states.
        format: whose names and layouts it uses: a module of `maskwright.convert`.
        licence: licence of the file.
        source: who published it, and from which data.
        metrics: published figures, for the table of models.
        options: builder options that belong to the weights, beside those of the model's name.
    """

    url: str
    sha256: str
    format: str
    licence: str
    source: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelEntry:
    """What the registry knows of one name.

    Attributes:
        name: `<detector>_<backbone>_<neck>`, or that of a classification network.
        builder: makes the model of a class count and an instance of `options`.
        options: dataclass of the builder's options.
        task: see `Model`.
        presets: the options that this name fixes.
        tiny: options of the family's smallest instance, or None.
        weights: published weights by short name.
        paper: authors and year.
        family: models of one idea: the name of the builder's module, unless it says another.
    """

    name: str
    builder: Builder
    options: type
    task: str
    presets: Mapping[str, Any]
    tiny: Mapping[str, Any] | None
    weights: Mapping[str, PublishedWeights]
    paper: str
    family: str = ""

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", self.builder.__module__.rpartition(".")[2])

    def tasks(self) -> set[str]:
        """Return the words that ask for models of this task: the whole and its parts."""
        return {self.task, *self.task.split("+")}

    @property
    def kind(self) -> str:
        """What the model is, in a word: "detector", "classifier", "localizer", "segmenter"."""
        return KINDS[self.task.split("+")[0]]

    def arguments(self) -> dict[str, Any]:
        """Return the builder's options with their values under this name."""
        return {**{f.name: f.default for f in fields(self.options)}, **self.presets}

    def resolved(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every builder option where these are given, as the builder has it."""
        return dict(vars(self.options(**{**self.presets, **args})))


_ENTRIES: dict[str, ModelEntry] = {}
# The beginning of a name to what makes an entry of the whole of it, or None if it names no model,
# and to what may follow, in words.
_PATTERNS: dict[str, tuple[Callable[[str], ModelEntry | None], str]] = {}


def register(
    name: str,
    *,
    options: type,
    task: str,
    paper: str,
    tiny: Mapping[str, Any] | None = None,
    weights: Mapping[str, PublishedWeights] | None = None,
    presets: Mapping[str, Any] | None = None,
    family: str = "",
) -> Callable[[AnyBuilder], AnyBuilder]:
    """Put a builder into the registry under `name`; may be stacked. See `ModelEntry`."""

    def add(builder: AnyBuilder) -> AnyBuilder:
        assert name not in _ENTRIES, name
        _ENTRIES[name] = ModelEntry(
            name, builder, options, task, presets or {}, tiny, weights or {}, paper, family
        )
        return builder

    return add


def register_pattern(
    beginning: str, resolve: Callable[[str], ModelEntry | None], names: str
) -> None:
    """Let all names that begin so be models, of which `list_models` has those registered by name.

    Args:
        beginning: such as "locate_"; of several that fit a name the longest counts.
        resolve: makes an entry of a whole name; None, or a ValueError that says more: there is no
            such model.
        names: what may follow, in words for users.
    """
    assert beginning not in _PATTERNS, beginning
    _PATTERNS[beginning] = resolve, names


@cache
def _resolved(name: str) -> ModelEntry | None:
    """Return the entry of a name that a pattern makes, or None."""
    beginning = _beginning(name)
    return None if beginning is None else _PATTERNS[beginning][0](name)


def _beginning(name: str) -> str | None:
    """Return the longest beginning of a pattern that a name has, or None."""
    return max((one for one in _PATTERNS if name.startswith(one)), key=len, default=None)


def open_names(names: Iterable[str]) -> dict[str, str]:
    """Return of which beginnings some registered names are examples: to what else may follow."""
    found = sorted({one for one in map(_beginning, names) if one is not None})
    return {beginning: _PATTERNS[beginning][1] for beginning in found}


def known_words() -> dict[str, set[str]]:
    """Return what the options "family" and "task" of `list_models` may be."""
    entries = _ENTRIES.values()
    return {
        "family": {entry.family for entry in entries},
        "task": {word for entry in entries for word in entry.tasks()},
    }


def list_models(*, family: str | None = None, task: str | None = None) -> dict[str, ModelEntry]:
    """Return the models that are registered by their whole name, sorted.

    Args:
        family: those of one family, such as "mask_rcnn".
        task: those of one task, such as "classify"; "segment" has those that find keypoints too.

    Raises:
        OptionError: if no model is of this family or task; the message names one that is almost
            the same word, or all.
    """
    given = {"family": family, "task": task}
    for option, known in known_words().items():
        value = given[option]
        if value is not None and value not in known:
            meant = nearest(value, sorted(known), 0.75)
            meant = meant or f"; there are {', '.join(sorted(known))}"
            raise OptionError(f"{option}={value}: no model is of this {option}{meant}")
    return {
        name: entry
        for name, entry in sorted(_ENTRIES.items())
        if family in (None, entry.family) and (task is None or task in entry.tasks())
    }


def find_entry(name: str) -> ModelEntry | None:
    """Return the entry of a model, or None if no model has this name."""
    try:
        return _ENTRIES.get(name) or _resolved(name)
    except ValueError:
        return None


def get_entry(name: str) -> ModelEntry:
    """Return the entry of a model.

    Raises:
        OptionError: if there is no model of this name; the message suggests the nearest.
    """
    entry = _ENTRIES.get(name) or _resolved(name)
    if entry is None:
        # Of names that begin alike, those with a pyramid are meant before the older ones.
        meant = nearest(name, sorted(_ENTRIES, key=lambda other: not other.endswith("_fpn")))
        raise OptionError(f"no model is called {name!r}{meant} (see `maskwright models`)")
    return entry


def build(name: str, num_classes: int, *, input_channels: int = 3, **options: Any) -> Any:
    """Build a registered model with random weights: the `Model` of its task, which the name tells.

    Args:
        name: a registered name.
        num_classes: number of real classes, background not counted.
        input_channels: of the images; see `models.channels.with_channels`.
        **options: fields of the builder's options.

    Raises:
        OptionError: for an unknown name or option, or a class count below 1.
    """
    entry = get_entry(name)
    if num_classes < 1:
        raise OptionError(f"num_classes must be at least 1, got {num_classes}")
    known = entry.arguments()
    for option in options:
        if option not in known:
            raise OptionError(
                f"{name} has no option {option!r}{nearest(option, known)} "
                f"(it has: {', '.join(sorted(known))})"
            )
    presets = dict(entry.presets)
    for option, replaced in getattr(entry.options, "REPLACES", {}).items():
        if options.get(option):
            presets.pop(replaced, None)
    model = entry.builder(num_classes, entry.options(**{**presets, **options}))
    assert model.task == entry.task
    if input_channels != 3:
        with_channels(model, input_channels, name)
    return model


def build_blank(name: str, num_classes: int, **options: Any) -> Any:
    """Build a model as `build` does, but without memory: on the device "meta"."""
    with torch.device("meta"), Unfilled():
        return build(name, num_classes, **options)


class Unfilled(TorchFunctionMode):
    """While it is on, no tensor is filled with random numbers, for models that are loaded next.

    It saves the time of drawing them; on the device "meta", where there is nothing to fill, torch
    would import its compiler for each, which takes longer than the rest of a start.
    """

    _FILLS = frozenset(("normal_", "uniform_", "trunc_normal_", "orthogonal_")).union(
        f"{kind}_{shape}_" for kind in ("kaiming", "xavier") for shape in ("normal", "uniform")
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in self._FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build_tiny(name: str, num_classes: int = 2) -> Any:
    """Build the smallest instance of the family of `name`, for tests."""
    entry = get_entry(name)
    if entry.tiny is None:
        raise ValueError(f"{name} has no tiny instance; take the family's first name")
    return build(name, num_classes, **entry.tiny)
