"""Batches of images and targets, the same ones whatever the number of workers and processes.

Every random number is keyed by (seed, epoch, image), and the order of the images by (seed, epoch),
so a batch depends on nothing else. In training the processes share a block of images, padded alike:
together they see what one process sees. A worker makes whole batches; the data set that it holds is
shared memory (see `workers`). An unreadable image raises a ValueError with the name of the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from maskwright.errors import OptionError
from maskwright.structures import Images

from .records import Dataset
from .workers import Failure, Piped, handed_over, iterate, make_data_loader


@dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: B images.
        targets: what the task makes of the annotations: `Instances`, `Labels`.
        indices: position of each image in the data set.
        keys: (B,) int64: where the random numbers of each image begin, for the samplers.
    """

    images: Images
    targets: Any
    indices: list[int]
    keys: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Return a copy from which a card copies while the host goes on; torch's loader asks."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            keys=self.keys.pin_memory(),
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            keys=self.keys.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True)
class Chance:
    """Random numbers of one batch, keyed by what is drawn, not by who draws it.

    Attributes:
        seed: of the training.
        epoch: number of the epoch.
        block: number of the batch of all processes together in the epoch.
    """

    seed: int
    epoch: int
    block: int

    def of(self, draw: int) -> np.random.Generator:
        """Return the random numbers of an image that was drawn; each call begins anew."""
        return random_source(self.seed, self.epoch, draw)

    def of_block(self) -> np.random.Generator:
        """Return those of the batch as a whole, the same in all processes."""
        return random_source(self.seed, self.epoch, -1, block=self.block + 1)


class Batches(Protocol):
    """What a task makes of records: the part of a loader that knows what is in the images."""

    @property
    def dataset(self) -> Dataset:
        """The images."""

    def make(self, indices: list[int], others: list[int], chance: Chance) -> tuple[Images, Any]:
        """Return images and targets.

        Args:
            indices: draws of this process, possibly none: a draw is the position of an image, plus
                the number of images for each time that it was drawn before in the epoch, so that
                it is changed in another way.
            others: draws that other processes make of the same block.
            chance: all randomness, keyed by draws.

        Raises:
            ValueError: if an image cannot be read.
        """


def load_batches(
    batches: Batches,
    *,
    batch: int,
    seed: int,
    workers: int,
    shuffle: bool,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    draws: Draws | None = None,
) -> Loader:
    """Return a loader; `shuffle=False` for evaluation.

    Args:
        batches: makes a batch of given images: `ObjectBatches`, `LabelBatches`.
        batch: images in a batch of one process. The processes together step through the data in
            blocks of `batch * world` images, of which each takes its part: two processes with a
            batch of 2 see the images of one process with a batch of 4.
        seed: of order and augmentation.
        workers: processes that make batches; 0: the calling process does.
        shuffle: for training: a new order in every epoch, every process makes the same number of
            steps (where the last block has fewer images than there are processes, some get a batch
            without images) and pads to the size of the whole block. Without shuffling, a process
            may get fewer batches, and its padding is its own.
        rank: number of this process.
        world: number of processes.
        drop_last: leave out the last block if it is not full.
        draws: draws as many images for an epoch as there are, in place of a permutation; only with
            `shuffle`.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("world", world, 1)):
        if value < least:
            raise OptionError(f"{name} must be at least {least}, got {value}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie between 0 and world - 1 = {world - 1}, got {rank}")
    if draws is not None and not shuffle:
        raise ValueError("draws make the order of a training: shuffle must be True")
    order = _Order(len(batches.dataset), batch, shuffle, seed, rank, world, drop_last, draws)
    return Loader(_Batches(batches, seed), order, workers)


class Loader:
    """Iterates over the batches of one epoch; made by `load_batches`.

    The epoch is 0 until `set_epoch` says otherwise. Workers live on between epochs.

    Attributes:
        dataset: the images.
        workers: processes that make batches.
    """

    def __init__(self, batches: _Batches, order: _Order, workers: int) -> None:
        self.dataset = batches.makes.dataset
        self._order = order
        self.workers = workers
        self._loader = make_data_loader(batches, order, workers, keep=True)

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

    def pin(self) -> Loader:
        """Let batches lie where a card copies from; before the first iteration. Returns itself."""
        self._loader.pin_memory = True
        return self

    def __iter__(self) -> Iterator[Batch]:
        yield from iterate(self._loader)


Draws = Callable[[np.random.Generator], np.ndarray]
_Item = tuple[int, list[int], list[int], int]


class _Order(Sampler[_Item]):
    """Yields epoch, images of this process and of the others, and number of each block."""

    def __init__(
        self,
        images: int,
        batch: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world: int,
        drop_last: bool,
        draws: Draws | None,
    ) -> None:
        self.images = images
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.drop_last = drop_last
        self.draws = draws
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return sum(1 for _ in self._shares(list(range(self.images))))

    def __iter__(self) -> Iterator[_Item]:
        rng = random_source(self.seed, self.epoch, -1)
        if self.draws is not None:
            order = _numbered(self.draws(rng), self.images)
        elif self.shuffle:
            order = rng.permutation(self.images).tolist()
        else:
            order = list(range(self.images))
        for number, (share, others) in enumerate(self._shares(order)):
            if number >= self.start:
                yield self.epoch, share, others, number

    def _shares(self, order: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        block_size = self.batch * self.world
        for first in range(0, len(order), block_size):
            block = order[first : first + block_size]
            if self.drop_last and len(block) < block_size:
                return
            # Shares differ by one image at most; the first process has one whenever there is any.
            begin, end = (
                math.ceil(len(block) * rank / self.world) for rank in (self.rank, self.rank + 1)
            )
            if self.shuffle:
                yield block[begin:end], block[:begin] + block[end:]
            elif begin < end:
                yield block[begin:end], []


def _numbered(images: np.ndarray, count: int) -> list[int]:
    """Return draws: positions of images, plus `count` for each time that one came before."""
    seen: dict[int, int] = {}
    order = []
    for image in images.tolist():
        order.append(image + count * seen.setdefault(image, 0))
        seen[image] += 1
    return order


class _Batches(TorchDataset[Any]):
    """Makes the batch of given images; runs in the workers."""

    def __init__(self, makes: Batches, seed: int) -> None:
        self.makes = makes
        self.seed = seed

    def __getitem__(self, item: _Item) -> Batch | Failure | Piped:
        epoch, indices, others, block = item
        try:
            images, targets = self.makes.make(indices, others, Chance(self.seed, epoch, block))
        except ValueError as error:
            return Failure(str(error))
        keys = [image_key(self.seed, epoch, index) for index in indices]
        places = [draw % len(self.makes.dataset) for draw in indices]
        batch = Batch(images, targets, places, torch.tensor(keys, dtype=torch.int64))
        made: Batch | Piped = handed_over(batch)
        return made


def random_source(seed: int, epoch: int, image: int, *, block: int = 0) -> np.random.Generator:
    """Return the random numbers of one image in one epoch.

    With image -1 they are those of the order, or, with a `block` from 1 on, of a whole block.
    """
    # A counter-based generator: other keys give independent streams, without any state to keep.
    key = [seed % 2**64, epoch]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, image + 1, block]))


def image_key(seed: int, epoch: int, image: int) -> int:
    """Return where the samplers' random numbers of one image in one epoch begin: an int64."""
    digest = hashlib.blake2b(repr((seed, epoch, image)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
