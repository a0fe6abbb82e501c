"""Signals: to the process, to its whole group, twice, in a wait, before the first step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, as_options, table

import maskwright.training.train as module
from maskwright.cli import main
from maskwright.data import batches
from maskwright.errors import WorkerError
from maskwright.processes import Stopped
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.terminal.interrupt import ECHO, Interrupt, Wishes, stoppable
from maskwright.training.train import train

Start = Callable[..., BaseProcess]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def descendants(process: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def gone(processes: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{one}").exists() for one in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "weights" / "last.safetensors").model


def wait_for(ready: Callable[[], object], process: BaseProcess, log: Path) -> None:
    while not ready():
        assert process.is_alive(), log.read_text()
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_signalled_group_finishes_its_step(
    start: Start, options: dict[str, Any], tmp_path: Path
) -> None:
    """As `timeout`, SLURM and systemd do it; then SIGKILL; what goes on is the same to the bit."""
    log = tmp_path / "log"
    log.touch()
    options |= {"workers": 2, "batch": 1, "epochs": 2}
    whole = start(tmp_path / "whole.log", options | {"name": "whole"})
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "whole.log").read_text()
    folder = options["project"] / "train" / "stopped"
    process = start(log, options | {"name": "stopped"})
    wait_for((folder / "train_batch1.jpg").exists, process, log)
    assert process.pid is not None
    helpers = descendants(process.pid)
    assert len(helpers) >= 2
    for one in (*helpers, process.pid, process.pid):  # as `timeout` does: twice to its child
        os.kill(one, signal.SIGTERM)
    process.join()
    text = log.read_text()
    assert process.exitcode == 0 and gone(helpers) and "Traceback" not in text
    assert " by SIGTERM; go on with" in text and "Ctrl-C" not in text
    step = int(text.split("interrupted at step ")[1].split()[0])
    assert 2 <= step < 14

    process = start(log, {"resume": folder})
    wait_for(lambda: process.pid and len(descendants(process.pid)) >= 2, process, log)
    helpers = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert gone(helpers), "orphans"

    process = start(log, {"resume": folder})
    process.join()
    assert process.exitcode == 0, log.read_text()
    ours, theirs = weights(folder), weights(folder.with_name("whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert table(folder) == table(folder.with_name("whole"))


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("warmup", [0, 1])
def test_interrupted_at_step_0_and_resumed(
    options: dict[str, Any],
    warmup: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options |= {"warmup": warmup, "epochs": 1, "batch": 4, "ema": 0.9}
    whole = train(**options | {"name": "whole"})
    original = module.train_epoch

    def train_epoch(run: Any, interrupt: Any) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return original(run, interrupt)

    monkeypatch.setattr(module, "train_epoch", train_epoch)
    stopped = train(**options)
    assert stopped.interrupted and stopped.signal == signal.SIGTERM
    assert "interrupted at step 0 of 2 by SIGTERM" in capsys.readouterr().out
    monkeypatch.setattr(module, "train_epoch", original)
    result = train(resume=stopped.dir)
    assert not result.interrupted and result.signal == 0
    ours, theirs = weights(result.dir), weights(whole.dir)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert table(result.dir) == table(whole.dir)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 1, "warmup": 0},
        {"steps": 1, "warmup": 1},
        {"batch": 50, "epochs": 1, "warmup": 0},  # more than there are images
        {"accumulate": 50, "epochs": 1, "warmup": 500},  # more than there are batches
        {"steps": 2, "schedule": "multistep", "warmup": 0, "accumulate": 3},
    ],
)
def test_the_shortest_trainings(options: dict[str, Any], changes: dict[str, Any]) -> None:
    result = train(**options | changes)
    rows = table(result.dir)
    assert rows[-1]["step"] == str(changes.get("steps", 1))
    assert float(rows[-1]["lr"]) >= 0 and result.best is not None


def test_the_exit_status_tells_the_signal(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_epoch(run: Any, interrupt: Any) -> bool:
        signal.raise_signal(signal.SIGUSR1)
        return False

    monkeypatch.setattr(module, "train_epoch", train_epoch)
    line = as_options(options | options.pop("model_args"))
    assert main(["train", *line]) == 128 + signal.SIGUSR1
    assert "by SIGUSR1" in capsys.readouterr().out

    def prepare(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module, "prepare", prepare)  # while data and weights are read
    assert main(["train", *line]) == 143
    assert "error: stopped by SIGTERM" in capsys.readouterr().err


def test_a_wait_hears_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that never come: the first signal ends the wait at once, not the second."""

    def items() -> Iterator[int]:
        yield 1
        threading.Event().wait(60)

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    start = time.monotonic()
    with Interrupt() as interrupt:
        timer.start()
        assert list(interrupt.listen(items())) == [1]
        assert interrupt.wanted and interrupt.left and interrupt.number == signal.SIGTERM
        assert list(interrupt.listen([1, 2])) == []  # nothing new begins
    assert time.monotonic() - start < 10
    with Interrupt() as interrupt:
        made = []
        for item in interrupt.listen(range(5), waits=False):
            made.append(item)
            if item == 2:
                signal.raise_signal(signal.SIGTERM)
        assert made == [0, 1, 2] and interrupt.left
    with Interrupt() as interrupt:
        assert list(interrupt.listen(range(3))) == [0, 1, 2] and not interrupt.left


def test_echoes_are_no_second_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    wishes = Wishes()
    assert not wishes.repeated(signal.SIGTERM)
    assert not wishes.repeated(signal.SIGTERM) and not wishes.repeated(signal.SIGHUP)
    assert wishes.number == signal.SIGTERM
    now += ECHO + 0.1
    assert wishes.repeated(signal.SIGTERM)
    wishes = Wishes()
    assert not wishes.repeated(signal.SIGINT) and wishes.repeated(signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_that_somebody_else_uses_are_left(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_IGN)  # nohup
        with stoppable(), Interrupt() as interrupt:
            signal.raise_signal(number)
            assert not interrupt.wanted
        heard: list[int] = []
        signal.signal(number, lambda *args: heard.append(args[0]))
        with Interrupt() as interrupt:
            signal.raise_signal(number)
            assert not interrupt.wanted and heard == [number]
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(Stopped, match=name), stoppable():
            signal.raise_signal(number)
        with stoppable(), Interrupt() as interrupt:
            signal.raise_signal(number)
            assert interrupt.wanted
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


DEAF = """
import ctypes, os, signal, threading, time
import maskwright.terminal.interrupt as interrupt
interrupt.ABORT_SECONDS, interrupt.ECHO = 0.3, 0.1
def send():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=send, daemon=True).start()
nap = ctypes.CDLL(None).usleep
with interrupt.ended_by_second_signal(), interrupt.Interrupt():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            nap(100_000)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_second_signal_ends_what_hears_nothing() -> None:
    """A program that swallows what the handlers raise, as libraries do that call it back."""
    done = subprocess.run(
        [sys.executable, "-c", DEAF],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 143 and "ended by SIGTERM" in done.stderr, done.stderr


@pytest.mark.slow
def test_torchrun_and_a_signal_to_one_process(options: dict[str, Any], tmp_path: Path) -> None:
    """All stop after the same step, though one alone was told."""
    options |= {"batch": 1, "epochs": 500, "lr": 1e-4, "workers": 1}
    line = as_options(options | options.pop("model_args") | TINY | {"norm": "affine"})
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    log = tmp_path / "log"
    with log.open("w") as file:
        agent = subprocess.Popen(
            [sys.executable, *torchrun, "-m", "maskwright", "train", *line],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
    folder = options["project"] / "train" / "train"
    try:
        while not (folder / "results.csv").exists():
            assert agent.poll() is None, log.read_text()
            time.sleep(0.05)
        every = descendants(agent.pid)
        ranks = {rank: one for one in every if (rank := rank_of(one)) is not None}
        os.kill(ranks["1"], signal.SIGUSR1)
        agent.wait(timeout=60)
    finally:
        agent.kill()
    text = log.read_text()
    assert " by SIGUSR1; go on with" in text and "another process" not in text
    assert gone(every)
    state = load_checkpoint(folder / "weights" / "last.safetensors", training=True).training
    assert state is not None
    step = int(text.split("interrupted at step ")[1].split()[0])
    assert state.scalars["place"]["step"] == step


def rank_of(process: int) -> str | None:
    """Return the rank of a process that torchrun has started; a loader's worker has none."""
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    ranks = [entry[5:].decode() for entry in environment if entry.startswith(b"RANK=")]
    name = Path(f"/proc/{process}/status").read_text().split("PPid:")[1].split()[0]
    parent = Path(f"/proc/{name}/environ").read_bytes()
    return ranks[0] if ranks and b"\0RANK=" not in parent else None


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_step_of_several_batches_is_not_cut_short(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while the second of three batches is made: none of them counts."""
    options |= {"batch": 1, "accumulate": 3, "epochs": 2, "warmup": 0}
    whole = train(**options | {"name": "whole"})
    original = batches._Batches.__getitem__
    seen: list[int] = []

    def made(self: Any, item: Any) -> Any:
        seen.extend(item[1])
        if len(seen) == 5:
            signal.raise_signal(signal.SIGTERM)
        return original(self, item)

    monkeypatch.setattr(batches._Batches, "__getitem__", made)
    stopped = train(**options)
    place = load_checkpoint(stopped.last, training=True).training
    assert stopped.interrupted and place is not None
    assert (place.scalars["place"]["step"], place.scalars["place"]["batch"]) == (1, 3)
    result = train(resume=stopped.dir)
    ours, theirs = weights(result.dir), weights(whole.dir)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert table(result.dir) == table(whole.dir)


@pytest.mark.usefixtures("no_figures")
def test_a_killed_loader_process_costs_no_step(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills it where memory runs out; the command that goes on is named."""
    options |= {"batch": 1, "epochs": 2}
    whole = train(**options | {"name": "whole"})
    original, before = module.optimise, set(multiprocessing.active_children())

    def optimise(run: Any, *args: Any) -> bool:
        if run.place.step == 2:
            for child in set(multiprocessing.active_children()) - before:
                os.kill(int(child.pid or 0), signal.SIGKILL)
        return original(run, *args)

    monkeypatch.setattr(module, "optimise", optimise)
    with pytest.raises(WorkerError, match=r"(?s)SIGKILL.*fewer workers.*train resume="):
        train(**options | {"workers": 1})
    monkeypatch.setattr(module, "optimise", original)
    folder = options["project"] / "train" / "train"
    state = load_checkpoint(folder / "weights" / "last.safetensors", training=True).training
    assert state is not None and state.scalars["place"]["step"] >= 3
    result = train(resume=folder, workers=0)
    ours, theirs = weights(result.dir), weights(whole.dir)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_stopped_while_the_report_is_written(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_report(run: Any) -> str:
        signal.raise_signal(signal.SIGTERM)
        return ""

    line = as_options(options | options.pop("model_args") | {"steps": 1, "warmup": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskwright.training.conclusion.write_report", write_report)
        assert main(["train", *line]) == 143
    out, err = capsys.readouterr()
    folder = options["project"] / "train" / "train"
    assert f"maskwright train resume={folder}" in out and "stopped by SIGTERM" in err
    assert not (folder / "report.html").exists()
    assert main(["train", f"resume={folder}"]) == 0
    assert (folder / "report.html").exists()
