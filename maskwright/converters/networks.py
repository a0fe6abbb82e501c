"""Whole networks by their names: classifiers and segmenters, to ours and back; see `Layout`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from . import classification, dilated, semantic
from .common import COUNTER, Converted, ConvertReport, require
from .layout import OURS, Layout, State, replaced

TABLES = (classification.LAYOUTS, semantic.LAYOUTS, dilated.LAYOUTS)
# Heads that only training has, by the beginning of their names in ours: a file may lack them.
_AUXILIARY = (
    *("network.aux1.", "network.aux2.", "network.AuxLogits."),
    "network.aux_classifier.",
)


def layouts(model: str) -> Mapping[str, Layout]:
    """Return the layouts of a model by library; none if only we have it."""
    for pattern, known in (row for table in TABLES for row in table):
        if re.fullmatch(pattern, model):
            return known
    return {}


def known_name(model: str, our_names: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a tensor is one of a model, by anyone's name of it."""
    ours = set(our_names)
    known = {layout.their_name(name) for layout in layouts(model).values() for name in ours}

    def found(key: str) -> bool:
        older = [replaced(key, layout.older) for layout in layouts(model).values()]
        return key in ours or not known.isdisjoint([key, *older])

    return found


def detect_layout(keys: Iterable[str], model: str, our_names: Iterable[str]) -> str:
    """Return whose names these are: a library's, such as "timm", or our own, "maskwright".

    Args:
        keys: names of the tensors of a file.
        model: the registered name that they should belong to.
        our_names: our names of its tensors.

    Raises:
        ValueError: if nobody calls this model's tensors so.
    """
    keys, ours = list(keys), list(our_names)
    counts = {"maskwright": len(set(ours).intersection(keys))}
    for library, layout in layouts(model).items():
        theirs = {replaced(key, layout.older) for key in keys}
        counts[library] = len(theirs.intersection(map(layout.their_name, ours)))
    best = max(counts, key=counts.__getitem__)  # the first of equal ones
    if not counts[best]:
        expected = [
            ", ".join(list(map(layout.their_name, ours))[:2]) for layout in layouts(model).values()
        ] or [", ".join(ours[:2])]
        raise ValueError(
            f"these are no weights of {model}: expected names such as {' or '.join(expected)}, "
            f"found {', '.join(keys[:3]) or 'nothing'}"
        )
    return best


def told_options(state: State, *, model: str, source: str) -> dict[str, Any]:
    """Return the builder options that a library's tensors tell, and its statistics.

    Args:
        state: their tensors by name.
        model: the registered name.
        source: the library, or "maskwright" for our own names.

    Raises:
        ValueError: if a tensor is missing.
    """
    if source == "maskwright":
        return {}
    layout = layouts(model)[source]
    statistics = next(iter(layout.statistics), None)
    own = {} if statistics is None else {"statistics": statistics}
    return {**own, **layout.options(layout.modern(state))}


def to_maskwright(
    state: State, our_names: list[str], *, model: str, source: str, final: str
) -> Converted:
    """Convert a library's weights.

    Args:
        state: their tensors by name.
        our_names: names of the tensors of our model, built with `told_options`.
        model: its registered name.
        source: the library, or "maskwright" for our own names.
        final: our name of the layer whose rows are the classes.

    Raises:
        ValueError: if a tensor is missing, or one is there that would change what the network
            gives.
    """
    layout = Layout(((r"^", OURS),)) if source == "maskwright" else layouts(model)[source]
    report = ConvertReport()
    theirs = layout.modern(state)
    absent = [
        head
        for head in _AUXILIARY
        if not any(layout.their_name(n) in theirs for n in our_names if n.startswith(head))
    ]
    converted: dict[str, Tensor] = {}
    for name in our_names:
        key = layout.their_name(name)
        if name.startswith(tuple(absent)):
            continue
        if key.endswith(COUNTER) and key not in theirs:
            converted[name] = torch.zeros((), dtype=torch.int64)
            report.filled[name] = "no batch counted: the file is of an older version"
            continue
        value = require(theirs, key)
        converted[name] = value.flatten(1) if key in layout.shapes else value
        report.used.append(key)
    for key in [key for key in theirs if key not in report.used]:
        if not re.match(layout.spare, key):
            raise ValueError(
                f"{key} is no tensor of {model}: the network that the file is of has more, or "
                "other options"
            )
        report.ignored[key] = "not part of this model"
    options = told_options(state, model=model, source=source)
    if any(n.startswith(tuple(absent)) for n in our_names):
        options["auxiliary"] = 0.0
        report.notes.append("the file has no auxiliary heads: auxiliary=0")
    count = len(converted[f"{final}.weight"])
    names: list[str | None] = [*(classification.imagenet_names() if count == 1000 else ())]
    names = names or layout.classes(count) or [f"class_{i}" for i in range(1, count + 1)]
    if count == 1 and layout.single:
        # A sigmoid of one logit is a softmax of it beside a logit of zero.
        for key in (f"{final}.weight", f"{final}.bias"):
            row = converted[key]
            converted[key] = torch.cat([torch.zeros_like(row), row])
        names, count = ["background", "class_1"], 2
        report.notes.append("one class with a sigmoid became background and class")
    return Converted(converted, options, names, list(range(1, count + 1)), {}, report)


def from_maskwright(
    state: State, *, model: str, target: str, args: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Convert our weights to a library's names and layouts.

    Args:
        state: our tensors by name.
        model: the registered name.
        target: the library.
        args: all builder options of the model.

    Raises:
        ValueError: if the library has no such network.
    """
    known = layouts(model)
    if target not in known:
        others = f"it goes to {' and '.join(known)}" if known else "no library has it but ours"
        raise ValueError(f"{target} has no counterpart of {model}: {others}")
    layout, report = known[target], ConvertReport()
    for option, there in layout.fixed.items():
        allowed = there if isinstance(there, set) else [there]
        if option in args and args[option] not in allowed:
            raise ValueError(
                f"this {model} has {option}={args[option]}, {target}'s always "
                f"{option}={' or '.join(map(str, allowed))}"
            )
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        key = layout.their_name(name)
        shape = layout.shapes.get(key)
        result[key] = value if shape is None else value.unflatten(1, shape)
        report.used.append(name)
        if key.endswith("running_var"):  # our norms with fixed statistics do not count batches
            counter = f"{key.removesuffix('running_var')}{COUNTER}"
            if f"{name.removesuffix('running_var')}{COUNTER}" not in state:
                result[counter] = torch.zeros((), dtype=torch.int64)
                report.filled[counter] = "no batch counted"
    for key, value in layout.constants(
        {name.removeprefix(OURS): value for name, value in state.items()}
    ).items():
        result[key] = value
        report.filled[key] = "a constant of the network"
    own = args.get("statistics")
    if layout.statistics and own not in layout.statistics:
        report.notes.append(
            f"made with statistics={own}: {target} standardises as statistics="
            f"{layout.statistics[0]}, so give its network what this one was given"
        )
    return result, report


# What other libraries build in one way only, where ours has an option.
_FIXED: tuple[tuple[str, object, str], ...] = (
    ("stride_in_1x1", False, "bottlenecks that stride in their 3x3"),
    ("order", "e", "full pre-activation, order=e"),
)


def check_options(model: str, args: Mapping[str, object]) -> None:
    """Make sure that other libraries can build a model as it is.

    Raises:
        ValueError: naming the option that they have not.
    """
    for option, there, what in _FIXED:
        if args.get(option, there) != there:
            raise ValueError(
                f"this {model} has {option}={args[option]}; other libraries have {what}, alone"
            )
