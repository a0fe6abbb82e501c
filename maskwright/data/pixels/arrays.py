"""Images that are in memory already: arrays, tensors, open files; and turning samples upright."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


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
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def check_array(array: np.ndarray) -> np.ndarray:
    """Return the samples of an array as `images.load_samples` does.

    Raises:
        ValueError: if it is no image.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"an image array holds real numbers, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "an image array has the shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; "
            f"got {array.shape}"
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.shape[2] == 1:
        grey = np.ascontiguousarray(array[..., 0])
        return np.repeat(array, 3, axis=2) if grey.dtype == np.uint8 else grey
    return np.ascontiguousarray(array[..., :3])


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
