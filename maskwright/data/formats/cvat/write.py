"""Writer of CVAT's XML 1.1 for images, which CVAT imports as "CVAT 1.1"."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from maskwright.paths import takes_paths
from maskwright.structures import Skeleton

from ...records import ANY_CLASS, Dataset
from ..outgoing import Names, Outgoing, copy_image, objects_of, one_file, refuse_written


@takes_paths
def write_cvat(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as CVAT's XML, with copies of its images.

    Several polygons of an object get one group_id; run lengths become masks, objects without either
    boxes. Keypoints become a skeleton in the group of their object. Regions that count neither way
    get the attributes `iscrowd` and `ignore`.

    Args:
        dataset: the images and objects.
        folder: where SPLIT.xml and images/SPLIT/ go; other splits may be there already.

    Returns:
        The XML file.

    Raises:
        ValueError: if the folder has this split already, or a class name cannot stand in XML.
    """
    root = Path(folder)
    file, images = root / f"{dataset.split}.xml", root / "images" / dataset.split
    refuse_written(file, dataset)
    for name in dataset.names:
        if not name.isprintable():
            raise ValueError(f"the class name {name!r} cannot stand in XML: rename the class")
    names = Names()
    with one_file(file, root, images) as stream:
        stream.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        stream.write("  <version>1.1</version>\n" + _text(_meta(dataset)))
        for number, (record, objects) in enumerate(objects_of(dataset)):
            image = copy_image(record, images, names.free(record.path))
            height, width = record.size
            node = ElementTree.Element("image", id=str(number), name=image.name)
            node.attrib |= {"width": str(width), "height": str(height)}
            for one in objects:
                node.extend(_shapes(one))
            stream.write(_text(node))
        stream.write("</annotations>\n")
    return file


def _text(node: ElementTree.Element) -> str:
    ElementTree.indent(node, level=1)
    return f"  {ElementTree.tostring(node, encoding='unicode')}\n"


def _meta(dataset: Dataset) -> ElementTree.Element:
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    labels = ElementTree.SubElement(task, "labels")
    for name in dataset.names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        attributes = ElementTree.SubElement(label, "attributes")
        for word in ("iscrowd", "ignore"):
            attribute = ElementTree.SubElement(attributes, "attribute")
            for tag, text in (
                *(("name", word), ("mutable", "False"), ("input_type", "checkbox")),
                *(("default_value", "false"), ("values", "false")),
            ):
                ElementTree.SubElement(attribute, tag).text = text
        for joint in () if dataset.skeleton is None else dataset.skeleton.names:
            element = ElementTree.SubElement(labels, "label")
            for tag, text in (("name", joint), ("type", "points"), ("parent", name)):
                ElementTree.SubElement(element, tag).text = text
        if dataset.skeleton is not None:
            ElementTree.SubElement(label, "type").text = "skeleton"
            ElementTree.SubElement(label, "svg").text = _drawn(dataset.skeleton)
    return meta


def _drawn(skeleton: Skeleton) -> str:
    """Return the picture of a skeleton that CVAT wants: its keypoints on a circle, and lines."""
    count = len(skeleton)
    turns = [2 * math.pi * k / count for k in range(count)]
    places = [(50 + 40 * math.sin(turn), 50 - 40 * math.cos(turn)) for turn in turns]
    found = []
    for a, b in skeleton.bones:
        (x1, y1), (x2, y2) = places[a], places[b]
        found.append(
            f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" data-type="edge" '
            f'data-node-from="{a + 1}" data-node-to="{b + 1}"></line>'
        )
    for k, (name, (x, y)) in enumerate(zip(skeleton.names, places, strict=True), 1):
        found.append(
            f'<circle r="0.75" cx="{x:.2f}" cy="{y:.2f}" data-type="element node" '
            f'data-element-id="{k}" data-node-id="{k}" data-label-name="{escape(name)}"></circle>'
        )
    return "".join(found)


def _shapes(one: Outgoing) -> list[ElementTree.Element]:
    """Return the elements of an object."""
    polygons = one.polygons
    if polygons is not None:
        shapes = [
            ElementTree.Element(
                "polygon", points=";".join(f"{x!r},{y!r}" for x, y in part.tolist())
            )
            for part in polygons
        ]
    elif (found := one.mask())[0].size:
        crop, (x1, y1, x2, y2) = found
        sides = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
        shapes = [ElementTree.Element("mask", rle=", ".join(map(str, _runs(crop))))]
        shapes[0].attrib |= {key: str(side) for key, side in sides.items()}
    else:
        sides4 = zip(("xtl", "ytl", "xbr", "ybr"), one.box, strict=True)
        shapes = [ElementTree.Element("box", {key: repr(side) for key, side in sides4})]
    joints = {name: (x, y, seen) for name, x, y, seen in one.joints()}
    for shape in shapes:
        shape.attrib["label"] = "" if one.label == ANY_CLASS else one.name
        shape.attrib |= {"source": "file", "occluded": "0", "z_order": "0"}
        if len(shapes) > 1 or joints:
            shape.attrib["group_id"] = str(one.k + 1)
        if one.crowd:
            for word, value in (("iscrowd", "true"), ("ignore", str(one.ignored).lower())):
                ElementTree.SubElement(shape, "attribute", name=word).text = value
    if joints:
        assert one.dataset.skeleton is not None
        skeleton = ElementTree.Element("skeleton", label=one.name, source="file", z_order="0")
        skeleton.attrib["group_id"] = str(one.k + 1)
        for name in one.dataset.skeleton.names:
            x, y, seen = joints.get(name, (0.0, 0.0, 0))
            place = {"label": name, "source": "file", "outside": str(int(not seen))}
            place |= {"occluded": str(int(seen == 1)), "points": f"{x!r},{y!r}"}
            ElementTree.SubElement(skeleton, "points", place)
        shapes.append(skeleton)
    return shapes


def _runs(crop: np.ndarray) -> list[int]:
    """Return the lengths of runs row by row, background first."""
    flat = crop.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate(([0], edges, [len(flat)]))).tolist()
    return [0, *lengths] if flat[0] else lengths
