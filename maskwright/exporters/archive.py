"""What may be in a `.pt2` file that we open: tensors and arithmetic, nothing that runs code.

torch's reader trusts its files: it unpickles what they ask for, evaluates their symbolic sizes as
Python, runs their guards as code and loads their machine code. So a file is read only after
everything in it was found to be of the few kinds that `maskwright export` writes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import torch

from .spec import GRAPH_FILE

# A size: numbers, symbols, and the functions by which sizes depend on each other.
_FUNCTIONS = {
    *("Symbol", "Integer", "Mul", "Add", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv"),
    *("CleanDiv", "CeilDiv", "Rational", "IntTrueDiv", "ToFloat", "FloorToInt", "CeilToInt"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "StrictLessThan", "LessThan", "Equality", "Unequality"),
    *("StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "true", "false"),
}
_WORDS = _FUNCTIONS | {"positive", "integer", "nonnegative", "True", "False"}
_SYMBOL = re.compile(r"'[a-z]+\d+'")
_SIZE = re.compile(r"(?:'[a-z]+\d+'|[A-Za-z]+|\d+|[(),=\s-])*")
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|torch\.ops\.higher_order\.while_loop")
_PLAIN = re.compile(r"_operator\.(add|sub|mul|neg|floordiv|mod|pow|getitem|lt|le|gt|ge|eq|ne|and_)")
_SYMBOLIC = re.compile(r"torch\.sym_(min|max|not|ite)|math\.(ceil|floor|trunc)")
_FORBIDDEN = {"torch.ops.aten.from_file"}  # opens a file of any name
_TREE = {"builtins.tuple", "builtins.list", "builtins.dict"}


class ArchiveError(ValueError):
    """A file holds something that is not to be read; the message says what."""


def check_archive(data: bytes) -> tuple[str, bool]:
    """Look a `.pt2` file over without running anything in it.

    Returns:
        The description of the file ("" if there is none), and whether it holds machine code.

    Raises:
        ArchiveError: if the graph holds more than tensors and arithmetic.
        RuntimeError: if it is no such archive.
    """
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    names = reader.get_all_records()
    found = f"extra/{GRAPH_FILE}" in names
    text = reader.get_record(f"extra/{GRAPH_FILE}").decode("utf-8", "replace") if found else ""
    code = any(name.startswith("data/aotinductor/") for name in names)
    graphs = [name for name in names if name.startswith("models/")]
    if code and graphs:
        raise ArchiveError("it holds both a graph and machine code")
    if not code:
        if graphs != ["models/model.json"]:
            raise ArchiveError("it holds no graph, or several")
        _check_files(reader, names)
        _check_graph(json.loads(reader.get_record("models/model.json")))
    return text, code


def _check_files(reader: Any, names: list[str]) -> None:
    """Check that tensors are stored as bytes, not as pickles."""
    for name in names:
        kind, _, rest = name.removeprefix("data/").partition("/")
        if not name.startswith("data/"):
            continue
        config = rest == f"model_{kind}_config.json"
        if kind == "sample_inputs":
            if len(reader.get_record(name)):
                raise ArchiveError("it holds example inputs, which are stored as a pickle")
        elif kind not in ("weights", "constants"):
            raise ArchiveError(f"it holds {name}")
        elif config:
            entries = json.loads(reader.get_record(name))["config"].values()
            for entry in entries:
                path = str(entry["path_name"])
                if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", path):
                    raise ArchiveError(f"{path} is stored as a pickle")
        elif not re.fullmatch(r"(weight|tensor)_\d+", rest):
            raise ArchiveError(f"it holds {name}")


def _check_graph(graph: dict[str, Any]) -> None:
    """Check operators, sizes and everything else in a graph that the reader would act on."""
    if graph.get("guards_code"):
        raise ArchiveError("it holds guards, which are code")
    for key, value in _walk(graph):
        if key in ("target", "as_operator"):
            name = str(value)
            known = _TARGET.fullmatch(name) or _PLAIN.fullmatch(name) or _SYMBOLIC.fullmatch(name)
            if not known or name.rsplit(".", 1)[0] in _FORBIDDEN:
                raise ArchiveError(f"it calls {name[:80]!r}")
        elif key == "expr_str":
            words = set(re.findall(r"[A-Za-z]+", _SYMBOL.sub("", str(value))))
            if not _SIZE.fullmatch(str(value)) or not words <= _WORDS:
                raise ArchiveError(f"it computes a size as {str(value)[:80]!r}")
        elif key in ("in_spec", "out_spec"):
            _check_tree(str(value))
        elif key == "metadata" and value:
            raise ArchiveError("its nodes carry notes, which ours do not")
        elif key in ("as_custom_obj", "custom_obj", "treespec_namedtuple_fields") and value:
            raise ArchiveError("it holds objects beside tensors")


def _check_tree(text: str) -> None:
    for key, value in _walk(json.loads(text)):
        if (key == "type" and value is not None and value not in _TREE) or (
            key == "context" and "__" in str(value)
        ):
            raise ArchiveError(f"its inputs or outputs are of the kind {str(value)[:80]!r}")


def _walk(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key of nested JSON with its value."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
