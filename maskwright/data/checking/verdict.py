"""What stands between a data set and a training: `train` tells it before it starts, `check` too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..records import Dataset, describe_faults
from ..segments import BOX_SERVES


def no_objects(dataset: Dataset) -> str | None:
    """Return why there is not one object in the images, with the mend; None if there is one."""
    if dataset.objects_per_class().sum():
        return None
    marked = dataset.num_ignored - sum(fault.action == "ignored" for fault in dataset.faults)
    text = f"{dataset.source} has {len(dataset)} images but not one object"
    if marked > 0 and dataset.format == "voc":
        text += (
            f": all {marked} are marked difficult, which counts neither way; to learn from them "
            "train with difficult=true (a validation never counts them)"
        )
    elif marked > 0:
        text += (
            f": all {marked} annotations are marked iscrowd=1, regions of many that count neither "
            "as objects nor as background; where a tool marks its masks so (CVAT does), "
            "crowd_as_objects=true takes them as objects"
        )
    return _with_faults(text, dataset)


def no_masks(dataset: Dataset) -> str | None:
    """Return why there are no masks to learn, with the mend; None if there are some."""
    if not dataset.has_masks:
        text = f"{dataset.source} has boxes only"
        if dataset.masks_of_crowds:
            text += (
                ": its masks are all marked iscrowd=1, regions of many; where a tool marks its "
                "masks so (CVAT does), crowd_as_objects=true takes them as objects"
            )
        return _with_faults(text, dataset)
    stand_ins = [fault for fault in dataset.faults if fault.message.endswith(BOX_SERVES)]
    broken = [fault for fault in stand_ins if fault.kind != "no mask"]
    if broken and len(stand_ins) >= dataset.objects_per_class().sum():
        text = f"{dataset.source}: not one of its {len(broken)} masks can be read"
        return f"{text}; the first: {broken[0].message}"
    return None


def too_few_images(dataset: Dataset) -> str | None:
    """Return why nothing can be held out for a validation, with the mend; None if it can."""
    if len(dataset) >= 2:
        return None
    return (
        f"{dataset.source} has {len(dataset)} usable image(s): at least two are needed to hold "
        "out some for validation; val_fraction=0 trains on all, without a validation"
    )


def unlike_classes(train: Mapping[str, int], val: Mapping[str, int]) -> str | None:
    """Return which classes cannot be learned, though they are looked for; None if there are none.

    Args:
        train: objects of each class.
        val: the same of the other split.
    """
    missing = [name for name, count in val.items() if count and not train.get(name)]
    return f"in val but never in train: {', '.join(missing)}" if missing else None


def spelt_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the names that differ from others by blanks or capitals only, those together."""
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(" ".join(name.split()).casefold(), set()).add(name)
    return [sorted(alike) for alike in spellings.values() if len(alike) > 1]


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Return the number of objects of each class."""
    return dict(zip(dataset.names, dataset.objects_per_class().tolist(), strict=True))


def _with_faults(text: str, dataset: Dataset) -> str:
    faults = describe_faults(dataset)
    return f"{text} ({faults})" if faults else text
