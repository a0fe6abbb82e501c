from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from maskwright.cli import main
from maskwright.drawing.scene import drawn_scene
from maskwright.errors import OptionError
from maskwright.models import Meta, PostProcess, build_tiny
from maskwright.prediction.load import load
from maskwright.prediction.predictor import Predictor
from maskwright.tasks.detection.exporting.agreement import BOX_PX, SCORE
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.timing.benchmark import benchmark, report
from maskwright.timing.comparable import random_predictor
from maskwright.timing.turns import Apart, Job, Ours, Side


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        pytest.param("mask_rcnn_resnet50_fpn", False, marks=pytest.mark.slow),
        pytest.param("mask_rcnn_resnet50_fpn", True, marks=pytest.mark.slow),
        pytest.param("retinanet_resnet50_fpn", False, marks=pytest.mark.slow),
        pytest.param("retinanet_resnet50_fpn_v2", False, marks=pytest.mark.slow),
        ("ssdlite320_mobilenet_v3_large", False),
        pytest.param("ssd300_vgg16", False, marks=pytest.mark.slow),
    ],
)
def test_finds_torchvisions_detections_and_times_both_sides(name: str, apart: bool) -> None:
    photo = drawn_scene(64, 96)
    only = {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320)}.get(name)
    imgsz = None if only else (64, 96)
    result = benchmark(name, photo, imgsz=imgsz, repeats=1, threads=1, max_det=20, apart=apart)
    assert result.size == (only or (64, 96))
    assert result.theirs is not None and result.match is not None
    assert result.match.found == result.match.total == result.match.ours == 20
    # Not the same arithmetic: something differs, and the comparison saw it.
    assert 0 < result.match.box < BOX_PX
    assert 0 < result.match.score < SCORE
    for side in (result.ours, result.theirs):
        assert len(side.total) == 1
        assert {len(times) for times in side.stages.values()} == {1}
        # Stages are parts of the whole, and most of it.
        parts = sum(times[0] for times in side.stages.values())
        assert 0.5 * side.total[0] < parts < side.total[0]
    assert set(result.ours.stages) == set(result.theirs.stages)


def test_a_model_that_torchvision_has_not_is_timed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    options = ["nuclei", "imgsz=96", "repeats=1", f"save={file}"]
    assert main(["benchmark", *options]) == 0
    assert "torchvision has no such model" in capsys.readouterr().out
    figures = json.loads(file.read_text())
    assert figures["theirs"] is figures["ratio"] is None
    assert figures["ours"]["stages"]["backbone"][0] > 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["repeats=0"], 2, "repeats must be at least 1"),
        (["threads=0"], 2, "threads must be at least 1"),
        (["source=nowhere.jpg"], 1, "nowhere.jpg"),
        (["save=no/such/folder/x.json"], 1, "there is no folder"),
    ],
)
def test_wrong_options(
    options: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "nuclei", *options]) == status
    assert message in capsys.readouterr().err


def test_sides_apart_are_made_by_name_and_their_errors_arrive() -> None:
    with pytest.raises(OptionError, match="its name or its file"):
        benchmark(random_predictor("faster_rcnn_lite0_fpn", 2, drawn_scene(64, 96)), apart=True)
    settings = DetectionSettings(PostProcess())
    job = Job(fail, drawn_scene(64, 96), settings, None, 1)
    with Apart(Ours, job) as side, pytest.raises(ValueError, match="no such model"):
        side(Side())
    with (
        Apart(Ours, replace(job, make=die)) as side,
        pytest.raises(RuntimeError, match="exit code 3"),
    ):
        side(Side())


def fail() -> Predictor:
    raise ValueError("no such model")


def die() -> Predictor:
    os._exit(3)


def test_a_predictor_stays_as_it_was() -> None:
    predictor, photo = load("nuclei", device="cpu"), drawn_scene(64, 64)
    for fast in (False, True):
        predictor.fast = fast
        benchmark(predictor, photo, repeats=1, fast=not fast)
        assert predictor.fast == fast
    for wrong in ({"weights": "x.pth"}, {"precision": "bf16"}, {"device": "cuda:7"}):
        with pytest.raises(ValueError, match="a Predictor keeps its own"):
            benchmark(predictor, photo, repeats=1, **wrong)


def test_tasks_that_nothing_is_compared_with_are_timed_as_a_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictor = Predictor(build_tiny("locate_resnet18"), Meta("x", {}, ["a", "b"]), device="cpu")
    result = benchmark(predictor, drawn_scene(64, 64), repeats=1)
    assert result.theirs is None and result.match is None
    assert set(result.ours.stages) == {"read and resize", "network"}
    report(result)
    assert "torchvision has no such model" in capsys.readouterr().out
