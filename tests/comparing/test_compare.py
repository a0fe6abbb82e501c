"""Several models side by side: the same numbers as each alone, and nothing done twice."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import as_options, make_split

import maskwright as mw
import maskwright.comparing.compare as module
import maskwright.training.train as training
from maskwright.cli import main
from maskwright.comparing.rows import Row, Run, score_of, unbeaten
from maskwright.drawing.trade_off import Point, plot_trade_off

SMALL = "plain20_cifar"


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of bright and dark images: five of each to train on, two to validate."""
    root = tmp_path_factory.mktemp("shades")
    for name, grey in (("bright", 200), ("dark", 50)):
        for split, count in (("train", 5), ("val", 2)):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (28, 28), grey + number).save(place / f"{number}.png")
    return root


@pytest.fixture
def options(shades: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a comparison that takes seconds."""
    own = {"data": shades, "project": tmp_path / "runs", "device": "cpu", "workers": 0}
    return {**own, "batch": 2, "steps": 2, "repeats": 1, "weights": "none"}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, no_figures: None) -> list[str]:
    """Names of the models of each training that begins or goes on; these draw no figures."""
    begun: list[str] = []
    train = module.train

    def counted(**given: Any) -> Any:
        begun.append(str(given.get("model", "resumed")))
        return train(**given)

    monkeypatch.setattr(module, "train", counted)
    return begun


def nothing(*args: Any, **options: Any) -> None:
    """Stand in for what takes long."""


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the processes that measure memory: each imports everything."""
    monkeypatch.setattr(module, "prediction_memory", lambda *args: 321.0)


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure of the page."""
    monkeypatch.setattr("maskwright.comparing.page.plot_trade_off", nothing)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("no_process")
def test_scores_are_those_of_val_and_the_second_call_does_nothing_twice(
    options: dict[str, Any], trainings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = as_options({**options, "models": f"lenet5,{SMALL}"})
    assert main(["compare", *words]) == 0
    folder = options["project"] / "compare" / "compare"
    rows = rows_of(folder)
    assert [row["model"] for row in rows] == trainings == ["lenet5", SMALL]
    page, table = (folder / "report.html").read_text(), (folder / "results.md").read_text()
    for row in rows:
        alone = mw.val(row["weights"], options["data"], device="cpu", workers=0)
        assert float(row["top1"]) == alone["top1"] and float(row["nll"]) == alone["nll"]
        predictor = mw.load(row["weights"], device="cpu")
        assert int(row["parameters"]) == sum(p.numel() for p in predictor.model.parameters())
        seconds = sum(float(line["seconds"]) for line in rows_of(Path(row["weights"])))
        assert float(row["train_seconds"]) == pytest.approx(seconds, abs=0.06)
        assert float(row["ms_low"]) <= float(row["ms"]) <= float(row["ms_high"])
        assert float(row["memory_mb"]) == 321
        assert row["model"] in page and row["model"] in table
    assert "val split (4 images" in page and "another seed" in page and "data:image/png" in page
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept["score"] == "top1" and len(kept["models"][0]["ms"]) == 4  # photos, once each

    capsys.readouterr()
    assert main(["compare", *words]) == 0
    assert f"going on with {folder}: 2 of its models" in capsys.readouterr().out
    again = json.loads((folder / "metrics.json").read_text())
    assert again == kept and len(trainings) == 2


@pytest.mark.usefixtures("no_process", "no_figure")
def test_more_seeds_and_a_trained_model_join_what_is_there(
    options: dict[str, Any], trainings: list[str]
) -> None:
    first = mw.compare(models=["lenet5"], **options)
    own = first.rows[0].runs[0].weights
    made = mw.compare(models=["lenet5", own], seeds=(0, 1), **options)
    assert made.dir == first.dir and len(trainings) == 2 and not made.failed
    lenet, given = made.rows
    assert sorted(lenet.runs) == [0, 1] and sorted(given.runs) == [0]
    assert given.runs[0].metrics == pytest.approx(lenet.runs[0].metrics, abs=0, nan_ok=True)
    assert "came trained" in made.page.read_text()
    values = [float(row["nll"]) for row in rows_of(made.dir) if row["model"] == "lenet5"]
    assert len(set(values)) == 2 and lenet.mean("nll") == pytest.approx(statistics.fmean(values))
    text = f"{statistics.fmean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
    assert text in (made.dir / "results.md").read_text()
    # The same, written in another way.
    written = options | {"data": f"{options['data']}/"}
    again = mw.compare(models=["lenet5", f"{own}/"], seeds=(1, 0), **written)
    assert again.dir == made.dir and len(trainings) == 2
    assert [(row.name, sorted(row.runs)) for row in again.rows] == [("lenet5", [0, 1]), (own, [0])]
    # A part of it, or others alone, leave the rest as it is.
    for part in ([own], ["lenet5"]):
        again = mw.compare(models=part, **options)
        assert again.dir == made.dir and len(trainings) == 2
        assert {row.name: sorted(row.runs) for row in again.rows} == {"lenet5": [0, 1], own: [0]}
        assert {row["ms"] for row in rows_of(again.dir)} == {row["ms"] for row in rows_of(made.dir)}
    # Other options, or other data, are another comparison.
    other = mw.compare(models=["lenet5"], **options | {"steps": 1})
    assert other.dir != made.dir
    Image.new("L", (28, 28), 77).save(options["data"] / "train" / "dark" / "more.png")
    assert mw.compare(models=["lenet5"], **options | {"steps": 1}).dir not in (made.dir, other.dir)
    (options["data"] / "train" / "dark" / "more.png").unlink()


@pytest.mark.usefixtures("no_process", "no_figure")
def test_one_that_fails_does_not_stop_the_others(
    options: dict[str, Any],
    trainings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    optimise = training.optimise

    def limited(run: Any, *rest: Any) -> bool:
        if run.recipe.model == "lenet5":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return optimise(run, *rest)

    words = as_options({**options, "models": f"lenet5,{SMALL}", "imgsz": 28})
    with monkeypatch.context() as patch:
        patch.setattr(training, "optimise", limited)
        assert main(["compare", *words]) == 1
    folder = options["project"] / "compare" / "compare"
    assert "lenet5: out of memory: lower batch or imgsz" in capsys.readouterr().err
    rows = rows_of(folder)
    assert [bool(row["ms"]) for row in rows] == [False, True]
    assert "out of memory" in rows[0]["fault"] and not rows[0]["weights"]
    assert "lenet5 failed: out of memory" in (folder / "report.html").read_text()
    trainings.clear()
    assert main(["compare", *words]) == 0  # there is memory now
    assert trainings == ["resumed"] and all(row["ms"] for row in rows_of(folder))
    assert "failed" not in (folder / "results.md").read_text()


@pytest.mark.usefixtures("no_figure")
def test_stopped_it_leaves_a_page_and_goes_on(
    options: dict[str, Any], trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = training.optimise

    def stopping(run: Any, *rest: Any) -> bool:
        if run.recipe.model == SMALL and run.place.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return optimise(run, *rest)

    words = as_options({**options, "models": f"lenet5,{SMALL}"})
    with monkeypatch.context() as patch:
        patch.setattr(training, "optimise", stopping)
        patch.setitem(options, "steps", 4)
        words = as_options({**options, "models": f"lenet5,{SMALL}"})
        assert main(["compare", *words]) == 128 + signal.SIGINT
    folder = options["project"] / "compare" / "compare"
    page = (folder / "report.html").read_text()
    assert f"Not done yet: {SMALL}" in page and "speed is not measured yet" in page
    scored = json.loads((folder / "metrics.json").read_text())["models"][0]["runs"]
    with monkeypatch.context() as patch:  # and once more, between the trainings

        def interrupted(*args: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(module, "take_turns", interrupted)
        assert main(["compare", *words]) == 130
    assert trainings == ["lenet5", SMALL, "resumed"]
    assert "speed is not measured yet" in (folder / "report.html").read_text()
    asked: list[str] = []

    def memory(weights: str, *rest: Any) -> float:
        asked.append(weights)
        if len(asked) == 2:
            raise KeyboardInterrupt
        if len(asked) == 3:
            raise RuntimeError("a prediction alone was ended by signal 9")
        return 321.0

    monkeypatch.setattr(module, "prediction_memory", memory)
    assert main(["compare", *words]) == 130
    kept = json.loads((folder / "metrics.json").read_text())["models"]
    assert kept[0]["runs"] == scored and all(row["ms"] for row in kept)
    assert [row["memory"] for row in kept] == [321, None]
    assert [main(["compare", *words]) for _ in range(2)] == [1, 0]
    assert asked[1] == asked[2] == asked[3] and len(asked) == 4 and len(trainings) == 3
    done = json.loads((folder / "metrics.json").read_text())["models"]
    assert [row["memory"] for row in done] == [321, 321]
    assert [row["ms"] for row in done] == [row["ms"] for row in kept]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "compare needs data=..."),
        (["models=lenett"], 2, "did you mean 'lenet5'"),
        (["models=lenet5,unet"], 2, "lenet5 is there to classify images, unet to give every"),
        (["models=lenet5,lenet5"], 2, "twice"),
        (["models=nowhere/x.safetensors"], 1, "no such checkpoint"),
        (["models=lenet5", "epoch=2"], 2, "did you mean 'epochs'"),
        (["models=lenet5", "split=tset"], 2, "split=tset: "),
        (["models=lenet5", "epochs=0"], 2, "epochs=0: expected"),
        (["models=lenet5", "steps=1", "minutes=1"], 2, "leave one of the two out"),
        (["models=lenet5", "seeds=1,1"], 2, "different whole numbers"),
        (["models=lenet5", "repeats=0"], 2, "repeats must be at least 1"),
        (["models=lenet5", "val_boundary=true"], 2, "for models that find objects"),
        (["models=unet,lenet5", "original=true"], 2, "of one task"),
        (["models=lenet5", "original=true"], 2, "one of lenet5; train such a model by itself"),
        (["models=lenet5", "resume=runs"], 2, "decided for each training; train such a model"),
        (["models=lenet5", "data=nowhere"], 1, "nowhere"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_trained(
    words: list[str],
    status: int,
    message: str,
    shades: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [] if any("data=" in word for word in words) or not words else [f"data={shades}"]
    assert main(["compare", *data, *words]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_python_takes_no_option_of_a_single_training(shades: Path) -> None:
    with pytest.raises(ValueError, match="decided for each training"):
        mw.compare(shades, ["lenet5"], seed=3)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        mw.compare(shades, ["lenet5"], epoch=3)


def test_which_models_nothing_beats() -> None:
    def row(name: str, ms: list[float], **metrics: float) -> Row:
        return Row(name, {0: Run("w", metrics)}, ms=ms)

    rows = [
        row("slow", [9.0, 30.0, 31.0], a=0.9, b=1.0),
        row("beaten", [20.0], a=0.5),
        row("fast", [10.0], a=0.5, b=4.0),
        row("equal", [10.0], a=0.5, b=4.0),
        row("untimed", [], a=0.95, b=0.0),
        row("undefined", [1.0], a=math.nan, b=9.0),
    ]
    assert [one.name for one in unbeaten(rows, "a")] == ["fast", "equal", "slow"]
    assert [one.name for one in unbeaten(rows, "-b")] == ["undefined", "fast", "equal", "slow"]
    assert rows[0].speed() == (19.5, 30.0, 30.5)
    compared = {"a": "A", "-b": "B"}
    assert score_of(rows, compared) is None  # neither is there for all
    assert score_of(rows[:4], compared) == "a"
    assert score_of([rows[0], rows[5]], compared) == "-b"
    assert score_of([Row("failed"), rows[1]], compared) == "a"


def test_names_in_the_figure_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import maskwright.drawing.trade_off as figure

    made: list[Any] = []
    monkeypatch.setattr(figure, "save_figure", lambda drawn, out: made.append(drawn))
    places = [(10.0, 0.4), (10.1, 0.401), (10.2, 0.4), (11.0, 0.402), (40.0, 0.6), (41.0, 0.1)]
    points = [
        Point(f"a_model_{i}_of_long_name", (0.97 * x, x, 1.02 * x), (y - 0.01, y, y + 0.01), i == 4)
        for i, (x, y) in enumerate(places)
    ]
    plot_trade_off(points, tmp_path / "x.png", xlabel="ms", ylabel="AP")
    ax = made[0].axes[0]
    renderer = made[0].canvas.get_renderer()
    boxes = [figure._extent(text, renderer) for text in ax.texts]
    assert len(boxes) == len(points)
    for i, box in enumerate(boxes):
        frame = ax.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own() -> None:
    from maskwright.comparing.peak import prediction_memory
    from maskwright.drawing.scene import drawn_scene

    small = prediction_memory("nuclei", "cpu", 64, drawn_scene(64, 64))
    large = prediction_memory("nuclei", "cpu", None, drawn_scene(1200, 1600))
    assert 100 < small < large < 5000
    with pytest.raises(RuntimeError, match=r"failed: .*no such checkpoint"):
        prediction_memory("no/such.safetensors", "cpu", None, drawn_scene(64, 64))


@pytest.mark.slow
def test_masks_and_boxes_are_compared_by_boxes(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 3)):
        make_split(tmp_path / "coins", split, count, seed=1)
    data = tmp_path / "coins"
    made = mw.compare(
        data,
        ["mask_rcnn_lite0_fpn", "retinanet_lite0_fpn", "nuclei"],
        steps=1,
        weights="none",
        imgsz=64,
        device="cpu",
        workers=0,
        repeats=1,
        project=tmp_path / "runs",
    )
    assert made.score == "box/AP"
    masks, boxes, other = made.rows
    # What knows no coin is refused, and stands there with the reason.
    assert made.failed == ["nuclei"] and "coin" in other.faults[0]
    alone = mw.val(masks.runs[0].weights, data, device="cpu", workers=0, boundary=True)
    assert masks.runs[0].metrics == pytest.approx(dict(alone), nan_ok=True, abs=0)
    assert "boundary/AP" in masks.runs[0].metrics and "boundary/AP" not in boxes.runs[0].metrics
    assert masks.memory > 100 and boxes.memory > 100
