"""Trainings of localizers on drawn data: they learn, repeat themselves, go on, and say what is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from location_data import draw_data, write

import maskwright as mw
from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.localization.result import LocationResult
from maskwright.tasks.localization.task import TASK
from maskwright.training import train as module

MODEL = "locate_mobilenetv2_100"  # whose ImageNet weights come with the package


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("data"))


def options(project: Path, **more: Any) -> dict[str, Any]:
    common = {"imgsz": 64, "workers": 0, "device": "cpu", "project": project, "lr": 0.003}
    return {"epochs": 6, **common, **more}


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    project = tmp_path_factory.mktemp("runs")
    return mw.train(data, MODEL, **options(project, epochs=12, model_args={"norm": "bn"}))


@pytest.mark.figures
def test_boxes_are_learned(trained: Any) -> None:
    assert trained.metrics["class/top1"] >= 0.9
    assert trained.metrics["box/IoU"] >= 0.5
    assert trained.metrics["box/top1_loc"] >= 0.5


def test_val_gives_the_numbers_of_the_training(trained: Any, data: Path, tmp_path: Path) -> None:
    found = mw.val(trained.dir, data, workers=0, save=tmp_path / "val")
    for key, value in trained.metrics.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key
    page = (tmp_path / "val" / "report.html").read_text()
    assert "box/top1_loc" in page and "class wrong, box right" in page
    rows = json.loads((tmp_path / "val" / "places.json").read_text())
    assert len(rows) == 12 and rows[5]["label"] == 2


def test_a_prediction_is_class_score_and_box(trained: Any, data: Path, tmp_path: Path) -> None:
    predictor = mw.load(trained.dir)
    dataset = open_dataset(data, "val")
    overlaps = []
    for index in range(len(dataset)):
        record = dataset[index]
        result = predictor(record.path)
        assert isinstance(result, LocationResult)
        if len(record.boxes):
            box = np.zeros(4) if result.box is None else result.box.numpy()
            overlaps.append(plain_iou(box, record.boxes[0]))
    assert np.mean(overlaps) == pytest.approx(trained.metrics["box/IoU"], abs=0.15)
    result = predictor(dataset[0].path)
    content = json.loads(result.to_json())
    assert content["class"] == "red" and content["name"] == dataset[0].path.name
    assert content["box"] == [round(v, 2) for v in result.box.tolist()]
    assert sum(row["score"] for row in content["named"]) == pytest.approx(1, abs=1e-4)
    assert result.plot().size == dataset[0].size[::-1]
    background = predictor(dataset[5].path)
    assert background.label is None and background.box is None
    assert "background" in repr(background)
    saved = list(mw.predict(trained.dir, data / "images" / "val", save=tmp_path / "out"))
    assert len(saved) == 12 and (tmp_path / "out" / "index.html").is_file()


def plain_iou(a: Any, b: Any) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union


def test_another_size_finds_the_same_class(trained: Any, data: Path) -> None:
    predictor = mw.load(trained.dir)
    file = data / "images" / "val" / "val000.png"
    assert predictor(file, imgsz=96).called == predictor(file).called == "red"
    with pytest.raises(ValueError, match="imgsz is the side of the square"):
        predictor(file, imgsz=(64, 96))


def test_a_training_that_stops_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_data(tmp_path / "data", train=12, val=6)
    small = {"model_args": {"norm": "bn"}, "batch": 4, "epochs": 3}
    whole = mw.train(data, MODEL, **options(tmp_path / "a", **small))
    finish = module.finish_epoch

    def stop_after_two(run: Any, *args: Any, **more: Any) -> None:
        finish(run, *args, **more)
        if run.place.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "finish_epoch", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        mw.train(data, MODEL, **options(tmp_path / "b", **small))
    monkeypatch.undo()
    resumed = mw.train(resume=tmp_path / "b" / "train" / "train")
    assert_same(whole.last, resumed.last)
    assert resumed.metrics == whole.metrics


def assert_same(a: Path, b: Path) -> None:
    one, other = load_checkpoint(a).model, load_checkpoint(b).model
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_keypoints_are_learned(data: Path, tmp_path: Path) -> None:
    result = mw.train(
        data,
        "locate_keypoints_mobilenetv2_100",
        **options(tmp_path, nme_pair="left_eye,right_eye", model_args={"region": "object"}),
    )
    assert result.metrics["keypoints/NME"] < 0.25
    assert result.metrics["keypoints/PCK"] > 0.8
    found = mw.val(result.dir, data, workers=0)
    assert found["keypoints/NME"] == pytest.approx(result.metrics["keypoints/NME"])
    predictor = mw.load(result.dir)
    picture = predictor(data / "images" / "val" / "val000.png")
    assert picture.keypoints.shape == (3, 2) and picture.box is None
    assert list(json.loads(picture.to_json())["keypoints"]) == ["nose", "left_eye", "right_eye"]
    assert picture.plot().size == picture.size[::-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"several": "largst"}, "did you mean 'largest'"),
        ({"nme_pair": "left_eye"}, "expected two keypoints"),
        ({"nme_pair": "left_eye,right_eye"}, "finds none"),
        ({"scale_jitter": (2.0, 1.0)}, "scale_jitter"),
        ({"imgsz": (64, 96)}, "side of the square"),
    ],
)
def test_wrong_options_are_one_error(
    data: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mw.train(data, MODEL, **{**options(tmp_path), **more})


def test_data_without_a_place_is_one_error(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / "annotations" / "train.json").read_text())
    root = tmp_path / "bare"
    root.mkdir()
    (root / "images").symlink_to(data / "images")
    for split in ("train", "val"):
        images = json.loads((data / "annotations" / f"{split}.json").read_text())["images"]
        write(root, split, images, [])
    with pytest.raises(ValueError, match=r"no place to learn: .* not one object"):
        mw.train(root, MODEL, **options(tmp_path))
    hidden = [{**row, "keypoints": [0] * 9} for row in content["annotations"]]
    write(root, "train", content["images"], hidden)
    with pytest.raises(ValueError, match=r"needs keypoints, but .* none that are labelled"):
        mw.train(root, "locate_keypoints_mobilenetv2_100", **options(tmp_path))
    train = open_dataset(data, "train", keypoints=True)
    write(root, "val", images, [{**hidden[0], "image_id": images[0]["id"]}])
    val = open_dataset(root, "val", keypoints=True, names=train.names)
    told = TASK.warnings(None, None, train, val)  # these are of the data alone
    assert any("no keypoint that is labelled: none is scored" in line for line in told)


def test_several_objects_are_told_or_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((data / "annotations" / "train.json").read_text())
    more = {**content["annotations"][0], "id": 999, "bbox": [0, 0, 5, 5]}
    root = tmp_path / "several"
    root.mkdir()
    (root / "images").symlink_to(data / "images")
    write(root, "train", content["images"], [*content["annotations"], more])
    write(root, "val", **_split(data, "val"))
    line = [f"data={root}", f"model={MODEL}", "imgsz=64", "workers=0", "steps=1", "device=cpu"]
    line.append(f"project={tmp_path / 'runs'}")
    assert main(["train", *line, "several=error"]) == 1
    assert "train000.png has 2 objects and several=error" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["train", *line]) == 0
    assert "1 of 48 training images have several objects" in " ".join(
        capsys.readouterr().err.split()
    )


def _split(data: Path, split: str) -> dict[str, Any]:
    content = json.loads((data / "annotations" / f"{split}.json").read_text())
    return {"images": content["images"], "annotations": content["annotations"]}
