from __future__ import annotations

import inspect
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tiny_runs import MODEL, as_options, table

import maskwright as mw
import maskwright.training.train as module
from maskwright.cli import main
from maskwright.data.batch_file import load_batch
from maskwright.data.discover import open_dataset
from maskwright.nn.random import ImageNoise
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.storage.rundir import ResultsTable, new_run_dir, write_whole
from maskwright.tasks.detection.evaluate import score
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.reporting.pictures import load_detections
from maskwright.tasks.detection.task import TASK
from maskwright.terminal.interrupt import Interrupt
from maskwright.training.prepare import open_splits
from maskwright.training.train import TrainResult, train


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions of a few thousand pixels only lose by threads, most of all on a busy machine."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C while the optimiser step of this number is made."""
    original = module.optimise

    def optimise(run: Any, *args: Any) -> bool:
        if run.place.step + 1 == step:
            signal.raise_signal(signal.SIGINT)
        return original(run, *args)

    monkeypatch.setattr(module, "optimise", optimise)


@pytest.mark.figures
def test_run_folder(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    random = torch.get_rng_state()
    result = train(**options)
    assert isinstance(result, TrainResult) and not result.interrupted
    assert torch.equal(torch.get_rng_state(), random)  # the caller's numbers are untouched
    assert result.dir == options["project"] / "train" / "train"
    files = {
        *("args.yaml", "results.csv", "results.png", "labels.jpg", "metrics.json"),
        *("train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg"),
        *("val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png"),
        *("box_pr.png", "mask_pr.png", "errors.png", "report.html", "detections.json"),
    }
    for file in files:
        assert (result.dir / file).stat().st_size > 0, file
    page = (result.dir / "report.html").read_text()
    for words in ("results.png", "class_ap.png", "labels.jpg", "accumulate", "best epoch"):
        assert words in page, words
    # The report is about the best epoch.
    gt = open_dataset(options["data"], "val").to_coco()
    again = score(gt, load_detections(result.dir), masks=True, max_det=100)
    assert again == pytest.approx(result.metrics, nan_ok=True, rel=0, abs=0)
    stored = json.loads((result.dir / "metrics.json").read_text())
    assert stored["mask/AP50"] == result.metrics["mask/AP50"]
    assert stored["diagnostics"]["mask"]["errors"]["AP50"] == pytest.approx(stored["mask/AP50"])
    rows = table(result.dir)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["4", "8"]  # 7 images in batches of 2
    columns = {"lr", "train/loss", "train/roi/mask", "val/box/AP", "val/mask/AP", "val/mask/AP50"}
    assert columns <= set(rows[0])
    terms = [float(v) for k, v in rows[0].items() if k.startswith("train/") and k != "train/loss"]
    assert sum(terms) == pytest.approx(float(rows[0]["train/loss"]), rel=1e-5)

    recipe = DetectionRecipe.from_dict(yaml.safe_load((result.dir / "args.yaml").read_text()))
    assert recipe.epochs == 2 and recipe.data == str(options["data"])
    assert result.best is not None
    best = load_checkpoint(result.best)
    assert best.meta.names == ["coin"] and best.meta.category_ids == [5]
    assert best.meta.metrics["box/AP"] == result.metrics["box/AP"]
    assert load_checkpoint(result.best, training=True).training is None
    assert load_checkpoint(result.last, training=True).training is not None
    output = capsys.readouterr()
    assert "7 train, 3 val images" in output.out
    assert f"maskwright predict model={result.dir}" in output.out
    assert f"report: {result.dir / 'report.html'}" in output.out

    again = train(**options | {"epochs": 1})  # never overwritten
    assert again.dir.name == "train2"


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("at", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_equals_uninterrupted(
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options |= {"batch": 1, "accumulate": 2, "ema": 0.9, "scale_jitter": (0.8, 1.2)}
    whole = train(**options, name="whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, at)
        part = train(**options, name="part")
    assert part.interrupted
    assert not (part.dir / "report.html").exists()
    assert f"maskwright train resume={part.dir}" in capsys.readouterr().out
    assert (part.dir / "results.csv").exists() == (at > 4)  # 4 steps make an epoch
    # A row that a crash left behind the checkpoint is written again, not twice.
    if at > 4:
        lost = ResultsTable(part.dir / "results.csv")
        lost.append({"epoch": 9, "step": 99})
    resumed = train(resume=part.dir)
    assert resumed.dir == part.dir and not resumed.interrupted
    assert table(resumed.dir) == table(whole.dir)
    assert resumed.metrics == pytest.approx(whole.metrics, nan_ok=True, rel=0, abs=0)
    assert load_detections(resumed.dir) == load_detections(whole.dir)
    assert (resumed.dir / "report.html").exists()
    for training in (True, False):
        a = load_checkpoint(whole.last, training=training)
        b = load_checkpoint(resumed.last, training=training)
        assert a.model.keys() == b.model.keys()
        assert all(torch.equal(a.model[key], b.model[key]) for key in a.model)
    assert not all(
        torch.equal(load_checkpoint(whole.last, training=True).model[k], a.model[k])
        for k in a.model
    )  # the average is not the model itself


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_interrupted_in_validation_goes_on_with_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole = train(**options, name="whole")
    original = module.evaluate

    calls = iter(range(1, 9))

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == epoch:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", evaluate)
        part = train(**options, name="part")
    assert part.interrupted and (part.best is None) == (epoch == 1)
    resumed = train(resume=part.last)
    assert table(resumed.dir) == table(whole.dir)


@pytest.mark.usefixtures("no_figures")
def test_resume_keeps_the_options_of_the_run(options: dict[str, Any]) -> None:
    done = train(**options | {"epochs": 1})
    with pytest.raises(ValueError, match="epochs is 1 there"):
        train(resume=done.dir, epochs=5)
    (done.dir / "report.html").unlink(missing_ok=True)
    again = train(resume=done.dir)  # it was stopped while it wrote its report
    assert again.metrics == pytest.approx(done.metrics, nan_ok=True)
    (done.dir / "report.html").touch()
    with pytest.raises(ValueError, match="nothing to resume, all 4 steps are done"):
        train(resume=done.dir, workers=0)
    with pytest.raises(ValueError, match="weights only"):
        train(resume=done.best)
    with pytest.raises(ValueError, match="no such checkpoint or run folder"):
        train(resume=done.dir / "nothing")


@pytest.mark.usefixtures("no_figures")
def test_steps_and_a_single_split(options: dict[str, Any], coins: Path) -> None:
    options |= {"data": coins / "annotations" / "train.json", "steps": 4, "val_every": 2}
    options |= {
        "val_fraction": 0.3,
        "schedule": "constant",
        "optimizer": "sgd",
        "precision": "bf16",
    }
    result = train(**options)
    rows = table(result.dir)
    assert [row["step"] for row in rows] == ["3", "4"]  # 5 of 7 images train; the end is cut
    assert rows[0]["val/box/AP"] == "" and rows[1]["val/box/AP"] != ""


@pytest.mark.usefixtures("no_figures")
def test_progress_of_a_last_epoch_that_is_cut_ends_full(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"steps": 5, "batch": 2, "val_every": 9}  # 7 images: 4 steps make an epoch
    train(**{key: value for key, value in options.items() if key != "epochs"} | steps)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("epoch 1/2: 7/7 img, took")]
    assert [line for line in lines if line.startswith("epoch 2/2: 2/2 img, took")]


@pytest.mark.usefixtures("no_figures")
def test_patience_stops(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    options |= {"lr": 1e-9, "epochs": 9, "patience": 2, "batch": 7}
    result = train(**options)
    assert len(table(result.dir)) == 3  # the first is best, two more bring nothing
    assert "no better AP for 2 epochs" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_bad_steps_are_skipped_and_their_images_named(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {1, 2}
    weights: dict[int, torch.Tensor] = {}

    from maskwright.models.detection.base import TwoStageDetector

    losses = TwoStageDetector.losses
    calls = iter(range(100))

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        call = next(calls)
        weights[call] = self.fpn.state_dict()[next(iter(self.fpn.state_dict()))].clone()
        terms = losses(self, *args, **kwargs)
        if call in bad:
            terms["rpn/box"] = terms["rpn/box"] * float("nan")
        return terms

    monkeypatch.setattr(TwoStageDetector, "losses", poisoned)
    result = train(**options | {"epochs": 1})
    assert torch.equal(weights[1], weights[2]) and torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[0], weights[1])
    text = capsys.readouterr().err
    assert "step 2: the loss is not finite" in text and "train" in text and ".png" in text
    assert (result.dir / "bad_step2.jpg").is_file()
    # The batch can be replayed: the same random numbers, the same losses.
    batch, info = load_batch(result.dir / "bad_step2.safetensors")
    assert info["step"] == 2 and all(Path(file).name in text for file in info["files"])
    assert len(batch) == len(info["files"]) == 2
    detector = mw.load(result.dir).detector.train()
    again = [detector.losses(batch.images, batch.targets, generator=ImageNoise(batch.keys))]
    bad.clear()
    loader = TASK.training_loader(
        DetectionRecipe(**options), open_splits(TASK, DetectionRecipe(**options))[0], detector
    )
    other = next(other for other in loader if other.indices == batch.indices)
    again.append(detector.losses(other.images, other.targets, generator=ImageNoise(other.keys)))
    assert all(torch.equal(again[0][key], again[1][key]) for key in again[0])
    with pytest.raises(ValueError, match="not a saved batch"):
        load_batch(result.dir / "args.yaml")
    assert "nan" not in table(result.dir)[0]["train/loss"]

    bad |= set(range(100))
    with pytest.raises(RuntimeError, match=r"not finite in 5 steps in a row.*lower lr"):
        train(**options)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("lr", "more", "what"),
    [
        ("1e6", "", "was not finite in 3 steps in a row, up to step 4"),
        ("1e5", "epochs=9 optimizer=sgd clip=none", "was not finite in 5 steps"),
        ("10", "epochs=9 warmup=0", "grew more than 1000-fold in 5 steps"),
    ],
)
def test_a_learning_rate_far_too_high_ends_with_advice(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str], lr: str, more: str, what: str
) -> None:
    """Through the command line; the weights are beyond all bounds by then."""
    options |= {"lr": lr, "epochs": 1} | options.pop("model_args")
    options |= dict(item.split("=") for item in more.split())
    assert main(["train", *as_options(options)]) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text and text.count("error: ") == 1
    assert what in text and f"lower lr (now {float(lr):.3g}; try lr=0.00" in text
    assert "warmup" in text and "data check" in text
    assert ("clip=5" in text) == ("clip=none" in more)


def test_unknown_and_contradictory_options() -> None:
    with pytest.raises(TypeError, match="'epoch'; did you mean 'epochs'"):
        train("cells", epoch=3)
    with pytest.raises(ValueError, match="data is missing"):
        train()
    with pytest.raises(ValueError, match="does not exist"):
        train("no/such/folder", device="cpu")
    signature = inspect.signature(train)
    assert list(signature.parameters)[:2] == ["data", "model"]
    assert signature.parameters["model"].default == MODEL
    assert signature.parameters["patience"].default == 20


@pytest.mark.usefixtures("no_figures")
def test_a_recipe_with_changed_fields(options: dict[str, Any]) -> None:
    result = train(DetectionRecipe(**options), steps=1, warmup=0, name="short")
    assert result.dir.name == "short" and table(result.dir)[0]["step"] == "1"


def test_second_ctrl_c_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)  # a batch system is about to end the job
        assert interrupt.wanted
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")  # torchrun passes on what the terminal sent too
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.wanted
    seen: list[bool] = []

    def elsewhere() -> None:
        with Interrupt() as other:
            seen.append(other.wanted)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]


def test_run_folders_are_numbered_and_checked(tmp_path: Path) -> None:
    names = [new_run_dir(tmp_path, "train", name).name for name in (None, None, "a", "a", None)]
    assert names == ["train", "train2", "a", "a2", "train3"]
    with pytest.raises(ValueError, match="without slashes"):
        new_run_dir(tmp_path, "train", "../up")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="give another place with project="):
        new_run_dir(tmp_path / "file", "train")
    if os.getuid():  # root may write everywhere
        tmp_path.chmod(0o500)
        with pytest.raises(ValueError, match="Permission denied"):
            new_run_dir(tmp_path, "train")
        tmp_path.chmod(0o700)


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    write_whole(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        write_whole(path, "b" * 100)
    assert path.read_text(encoding="utf-8") == "ä\n" and list(tmp_path.iterdir()) == [path]


def test_results_table_grows_columns_and_truncates(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    rows = ResultsTable(path)
    rows.append({"epoch": 1, "x": 0.1 + 0.2})
    rows.append({"epoch": 2, "x": None, "y": 3})
    again = ResultsTable(path)
    assert [float(row["x"]) if row["x"] else None for row in again.rows] == [0.1 + 0.2, None]
    again.truncate(1)
    again.append({"epoch": 2, "x": 5.0, "y": 4})
    assert path.read_text() == "epoch,x,y\n1,0.30000000000000004,\n2,5.0,4\n"


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_it_learns(options: dict[str, Any]) -> None:
    """Coins on a plain ground, seen 80 times: all parts of the chain fit together."""
    options |= {"steps": 150, "batch": 4, "lr": 3e-3, "backbone_lr": 1.0, "val_every": 1000}
    result = train(**options | {"val_fraction": 0.3})
    assert result.metrics["mask/AP50"] > 0.7
    assert result.metrics["box/AP50"] > 0.7


@pytest.mark.usefixtures("no_figures")
def test_random_weights_are_not_frozen(options: dict[str, Any]) -> None:
    """Random features that never change would teach the heads nothing."""
    result = train(**options | {"weights": "none", "freeze": 2, "steps": 2})
    checkpoint = load_checkpoint(result.last, training=True)
    assert checkpoint.meta.args["norm"] == "bn"
    assert checkpoint.training is not None
    assert "backbone.body.body.conv_stem.weight.exp_avg" in checkpoint.training.optimizer


def test_data_without_any_object_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "images" / split / "a.png")
        document = {
            "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 32}],
            "annotations": [],
            "categories": [{"id": 1, "name": "coin"}],
        }
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="not one object"):
        train(**options | {"data": folder})
