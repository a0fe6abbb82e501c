"""Paths as users write them: `~` for the home directory, and the name that was meant.

Where a shell does not expand `~` (in Python, in YAML files, behind `key=`), it still means the home
directory. Environment variables are taken literally. Everything else stays as it was written:
relative paths count from the working directory, in a YAML file from its folder.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def cache_dir() -> Path:
    """Return the folder of fetched files: `$MASKWRIGHT_HOME` or `~/.cache/maskwright`."""
    given = os.environ.get("MASKWRIGHT_HOME")
    return Path(home_path(given)) if given else Path.home() / ".cache" / "maskwright"


def home_path(value: T) -> T:
    """Return a path with `~` or `~user` at its beginning replaced; anything else as it is.

    A file that is really called `~user...` is left alone, and so is the name of no user.
    """
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text.startswith("~"):
        return value
    if text != "~" and text[1] not in (os.sep, os.altsep) and os.path.lexists(text):
        return value
    return type(value)(os.path.expanduser(text))  # noqa: PTH111


def names_path(kind: str) -> bool:
    """Return True if a type as it is written in the source, such as "str | Path", takes paths."""
    return re.search(r"\bPath\b", kind) is not None


def takes_paths(function: Callable[P, R]) -> Callable[P, R]:
    """Let `~` mean the home directory in every argument whose annotation names `Path`."""
    order = list(inspect.signature(function).parameters.values())
    paths = {parameter.name for parameter in order if names_path(str(parameter.annotation))}

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        given: list[Any] = [
            home_path(value) if parameter.name in paths else value
            for value, parameter in zip(args, order, strict=False)
        ]
        given += args[len(given) :]
        named: dict[str, Any] = {
            name: home_path(value) if name in paths else value for name, value in options.items()
        }
        return function(*given, **named)

    return call


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Give a path for libraries that know UTF-8 alone: itself, or a link to it while inside.

    The names of files may be any bytes; such a path is reached by a link with a plain name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            suffix = path.suffix if path.suffix.isascii() else ""
            link = Path(folder, f"link{suffix}")
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def nearest_path(path: Path) -> str:
    """Return "; did you mean ...?" with the name in the file system nearest to a missing path."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        names = sorted(entry.name for entry in missing.parent.iterdir())
    except OSError:
        names = []
    # A wrong suffix or case is a frequent slip, a wrong stem among numbered files is another file.
    same = [name for name in names if Path(name).stem.lower() == missing.stem.lower()]
    near = same or difflib.get_close_matches(missing.name, names, 1, 0.6)
    if near:
        return f"; did you mean {str(missing.parent / near[0])!r}?"
    if missing != path:
        return f": there is no {str(missing)!r}"
    return f" (looked in {str(missing.parent.resolve())!r})"
