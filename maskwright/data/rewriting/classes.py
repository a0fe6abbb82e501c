"""A data set with other classes: renamed, put together, left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskwright.errors import OptionError, checked_options, first_few, nearest
from maskwright.paths import takes_paths

from ..maps.encoding import Drawn
from ..records import Dataset
from .tables import with_classes
from .writing import RewriteReport, new_folder, open_splits, write_splits

SHOWN = 10


@checked_options
@takes_paths
def change_classes(
    data: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    rename: str | Mapping[str, Any] | None = None,
    drop: tuple[str, ...] | None = None,
    keep: tuple[str, ...] | None = None,
    to: str | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RewriteReport:
    """Write a data set with other classes, with copies of the images.

    Names are those of the data. Images stay, though they may have no object any more; those that
    had one label and have lost it are left out, and in label maps what goes is ignored.

    Args:
        data: what is read: a folder, a file, a YAML file.
        out: a new or empty folder to write into.
        rename: old and new names, as in cat:animal,dog:animal; classes that get one name become one
            class. In Python a dictionary does as well. Names of the data may have commas in them.
        drop: classes that go, with all their objects.
        keep: classes that stay; all others go.
        to: format to write; none: that of the data.
        format: read `data` as this format, where it is taken for another.
        progress: called with what is done, images done and images in all.

    Raises:
        OptionError: if an option names no class or contradicts another, or the folder is not empty.
        ValueError: if the data cannot be read, or not be written.

    Example:
        >>> from maskwright.data import change_classes
        >>> change_classes("pets", "animals", rename={"cat": "animal", "dog": "animal"})
        ... # doctest: +SKIP
    """
    if not (rename or drop or keep):
        raise OptionError("nothing would change: give rename=old:new, drop= or keep=")
    if drop and keep:
        raise OptionError("drop and keep say the same in two ways: leave one of them out")
    folder = new_folder(out)
    splits, to = open_splits(data, to, format)
    known = next(iter(splits.values()))
    names = _pairs(rename, known.names)
    drop, keep = (tuple(_whole(words, known.names)) for words in (drop, keep))
    for option, given in (("rename", names), ("drop", drop), ("keep", keep)):
        if wrong := [name for name in given if name not in known.names]:
            raise OptionError(
                f"{option} names {wrong[0]!r}, and the classes are "
                f"{first_few(known.names, SHOWN)}{nearest(wrong[0], known.names)}"
            )
    stays = _staying(known, drop, keep)
    if both := [name for name in names if name not in stays]:
        raise OptionError(f"{both[0]!r} is renamed and left out: choose one")
    new = list(dict.fromkeys(names.get(name, name) for name in known.names if name in stays))
    if not new:
        raise OptionError("no class would be left")
    table = [new.index(names.get(name, name)) if name in stays else -1 for name in known.names]
    changed = {split: with_classes(one, table, new) for split, one in splits.items()}
    if gone := [split for split, one in changed.items() if not len(one)]:
        raise ValueError(f"not one image of {gone[0]} would be left")
    report = write_splits(changed, folder, to, progress)
    for split, one in changed.items():
        before = splits[split]
        objects = int(before.objects_per_class().sum()) - report.objects[split]
        if objects:
            report.notes.append(f"{split}: {objects} objects went with their classes")
        if len(one) < len(before):
            report.notes.append(f"{split}: {len(before) - len(one)} images went with their label")
    return report


def _pairs(rename: str | Mapping[str, Any] | None, known: Sequence[str]) -> dict[str, str]:
    """Return new names by old ones; names of the data may have commas and colons in them.

    Raises:
        OptionError: if they are not written so.
    """
    if isinstance(rename, Mapping):
        pairs = [(str(old), str(new)) for old, new in rename.items()]
    else:
        pairs = list(_written_pairs(rename or "", known))
    found: dict[str, str] = {}
    for old, new in pairs:
        if not new.strip() or found.setdefault(old, new) != new:
            raise OptionError(f"rename={rename!r}: {old!r} needs one new name")
    return found


def _written_pairs(text: str, known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield old and new names of old:new,old:new.

    Raises:
        OptionError: if they are not written so.
    """
    at = 0
    while at < len(text):
        old = _begins(text, at, known)
        if old is None:  # the caller says that it is no class
            word = text[at:].split(",")[0]
            at += len(word) + 1
            if not word.strip():
                continue
            if word.count(":") != 1:
                raise OptionError(f"rename={text!r}: expected old:new,old:new, got {word!r}")
            first, second = word.split(":")
            yield first.strip(), second.strip()
            continue
        begin = text.index(old, at) + len(old)
        begin = text.index(":", begin) + 1
        commas = [k for k in range(begin, len(text)) if text[k] == ","]
        own = [k for k in commas if _begins(text, k + 1, known) is not None]
        end = (own or [k for k in commas if ":" in text[k:].split(",")[1]] or [len(text)])[0]
        yield old, text[begin:end].strip().strip(",")
        at = end + 1


def _begins(text: str, at: int, known: Sequence[str]) -> str | None:
    """Return the longest known name that stands here before a colon; None if none does."""
    at += len(text[at:]) - len(text[at:].lstrip())
    there = [
        name
        for name in known
        if text.startswith(name, at) and text[at + len(name) :].lstrip()[:1] == ":"
    ]
    return max(there, key=len, default=None)


def _whole(words: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return names that were parted at commas, put together where that gives a known one."""
    by_plain = {_plain(name): name for name in known}
    found, at, given = [], 0, list(words or ())
    while at < len(given):
        ends = range(len(given), at, -1)
        end = next((k for k in ends if _plain(",".join(given[at:k])) in by_plain), at + 1)
        found.append(by_plain.get(_plain(",".join(given[at:end])), given[at]))
        at = end
    return found


def _plain(name: str) -> str:
    return ",".join(part.strip() for part in name.split(","))


def _staying(dataset: Dataset, drop: Sequence[str] | None, keep: Sequence[str] | None) -> set[str]:
    """Return the names that stay; what label maps are drawn on always does."""
    if keep:
        ground = dataset.names[:1] if isinstance(dataset.encoding, Drawn) else []
        return {*keep, *ground}
    return set(dataset.names) - set(drop or ())
