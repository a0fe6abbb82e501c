"""Writer of label images: a PNG of 16 bits for each image, its objects numbered from 1 on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...records import Dataset
from ..outgoing import Names, class_file, copy_image, is_object, objects_of, refuse_written
from ..tables.text import table_text
from .find import CLASSES, COLUMNS, OBJECTS

MOST = 2**16 - 1


@takes_paths
def write_instances(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as label images; where masks overlap, the pixel goes to the later object.

    Args:
        dataset: images with objects; those without a mask and regions that are ignored are left
            out.
        folder: where images/SPLIT/ (copies), masks/SPLIT/*.png and object_classes.txt go, and with
            more than one class objects.csv, the class of every number; other splits may be there.

    Returns:
        The folder of the label images.

    Raises:
        ValueError: if the folder has this split or other classes already, or an image has more than
            65,535 objects.
    """
    root = Path(folder)
    images, masks = root / "images" / dataset.split, root / "masks" / dataset.split
    refuse_written(masks, dataset)
    names = Names()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True)
        class_file(dataset, root / CLASSES)
        for record, objects in objects_of(dataset):
            stem = names.free(record.path)
            drawn = [one for one in objects if is_object(one)]
            if len(drawn) > MOST:
                raise ValueError(f"{record.path} has {len(drawn)} objects, a label image {MOST}")
            numbers = np.zeros(record.size, np.uint16)
            for number, one in enumerate(drawn, 1):
                crop, (x1, y1, x2, y2) = one.mask()
                numbers[y1:y2, x1:x2][crop] = number
                if crop.size:
                    writer.writerow([f"{dataset.split}/{stem}", number, one.name])
            copy_image(record, images, stem)
            Image.fromarray(numbers).save(masks / f"{stem}.png")
    if len(dataset.names) > 1:
        table = root / OBJECTS
        before = table_text(table) if table.exists() else ",".join(COLUMNS) + "\n"
        write_whole(table, before + stream.getvalue())
    return masks
