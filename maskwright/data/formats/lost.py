"""What a data set has that a format cannot hold, counted before it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from ..records import ANY_CLASS, Dataset
from ..segments import NO_MASK
from .outgoing import Outgoing, is_object, objects_of

# Word of `Layout.keeps`, and what becomes of it in a format that lacks the word.
WORDS = {
    "masks": "masks: only the boxes of their objects are written",
    "boxes": "objects without a mask: left out",
    "own boxes": "boxes that are not those around their masks: read as those around them",
    "corners": "corners of polygons that lie between pixels: masks are written as whole pixels",
    "parts": "objects of several parts: joined by lines that enclose nothing",
    "overlaps": "objects that share pixels with others: a pixel belongs to the last of them",
    "hidden": "objects that others cover wholly: left out",
    "keypoints": "objects with keypoints: these are left out",
    "masks beside keypoints": "masks of objects with keypoints: only boxes and keypoints are "
    "written",
    "crowds": "regions of many objects: left out, so what is there counts as background",
    "ignored": "ignored regions: left out, so what is there counts as background",
    "nameless": "ignored regions of no class: only their boxes are written, once for each class",
    "checked": "images that were not looked through for all classes: the others count as absent",
}
HELD = frozenset(WORDS) - {"checked"}  # by most tools
BOXES = frozenset(
    (
        *("nameless", "boxes", "own boxes", "corners", "parts", "overlaps", "hidden"),
        "masks beside keypoints",
    )
)


def count_lost(dataset: Dataset, keeps: Collection[str]) -> dict[str, int]:
    """Return what of the objects is lost, in words, and of how many.

    Args:
        dataset: images with objects; of others nothing is known.
        keeps: of `WORDS`, what the format holds.
    """
    if dataset.records != "objects" or set(keeps) == set(WORDS):
        return {}
    found: Counter[str] = Counter()
    for record, objects in objects_of(dataset):
        found["checked"] += "checked" not in keeps and record.checked is not None
        apart = not {"overlaps", "hidden"} <= set(keeps)
        shared = np.zeros(record.size, np.uint16) if apart else None
        for one in objects:
            found.update(word for word in _features(one, keeps) if word not in keeps)
            if shared is not None:
                crop, (x1, y1, x2, y2) = one.mask()
                shared[y1:y2, x1:x2] += crop
        if shared is not None and (shared > 1).any():
            for one in objects if "overlaps" not in keeps else ():
                crop, (x1, y1, x2, y2) = one.mask()
                found["overlaps"] += bool((shared[y1:y2, x1:x2][crop] > 1).any())
            if "hidden" not in keeps:
                found["hidden"] += _hidden(objects, record.size)
    return {WORDS[word]: found[word] for word in WORDS if found[word]}


def _hidden(objects: Sequence[Outgoing], size: tuple[int, int]) -> int:
    """Return how many objects no pixel is left of when each is painted over those before it."""
    numbers = np.zeros(size, np.int32)
    drawn = [one.mask() for one in objects if is_object(one)]
    for number, (crop, (x1, y1, x2, y2)) in enumerate(drawn, 1):
        numbers[y1:y2, x1:x2][crop] = number
    seen = int(np.count_nonzero(np.unique(numbers)))
    return sum(bool(crop.any()) for crop, _ in drawn) - seen


def count_reduced(dataset: Dataset) -> dict[str, int]:
    """Return what of objects is lost where only labels of images, or label maps, are written.

    Args:
        dataset: images whose labels or maps come from objects; of others nothing is lost.
    """
    table = dataset.columns
    first = table.ann_first.numpy()
    mine = np.zeros(len(first) - 1, bool)
    mine[dataset.rows.numpy()] = True
    own = np.repeat(mine, np.diff(first))
    objects = own & ~table.crowd.numpy()
    masked = table.kinds.numpy() != NO_MASK
    joined = (table.keypoints.numpy()[..., 2] > 0).any(1)
    counts = {"objects with keypoints: these are left out": objects & joined}
    if dataset.records == "labels":
        counts |= {
            "objects: which classes an image shows is written, not where and how many": objects,
            "masks: not written": objects & masked,
            "regions that are ignored: not written": own & ~objects,
        }
    else:
        counts |= {
            "objects: the class of each pixel is written, not which object it is of": (
                objects & masked
            ),
            WORDS["boxes"]: objects & ~masked,
        }
    return {what: int(which.sum()) for what, which in counts.items() if which.any()}


def _features(one: Outgoing, keeps: Collection[str]) -> list[str]:
    """Return what an object has, of `WORDS`."""
    if one.crowd or one.label == ANY_CLASS:
        word = "ignored" if one.ignored else "crowds"
        bare = one.label == ANY_CLASS and "nameless" not in keeps and one.mask()[0].size
        return ["nameless"] if bare and word in keeps else [word]
    polygons = one.polygons
    crop, frame = one.mask() if polygons is None else (None, None)
    masked = polygons is not None or (crop is not None and crop.size > 0)
    found = []
    if one.keypoints is not None:
        found.append("keypoints")
    if one.dataset.skeleton is not None and masked:
        found.append("masks beside keypoints")
    if not masked:
        return [*found, "boxes"]
    found.append("masks")
    if polygons is not None:
        points = np.concatenate(polygons)
        extent = [*points.min(0), *points.max(0)]
        if len(polygons) > 1:
            found.append("parts")
        if not np.array_equal(points, points.round()):
            found.append("corners")
    else:
        assert frame is not None
        extent = [float(side) for side in frame]
        if "parts" not in keeps and len(one.parts()) > 1:
            found.append("parts")
    if not np.allclose(extent, one.box, rtol=0, atol=0.01):
        found.append("own boxes")
    return found
