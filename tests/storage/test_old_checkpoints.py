"""Checkpoints written before models had tasks: two of a tiny Mask R-CNN, and what it found then.

`mask_rcnn_best` is the best epoch of a training of one epoch, `mask_rcnn_last` that of another,
stopped in its first epoch; `expected.json` holds what the first found in an image, and the table
that the second came to where nobody had stopped it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import make_split, table

import maskwright as mw

FILES = Path(__file__).parent / "files"


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FILES / "expected.json").read_text())
    return content


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coins")
    make_split(root, "train", 7, seed=0)
    make_split(root, "val", 3, seed=1)
    return root


@pytest.mark.filterwarnings("ignore:.*may be more objects")
def test_they_find_what_they_found(coins: Path, expected: dict[str, Any]) -> None:
    predictor = mw.load(FILES / "mask_rcnn_best.safetensors", device="cpu")
    result = predictor(coins / "images" / "val" / "val0.png", conf=0.01)
    assert result.names == ["coin"]
    torch.testing.assert_close(result.boxes, torch.tensor(expected["boxes"]), rtol=0, atol=1e-2)
    torch.testing.assert_close(result.scores, torch.tensor(expected["scores"]), rtol=0, atol=1e-4)
    same = [a == b for a, b in zip(result.rle, expected["rle"], strict=True)]
    assert sum(same) >= 0.9 * len(same)  # a pixel on the border may be rounded otherwise


def test_a_stopped_training_goes_on(coins: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(FILES / "mask_rcnn_last.safetensors", weights / "last.safetensors")
    done = mw.train(resume=tmp_path / "run", data=coins)
    assert not done.interrupted and done.best is not None
    rows = table(tmp_path / "run")
    assert len(rows) == len(expected["table"]) == 2
    for row, before in zip(rows, expected["table"], strict=True):
        for key, value in before.items():
            if key.startswith("train/"):
                assert float(row[key]) == pytest.approx(float(value), rel=1e-3), key
        assert row["step"] == before["step"] and row["lr"] == before["lr"]


def test_they_start_a_training(coins: Path, tmp_path: Path) -> None:
    done = mw.train(
        coins,
        weights=FILES / "mask_rcnn_best.safetensors",
        project=tmp_path,
        device="cpu",
        workers=0,
        steps=1,
        val_fraction=0,
    )
    assert done.best is not None
