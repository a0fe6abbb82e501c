"""Which epoch is the best, where the AP is a number, undefined, or first one and then the other."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import table

import maskwright.training.train as module
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.evaluate import fitness
from maskwright.training.best import is_better, undefined_note, waited
from maskwright.training.place import Place
from maskwright.training.train import train

NAN = math.nan


def judged(*scores: float) -> tuple[list[bool], Place]:
    """Return whether each epoch was the best so far, and where the training stands then."""
    place, found = Place(), []
    for score in scores:
        place.epoch += 1
        found.append(is_better(place, score))
    return found, place


@pytest.mark.parametrize(
    ("scores", "better", "best", "best_epoch", "no_better_for"),
    [
        ((0.0, 0.2, 0.2, 0.1), [True, True, False, False], 0.2, 2, 2),
        ((NAN, NAN, NAN), [True, True, True], -1.0, 3, 0),
        ((NAN, 0.0, NAN, 0.0), [True, True, False, False], 0.0, 2, 1),
        ((0.3, NAN, NAN, 0.4, NAN), [True, False, False, True, False], 0.4, 4, 0),
        ((0.3, NAN, 0.2, math.inf, 0.1), [True, False, False, False, False], 0.3, 1, 2),
    ],
)
def test_the_best_epoch(
    scores: tuple[float, ...],
    better: list[bool],
    best: float,
    best_epoch: int,
    no_better_for: int,
) -> None:
    found, place = judged(*scores)
    assert (found, place.best, place.best_epoch) == (better, best, best_epoch)
    assert waited(place) == no_better_for


def test_fitness_takes_what_is_defined() -> None:
    assert fitness({"box/AP": 0.3, "mask/AP": 0.2, "keypoints/AP": 0.6}) == pytest.approx(0.4)
    assert fitness({"box/AP": 0.3, "mask/AP": 0.2, "keypoints/AP": NAN}) == 0.2
    assert fitness({"box/AP": 0.3, "keypoints/AP": NAN}) == 0.3
    assert math.isnan(fitness({"box/AP": NAN, "mask/AP": NAN}))
    assert math.isnan(fitness({}))


def test_it_is_said_when_it_is_news() -> None:
    place, said = Place(), []
    for score in (NAN, NAN, 0.1, NAN, NAN, 0.2):
        place.epoch += 1
        said.append(math.isnan(score) and bool(undefined_note(place, "why")))
        is_better(place, score)
    assert said == [True, False, False, True, False, False]


@pytest.fixture
def without_objects(coins: Path, tmp_path: Path) -> Path:
    """The coins, with val images that hold none."""
    root = shutil.copytree(coins, tmp_path / "without")
    path = root / "annotations" / "val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    return root


@pytest.fixture
def one_thread() -> Any:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.mark.usefixtures("one_thread")
def test_undefined_ap_uses_no_patience(
    options: dict[str, Any], without_objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(
        **options | {"data": without_objects, "epochs": 4, "patience": 2, "batch": 8, "lr": 1e-3}
    )
    assert [row["val/box/AP"] for row in table(result.dir)] == ["nan"] * 4
    assert math.isnan(result.metrics["box/AP"]) and result.best is not None
    last = load_checkpoint(result.last, training=True)
    assert last.training is not None
    place = last.training.scalars["place"]
    assert (place["epoch"], place["best_epoch"], place["best"]) == (4, 4, -1.0)
    best = load_checkpoint(result.best).model
    assert all(torch.equal(best[key], last.model[key]) for key in best)
    out, err = capsys.readouterr()
    assert err.count("hold no object to find") == 1
    assert "best 0.0000" not in out and "AP is undefined, the latest weights are in" in out
    assert (result.dir / "report.html").exists()


@pytest.mark.usefixtures("one_thread", "no_figures")
def test_a_run_goes_on_from_undefined_to_numbers(
    options: dict[str, Any],
    coins: Path,
    without_objects: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an older version left it: what is undefined stood there as 0, reached in epoch 1."""
    original = module.finish_epoch

    def finish_epoch(run: Any, *args: Any, **kwargs: Any) -> None:
        original(run, *args, **kwargs)
        run.place.best, run.place.best_epoch = 0.0, 1
        run.save_last()
        if run.place.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "finish_epoch", finish_epoch)
    options |= {"batch": 8, "epochs": 3, "patience": 1}
    with pytest.raises(KeyboardInterrupt):
        train(**options | {"data": without_objects})
    monkeypatch.setattr(module, "finish_epoch", original)
    folder = options["project"] / "train" / "train"
    result = train(resume=folder, data=coins)
    assert len(table(folder)) == 3 and 0 <= result.metrics["mask/AP"] <= 1
    state = load_checkpoint(result.last, training=True).training
    assert state is not None and state.scalars["place"]["best_epoch"] == 3
