"""Helping processes of the loaders: how they are started, hand over what they made, and fail.

Tensors go over in shared memory. Where that is too small for a batch, as with the 64 MiB that
Docker gives, the batch goes through a pipe: slower, but it arrives. Whatever else happens to a
worker is an error where its batch is waited for, never a wait without an end.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from maskwright.errors import WorkerError
from maskwright.processes import be_helper, start_helpers

SHARED = "/dev/shm"
SPARE = 16 * 2**20  # bytes of shared memory left to others
NO_HANDOVER = 74  # exit status of a worker whose batch cannot be sent
_warned = False


@dataclass(frozen=True)
class Failure:
    """A ValueError on its way out of a worker; the exception itself would bring a traceback."""

    message: str


@dataclass(frozen=True)
class Piped:
    """What a worker made, as bytes, because shared memory has no room for it.

    Attributes:
        content: the pickled object.
        free: bytes free in shared memory.
    """

    content: bytes
    free: int


def handed_over(made: Any) -> Any:
    """Return what a worker sends in place of what it made; in the first process the thing itself.

    Args:
        made: a dataclass with tensors.
    """
    if get_worker_info() is None:
        return made
    tensors = list(_tensors(made))
    need = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    free = shared_memory()
    if free is None or need + SPARE <= free:
        try:
            for tensor in tensors:
                tensor.share_memory_()
            return made
        except (RuntimeError, OSError):  # another process was quicker, or there is none at all
            free = shared_memory()
    copies = pickle.dumps(made)  # what is shared already is copied as well
    return Piped(copies, free or 0)


def shared_memory() -> int | None:
    """Return the bytes free in shared memory; None where the system has no such folder."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return None


def small_shared_memory(free: int) -> str:
    """Return what mends a shared memory that is too small."""
    return (
        f"{free / 2**20:.0f} MiB free in {SHARED}: train with workers=0, or start the container "
        "with --shm-size=2g"
    )


def make_data_loader(data: Any, sampler: Any, workers: int, *, keep: bool) -> DataLoader[Any]:
    """Return torch's loader of items that are batches already, with workers as they are set here.

    Args:
        data: makes an item.
        sampler: what the items are made from; None: 0, 1, 2, ...
        workers: number of processes.
        keep: whether they live on between two iterations.
    """
    return DataLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_unchanged,
        persistent_workers=keep and workers > 0,
        worker_init_fn=start_worker,
    )


def iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the items of a loader, as they were made.

    Raises:
        ValueError: what a worker says of the data.
        WorkerError: if a worker has ended.
    """
    if not loader.num_workers:
        yield from map(_opened, loader)
        return
    iterator: Any = None
    try:
        fresh = getattr(loader, "_iterator", None) is None  # else workers that live are waited for
        iterator = start_helpers(lambda: iter(loader)) if fresh else iter(loader)
        for item in iterator:
            yield _opened(item)
    except (RuntimeError, OSError, EOFError) as error:
        living = getattr(loader, "_iterator", None) if iterator is None else iterator
        found = _explained(error, getattr(living, "_workers", ()))
        if found is None:
            raise
        raise found from None


def start_worker(number: int) -> None:
    """Set a worker up; the first thing that runs in it."""
    from multiprocessing.queues import Queue

    be_helper()
    queue: Any = Queue
    queue._on_queue_feeder_error = staticmethod(_fail)  # of this process alone: it would go on


def _fail(error: BaseException, item: object) -> None:
    """End a worker that cannot send what it made: nobody would notice that it is missing."""
    print(f"worker: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(NO_HANDOVER)


def _opened(item: Any) -> Any:
    global _warned
    if isinstance(item, Failure):
        raise ValueError(item.message)
    if not isinstance(item, Piped):
        return item
    if not _warned:
        _warned = True
        warnings.warn(
            f"batches of {len(item.content) / 2**20:.0f} MiB do not fit into shared memory and go "
            f"through pipes, which is slower; {small_shared_memory(item.free)}",
            stacklevel=2,
        )
    return pickle.loads(item.content)  # from our own worker


def _tensors(part: Any) -> Iterable[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif is_dataclass(part):
        for entry in fields(part):
            yield from _tensors(getattr(part, entry.name))


def _explained(error: Exception, workers: Sequence[BaseProcess]) -> WorkerError | None:
    """Return the error that says what has happened to the workers, None if nothing has."""
    text = str(error) or type(error).__name__
    if workers and isinstance(error, OSError | EOFError):  # a lost connection is seen before an end
        ended = wait([worker.sentinel for worker in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(1)
    if "ancdata" in text or "open files" in text or getattr(error, "errno", 0) == errno.EMFILE:
        return WorkerError(
            "batches cannot be handed over: too many open files; raise the limit (`ulimit -n "
            "65536`), or use workers=0"
        )
    statuses = {worker.exitcode for worker in workers if worker.exitcode}
    if not statuses:
        if text.startswith("Caught "):  # what a worker came across, with its traceback
            return None
        if isinstance(error, OSError | EOFError) or "worker" in text.lower():
            return WorkerError(
                f"processes that load images cannot be used here ({text}); use workers=0"
            )
        return None
    status = min(statuses)  # signals are negative
    if status == NO_HANDOVER:
        why = "it could not hand over what it made, see above; use workers=0"
    elif status >= 0:
        why = f"exit status {status}; workers=0 shows the error where it happens"
    elif status == -signal.SIGKILL:
        why = (
            "SIGKILL, as the system does where memory runs out: use fewer workers, a smaller batch "
            "or a smaller imgsz"
        )
    elif status == -getattr(signal, "SIGBUS", 0):
        why = f"SIGBUS, {small_shared_memory(shared_memory() or 0)}"
    else:
        why = f"{signal.Signals(-status).name}; workers=0 shows where it happens"
    return WorkerError(f"a process that loads images has ended ({why})")


def _unchanged(item: Any) -> Any:
    return item
