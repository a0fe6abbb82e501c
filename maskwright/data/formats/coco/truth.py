"""Writer of COCO's form: the ground truth of a data set as one dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from maskwright.structures import Skeleton

from ...columns import ANY_CLASS, Columns
from ...segments import POLYGONS, RLE


def coco_truth(
    columns: Columns,
    rows: Iterable[int],
    names: Sequence[str],
    ids: Sequence[int],
    skeleton: Skeleton | None = None,
) -> dict[str, Any]:
    """Return images, annotations and categories as COCO JSON has them.

    Image ids are those of the annotation file, as in `Result.to_coco` and `detections.json`;
    annotation ids count from 1 (evaluators take id 0 for "not matched"), boxes and areas are as
    annotated. A region of unknown class is one of each class. Where not all images were looked
    through for all classes, they have LVIS's `neg_category_ids`, those that an image does not show.

    Args:
        columns: the data set.
        rows: its images.
        names: class names.
        ids: category id of each class.
        skeleton: names of the keypoints, and the lines between them.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        height, width = columns.sizes[row].tolist()
        image = {"file_name": columns.path(row), "height": height, "width": width}
        images.append({"id": int(columns.image_ids[row]), **image})
        first, last = columns.ann_first[row : row + 2].tolist()
        images[-1] |= negatives(columns, row, ids)
        for annotation in range(first, last):
            entry = _entry(columns, annotation, images[-1], skeleton)
            entry = {"id": len(annotations) + 1, **entry}
            label = int(columns.labels[annotation])
            same = ids if label == ANY_CLASS else [ids[label]]
            annotations += [
                {**entry, "id": entry["id"] + k, "category_id": number}
                for k, number in enumerate(same)
            ]
    categories: list[dict[str, Any]] = [
        {"id": number, "name": name} for number, name in zip(ids, names, strict=True)
    ]
    if skeleton is not None:
        for category in categories:
            category["keypoints"] = list(skeleton.names)
            category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.bones]
    return {"images": images, "annotations": annotations, "categories": categories}


def negatives(columns: Columns, row: int, ids: Sequence[int]) -> dict[str, list[int]]:
    """Return what LVIS says of an image: the classes that it does not show, of those looked for.

    Returns:
        `neg_category_ids` and `not_exhaustive_category_ids`, the second empty, for such classes
        have ignored regions; {} for an image that was looked through for all classes.
    """
    checked = columns.checked_of(row)
    if checked is None:
        return {}
    first, last = columns.ann_first[row : row + 2].tolist()
    shown = set(columns.labels[first:last].tolist())
    absent = [ids[label] for label in checked.tolist() if label not in shown]
    return {"neg_category_ids": absent, "not_exhaustive_category_ids": []}


def _entry(
    columns: Columns, annotation: int, image: dict[str, Any], skeleton: Skeleton | None
) -> dict[str, Any]:
    """Return an annotation without its id; the category follows."""
    x1, y1, x2, y2 = columns.boxes[annotation].tolist()
    entry: dict[str, Any] = {
        "image_id": image["id"],
        "category_id": 0,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(columns.areas[annotation]),
        "iscrowd": int(columns.crowd[annotation]),
    }
    kind = int(columns.kinds[annotation])
    if kind == POLYGONS:
        parts = columns.polygons(annotation) or []
        entry["segmentation"] = [part.ravel().tolist() for part in parts]
    elif kind == RLE:
        counts = columns.rle(annotation).decode("ascii")
        entry["segmentation"] = {"size": [image["height"], image["width"]], "counts": counts}
    if skeleton is not None:
        joints = columns.keypoints[annotation]
        entry["keypoints"] = joints.ravel().tolist()
        entry["num_keypoints"] = int((joints[:, 2] > 0).sum())
    return entry
