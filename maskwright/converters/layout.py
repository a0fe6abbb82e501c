"""How a library calls the tensors of a network: a row of `classification` or `semantic`.

Ours bear the names of the common source where there is one, so that many rows say nothing but that.
Values never change, so that the way there and back is equal to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

OURS = "network."  # before the names of our networks
State = Mapping[str, Tensor]
Rules = tuple[tuple[str, str], ...]


def _nothing(state: State) -> dict[str, Any]:
    return {}


def _unnamed(count: int) -> list[str | None] | None:
    return None


@dataclass(frozen=True)
class Layout:
    """How a library calls the tensors of a family.

    Attributes:
        names: regular expressions on our names and what stands there in theirs; all are applied.
        shapes: by their names, the shape of one row where it differs from ours.
        older: regular expressions on names of older files, and the present ones.
        options: which builder options their tensors tell.
        constants: tensors that they have beside, of our tensors by our names without "network.".
        spare: a regular expression on names of theirs that ours does without; a tensor that is
            neither one of ours nor spare is an error, as it would change what the network gives.
        single: whether a network there may have one row of classes with a sigmoid, in which ours
            has two.
        statistics: how samples are standardised there, as values of our option; the first is that
            of the weights. None: the option left out. Empty: of no matter.
        fixed: options that have one value there, or one of a set.
        classes: names of so many classes in published files, or None.
    """

    names: Rules = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    older: Rules = ()
    options: Callable[[State], dict[str, Any]] = _nothing
    constants: Callable[[State], dict[str, Tensor]] = _nothing
    spare: str = ".*"
    single: bool = False
    statistics: tuple[str | None, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    classes: Callable[[int], list[str | None] | None] = _unnamed

    def their_name(self, ours: str) -> str:
        """Return their name of one of our tensors."""
        return replaced(ours.removeprefix(OURS), self.names)

    def modern(self, state: State) -> dict[str, Tensor]:
        """Return the tensors of a file by the present names."""
        return {replaced(key, self.older): value for key, value in state.items()}


# Registered names, as a regular expression, to the layout of each library; the first of equal ones
# is what a file is taken for.
Table = tuple[tuple[str, Mapping[str, Layout]], ...]


def replaced(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Return a name after all replacements."""
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
