"""The training step as a module: what DDP and `torch.compile` wrap."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..models.base import Model
from ..nn.random import ImageNoise
from ..structures import Images
from ..tasks.evaluation import to_device

SAFE_BATCH = 2
MAX_BATCH = 64
MEMORY_SHARE = 0.7  # the rest is for larger images than those of the probe, and for validation


class TrainStep(nn.Module):
    """Calls `model.losses` as a forward, with random numbers keyed by image.

    Args:
        model: the model.
        autocast: type in which convolutions and products are computed; None: float32.
        before: what is done with the images first, see `Task.before_step`.
    """

    def __init__(
        self,
        model: Model,
        *,
        autocast: torch.dtype | None = None,
        before: Callable[[Images], Images] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.before = before

    def forward(self, images: Images, targets: Any, keys: Tensor) -> dict[str, Tensor]:
        """Return the loss terms, and under `total` their sum.

        Args:
            images: B images on the device of the model.
            targets: their ground truth.
            keys: (B,) int64, the random numbers of each image; see `ImageNoise`.
        """
        # Fabric's own mixed precision rebuilds every dataclass it is given, which frozen ones
        # forbid: the autocast region stands here instead.
        kind = images.pixels.device.type
        with torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None):
            if self.before is not None:
                images = self.before(images)
            losses = self.model.losses(images, targets, generator=ImageNoise(keys))
        losses = {name: value.float() for name, value in losses.items()}
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses


def seed_dropout(model: nn.Module, keys: Tensor) -> None:
    """Let the dropout of a step hang on its images alone, so that a resumed run repeats it.

    torch's layers take no generator: it is the common one that begins anew. Models without such
    layers leave it as it is.

    Args:
        model: the model.
        keys: (B,) int64 on the CPU, of the images of the step.
    """
    # timm's networks drop by a function, at the rate `drop_rate`.
    if any(
        (isinstance(layer, _DropoutNd) and layer.p) or getattr(layer, "drop_rate", 0.0)
        for layer in model.modules()
    ):
        digest = hashlib.blake2b(keys.numpy().tobytes(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "little"))


def automatic_batch(step: TrainStep, images: Images, targets: Any) -> int:
    """Return how many images fit into one step: by measuring on CUDA, else a fixed 2.

    The memory of a step with one and with two images gives the part that grows with the batch.

    Args:
        step: the training step, on its device.
        images: two images that are typical for the training.
        targets: their ground truth.
    """
    device = next(step.parameters()).device
    if device.type != "cuda" or len(images) < 2:
        return SAFE_BATCH
    peaks = []
    step.train()
    statistics = {name: value.clone() for name, value in step.named_buffers()}
    try:
        for count in (1, 2):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            some, theirs = to_device(images.first(count), device), targets.first(count)
            keys = torch.arange(count, device=device)
            step(some, theirs.to(device), keys)["total"].backward()
            peaks.append(torch.cuda.max_memory_allocated(device) - before)
            step.zero_grad(set_to_none=True)
    except torch.OutOfMemoryError:
        return 1  # if not even that fits, the first step says so
    finally:  # the probe is no part of the training
        step.zero_grad(set_to_none=True)
        for name, value in step.named_buffers():
            value.copy_(statistics[name])
        torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE
    # Two states of the optimiser and the gradients live beside the activations.
    free -= 3 * sum(p.numel() * 4 for p in step.parameters() if p.requires_grad)
    fitting = 1 + int((free - peaks[0]) / max(peaks[1] - peaks[0], 1))
    best = 1
    while 2 * best <= min(fitting, MAX_BATCH):
        best *= 2
    return best
