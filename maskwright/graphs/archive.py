"""What may be in a `.pt2` file that we open: tensors and arithmetic, nothing that runs code.

torch's reader trusts its files: it unpickles what they ask for, evaluates their symbolic sizes as
Python, runs their guards as code, writes the names of values into code that it runs, and loads
their machine code. So everything in a file must be of the few kinds that `maskwright export`
writes; what is unknown is refused. And torch gets a new archive of what was checked, not the file:
a zip can show one reader other contents than the next, and torch has two.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

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
# Names of values, of which torch makes Python code; and paths of weights, which have dots.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"(?!__)\w+(\.(?!__)\w+)*", re.ASCII)
_SUM = re.compile(r"[a-z0-9*+ -]+")  # of sizes, under which their bounds stand
_PATHS = {"parameter_name", "buffer_name", "tensor_constant_name", "fqn"}
_OTHER = {"torch_version": re.compile(r"[\w.+-]*"), "as_float": re.compile(r"-?[A-Za-z]+")}
# What torch writes beside graph, weights and our description.
_MARKS = {
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"\d{1,9}"),
    "byteorder": re.compile(rb"little"),
}
_WRITERS_OWN = {".data/serialization_id", ".data/version", "version"}


class ArchiveError(ValueError):
    """A file holds something that is not to be read; the message says what."""


class Archive(NamedTuple):
    """What `check_archive` found.

    Attributes:
        text: the description of the file; "" if there is none.
        code: whether it holds machine code.
        graph: a new archive of what was checked; empty if it is machine code.
    """

    text: str
    code: bool
    graph: bytes


def check_archive(data: bytes) -> Archive:
    """Look a `.pt2` file over without running anything in it.

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
    return Archive(text, code, b"" if code else _copy(reader, names))


def _copy(reader: Any, names: list[str]) -> bytes:
    """Return a new archive of the records of one that was checked."""
    made = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(made)
    for name in names:
        if name not in _WRITERS_OWN and name != "byteorder":
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return made.getvalue()


def _check_files(reader: Any, names: list[str]) -> None:
    """Check that tensors are stored as bytes, not as pickles."""
    for name in names:
        kind, _, rest = name.removeprefix("data/").partition("/")
        if not name.startswith("data/"):
            known = name in _WRITERS_OWN | {"models/model.json", f"extra/{GRAPH_FILE}"}
            mark = _MARKS.get(name)
            if not known and not (mark and mark.fullmatch(reader.get_record(name).strip())):
                raise ArchiveError(f"it holds {name[:80]!r}")
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
        else:
            _check_names(key, value)


def _check_names(key: str, value: Any) -> None:
    """Check a key of the graph and the texts that stand under it."""
    wanted = _PATH if key in _PATHS else _OTHER.get(key, _NAME)
    waiting = [value]
    while waiting:
        text = waiting.pop()
        if isinstance(text, list):
            waiting += text
        elif isinstance(text, str) and text and not wanted.fullmatch(text):
            raise ArchiveError(f"it has the name {text[:80]!r}")
    if not _NAME.fullmatch(key) and not _SUM.fullmatch(key):
        raise ArchiveError(f"it has the name {key[:80]!r}")


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
