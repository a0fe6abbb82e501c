"""Writer of CVAT's XML 1.1 for images, which CVAT imports as "CVAT 1.1"."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from maskwright.files import replacing, writing
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import Names, Outgoing, copy_image, objects_of, refuse_written


@takes_paths
def write_cvat(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as CVAT's XML, with copies of its images.

    Several polygons of an object get one group_id; run lengths become masks, objects without either
    boxes. Regions that count neither way get the attributes `iscrowd` and `ignore`. Keypoints are
    not written.

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
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
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
    return meta


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
    for shape in shapes:
        shape.attrib["label"] = "" if one.label == ANY_CLASS else one.name
        shape.attrib |= {"source": "file", "occluded": "0", "z_order": "0"}
        if len(shapes) > 1:
            shape.attrib["group_id"] = str(one.k + 1)
        if one.crowd:
            for word, value in (("iscrowd", "true"), ("ignore", str(one.ignored).lower())):
                ElementTree.SubElement(shape, "attribute", name=word).text = value
    return shapes


def _runs(crop: np.ndarray) -> list[int]:
    """Return the lengths of runs row by row, background first."""
    flat = crop.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate(([0], edges, [len(flat)]))).tolist()
    return [0, *lengths] if flat[0] else lengths
