"""Find the weights in what people save: below any wrapper, behind any prefix, beside anything else.

A wrapper (`{"model": ...}`), a prefix (`module.`, `_orig_mod.`, `model.`) and the modules of a
pickled network are the same: parts of a tensor's full name. The weights are the tensors behind that
prefix where most names are known to who asks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import first_few
from ..pickles import Global, Thing
from .ssd import mmdetection_sizes
from .torch_file import TensorRecord, as_record

_DEPTH, _NODES = 64, 1_000_000
# Where tensors of the same names stand that come second: averages, and what an optimiser keeps.
_SECOND = ("ema", "averag", "teacher", "momentum", "optim", "swa", "shadow")
# What a file is made of where none of its names is known.
_WRAPPERS = {
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"),
    *("state", "checkpoint", "model_state", "_orig_mod", "ema", "model_ema", "state_dict_ema"),
}


class TooMuchError(ValueError):
    """A file holds more objects than a checkpoint has, or refers to itself without end."""


def named_tensors(content: Any) -> dict[str, TensorRecord]:
    """Return every tensor by its full name: the keys, attributes and modules that lead to it.

    Args:
        content: what `open_torch_file` returns.

    Raises:
        TooMuchError: if the file refers to itself without end.
    """
    found: dict[str, TensorRecord] = {}
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    count = 0
    while waiting:
        name, node, depth = waiting.pop()
        if depth == _DEPTH:
            continue
        prefix, inner = f"{name}." if name else "", []
        for key, child in children_of(node):
            count += 1
            record = as_record(child)
            if record is None:
                inner.append((prefix + key, child, depth + 1))
            elif isinstance(node, Thing):  # those of a list have no name
                found.setdefault(prefix + key, record)
        if count > _NODES:
            raise TooMuchError(f"it holds more than {_NODES} objects, or itself")
        waiting += reversed(inner)  # the first ones first
    return found


def children_of(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in a record with its key, place or attribute."""
    if isinstance(node, list | tuple):
        yield from ((str(i), child) for i, child in enumerate(node) if _inner(child))
        return
    if not isinstance(node, Thing):
        return
    yield from ((key, child) for key, child in items_of(node).items() if _inner(child))
    yield from ((str(i), child) for i, child in enumerate(node.elements) if _inner(child))
    own = items_of(node.state)
    if "_parameters" not in own or "_modules" not in own:
        yield from ((key, child) for key, child in own.items() if _inner(child))
        return
    left_out = _members(own.get("_non_persistent_buffers_set"))
    for part in ("_parameters", "_buffers", "_modules"):
        for key, child in items_of(own.get(part)).items():
            if _inner(child) and not (part == "_buffers" and key in left_out):
                yield key, child


def _members(thing: Any) -> list[Any]:
    """Return what is in a set: in older protocols its class was called with a list."""
    if not isinstance(thing, Thing):
        return []
    return thing.elements or [m for arg in thing.args if isinstance(arg, list) for m in arg]


def _inner(child: Any) -> bool:
    return isinstance(child, Thing | TensorRecord | list | tuple)


def items_of(node: Any) -> dict[str, Any]:
    """Return what a dictionary holds by text; an empty one for anything else."""
    if not isinstance(node, Thing):
        return {}
    ordered = isinstance(node.kind, Global) and node.kind.name == "OrderedDict"
    if not node.items and ordered and node.args and isinstance(node.args[0], list):
        pairs = [p for p in node.args[0] if isinstance(p, list | tuple) and len(p) == 2]
        return {key: value for key, value in pairs if type(key) is str}
    return node.items


def weights_prefix(names: Iterable[str], known: Callable[[str], bool]) -> str:
    """Return the prefix behind which most names are known, "" or with a dot at its end.

    Of equal ones that which does not look like an average of weights or an optimiser, then the
    first. Where no name is known: that which all names share, as far as it is made of the usual
    wrappers.
    """
    names = list(names)
    counts: Counter[str] = Counter()
    for name in names:
        at = 0
        while True:
            if known(name[at:]):
                counts[name[:at]] += 1
            at = name.find(".", at) + 1
            if not at:
                break
    if counts:
        # max keeps the first of equals.
        return max(counts, key=lambda prefix: (counts[prefix], not _is_second(prefix)))
    rest = [name for name in names if not _is_second(name.split(".")[0])] or names
    prefix = ""
    while len(firsts := {name.removeprefix(prefix).split(".")[0] for name in rest}) == 1:
        (first,) = firsts
        if first not in _WRAPPERS or any(name == prefix + first for name in rest):
            break
        prefix += f"{first}."
    return prefix


def _is_second(prefix: str) -> bool:
    return any(word in prefix.lower() for word in _SECOND)


def class_names(content: Any) -> list[str] | None:
    """Return the names of the classes if a file tells them, as mmdetection's and others do."""
    places = (
        ("meta", "CLASSES"), ("meta", "dataset_meta", "classes"),
        ("meta", "dataset_meta", "CLASSES"), ("CLASSES",), ("classes",), ("class_names",),
        ("names",),
    )  # fmt: skip
    for keys in places:
        found = content
        for key in keys:
            found = items_of(found).get(key)
        names = [found] if isinstance(found, str) else found
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return None


def told_settings(content: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the conventions that a file of mmdetection tells, and builder options of its model.

    Its `meta` holds the version and the text of the configuration, of which the order of colours,
    the statistics of pixels and the last size of images are read.
    """
    meta = items_of(items_of(content).get("meta"))
    version, text = meta.get("mmdet_version"), meta.get("config", meta.get("cfg"))
    old = isinstance(version, str) and version.startswith(("0.", "1."))
    options: dict[str, Any] = {}
    rules = "mmdetection_v1" if old else "mmdetection"
    if not isinstance(text, str):
        return (rules if old else None), options
    order = re.findall(r"\b(?:to_rgb|bgr_to_rgb)\s*=\s*(True|False)", text)
    blue_first = bool(order) and order[-1] == "False"
    for name in ("mean", "std"):
        found = re.findall(rf"\b{name}\s*=\s*[\[(]([\d.,\s]+)[\])]", text)
        values = [float(part) for part in found[-1].split(",") if part.strip()] if found else []
        if len(values) == 3:
            options[f"pixel_{name}"] = tuple(reversed(values) if blue_first else values)
    sizes = re.findall(r"\b(?:img_scale|scale)\s*=\s*\((\d+),\s*(\d+)\)", text)
    if sizes and not re.search(r"keep_ratio\s*=\s*False", text):
        options["imgsz"] = tuple(sorted(int(side) for side in sizes[-1]))
    side = re.search(r"\binput_size\s*=\s*(\d{3})\b", text)
    shares = re.search(r"\bbasesize_ratio_range\s*=\s*\((0\.\d+),\s*(0\.\d+)\)", text)
    if side and shares:
        low, high = (round(100 * float(share)) for share in shares.groups())
        if boxes := mmdetection_sizes(int(side[1]), low, high):
            options["anchor_sizes"] = boxes
    told = rules + "_caffe" * blue_first if order or old else None
    return told, options


def contents(content: Any) -> str:
    """Return in a few words what a file holds, for a message."""
    if isinstance(content, Thing):
        keys = list(items_of(content))
        if keys:
            return f"a dictionary of {first_few(keys, 6)}"
        return "an empty dictionary" if content.kind is None else f"an object {content.kind}"
    if isinstance(content, list | tuple):
        return f"a list of {len(content)}"
    if isinstance(content, TensorRecord):
        return "one tensor without a name"
    return f"the name {content}" if isinstance(content, Global) else f"one {type(content).__name__}"


def subset(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what stands behind a prefix, by the rest of its name."""
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
