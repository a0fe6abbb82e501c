"""Numbers of the objects of a split: how many of each class, in an image, of each size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..records import Dataset
from .verdict import class_counts, spelt_alike, unlike_classes

SMALL, LARGE = 32**2, 96**2  # COCO's limits of the area, in original pixels
MANY = 100  # detections an image that detectors return by default


@dataclass
class SplitStats:
    """Numbers of one split.

    Attributes:
        images: number of images.
        without_objects: images without any object.
        crowds: crowd regions; they count nowhere else.
        per_class: objects of each class.
        per_keypoint: objects in which each keypoint is labelled; empty without keypoints.
        per_image: (images,) number of objects.
        areas: (objects,) in original pixels.
        sides: (objects, 2) width and height of the boxes.
        shares: (objects,) of the area of their image.
        image_sizes: how many images have each (height, width).
    """

    images: int = 0
    without_objects: int = 0
    crowds: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    per_keypoint: dict[str, int] = field(default_factory=dict)
    per_image: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.areas)

    @property
    def by_size(self) -> dict[str, int]:
        """Objects below 32 x 32 pixels, up to 96 x 96 pixels, and above."""
        small, large = int((self.areas < SMALL).sum()), int((self.areas > LARGE).sum())
        return {"small": small, "medium": self.objects - small - large, "large": large}


def statistics(dataset: Dataset) -> SplitStats:
    """Return the numbers of a split."""
    table, rows = dataset.columns, dataset.rows.numpy()
    first, objects = table.ann_first.numpy(), ~table.crowd.numpy()
    before = np.concatenate(([0], np.cumsum(objects)))
    per_image = (before[first[1:]] - before[first[:-1]])[rows]
    mine = np.zeros(len(first) - 1, bool)
    mine[rows] = True
    own = np.repeat(mine, np.diff(first))
    chosen = own & objects
    owners = np.repeat(np.arange(len(first) - 1), np.diff(first))[chosen]
    boxes, sizes = table.boxes.numpy()[chosen], table.sizes.numpy()
    stats = SplitStats(
        len(dataset),
        without_objects=int((per_image == 0).sum()),
        crowds=dataset.num_ignored,
        per_class=class_counts(dataset),
        per_image=per_image,
        areas=table.areas.numpy()[chosen],
        sides=boxes[:, 2:] - boxes[:, :2],
        shares=table.areas.numpy()[chosen] / np.maximum(sizes.prod(1)[owners], 1),
        image_sizes=Counter((height, width) for height, width in sizes[rows].tolist()),
    )
    if dataset.skeleton is not None:
        shown = (table.keypoints.numpy()[own][..., 2] > 0).sum(0).tolist()
        stats.per_keypoint = dict(zip(dataset.skeleton.names, shown, strict=True))
    return stats


def remarks(splits: Mapping[str, SplitStats]) -> list[str]:
    """Return what the numbers of all splits tell that is no fault."""
    notes = []
    train, val = splits.get("train"), splits.get("val")
    for alike in spelt_alike({name for stats in splits.values() for name in stats.per_class}):
        notes.append(f"classes that differ by blanks or capitals only: {alike}")
    if train is not None and val is not None:
        missing = unlike_classes(train.per_class, val.per_class)
        notes += [missing] if missing else []
    if train is not None:
        rare = [name for name, count in train.per_class.items() if 0 < count < 10]
        if rare:
            notes.append(f"fewer than 10 objects to learn from: {', '.join(rare)}")
    most = max((int(stats.per_image.max(initial=0)) for stats in splits.values()), default=0)
    if most > MANY:
        notes.append(
            f"up to {most} objects in one image: predict and evaluate with max_det={most} or more"
        )
    return notes


OBJECT_HEADER = (
    *("images", "without objects", "objects", "small", "medium", "large"),
    *("crowd, difficult", "most in an image"),
)


def object_row(stats: SplitStats) -> list[int]:
    """Return the numbers of a split under `OBJECT_HEADER`; sizes are in COCO's terms."""
    counts = [stats.images, stats.without_objects, stats.objects, *stats.by_size.values()]
    return [*counts, stats.crowds, int(stats.per_image.max(initial=0))]


SHAPE_HEADER = ("what", "least", "5 %", "median", "95 %", "most")


def shape_rows(stats: SplitStats) -> list[list[str | float]]:
    """Return under `SHAPE_HEADER` how the objects of a split are, as quantiles."""
    width, height = stats.sides.T
    found: dict[str, np.ndarray] = {
        "objects in an image": stats.per_image,
        "width, pixels": width,
        "height, pixels": height,
        "width : height": width[height > 0] / height[height > 0],
        "area, % of the image": 100 * stats.shares,
    }
    return [
        [what, *(float(f"{value:.3g}") for value in np.quantile(values, (0, 0.05, 0.5, 0.95, 1)))]
        for what, values in found.items()
        if len(values)
    ]


def describe(split: str, stats: SplitStats) -> list[str]:
    """Return the numbers of a split as lines of text."""
    classes = sorted(stats.per_class.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {count}" for name, count in classes[:20])
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    sizes = stats.image_sizes.most_common(3)
    shapes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes)
    others = len(stats.image_sizes) - len(sizes)
    middle = int(np.median(stats.per_image)) if len(stats.per_image) else 0
    joints = ", ".join(f"{name} {count}" for name, count in stats.per_keypoint.items())
    lines = [
        f"{split}: {stats.images} images ({stats.without_objects} without objects), "
        f"{stats.objects} objects, {stats.crowds} crowd regions",
        f"  classes: {listed}{more}",
        f"  objects in an image: median {middle}, most {stats.per_image.max(initial=0)}",
        "  object sizes: " + ", ".join(f"{name} {n}" for name, n in stats.by_size.items()),
        f"  image sizes (width x height): {shapes}" + (f", {others} others" if others else ""),
    ]
    return [*lines, f"  labelled keypoints: {joints}"] if joints else lines
