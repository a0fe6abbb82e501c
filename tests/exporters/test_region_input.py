"""Graphs of detectors whose regions come from outside: a third input, wherever they run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_runtime import as_detections
from tiny_exports import Exported, photos, tiny_predictor

import maskwright as mw
from maskwright import runtime
from maskwright.cli import main
from maskwright.data.pixels.images import load_image
from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.models import PostProcess
from maskwright.proposals import make_source
from maskwright.tasks.detection.exporting.agreement import agrees, compare

LIMITS = {"conf": 0.01, "max_det": 20}
POST = PostProcess(0.01, 0.5, 20)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("fast")
    source = photos(folder)
    predictor = tiny_predictor("fast_rcnn_vgg16")
    reports: list[ExportReport] = []
    path = export(
        predictor,
        "onnx",
        folder / "out" / "fast.onnx",
        imgsz=None,
        source=source,
        report=reports.append,
        **LIMITS,
    )
    return Exported(path, predictor, source, reports[0])


def test_an_image_without_regions_is_among_those_compared(fast: Exported) -> None:
    total = {case.what: case.match.total for case in fast.report.cases}
    assert total.pop("flat grey") == 0
    assert all(count > 3 for count in total.values())


@pytest.mark.filterwarnings("ignore:max_det")
def test_the_file_finds_what_the_model_finds(fast: Exported) -> None:
    graph = mw.load(fast.path)
    assert graph.detector.proposal_source == "sliding_window:24"
    assert graph.detector.max_proposals == 50
    photo = fast.photos / "0.png"
    found, expected = (model(photo, **LIMITS).detections for model in (graph, fast.predictor))
    match = compare(expected, found, POST, "grid")
    assert agrees([match]) and match.total > 3
    fewer = mw.load(fast.path, proposal_source="sliding_window:3")(photo, **LIMITS)
    assert 0 < len(fewer) <= 3 * 2  # of two classes each


@pytest.mark.filterwarnings("ignore:max_det")
def test_without_torch_the_caller_gives_the_regions(fast: Exported) -> None:
    model = runtime.load(fast.path, threads=1)
    assert model.spec["regions"] == {"slots": 50, "source": "sliding_window:24"}
    photo = load_image(fast.photos / "1.png")
    regions = make_source("sliding_window:24")(photo).boxes
    found = model(photo, regions=regions, **LIMITS)
    expected = fast.predictor(photo, **LIMITS)
    match = compare(expected.detections, as_detections(found), POST, "grid")
    assert agrees([match]) and match.total > 3
    assert len(model(photo, regions=np.zeros((0, 4)), **LIMITS)) == 0
    many = np.concatenate([regions, np.tile(regions, (5, 1))])  # more than there are slots
    assert len(model(photo, regions=many, **LIMITS)) == len(found)
    with pytest.raises(ValueError, match="takes regions with the image"):
        model(photo, **LIMITS)


def test_a_model_that_finds_its_regions_takes_none(exported: Exported) -> None:
    model = runtime.load(exported.path, threads=1)
    with pytest.raises(ValueError, match="finds its regions itself"):
        model(np.zeros((40, 50, 3), np.uint8), regions=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="finds its regions itself"):
        mw.load(exported.path, proposal_source="sliding_window")


@pytest.mark.filterwarnings("ignore:max_det")
def test_the_command_takes_another_source(
    fast: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"predict model={fast.path} source={fast.photos} conf=0.01 max_det=20 save=false"
    assert main([*line.split(), "proposal_source=sliding_window:1"]) == 0
    assert main([*line.split(), "proposal_source=missing.npz"]) == 1
    assert "missing.npz: there is no such file" in " ".join(capsys.readouterr().err.split())
