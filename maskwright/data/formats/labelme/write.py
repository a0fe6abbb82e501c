"""Writer of LabelMe's JSON files: what `find_labelme` finds, with parts and holes of masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...building.geometry import as_png
from ...records import ANY_CLASS, Dataset
from ..outgoing import (
    Names,
    Outgoing,
    class_file,
    copy_image,
    joint_file,
    objects_of,
    refuse_written,
)
from .read import IGNORED, OCCLUDED, POINT

VERSION = "5.4.1"  # of LabelMe whose shapes these are
LISTED = "labels.txt"


@takes_paths
def write_labelme(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as LabelMe's JSON files beside copies of the images.

    Polygons stay what they are, several parts of an object get one group_id; run lengths become
    masks, objects without either rectangles. Regions that count neither way get the flags `iscrowd`
    and `ignore`, those of no class the label __ignore__. Keypoints become points of the group of
    their object, with the flag `occluded` where they are hidden.

    Args:
        dataset: the images and objects.
        folder: where SPLIT/, labels.txt and, with keypoints, keypoints.txt go; other splits may be
            there already.

    Returns:
        The folder of the split.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    place = root / dataset.split
    refuse_written(place, dataset)
    names = Names()
    with writing(root):
        place.mkdir(parents=True)
        class_file(dataset, root / LISTED, heading=IGNORED)
        joint_file(dataset, root)
        for record, objects in objects_of(dataset):
            stem = names.free(record.path)
            image = copy_image(record, place, stem)
            content: dict[str, Any] = {
                "version": VERSION,
                "flags": {},
                "shapes": [shape for one in objects for shape in shapes_of(one)],
                "imagePath": image.name,
                "imageData": None,
                "imageHeight": record.size[0],
                "imageWidth": record.size[1],
            }
            write_whole(place / f"{stem}.json", json.dumps(content, indent=2), durable=False)
    return place


def shapes_of(one: Outgoing) -> list[dict[str, Any]]:
    """Return the shapes of an object."""
    polygons = one.polygons
    x1, y1, x2, y2 = one.box
    if polygons is not None:
        shapes = [_shape("polygon", part.tolist()) for part in polygons]
    elif (found := one.mask())[0].size:
        crop, (left, top, right, bottom) = found
        mask = as_png(crop)
        shapes = [_shape("mask", [[left, top], [right - 1, bottom - 1]]) | {"mask": mask}]
    else:
        shapes = [_shape("rectangle", [[x1, y1], [x2, y2]])]
    for shape in shapes:
        shape["label"] = IGNORED if one.label == ANY_CLASS else one.name
        shape["group_id"] = one.k + 1 if len(shapes) > 1 or one.joints() else None
        if one.crowd:
            shape["flags"] = {"iscrowd": True, "ignore": one.ignored}
    for name, x, y, seen in one.joints():
        point = _shape(POINT, [[x, y]]) | {"label": name, "group_id": one.k + 1}
        shapes.append(point | {"flags": {OCCLUDED: True} if seen == 1 else {}})
    return shapes


def _shape(kind: str, points: list[list[float]]) -> dict[str, Any]:
    return {"label": "", "points": points, "group_id": None, "shape_type": kind, "flags": {}}
