"""Batches of images and targets, the same ones whatever the number of workers and processes.

Every random number is keyed by (seed, epoch, image), and the order of the images by (seed, epoch),
so a batch depends on nothing else. In training the processes share a block of images, padded alike:
together they see what one process sees. A worker makes whole batches; the data set that it holds is
shared memory (see `workers`). An unreadable image raises a ValueError with the name of the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from maskwright.errors import OptionError
from maskwright.proposals import ProposalStore
from maskwright.structures import Images, Instances, PackedMasks, Resize

from .pixels.images import collate_images
from .proposals import SLOT_STEP, pack_proposals
from .records import Dataset
from .transforms import Augment, Sample, draw_view, make_sample
from .workers import Failure, Piped, handed_over, iterate, make_data_loader


@dataclass(frozen=True)
class Batch:
    """Network input with its targets.

    Attributes:
        images: B images.
        targets: K slots an image; masks if the data set has them.
        indices: position of each image in the data set.
        keys: (B,) int64: where the random numbers of each image begin, for the samplers.
    """

    images: Images
    targets: Instances
    indices: list[int]
    keys: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            keys=self.keys.to(device, non_blocking=non_blocking),
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
    proposals: ProposalStore | None = None,
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
        shuffle: for training: a new order in every epoch, every process makes the same number of
            steps (where the last block has fewer images than there are processes, some get a batch
            without images) and pads to the size of the whole block. Without shuffling, a process
            may get fewer batches, and its padding is its own.
        divisor: padded sides are multiples of it.
        buckets: allowed padded (height, width), see `collate_images`.
        rank: number of this process.
        world: number of processes.
        drop_last: leave out the last block if it is not full.
        masks: make masks, if the data set has them; False for models of boxes.
        proposals: where regions come from, for models that take them with the images.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("world", world, 1)):
        if value < least:
            raise OptionError(f"{name} must be at least {least}, got {value}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie between 0 and world - 1 = {world - 1}, got {rank}")
    batches = _Batches(dataset, resize, augment, seed, divisor, buckets, masks, proposals)
    order = _Order(len(dataset), batch, shuffle, seed, rank, world, drop_last)
    return Loader(batches, order, workers)


class Loader:
    """Iterates over the batches of one epoch; made by `make_loader`.

    The epoch is 0 until `set_epoch` says otherwise. Workers live on between epochs.

    Attributes:
        dataset: the images.
        workers: processes that make batches.
    """

    def __init__(self, batches: _Batches, order: _Order, workers: int) -> None:
        self.dataset = batches.dataset
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

    def __iter__(self) -> Iterator[Batch]:
        yield from iterate(self._loader)


_Item = tuple[int, list[int], list[int]]


class _Order(Sampler[_Item]):
    """Yields epoch, images of this process and of the others, for each batch of one process."""

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

    def __iter__(self) -> Iterator[_Item]:
        if self.shuffle:
            order = random_source(self.seed, self.epoch, -1).permutation(self.images).tolist()
        else:
            order = list(range(self.images))
        for number, (share, others) in enumerate(self._shares(order)):
            if number >= self.start:
                yield self.epoch, share, others

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
        proposals: ProposalStore | None,
    ) -> None:
        self.dataset = dataset
        self.resize = resize
        self.augment = augment
        self.seed = seed
        self.divisor = divisor
        self.buckets = buckets
        self.masks = masks
        self.proposals = proposals

    def __getitem__(self, item: _Item) -> Batch | Failure | Piped:
        epoch, indices, others = item
        dataset, resize, augment = self.dataset, self.resize, self.augment
        masks = self.masks and dataset.has_masks
        try:
            samples = [
                make_sample(
                    dataset,
                    index,
                    resize,
                    augment,
                    self._random(epoch, index),
                    masks=masks,
                    proposals=self.proposals,
                )
                for index in indices
            ]
            sizes = [
                draw_view(dataset[index], resize, augment, self._random(epoch, index)).size
                for index in others
            ]
        except ValueError as error:
            return Failure(str(error))
        images = collate_images(
            [(sample.pixels, sample.original_size) for sample in samples],
            self.divisor,
            self.buckets,
            others=sizes,
        )
        if self.proposals is not None:
            images = replace(images, proposals=_regions(samples))
        joints = len(dataset.skeleton or ())
        keys = [image_key(self.seed, epoch, index) for index in indices]
        made: Batch | Piped = handed_over(
            Batch(
                images,
                pack_targets(samples, masks=masks, keypoints=joints),
                indices,
                torch.tensor(keys, dtype=torch.int64),
            )
        )
        return made

    def _random(self, epoch: int, index: int) -> np.random.Generator:
        return random_source(self.seed, epoch, index)


def random_source(seed: int, epoch: int, image: int) -> np.random.Generator:
    """Return the random numbers of one image in one epoch; image -1: those of the order."""
    # A counter-based generator: other keys give independent streams, without any state to keep.
    key = [seed % 2**64, epoch]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, image + 1, 0]))


def image_key(seed: int, epoch: int, image: int) -> int:
    """Return where the samplers' random numbers of one image in one epoch begin: an int64."""
    digest = hashlib.blake2b(repr((seed, epoch, image)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def pack_targets(samples: Sequence[Sample], *, masks: bool, keypoints: int = 0) -> Instances:
    """Put the objects of samples into slots; there is at least one, even without any object.

    Args:
        samples: B images, possibly none.
        masks: whether they have masks.
        keypoints: number of their keypoints, 0 if they have none.
    """
    most = max((len(sample.boxes) for sample in samples), default=0)
    B, K = len(samples), max(math.ceil(most / SLOT_STEP), 1) * SLOT_STEP
    boxes = torch.zeros(B, K, 4)
    labels = torch.zeros(B, K, dtype=torch.int64)
    valid = torch.zeros(B, K, dtype=torch.bool)
    crowd = torch.zeros(B, K, dtype=torch.bool)
    joints = torch.zeros(B, K, keypoints, 3) if keypoints else None
    for b, sample in enumerate(samples):
        n = len(sample.boxes)
        boxes[b, :n] = torch.from_numpy(sample.boxes)
        labels[b, :n] = torch.from_numpy(sample.labels)
        crowd[b, :n] = torch.from_numpy(sample.crowd)
        valid[b, :n] = True
        if joints is not None and sample.keypoints is not None:
            joints[b, :n] = torch.from_numpy(sample.keypoints)
    packed = _pack_masks(samples, K) if masks else None
    return Instances(boxes, labels, valid, crowd=crowd, masks=packed, keypoints=joints)


def _regions(samples: Sequence[Sample]) -> Instances:
    boxes = [sample.proposals for sample in samples if sample.proposals is not None]
    return pack_proposals(boxes, [s.ranks for s in samples if s.ranks is not None])


def _pack_masks(samples: Sequence[Sample], K: int) -> PackedMasks:
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
