"""What was found in many images as one COCO file, written row by row: memory does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from ....ops.rle import measure_rle
from ....text import to_json

NEEDED = frozenset({"image", "height", "width", "find", "label", "score", "x1", "y1", "x2", "y2"})


def write_found(
    file: BinaryIO,
    rows: Callable[[], Iterable[Mapping[str, Any]]],
    names: Sequence[str],
    category_ids: Sequence[int],
) -> tuple[int, int]:
    """Write objects with their scores; images that failed are left out.

    Args:
        file: open for writing.
        rows: returns the rows of a table, one an object, each time from the first on. Those of an
            image follow each other: `image`, `page`, its size, and of an object `find`, `label`,
            `score`, the corners `x1` to `y2` and where there are some `mask` and `keypoints`; see
            `NEEDED`. A row without `find` is an image without objects.
        names: of the classes by label.
        category_ids: of the classes by label.

    Returns:
        Images and objects that were written.
    """
    images = objects = 0
    _say(file, '{"images": [')
    for image in _images(rows()):
        images += 1
        page = {} if image.get("page") is None else {"page": image["page"]}
        size = {"height": image["height"], "width": image["width"]}
        _item(file, images, {"id": images, "file_name": image["image"], **page, **size})
    _say(file, '\n], "annotations": [')
    number, last = 0, None
    for row in rows():
        if row.get("error"):
            continue
        if (key := (row["image"], row.get("page"))) != last or row["find"] in (None, 0):
            number, last = number + 1, key
        if row["find"] is not None:
            objects += 1
            _item(file, objects, _object(row, objects, number, category_ids))
    categories = [
        {"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)
    ]
    _say(file, f'\n], "categories": {to_json(categories)}}}\n')
    return images, objects


def _images(rows: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Yield the first row of each image that has not failed."""
    for row in rows:
        if not row.get("error") and row["find"] in (None, 0):
            yield row


def _object(
    row: Mapping[str, Any], number: int, image: int, category_ids: Sequence[int]
) -> dict[str, Any]:
    x, y, width, height = row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]
    made: dict[str, Any] = {"id": number, "image_id": image}
    made |= {"category_id": category_ids[row["label"]], "bbox": [x, y, width, height]}
    made |= {"score": row["score"], "iscrowd": 0, "area": width * height}
    if row.get("mask") is not None:
        code = {"size": [row["height"], row["width"]], "counts": row["mask"]}
        made |= {"segmentation": code, "area": float(measure_rle(code)[0])}
    if row.get("keypoints") is not None:  # their scores become "seen"
        points = row["keypoints"]
        made["keypoints"] = [2 if k % 3 == 2 else v for k, v in enumerate(points)]
        made["num_keypoints"] = len(points) // 3
    return made


def _item(file: BinaryIO, number: int, value: Any) -> None:
    _say(file, ("\n" if number == 1 else ",\n") + to_json(value))


def _say(file: BinaryIO, text: str) -> None:
    file.write(text.encode("utf-8"))
