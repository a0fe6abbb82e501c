"""Images of a data set that may be too large for memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from maskwright.channels import MOST_CHANNELS, AllChannels
from maskwright.data.records import Dataset

from .images import image_header
from .lazy import LazyPixels
from .limits import WINDOWED
from .picture import open_picture

BAND = 512  # rows that are read at once


def large_image(dataset: Dataset, index: int) -> Any:
    """Return the pixels of an image as `Dataset.image` does: an array, or `LazyPixels`.

    Raises:
        ValueError: as `Dataset.image` does.
    """
    if dataset.stored or dataset[index].path.suffix.lower() not in WINDOWED:
        return dataset.image(index)
    record = dataset[index]
    known = record.size if min(record.size) else None
    try:
        picture = open_picture(record.path, dataset.page, dataset.channels, size=known)
    except ValueError as error:
        raise ValueError(f"{error} (image id {record.image_id})") from None
    usual = dataset.channels is not None or picture.channels in (1, 3)
    if usual and picture.by_window and picture.size == (known or picture.size):
        return LazyPixels(picture, dataset.window, one=dataset.num_channels == 1)
    picture.close()
    return dataset.image(index)  # which says what is wrong, if anything is


def read_through(dataset: Dataset, index: int) -> None:
    """Decode an image, a large one part by part, to find out whether all of it can be read.

    Raises:
        ValueError: as `Dataset.image` does.
    """
    image = large_image(dataset, index)
    if isinstance(image, LazyPixels):
        for top in range(0, image.shape[0], BAND):
            _ = image[top : top + BAND, :]


def choose(
    datasets: Collection[Dataset], page: int | None, channels: tuple[int, ...] | None
) -> None:
    """Let the splits of a data set read one page, and the same channels.

    Args:
        datasets: the splits; the first decides where no channels are chosen, as of a training.
        page: number of the image in files of several; None: the first.
        channels: numbers of those that are taken; None: see `all_channels`.
    """
    for dataset in datasets:
        usual = next(iter(datasets)).channels
        dataset.page, dataset.channels = page, usual if channels is None else channels


def all_channels(dataset: Dataset) -> AllChannels | None:
    """Return all channels of the first image; None where it is grey, colours, or cannot be read.

    Nor is there a usual choice among more channels than a model takes.
    """
    if not len(dataset) or dataset.stored:
        return None
    try:
        count = image_header(dataset[0].path).channels
    except ValueError:  # whoever reads it tells
        return None
    return None if count in (1, 3) or count > MOST_CHANNELS else AllChannels(range(count))
