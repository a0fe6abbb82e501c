"""What `data check` says of images with more than 8 bits, and of the window that training takes."""

from __future__ import annotations

from collections.abc import Mapping

from maskwright.window import PERCENTILES, Window, describe_window

from ..pixels.depth import RULE, Depths, measure_depths
from ..records import Dataset

_APART = 4.0  # how much wider a window may be than another one before it is worth a word


def check_depths(datasets: Mapping[str, Dataset], window: Window | str | None) -> list[str]:
    """Give the data sets the window that training would take, and return what to know of it.

    Args:
        datasets: the splits by name.
        window: the option `window`, read by `maskwright.window.parse_window`.
    """
    rule = window if isinstance(window, str) else RULE
    found = {split: measure_depths(dataset, rule) for split, dataset in datasets.items()}
    train = found.get("train")
    taken = window if isinstance(window, tuple) else None if train is None else train.window
    for dataset in datasets.values():
        dataset.window = taken
    notes = []
    for split, depths in found.items():
        if depths.deep:
            notes.append(f"{split}: {depths.describe()}")
            if split != "train":
                notes += _beside(split, depths, taken)
    if train is not None and train.deep:
        notes.append(_of_training(train, taken, rule, declared=isinstance(window, tuple)))
    return notes


def _of_training(train: Depths, taken: Window | None, rule: str, *, declared: bool) -> str:
    assert taken is not None
    shown = f"window={describe_window(taken)}"
    beyond = [
        text
        for text, outside in (
            (f"values from {train.smallest:.6g} on become black", train.smallest < taken[0]),
            (f"values up to {train.largest:.6g} become white", train.largest > taken[1]),
        )
        if outside
    ]
    clipped = f"; beyond it {' and '.join(beyond)}" if beyond else ""
    if declared:
        return f"training would stretch {shown} to 8 bits, as declared{clipped}"
    how = {
        "minmax": "the smallest and the largest value of the images not held out",
        "percentile": f"the {PERCENTILES[0]} and {PERCENTILES[1]} percentiles, of the images not "
        "held out",
    }[rule]
    return (
        f"training would stretch about {shown} to 8 bits ({how}){clipped}; if the images have one "
        "scale that you know, declare it, as in window=0,4095"
    )


def _beside(split: str, depths: Depths, taken: Window | None) -> list[str]:
    """Return a note if the window of training does not suit another split."""
    if taken is None:
        return [
            f"{split}: the training images have 8 bits, so that each of these is stretched from "
            "its own percentiles; window=LOW,HIGH declares one scale"
        ]
    assert depths.window is not None
    own, width = depths.window[1] - depths.window[0], taken[1] - taken[0]
    if own > _APART * width or width > _APART * own:
        return [
            f"{split}: its values spread over {describe_window(depths.window)}, the window of "
            f"training is {describe_window(taken)}: were they recorded alike?"
        ]
    return []
