"""Detectors with regions from outside, through training, resuming, validation and prediction."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import interrupt_at
from tiny_runs import table

from maskwright.cli import main
from maskwright.data.discover import open_dataset
from maskwright.data.formats.voc.write import write_voc
from maskwright.hub.loading import start_model
from maskwright.models.detection.fast_rcnn import TINY
from maskwright.nn.detection import svm_fit
from maskwright.nn.detection.svm_fit import RegionFitter
from maskwright.prediction.load import load
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.val import val
from maskwright.proposals.files import write_proposals
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.training.train import train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "proposals"


@pytest.fixture
def fast(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a training of the tiny Fast R-CNN on drawn coins."""
    args = {**TINY, "imgsz": 64, "stride": 8, "source": "sliding_window:200", "rois": 32}
    return options | {"model": "fast_rcnn_vgg16", "model_args": args}


def test_a_model_with_regions_trains_validates_and_predicts(
    fast: dict[str, Any], coins: Path, cache: Path, no_figures: None
) -> None:
    result = train(**fast)
    rows = table(result.dir)
    terms = [key for key in rows[0] if key.startswith("train/roi/")]
    assert sorted(terms) == ["train/roi/box", "train/roi/class"]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    pictures = {Image.open(path).tobytes() for path in coins.rglob("*.png")}
    assert len(list(cache.rglob("*.npz"))) == len(pictures) > 5, "one file an image"
    metrics = val(result.last, coins, workers=0)
    assert metrics["box/AP"] == pytest.approx(float(rows[-1]["val/box/AP"]), abs=1e-6)
    predictor = load(result.last)
    picture = np.asarray(Image.open(coins / "images" / "val" / "val0.png"))
    found = predictor(picture, conf=0.01)
    assert len(found)
    predictor(picture[::-1].copy())
    assert len(list(cache.rglob("*.npz"))) == len(pictures), "a photo is not kept"
    again = predictor([picture, picture], conf=0.01)
    assert torch.equal(again[1].boxes, found.boxes)


def test_resumed_equals_uninterrupted(
    fast: dict[str, Any], monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    whole = train(**fast | {"name": "whole"})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        part = train(**fast | {"name": "part"})
    assert part.interrupted
    resumed = train(resume=part.dir)
    assert table(resumed.dir) == table(whole.dir)
    a, b = (load_checkpoint(r.last, training=True).model for r in (whole, resumed))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_photos_find_the_regions_of_their_file(
    fast: dict[str, Any], coins: Path, tmp_path: Path, no_figures: None
) -> None:
    box = np.array([[10.0, 12, 40, 44]])
    names = [path.name for path in (coins / "images").rglob("*.png")]
    write_proposals(tmp_path / "own.npz", {name: (box, np.ones(1)) for name in names})
    fast["model_args"] = {**fast["model_args"], "source": str(tmp_path / "own.npz")}
    result = train(**{**fast, "epochs": 1})
    predictor: Predictor = load(result.last)
    found = predictor(coins / "images" / "val" / "val0.png", conf=0.0)
    assert len(found) == 1
    centre = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
    assert bool((centre > 5).all()) and bool((centre < 55).all())
    with pytest.raises(ValueError, match="no proposals for an image without a file name"):
        predictor(np.zeros((50, 50, 3), np.uint8))


def test_images_in_which_nothing_is_found_are_told(
    fast: dict[str, Any], coins: Path, tmp_path: Path, no_figures: None, capsys: Any
) -> None:
    names = [path.name for path in (coins / "images").rglob("*.png")]
    outside = np.array([[200.0, 200, 300, 300], [5, 5, 5, 9]])
    write_proposals(tmp_path / "own.npz", {name: (outside, np.ones(2)) for name in names})
    fast["model_args"] = {**fast["model_args"], "source": str(tmp_path / "own.npz")}
    result = train(**{**fast, "epochs": 1})
    said = " ".join(capsys.readouterr().err.split())
    assert "has no proposals in 7 of 7 train images" in said
    assert "14 proposals outside their image or without area" in said
    assert result.metrics["box/AP"] == 0


def test_a_wrong_source_is_named_before_anything_is_written(
    fast: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    line = [f"{key}={value}" for key, value in fast["model_args"].items() if key != "source"]
    options = [f"{k}={v}" for k, v in fast.items() if k != "model_args"]
    assert main(["train", *options, *line, "source=selective_serch"]) == 2
    assert "expected selective_search" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_compressing_writes_a_model_that_is_described_by_its_ranks(
    fast: dict[str, Any], coins: Path, tmp_path: Path, no_figures: None, capsys: Any
) -> None:
    run = train(**{**fast, "epochs": 1}).dir
    capsys.readouterr()
    line = f"compress model={run} rank=16,8 data={coins} workers=0 project={tmp_path / 'runs'}"
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    before, after = (row.split() for row in said.splitlines() if row[:6] in ("before", "after "))
    assert int(after[1]) < int(before[1])
    assert len(before) == 5 and "box/AP50" in said
    folder = tmp_path / "runs" / "compress" / "compress"
    small, whole = load(folder), load(run)
    assert small.meta.args["svd"] == [16, 8]
    picture = np.asarray(Image.open(coins / "images" / "val" / "val0.png"))
    assert len(small(picture, conf=0.0, max_det=300)) > 20
    # The first layer has its full rank of 32: with the second one whole, nothing changes.
    assert main(f"compress model={run} rank=32 project={tmp_path / 'runs'}".split()) == 0
    said = capsys.readouterr().out  # without data there is nothing to say of time and AP
    rows = [row.split() for row in said.splitlines() if row[:6] in ("before", "after ")]
    assert [len(row) for row in rows] == [2, 2]
    assert "box/AP" not in said
    same = load(tmp_path / "runs" / "compress" / "compress2")
    a, b = (p(picture, conf=0.0, max_det=300) for p in (whole, same))
    torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-4)
    for wrong, message in (("33", "a rank from 1 to 32, got 33"), ("4,4,4", "up to 2 layers")):
        assert main(f"compress model={run} rank={wrong}".split()) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert main(f"compress model={folder} rank=4".split()) == 1
    assert "compressed already" in capsys.readouterr().err


@pytest.fixture
def spp(fast: dict[str, Any]) -> dict[str, Any]:
    """Options of a training of the tiny SPPnet."""
    args = {key: value for key, value in fast["model_args"].items() if key != "rois"}
    return fast | {"model": "sppnet_vgg16", "model_args": {**args, "levels": (1, 2, 3)}, "lr": 5e-3}


def test_svms_are_fitted_after_training_and_are_the_best(
    spp: dict[str, Any], coins: Path, no_figures: None
) -> None:
    result = train(**spp)
    rows = table(result.dir)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert not rows[2]["train/loss"] and rows[2]["step"] == rows[1]["step"]
    best, last = (load_checkpoint(path, training=True) for path in (result.best, result.last))
    head = "roi_heads.box_head."
    assert best.model[head + "fitted"] and best.model[head + "svm_weight"].any()
    assert all(torch.equal(best.model[key], last.model[key]) for key in best.model)
    assert result.metrics["box/AP"] == pytest.approx(float(rows[2]["val/box/AP"]))
    assert val(result.best, coins, workers=0)["box/AP"] == pytest.approx(result.metrics["box/AP"])
    with pytest.raises(ValueError, match="nothing to resume, trained, and fitted"):
        (result.dir / "report.html").touch()
        train(resume=result.dir)
    # As the start of another training they are not taken along: they belong to these classes.
    detector, _, _ = start_model(
        "sppnet_vgg16", ["coin"], weights=result.best, options=dict(spp["model_args"])
    )
    assert not detector.roi_heads.box_head.fitted
    assert torch.equal(
        detector.state_dict()[head + "logits.weight"], best.model[head + "logits.weight"]
    )


def test_a_fit_that_finds_less_is_told_with_what_may_serve_better(
    spp: dict[str, Any],
    coins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_figures: None,
    capsys: Any,
) -> None:
    corners = np.array([[0.0, 0, 20, 20], [76, 0, 96, 20], [0, 52, 20, 72], [76, 52, 96, 72]])
    regions = {}
    for record in (*open_dataset(coins, "train"), *open_dataset(coins, "val")):
        boxes = np.concatenate([record.boxes, corners])
        regions[record.path.name] = boxes, np.ones(len(boxes))
    write_proposals(tmp_path / "own.npz", regions)
    spp["model_args"] = {**spp["model_args"], "source": str(tmp_path / "own.npz")}
    fit = svm_fit.linear_svm

    def upside_down(*args: Any) -> tuple[np.ndarray, float, bool]:
        weight, bias, settled = fit(*args)
        return -weight, -bias, settled

    monkeypatch.setattr(svm_fit, "linear_svm", upside_down)
    result = train(**spp)
    *trained, fitted = (float(row["val/box/AP"]) for row in table(result.dir))
    assert fitted < max(trained)
    said = " ".join(capsys.readouterr().err.split())
    assert f"finds less than the best epoch before it did ({fitted:.4f} instead of" in said
    assert "with few objects to learn from, classifier=softmax may serve better" in said
    # What was asked for stays the result.
    assert result.metrics["box/AP"] == pytest.approx(fitted)


def test_softmax_in_place_of_svms(spp: dict[str, Any], no_figures: None) -> None:
    args = {**spp["model_args"], "classifier": "softmax"}
    args |= {"proposals": 500, "source": "sliding_window:500"}
    result = train(**spp | {"model_args": args, "epochs": 1})
    model = load_checkpoint(result.best).model
    assert not model["roi_heads.box_head.svm_weight"].any()
    assert model["roi_heads.box_head.ridge_weight"].any()


@pytest.mark.parametrize("ema", [None, pytest.param(0.9, marks=pytest.mark.slow)])
def test_stopped_in_the_stage_after_training_it_begins_again(
    spp: dict[str, Any], monkeypatch: pytest.MonkeyPatch, no_figures: None, ema: float | None
) -> None:
    spp |= {"epochs": 1, "ema": ema}
    whole = train(**spp | {"name": "whole"})
    original = RegionFitter.mine

    def mine(self: RegionFitter, image: int, *args: Any) -> None:
        if image == 2:
            signal.raise_signal(signal.SIGINT)
        original(self, image, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RegionFitter, "mine", mine)
        patch.setattr(
            "maskwright.models.detection.regions.MEMORY", 0
        )  # so that images are read again
        part = train(**spp | {"name": "part"})
    assert part.interrupted and len(table(part.dir)) == 1
    resumed = train(resume=part.dir)
    assert table(resumed.dir) == table(whole.dir) and len(table(whole.dir)) == 2
    a, b = (load_checkpoint(r.best).model for r in (whole, resumed))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_rcnn_trains_on_warped_regions_and_gets_svms(
    fast: dict[str, Any], coins: Path, no_figures: None, capsys: Any
) -> None:
    args = {"backbone": "test_efficientnet", "box_width": 16, "warp": 32, "context": 4, "pool": 2}
    args |= {"source": "sliding_window:100", "rois": 16}
    result = train(**fast | {"model": "rcnn_alexnet", "model_args": args, "epochs": 1})
    model = load_checkpoint(result.best).model
    assert model["roi_heads.box_head.fitted"] and model["roi_heads.box_head.svm_weight"].any()
    assert "fit, pass 2: 7/7" not in capsys.readouterr().err, "all features fitted into memory"
    assert val(result.best, coins, workers=0)["box/AP"] == pytest.approx(result.metrics["box/AP"])
    small = load(result.best)(coins / "images" / "val" / "val0.png", conf=0.0, max_det=300)
    assert small.boxes.shape[1] == 4


def test_a_trained_model_takes_regions_from_elsewhere(
    fast: dict[str, Any], coins: Path, tmp_path: Path, no_figures: None, capsys: Any
) -> None:
    box = np.array([[10.0, 12, 40, 44]])
    for split in ("train", "val"):
        names = [path.name for path in (coins / "images" / split).glob("*.png")]
        write_proposals(tmp_path / f"{split}.npz", {name: (box, np.ones(1)) for name in names})
    fast["model_args"] = {**fast["model_args"], "source": str(tmp_path / "{split}.npz")}
    model = train(**{**fast, "epochs": 1}).last
    photo = np.asarray(Image.open(coins / "images" / "val" / "val0.png"))
    with pytest.raises(ValueError, match="a photo has none: proposal_source= names another"):
        load(model)(photo)
    found = load(model, proposal_source="sliding_window:50")(photo, conf=0.0)
    assert len(found) > 1
    run = ["predict", f"model={model}", f"source={coins / 'images' / 'val'}", "conf=0"]
    saved = f"project={tmp_path / 'runs'}"
    assert main([*run, saved, "proposal_source=sliding_window:50"]) == 0
    assert "1 coin" not in capsys.readouterr().out
    assert main([*run, saved, f"proposal_source={tmp_path / 'val.npz'}"]) == 0
    assert capsys.readouterr().out.count("1 coin") == 3
    val(model, coins, workers=0, save=False)
    with pytest.raises(ValueError, match=r"train\.npz has no proposals for val\d\.png"):
        val(model, coins, workers=0, save=False, proposal_source=str(tmp_path / "train.npz"))
    assert main(["predict", "model=nuclei", *run[2:], "proposal_source=edge_boxes"]) == 2
    assert "finds its regions itself" in " ".join(capsys.readouterr().err.split())


def test_one_results_file_for_two_splits_with_equal_ids_is_an_error(
    fast: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "boxes.json").write_text("[]")
    fast["model_args"] = {**fast["model_args"], "source": str(tmp_path / "boxes.json")}
    with pytest.raises(ValueError, match=r"the id \d+ would stand for two images.*\{split\}"):
        train(**fast)
    assert not list(tmp_path.glob("runs/*/weights"))


def test_missing_libraries_are_noticed_before_the_training(
    fast: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    svm = fast | {"model": "sppnet_vgg16", "model_args": {**fast["model_args"], "levels": (1, 2)}}
    with pytest.raises(ImportError, match=r"maskwright\[proposals\].*classifier=softmax"):
        train(**svm)
    assert not list(tmp_path.glob("runs/*/*.csv"))


def test_alternating_needs_a_model_with_an_rpn_and_leaves_no_folder(
    fast: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"alternate=true needs a model with an RPN"):
        train(**fast, alternate=True)
    assert not (tmp_path / "runs").exists()


def test_the_fit_can_be_stopped_between_its_pieces(
    spp: dict[str, Any], monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    calls: list[str] = []
    fit, mine = svm_fit.linear_svm, RegionFitter.mine

    def stop(*args: Any) -> Any:
        calls.append("fit")
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return fit(*args)

    def watch(*args: Any) -> None:
        calls.append("mine")
        mine(*args)

    monkeypatch.setattr(svm_fit, "linear_svm", stop)
    monkeypatch.setattr(RegionFitter, "mine", watch)
    part = train(**spp)
    assert part.interrupted and calls == ["fit"]
    whole = train(resume=part.dir)
    assert not whole.interrupted and calls.count("mine") == 7


def test_ids_do_not_tell_voc_images_apart(
    fast: dict[str, Any], coins: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        write_voc(open_dataset(coins, split), tmp_path / "voc", masks=False)
    (tmp_path / "boxes_train.json").write_text("[]")
    source = str(tmp_path / "boxes_{split}.json")
    fast |= {"data": tmp_path / "voc", "model_args": {**fast["model_args"], "source": source}}
    with pytest.raises(ValueError, match="by their id, which Pascal VOC has not"):
        train(**fast)
