"""Exported tiny models that tests share, since writing one takes half a minute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_exports import Exported, photos, tiny_predictor

from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.prediction.predictor import Predictor


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep together what shares a model (`--dist loadgroup`): no two processes write the same."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.path.parent != Path(__file__).parent or item.get_closest_marker("slow"):
                continue  # the long ones share nothing
            names = getattr(item, "fixturenames", [])
            group = "exported" if "exported" in names else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny Mask R-CNN as ONNX, for any batch and any size."""
    folder = tmp_path_factory.mktemp("exported")
    source = photos(tmp_path_factory.mktemp("photos"))
    predictor = tiny_predictor()
    reports: list[ExportReport] = []
    path = export(
        predictor,
        "onnx",
        folder / "tiny.onnx",
        imgsz=None,
        max_det=20,
        source=source,
        report=reports.append,
    )
    return Exported(path, predictor, source, reports[0])


@pytest.fixture(scope="session")
def own(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same model for one image of 64 x 96, with thresholds and a window of its own."""
    detector, meta = exported.predictor.detector, exported.predictor.meta
    trained = Predictor(detector, replace(meta, window=(300.0, 5001.5)), device="cpu")
    reports: list[ExportReport] = []
    path = export(
        trained,
        "onnx",
        tmp_path_factory.mktemp("own") / "own.onnx",
        imgsz=(64, 96),
        batch=1,
        conf=0.3,
        iou=0.6,
        max_det=15,
        source=exported.photos,
        report=reports.append,
    )
    return Exported(path, trained, exported.photos, reports[0])
