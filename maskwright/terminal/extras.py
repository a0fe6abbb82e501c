"""What the package's own metadata ask for: libraries and their least versions, by extra.

Read from the installation, wheel or editable, so that an extra is known as soon as it exists.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

NAME = "maskwright"
_INNER = {"dev"}  # extras for those who work on the package


@dataclass(frozen=True)
class Wanted:
    """A library that the package asks for.

    Attributes:
        name: of its distribution.
        least: the versions that serve, such as ">=1.17"; "" for all.
        extra: which extra wants it; "" if the package cannot do without.
        version: what is installed, None for nothing.
        state: "ok", "old" (too old, or not one of those that serve) or "missing".
    """

    name: str
    least: str
    extra: str
    version: str | None
    state: Literal["ok", "old", "missing"]

    @property
    def mend(self) -> str:
        """The command that installs it, with what belongs to it."""
        if self.state == "ok":
            return ""
        if not self.extra:
            return f'pip install --upgrade "{self.name}{self.least}"'
        upgrade = "--upgrade " if self.state == "old" else ""
        return f'pip install {upgrade}"{NAME}[{self.extra}]"'


def wanted() -> Iterator[Wanted]:
    """Yield what this machine's installation asks for; nothing if the package is not installed."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        own = importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError:
        return
    extras = [name for name in own.metadata.get_all("Provides-Extra") or () if name not in _INNER]
    for text in own.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of a newer form
            continue
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        users = [""] if needed else []
        if marker is not None and not needed:
            users = [extra for extra in extras if marker.evaluate({"extra": extra})]
        for extra in users:
            yield _look(requirement.name, str(requirement.specifier), extra)


def _look(name: str, least: str, extra: str) -> Wanted:
    """Compare what is wanted with what is installed."""
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Wanted(name, least, extra, None, "missing")
    serves = SpecifierSet(least).contains(version, prereleases=True)
    return Wanted(name, least, extra, version, "ok" if serves else "old")
