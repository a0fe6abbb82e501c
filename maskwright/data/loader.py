"""Batches of images and targets, the same ones whatever the number of workers and processes.

Every random number is keyed by (seed, epoch, image), and the order of the images by (seed, epoch),
so a batch depends on nothing else. A worker makes whole batches; the data set that it holds is
shared memory. An unreadable image raises a ValueError with the name of the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from maskwright.errors import OptionError
from maskwright.structures import Images, Instances, PackedMasks, Resize

from .images import collate_images
from .records import Dataset
from .transforms import Augment, Sample, make_sample

SLOT_STEP = 8  # slots come in multiples of it: few different shapes


@dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: B images.
        targets: K slots an image; masks if the data set has them.
        indices: position of each image in the data set.
    """

    images: Images
    targets: Instances
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
        )


def make_loader(
    dataset: Dataset,
    *,
    batch: int,
    resize: Resize,
    augment: Augment | None,
    seed: int,
    workers: int,
    shuffle: bool,
    divisor: int = 32,
    buckets: Sequence[tuple[int, int]] | None = None,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    masks: bool = True,
) -> Loader:
    """Return a loader of a data set; `augment=None, shuffle=False` for evaluation.

    Args:
        dataset: the images.
        batch: images in a batch of one process. The processes together step through the data in
            blocks of `batch * world` images, of which each takes its part: two processes with a
            batch of 2 see the images of one process with a batch of 4.
        resize: resize rule of the model.
        augment: random changes, or None.
        seed: of order and augmentation.
        workers: processes that make batches; 0: the calling process does.
        shuffle: a new order in every epoch. If the images do not fill the last block evenly, the
            first ones are taken again, so that every process makes the same number of steps.
            Without shuffling, every image comes exactly once, and a process may get fewer batches.
        divisor: padded sides are multiples of it.
        buckets: allowed padded (height, width), see `collate_images`.
        rank: number of this process.
        world: number of processes.
        drop_last: leave out the last block if it is not full.
        masks: make masks, if the data set has them; False for models of boxes.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("world", world, 1)):
        if value < least:
            raise OptionError(f"{name} must be at least {least}, got {value}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie between 0 and world - 1 = {world - 1}, got {rank}")
    batches = _Batches(dataset, resize, augment, seed, divisor, buckets, masks)
    order = _Order(len(dataset), batch, shuffle, seed, rank, world, drop_last)
    return Loader(batches, order, workers)


class Loader:
    """Iterates over the batches of one epoch; made by `make_loader`.

    The epoch is 0 until `set_epoch` says otherwise. Workers live on between epochs.
    """

    def __init__(self, batches: _Batches, order: _Order, workers: int) -> None:
        self.dataset = batches.dataset
        self._order = order
        self._loader: DataLoader[Any] = DataLoader(
            batches,
            batch_size=None,  # an item is a batch already
            sampler=order,
            num_workers=workers,
            collate_fn=_unchanged,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Return the number of batches of this process in an epoch."""
        return len(self._order)

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Choose the epoch of the next iteration.

        Args:
            epoch: number of the epoch.
            start: batches to leave out at its beginning, done before an interruption.
        """
        self._order.epoch = epoch
        self._order.start = start

    def __iter__(self) -> Iterator[Batch]:
        for item in self._loader:
            if isinstance(item, _Failure):
                raise ValueError(item.message)
            yield item


@dataclass(frozen=True)
class _Failure:
    """A ValueError on its way out of a worker; the exception itself would bring a traceback."""

    message: str


class _Order(Sampler[tuple[int, list[int]]]):
    """Yields (epoch, positions of the images) of each batch of one process."""

    def __init__(
        self,
        images: int,
        batch: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world: int,
        drop_last: bool,
    ) -> None:
        self.images = images
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.drop_last = drop_last
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return sum(1 for _ in self._shares(list(range(self.images))))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        if self.shuffle:
            order = random_source(self.seed, self.epoch, -1).permutation(self.images).tolist()
        else:
            order = list(range(self.images))
        for number, share in enumerate(self._shares(order)):
            if number >= self.start:
                yield self.epoch, share

    def _shares(self, order: list[int]) -> Iterator[list[int]]:
        block_size = self.batch * self.world
        for first in range(0, len(order), block_size):
            block = order[first : first + block_size]
            if self.drop_last and len(block) < block_size:
                return
            if self.shuffle:
                missing = -len(block) % self.world
                block += (order * missing)[:missing]
            size = math.ceil(len(block) / self.world)
            share = block[self.rank * size : (self.rank + 1) * size]
            if share:
                yield share


class _Batches(TorchDataset[Any]):
    """Makes the batch of given images; runs in the workers."""

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        augment: Augment | None,
        seed: int,
        divisor: int,
        buckets: Sequence[tuple[int, int]] | None,
        masks: bool,
    ) -> None:
        self.dataset = dataset
        self.resize = resize
        self.augment = augment
        self.seed = seed
        self.divisor = divisor
        self.buckets = buckets
        self.masks = masks

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch | _Failure:
        epoch, indices = item
        try:
            samples = [
                make_sample(
                    self.dataset,
                    index,
                    self.resize,
                    self.augment,
                    random_source(self.seed, epoch, index),
                    masks=self.masks,
                )
                for index in indices
            ]
            return collate(samples, self.divisor, self.buckets)
        except ValueError as error:
            return _Failure(str(error))


def random_source(seed: int, epoch: int, image: int) -> np.random.Generator:
    """Return the random numbers of one image in one epoch; image -1: those of the order."""
    # A counter-based generator: other keys give independent streams, without any state to keep.
    key = [seed % 2**64, epoch]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, image + 1, 0]))


def collate(
    samples: Sequence[Sample], divisor: int = 32, buckets: Sequence[tuple[int, int]] | None = None
) -> Batch:
    """Put samples into one batch; there is at least one slot, even if no image has an object."""
    images = collate_images([(s.pixels, s.original_size) for s in samples], divisor, buckets)
    most = max(len(sample.boxes) for sample in samples)
    B, K = len(samples), max(math.ceil(most / SLOT_STEP), 1) * SLOT_STEP
    boxes = torch.zeros(B, K, 4)
    labels = torch.zeros(B, K, dtype=torch.int64)
    valid = torch.zeros(B, K, dtype=torch.bool)
    crowd = torch.zeros(B, K, dtype=torch.bool)
    keypoints = None
    if samples[0].keypoints is not None:
        keypoints = torch.zeros(B, K, *samples[0].keypoints.shape[1:])
    for b, sample in enumerate(samples):
        n = len(sample.boxes)
        boxes[b, :n] = torch.from_numpy(sample.boxes)
        labels[b, :n] = torch.from_numpy(sample.labels)
        crowd[b, :n] = torch.from_numpy(sample.crowd)
        valid[b, :n] = True
        if keypoints is not None and sample.keypoints is not None:
            keypoints[b, :n] = torch.from_numpy(sample.keypoints)
    targets = Instances(
        boxes, labels, valid, crowd=crowd, masks=_pack_masks(samples, K), keypoints=keypoints
    )
    return Batch(images, targets, [sample.index for sample in samples])


def _pack_masks(samples: Sequence[Sample], K: int) -> PackedMasks | None:
    if any(sample.masks is None for sample in samples):
        return None
    offsets = np.zeros((len(samples), K), np.int64)
    frames = np.zeros((len(samples), K, 4), np.int64)
    pieces: list[np.ndarray] = []
    used = 0
    for b, sample in enumerate(samples):
        for k, (crop, frame) in enumerate(sample.masks or ()):
            offsets[b, k] = used
            frames[b, k] = frame
            pieces.append(crop.ravel().view(np.uint8))
            used += crop.size
    data = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
    return PackedMasks(torch.from_numpy(data), torch.from_numpy(offsets), torch.from_numpy(frames))


def _unchanged(item: Any) -> Any:
    return item
