"""Numbers of the labelled images of a split, and what stands between them and a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..records import Dataset
from .verdict import unlike_classes

FEW = 10  # images of a class below which it is hardly learned
UNEVEN = 10  # times as many images as another class: worth a word


@dataclass
class LabelStats:
    """Numbers of one split.

    Attributes:
        images: number of images.
        per_class: images of each class.
        without: images without any label.
        several: images with more than one.
        groups: groups of images that belong together; 0: none are told.
        image_sizes: how many images have each (height, width); counted by the look at the files.
    """

    images: int
    per_class: dict[str, int]
    without: int = 0
    several: int = 0
    groups: int = 0
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def label_statistics(dataset: Dataset) -> LabelStats:
    """Return the numbers of a split, sizes of images aside."""
    images, _ = dataset.classes_of_images()
    counts = Counter(Counter(images.tolist()).values())
    groups = dataset.groups
    return LabelStats(
        len(dataset),
        dict(zip(dataset.names, dataset.images_per_class().tolist(), strict=True)),
        without=len(dataset) - sum(counts.values()),
        several=sum(number for labels, number in counts.items() if labels > 1),
        groups=0 if groups is None else len(set(groups.tolist())),
    )


def one_class(dataset: Dataset) -> str | None:
    """Return why there is nothing to tell apart, with the mend; None if there is."""
    if len(dataset.names) > 1 or dataset.multilabel:
        return None
    return (
        f"{dataset.source} has one class only, {dataset.names[0]!r}: a classifier tells two or "
        "more apart; add images of something else, such as a class 'other'"
    )


LABEL_HEADER = (
    "images",
    "classes",
    "without a label",
    "several labels",
    "fewest",
    "most of a class",
)


def label_row(stats: LabelStats) -> list[int]:
    """Return the numbers of a split under `LABEL_HEADER`; fewest are those of a class."""
    counts = list(stats.per_class.values())
    return [stats.images, len(counts), stats.without, stats.several, min(counts), max(counts)]


def describe_labels(split: str, stats: LabelStats) -> list[str]:
    """Return the numbers of a split as lines of text."""
    classes = sorted(stats.per_class.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {count}" for name, count in classes[:20])
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    sizes = stats.image_sizes.most_common(3)
    shapes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes)
    others = len(stats.image_sizes) - len(sizes)
    notes = [f"{stats.without} without a label"] * bool(stats.without)
    notes += [f"{stats.several} with several"] * bool(stats.several)
    notes += [f"{stats.groups} groups"] * bool(stats.groups)
    return [
        f"{split}: {stats.images} images" + (f" ({', '.join(notes)})" if notes else ""),
        f"  classes: {listed}{more}",
        f"  image sizes (width x height): {shapes}" + (f", {others} others" if others else ""),
    ]


def label_remarks(splits: Mapping[str, LabelStats]) -> list[str]:
    """Return what the numbers of all splits tell that is no fault."""
    notes = []
    train, val = splits.get("train"), splits.get("val")
    if train is not None and val is not None:
        missing = unlike_classes(train.per_class, val.per_class)
        notes += [missing] if missing else []
    counts = {name: n for name, n in train.per_class.items() if n} if train is not None else {}
    if rare := [name for name, count in counts.items() if count < FEW]:
        notes.append(f"fewer than {FEW} images to learn from: {', '.join(rare)}")
    if counts and max(counts.values()) > UNEVEN * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        notes.append(
            f"{most} has {counts[most]} images, {least} {counts[least]}: weigh the classes, or "
            "show rare ones more often, and look at balanced accuracy"
        )
    return notes
