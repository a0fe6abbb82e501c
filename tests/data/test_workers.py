"""Processes that load images: what happens to them is noticed, and what they made arrives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright.data import Loader, make_loader, open_dataset, workers
from maskwright.errors import WorkerError
from maskwright.processes import STOP_SIGNALS
from maskwright.structures import Resize

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks after a worker that sends nothing every five seconds; here it does so sooner."""
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Batches

    assert Batches._try_get_data.__defaults__ == (5.0,)
    monkeypatch.setattr(Batches._try_get_data, "__defaults__", (0.2,))


def loader_of(folder: Path, processes: int, **options: Any) -> Loader:
    dataset = open_dataset(folder).select(range(6))
    defaults: dict[str, Any] = {"batch": 1, "resize": Resize(None, None, 1.0), "augment": None}
    defaults |= {"seed": 0, "shuffle": False}
    return make_loader(dataset, workers=processes, **(defaults | options))


def children() -> list[int]:
    return [int(child.pid or 0) for child in multiprocessing.active_children()]


def test_signals_are_left_to_the_parent(nuclei_mini: Path) -> None:
    """A group is signalled: the batches come, in this epoch and in the next."""
    before = set(children())
    loader, alone = loader_of(nuclei_mini, 2), list(loader_of(nuclei_mini, 0))
    for _ in range(2):
        batches = iter(loader)
        first = next(batches)
        mine = set(children()) - before
        assert len(mine) == 2
        for child in mine:
            for number in STOP_SIGNALS:
                os.kill(child, number)
        for batch, expected in zip([first, *batches], alone, strict=True):
            assert torch.equal(batch.images.pixels, expected.images.pixels)
    assert set(children()) - before == mine


@pytest.mark.parametrize("running", [True, False])
def test_a_killed_worker_is_named(nuclei_mini: Path, running: bool) -> None:
    """In the midst of an epoch, and between two of them."""
    before = set(children())
    loader = loader_of(nuclei_mini, 1)
    batches = iter(loader)
    next(batches)
    if not running:
        list(batches)
    (child,) = set(children()) - before
    os.kill(child, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"SIGKILL.*memory.*fewer workers, a smaller batch"):
        list(batches if running else loader)


class _Unsendable:
    """Makes items of which the second cannot be pickled."""

    def __getitem__(self, index: int) -> Any:
        return (lambda: None) if index else 0

    def __len__(self) -> int:
        return 2


def test_what_cannot_be_handed_over_ends_the_wait(capfd: pytest.CaptureFixture[str]) -> None:
    loader = workers.make_data_loader(_Unsendable(), None, 1, keep=False)
    with pytest.raises(WorkerError, match="could not hand over what it made, see above"):
        list(workers.iterate(loader))
    assert "pickle" in capfd.readouterr().err


class _Broken:
    def __getitem__(self, index: int) -> Any:
        raise RuntimeError("a bug")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("processes", [0, 1])
def test_bugs_in_a_worker_are_not_hidden(processes: int) -> None:
    loader = workers.make_data_loader(_Broken(), None, processes, keep=False)
    with pytest.raises(RuntimeError, match="a bug") as caught:
        list(workers.iterate(loader))
    assert not isinstance(caught.value, WorkerError)


SMALL = """
import sys, warnings, multiprocessing, torch
from maskwright.data import make_loader, open_dataset, workers
from maskwright.structures import Resize
data = open_dataset(sys.argv[1]).select(range(4))
workers.SPARE = int(sys.argv[2])
def load(processes):
    return make_loader(data, batch=2, resize=Resize(None, None, 3.0), augment=None, seed=0,
                       workers=processes, shuffle=False)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for epoch in range(2):
        for a, b in zip(load(2), load(0), strict=True):
            assert a.images.pixels.nbytes > 4 * 2**20, a.images.pixels.shape
            assert torch.equal(a.images.pixels, b.images.pixels)
            assert torch.equal(a.targets.masks.data, b.targets.masks.data)
(text,) = [str(entry.message) for entry in caught]
assert "go through pipes" in text and "--shm-size" in text, text
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
@pytest.mark.parametrize(
    "spare",
    [
        pytest.param(16 * 2**20, id="foreseen"),
        pytest.param(-(2**30), id="found-out", marks=pytest.mark.slow),
    ],
)
def test_shared_memory_smaller_than_a_batch(nuclei_mini: Path, spare: int) -> None:
    """4 MiB, of which the process may believe that they are enough: the batches arrive."""
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$@"']
    if os.getuid() or subprocess.run([*mount, "sh", "true"], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        [*mount, "sh", sys.executable, "-c", SMALL, str(nuclei_mini), str(spare)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
