"""Exported tiny models that tests share, since writing one takes half a minute."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tiny_exports import Exported, photos, tiny_predictor

from maskwright.exporters.export import export
from maskwright.exporters.report import ExportReport
from maskwright.prediction.predictor import Predictor


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what needs a shared file: the process that takes other tests finds it written."""
    here = Path(__file__).parent
    items.sort(
        key=lambda item: item.path.parent == here and "exported" not in vars(item)["fixturenames"]
    )


def export_once(
    factory: pytest.TempPathFactory, name: str, predictor: Predictor, **options: Any
) -> tuple[Path, ExportReport]:
    """Export to ONNX, or take what another process of this run has exported under this name."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    path, kept = root / f"{name}.onnx", root / f"{name}.report"
    with FileLock(root / f"{name}.lock"):
        if not kept.exists():
            reports: list[ExportReport] = []
            export(predictor, "onnx", path, report=reports.append, **options)
            kept.write_bytes(pickle.dumps(reports[0]))
        return path, pickle.loads(kept.read_bytes())


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny Mask R-CNN as ONNX, for any batch and any size."""
    source, predictor = photos(tmp_path_factory.mktemp("photos")), tiny_predictor()
    options: dict[str, Any] = {"imgsz": None, "max_det": 20, "source": source}
    path, report = export_once(tmp_path_factory, "tiny", predictor, **options)
    return Exported(path, predictor, source, report)


@pytest.fixture(scope="session")
def own(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same model for one image of 64 x 96, with thresholds and a window of its own."""
    detector, meta = exported.predictor.detector, exported.predictor.meta
    trained = Predictor(detector, replace(meta, window=(300.0, 5001.5)), device="cpu")
    options: dict[str, Any] = {"imgsz": (64, 96), "batch": 1, "source": exported.photos}
    options |= {"conf": 0.3, "iou": 0.6, "max_det": 15}
    path, report = export_once(tmp_path_factory, "own", trained, **options)
    return Exported(path, trained, exported.photos, report)
