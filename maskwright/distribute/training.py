"""A training in several processes of a cluster, started by the engine that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..errors import OptionError, whole_number

if TYPE_CHECKING:
    from ..training.result import TrainResult


def train(
    *,
    engine: Literal["ray"] = "ray",
    address: str | None = None,
    processes: int = 1,
    cores: int = 1,
    **options: Any,
) -> TrainResult:
    """Train in several processes, which together do what one does: see `maskwright.train`.

    All processes reach `data` and `project` by the same path, or `data` by an address in an object
    store. `batch` is that of each process. One that is lost ends the training; it goes on with
    `resume`, in any number of processes that can share the images of a step.

    Args:
        engine: where it runs: ray, by Ray Train on a Ray cluster or on this machine.
        address: of the cluster, as in 10.0.0.1:6379 or ray://10.0.0.1:10001. None: that in
            RAY_ADDRESS, otherwise this machine alone.
        processes: that train together, each with a GPU where the cluster has some.
        cores: of the CPU that each process computes with, where there is no GPU.
        **options: of `maskwright.train`.

    Raises:
        OptionError: if an option is wrong.
        ValueError: if the cluster is not there, or options do not fit data and model.
        TrainingError: if a process was lost; the message tells how to go on.

    Example:
        >>> from maskwright import distribute
        >>> distribute.train(data="cells/", processes=4, batch=2)  # doctest: +SKIP
    """
    if engine != "ray":
        raise OptionError(f"engine={engine}: trainings run on ray; without it there is torchrun")
    whole_number("processes", processes)
    whole_number("cores", cores)
    from .ray_train import train_on_ray

    return train_on_ray(options, address, processes, cores)
