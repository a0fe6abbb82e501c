"""Trainings that a clock ends: how many steps, which learning rates, and how they go on."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import table

import maskwright.training.train as module
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.training.optim import lr_factor
from maskwright.training.place import Place
from maskwright.training.train import train

FIRST, LATER = 30.0, 1.0  # seconds of the first step, as of libraries that warm up, and the others


def digits(folder: Path) -> dict[str, Any]:
    """Draw seven bright and seven dark images; return options of a training that is quick."""
    for name, grey in (("bright", 200), ("dark", 50)):
        for split, count in (("train", 5), ("val", 2)):
            place = folder / "data" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (28, 28), grey + number).save(place / f"{number}.png")
    options: dict[str, Any] = {"data": folder / "data", "model": "lenet5", "weights": "none"}
    options |= {"project": folder / "runs", "device": "cpu", "workers": 0, "batch": 2}
    return {**options, "freeze": 0, "lr": 1e-3, "patience": 0}


class Clock:
    """A clock that only training steps move on; may send a signal within one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.now, self.rates, self.stop_at = 0.0, [], stop_at

    def install(self, patch: pytest.MonkeyPatch) -> None:
        optimise = module.optimise

        def timed(run: Any, *rest: Any) -> bool:
            if run.place.step + 1 == self.stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            self.now += FIRST if run.place.step == 0 else LATER
            stop = optimise(run, *rest)
            self.rates.append(run.optimizer.param_groups[0]["lr"])
            return stop

        patch.setattr(module, "optimise", timed)
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.usefixtures("no_figures")
def test_minutes_end_a_training_and_its_learning_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = digits(tmp_path) | {"minutes": 0.5, "val_every": 100}
    runs = []
    for stop_at in (0, 13):
        clock = Clock(stop_at)
        with pytest.MonkeyPatch.context() as patch:
            clock.install(patch)
            result = train(**options)
            assert result.interrupted == bool(stop_at)
        if result.interrupted:
            place = load_checkpoint(result.last, training=True).training.scalars["place"]
            assert (place["step"], place["spent"]) == (13, 12.0)
            clock.stop_at, clock.now = 0, clock.now + 1e6  # the run lies idle for long
            with pytest.MonkeyPatch.context() as patch:
                clock.install(patch)
                result = train(resume=result.dir)
        runs.append(result)
        rates = clock.rates
        # The first step does not count: 30 seconds hold 30 more.
        assert len(rates) == 31 and int(table(result.dir)[-1]["step"]) == 31
        top = rates.index(max(rates))
        assert 1 <= top <= 5 and max(rates) <= options["lr"]
        assert all(a < b for a, b in pairwise(rates[: top + 1]))
        assert all(a >= b for a, b in pairwise(rates[top:]))
        assert rates[0] < 0.01 * options["lr"] and rates[-1] < 0.05 * options["lr"]
    assert table(runs[0].dir) == table(runs[1].dir)
    ours, theirs = (load_checkpoint(run.last).model for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    text = capsys.readouterr().out
    assert "all 31 steps are done that 0.5 minutes hold" in text


def test_the_estimate_of_steps() -> None:
    assert Place().steps_in(60) == Place(step=1).steps_in(60) - 1 == 10**6
    assert Place(step=11, spent=10.0).steps_in(60) == 61
    assert Place(step=11, spent=59.999).steps_in(60) == 12  # one more, however short
    assert Place(step=70, spent=60.0).steps_in(60) == 70
    # Along the way the rate is that of a training whose number of steps is known.
    recipe = DetectionRecipe(data="x", minutes=1.0)
    for step in range(120, 1000, 7):
        total = Place(step=step, spent=(step - 1) * 0.06).steps_in(60)
        assert lr_factor(recipe, step, total) == pytest.approx(lr_factor(recipe, step, 1001))
