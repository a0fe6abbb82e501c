"""Darknet's language of networks: sections of `key=value`, read, checked and written.

A `.cfg` file is a table of layers. Sections stand in square brackets, `#` and `;` begin a comment,
blanks do not count, layers are numbered from 0 behind `[net]`, and what a section does not say has
a default. Our own YOLO networks are written in the same language, so that one builder makes both
(`network`). Only what is known is built; nothing is executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import nearest

MOST_LAYERS = 1000
MOST_TEXT = 1_000_000  # characters
LARGEST = 2**20  # of whole numbers: channels, sides, outputs

# Keys of each section with their defaults, whose type is that of the value. A tuple is a list of
# numbers, of the type of its first element.
_INTS, _FLOATS = (0,), (0.0,)
SECTIONS: dict[str, dict[str, Any]] = {
    "net": {
        "batch": 1,
        "subdivisions": 1,
        "width": 0,
        "height": 0,
        "channels": 3,
        "momentum": 0.9,
        "decay": 0.0001,
        "learning_rate": 0.001,
        "burn_in": 0,
        "power": 4.0,
        "policy": "constant",
        "steps": _INTS,
        "scales": _FLOATS,
        "max_batches": 0,
        "angle": 0.0,
        "saturation": 1.0,
        "exposure": 1.0,
        "hue": 0.0,
        **dict.fromkeys(("max_crop", "min_crop", "center", "random", "step", "flip"), 0),
        **dict.fromkeys(("aspect", "min_ratio", "max_ratio", "gamma", "scale"), 0.0),
    },
    "convolutional": {
        "filters": 1,
        "size": 1,
        "stride": 1,
        "pad": 0,
        "padding": 0,
        "groups": 1,
        "batch_normalize": 0,
        "activation": "logistic",
        "flipped": 0,
        "binary": 0,
        "xnor": 0,
    },
    "local": {"filters": 1, "size": 1, "stride": 1, "pad": 0, "activation": "logistic"},
    "connected": {"output": 1, "activation": "logistic", "batch_normalize": 0},
    "maxpool": {"stride": 1, "size": -1, "padding": -1},
    "avgpool": {},
    "route": {"layers": _INTS},
    "reorg": {"stride": 1, "reverse": 0, "flatten": 0, "extra": 0},
    "dropout": {"probability": 0.5},
    "softmax": {"groups": 1, "temperature": 1.0, "tree": "", "spatial": 0, "noloss": 0},
    "shortcut": {"from": 0, "activation": "linear", "alpha": 1.0, "beta": 1.0},
    "upsample": {"stride": 2, "scale": 1.0},
    "batchnorm": {},
    "cost": {"type": "sse", "scale": 1.0, "ratio": 0.0, "noobj": 1.0, "thresh": 0.0},
    "detection": {
        "classes": 1,
        "coords": 1,
        "num": 1,
        "side": 7,
        "rescore": 0,
        "softmax": 0,
        "sqrt": 0,
        "object_scale": 1.0,
        "noobject_scale": 1.0,
        "class_scale": 1.0,
        "coord_scale": 1.0,
        "jitter": 0.2,
        "forced": 0,
        "random": 0,
        "reorg": 0,
        "max": 30,
    },
    "region": {
        "classes": 20,
        "coords": 4,
        "num": 1,
        "anchors": _FLOATS,
        "softmax": 0,
        "rescore": 0,
        "thresh": 0.5,
        "bias_match": 0,
        "object_scale": 1.0,
        "noobject_scale": 1.0,
        "class_scale": 1.0,
        "coord_scale": 1.0,
        "mask_scale": 1.0,
        "jitter": 0.2,
        "random": 0,
        "absolute": 0,
        "background": 0,
        "classfix": 0,
        "log": 0,
        "sqrt": 0,
        "tree": "",
        "map": "",
        "max": 30,
    },
}
HEADS = ("detection", "region")
_SHORT = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}
# What would change the numbers and is not built; the value that means: not asked for.
_MISSING: dict[str, dict[str, Any]] = {
    "convolutional": {"binary": 0, "xnor": 0},
    "reorg": {"extra": 0},
    "softmax": {"tree": "", "spatial": 0},
    "region": {"background": 0, "tree": "", "map": "", "coords": 4},
    "detection": {"coords": 4, "reorg": 0},
}
# Smallest value of whole numbers, where it is not 0; those of [net] are checked where they count.
_LEAST = {
    **dict.fromkeys(("filters", "size", "stride", "groups", "output", "classes", "num", "side"), 1),
    "from": -MOST_LAYERS,
}


@dataclass(frozen=True)
class Section:
    """A section of a table: a layer, or `net`, which stands before all layers.

    Attributes:
        kind: a key of `SECTIONS`.
        given: what it says, by key; of known keys in their types.
        number: of the layer, from 0 on; -1: of `net`.
        unknown: keys that nobody knows.
    """

    kind: str
    given: Mapping[str, Any] = field(default_factory=dict)
    number: int = -1
    unknown: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        """Return a value, or its default."""
        if key in self.given:
            return self.given[key]
        usual = SECTIONS[self.kind][key]
        return () if isinstance(usual, tuple) else usual

    @property
    def called(self) -> str:
        """The layer as messages name it."""
        return "[net]" if self.number < 0 else f"layer {self.number} [{self.kind}]"


Table = tuple[Section, ...]


def make_table(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return sections of kinds and what they say, numbered and checked; see `read_table`."""
    return read_table(_text(rows))


def read_table(text: str) -> Table:
    """Return the sections of a network in Darknet's language, `net` first.

    Args:
        text: the content of a `.cfg` file.

    Raises:
        ValueError: naming line or layer, key and value: for what is no section and no `key=value`,
            an unknown section, a value of another kind or out of range, and what is not built.

    Example:
        >>> net, pool = read_table("[net]\\nwidth=32\\nheight=32\\n[maxpool]\\nstride=2")
        >>> pool["stride"], pool["padding"], pool.called
        (2, -1, 'layer 0 [maxpool]')
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"{len(text)} characters are no description of a network")
    found: list[tuple[str, dict[str, Any], list[str]]] = []
    for count, raw in enumerate(text.splitlines(), 1):
        line = "".join(raw.split()).lstrip("\ufeff")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            kind = line.strip("[]").lower()
            kind = _SHORT.get(kind, kind)
            if kind not in SECTIONS:
                meant = nearest(kind, SECTIONS) or f"; there are {', '.join(SECTIONS)}"
                raise ValueError(f"line {count}: no layer [{kind}] is known{meant}")
            if (kind == "net") != (not found):
                raise ValueError(f"line {count}: [net] comes first, and once; got [{kind}]")
            found.append((kind, {}, []))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not found:
            raise ValueError(
                f"line {count}: expected a section in square brackets or key=value, got "
                f"{raw.strip()[:60]!r}"
            )
        kind, given, unknown = found[-1]
        if key not in SECTIONS[kind]:
            unknown.append(key)
        elif key not in given:  # of several Darknet takes the first
            try:
                given[key] = _value(SECTIONS[kind][key], value)
            except ValueError as error:
                raise ValueError(f"line {count}: {key}={value[:60]} of [{kind}]: {error}") from None
    if len(found) < 2 or len(found) > MOST_LAYERS:
        raise ValueError("there is no layer: a network is [net] and the layers behind it")
    table = tuple(
        Section(kind, given, number, tuple(dict.fromkeys(unknown)))
        for number, (kind, given, unknown) in enumerate(found, -1)
    )
    for section in table:
        _check(section)
    return table


def write_table(table: Iterable[Section]) -> str:
    """Return the text that `read_table` reads as these sections."""
    return _text((section.kind, section.given) for section in table)


def unknown_keys(table: Iterable[Section]) -> list[str]:
    """Return which keys nobody knows, by layer: they were left out."""
    return [f"{key} of {section.called}" for section in table for key in section.unknown]


def head_of(table: Table) -> Section | None:
    """Return the layer that makes boxes, the last one; None: the network has none."""
    last = [section for section in table if section.kind != "cost"][-1]
    return last if last.kind in HEADS else None


def outputs_of(head: Section) -> int:
    """Return how many channels a `region` layer takes, or numbers a `detection` layer."""
    if head.kind == "region":
        return int(head["num"] * (5 + head["classes"]))
    return int(head["side"] ** 2 * (5 * head["num"] + head["classes"]))


def with_classes(table: Table, num_classes: int) -> Table:
    """Return the same network for other classes: its last layer has as many rows as they need.

    Args:
        table: a network.
        num_classes: of the network that is wanted.

    Raises:
        ValueError: if the layer before the boxes has no rows of its own to be changed.
    """
    head = head_of(table)
    if head is not None and head["classes"] == num_classes:
        return table
    rows = {"convolutional": "filters", "connected": "output", "local": "filters"}
    changed = list(table)
    end = len(table) if head is None else table.index(head)
    places = [place for place, section in enumerate(table[:end]) if section.kind in rows]
    last = places[-1] if places else -1
    if last < 0 or (head is not None and (last != end - 1 or table[last].kind == "local")):
        raise ValueError("its last layer is none whose rows can be changed to other classes")
    if head is None:
        count = num_classes
        if table[last][rows[table[last].kind]] == count:
            return table
    else:
        own = {**head.given, "classes": num_classes}
        changed[end] = Section(head.kind, own, head.number)
        count = outputs_of(changed[end])
        if table[last].kind == "convolutional" and head.kind == "detection":
            before, left = divmod(outputs_of(head), table[last]["filters"])
            if left or count % before:
                raise ValueError("its last layer cannot be changed to other classes")
            count //= before
    section = table[last]
    own = {**section.given, rows[section.kind]: count}
    changed[last] = Section(section.kind, own, section.number)
    return tuple(changed)


def with_anchors(table: Table, anchors: tuple[float, ...]) -> Table:
    """Return the same network with other anchors, as many as it has.

    Args:
        table: a network that ends with `region`.
        anchors: width and height of each in cells, one after the other.

    Raises:
        ValueError: if there are not as many, or the network has none.
    """
    head = head_of(table)
    if head is None or head.kind != "region":
        raise ValueError("the network has no anchors")
    if len(anchors) != 2 * head["num"]:
        raise ValueError(
            f"anchors needs width and height of {head['num']} anchors, got {len(anchors)} numbers"
        )
    place = table.index(head)
    changed = Section(head.kind, {**head.given, "anchors": tuple(anchors)}, head.number)
    return (*table[:place], changed, *table[place + 1 :])


def _text(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    parts = []
    for kind, given in rows:
        parts.append(
            "\n".join([f"[{kind}]", *(f"{key}={_written(v)}" for key, v in given.items())])
        )
    return "\n\n".join(parts) + "\n"


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_written, value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _value(usual: Any, text: str) -> Any:
    """Return a value in the type of its default."""
    if isinstance(usual, str):
        return text
    if isinstance(usual, tuple):
        return tuple(_number(usual[0], part) for part in text.split(",") if part)
    return _number(usual, text)


def _number(usual: Any, text: str) -> Any:
    whole = isinstance(usual, int)
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"expected a {'whole ' if whole else ''}number") from None
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


def _check(section: Section) -> None:
    """Raise ValueError for numbers that no layer can have, and for what is not built."""
    for key, value in section.given.items():
        least = _LEAST.get(key, 0)
        many = section.kind != "net" and isinstance(value, int)
        if many and not least <= value <= LARGEST:
            raise ValueError(
                f"{section.called}: {key} lies between {least} and {LARGEST}, got {value}"
            )
    for key, usual in _MISSING.get(section.kind, {}).items():
        if section[key] != usual:
            raise ValueError(f"{section.called}: {key}={section[key]} is not known here")
    if section.kind == "net":
        for key in ("width", "height", "channels"):
            if not 1 <= section[key] <= LARGEST:
                raise ValueError(f"[net]: {key} lies between 1 and {LARGEST}, got {section[key]}")
    if section.kind == "dropout" and not 0 <= section["probability"] < 1:
        raise ValueError(
            f"{section.called}: probability lies from 0 up to 1, without 1, got "
            f"{section['probability']}"
        )
    if section.kind == "region":
        anchors, count = section["anchors"], 2 * section["num"]
        if anchors and (len(anchors) < count or min(anchors[:count]) <= 0):
            raise ValueError(
                f"{section.called}: anchors are width and height of num={section['num']} anchors, "
                f"all above 0; got {len(anchors)} numbers"
            )
