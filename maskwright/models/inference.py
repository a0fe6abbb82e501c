"""A model rearranged for inference: norms folded, own convolutions on a CPU (see `nn.inference`).

In bfloat16 or half precision all layers compute in that type, which has 8 or 11 significant bits;
boxes are decoded and scores normalised in float32, and pooling sums in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import OptionError
from ..nn.inference import prepare
from .base import Model

AnyModel = TypeVar("AnyModel", bound=Model)

SIDE = 64  # of the image on which the layers are seen at work


# The arithmetic of a network by the name that users know.
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that `precision` names.

    Raises:
        OptionError: if there is no such one, or not on this device.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise OptionError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise OptionError("precision=fp16 is for GPUs: few CPUs compute in it; use precision=bf16")
    return PRECISIONS[precision]


@contextmanager
def whole_products(device: torch.device) -> Iterator[None]:
    """Let a card compute float32 in float32 inside: by default its convolutions round to TF32."""
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends
    # Its parts must not differ: torch refuses to say what holds for all of them.
    kinds = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def fast_network(
    model: AnyModel, *, own: bool = True, dtype: torch.dtype = torch.float32
) -> AnyModel:
    """Return a model for inference that shares tensors with `model`, which stays as it is.

    In float32 boxes, scores and masks agree up to rounding: on trained weights within 0.02 pixels,
    5e-4 and an IoU of 0.999.

    Args:
        model: in evaluation mode.
        own: convolutions of our own where they pay, Winograd's filtering and packed ones; False in
            a graph for other programs, which have theirs.
        dtype: in which its layers compute.
    """

    def run(module: nn.Module) -> object:
        assert isinstance(module, Model)
        device = next(module.parameters()).device
        side = module.example_side(SIDE)
        size = 1, module.channels, side, side
        pixels = torch.linspace(0, 255, math.prod(size), device=device).view(size)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        # Rounded, no fold would look right.
        with torch.autocast(device.type, enabled=False), whole_products(device):
            return module.look(pixels)

    network = prepare(model, run, own=own, dtype=dtype)
    if network is not model:
        network.dtype = dtype
    return network
