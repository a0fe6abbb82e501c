"""Label maps of a split: faults that only reading them finds, and what each class has of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from maskwright.structures import IGNORED

from ..maps.counts import PixelCounts
from ..maps.encoding import UnknownValueError
from ..maps.samples import map_of
from ..records import Dataset, Fault
from .labels import FEW
from .verdict import unlike_classes

UNEVEN = 100  # times as many pixels as another class: worth a word
COUNTED = 200  # label maps of a split that a training counts itself
# Of the places where two labels that are no neighbours meet, so many have a label between them:
# where maps were interpolated about a third, in real ones a few in a hundred.
BETWEEN, LEAST_BETWEEN = 0.15, 20


@dataclass
class MapStats:
    """Numbers of one split.

    Attributes:
        images: number of images.
        names: of the classes.
        counts: pixels of the classes; counted by the look at the files.
        empty: images in which every pixel is ignored.
        image_sizes: how many images have each (height, width).
    """

    images: int
    names: list[str]
    counts: PixelCounts
    empty: int = 0
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @classmethod
    def of(cls, dataset: Dataset) -> MapStats:
        """Return the numbers of a split of which nothing has been looked at."""
        return cls(len(dataset), dataset.names, PixelCounts.none(len(dataset.names)))

    @property
    def per_class(self) -> dict[str, int]:
        """Pixels of each class."""
        return dict(zip(self.names, self.counts.pixels.tolist(), strict=True))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class of the pixels that count, in percent."""
        return dict(zip(self.names, (100 * self.counts.shares).tolist(), strict=True))

    @property
    def ignored(self) -> float:
        """Share of the pixels that are ignored, in percent."""
        every = int(self.counts.pixels.sum()) + self.counts.ignored
        return 100 * self.counts.ignored / max(every, 1)


def check_map(dataset: Dataset, index: int, stats: MapStats) -> list[Fault]:
    """Read the label map of an image, and count its pixels.

    Args:
        dataset: images with label maps.
        index: position of the image.
        stats: gets the numbers.
    """
    record = dataset[index]
    file = str(record.label_map or record.path)

    def fault(kind: str, message: str, action: str) -> list[Fault]:
        return [Fault(file, record.image_id, None, kind, message, action)]

    try:
        labels = map_of(dataset, index)
    except UnknownValueError as error:
        return fault("value without a class", str(error), "error")
    except ValueError as error:
        return fault("unreadable label map", str(error), "error")
    if not stats.counts.add(labels).any():
        stats.empty += 1
        return fault("nothing but ignored pixels", f"{file}: every pixel is ignored", "kept")
    if number := interpolated(labels):
        message = (
            f"{file}: {number} pixels between two classes have a class whose number lies between "
            "theirs: was the map resized by interpolation? Export it anew, by nearest neighbour"
        )
        return fault("interpolated labels", message, "kept")
    return []


def interpolated(labels: np.ndarray) -> int:
    """Return how many pixels look like a mean of the labels beside them; 0 where few do.

    Args:
        labels: (H, W) uint8.
    """
    between = places = 0
    for array in (labels.astype(np.int16), labels.T.astype(np.int16)):
        first, middle, last = array[:, :-2], array[:, 1:-1], array[:, 2:]
        known = (first != IGNORED) & (middle != IGNORED) & (last != IGNORED)
        apart = known & (np.abs(first - last) > 1)
        inside = (np.minimum(first, last) < middle) & (middle < np.maximum(first, last))
        places += int(apart.sum())
        between += int((apart & inside).sum())
    return between if between >= max(BETWEEN * places, LEAST_BETWEEN) else 0


def no_labels(dataset: Dataset, stats: MapStats) -> str | None:
    """Return why there is nothing to learn from label maps, with the mend; None if there is."""
    if len(dataset.names) < 2:
        return (
            f"{dataset.source} has one class only, {dataset.names[0]!r}: semantic segmentation "
            "tells two or more apart, of which one may be the background"
        )
    if not stats.counts.pixels.any():
        return f"{dataset.source}: no pixel of its {len(dataset)} label maps has a class"
    return None


def nothing_shown(dataset: Dataset) -> str | None:
    """Return that no label map has a pixel of a class; None at the first that has one.

    A label map that cannot be used counts as one that has: whoever uses it tells of it.
    """
    for index in range(len(dataset)):
        try:
            if (map_of(dataset, index) != IGNORED).any():
                return None
        except ValueError:
            return None
    return f"{dataset.source}: no pixel of its {len(dataset)} label maps has a class"


def never_shown(train: Dataset, val: Dataset) -> str | None:
    """Return which classes are scored and never learned; None if there are none.

    Of many training images nothing is said here: `data check` counts all.
    """
    if len(train) > COUNTED:
        return None
    seen: list[dict[str, int]] = []
    for dataset in (train, val):
        counts = PixelCounts.none(len(dataset.names))
        for index in range(min(len(dataset), COUNTED)):
            counts.add(map_of(dataset, index))
        seen.append(dict(zip(dataset.names, counts.pixels.tolist(), strict=True)))
    return unlike_classes(*seen)


def missing_classes(dataset: Dataset, stats: MapStats) -> list[Fault]:
    """Return a fault where classes have no pixel."""
    missing = [name for name, pixels in stats.per_class.items() if not pixels]
    if not missing or len(missing) == len(dataset.names):
        return []
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    message = f"{dataset.source} has no pixel of {', '.join(map(repr, missing[:5]))}{more}"
    return [Fault(str(dataset.source), None, None, "class without pixels", message, "kept")]


MAP_HEADER = ("images", "classes", "ignored %", "least %", "most % of a class")


def map_row(stats: MapStats) -> list[float | int]:
    """Return the numbers of a split under `MAP_HEADER`."""
    shares = stats.shares.values()
    ends = (round(stats.ignored, 2), round(min(shares), 3), round(max(shares), 2))
    return [stats.images, len(stats.names), *ends]


def describe_maps(split: str, stats: MapStats) -> list[str]:
    """Return the numbers of a split as lines of text."""
    shares = sorted(stats.shares.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {share:.3g} %" for name, share in shares[:20])
    more = f" and {len(shares) - 20} more" if len(shares) > 20 else ""
    sizes = stats.image_sizes.most_common(3)
    shapes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes)
    others = len(stats.image_sizes) - len(sizes)
    empty = f", {stats.empty} of them without a class" if stats.empty else ""
    return [
        f"{split}: {stats.images} images{empty}, {stats.ignored:.3g} % of the pixels ignored",
        f"  classes, by their share of the others: {listed}{more}",
        f"  image sizes (width x height): {shapes}" + (f", {others} others" if others else ""),
    ]


def map_remarks(splits: Mapping[str, MapStats]) -> list[str]:
    """Return what the numbers of all splits tell that is no fault."""
    notes: list[str] = []
    train, val = splits.get("train"), splits.get("val")
    if train is None:
        return notes
    if val is not None and (missing := unlike_classes(train.per_class, val.per_class)):
        notes.append(missing)
    images = dict(zip(train.names, train.counts.images.tolist(), strict=True))
    if rare := [name for name, count in images.items() if 0 < count < FEW]:
        notes.append(f"in fewer than {FEW} images to learn from: {', '.join(rare)}")
    pixels = {name: count for name, count in train.per_class.items() if count}
    if pixels and max(pixels.values()) > UNEVEN * min(pixels.values()):
        most, least = max(pixels, key=pixels.__getitem__), min(pixels, key=pixels.__getitem__)
        notes.append(
            f"{most} has {train.shares[most]:.3g} % of the pixels, {least} "
            f"{train.shares[least]:.2g} %: weigh the classes, and look at the mean IoU rather than "
            "at the accuracy of the pixels"
        )
    return notes
