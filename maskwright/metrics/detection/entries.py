"""COCO ground truth and detections for the evaluation libraries: read, checked and renumbered.

Only what an evaluation needs must be there: a box that is missing is that around the mask, an area
that of the shape, and RLE carries its size, so that only polygons need that of the image.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...paths import takes_paths


@takes_paths
def read_ground_truth(gt: Path | str | dict[str, Any]) -> dict[str, Any]:
    """Return COCO ground truth as a dict, read from its file where a path is given.

    Raises:
        ValueError: if the file is missing or no JSON, or one of its three lists is missing.
    """
    where = "gt"
    if not isinstance(gt, dict):
        where = str(gt)
        try:
            gt = json.loads(Path(gt).read_bytes())
        except FileNotFoundError:
            raise ValueError(f"gt: there is no file {where}") from None
        except ValueError as error:
            raise ValueError(f"gt: {where} is not JSON ({error})") from None
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(gt, dict) or not isinstance(gt.get(key), list)
    ]
    if missing:
        raise ValueError(
            f"{where}: COCO ground truth needs the lists 'images', 'annotations' and "
            f"'categories'; missing: {', '.join(missing)}"
        )
    assert isinstance(gt, dict)
    return gt


def sorted_categories(gt: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the categories in the order of their ids, which is the order of class indices."""
    return sorted(gt["categories"], key=lambda category: category["id"])


def class_names(gt: dict[str, Any]) -> list[str]:
    """Return one name per class, by category id; equal names get their id appended."""
    categories = sorted_categories(gt)
    names = [str(category.get("name", category["id"])) for category in categories]
    return [
        name if names.count(name) == 1 else f"{name}#{category['id']}"
        for name, category in zip(names, categories, strict=True)
    ]


def frequencies(gt: dict[str, Any]) -> list[str]:
    """Return "r", "c" or "f" per class, by category id, as LVIS has them; "" for none."""
    return [str(category.get("frequency") or "") for category in sorted_categories(gt)]


def looked_for(
    gt: dict[str, Any], detections: Sequence[dict[str, Any]]
) -> Sequence[dict[str, Any]]:
    """Return the detections of classes that somebody looked for in their image.

    As LVIS has it (Gupta et al. 2019), these are the classes of the annotations of the image, and
    its `neg_category_ids` and `not_exhaustive_category_ids`; without the first of these, all.
    """
    looked = {
        image["id"]: {*image["neg_category_ids"], *image.get("not_exhaustive_category_ids", ())}
        for image in gt["images"]
        if "neg_category_ids" in image
    }
    if not looked:
        return detections
    for annotation in gt["annotations"]:
        if annotation.get("image_id") in looked:
            looked[annotation["image_id"]].add(annotation.get("category_id"))
    return [
        one
        for one in detections
        if one.get("image_id") not in looked or one.get("category_id") in looked[one["image_id"]]
    ]


def _unsure(gt: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a crowd region for each class of which an image may show more than is annotated.

    What is found there and matches nothing counts neither way, as LVIS has it.
    """
    found = []
    for image in gt["images"]:
        for category in image.get("not_exhaustive_category_ids", ()):
            width, height = image.get("width") or 0, image.get("height") or 0
            corners = [0, 0, width, 0, width, height, 0, height]
            region = {"image_id": image["id"], "category_id": category, "iscrowd": 1}
            region |= {"bbox": [0, 0, width, height], "segmentation": [corners]}
            found.append(region)
    return found


def renumber(
    gt: dict[str, Any], detections: Sequence[dict[str, Any]], iou_type: str, joints: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ground truth and detections as two data sets with ids from 1 and only known fields.

    Where an image has LVIS's `neg_category_ids`, detections of a class that neither these nor its
    annotations name are left out: nobody looked for it there.

    Images and categories keep the order of their ids, which decides between equal scores;
    annotations keep their order.

    Args:
        gt: COCO ground truth.
        detections: COCO results.
        iou_type: what they are compared by.
        joints: number of keypoints, for "keypoints".

    Raises:
        ValueError: where a field that `iou_type` needs is missing.
    """
    masks = iou_type in ("segm", "boundary")
    sizes = {image["id"]: image for image in gt["images"]}
    truth, detections = [*gt["annotations"], *_unsure(gt)], looked_for(gt, detections)
    image_ids = {key: i for i, key in enumerate(sorted(sizes), start=1)}
    category_ids = {c["id"]: i for i, c in enumerate(sorted_categories(gt), start=1)}
    # RLE carries its size; only polygons need that of the image.
    images = [
        {"id": i, "height": sizes[key].get("height") or 0, "width": sizes[key].get("width") or 0}
        for key, i in image_ids.items()
    ]
    categories = [{"id": i, "name": str(i)} for i in category_ids.values()]

    annotations: list[dict[str, Any]] = []
    for i, ann in enumerate(truth, start=1):
        try:
            entry: dict[str, Any] = {
                "id": i,
                "image_id": image_ids[ann["image_id"]],
                "category_id": category_ids[ann["category_id"]],
                "iscrowd": int(ann.get("iscrowd") or 0),
            }
            image = sizes[ann["image_id"]]
            if masks:
                entry["segmentation"] = _mask_of(ann, image)
            else:
                entry["bbox"] = box_of(ann, image)
            if iou_type == "keypoints":
                # An object without keypoints is none that could be missed.
                entry["keypoints"] = _keypoints(ann.get("keypoints") or [0] * 3 * joints, joints)
                shown = sum(v > 0 for v in entry["keypoints"][2::3])
                entry["num_keypoints"] = ann.get("num_keypoints", shown)
        except KeyError as error:
            raise ValueError(
                f"gt: annotation {ann.get('id', i - 1)} of image {ann.get('image_id')}: {error} is "
                f"missing or unknown, and iou_type={iou_type!r} needs it"
            ) from None
        area = ann.get("area")
        if area is None:
            area = _area(entry, image)
        entry["area"] = area
        annotations.append(entry)

    results: list[dict[str, Any]] = []
    strangers = []
    field = "segmentation" if masks else iou_type
    for det in detections:
        try:
            image_id = image_ids.get(det["image_id"])
            category_id = category_ids.get(det["category_id"])
            entry = {"id": len(results) + 1, "score": float(det["score"]), "iscrowd": 0}
            if image_id is None:
                strangers.append(det["image_id"])
                continue
            image = sizes[det["image_id"]]
            if field == "keypoints":
                entry[field] = _keypoints(det[field], joints)
            else:
                entry[field] = _mask_of(det, image) if masks else box_of(det, image)
        except KeyError as error:
            raise ValueError(
                f"detections: {error} is missing in an entry of image {det.get('image_id')}; "
                f"iou_type={iou_type!r} needs image_id, category_id, score and {field}"
            ) from None
        if entry["score"] != entry["score"]:
            raise ValueError(f"detections: a score of image {det['image_id']} is NaN")
        if category_id is not None:
            # As in pycocotools: the area of the box where one is given, else that of the shape.
            if has_box(det):
                entry["bbox"] = box = det["bbox"]
                entry["area"] = box[2] * box[3]
            else:
                entry["area"] = _area(det if field == "bbox" else entry, image)
            results.append(entry | {"image_id": image_id, "category_id": category_id})
    if strangers:
        warnings.warn(
            f"detections: {len(strangers)} of {len(detections)} are on images that the ground "
            f"truth lacks (image_id {strangers[0]!r}, ...) and are left out",
            stacklevel=4,
        )
    return (
        {"images": images, "categories": categories, "annotations": annotations},
        {"images": images, "categories": categories, "annotations": results},
    )


def box_of(entry: dict[str, Any], image: dict[str, Any]) -> Any:
    """Return the box (xywh) of an annotation or detection, or that around its mask.

    Raises:
        KeyError: if it has neither.
    """
    if has_box(entry):
        return entry["bbox"]
    if not entry.get("segmentation"):
        raise KeyError("bbox")
    from pycocotools import mask as rle

    box: list[float] = rle.toBbox(compressed_rle(entry["segmentation"], image)).tolist()
    return box


def has_box(entry: dict[str, Any]) -> bool:
    """Whether a `bbox` is given; libraries write none, None or an empty list."""
    box = entry.get("bbox")
    return box is not None and len(box) > 0


def _mask_of(entry: dict[str, Any], image: dict[str, Any]) -> Any:
    """Return the `segmentation` of an entry.

    Raises:
        KeyError: if it has none, or polygons of an image whose size is not known.
    """
    shape = entry["segmentation"]
    if isinstance(shape, list):
        for side in ("height", "width"):
            if not image.get(side):
                raise KeyError(side)
    return shape


def _keypoints(value: Any, joints: int) -> list[float]:
    """Return x, y, visibility of each keypoint as one list.

    Raises:
        ValueError: if there are more or fewer.
    """
    if len(value) != 3 * joints:
        raise ValueError(
            f"an entry has {len(value)} numbers under keypoints, expected 3 for each of {joints}"
        )
    return [float(number) for number in value]


def _area(entry: dict[str, Any], image: dict[str, Any]) -> float:
    """Return the area of an entry in square pixels: of its mask, its keypoints' extent, its box."""
    shape = entry.get("segmentation")
    if "bbox" not in entry and "keypoints" in entry:
        x, y = entry["keypoints"][::3], entry["keypoints"][1::3]
        return float((max(x) - min(x)) * (max(y) - min(y)))
    if not shape:
        return float(entry["bbox"][2] * entry["bbox"][3])
    from pycocotools import mask as rle

    return float(rle.area(compressed_rle(shape, image)))


def compressed_rle(shape: Any, image: dict[str, Any]) -> dict[str, Any]:
    """Return a COCO `segmentation` (polygons or RLE of either kind) as compressed RLE.

    Args:
        shape: list of polygons (x1, y1, x2, y2, ...) or RLE dict.
        image: the entry of its image, whose `height` and `width` polygons need.
    """
    from pycocotools import mask as rle

    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, image["height"], image["width"]))
    elif isinstance(shape["counts"], list):
        shape = rle.frPyObjects(shape, *shape["size"])
    assert isinstance(shape, dict)
    return shape
