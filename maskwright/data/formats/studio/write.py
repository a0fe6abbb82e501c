"""Writer of Label Studio's JSON, to be imported there as tasks with annotations."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from maskwright.files import write_whole
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import (
    Names,
    Outgoing,
    class_file,
    copy_image,
    joint_file,
    objects_of,
    one_file,
    refuse_written,
    write_list,
)
from .brush import encode_brush
from .read import IGNORED, OCCLUDED

LISTED = "classes.txt"
CONFIG = "label_config.xml"
CONTROLS = {"rectangle": "RectangleLabels", "polygon": "PolygonLabels", "brush": "BrushLabels"}
POINTS = ("keypoint", "KeyPointLabels")
TURN = 0.618034  # of the colour circle from class to class: the golden ratio keeps them apart
DOT = 0.5  # width of a keypoint on the screen, in percent


@takes_paths
def write_studio(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as Label Studio's JSON and labelling interface, with copies of its images.

    Polygons stay polygons, in percent, the parts of an object below its first one (`parentID`);
    run lengths become brush strokes, objects without either rectangles, and keypoints lie below
    their object. Regions that count neither way get the text `iscrowd` or `ignore`, those of no
    class the label __ignore__. The images are named as of Label Studio's local files, below the
    folder that it is told to serve.

    Args:
        dataset: the images and objects.
        folder: where SPLIT.json, label_config.xml (to be pasted into a project's labelling
            interface), classes.txt and images/SPLIT/ go; other splits may be there already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    file, images = root / f"{dataset.split}.json", root / "images" / dataset.split
    refuse_written(file, dataset)
    class_file(dataset, root / LISTED)
    joint_file(dataset, root)
    write_whole(root / CONFIG, _config(dataset))
    with one_file(file, root, images) as stream:
        write_list(stream, _tasks(dataset, root, images))
    return file


def _tasks(dataset: Dataset, root: Path, images: Path) -> Iterator[dict[str, Any]]:
    """Copy the images, and yield their tasks."""
    names = Names()
    for number, (record, objects) in enumerate(objects_of(dataset), 1):
        image = copy_image(record, images, names.free(record.path))
        path = quote(image.relative_to(root).as_posix())
        yield {
            "id": number,
            "data": {"image": f"/data/local-files/?d={path}"},
            "annotations": [{"result": [region for one in objects for region in _regions(one)]}],
        }


def _config(dataset: Dataset) -> str:
    """Return the labelling interface: the image, and a control for each kind of region."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for name, tag in CONTROLS.items():
        _control(view, name, tag, [*dataset.names, IGNORED])
    if dataset.skeleton is not None:
        _control(view, *POINTS, dataset.skeleton.names)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _control(view: ElementTree.Element, name: str, tag: str, labels: Sequence[str]) -> None:
    control = ElementTree.SubElement(view, tag, name=name, toName="image")
    for k, label in enumerate(labels):
        red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(k * TURN % 1, 0.8, 1))
        color = f"#{red:02X}{green:02X}{blue:02X}"
        ElementTree.SubElement(control, "Label", value=label, background=color)


def _regions(one: Outgoing) -> list[dict[str, Any]]:
    """Return an object as regions, the first one above the others."""
    height, width = one.size
    polygons = one.polygons
    values: list[tuple[str, dict[str, Any]]]
    if polygons is not None:
        values = [
            ("polygon", {"points": (100 * part / (width, height)).tolist(), "closed": True})
            for part in polygons
        ]
    elif one.mask()[0].size:
        mask = np.zeros(one.size, bool)
        crop, (left, top, right, bottom) = one.mask()
        mask[top:bottom, left:right] = crop
        values = [("brush", {"format": "rle", "rle": encode_brush(mask)})]
    else:
        x1, y1, x2, y2 = one.box
        value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0}
        value |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
        values = [("rectangle", value)]
    label = IGNORED if one.label == ANY_CLASS else one.name
    regions = [_region(one, k, kind, value, label) for k, (kind, value) in enumerate(values)]
    if one.crowd:
        for region in regions:
            region["meta"] = {"text": ["ignore" if one.ignored else "iscrowd"]}
    for name, x, y, seen in one.joints():
        place = {"x": 100 * x / width, "y": 100 * y / height, "width": DOT}
        regions.append(_region(one, len(regions), POINTS[0], place, name))
        if seen == 1:
            regions[-1]["meta"] = {"text": [OCCLUDED]}
    return regions


def _region(one: Outgoing, k: int, kind: str, value: dict[str, Any], label: str) -> dict[str, Any]:
    word = f"{kind}labels"
    region = {
        "id": f"r{one.k + 1}" + (f".{k}" if k else ""),
        "type": word,
        "from_name": kind,
        "to_name": "image",
        "original_width": one.size[1],
        "original_height": one.size[0],
        "image_rotation": 0,
        "value": value | {word: [label]},
    }
    return region | {"parentID": f"r{one.k + 1}"} if k else region
