"""One exported tiny model for all tests of a process, since writing one takes seconds."""

from __future__ import annotations

import pytest
from tiny_exports import Exported, photos, tiny_predictor

from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport


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
