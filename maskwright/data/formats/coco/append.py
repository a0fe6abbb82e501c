"""Images and their objects, one after the other, into a COCO data set that grows."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....files import write_whole, writing
from ....ops.rle import encode_crop
from ....structures.instances import Skeleton
from ....text import to_json

FILE = "annotations.json"
IMAGES = "images"
MOST_OBJECTS = 10_000  # of an image
MOST_POINTS = 200_000  # of the outlines of an object
MOST_NAMES = 50_000  # of classes, of keypoints
NAME = 200  # characters of a class
LONGEST = 200  # bytes of a file's name
Ring = NDArray[np.float64]

_writes = threading.Lock()


@dataclass(frozen=True)
class Drawn:
    """An object as somebody has drawn it, in pixels of the upright image.

    Attributes:
        name: its class.
        box: x1, y1, x2, y2.
        rings: (n, 2) outlines and holes; what lies in an odd number of them is the object.
        points: x, y and whether it is seen, for each keypoint.
    """

    name: str
    box: tuple[float, float, float, float]
    rings: Sequence[Ring] = ()
    points: Sequence[tuple[float, float, bool]] = ()

    @classmethod
    def read(cls, row: Any, size: tuple[int, int]) -> Drawn:
        """Read an object of plain data: `name`, `box`, `rings` and `points`.

        Args:
            row: the data, from anybody.
            size: (height, width) of the image, to which places are cut.

        Raises:
            ValueError: if it is none.
        """
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ValueError("an object needs a name")
        name = row["name"].strip()
        if not name or len(name) > NAME or not name.isprintable():
            raise ValueError(f"an object needs a name of 1 to {NAME} printable characters")
        height, width = size
        most = np.array([width, height], np.float64)
        box = _numbers(row.get("box"), 2, "box")
        if len(box) != 2:
            raise ValueError(f"{name}: a box has four numbers")
        rings = [_numbers(ring, 2, "outline") for ring in _listed(row.get("rings"), "rings")]
        if sum(map(len, rings)) > MOST_POINTS or any(len(ring) < 3 for ring in rings):
            raise ValueError(f"{name}: an outline has at least 3 points, all {MOST_POINTS} at most")
        rings = [ring.clip(0, most) for ring in rings]
        corners = np.concatenate(rings) if rings else box
        x1, y1 = corners.min(0).clip(0, most).tolist()
        x2, y2 = corners.max(0).clip(0, most).tolist()
        if not (x1 < x2 and y1 < y2):
            raise ValueError(f"{name}: the object has no area within the image")
        points = _numbers(row.get("points") or [], 3, "points")
        seen = [(x, y, bool(score > 0)) for x, y, score in points.tolist()]
        return cls(name, (x1, y1, x2, y2), rings, seen)


@dataclass(frozen=True)
class Labels:
    """All that somebody has drawn in an image.

    Attributes:
        objects: what is to be seen in it.
        names: classes in their order; None: not said.
        skeleton: what the keypoints of the objects are called; None: not said.
    """

    objects: Sequence[Drawn]
    names: Sequence[str] | None = None
    skeleton: Skeleton | None = None

    @classmethod
    def read(cls, data: Any, size: tuple[int, int]) -> Labels:
        """Read plain data: `objects`, and if they are told `names`, `keypoint_names` and `bones`.

        Args:
            data: from anybody.
            size: (height, width) of the image, to which places are cut.

        Raises:
            ValueError: if it is none.
        """
        if not isinstance(data, dict) or not isinstance(data.get("objects"), list):
            raise ValueError("labels are JSON, an object with a list of `objects`")
        objects = [Drawn.read(row, size) for row in data["objects"]]
        names, joints = (_names(data.get(key), key) for key in ("names", "keypoint_names"))
        bones = _listed(data.get("bones"), "bones")
        if not all(isinstance(one, list) and all(type(end) is int for end in one) for one in bones):
            raise ValueError("bones: expected pairs of places in keypoint_names")
        made = Skeleton(tuple(joints), tuple(map(tuple, bones))) if joints else None
        return cls(objects, names or None, made)


def add_image(
    folder: Path,
    name: str,
    data: bytes,
    size: tuple[int, int],
    objects: Sequence[Drawn],
    names: Sequence[str],
    skeleton: Skeleton | None = None,
) -> Path:
    """Write an image into a COCO data set, made if it is not there, and return its file.

    The same image under the same name again has its objects replaced.

    Args:
        folder: of the data set: `annotations.json`, and `images` with the files.
        name: of the file, without a folder.
        data: its bytes, an encoded image.
        size: (height, width), upright.
        objects: what is to be seen in it.
        names: classes in their order, for a new data set.
        skeleton: what the keypoints are called; None: they have numbers.

    Raises:
        ValueError: if the data set cannot be read, or its keypoints are others.
        WriteError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> found = [Drawn("cell", (1, 1, 3, 3))]
        >>> add_image(place, "a.png", b"...", (4, 6), found, ["cell"]).name
        'a.png'
    """
    if len(objects) > MOST_OBJECTS:
        raise ValueError(f"an image has {MOST_OBJECTS} objects at most, not {len(objects)}")
    with _writes:
        content = _read(folder / FILE)
        images, rows, categories = (content[key] for key in ("images", "annotations", "categories"))
        file = _place(folder / IMAGES, name, data)
        shown = f"{IMAGES}/{file.name}"
        number = next((one["id"] for one in images if one.get("file_name") == shown), None)
        if number is None:
            number = 1 + max((one["id"] for one in images), default=0)
            height, width = size
            images.append({"id": number, "file_name": shown, "height": height, "width": width})
        rows[:] = [row for row in rows if row.get("image_id") != number]
        ids = {one["name"]: one["id"] for one in categories}
        for called in [*names, *(one.name for one in objects)]:
            if called not in ids:
                ids[called] = 1 + max(ids.values(), default=0)
                categories.append({"id": ids[called], "name": called})
        _name_points(categories, objects, skeleton)
        first = 1 + max((row["id"] for row in rows), default=0)
        for place, one in enumerate(objects):
            rows.append({"id": first + place, "image_id": number, "category_id": ids[one.name],
                         **_annotation(one, size)})  # fmt: skip
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        write_whole(folder / FILE, to_json(content, indent=1) + "\n")
    return file


def _read(file: Path) -> dict[str, Any]:
    """Return what a data set holds, or an empty one."""
    if not file.exists():
        return {"images": [], "annotations": [], "categories": []}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for key in ("images", "annotations", "categories"):
            rows = content[key]
            if not isinstance(rows, list) or not all(type(row["id"]) is int for row in rows):
                raise TypeError(key)
        for row in content["categories"]:
            row["name"].strip()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is no COCO file to which images can be added ({error}): choose another folder"
        ) from None
    return dict(content)


def _place(folder: Path, name: str, data: bytes) -> Path:
    """Return the file for an image: the one that holds it already, or one that is not there."""
    stem, suffix = Path(name).stem, Path(name).suffix
    # File systems count bytes: 255, with room for a number.
    stem = stem.encode()[:LONGEST].decode(errors="ignore")
    name = stem + suffix
    number = 1
    while True:
        file = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        if not file.exists() or file.read_bytes() == data:
            return file
        number += 1


def _name_points(
    categories: Sequence[dict[str, Any]], objects: Sequence[Drawn], skeleton: Skeleton | None
) -> None:
    """Tell categories what the keypoints of their objects are called: without, none is read."""
    by_name = {row["name"]: row for row in reversed(categories)}  # the first of a name
    for one in objects:
        if not one.points:
            continue
        count = len(one.points)
        told = skeleton or Skeleton(tuple(map(str, range(count))))
        category = by_name[one.name]
        category.setdefault("keypoints", list(told.names))
        category.setdefault("skeleton", [[a + 1, b + 1] for a, b in told.bones])
        if len(category["keypoints"]) != count or len(told) != count:
            raise ValueError(
                f"{one.name} has {count} keypoints, and {len(category['keypoints'])} in the data "
                "set of corrections: choose another folder"
            )


def _annotation(one: Drawn, size: tuple[int, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    row: dict[str, Any] = {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }
    if one.rings:
        crop, (left, top) = fill_rings(one.rings, size)
        high, wide = crop.shape
        code = encode_crop(crop, (left, top, left + wide, top + high), size)
        row["segmentation"] = {"size": list(size), "counts": code["counts"].decode("ascii")}
        row["area"] = int(crop.sum())
    if one.points:
        row["keypoints"] = [v for x, y, seen in one.points for v in (x, y, 2 if seen else 0)]
        row["num_keypoints"] = sum(seen for _, _, seen in one.points)
    return row


def fill_rings(
    rings: Sequence[Ring], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels whose centres lie in an odd number of outlines, and where they begin.

    Args:
        rings: (n, 2) x, y each, closed by themselves, within the image.
        size: (height, width) of the image.

    Returns:
        (h, w) bool and left, top.

    Example:
        >>> square = np.array([[1., 1.], [4., 1.], [4., 4.], [1., 4.]])
        >>> hole = np.array([[2., 2.], [3., 2.], [3., 3.], [2., 3.]])
        >>> fill_rings([square, hole], (9, 9))[0].astype(int).tolist()
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    everything = np.concatenate(rings)
    left, top = np.floor(everything.min(0)).astype(int).tolist()
    right, bottom = np.ceil(everything.max(0)).astype(int).tolist()
    right, bottom = min(max(right, left + 1), size[1]), min(max(bottom, top + 1), size[0])
    # A pixel changes sides with each border to its left: parity from the left edge on.
    turned = np.zeros((bottom - top, right - left + 1), np.int64)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, 0), strict=True):
            if y1 == y2:
                continue
            first, last = sorted((y1, y2))
            rows = np.arange(max(math.ceil(first - 0.5), top), math.ceil(last - 0.5))
            rows = rows[rows < bottom]
            crossing = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            columns = np.ceil(crossing - 0.5).astype(int).clip(left, right)
            np.add.at(turned, (rows - top, columns - left), 1)
    return turned.cumsum(1)[:, :-1] % 2 == 1, (left, top)


def _listed(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{what}: expected a list")
    return value


def _names(value: Any, what: str) -> list[str]:
    """Return names, from a list of them."""
    names = _listed(value, what)
    if len(names) > MOST_NAMES or not all(
        isinstance(one, str) and 0 < len(one) <= NAME and one.isprintable() for one in names
    ):
        raise ValueError(f"{what}: expected names of 1 to {NAME} printable characters")
    return names


def _numbers(value: Any, each: int, what: str) -> NDArray[np.float64]:
    """Return rows of so many finite numbers, from a list of them or one long list."""
    try:
        rows = np.asarray(_listed(value, what), np.float64).reshape(-1, each)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected numbers, {each} each") from None
    if not np.isfinite(rows).all():
        raise ValueError(f"{what}: expected finite numbers")
    return rows
