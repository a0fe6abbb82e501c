"""Ray: parts on the processes of a cluster. Only this module and `ray_train` know of Ray.

Ray Data hands the parts to a pool of actors, each with one model, and hands a part of one that is
lost to another. Only names of images and counts travel: each process reads images and writes tables
itself.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from ..errors import OptionError, WorkerError
from ..terminal import console
from .job import Job
from .parts import Part
from .tables import TRYING, Count

ASK_SECONDS = 5.0  # until a cluster has to answer
TRIES = 3  # that a part gets: Ray itself tries for ever


class Worker:
    """One process with one model.

    Args:
        job: pickled.
        cwd: from where relative paths count.
        cores: that it computes with, where there is no GPU.
        run: another text for each call of `run_on_ray`.
    """

    def __init__(self, job: bytes, cwd: str, cores: int, run: str) -> None:
        import torch

        from ..terminal.heap import keep_memory

        with suppress(OSError):  # another machine may not have it
            os.chdir(cwd)
        self.job: Job = pickle.loads(job)
        self.run = run
        if not torch.cuda.is_available():
            torch.set_num_threads(cores)
            keep_memory()
        self.names = self.job.find.predictor.names  # loaded before the first part comes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the parts of a batch."""
        made: dict[str, list[int]] = {key: [] for key in ("number", "images", *ROW)}
        for given in batch["part"]:
            part: Part = pickle.loads(given)
            count = self._do(part)
            made["number"].append(part.number)
            for key in ("images", *ROW):
                made[key].append(getattr(count, key))
        return made

    def _do(self, part: Part) -> Count:
        """Do a part; one that has cost several processes fails, image by image."""
        place, mark = self.job.place, f"{TRYING}{part.number:06d}"
        tries = 0
        with suppress(ValueError):
            run, _, number = place.read(mark).decode().partition(" ")
            tries = int(number) if run == self.run else 0
        if tries >= TRIES:
            reason = (
                f"the process that computed this image or others of its part was lost {tries} "
                "times, as where memory runs out: try it alone, or with a smaller batch or imgsz"
            )
            count = self.job.give_up(part, reason)
        else:
            place.write(mark, lambda file: file.write(f"{self.run} {tries + 1}".encode()))
            count = self.job.do(part)
        place.remove(mark)
        return count


ROW = ("finds", "failed", "noted")


def start_ray(address: str | None) -> Any:
    """Connect to a cluster, or start Ray on this machine, and return its module.

    Args:
        address: of the cluster; None: that in RAY_ADDRESS, or this machine.

    Raises:
        ImportError: if Ray is missing.
        ValueError: if there is no cluster.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise ImportError("engine=ray needs Ray: pip install 'maskwright[cluster]'") from None
    if ray.is_initialized():
        return ray
    where = address or os.environ.get("RAY_ADDRESS")
    option = "RAY_ADDRESS" if address is None else "address"
    _ask(where, option)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Or it says of each pool of workers that these could not be started again, which they are.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with _without(b"RAY_BACKEND_LOG_LEVEL"):  # compiled code says each time that this is set
            ray.init(
                address=where,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if where else {"include_dashboard": False}),
            )
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{option}={where}: Ray does not answer there ({text})") from None
    return ray


@contextmanager
def _without(text: bytes) -> Iterator[None]:
    """Hold back standard error, compiled code's too, and then print all lines but those with it."""
    with tempfile.TemporaryFile() as held, ExitStack() as after:
        with suppress(OSError):  # none is open: then there is nothing to hold back
            before = os.dup(2)
            after.callback(os.close, before)
            os.dup2(held.fileno(), 2)
            after.callback(_print_lines, held, text, before)
        yield


def _print_lines(held: IO[bytes], text: bytes, to: int) -> None:
    """Give standard error back, and print there what was held."""
    sys.stderr.flush()
    os.dup2(to, 2)
    held.seek(0)
    os.write(to, b"".join(line for line in held if text not in line))


def _ask(where: str | None, option: str) -> None:
    """Raise ValueError if nobody listens at the address of a cluster: Ray would try for long.

    Args:
        where: the address.
        option: what named it.
    """
    if where is None or where in ("auto", "local"):
        return
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError(
            f"{option}={where}: expected host and port, as in 10.0.0.1:6379 or ray://10.0.0.1:10001"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ASK_SECONDS).close()
    except (OSError, OverflowError) as error:
        # By ray:// a server of its own for programs from elsewhere answers.
        asked = "ray-client-server-port" if where.startswith("ray://") else "port"
        raise ValueError(
            f"{option}={where}: there is no cluster ({error}): start one with "
            f"`ray start --head --{asked}={port}` there, or leave out {option} to use this machine"
        ) from None


def run_on_ray(
    job: Job, parts: list[Part], address: str | None, processes: int | None, cores: int
) -> Iterator[tuple[Part, Count]]:
    """Do parts on a cluster; yield each when its table is written.

    Args:
        job: what is done.
        parts: all of them.
        address: see `start_ray`.
        processes: that compute at once; None: as many as there are GPUs, or as fit on the cores.
        cores: of each, where there is no GPU.

    Raises:
        ValueError: if there is no cluster, or it is too small.
        WorkerError: if Ray cannot go on.
    """
    if not parts:
        return
    ray = start_ray(address)
    there = ray.cluster_resources()
    device = str(job.find.options["device"])
    gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
    if device.startswith("cuda") and not gpus:
        raise ValueError(f"device={device}: the cluster has no GPU")
    most = gpus or int(there.get("CPU", 0)) // cores
    if not most:
        raise OptionError(f"cores={cores}: the cluster has {int(there.get('CPU', 0))} in all")
    if processes is not None and processes > most:
        raise OptionError(
            f"processes={processes}: the cluster has room for {most}"
            + ("" if gpus else f" of {cores} cores each")
        )
    count = min(processes or most, len(parts))
    console.note(f"Ray: {count} process{'es' if count > 1 else ''} on {_machines(ray)}")
    yield from _stream(ray, job, parts, count, {"num_gpus": 1} if gpus else {"num_cpus": cores})


def _machines(ray: Any) -> str:
    alive = sum(bool(node["Alive"]) for node in ray.nodes())
    return "1 machine" if alive == 1 else f"{alive} machines"


def _stream(
    ray: Any, job: Job, parts: list[Part], count: int, needs: dict[str, int]
) -> Iterator[tuple[Part, Count]]:
    data = import_module("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    by_number = {part.number: part for part in parts}
    rows = [{"part": pickle.dumps(part)} for part in parts]
    table = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(
            pickle.dumps(job),
            str(Path.cwd()),
            needs.get("num_cpus", 1),
            uuid.uuid4().hex,
        ),
        batch_size=1,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(size=count),
        **needs,
    )
    try:
        for row in table.iter_rows():
            yield by_number[row["number"]], Count(row["images"], *(row[key] for key in ROW))
    except ray.exceptions.RayError as error:
        raise own_error(error) from None


def own_error(error: BaseException) -> Exception:
    """Return the error of a worker as this process would have raised it."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        for one in (seen, cause):
            if isinstance(one, ValueError | OSError | ImportError) and not hasattr(one, "cause"):
                return ValueError(str(one))
        seen = cause if isinstance(cause, BaseException) and cause is not seen else seen.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return WorkerError(f"Ray: {lines[-1].strip() if lines else type(error).__name__}")
