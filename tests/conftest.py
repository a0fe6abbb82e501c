"""Fixtures shared by all tests."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import blank, make_split, run_in_log, tiny_options

# Commands that tests run in this process would change how its C library allocates, for good.
os.environ["MASKWRIGHT_KEEP_MEMORY"] = "0"

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Leave figures white but in tests marked `figures`: they are made, and not painted."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("figures") is None:
            patch.setattr("matplotlib.figure.Figure.savefig", blank)
        return (yield)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets, which live beside the checkout and not in it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return path


@pytest.fixture(scope="session")
def nuclei_mini() -> Path:
    """Folder of the mini data set of the repository (nuclei, CC0)."""
    return ROOT / "examples" / "nuclei_mini"


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
    monkeypatch.setattr("maskwright.training.conclusion.write_report", touch_report)


@pytest.fixture(scope="session")
def forked() -> ForkServerContext:
    """Where processes are forked from one that has imported everything: they start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(WARM))
    return context


@pytest.fixture(scope="session")
def start(forked: ForkServerContext) -> Callable[..., BaseProcess]:
    """Start a training in a process of its own."""

    def begin(log: Path, options: dict[str, Any], limit: int | None = None) -> BaseProcess:
        process = forked.Process(target=run_in_log, args=(log, options, limit))
        process.start()
        return process

    return begin
