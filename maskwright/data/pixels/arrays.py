"""Images that are in memory already: arrays, tensors, open files; and turning samples upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.channels import MOST_CHANNELS

from .selection import chosen_channels


def read_stream(stream: Any) -> bytes:
    """Return all bytes of an open file or another stream, from its beginning."""
    name = getattr(stream, "name", None)
    called = name if isinstance(name, str) else f"the {type(stream).__name__}"
    try:
        if getattr(stream, "seekable", lambda: False)():
            stream.seek(0)
        data = stream.read()
    except (OSError, ValueError) as error:  # closed, or not open for reading
        raise ValueError(f"{called} cannot be read: {error}") from None
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"{called} gives {type(data).__name__}, not bytes: open it in mode 'rb'")
    if not data:
        raise ValueError(f"{called} is empty (0 bytes), or was read to its end before")
    return bytes(data)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array with its channels last; (3, H, W) is what torch calls an image.

    Raises:
        ValueError: if it is a batch.
    """
    tensor = tensor.detach().cpu()
    if tensor.ndim == 4:
        raise ValueError(
            f"an image tensor has two or three dimensions, got {tuple(tensor.shape)}: give a "
            "batch as a list of its images"
        )
    first, *_, last = tensor.shape or (0, 0)
    if tensor.ndim == 3 and (first in (1, 3, 4) or first <= MOST_CHANNELS < last):
        tensor = tensor.permute(1, 2, 0)
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def check_array(array: np.ndarray, channels: Sequence[int] | None = None) -> np.ndarray:
    """Return the samples of an array as `picture.open_picture` does.

    Raises:
        ValueError: if it is no image, or lacks a channel that is asked for.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"an image array holds real numbers, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] > MOST_CHANNELS or 0 in array.shape:
        raise ValueError(
            "an image array has the shape (H, W), (H, W, 1), (H, W, 3) RGB, (H, W, 4) RGBA or "
            f"(H, W, C) of at most {MOST_CHANNELS} other channels; got {array.shape}"
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return picked(array, channels, "the given array")


def picked(samples: np.ndarray, channels: Sequence[int] | None, name: str) -> np.ndarray:
    """Return the channels that are asked for of samples (H, W, C), or all but alpha.

    Returns:
        (H, W) of one channel, otherwise (H, W, C).

    Raises:
        ValueError: if there are fewer.
    """
    count = samples.shape[2]
    usual = {2: (0, 1), 4: (0, 1, 2)}.get(count, tuple(range(count)))
    taken = chosen_channels(channels, count, usual, name)
    if len(taken) == 1:
        return np.ascontiguousarray(samples[..., taken[0]])
    if taken == tuple(range(len(taken))):
        return np.ascontiguousarray(samples[..., : len(taken)])
    return np.ascontiguousarray(samples[..., list(taken)])


def upright(samples: np.ndarray, orientation: int, size: tuple[int, int] | None) -> np.ndarray:
    """Return samples (H, W) or (H, W, 3) turned upright; see `images.load_samples`."""
    height, width = samples.shape[:2]
    if size is not None and tuple(size) == (height, width) != (width, height) and orientation > 4:
        return samples
    if orientation > 4:  # 5 to 8 are 1, 6, 3, 8 of the transposed image
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return np.ascontiguousarray(samples)
