"""The words of a command line: `key=value`, `--key value`, switches and positions, made one form.

Nothing is guessed: what could be meant in two ways, or not at all, is said with the form to write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .commands import UsageError, unknown
from .errors import synonym
from .signatures import REQUIRED, Option, members

_TEXT = Option("", "str", REQUIRED, "")
_SEVERAL = "tuple[str, ...]"  # options of this type may be given several times as well
# What editors and web pages make of "--".
_DASHES = re.compile("[\u2010-\u2015\u2212-]+(?=[A-Za-z])")


@dataclass
class Words:
    """The words behind a command, read.

    Attributes:
        given: text of the options of the command, by name.
        extra: text of options that the command does not know itself, by name.
        files: the source, where a shell has made several files of a pattern.
        help: whether help is asked for instead.
    """

    given: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    help: bool = False


def read_words(
    name: str, tokens: Sequence[str], known: Mapping[str, Option], *, takes_more: bool = False
) -> Words:
    """Read the words behind a command.

    Args:
        name: of the command.
        tokens: the words.
        known: its options by name, those for positions in their order.
        takes_more: whether options that are not known are taken as `extra`.

    Raises:
        UsageError: for wrong usage.
    """
    if "--help" in tokens or "-h" in tokens:
        return Words(help=True)
    return _Reader(name, tokens, known, takes_more).read()


class _Reader:
    def __init__(
        self, name: str, tokens: Sequence[str], known: Mapping[str, Option], takes_more: bool
    ) -> None:
        self.name, self.known, self.takes_more = name, known, takes_more
        self.tokens = [_plain_dashes(token) for token in tokens]
        self.at = 0
        self.given: dict[str, str] = {}
        self.values: list[str] = []

    def __iter__(self) -> Iterator[str]:
        while self.at < len(self.tokens):
            yield self.take()

    def next(self) -> str:
        """Return the word behind, "" after the last."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """Return the word behind and pass over it."""
        self.at += 1
        return self.tokens[self.at - 1]

    def read(self) -> Words:
        for token in self:
            self._word(token)
        files = self._files()
        if missing := self._missing():
            needs = "; ".join(f"{o.name}=... ({o.help.rstrip('.')})" for o in missing)
            raise UsageError(f"{self.name} needs {needs}")
        given = {option.name: text for option, text in zip(self._free(), self.values, strict=False)}
        given |= {key: text for key, text in self.given.items() if key in self.known}
        extra = {key: text for key, text in self.given.items() if key not in self.known}
        return Words(given, extra, files)

    def _word(self, token: str) -> None:
        """Read one option, with the word of its value, or keep one for a position."""
        match = re.match(r"(?:--)?([A-Za-z][\w-]*)=(.*)$", token, re.DOTALL)
        flag = re.match(r"--([A-Za-z][\w-]*)$", token)
        behind = self.next()
        cut = match is not None and not match[2] and match[1].replace("-", "_") in self.known
        if behind.startswith("=") or (cut and behind and "=" not in behind and behind[0] != "-"):
            raise UsageError(f"write {token.strip('-=')}=value, without spaces around '='")
        if token.startswith("="):
            raise UsageError("write options as key=value, without spaces around '='")
        found = match or flag
        if found is None or (match and not token.startswith("--") and self._is_file(match)):
            if token.startswith("-") and len(token) > 1 and not _exists(token):
                key = token.strip("-").split("=")[0].replace("-", "_")
                raise UsageError(
                    f"{self.name} has no option {token!r}, and there is no such file: options are "
                    f"written key=value{unknown(key, self.known)}"
                )
            if token.endswith("=") and not _exists(token):
                raise UsageError("write options as key=value, without spaces around '='")
            self.values.append(token)
            return
        key = found[1].replace("-", "_")
        negated = self.known.get(key.removeprefix("no_"), _TEXT)
        if flag and key not in self.known and _is_switch(negated):
            key, value = negated.name, "false"
        else:
            if key not in self.known and not self.takes_more:
                raise UsageError(f"{self.name} has no option {key!r}{unknown(key, self.known)}")
            value = match[2] if match else self._behind(key)
        if not value:
            raise UsageError(
                f"{self.name}: the option {key!r} is empty; leave it out or give a value"
            )
        if key in self.given and self.known.get(key, _TEXT).kind == _SEVERAL:
            value = f"{self.given.pop(key)},{value}"
        if key in self.given:
            before = self.given[key]
            both = f"as {before} and {value}" if before != value else f"both times as {value}"
            raise UsageError(f"{self.name}: the option {key!r} is given twice, {both}")
        self.given[key] = value

    def _is_file(self, match: re.Match[str]) -> bool:
        """Tell whether a word with "=" in it is no option but a file, such as a=1.png."""
        key = match[1].replace("-", "_")
        return key not in self.known and not synonym(key, self.known) and _exists(match[0])

    def _behind(self, key: str) -> str:
        """Return the value of `--key`, which stands behind it; a switch needs none.

        A switch that may also be a path, such as --save, has the next word for its value where
        that can be nothing else: where nothing that must be given is missing.
        """
        option, value = self.known.get(key, _TEXT), self.next()
        if _is_switch(option):
            words = ("true", "false", "none") if "None" in option.kind else ("true", "false")
            if value.lower() in words:
                return self.take()
            is_option = re.match(r"--[A-Za-z]|[A-Za-z][\w-]*=", value)
            if option.kind != "bool" and value and not is_option and not self._missing():
                return self.take()
            return "true"
        if not value or re.match(r"--[A-Za-z]", value):
            raise UsageError(f"{self.name}: the option {key!r} needs a value: {key}=...")
        return self.take()

    def _free(self) -> list[Option]:
        """Return the options that words without a name stand for, in their order."""
        return [o for o in self.known.values() if o.positional and o.name not in self.given]

    def _missing(self) -> list[Option]:
        """Return the options that must be given and are not."""
        placed = self._free()[: len(self.values)]
        return [
            option
            for option in self.known.values()
            if option.default is REQUIRED and option.name not in self.given and option not in placed
        ]

    def _files(self) -> list[str]:
        """Return the files of the source, if a shell has made several of a pattern.

        Raises:
            UsageError: if there are words too many, and they are none; or the command takes no
                such list: with the form that keeps the pattern.
        """
        free = self._free()
        if len(self.values) <= len(free):
            return []
        names = [option.name for option in free]
        # Behind source=photos/*.png the shell leaves the first file in the option.
        first = [self.given["source"]] if "source" in self.given else []
        place = names.index("source") if "source" in names else len(free)
        files = [*first, *self.values[place:]] if place < len(free) or first else []
        odd = [file for file in files if not _exists(file)]
        for word in self.values:
            key = word.replace("-", "_")
            if key in self.known and not _exists(word):
                value = "true" if _is_switch(self.known[key]) else "..."
                raise UsageError(f"{self.name}: the option {word!r} is written {key}={value}")
        if self.name == "predict" and files and not odd:
            model = self.values[0] if place else self.given.get("model", "")
            if os.path.isfile(model) and _suffix(model) == _suffix(files[0]):  # noqa: PTH113
                raise UsageError(f"predict needs model=..., and was given {len(files) + 1} files")
            del self.values[place:]
            self.given["source"] = files[0]
            return files
        there = [value for value in self.values[len(free) :] if _exists(value)]
        if there and len(there) == len(self.values) - len(free) and self.name != "predict":
            raise UsageError(
                f"{self.name} does not know what {there[0]!r} is, and takes no list of files: if "
                "the shell made several of a pattern, give their folder, or the pattern in quotes"
            )
        if len(odd) < len(files):
            raise UsageError(
                f"{self.name}: {odd[0]!r}, one of {len(files)} files, does not exist (options are "
                "written key=value)"
            )
        wrong = self.values[len(free)]
        raise UsageError(f"{self.name} does not know what {wrong!r} is: write key=value")


def _plain_dashes(token: str) -> str:
    """Return a word with dashes that are no minus signs put right."""
    start = _DASHES.match(token)
    if start is None or start[0] in ("-", "--") or _exists(token):
        return token
    return "--" + token[start.end() :]


def _is_switch(option: Option) -> bool:
    return "bool" in members(option.kind)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _exists(name: str) -> bool:
    try:
        return os.path.exists(name)  # noqa: PTH110
    except ValueError:  # a zero in it
        return False
