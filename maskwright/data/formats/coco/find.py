"""The layouts of COCO JSON, as rows of the table of formats ask for them."""

from __future__ import annotations

from .layout import CocoFinder, CocoSource, by_folders, by_lists


def named_splits(finder: CocoFinder) -> dict[str, CocoSource]:
    """Return the splits of files whose names, or folders, tell them."""
    return finder.splits()


def listed_splits(finder: CocoFinder) -> dict[str, CocoSource]:
    """Return the splits of a lone file that lists of images divide."""
    file = finder.single
    return {} if file is None else by_lists(finder, file)


def folder_splits(finder: CocoFinder) -> dict[str, CocoSource]:
    """Return the splits of a lone file that folders of images divide."""
    file = finder.single
    return {} if file is None else by_folders(finder, file)


def single(finder: CocoFinder) -> dict[str, CocoSource]:
    """Return a lone file."""
    file = finder.single
    return {} if file is None else {"train": finder.source(file, "train")}


def refused(finder: CocoFinder) -> dict[str, CocoSource]:
    """Return a lone JSON of no known format, for its reader to say what is wrong with it."""
    return finder.last_resort()
