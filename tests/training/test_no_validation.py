"""Trainings without validation images, with those of the training, and with held-out ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import stopping_after, table

from maskwright.cli import main
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK
from maskwright.training.prepare import open_splits
from maskwright.training.resume import find_run
from maskwright.training.train import train


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def test_all_images_train(
    options: dict[str, Any], coins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options |= {"data": coins / "annotations" / "train.json", "val_fraction": 0, "patience": 1}
    result = train(**options, ema=0.5)
    printed = capsys.readouterr()
    said = " ".join((printed.out + printed.err).split())
    assert "7 train, 0 val images" in said
    assert said.count("no validation (val_fraction=0)") == 1
    assert "nan" not in said
    assert (result.metrics, result.interrupted) == ({}, False)
    rows = table(result.dir)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert not any(key.startswith("val/") for key in rows[0])
    assert (result.dir / "results.png").is_file()
    # The newest weights are the best: with an average, those of the average.
    assert result.best is not None
    last = load_checkpoint(result.last, training=True)
    assert last.training is not None
    best = load_checkpoint(result.best).model
    assert all(torch.equal(best[key], value) for key, value in last.training.ema.items())
    # What follows a training works.
    data = f"data={coins}"
    assert main(["val", f"model={result.dir}", data, "workers=0", "save=no", "device=cpu"]) == 0
    with pytest.raises(ValueError, match="nothing to resume, all 8 steps are done"):
        train(resume=result.dir)


@pytest.mark.usefixtures("no_figures")
def test_no_validation_goes_on(options: dict[str, Any], coins: Path) -> None:
    options |= {"data": coins / "annotations" / "train.json", "val_fraction": 0}
    whole = train(**options, name="whole")

    with stopping_after(5):
        part = train(**options, name="part")
    assert part.interrupted and part.best is not None
    done = train(resume=part.dir)
    assert done.best is not None and whole.best is not None
    ours, theirs = (load_checkpoint(path).model for path in (done.best, whole.best))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.usefixtures("no_figures")
def test_validation_on_the_training_images_is_said(
    options: dict[str, Any], coins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "same.yaml"
    one = coins / "annotations" / "train.json"
    file.write_text(f"train: {one}\nval: {one}\nimages: {coins / 'images/train'}\n")
    result = train(**options | {"data": file, "steps": 2})
    said = " ".join(capsys.readouterr().err.split())
    assert "7 of 7 validation images are training images" in said
    assert "box/AP" in result.metrics


def test_an_older_run_keeps_its_validation_images(coins: Path, tmp_path: Path) -> None:
    """It knows nothing of `holdout`: its images were drawn by chance alone."""
    data = coins / "annotations/train.json"
    rules: tuple[Any, ...] = ("random", "stratified")

    def held(recipe: DetectionRecipe) -> set[str]:
        val = open_splits(TASK, recipe)[1]
        assert val is not None
        return val.files()

    recipes = [
        [DetectionRecipe(data=data, val_fraction=0.3, seed=seed, holdout=rule) for rule in rules]
        for seed in range(10)
    ]
    random, stratified = next(pair for pair in recipes if held(pair[0]) != held(pair[1]))
    older = {key: value for key, value in random.to_dict().items() if key != "holdout"}
    for options, expected in ((older, random), (stratified.to_dict(), stratified)):
        content = options | {"resolved": {"processes": 1}}
        (tmp_path / "args.yaml").write_text(yaml.safe_dump(content))
        resumed = find_run({"resume": tmp_path}, DetectionRecipe(resume=tmp_path))
        assert held(resumed.recipe) == held(expected)
