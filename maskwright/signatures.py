"""Options of a function, read from its source without importing it.

The command line shows and checks the options of the Python functions, whose modules import torch.
Reading names, defaults and meaning from the source file keeps them in one place and the help
instant.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from maskwright.paths import home_path, names_path

REQUIRED = object()  # the default of an option that must be given


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: its name in Python.
        kind: its type as written in the source, such as "str | None".
        default: its default, or `REQUIRED`.
        help: its meaning, on one line.
        positional: whether it may be given by position.
        others: other defaults, with the models that have them in words.
    """

    name: str
    kind: str
    default: Any
    help: str
    positional: bool = False
    others: Sequence[tuple[Any, str]] = ()


def read_options(module: str, function: str) -> list[Option]:
    """Return the options of a function, with their meaning from its docstring.

    Args:
        module: dotted name of a module of this package, such as "maskwright.prediction.predictor".
        function: name of a function at its top level.
    """
    path = Path(__file__).parent.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function]
    if not found:
        raise LookupError(f"{module} has no function {function}")
    node = found[-1]  # behind its overloads
    doc = ast.get_docstring(node) or ""
    meaning = read_arguments(doc)
    arguments = node.args
    first = len(arguments.args) - len(arguments.defaults)
    pairs: list[tuple[ast.arg, ast.expr | None, bool]] = [
        (arg, arguments.defaults[i - first] if i >= first else None, True)
        for i, arg in enumerate(arguments.args)
    ]
    pairs += [
        (arg, default, False)
        for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [
        Option(
            arg.arg,
            "" if arg.annotation is None else ast.unparse(arg.annotation),
            REQUIRED if default is None else ast.literal_eval(default),
            meaning.get(arg.arg, ""),
            positional,
        )
        for arg, default, positional in pairs
    ]


def read_arguments(doc: str) -> dict[str, str]:
    """Return the meaning of each name under "Args:" of a docstring, one line each."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
    meaning: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else ():
        start = re.match(r" {4}\**(\w+): *(.*)", line)
        if start:
            name = start[1]
            meaning[name] = start[2]
        elif name and line.strip():
            meaning[name] += " " + line.strip()
    return meaning


def members(kind: str) -> list[str]:
    """Return the types of a union, a text last."""
    return _split(kind, "|")


def parse_value(kind: str, text: str) -> Any:
    """Return the value that a user wrote for an option.

    Args:
        kind: type as written in the source: a union of None, bool, int, float, str, Path,
            Literal[...] and tuple[...]. Other members are passed over.
        text: "none" is None; the items of a tuple stand between commas: "800,1333"; `~` at the
            beginning of a path is the home directory.

    Raises:
        ValueError: if `text` is no value of this type; the message says what is expected.
    """
    text = home_path(text) if names_path(kind) else text
    members = _split(kind, "|")
    literals = [ast.literal_eval(member[7:]) for member in members if member.startswith("Literal[")]
    if any(text in (choices if isinstance(choices, list) else [choices]) for choices in literals):
        return text  # "none" may be a value of its own beside None
    if "None" in members and text.lower() in ("none", "null", ""):
        return None
    for member in members:
        parse = _PARSERS.get(member)
        try:
            if parse is not None:
                return parse(text)
            if member.startswith("Literal["):
                choices = ast.literal_eval(member[7:])
                return {str(choice): choice for choice in choices}[text]
            if member.startswith("tuple["):
                return _parse_tuple(_split(member[6:-1], ","), text)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"expected {describe_kind(kind)}, got {text!r}")


def describe_kind(kind: str) -> str:
    """Return what a user may write for a type, such as "INT | INT,INT | TEXT"."""
    words = []
    for member in _split(kind, "|"):
        if member.startswith("Literal["):
            words += [str(choice) for choice in ast.literal_eval(member[7:])]
        elif member.startswith("tuple["):
            inner = _split(member[6:-1], ",")
            one = _WORDS.get(inner[0], "TEXT")
            words.append(",".join([one] * len(inner)) if inner[-1] != "..." else f"{one},{one},...")
        elif member in _WORDS:
            words.append(_WORDS[member])
    words = list(dict.fromkeys(words))
    if "PATH" in words and "TEXT" in words:  # a path is written as any text
        words.remove("TEXT")
    return " | ".join(words) or "TEXT"


def _parse_tuple(kinds: list[str], text: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
    if kinds[-1] == "...":
        kinds = [kinds[0]] * len(parts)
    if len(parts) != len(kinds) or not parts:
        raise ValueError(text)
    return tuple(parse_value(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _parse_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    return words[text.lower()]


def _split(kind: str, separator: str) -> list[str]:
    """Split at a separator outside of brackets and quotes."""
    parts, depth, start, quoted = [], 0, 0, False
    for i, char in enumerate(kind):
        if char in "'\"":
            quoted = not quoted
        if not quoted:
            depth += (char == "[") - (char == "]")
            if char == separator and depth == 0:
                parts.append(kind[start:i].strip())
                start = i + 1
    parts.append(kind[start:].strip())
    # A text takes anything, so it must be tried last.
    return sorted(parts, key=lambda part: part in ("str", "Path")) if separator == "|" else parts


_PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": _parse_bool,
    "int": int,
    "float": float,
    "str": str,
    "Path": str,
    "Any": str,
}
_WORDS = {
    "bool": "true|false",
    "int": "INT",
    "float": "NUMBER",
    "str": "TEXT",
    "Path": "PATH",
}


def model_options(options: type) -> dict[str, Option]:
    """Return the options of a model's builder by name, from its dataclass and the docstring."""
    meaning: dict[str, str] = {}
    for base in reversed(options.__mro__):
        doc = inspect.getdoc(base) if "__doc__" in vars(base) else None
        text = (doc or "").replace("Attributes:", "Args:")
        meaning.update(read_arguments(text))
    return {
        field.name: Option(field.name, str(field.type), field.default, meaning.get(field.name, ""))
        for field in fields(options)
    }
