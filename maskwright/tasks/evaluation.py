"""The one evaluation loop: a network over a data set, in any number of processes.

What is counted is the task's: an `Evaluator` takes batches, gives the share of its process, and
makes an `Evaluation` of the shares of all.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data.loader import Batch
from ..models.base import Model
from ..models.inference import fast_network, pick_precision
from ..structures import Images
from ..terminal import console


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to; each task has its own kind.

    Attributes:
        metrics: numbers by key, such as "mask/AP" or "top1"; nan where the data holds nothing that
            they measure.
        ms: milliseconds of computing per image, loading not counted.
    """

    metrics: dict[str, float]
    ms: float

    @property
    def fitness(self) -> float:
        """The number by which checkpoints are compared, nan if there is none."""
        raise NotImplementedError

    def warnings(self, *, by: str = "model") -> list[str]:
        """Return what a user should be warned of: limits that were reached, reasons for a zero.

        Args:
            by: whose the numbers are: "model", or "training" while it still learns.
        """
        return []

    def remarks(self) -> list[str]:
        """Return what else there is to know: what was not scored."""
        return []


class Evaluator(ABC):
    """Scores a model on a data set, or on the share of one process."""

    @abstractmethod
    def add(self, network: Any, batches: Sequence[Batch]) -> None:
        """Let the network look at a batch, and keep what counts.

        Args:
            network: the model as it computes.
            batches: the same images at each size; pixels on the device.
        """

    def take(self, index: int, found: Any) -> None:
        """Keep what counts of one image that was looked at elsewhere.

        Args:
            index: its position in the data set.
            found: what `Task.decode` returns of an image, in its pixels.
        """
        raise NotImplementedError

    @abstractmethod
    def share(self) -> Any:
        """Return what this process has found, to be pickled."""

    @abstractmethod
    def finish(self, shares: Sequence[Any], ms: float) -> Evaluation:
        """Return the evaluation of the shares of all processes; an image may be in several.

        Args:
            shares: of the processes in their order.
            ms: milliseconds of computing per image.
        """


def evaluate(
    evaluator: Evaluator,
    model: Model,
    *loaders: Iterable[Batch],
    total: int,
    precision: str = "float32",
    label: str = "val",
    stop: Callable[[], bool] = lambda: False,
    gather: Callable[[Any], list[Any]] = lambda share: [share],
    enabled: bool = True,
) -> Evaluation | None:
    """Run a model over a data set and score it.

    Args:
        evaluator: counts.
        model: the model; its training mode is put back afterwards.
        *loaders: batches of the data set, or of this process's share of it, at each size.
        total: images of the data set.
        precision: of the arithmetic, see `load`.
        label: what stands in front of the progress bar.
        stop: asked after each batch; True ends the evaluation without a result.
        gather: returns the shares of all processes.
        enabled: False shows no progress, for all processes but the first.

    Returns:
        The evaluation, or None if it was stopped.
    """
    device = model.mean.device  # an exported graph has no parameters
    was_training = model.training
    network = fast_network(model.eval(), dtype=pick_precision(precision, device))
    # Half of the layers in one layout and half in the other would turn every map around.
    rows = any(p.dim() == 4 and not p.is_contiguous() for p in model.parameters())
    seconds, images = 0.0, 0
    try:
        with console.progress(label, total=total, unit="img", enabled=enabled) as bar:
            for batches in zip(*loaders, strict=True):
                start = time.perf_counter()
                scaled = [
                    replace(one, images=to_device(one.images, device, rows)) for one in batches
                ]
                with torch.no_grad():  # in inference mode a cached tensor would spoil training
                    evaluator.add(network, scaled)
                seconds += time.perf_counter() - start
                images += len(batches[0])
                bar.update(len(batches[0]))
                if stop():
                    break
    finally:
        model.train(was_training)
    stopped = stop()  # or the loader has heard it, and ended early
    shares = gather((stopped, evaluator.share()))
    if any(share_stopped for share_stopped, _ in shares):
        return None
    ms = 1e3 * seconds / images if images else math.nan
    return evaluator.finish([share for _, share in shares], ms)


def to_device(images: Images, device: torch.device, rows: bool = True) -> Images:
    """Return the images on the device of the model, in the memory layout that it prefers.

    Args:
        images: a batch.
        device: of the model.
        rows: whether that is channels-last; never on Apple's devices.
    """
    images = images.to(device, non_blocking=True)
    if device.type == "mps" or not rows:
        return images
    pixels = images.pixels.contiguous(memory_format=torch.channels_last)
    return replace(images, pixels=pixels)
