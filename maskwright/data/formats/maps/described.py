"""Label maps that a YAML file describes: folders of images and of label maps, and the classes.

train: images/train
val: images/val
masks: masks
names: {7: road, 8: sidewalk}
ignore: [0, 1, 255]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskwright.paths import home_path, nearest_path

from ..folders import Tree, split_name
from ..source import Source
from .classes import of_names
from .layout import find_maps
from .panoptic import panoptic_file
from .source import MapSource


def described_maps(content: Mapping[str, Any], base: Path) -> dict[str, Source]:
    """Return the splits of a mapping with masks, or of folders of label maps; {} for others.

    Args:
        content: the mapping.
        base: folder from which its paths count.

    Raises:
        ValueError: if an entry names nothing that is there.
    """
    tree = Tree()
    found: dict[str, Source] = {}
    for key, value in content.items():
        split = split_name(str(key))
        if split is None or value is None:
            continue
        images = base / home_path(str(value))
        if images.is_file() and (segments := panoptic_file(images, tree)):
            found[split] = next(iter(segments.values()))
            continue
        if content.get("masks") is None:
            source = _beside(tree, images, base, split)
        else:
            source = _with_masks(tree, images, base, key, content["masks"])
        if source is None:
            return {}
        found[split] = _with_names(source, content)
    return found


def _beside(tree: Tree, images: Path, base: Path, split: str) -> MapSource | None:
    """Return the label maps within a folder, or those that lie beside it as usual."""
    inner = find_maps(tree, images) if images.is_dir() else {}
    if split in inner or len(inner) == 1:
        return inner.get(split) or next(iter(inner.values()))
    around = find_maps(tree, base).values() if images.is_dir() else ()
    return next((one for one in around if one.images.resolve() == images.resolve()), None)


def _with_masks(tree: Tree, images: Path, base: Path, key: str, masks: Any) -> MapSource:
    """Return the label maps in a folder that the entry masks names, for all splits or for each."""
    own = masks.get(key) if isinstance(masks, Mapping) else masks
    maps = base / home_path(str(own))
    inside = maps / images.name
    if not isinstance(masks, Mapping) and inside.is_dir():
        maps = inside
    for name, folder in ((key, images), ("masks", maps)):
        if not folder.is_dir():
            raise ValueError(
                f"the entry {name} must name a folder, looked for {folder}{nearest_path(folder)}"
            )
    beside = tuple(dict.fromkeys((maps, maps.parent, images.parent, base)))
    return MapSource((maps,), images, beside, whole=maps == inside, tree=tree)


def _with_names(source: MapSource, content: Mapping[str, Any]) -> MapSource:
    if content.get("names") is None:
        return source
    table = of_names(content["names"], "the entry names")
    ignore = content.get("ignore")
    values = ignore if isinstance(ignore, list) else [] if ignore is None else [ignore]
    if not all(isinstance(one, int | str) for one in values):
        raise ValueError(f"the entry ignore is a list of numbers or names of classes, got {ignore}")
    return replace(source, table=table.ignoring(values), beside=())
