"""Labels beside a trained model, from the command to the page and the list."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import maskwright as mw
from maskwright.cli import main
from maskwright.errors import OptionError
from maskwright.models import Meta, build_tiny
from maskwright.prediction.label_check import check_labels
from maskwright.prediction.predictor import Predictor

TASKS = Path(__file__).parents[1] / "tasks"


def overlap(a: list[float], b: list[float]) -> float:
    """Return the IoU of two boxes, xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (areas - both)


@pytest.fixture(scope="module")
def disturbed(
    nuclei_mini: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Two images of nuclei, without the label that the model finds best, and what it finds."""
    root = tmp_path_factory.mktemp("disturbed")
    content = json.loads((nuclei_mini / "annotations" / "val.json").read_text())
    content["images"] = content["images"][:2]
    image = content["images"][1]
    ids = [one["id"] for one in content["images"]]
    rows = [row for row in content["annotations"] if row["image_id"] in ids]
    (root / "images").mkdir()
    shutil.copytree(nuclei_mini / "images" / "val", root / "images" / "val")
    found = mw.load("nuclei")(root / "images" / "val" / image["file_name"], conf=0.05)
    boxes = {
        row["id"]: [*row["bbox"][:2], *np.add(row["bbox"][:2], row["bbox"][2:]).tolist()]
        for row in rows
        if row["image_id"] == image["id"]
    }
    best = next(  # by falling score
        (box, score, key)
        for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
        for key in boxes
        if overlap(box, boxes[key]) > 0.8
        and all(overlap(box, other) == 0 for k, other in boxes.items() if k != key)
    )
    content["annotations"] = [row for row in rows if row["id"] != best[2]]
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    return root, {"image_id": image["id"], "box": best[0], "score": best[1]}


def test_a_label_that_was_taken_away_is_found_again(
    disturbed: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, gone = disturbed
    line = f"data check data={data} model=nuclei top=2 workers=0 project={tmp_path} conf=0.2"
    assert main(line.split()) == 0
    text = capsys.readouterr().out
    assert "missing" in text and "whether the model was trained on these images is not" in text
    folder = tmp_path / "check" / "check"
    rows = json.loads((folder / "suspects.json").read_text())
    with (folder / "suspects.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["score"]) for row in table] == [row["score"] for row in rows]
    assert [row["score"] for row in rows] == sorted((r["score"] for r in rows), reverse=True)
    (again,) = [
        row
        for row in rows
        if row["kind"] == "missing"
        and row["image_id"] == gone["image_id"]
        and overlap(row["found_box"], gone["box"]) > 0.9
    ]
    # It overlaps no other label by its box, and hardly one by its mask.
    assert again["score"] == pytest.approx(gone["score"], abs=0.02)
    assert again["confidence"] == pytest.approx(gone["score"], abs=0.001)
    assert again["annotation"] is None and again["label_box"] is None
    page = (folder / "report.html").read_text()
    assert page.count("<figure data-kind=") == page.count('src="data:image/jpeg') == 2


@pytest.mark.parametrize(
    ("task", "name", "count"),
    [
        ("classification", "lenet5", 2),
        ("semantic", "unet", 3),
        ("localization", "locate_resnet18", 1),
    ],
)
def test_every_task_compares_its_labels(task: str, name: str, count: int, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"tiny_{task}", TASKS / task / "tiny.py")
    assert spec is not None and spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    data = tiny.write(tmp_path / "data")
    names = {"classification": ["disc", "square"], "localization": ["coin"]}
    torch.manual_seed(0)
    meta = Meta(name, {}, list(names.get(task, getattr(tiny, "NAMES", ()))))
    predictor = Predictor(build_tiny(name, count), meta, device="cpu")
    report = check_labels(
        predictor, data, conf=0.0, top=3, workers=0, save=True, project=tmp_path / "runs"
    )
    assert report.page is not None and report.page.is_file()
    rows = json.loads((report.page.parent / "suspects.json").read_text())
    assert len(rows) == len(report.suspects)
    assert {row["kind"] for row in rows} <= set(report.kinds)
    assert all(0 < one.score <= 1 for one in report.suspects)


def test_wrong_options(
    disturbed: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = disturbed
    for line, message in (
        (f"data check {data} top=3", "top: to compare labels with a model, give model=... too"),
        (f"data check {data} model=nuclei samples=3", "samples is for the search for faults"),
        (f"data check {data} model=nuclei conf=2", "conf lies between 0 and 1, got 2"),
        (f"data check {data} model=nuclei top=-1", "top must be at least 0"),
        (f"data check {data} model=nuclie", "did you mean 'nuclei'?"),
    ):
        assert main(line.split()) == 2, line
        assert message in capsys.readouterr().err
    with pytest.raises(OptionError, match="weights is for a model given by its name"):
        model = Predictor(build_tiny("lenet5", 2), Meta("lenet5", {}, ["a", "b"]), device="cpu")
        check_labels(model, data, weights="coco")
