"""What a validation advises: one threshold in all places, and a command that finds what it says."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import make_split, tiny_options

from maskwright.cli import main
from maskwright.drawing import figures
from maskwright.prediction.val import ValResult, val
from maskwright.tasks.detection.reporting import report
from maskwright.tasks.detection.reporting.diagnosis import DEFAULT_CONF
from maskwright.training.train import train

MINI = Path(__file__).resolve().parents[3] / "examples" / "nuclei_mini"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of nuclei under a path with a blank in it."""
    root = tmp_path_factory.mktemp("a b") / "my data"
    source = json.loads((MINI / "annotations" / "val.json").read_text())
    source["images"] = source["images"][:3]
    kept = {image["id"] for image in source["images"]}
    source["annotations"] = [a for a in source["annotations"] if a["image_id"] in kept]
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(json.dumps(source))
    for image in source["images"]:
        (file,) = (MINI / "images").rglob(Path(image["file_name"]).name)
        shutil.copy(file, root / "images" / "val")
    return root


@pytest.fixture(scope="module")
def done(data: Path) -> ValResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 25)
        return val(
            "nuclei", data, save=True, imgsz=128, max_det=60, workers=0, device="cpu",
            project=data.parent / "runs",
        )  # fmt: skip


def test_the_printed_command_finds_what_the_report_says(
    done: ValResult, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, command = done.diagnosis, done.command
    assert found is not None and found.best is not None and command is not None
    words = shlex.split(command)
    assert words[:3] == ["maskwright", "predict", "model=nuclei"]
    assert f"source={data / 'images' / 'val'}" in words
    assert {"imgsz=128", "max_det=60", f"conf={found.best.conf:g}"} <= set(words)
    monkeypatch.chdir(data.parent)
    assert main([*words[1:], "device=cpu", "name=again"]) == 0
    (folder,) = (data.parent / "runs").rglob("again")
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    counts = {Path(file["path"]).name: len(file["objects"]) for file in files}
    names = sorted(path.name for path in (data / "images" / "val").iterdir())
    stated = json.loads((done.dir / "metrics.json").read_text())["diagnostics"]["images"]  # type: ignore[operator]
    said = {Path(one["file"]).name: one["right"] + one["wrong"] for one in stated["worst_first"]}
    assert counts == said and sorted(counts) == names and sum(counts.values()) > 20


def test_one_threshold_in_all_places(done: ValResult) -> None:
    found, folder = done.diagnosis, done.dir
    assert found is not None and found.best is not None and folder is not None
    assert found.conf == found.best.conf
    numbers = json.loads((folder / "metrics.json").read_text())["diagnostics"]
    assert numbers["confusion_matrix"]["conf"] == numbers["images"]["conf"] == found.conf
    shown = np.float32(found.conf)
    rows = json.loads((folder / "detections.json").read_text())
    passing = sum(np.float32(row["score"]) > shown for row in rows)
    assert np.sum(numbers["confusion_matrix"]["counts"], 0)[0] == passing
    assert found.conf != DEFAULT_CONF
    page = (folder / report.REPORT).read_text()
    assert page.count(f"conf={found.conf:g}") >= 3


def test_what_was_cut_off_is_not_advised(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 25)
    result = val(
        "nuclei", data, conf=0.6, save=True, imgsz=128, workers=0, device="cpu",
        project=data.parent / "cut",
    )  # fmt: skip
    assert result.diagnosis is not None and result.command is not None
    assert result.diagnosis.conf >= 0.6 and f"conf={result.diagnosis.conf:g}" in result.command


def test_training_that_finds_nothing_right_shows_the_default_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "DPI", 25)
    root = tmp_path / "it's data"
    make_split(root, "train", 4, seed=0)
    make_split(root, "val", 2, seed=1)
    options = tiny_options(root, tmp_path / "runs") | {"epochs": 1, "lr": 1e-6, "max_det": 30}
    run = train(**options).dir
    output = capsys.readouterr().out
    assert "no best F1, because nothing right was found: pictures" in output
    line = next(row for row in output.splitlines() if row.startswith("  maskwright predict"))
    assert shlex.split(line) == [
        "maskwright", "predict", f"model={run}", f"source={root / 'images' / 'val'}",
        f"conf={DEFAULT_CONF:g}", "max_det=30",
    ]  # fmt: skip
    numbers = json.loads((run / "metrics.json").read_text())["diagnostics"]
    assert numbers["mask"]["best"] is None
    assert numbers["confusion_matrix"]["conf"] == numbers["images"]["conf"] == DEFAULT_CONF
    assert "default, is shown instead" in (run / report.REPORT).read_text()
