"""Batches of objects: what detectors train on. Records become samples, samples become slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maskwright.errors import OptionError
from maskwright.proposals import ProposalStore
from maskwright.structures import Images, Instances, PackedMasks, Resize

from .batches import Batch, Chance, Loader, load_batches
from .pixels.resizing import collate_images
from .proposals import SLOT_STEP, pack_proposals
from .records import Dataset
from .transforms import Augment, Sample, draw_view, make_sample

SAME_SIZE = 10  # batches one after the other, with `multiscale`

__all__ = ["Batch", "Loader", "ObjectBatches", "make_loader", "pack_targets"]


class ObjectBatches:
    """Makes batches of images with their objects; see `batches.Batches`.

    Args:
        dataset: the images.
        resize: resize rule of the model.
        augment: random changes, or None.
        divisor: padded sides are multiples of it.
        buckets: allowed padded (height, width), see `collate_images`.
        masks: make masks, if the data set has them; False for models of boxes.
        proposals: where regions come from, for models that take them with the images.
        multiscale: smallest and largest long side of which `SAME_SIZE` batches one after the other
            have one, drawn from the multiples of the divisor (Redmon & Farhadi 2017, section 2);
            None: that of the resize rule.
    """

    def __init__(
        self,
        dataset: Dataset,
        resize: Resize,
        augment: Augment | None,
        *,
        divisor: int = 32,
        buckets: Sequence[tuple[int, int]] | None = None,
        masks: bool = True,
        proposals: ProposalStore | None = None,
        multiscale: tuple[int, int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.resize = resize
        self.multiscale = multiscale
        self.augment = augment
        self.divisor = divisor
        self.buckets = buckets
        self.masks = masks
        self.proposals = proposals

    def make(
        self, indices: list[int], others: list[int], chance: Chance
    ) -> tuple[Images, Instances]:
        """Return the images, padded to the size of the whole block, and their objects."""
        dataset, resize, augment = self.dataset, self._rule(chance), self.augment
        masks = self.masks and dataset.has_masks
        samples = [
            make_sample(
                dataset,
                index,
                resize,
                augment,
                chance.of(index),
                masks=masks,
                proposals=self.proposals,
            )
            for index in indices
        ]
        images = collate_images(
            [(sample.pixels, sample.original_size) for sample in samples],
            self.divisor,
            self.buckets,
            channels=dataset.num_channels,
            others=[
                draw_view(dataset[index], resize, augment, chance.of(index)).size
                for index in others
            ],
        )
        if self.proposals is not None:
            images = replace(images, proposals=_regions(samples))
        joints = len(dataset.skeleton or ())
        return images, pack_targets(samples, masks=masks, keypoints=joints)

    def _rule(self, chance: Chance) -> Resize:
        """Return the resize rule of a batch."""
        if self.multiscale is None:
            return self.resize
        low, high = self.multiscale
        sides = range(low + -low % self.divisor, high + 1, self.divisor)
        together = replace(chance, block=chance.block - chance.block % SAME_SIZE)
        side = sides[int(together.of_block().integers(len(sides)))]
        return self.resize.scaled(side / long_side(self.resize))


def long_side(resize: Resize) -> int:
    """Return the longest side of network input by a rule.

    Raises:
        OptionError: if it has no limit.
    """
    limits: list[int] = [resize.long or 0, *(resize.stretch or ()), *(resize.within or ())]
    if not max(limits):
        raise OptionError("multiscale is for models whose input has a long side: choose imgsz")
    return max(limits)


def make_loader(
    dataset: Dataset,
    *,
    batch: int,
    resize: Resize,
    augment: Augment | None,
    seed: int,
    workers: int,
    shuffle: bool,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    **options: Any,
) -> Loader:
    """Return a loader of images and objects; `augment=None, shuffle=False` for evaluation.

    Args:
        dataset: the images.
        resize: see `ObjectBatches`, as for `augment` and `options`.
        augment: random changes, or None.
        batch: see `load_batches`, as for all others.
        seed: of order and augmentation.
        workers: processes that make batches.
        shuffle: for training.
        rank: number of this process.
        world: number of processes.
        drop_last: leave out the last block if it is not full.
        **options: `divisor`, `buckets`, `masks`, `proposals` and `multiscale`.

    Raises:
        ValueError: if a number is out of range.
    """
    return load_batches(
        ObjectBatches(dataset, resize, augment, **options),
        batch=batch,
        seed=seed,
        workers=workers,
        shuffle=shuffle,
        rank=rank,
        world=world,
        drop_last=drop_last,
    )


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
