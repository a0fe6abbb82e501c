"""The keypoints that the categories of a COCO file define: names, and the lines between them."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from maskwright.structures import Skeleton

from ...building.objects import shown, whole_number

Finding = tuple[str, str, str]  # kind, message and action of a fault


def read_skeleton(
    categories: list[dict[str, Any]], known: Container[int | None]
) -> tuple[Skeleton | None, set[int], list[Finding]]:
    """Return the keypoints of a data set.

    They are those of the first category that names any, by id; others may have the same.

    Args:
        categories: checked categories of the file.
        known: ids of those that are classes.

    Returns:
        The keypoints, None if no category names any; the ids of the categories that have them;
        and what was wrong.
    """
    skeleton: Skeleton | None = None
    having: set[int] = set()
    faults: list[Finding] = []
    numbered = [(number, c) for c in categories if (number := whole_number(c["id"])) in known]
    for number, category in sorted(numbered, key=lambda pair: pair[0] or 0):
        listed = category.get("keypoints")
        if not isinstance(listed, list) or not listed or number is None:
            continue
        where = f"category {number} {category['name']!r}"
        names: list[str] = []
        for name in map(str, listed):
            names.append(f"{name}#{len(names) + 1}" if name in names else name)
        if skeleton is None:
            if names != list(map(str, listed)):
                message = f"{where} uses a name for several keypoints: read as {', '.join(names)}"
                faults.append(("duplicate keypoint name", message, "repaired"))
            bones, wrong = _read_bones(category.get("skeleton"), len(names))
            skeleton = Skeleton(tuple(names), bones)
            for line in wrong:
                message = (
                    f"{where}: a line of its skeleton joins two keypoints by their numbers, 1 to "
                    f"{len(names)}; got {shown(line)}"
                )
                faults.append(("bad skeleton", message, "left out"))
        if skeleton.names == tuple(names):
            having.add(number)
        else:
            message = (
                f"{where} has other keypoints than {', '.join(skeleton.names)}: one data set has "
                "one list of keypoints; those of this category are not read"
            )
            faults.append(("other keypoints", message, "left out"))
    return skeleton, having, faults


def _read_bones(value: Any, count: int) -> tuple[tuple[tuple[int, int], ...], list[Any]]:
    """Return the lines as positions from 0, and what is no line; the file counts from 1."""
    bones: list[tuple[int, int]] = []
    wrong: list[Any] = []
    for line in value if isinstance(value, list) else []:
        ends = [whole_number(end) for end in line] if isinstance(line, list) else []
        match ends:
            case [int(a), int(b)] if 1 <= a <= count and 1 <= b <= count:
                bones.append((a - 1, b - 1))
            case _:
                wrong.append(line)
    return tuple(bones), wrong
