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
from .classes import of_names
from .layout import find_maps
from .source import MapSource


def described_maps(content: Mapping[str, Any], base: Path) -> dict[str, MapSource]:
    """Return the splits of a mapping with masks, or of folders of label maps; {} for others.

    Args:
        content: the mapping.
        base: folder from which its paths count.

    Raises:
        ValueError: if an entry names nothing that is there.
    """
    tree = Tree()
    found: dict[str, MapSource] = {}
    for key, value in content.items():
        split = split_name(str(key))
        if split is None or value is None:
            continue
        images = base / home_path(str(value))
        masks = content.get("masks")
        if masks is None:
            inner = find_maps(tree, images) if images.is_dir() else {}
            source = inner.get(split) or (next(iter(inner.values())) if len(inner) == 1 else None)
            if source is None:
                return {}
        else:
            own = masks.get(key) if isinstance(masks, Mapping) else masks
            maps = base / home_path(str(own))
            inside = maps / images.name
            maps = inside if not isinstance(masks, Mapping) and inside.is_dir() else maps
            for name, folder in ((key, images), ("masks", maps)):
                if not folder.is_dir():
                    raise ValueError(
                        f"the entry {name} must name a folder, looked for {folder}"
                        f"{nearest_path(folder)}"
                    )
            beside = tuple(dict.fromkeys((maps, maps.parent, images.parent, base)))
            source = MapSource((maps,), images, beside, whole=maps == inside, tree=tree)
        found[split] = _with_names(source, content)
    return found


def _with_names(source: MapSource, content: Mapping[str, Any]) -> MapSource:
    if content.get("names") is None:
        return source
    table = of_names(content["names"], "the entry names")
    ignore = content.get("ignore")
    values = ignore if isinstance(ignore, list) else [] if ignore is None else [ignore]
    if not all(isinstance(one, int | str) for one in values):
        raise ValueError(f"the entry ignore is a list of numbers or names of classes, got {ignore}")
    return replace(source, table=table.ignoring(values), beside=())
