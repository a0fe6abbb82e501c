"""Region proposals of a data set and of batches: computed ahead, and packed into slots."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from maskwright.errors import OptionError
from maskwright.proposals import Proposals, ProposalStore
from maskwright.proposals.sources import Source
from maskwright.structures import Images, Instances

from .records import Dataset
from .workers import iterate, make_data_loader

SLOT_STEP = 8  # slots come in multiples of it: few different shapes


def dataset_proposals(store: ProposalStore, dataset: Dataset, index: int, image: Any) -> Proposals:
    """Return the proposals of an image of a data set, in original pixels.

    Args:
        store: where they come from.
        dataset: the data set.
        index: position of the image.
        image: its pixels (H, W, 3) uint8.
    """
    record = dataset[index]
    return store(image, image_file=record.path, image_id=record.image_id)


def pack_proposals(boxes: Sequence[np.ndarray], ids: Sequence[np.ndarray]) -> Instances:
    """Put proposals into slots; there is at least one, even without any proposal.

    Args:
        boxes: (n, 4) float32 xyxy in network-input pixels of each image.
        ids: (n,) what each is called: its place among all proposals of the image.

    Returns:
        `Instances` of B images without labels and scores, by falling merit.
    """
    most = max((len(part) for part in boxes), default=0)
    B, K = len(boxes), max(math.ceil(most / SLOT_STEP), 1) * SLOT_STEP
    packed = Instances(
        torch.zeros(B, K, 4),
        torch.zeros(B, K, dtype=torch.int64),
        torch.zeros(B, K, dtype=torch.bool),
        ids=torch.zeros(B, K, dtype=torch.int64),
    )
    assert packed.ids is not None
    for b, (part, names) in enumerate(zip(boxes, ids, strict=True)):
        packed.boxes[b, : len(part)] = torch.from_numpy(np.ascontiguousarray(part))
        packed.ids[b, : len(part)] = torch.from_numpy(np.ascontiguousarray(names))
        packed.valid[b, : len(part)] = True
    return packed


def with_regions(images: Images, regions: Sequence[np.ndarray]) -> Images:
    """Return images with regions, packed into slots.

    Args:
        images: B images.
        regions: (n, 4) xyxy in original pixels of each image.
    """
    ratio = (images.sizes / images.original_sizes).flip(1).repeat(1, 2).numpy()
    boxes = [part * scale for part, scale in zip(regions, ratio, strict=True)]
    packed = pack_proposals(boxes, [np.arange(len(part)) for part in boxes])
    return replace(images, proposals=packed)


@dataclass(frozen=True)
class Found:
    """What computing the proposals of a data set came to.

    Attributes:
        counts: proposals of each image.
        dropped: proposals outside their image or without area, of all images.
        without: names of the images in which nothing was found.
        messages: warnings, damaged cache files among them.
    """

    counts: list[int]
    dropped: int
    without: list[str]
    messages: list[str]


def find_proposals(
    dataset: Dataset,
    store: ProposalStore,
    *,
    workers: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    keep: Callable[[int, Proposals], None] | None = None,
) -> Found:
    """Compute the proposals of all images of a data set, as far as the cache lacks them.

    Args:
        dataset: the images.
        store: where the proposals come from and are kept.
        workers: processes that compute; 0: the calling one does.
        progress: is told how many images are done.
        keep: is given the position and the proposals of each image.

    Raises:
        ValueError: if an image cannot be read, or the source has nothing to say of it.
    """
    if workers < 0:
        raise OptionError(f"workers must be at least 0, got {workers}")
    _check_ids(dataset, store.source)
    if not store.source.computes:
        workers = 0  # looking up is quick, and one process notices images of the same name
    loader = make_data_loader(_Finder(dataset, store), None, workers, keep=False)
    counts: list[int] = []
    without: list[str] = []
    messages: list[str] = []
    dropped = 0
    for index, (found, said) in enumerate(iterate(loader)):
        if isinstance(found, str):
            raise ValueError(found)
        counts.append(len(found))
        dropped += found.dropped
        messages += said
        if not len(found):
            without.append(dataset[index].path.name)
        if keep is not None:
            keep(index, found)
        progress(index + 1)
    return Found(counts, dropped, without, messages)


def _check_ids(dataset: Dataset, source: Source) -> None:
    """Make sure that the images have ids, if the source is a file that goes by them.

    Raises:
        ValueError: if they have none.
    """
    if dataset.format == "voc" and source.name.endswith(".json"):
        raise ValueError(
            f"{source.name} tells images by their id, which Pascal VOC has not: use a file of "
            "arrays (.npz), which has file names"
        )


class _Finder(TorchDataset[Any]):
    """Finds the proposals of one image; runs in the workers."""

    def __init__(self, dataset: Dataset, store: ProposalStore) -> None:
        self.dataset = dataset
        self.store = store

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Proposals | str, list[str]]:
        if index >= len(self):
            raise IndexError(index)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                image = self.dataset.photo(index)
                found = dataset_proposals(self.store, self.dataset, index, image)
            except (ValueError, ImportError) as error:
                return str(error), []
        return found, [str(entry.message) for entry in caught]
