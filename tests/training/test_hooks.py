"""Functions of the caller and trackers follow a training, and none of them costs any of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import stopping_after, table

import maskwright as mw
from maskwright.errors import NoOptionError, OptionError
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.storage.rundir import ResultsTable
from maskwright.tasks.recipe import LOGS
from maskwright.training.hooks import EVENTS, Moment
from maskwright.training.trackers import KINDS, STATE, Feed

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (28, 28, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def options(photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a training of two epochs, four steps each."""
    return {
        "data": photos,
        "model": "lenet5",
        "weights": "none",
        "project": tmp_path / "runs",
        "device": "cpu",
        "workers": 0,
        "batch": 2,
        "epochs": 2,
        "freeze": 0,
        "patience": 0,
    }


def test_functions_are_called_in_their_order(options: dict[str, Any]) -> None:
    seen: list[Moment] = []
    functions: dict[str, Any] = dict.fromkeys(EVENTS, seen.append)
    functions["on_epoch_end"] = [seen.append, lambda moment: None]
    result = mw.train(**options, **functions)
    steps = ["on_step_end"] * 4
    epoch = [*steps, "on_epoch_end"]
    assert [one.event for one in seen] == ["on_train_start", *epoch, *epoch, "on_train_end"]
    assert [one.step for one in seen] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 8]
    assert [one.epoch for one in seen if one.event == "on_epoch_end"] == [1, 2]
    assert {(one.dir, one.steps) for one in seen} == {(result.dir, 8)}
    ends = [one for one in seen if one.event == "on_epoch_end"]
    for row, moment in zip(ResultsTable(result.dir / "results.csv").rows, ends, strict=True):
        assert row == {k: "" if v is None else repr(v) for k, v in moment.numbers.items()}
    losses = [one.numbers["train/loss"] for one in seen[1:5]]
    assert sum(losses) / 4 == pytest.approx(ends[0].numbers["train/loss"])  # type: ignore[arg-type]
    last = seen[-1]
    assert last.result is result or last.result == result
    assert last.numbers == pytest.approx(result.metrics, nan_ok=True)


def test_one_may_end_the_training(options: dict[str, Any]) -> None:
    def stop(moment: Moment) -> None:
        if moment.step == 2:
            moment.stop()

    result = mw.train(**options | {"epochs": 5, "val_every": 3}, on_step_end=stop)
    (row,) = table(result.dir)
    assert not result.interrupted and row["epoch"] == "1"
    assert row["val/top1"] and (result.dir / "report.html").exists()
    again = mw.train(resume=result.dir)  # what a function wanted is not kept
    assert len(table(again.dir)) == 5


class MineError(OSError):
    """An error that others would be blamed for."""


@pytest.mark.parametrize(("event", "step"), [("on_step_end", 6), ("on_epoch_end", 4)])
def test_an_error_says_whose_it_is_and_loses_nothing(
    options: dict[str, Any], event: str, step: int
) -> None:
    whole = mw.train(**options)

    def careless(moment: Moment) -> None:
        if moment.step == step:
            raise MineError("no space left in my notebook")

    with pytest.raises(MineError, match="my notebook") as caught:
        mw.train(**options, **{event: careless})
    (note,) = caught.value.__notes__
    folder = options["project"] / "train" / "train2"
    assert f"{event}=" in note and "careless (test_hooks.py:" in note
    assert f"maskwright train resume={folder}" in note
    state = load_checkpoint(folder / "weights" / "last.safetensors", training=True).training
    assert state is not None and state.scalars["place"]["step"] == step
    resumed = mw.train(resume=folder)
    assert table(resumed.dir) == table(whole.dir)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on_epoch": print}, "did you mean 'on_epoch_end'"),
        ({"on_epoch_end": "print"}, "a function of one argument"),
        ({"on_train_end": lambda: None}, "called with one argument"),
        ({"on_train_end": [print, 5]}, "a function of one argument"),
        ({"log": "mlfow"}, "did you mean 'mlflow'"),
    ],
)
def test_wrong_functions_and_names(given: dict[str, Any], said: str) -> None:
    with pytest.raises((OptionError, NoOptionError), match=said):
        mw.train("nowhere", **given)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("found", [None, ModuleSpec("a folder of that name", None)])
def test_a_tracker_that_is_not_installed_is_named(
    name: str, found: ModuleSpec | None, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(ImportError, match=rf"pip install 'maskwright\[{name}\]'"):
        mw.train(**options, log=name)
    assert not options["project"].exists()


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the metrics of the only run in a file store of MLflow: steps and values by name."""
    (place,) = folder.glob("*/*/metrics")
    found = {}
    for file in place.rglob("*"):
        if file.is_file():
            rows = [line.split() for line in file.read_text().splitlines()]
            name = file.relative_to(place).as_posix()
            found[name] = [(int(step), float(value)) for _, value, step in rows]
    return found


def expected(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the finite numbers of `results.csv` in the same form."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in ResultsTable(folder / "results.csv").rows:
        for name, text in row.items():
            if text and math.isfinite(float(text)):
                found.setdefault(name, []).append((int(row["step"]), float(text)))
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "store"


def test_mlflow_gets_every_row_once(options: dict[str, Any], store: Path) -> None:
    import mlflow

    seen = []
    with stopping_after(5):
        stopped = mw.train(**options, log="mlflow")
    assert stopped.interrupted
    (run,) = store.glob("*/*/meta.yaml")
    assert "status: 5" in run.read_text()  # killed
    result = mw.train(
        resume=stopped.dir, on_train_end=lambda moment: seen.append(mlflow.active_run())
    )
    assert written(store) == expected(result.dir) and len(table(result.dir)) == 2
    assert "status: 3" in run.read_text()  # finished
    assert (run.parent / "params" / "batch").read_text() == "2"
    artifacts = {path.name for path in run.parent.joinpath("artifacts").rglob("*")}
    assert {"results.csv", "args.yaml", "report.html"} <= artifacts
    assert not {name for name in artifacts if name.endswith(".safetensors")}
    assert seen[0].info.run_id == run.parent.name and mlflow.active_run() is None
    state = json.loads((result.dir / STATE).read_text())
    assert state == {"mlflow": {"run": run.parent.name, "rows": 2}}


def test_the_run_that_the_caller_has_begun_is_used(options: dict[str, Any], store: Path) -> None:
    import mlflow

    with mlflow.start_run(run_name="mine") as run:
        result = mw.train(**options | {"epochs": 1}, log=["mlflow"])
        assert mlflow.active_run() is not None
    assert written(store) == expected(result.dir)
    assert [path.name for path in store.glob("0/*") if path.is_dir()] == [run.info.run_id]


def test_a_run_that_mlflow_has_begun_in_vain_is_ended(
    options: dict[str, Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next training would write into it, as into one that the caller has begun."""
    import mlflow

    def refuse(*args: Any) -> None:
        raise RuntimeError("parameters are too long")

    with monkeypatch.context() as inside:
        inside.setattr(mlflow, "log_params", refuse)
        with pytest.raises(ValueError, match=r"^log=mlflow: parameters are too long$"):
            mw.train(**options, log="mlflow")
    assert mlflow.active_run() is None
    (run,) = store.glob("*/*/meta.yaml")
    assert "status: 4" in run.read_text()  # failed


def test_a_damaged_file_of_trackers_is_named(options: dict[str, Any]) -> None:
    with stopping_after(1):
        stopped = mw.train(**options)
    for text in ("{", '{"mlflow": {"run": "a"}}'):
        (stopped.dir / STATE).write_text(text)
        with pytest.raises(ValueError, match=rf"{STATE} is damaged.*: remove it"):
            mw.train(resume=stopped.dir)


class Broken:
    """A tracker that fails for some calls."""

    fresh, run = True, "one"

    def __init__(self, *fails: int) -> None:
        self.fails, self.calls = fails, 0
        self.rows: list[int] = []

    def add(self, numbers: Any, step: int) -> None:
        self.calls += 1
        if self.calls in self.fails:
            raise ConnectionError("no route\nto anything")
        self.rows.append(step)

    def keep(self, folder: Path, files: list[Path]) -> None:
        assert files

    def close(self, how: str) -> None:
        """Stay."""


def test_rows_that_are_not_taken_are_sent_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ResultsTable(tmp_path / "results.csv")
    tracker = Broken(2, 3)
    feed = Feed("mlflow", tracker, table, 0)
    for step in (4, 8, 12, 16):
        table.append({"step": step, "lr": 0.1})
        feed.send()
    feed.finish(tmp_path)
    assert tracker.rows == [4, 8, 12, 16]
    text = " ".join(capsys.readouterr().err.split())
    assert text.count("does not take the numbers (no route)") == 1
    lost = Broken(*range(9))
    Feed("mlflow", lost, table, 0).finish(tmp_path)
    assert "has not taken 4 of 4 epochs" in " ".join(capsys.readouterr().err.split())


def test_a_tracker_that_cannot_be_reached_ends_it_before_the_first_step(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("no such server\n  in 17 lines")

    monkeypatch.setitem(KINDS, "wandb", refuse)  # type: ignore[arg-type]
    spec = ModuleSpec("wandb", None, origin="somewhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"^log=wandb: no such server$"):
        mw.train(**options, log="wandb")


def records(file: Path) -> Iterator[bytes]:
    """Yield the records of a `.wandb` file: LevelDB's log format behind seven bytes of a header."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    block, place, record = 2**15, 7, b""
    while place < len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb_offline(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with stopping_after(5):
        stopped = mw.train(**options, log="wandb")
    result = mw.train(resume=stopped.dir)
    files = sorted((result.dir / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.stem for file in files}) == 1  # one run, in two parts
    end = time.monotonic() + 60  # its own process writes them, a little later
    while (found := history(files)) != expected(result.dir) and time.monotonic() < end:
        time.sleep(0.2)
    assert found == expected(result.dir)


def history(files: list[Path]) -> dict[str, list[tuple[int, float]]]:
    """Return the numbers in files of Weights & Biases in the form of `expected`."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[tuple[int, float]]] = {}
    for data in (data for file in files for data in records(file)):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for name, value in row.items():
            if not name.startswith("_"):
                found.setdefault(name, []).append((int(row["step"]), value))
    return found


@pytest.mark.slow
def test_mlflow_keeps_runs_in_its_database_by_itself(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    import sqlite3

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = mw.train(**options | {"epochs": 1}, log="mlflow")
    with sqlite3.connect("mlflow.db") as base:
        rows = base.execute("select key, step, value from metrics").fetchall()
    assert {name: [(step, value)] for name, step, value in rows} == expected(result.dir)
