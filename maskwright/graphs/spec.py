"""What an exported file says of itself: its interface, its names, its origin, as JSON.

The same JSON lies in the metadata of every format, so that a file is all one needs. `runtime.py`
reads it as well; `docs/export.md` describes it for readers in other languages. What differs
between tasks are fields of their own (`tasks.graph.Interface`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .._version import __version__
from ..models.meta import Meta
from ..structures import MAX_INPUT, Resize
from ..tasks import FOLDERS
from ..tasks.graph import GraphSpec, Quantised, graph_kind

KEY = "maskwright"  # of the metadata, in every format
GRAPH_FILE = f"{KEY}.json"  # of the description, where it is a file of an archive
VERSION = 1  # of the JSON
PRECISIONS = ("fp32", "fp16", "int8")
_UNTOLD = ("args", "metrics")  # fields of `Meta` that no file has
_OF_TRAINING = ("start", "random_start", "fresh")  # of its field `extra`, what no file needs


def describe(
    model: Any,
    meta: Meta,
    settings: Any,
    *,
    size: tuple[int, int] | None,
    batch: int | None,
    half: bool,
) -> GraphSpec:
    """Return the description of the graph of a model.

    Args:
        model: the model.
        meta: what its checkpoint says of it.
        settings: of the prediction that the graph is.
        size: see `GraphSpec`.
        batch: see `GraphSpec`.
        half: weights in half precision.

    Raises:
        ValueError: if models of its task have no graphs.
    """
    kind = graph_kind(model.task)
    # How data is read and scored, colours and the images held out go with the file.
    extra = {name: value for name, value in meta.extra.items() if name not in _OF_TRAINING}
    return GraphSpec(
        replace(meta, args={}, metrics={}, extra=extra),
        model.task,
        size,
        batch,
        model.size_divisor,
        kind.resize(model, size),
        "fp16" if half else "fp32",
        kind.interface(model, settings),
    )


def to_json(spec: GraphSpec) -> str:
    """Return a description as JSON text; see `docs/export.md`."""
    meta = spec.meta.to_dict()
    return json.dumps(
        {
            "version": VERSION,
            "maskwright": __version__,
            **{name: value for name, value in meta.items() if name not in _UNTOLD},
            "task": spec.task,
            "size": spec.size,
            "batch": spec.batch,
            "divisor": spec.divisor,
            "resize": asdict(spec.resize),
            **spec.own.fields(),
            "precision": spec.precision,
            "int8": None if spec.quantised is None else asdict(spec.quantised),
            "outputs": spec.outputs,
        },
        ensure_ascii=True,
    )


def from_json(text: str) -> GraphSpec:
    """Return what `to_json` wrote.

    Raises:
        ValueError: if it is no such text, or of a newer version.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        if int(data["version"]) > VERSION:
            raise ValueError(
                f"it was written by maskwright {data.get('maskwright')}, which is newer than "
                f"this one ({__version__}): update maskwright"
            )
        task, precision = str(data["task"]), str(data["precision"])
        for value, known in ((task, FOLDERS), (precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f"its description says {value!r}, not {' or '.join(known)}")
        size, batch, rule = data["size"], data["batch"], data["resize"]
        bounds = {name: rule.get(name) for name in ("within", "stretch")}
        pairs = {name: value and (int(value[0]), int(value[1])) for name, value in bounds.items()}
        spec = GraphSpec(
            Meta.from_dict({"args": {}, **data}),
            task,
            None if size is None else (int(size[0]), int(size[1])),
            None if batch is None else int(batch),
            int(data["divisor"]),
            Resize(**{**rule, **pairs}),
            precision,
            graph_kind(task).read(data),
            _read_quantised(data.get("int8")),
        )
    except (TypeError, KeyError, IndexError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"its description is incomplete ({error!r})") from None
    sides = spec.size or (spec.divisor, spec.divisor)
    if min(*sides, spec.divisor, spec.batch or 1) < 1 or sides[0] * sides[1] > MAX_INPUT:
        raise ValueError(f"its description names impossible sizes: {sides}, {spec.batch}")
    spec.own.check(spec)
    return spec


def _read_quantised(data: Mapping[str, Any] | None) -> Quantised | None:
    if data is None:
        return None
    before, after = (
        {str(key): float(value) for key, value in data[name].items()}
        for name in ("before", "after")
    )
    return Quantised(int(data["images"]), before, after)
