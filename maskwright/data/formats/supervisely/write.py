"""Writer of Supervisely's projects: what `find_supervisely` finds."""

from __future__ import annotations

import colorsys
import json
import math
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths
from maskwright.structures import Skeleton

from ...records import ANY_CLASS, Dataset
from ..json_file import load_json
from ..outgoing import Names, Outgoing, copy_image, objects_of, refuse_written
from .bitmap import encode_bitmap
from .read import ANNOTATIONS, GRAPH, IGNORED, IMAGES, META

TURN = 0.618034  # of the colour circle from class to class: the golden ratio keeps them apart


@takes_paths
def write_supervisely(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as a data set of a Supervisely project, with copies of its images.

    Polygons stay what they are, several parts of an object get one `instance`; run lengths become
    bitmaps, objects without either rectangles, whose corners are the first and last pixel of them,
    so that none is narrower than a pixel.
    Regions that count neither way get the tags `iscrowd` or `ignore`, those of no class the class
    __ignore__. Keypoints are graphs with the `instance` of their object, hidden ones disabled.

    Args:
        dataset: the images and objects.
        folder: where meta.json, SPLIT/ann/ and SPLIT/img/ go; other splits may be there already.

    Returns:
        The folder of the split.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    place = root / dataset.split
    refuse_written(place, dataset)
    meta = root / META
    described = _meta(dataset)
    if meta.exists() and load_json(meta).get("classes") != described["classes"]:
        raise ValueError(f"{meta} has other classes than {dataset.source}: choose another folder")
    names = Names()
    with writing(root):
        for part in (ANNOTATIONS, IMAGES):
            (place / part).mkdir(parents=True)
        write_whole(meta, json.dumps(described, indent=2))
        for record, objects in objects_of(dataset):
            image = copy_image(record, place / IMAGES, names.free(record.path))
            height, width = record.size
            content: dict[str, Any] = {
                "description": "",
                "tags": [],
                "size": {"height": height, "width": width},
                "objects": [found for one in objects for found in _objects(one)],
            }
            file = place / ANNOTATIONS / f"{image.name}.json"
            write_whole(file, json.dumps(content), durable=False)
    return place


def _meta(dataset: Dataset) -> dict[str, Any]:
    """Return what meta.json holds."""
    graph = {} if dataset.skeleton is None else _graph(dataset.skeleton)
    classes = [
        {"title": name, "shape": "any", "color": _color(k), "geometry_config": graph, "hotkey": ""}
        for k, name in enumerate([*dataset.names, IGNORED])
    ]
    tags = [
        {"name": word, "value_type": "none", "color": _color(k), "hotkey": "", "classes": []}
        for k, word in enumerate(("iscrowd", "ignore"))
    ]
    return {"classes": classes, "tags": tags, "projectType": "images"}


def _graph(skeleton: Skeleton) -> dict[str, Any]:
    """Return how a graph is made: its keypoints on a circle, and lines."""
    turns = [2 * math.pi * k / len(skeleton) for k in range(len(skeleton))]
    return {
        "nodes": {
            name: {
                "label": name,
                "loc": [round(50 + 40 * math.sin(turn)), round(50 - 40 * math.cos(turn))],
                "color": _color(k),
            }
            for k, (name, turn) in enumerate(zip(skeleton.names, turns, strict=True))
        },
        "edges": [
            {"src": skeleton.names[a], "dst": skeleton.names[b], "color": _color(k)}
            for k, (a, b) in enumerate(skeleton.bones)
        ],
    }


def _color(k: int) -> str:
    return "#" + "".join(f"{round(255 * c):02X}" for c in colorsys.hsv_to_rgb(k * TURN % 1, 0.8, 1))


def _objects(one: Outgoing) -> list[dict[str, Any]]:
    """Return the entries of an object."""
    polygons = one.polygons
    if polygons is not None:
        found: list[dict[str, Any]] = [_points("polygon", part.tolist()) for part in polygons]
    elif (mask := one.mask())[0].size:
        crop, (left, top, _, _) = mask
        bitmap = {"data": encode_bitmap(crop), "origin": [left, top]}
        found = [{"geometryType": "bitmap", "bitmap": bitmap}]
    else:
        x1, y1, x2, y2 = one.box
        corners = [[x1, y1], [max(x2 - 1, x1), max(y2 - 1, y1)]]
        found = [_points("rectangle", corners)]
    if joints := one.joints():
        nodes = {
            name: {"loc": [x, y]} | ({"disabled": True} if seen == 1 else {})
            for name, x, y, seen in joints
        }
        found.append({"geometryType": GRAPH, "nodes": nodes})
    for entry in found:
        entry |= {"description": "", "tags": []}
        entry["classTitle"] = IGNORED if one.label == ANY_CLASS else one.name
        if len(found) > 1:
            entry["instance"] = f"{one.k + 1}"
        if one.crowd:
            entry["tags"] = [{"name": "ignore" if one.ignored else "iscrowd", "value": None}]
    return found


def _points(kind: str, points: list[Any]) -> dict[str, Any]:
    return {"geometryType": kind, "points": {"exterior": points, "interior": []}}
