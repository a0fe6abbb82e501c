"""Will an image fit into memory? Asked before it is computed: the kernel kills without a word.

What a network needs grows with the pixels of its input. A small image, run once, shows the layer of
which input and output are largest together; that much, beside the pixels themselves, is needed for
certain, and it is 0.5 to 1.0 of what was measured. An image is refused only if not even this fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.base import Model
from ..structures import Resize

SIDE = 256  # of the image that is run
MOST = 1500  # bytes for each pixel of the input that no network here needs: no look below that
PIXELS = 24  # bytes of a pixel: three channels of float32, as they are and normalised
# Layers may work in place or one after the other where this looks at both of their sides.
SURE = 0.85


class TooLittleMemoryError(ValueError):
    """An image does not fit into the memory that is free; the message says what to do."""


def available_memory(device: torch.device, proc: str = "/proc", sys: str = "/sys") -> int | None:
    """Return the bytes that can still be taken on a device, or None where nobody tells.

    On a CPU under Linux that is what the machine has free, swap included, or what the control
    groups of this process leave.

    Args:
        device: the device.
        proc: where Linux tells of processes.
        sys: where it tells of control groups.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type != "cpu":
        return None
    try:
        lines = Path(proc, "meminfo").read_text().splitlines()
        numbers = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if ":" in line}
        swap = numbers.get("SwapFree", 0)
        free = numbers["MemAvailable"] + swap
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return min([free, *_group_limits(Path(proc), Path(sys, "fs/cgroup"), swap)])


def _group_limits(proc: Path, root: Path, swap: int) -> list[int]:
    """Return what each control group of this process, and each one above it, has left."""
    try:
        groups = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in groups:
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0":
            folder, most, used, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            folder, most, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        place = folder / path.strip("/")
        for group in [place, *place.parents]:
            if group != folder and folder not in group.parents:
                break
            try:
                limit, taken = (int((group / name).read_text()) for name in (most, used))
                words = (group / "memory.stat").read_text().split()
                stat = dict(zip(words[::2], words[1::2], strict=True))
                left.append(max(limit - taken + int(stat.get(cache, 0)), 0) + swap)
            except (OSError, ValueError):  # "max": no limit here
                continue
    return left


def bytes_per_pixel(network: Model) -> float:
    """Return what a network needs for certain for each pixel of its input, by running a small one.

    Args:
        network: in evaluation mode.
    """
    side = network.example_side(SIDE)
    if next(network.parameters(), None) is None:
        return float(PIXELS)  # an exported graph shows no layers
    most = 0

    def look(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        nonlocal most
        x = given[0] if given else None
        # What has another first side than the batch are regions: they do not grow with the image.
        if not isinstance(x, Tensor) or not isinstance(made, Tensor):
            return
        if x.ndim == made.ndim == 4 and len(x) == len(made) == 1:
            size = made.numel() * made.element_size()
            if x.data_ptr() != made.data_ptr():
                size += x.numel() * x.element_size()
            most = max(most, size)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look) for module in leaves]
    device = network.mean.device
    pixels = torch.zeros(1, network.channels, side, side, device=device)
    try:
        with torch.inference_mode():
            network.look(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return PIXELS + SURE * most / side**2


@contextmanager
def out_of_memory_told(name: str) -> Iterator[None]:
    """Raise TooLittleMemoryError where memory runs out inside.

    Args:
        name: what is computed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        told = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not told and "allocate memory" not in text:
            raise
        raise TooLittleMemoryError(
            f"{name}: the memory did not suffice ({text}): take a smaller size (imgsz=), a smaller "
            "batch, or look at the image in tiles (tile=)"
        ) from None


class MemoryGuard:
    """Refuses images that cannot fit.

    Args:
        network: returns the network, in evaluation mode.
        device: where it computes.
    """

    def __init__(self, network: Callable[[], Model], device: torch.device) -> None:
        self._network = network
        self._device = device
        self._rate: float | None = None
        self._fine = 0.0  # bytes that have sufficed: what was freed may not look free

    def require(
        self,
        sizes: Sequence[tuple[int, int]],
        resizes: Sequence[Resize],
        name: str,
        *,
        part: int | None = None,
        advice: str = "",
    ) -> None:
        """Raise TooLittleMemoryError unless a batch may fit.

        Args:
            sizes: (height, width) of its images.
            resizes: each of the rules by which it is looked at.
            name: what the batch is called.
            part: see `Settings.part`.
            advice: what else to do about it.
        """
        large, (height, width) = 0, (0, 0)
        for resize in resizes:
            targets = [resize.target_size(*size) for size in sizes]
            high, wide = max(one[0] for one in targets), max(one[1] for one in targets)
            if len(sizes) * high * wide > large:
                large, (height, width) = len(sizes) * high * wide, (high, wide)
        free = available_memory(self._device)
        if free is None or large * MOST <= free:
            return
        if self._rate is None:
            self._rate = bytes_per_pixel(self._network())
        need = large * self._rate
        if part is not None:
            network = self._network()
            side = part + -part % network.size_divisor
            through = len(sizes) * min(height, side) * min(width, side)
            # Of the whole image there are its pixels, and what all parts come to, in half types.
            need = through * self._rate + large * (PIXELS + 2 * network.num_classes)
        if need <= free + self._fine:
            self._fine = max(self._fine, need)
            return
        scale = ((free + self._fine) / need) ** 0.5 * 0.7
        side = max(int(scale * max(height, width)) // 32 * 32, 32)
        batch = f"{len(sizes)} images of up to " if len(sizes) > 1 else ""
        fewer = ", a smaller batch," if len(sizes) > 1 else ""
        raise TooLittleMemoryError(
            f"{name}: {batch}{width} x {height} pixels at the input of the network need at least "
            f"{need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: take a smaller size, "
            f"such as imgsz={side} (the long side){fewer} or look at it in tiles, as by tile=1024"
            f"{advice}"
        )


def require_data_memory(
    guard: MemoryGuard,
    sizes: Tensor,
    resizes: Sequence[Resize],
    batch: int,
    name: str,
    *,
    part: int | None = None,
) -> None:
    """Raise TooLittleMemoryError unless the largest batch of a data set may fit.

    Args:
        guard: of the network.
        sizes: (N, 2) height and width of the images.
        resizes: each of the rules by which they are looked at.
        batch: images that are computed at once.
        name: what the data set is called.
        part: see `Settings.part`.
    """
    if not len(sizes):
        return
    largest = sizes[sizes.prod(1).argsort(descending=True)[:batch]].tolist()
    whole = [(h, w) for h, w in largest]
    guard.require(whole, resizes, f"{name}, its largest images", part=part)


def require_training_memory(
    model: Model, sizes: Tensor, batch: int, device: torch.device, name: str
) -> None:
    """Raise TooLittleMemoryError if not even a prediction of a training's largest batch may fit.

    Args:
        model: the model, on the device; it is left in evaluation mode.
        sizes: (N, 2) height and width of the images, each of which is seen whole.
        batch: images of a step.
        device: where it trains.
        name: what the data set is called.
    """
    guard = MemoryGuard(model.eval, device)
    require_data_memory(guard, sizes, [model.resize], batch, name)
