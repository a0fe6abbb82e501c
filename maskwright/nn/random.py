"""Random numbers that hang on the image alone, for whatever is drawn inside a training step.

So samples, dropped units and skipped blocks are the same however the images are spread over batches
and processes, and a resumed run repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from .parallel import num_processes

_WORD = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Return a hash of 32-bit numbers (in int64): "lowbias32" of C. Wellons, a bijection."""
    # A product may overflow; its lower 32 bits are right all the same.
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & _WORD
    return x ^ (x >> 16)


@dataclass(frozen=True)
class ImageNoise:
    """Random numbers keyed by image, the same on all devices; wherever a generator is taken.

    The number of a box is a hash of the image's key and of what the box is called: it depends
    neither on other images nor on how many boxes there are or in which order. (The image must be
    padded to the same size, though, or its anchors are called differently.)

    Attributes:
        keys: (B,) int64, one for each image.
    """

    keys: Tensor

    def uniform(self, ids: Tensor) -> Tensor:
        """Return (B, N) float32 in [0, 1) for what the boxes are called: (N,) or (B, N) int64."""
        bits = _mix((ids & _WORD) ^ _mix(self.keys & _WORD)[:, None])
        bits = _mix(bits ^ ((self.keys >> 32) & _WORD)[:, None])
        return (bits >> 8).float() * 2.0**-24

    def stream(self, number: int) -> ImageNoise:
        """Return other random numbers of the same images."""
        high = _mix(((self.keys >> 32) & _WORD) ^ (number + 1))
        low = _mix((self.keys & _WORD) ^ high)
        return ImageNoise((high << 32) | low)


# What a sampler draws from; None: torch's global generator.
RandomSource = torch.Generator | ImageNoise | None


def streams(source: RandomSource, count: int) -> list[RandomSource]:
    """Return independent sources: a generator goes on by itself, `ImageNoise` must be split."""
    if isinstance(source, ImageNoise):
        return [source.stream(number) for number in range(count)]
    return [source] * count


def image_noise(source: RandomSource, images: int, count: int, device: torch.device) -> Tensor:
    """Return (images, count) float32 numbers in [0, 1): `count` for each image of a batch."""
    if isinstance(source, ImageNoise):
        return source.uniform(torch.arange(count, device=device))
    return _numbers(source, (images, count), device)


def batch_noise(source: RandomSource, count: int, device: torch.device) -> Tensor:
    """Return (count,) float32 numbers in [0, 1) for a batch as a whole.

    Those of `ImageNoise` hang on the keys of all its images, in whatever order, and in all
    processes: each of them must call it.
    """
    if isinstance(source, ImageNoise):
        low, high = _mix(source.keys & _WORD), _mix((source.keys >> 32) & _WORD)
        total = (_mix(low ^ high) << 32 | low).sum().view(1)  # may overflow, the same everywhere
        if num_processes() > 1:
            dist.all_reduce(total)
        return ImageNoise(total).uniform(torch.arange(count, device=device))[0]
    return _numbers(source, (count,), device)


def _numbers(
    source: torch.Generator | None, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return numbers of torch's own, in [0, 1)."""
    if source is None:
        return torch.rand(shape, device=device)
    return torch.rand(shape, generator=source, device=source.device).to(device)
