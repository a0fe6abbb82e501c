"""What every model of every task keeps to, from a folder of images to a checkpoint and back.

A task gives a tiny data set: `write` and `options` of `tests/tasks/<folder>/tiny.py`. What one
model computes (losses, gradients, empty images, graphs) is tested in `tests/models`. The first
family of each task runs always, the others with `make test-long`.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import as_options, table

import maskwright as mw
import maskwright.training.train as module
from maskwright.models import get_entry, list_models
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks import FOLDERS

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = {
    name: entry
    for name, entry in list_models().items()
    if entry.tiny is not None and entry.task in FOLDERS
}
# The first of each task is quick enough for every run.
FIRST = {FOLDERS[entry.task]: key for key, entry in reversed(ENTRIES.items())}
FIRST["detection"] = "mask_rcnn_resnet50_fpn"
FIRST["classification"] = "lenet5"
FIRST["semantic"] = "unet"


def names(*known: str) -> list[Any]:
    """Return all families, slow but for the first of each task.

    Args:
        known: tasks whose first family has such a test of its own, closer by, or none that tells
            more than those of the others: it runs with the long tests.
    """
    quick = {key for task, key in FIRST.items() if task not in known}
    return [pytest.param(key, marks=[] if key in quick else [pytest.mark.slow]) for key in ENTRIES]


def helper(name: str) -> ModuleType:
    """Return the tiny data set of the task of a model."""
    path = Path(__file__).parent / FOLDERS[get_entry(name).task] / "tiny.py"
    spec = importlib.util.spec_from_file_location(f"tiny_{path.parent.name}", path)
    assert spec is not None and spec.loader is not None, f"{path} is missing"
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def tiny_training(name: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Write the data and return the options of a training of two steps an epoch."""
    tiny, entry = helper(name), get_entry(name)
    data = folder / "data"
    if not data.exists():
        tiny.write(data)
    own = {**tiny.options(name), **more}
    return {
        "data": data,
        "model": name,
        "weights": "none",
        "project": folder / "runs",
        "device": "cpu",
        "workers": 0,
        "batch": 2,
        "epochs": 1,
        "freeze": 0,
        "lr": 1e-3,
        "warmup": 1,
        "patience": 0,
        **own,
        "model_args": {**(entry.tiny or {}), **own.get("model_args", {})},
    }


def same(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same, to the bit."""
    ours, theirs = (load_checkpoint(path, training=True) for path in (a, b))
    pairs = [(ours.model, theirs.model)]
    if ours.training is not None and theirs.training is not None:
        pairs.append((ours.training.optimizer, theirs.training.optimizer))
    return all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in pairs
    )


@pytest.mark.contract("trains", "validates", "predicts")
@pytest.mark.filterwarnings("ignore:max_det")
@pytest.mark.parametrize("name", names())
def test_trains_validates_and_predicts(name: str, tmp_path: Path) -> None:
    options = tiny_training(name, tmp_path)
    told: list[Any] = []
    result = mw.train(**options, on_epoch_end=told.append)
    assert not result.interrupted and result.last.is_file()
    with (result.dir / "results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert set(told[0].numbers) <= set(row) and told[0].epoch == 1
    losses = [float(value) for key, value in row.items() if key.startswith("train/")]
    assert losses and all(map(math.isfinite, losses))
    assert (result.dir / "report.html").is_file()

    numbers = mw.val(result.last, options["data"], save=True, project=tmp_path / "runs")
    assert numbers and any(map(math.isfinite, numbers.values()))
    assert (numbers.dir / "report.html").is_file()

    predictor = mw.load(result.last)
    for height, width in ((33, 40), (7, 120), (200, 31)):
        found = predictor(np.full((height, width, 3), 90, np.uint8))
        assert found.size == (height, width)
        content = json.loads(found.to_json())
        assert (content["height"], content["width"]) == (height, width)
        picture = found.plot()  # some put words or bars beside the image
        assert picture.width >= width and picture.height >= height


@pytest.mark.slow
@pytest.mark.contract("resumes to the bit")
@pytest.mark.parametrize("name", names("classification", "detection", "localization"))
def test_a_stopped_training_goes_on_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = tiny_training(name, tmp_path, epochs=2)
    whole = mw.train(**options, name="whole")
    original = module.optimise

    def optimise(run: Any, *rest: Any) -> bool:
        stop = original(run, *rest)
        if run.place.step == 3:
            signal.raise_signal(signal.SIGINT)
        return stop

    with monkeypatch.context() as patch:
        patch.setattr(module, "optimise", optimise)
        part = mw.train(**options, name="part")
    assert part.interrupted
    resumed = mw.train(resume=part.dir)
    assert not resumed.interrupted and table(resumed.dir) == table(whole.dir)
    assert same(resumed.last, whole.last)


@pytest.mark.slow
@pytest.mark.contract("several processes")
@pytest.mark.parametrize("name", names("detection", "localization", "semantic"))
def test_two_processes_equal_one(name: str, tmp_path: Path) -> None:
    """As far as rounding lets one process equal itself with another number of threads."""
    one, two = (run_together(name, tmp_path, processes=n, threads=1) for n in (1, 2))
    if apart(one, two, {}):
        rounded = distances(one, run_together(name, tmp_path, processes=1, threads=2))
        assert apart(one, two, {key: 10 * value for key, value in rounded.items()}) == []


def run_together(name: str, folder: Path, *, processes: int, threads: int) -> dict[str, Any]:
    """Train, and return the last weights, and the numbers of the first epoch as tensors."""
    more = helper(name).together(name) | {"batch": 2 // processes, "optimizer": "sgd"}
    called = f"of{processes}x{threads}"
    options = tiny_training(name, folder, **more) | {"name": called}
    words = as_options({**options.pop("model_args"), **options})
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    start = [*(torchrun if processes > 1 else []), "-m", "maskwright", "train"]
    done = subprocess.run(
        [sys.executable, *start, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = options["project"] / "train" / called
    found: dict[str, Any] = load_checkpoint(run / "weights" / "last.safetensors").model
    row = {k: torch.tensor(float(v)) for k, v in table(run)[0].items() if v}
    return {**found, **row}


def distances(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Return how far each tensor is from its other; what is undefined must be so in both."""
    found = {}
    for key, value in a.items():
        assert torch.equal(value.isnan(), b[key].isnan()), key
        gap = (value - b[key]).double().abs().nan_to_num(0.0)
        found[key] = float(gap.max()) if gap.numel() else 0.0
    return found


def apart(a: dict[str, Any], b: dict[str, Any], allowed: dict[str, float]) -> list[str]:
    """Return what differs by more than 1e-5, a ten-thousandth of it, or what is allowed."""
    assert a.keys() == b.keys()
    found = []
    for key, value in distances(a, b).items():
        largest = float(a[key].double().abs().max()) if a[key].numel() else 0.0
        if value > max(1e-5 + 1e-4 * largest, allowed.get(key, 0.0)):
            found.append(f"{key}: {value:.2e} of {largest:.2e}")
    return found
