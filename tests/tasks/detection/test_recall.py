"""The command that computes proposals and measures them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.metrics.detection.proposal_recall import proposal_recall
from maskwright.proposals import make_source


@pytest.mark.figures
def test_the_command_writes_curves_and_a_file_that_can_be_used(
    coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path / "cache"))
    line = f"proposals data={coins} source=sliding_window:100 workers=0 project={tmp_path / 'runs'}"
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    assert "recall at IoU 0.5" in said and "11 objects" in said
    folder = tmp_path / "runs" / "proposals" / "proposals"
    with Image.open(folder / "recall.png") as picture:
        assert picture.size[0] > 800
    with (folder / "recall.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["proposals"] for row in rows][:3] == ["1", "3", "10"]

    dataset = open_dataset(coins, "train")
    source = make_source(str(folder / "proposals.npz"))
    direct = make_source("sliding_window:100")
    found = []
    for i in range(len(dataset)):
        image = dataset.image(i)
        found.append(source(image, image_file=dataset[i].path).boxes)
        assert np.array_equal(found[-1], direct(image).boxes)
    recall = proposal_recall([dataset[i].boxes for i in range(len(dataset))], found)
    assert float(rows[-1]["recall@0.5"]) == pytest.approx(recall.recall[-1, 0], abs=1e-6)
    assert float(rows[-1]["average_recall"]) == pytest.approx(recall.average[-1], abs=1e-6)


def test_wrong_use_is_named(coins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proposals", f"data={coins}", "source=windows"]) == 2
    assert main(["proposals", f"data={coins}", "count=0"]) == 2
    assert main(["proposals", f"data={coins}", "source=nowhere.json"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "expected selective_search" in said and "count is at least 1" in said
    assert "no such file of proposals" in said
