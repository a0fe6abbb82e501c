"""The option `conf` as users write it: one smallest score, or one for each of some classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..errors import OptionError, first_few, nearest

# An item is a number, or a name, a colon and a number; names may hold commas and colons.
_ITEM = re.compile(r"\s*(?:(?P<name>.+?)\s*:)??\s*(?P<number>[-+.\d][-+.\deE]*|nan)\s*(?:,|$)")


@dataclass(frozen=True)
class Conf:
    """Smallest scores, as they were given.

    Attributes:
        others: of the classes that are not named; None: nobody says.
        named: of those that are.
    """

    others: float | None
    named: dict[str, float]

    def by_label(self, names: Sequence[str], usual: float) -> tuple[float, ...]:
        """Return the smallest score of each class.

        Args:
            names: of the classes of a model.
            usual: of those that are not named, if nobody says.

        Raises:
            OptionError: if a name is not among them.
        """
        for name in self.named:
            if name not in names:
                meant = nearest(name, names) or f"; the model knows {first_few(names, 10)}"
                raise OptionError(f"conf={name}:{self.named[name]:g}: no class {name!r}{meant}")
        least = usual if self.others is None else self.others
        return tuple(self.named.get(name, least) for name in names)


def parse_conf(value: Any) -> Conf:
    """Return what the option `conf` says.

    Args:
        value: a number; or text: NAME:NUMBER for some classes and, if wanted, a number for all
            others, in any order, joined by commas.

    Raises:
        OptionError: if it is none of these, or a class has two.

    Example:
        >>> parse_conf("person:0.6,car:0.3,0.4")
        Conf(others=0.4, named={'person': 0.6, 'car': 0.3})
    """
    if type(value) is not bool and isinstance(value, Real):  # numpy's as well
        return Conf(_share(float(value), value), {})
    text = str(value)
    others: float | None = None
    named: dict[str, float] = {}
    place = 0
    while place < len(text) or not text:
        item = _ITEM.match(text, place)
        number = None if item is None else _number(item["number"])
        if item is None or number is None:
            raise OptionError(
                f"conf={text!r}: expected a number, or NAME:NUMBER for some classes and a number "
                "for the others, as in person:0.6,car:0.3,0.4"
            )
        place = item.end()
        name, share = item["name"], _share(number, item["number"])
        if name in named or (name is None and others is not None):
            which = "all others" if name is None else repr(name)
            raise OptionError(f"conf={text!r}: there are two numbers for {which}")
        if name is None:
            others = share
        else:
            named[name] = share
    return Conf(others, named)


def require_one(conf: Any) -> None:
    """Make sure that `conf` is one number, where classes have none of their own.

    Raises:
        OptionError: if it is not.
    """
    if parse_conf(conf).named:
        raise OptionError(
            f"conf={conf!r}: here one number counts for all classes; `predict` takes one for each"
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _share(number: float, value: object) -> float:
    if not 0 <= number <= 1:
        raise OptionError(f"conf lies between 0 and 1, got {value}")
    return number
