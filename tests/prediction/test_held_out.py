"""`val` on data without a split val looks at the images that the training held out."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from maskwright.cli import main
from maskwright.prediction.val import val
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK
from maskwright.training.prepare import open_splits
from maskwright.training.train import train


@pytest.fixture
def one_split(coins: Path, tmp_path: Path) -> Path:
    """A data set of seven images in one folder, with one COCO JSON."""
    shutil.copytree(coins / "images" / "train", tmp_path / "one" / "images")
    shutil.copy(coins / "annotations" / "train.json", tmp_path / "one" / "annotations.json")
    return tmp_path / "one"


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_the_printed_command_scores_what_training_scored(
    options: dict[str, Any], one_split: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options |= {"data": one_split, "val_fraction": 0.4, "epochs": 1, "seed": 3, "max_det": 7}
    result = train(**options)
    printed = capsys.readouterr()
    printed_line = f"maskwright val model={result.dir} data={one_split} max_det=7"
    assert printed_line in (printed.out + printed.err)
    same_options: dict[str, Any] = {"max_det": 7, "workers": 0, "device": "cpu"}
    scored = val(result.dir, one_split, save=tmp_path / "scored", **same_options)
    assert "3 images that the training held out" in capsys.readouterr().out
    for key, value in result.metrics.items():
        same = math.isnan(value) and math.isnan(scored[key])
        assert same or scored[key] == pytest.approx(value, abs=1e-6), key
    held = open_splits(TASK, DetectionRecipe(**options))[1]
    assert held is not None
    found = json.loads((tmp_path / "scored" / "detections.json").read_text())
    assert {one["image_id"] for one in found} <= {held[i].image_id for i in range(len(held))}
    moved = shutil.move(one_split, tmp_path / "elsewhere")
    assert main(["val", f"model={result.dir}", f"data={moved}", "workers=0", "device=cpu"]) == 0
    # One image fewer, and the division would be another one.
    content = json.loads((tmp_path / "elsewhere" / "annotations.json").read_text())
    for count in (6, 1):
        content["images"] = content["images"][:count]
        (tmp_path / "elsewhere" / "annotations.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"cannot be told: name split=train"):
            val(result.dir, tmp_path / "elsewhere", workers=0, device="cpu")
    assert val(result.dir, moved, split="train", workers=0, device="cpu")


@pytest.mark.usefixtures("no_figures")
def test_a_split_of_its_own_is_no_division(options: dict[str, Any], coins: Path) -> None:
    result = train(**options | {"epochs": 1})
    assert "held_out" not in load_checkpoint(result.last).meta.extra
    with pytest.raises(ValueError, match="has no 'val' split"):
        val(result.dir, coins / "annotations" / "train.json", workers=0, device="cpu")
