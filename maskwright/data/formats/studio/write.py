"""Writer of Label Studio's JSON, to be imported there as tasks with annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from maskwright.files import replacing, writing
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import Names, Outgoing, class_file, copy_image, objects_of, refuse_written
from .brush import encode_brush

LISTED = "classes.txt"


@takes_paths
def write_studio(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as Label Studio's JSON, with copies of its images.

    An object of one polygon stays a polygon, in percent; other masks become brush strokes, objects
    without either rectangles. Regions that count neither way get the text `iscrowd` or `ignore`.
    Keypoints are not written. The images are named as of Label Studio's local files, below the
    folder that it is told to serve.

    Args:
        dataset: the images and objects.
        folder: where SPLIT.json, classes.txt and images/SPLIT/ go; other splits may be there
            already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    file, images = root / f"{dataset.split}.json", root / "images" / dataset.split
    refuse_written(file, dataset)
    names = Names()
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        class_file(dataset, root / LISTED)
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for number, (record, objects) in enumerate(objects_of(dataset)):
                image = copy_image(record, images, names.free(record.path))
                path = quote(image.relative_to(root).as_posix())
                task = {
                    "id": number + 1,
                    "data": {"image": f"/data/local-files/?d={path}"},
                    "annotations": [{"result": [_region(one) for one in objects]}],
                }
                stream.write(("[\n" if number == 0 else ",\n") + json.dumps(task))
            stream.write("\n]\n" if len(dataset) else "[]\n")
    return file


def _region(one: Outgoing) -> dict[str, Any]:
    """Return an object as a region."""
    height, width = one.size
    polygons = one.polygons
    value: dict[str, Any]
    if polygons is not None and len(polygons) == 1:
        kind = "polygon"
        points = 100 * polygons[0] / (width, height)
        value = {"points": points.tolist(), "closed": True}
    elif polygons is not None or one.mask()[0].size:
        kind, mask = "brush", np.zeros(one.size, bool)
        crop, (left, top, right, bottom) = one.mask()
        mask[top:bottom, left:right] = crop
        value = {"format": "rle", "rle": encode_brush(mask)}
    else:
        kind = "rectangle"
        x1, y1, x2, y2 = one.box
        value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0}
        value |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
    word = f"{kind}labels"
    if one.label != ANY_CLASS:
        value[word] = [one.name]
    region: dict[str, Any] = {
        "id": f"r{one.k + 1}",
        "type": word if one.label != ANY_CLASS else kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    if one.crowd:
        region["meta"] = {"text": ["ignore" if one.ignored else "iscrowd"]}
    return region
