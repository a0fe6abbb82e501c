"""Writer of Pascal VOC folders: what `read_voc` reads, for the tools that want VOC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from maskwright.drawing.label_maps import label_picture, voc_palette
from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import class_file, copy_image, refuse_written
from .masks import VOID
from .read import CLASS_FILES


@takes_paths
def write_voc(dataset: Dataset, folder: str | Path, *, masks: bool = True) -> Path:
    """Write a data set as Pascal VOC, one split at a time.

    Args:
        dataset: the images and objects; crowd regions become `difficult` objects, those of unknown
            class one of each class, with their boxes alone.
        folder: where Annotations, JPEGImages (copies of the files), ImageSets and classes.txt go;
            other splits may be there already.
        masks: write the masks, if there are any, as SegmentationObject and SegmentationClass. Where
            masks overlap, the pixel goes to the later object.

    Returns:
        The list of the split, ImageSets/Main/<split>.txt.

    Raises:
        ValueError: if the folder has this split or other classes already, a class name cannot stand
            in a line of text, or an image has more objects than a mask file can number (254).

    Note:
        VOC cannot tell a box of exactly 1 x 1 pixel from a click: `read_voc` leaves it out.
    """
    folder = Path(folder)
    masks = masks and (dataset.has_masks or dataset.masks_of_crowds)
    listing = folder / f"ImageSets/Main/{dataset.split}.txt"
    _require_room(dataset, listing, masks)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        class_file(dataset, folder / CLASS_FILES[0])
        _write_all(dataset, folder, listing, masks)
    return listing


def _write_all(dataset: Dataset, folder: Path, listing: Path, masks: bool) -> None:
    """Write everything, the list of images last: without it there is no data set."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(len(dataset)):
        record = dataset[index]
        name = record.path.stem
        for number in range(1, len(dataset) + 2):  # a.jpg and a.png, or a.jpg of another folder
            if not (folder / f"Annotations/{name}.xml").exists():
                break
            name = f"{record.path.stem}_{number}"
        names.append(name)
        file = f"{name}{record.path.suffix}"
        copy_image(record, folder / "JPEGImages", name)
        objects = dataset.to_coco([index], by_label=True)["annotations"]
        tree = _tree(file, record.size, objects, dataset.names, masks)
        tree.write(folder / f"Annotations/{name}.xml", "utf-8")
        if masks:
            _write_masks(dataset, index, folder, name)
    text = "".join(f"{name}\n" for name in names)
    if masks:
        write_whole(folder / f"ImageSets/Segmentation/{dataset.split}.txt", text)
    write_whole(listing, text)


def _require_room(dataset: Dataset, listing: Path, masks: bool) -> None:
    refuse_written(listing, dataset)
    for index in range(len(dataset)) if masks else ():
        record = dataset[index]
        if len(record.labels) >= VOID:
            raise ValueError(
                f"{record.path} has {len(record.labels)} objects, but a mask file of Pascal VOC "
                f"numbers {VOID - 1} at most: write boxes only (masks=False)"
            )


def _tree(
    file: str,
    size: tuple[int, int],
    objects: list[dict[str, Any]],
    names: list[str],
    masks: bool,
) -> ElementTree.ElementTree:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", file)
    shape = ElementTree.SubElement(root, "size")
    for tag, value in (("width", size[1]), ("height", size[0]), ("depth", 3)):
        _add(shape, tag, value)
    _add(root, "segmented", int(masks))
    for entry in objects:
        node = ElementTree.SubElement(root, "object")
        _add(node, "name", names[entry["category_id"] - 1])
        _add(node, "truncated", 0)
        _add(node, "difficult", entry["iscrowd"])
        box = ElementTree.SubElement(node, "bndbox")
        x, y, width, height = entry["bbox"]
        sides = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
        for tag, side in sides.items():
            _add(box, tag, int(side) if float(side).is_integer() else side)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


def _write_masks(dataset: Dataset, index: int, folder: Path, name: str) -> None:
    record = dataset[index]
    kinds: dict[str, Sequence[int]] = {
        "SegmentationObject": range(1, VOID),
        "SegmentationClass": (record.labels + 1).tolist(),
    }
    pictures = {kind: np.zeros(record.size, np.uint8) for kind in kinds}
    for k, label in enumerate(record.labels.tolist()):
        if label == ANY_CLASS:
            continue
        crop, (x1, y1, x2, y2) = dataset.mask(index, k)
        for kind, numbers in kinds.items():
            pictures[kind][y1:y2, x1:x2][crop] = numbers[k]
    for kind, pixels in pictures.items():
        (folder / kind).mkdir(exist_ok=True)
        label_picture(pixels, voc_palette()).save(folder / kind / f"{name}.png")
