"""Which window of sample values is stretched to 8 bits: of the model, the user or each image.

A training whose images have more than 8 bits measures one window over its training split, or takes
the one that is declared; it stays in the checkpoint and in exported files, and is used wherever the
model is. A model without one has seen 8-bit images alone: of a deeper image it gets what lies
between the image's own percentiles.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..channels import AllChannels, parse_channels, parse_one_page
from ..data.checking.depth import measure_depths
from ..data.pixels.depth import RULE
from ..data.pixels.images import has_deep_samples
from ..data.records import Dataset
from ..models.meta import Meta
from ..storage.checkpoint import Checkpoint
from ..terminal import console
from ..window import PERCENTILES, Window, describe_window, parse_window

LOOKED_AT = 1000  # headers of a data set that tell whether a warning is due


def chosen_window(meta: Meta, asked: Any, *, stacklevel: int = 3) -> Window | str | None:
    """Return the window for images that a model looks at.

    Args:
        meta: of the model.
        asked: the option `window`; it goes before the model's own.
        stacklevel: of the warning that the model's own window is not used.

    Raises:
        OptionError: if the option is no window.
    """
    window = parse_window(asked)
    if window is None:
        return meta.window
    if meta.window is not None and window != meta.window:
        warnings.warn(
            f"window={describe_window(window)} stands in place of the one that {meta.model} was "
            f"trained with, window={describe_window(meta.window)}",
            stacklevel=stacklevel,
        )
    return window


def own_window_warning(model: str) -> str:
    """Return what to say once where a model that has no window looks at deeper images."""
    low, high = PERCENTILES
    return (
        f"{model} was trained on 8-bit images, and these have more bits: each is stretched "
        f"from its own {low} to {high} percentile, so that its brightness says nothing; if all "
        "have one scale, name it, as in window=0,4095"
    )


def idle_window_warning(asked: Any, idle: int, images: int) -> str | None:
    """Return what to say where the option `window` meets images of 8 bits, which have none.

    Args:
        asked: the option.
        idle: how many have 8 bits.
        images: how many there are.
    """
    window = parse_window(asked)
    if window is None or not idle:
        return None
    which = (
        f"{idle} of {images} images have"
        if idle < images
        else "the image has"
        if idle == 1
        else "all images have"
    )
    return (
        f"window={describe_window(window)} is for samples of more than 8 bits: {which} 8, which "
        "stay as they are"
    )


def warn_of_own_windows(meta: Meta, dataset: Dataset, asked: Any = None) -> None:
    """Warn if a model without a window gets a data set with images of more than 8 bits.

    And where a window is asked for and no image has more.
    """
    if dataset.window is None and _has_deep_images(dataset):
        console.warn(own_window_warning(meta.model))
    elif parse_window(asked) is not None and not dataset.stored and not _has_deep_images(dataset):
        text = idle_window_warning(asked, len(dataset), len(dataset))
        if text is not None:
            console.warn(text)


def _warn_of_deeper_validation(val: Dataset) -> None:
    if _has_deep_images(val):
        console.warn(
            "validation images have more than 8 bits, and this training has no window for them: "
            "each is stretched from its own percentiles; name one scale, as in window=0,4095"
        )


def _has_deep_images(dataset: Dataset) -> bool:
    """Look at headers, spread evenly over a data set."""
    for index in range(0, len(dataset), max(-(-len(dataset) // LOOKED_AT), 1)):
        try:
            if has_deep_samples(dataset[index].path):
                return True
        except ValueError:  # whoever reads it tells
            continue
    return False


def training_window(
    asked: Any, data: Dataset, *, enabled: bool = True
) -> tuple[Window | None, str | None]:
    """Return the window of a training and how it came about, in words; None for 8-bit images.

    Args:
        asked: the option `window`.
        data: the training images.
        enabled: show the progress.
    """
    wanted = parse_window(asked)
    rule = wanted if isinstance(wanted, str) else RULE
    with ExitStack() as stack:
        bars: list[console.Progress] = []

        def show(done: int, total: int) -> None:
            if not bars:  # not before there is something to read
                bar = console.progress("sample values", total=total, unit="img", enabled=enabled)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].done)

        found = measure_depths(data, rule, progress=show)
    if not found.deep:
        if isinstance(wanted, tuple):
            return wanted, f"{describe_window(wanted)}, as declared; all images have 8 bits"
        return None, None
    window = wanted if isinstance(wanted, tuple) else found.window
    how = {
        "minmax": "the smallest and the largest value",
        "percentile": f"the {PERCENTILES[0]} and {PERCENTILES[1]} percentiles",
    }[rule]
    source = "as declared" if isinstance(wanted, tuple) else f"{how} of {found.sampled} of them"
    return window, f"{describe_window(window)}, {source}; {found.describe()}"


def share_channels(
    page: Any, channels: Any, train: Dataset, val: Dataset | None, checkpoint: Checkpoint | None
) -> None:
    """Let the data sets of a training read the pages and channels of its options.

    Without an option the first image decides, see `data.pixels.large.all_channels`.

    Raises:
        OptionError: if the option is wrong.
    """
    chosen = parse_channels(channels)
    if checkpoint is not None:
        chosen = checkpoint.meta.taken
    elif chosen is None:
        chosen = train.channels
    for dataset in (train, val):
        if dataset is not None:
            dataset.page, dataset.channels = parse_one_page(page), chosen


def share_window(
    asked: Any, train: Dataset, val: Dataset | None, checkpoint: Checkpoint | None, fabric: Any
) -> str | None:
    """Give the images of a training their window, the same one in all processes.

    Args:
        asked: the option `window`.
        train: the training images.
        val: the validation images.
        checkpoint: of the run that goes on, with the window that it began with.
        fabric: connects the processes.

    Returns:
        How the window came about, in words; None for 8-bit images and for a run that goes on.
    """
    first, words = fabric.is_global_zero, None
    if checkpoint is None:
        train.window, words = fabric.broadcast(training_window(asked, train, enabled=first))
    else:
        train.window = checkpoint.meta.window
    if val is not None:
        val.window = train.window
        if first and train.window is None:
            _warn_of_deeper_validation(val)
    return words


def with_window(meta: Meta, data: Dataset, words: str | None) -> Meta:
    """Return the description of a model trained on data: its channels; with words, its window."""
    window, channels = data.window, data.channels
    every = isinstance(channels, AllChannels)
    meta = replace(meta, channels=None if channels is None else list(channels), all_channels=every)
    if words is None or not isinstance(window, tuple):
        return meta
    return replace(meta, window=window, extra={**meta.extra, "window": words})
