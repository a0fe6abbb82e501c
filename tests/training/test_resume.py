"""Runs that are killed, damaged or short of space, and go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import table, tiny_options

from maskwright.cli import main
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.training.resume import find_run, share_batch
from maskwright.training.train import train

Start = Callable[..., BaseProcess]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    loaded = load_checkpoint(folder / "weights" / f"{name}.safetensors", training=True)
    parts = {f"model.{k}": v for k, v in loaded.model.items()}
    if loaded.training is not None:
        parts |= {f"ema.{k}": v for k, v in loaded.training.ema.items()}
        parts |= {f"optimizer.{k}": v for k, v in loaded.training.optimizer.items()}
    return parts


def assert_same_runs(a: Path, b: Path) -> None:
    assert table(a) == table(b)
    for name in ("last", "best"):
        ours, theirs = tensors(a, name), tensors(b, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("metrics.json", "detections.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    files = [{p.relative_to(f).as_posix() for p in f.rglob("*")} for f in (a, b)]
    assert {f for f in files[0] ^ files[1] if "tfevents" not in f} == set()  # nothing left over


def moments(folder: Path, log: Path) -> dict[str, Callable[[], object]]:
    """What is looked at from outside, to kill in the midst of it."""
    weights = folder / "weights"

    def written(pattern: str) -> Callable[[], object]:
        return lambda: weights.is_dir() and list(weights.glob(pattern))

    def lines() -> int:  # of finished epochs; then comes the validation
        return len(re.findall(r"^epoch .* img, took ", log.read_text(), re.MULTILINE))

    def stamp() -> int:
        path = folder / "results.csv"
        return path.stat().st_mtime_ns if path.exists() else 0

    before, seen = stamp(), lines()
    return {
        "step": lambda: folder.is_dir(),
        "val": lambda: lines() > seen,
        "table": lambda: stamp() != before,
        "last": written(".last*.part"),
        # Few epochs are better than all before: wait for one or two only.
        "best": lambda: written(".best*.part")() or lines() > seen + 1,
    }


def kill_often(
    start: Start, options: dict[str, Any], tmp_path: Path, kills: int, seed: int
) -> tuple[Path, dict[str, int]]:
    """Train with so many kills on the way; return the run folder and the kills by moment."""
    folder, log = options["project"] / "train" / "killed", tmp_path / "log"
    log.touch()
    dice, done, torn = random.Random(seed), dict.fromkeys(("step", "val", "table", "last"), 0), 0
    done["best"] = 0
    while True:
        begun = (folder / "args.yaml").exists()
        process = start(log, {"resume": folder} if begun else options | {"name": "killed"})
        moment = dice.choice(sorted(done))
        reached = moments(folder, log)[moment]
        while process.is_alive() and (sum(done.values()) >= kills or not reached()):
            time.sleep(0.0002)
        if moment in ("step", "val"):
            process.join(dice.uniform(0, 1.5 if moment == "step" else 0.1))
        if process.is_alive() and (folder / "args.yaml").exists():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done[moment] += 1
            torn += bool(list((folder / "weights").glob(".*.part")))
        else:
            process.join()
            assert process.exitcode == 0, log.read_text()
            break
    assert torn, "no checkpoint was torn"
    return folder, done


@pytest.mark.parametrize(
    ("kills", "epochs"), [(5, 8), pytest.param(100, 130, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_equals_uninterrupted(
    start: Start, options: dict[str, Any], tmp_path: Path, kills: int, epochs: int
) -> None:
    """SIGKILL in steps, in validations, while files are written, before the first checkpoint.

    With this seed the first five kills are one of each moment.
    """
    options |= {"batch": 4, "epochs": epochs, "ema": 0.9, "scale_jitter": (0.8, 1.2)}
    whole = start(tmp_path / "whole.log", options | {"name": "whole"})
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "whole.log").read_text()
    folder, done = kill_often(start, options, tmp_path, kills, seed=1)
    assert sum(done.values()) == kills, done
    assert_same_runs(folder, folder.with_name("whole"))
    assert len(list(folder.parent.iterdir())) == 2


@pytest.fixture(scope="module")
def runs(coins: Path, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two runs of 3 epochs: one is whole, one was killed after its second epoch."""
    root = tmp_path_factory.mktemp("runs")
    options = tiny_options(coins, root) | {"batch": 4, "epochs": 3}
    whole = start(root / "whole.log", options | {"name": "whole"})
    whole.join()
    assert whole.exitcode == 0, (root / "whole.log").read_text()
    process = start(root / "stopped.log", options | {"name": "stopped"})
    folder = root / "train" / "stopped"
    while process.is_alive():
        if (folder / "results.csv").exists() and len(table(folder)) == 2:
            previous = folder / "weights" / "previous.safetensors"
            if previous.exists() and load_place(folder, "last")["epoch"] == 2:
                break
        time.sleep(0.001)
    assert process.is_alive() and process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return root / "train"


@pytest.fixture
def stopped(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run that was killed."""
    return shutil.copytree(runs / "stopped", tmp_path / "stopped")


def load_place(folder: Path, name: str) -> dict[str, Any]:
    state = load_checkpoint(folder / "weights" / f"{name}.safetensors", training=True).training
    assert state is not None
    place: dict[str, Any] = state.scalars["place"]
    return place


@pytest.mark.parametrize(
    "damage",
    ["cut", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("flipped", "missing"))],
)
def test_a_damaged_last_falls_back_to_the_one_before(
    stopped: Path, runs: Path, start: Start, tmp_path: Path, damage: str
) -> None:
    last = stopped / "weights" / "last.safetensors"
    content = bytearray(last.read_bytes())
    assert load_place(stopped, "previous")["step"] < load_place(stopped, "last")["step"]
    if damage == "cut":
        last.write_bytes(content[:-1000])
    elif damage == "flipped":  # one bit of a weight
        content[-5000] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    log = tmp_path / "log"
    process = start(log, {"resume": stopped})
    process.join()
    text = log.read_text()
    assert process.exitcode == 0, text
    reason = {"cut": "truncated", "flipped": "does not match its checksum", "missing": "is missing"}
    assert reason[damage] in text and str(last) in text
    assert "going on from the checkpoint before it" in text
    damaged = stopped / "weights" / "last.damaged.safetensors"
    assert damaged.exists() == (damage != "missing")
    damaged.unlink(missing_ok=True)
    assert_same_runs(stopped, runs / "whole")


def test_nothing_to_go_on_from(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = stopped / "weights"
    for name in ("last", "previous"):
        (weights / f"{name}.safetensors").write_bytes(b"x" * 40)
    assert main(["train", f"resume={stopped}"]) == 1
    text = capsys.readouterr().err
    assert "last.safetensors" in text and "previous.safetensors" in text
    assert f"weights={weights / 'best.safetensors'}" in text
    for path in weights.iterdir():
        path.unlink()
    (stopped / "args.yaml").write_text("[")
    with pytest.raises(ValueError, match=r"args\.yaml: the options of the run cannot be read"):
        train(resume=stopped)
    (stopped / "args.yaml").unlink()
    with pytest.raises(ValueError, match=r"neither a checkpoint nor args\.yaml"):
        train(resume=stopped)


def test_args_hold_what_was_resolved(stopped: Path) -> None:
    content = yaml.safe_load((stopped / "args.yaml").read_text())
    expected = {"lr": 1e-3, "warmup": 2, "batch": 4, "processes": 1, "steps": 6}
    assert content["resolved"] == expected
    recipe = DetectionRecipe.from_dict(content)
    shutil.rmtree(stopped / "weights")
    again = find_run({}, DetectionRecipe(resume=stopped))
    assert again.recipe == recipe and again.checkpoint is None and again.processes == 1
    with pytest.raises(ValueError, match=r"epochs is 3 there.*or start a new run$"):
        find_run({"epochs": 9}, DetectionRecipe(resume=stopped, epochs=9))


def test_other_numbers_of_processes_take_the_same_images() -> None:
    recipe = DetectionRecipe(data="x", batch=4)
    assert share_batch(recipe, 3, 2).batch == 6
    with pytest.raises(ValueError, match="12 images at a time, in 3"):
        share_batch(recipe, 3, 5)


def test_files_that_may_not_grow(stopped: Path, start: Start, tmp_path: Path) -> None:
    """A disk that fills up while a checkpoint is written: one error, the checkpoints as before."""
    weights = stopped / "weights"
    before = {p.name: p.read_bytes() for p in weights.iterdir()}
    log = tmp_path / "log"
    process = start(log, {"resume": stopped}, 500_000)
    process.join()
    text = log.read_text()
    assert process.exitcode == 1 and "Traceback" not in text
    assert text.count("error: ") == 1 and "File too large" in text and "ulimit" in text
    assert f"folder {weights}" in text
    assert {p.name: p.read_bytes() for p in weights.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(
    small_disk: Path, start: Start, options: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start(log, options | {"project": small_disk, "batch": 4})
    process.join()
    text = log.read_text()
    folder = small_disk / "train" / "train"
    assert process.exitcode == 1
    assert "No space left on device" in text and str(folder) in text and "free space" in text
    kept = [p for p in (folder / "weights").iterdir() if p.suffix == ".safetensors"]
    assert kept and all(load_checkpoint(path) for path in kept)
    assert not list((folder / "weights").glob(".*.part"))
    json.loads((folder / "metrics.json").read_text())
