"""Fixtures of tests that train."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import make_split, run_in_log, tiny_options

WARM = (
    *("torch", "torchvision", "timm", "lightning_fabric", "hotcoco", "pycocotools.mask"),
    *("matplotlib.figure", "torch.utils.tensorboard", "maskwright.cli", "maskwright.hub.loading"),
    *(
        "maskwright.training.train",
        "maskwright.drawing.draw",
        "maskwright.metrics.detection.coco_map",
    ),
)


@pytest.fixture(scope="session")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a drawn data set: 7 images to train on, 3 to validate."""
    root = tmp_path_factory.mktemp("coins")
    make_split(root, "train", 7, seed=0)
    make_split(root, "val", 3, seed=1)
    return root


@pytest.fixture
def options(coins: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a training of the tiny model that takes a few seconds."""
    return tiny_options(coins, tmp_path / "runs")


def touch_report(run: Any) -> None:
    """Stand in for the report: only that it was written can be seen."""
    (run.dir / "report.html").touch()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time in a training this small."""
    for place in (
        "reports.curves.plot_results",
        "tasks.detection.reporting.label_figure.plot_labels",
    ):
        monkeypatch.setattr(f"maskwright.{place}", lambda *args: None)
    monkeypatch.setattr("maskwright.training.train._write_report", touch_report)


@pytest.fixture(scope="session")
def start() -> Callable[..., BaseProcess]:
    """Start a training in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(WARM))

    def begin(log: Path, options: dict[str, Any], limit: int | None = None) -> BaseProcess:
        process = context.Process(target=run_in_log, args=(log, options, limit))
        process.start()
        return process

    return begin
