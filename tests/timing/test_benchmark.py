from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskwright.cli import main
from maskwright.errors import OptionError
from maskwright.models import PostProcess
from maskwright.prediction.load import load
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Detections
from maskwright.tasks.detection.agreement import BOX_PX, SCORE
from maskwright.tasks.detection.result import Result
from maskwright.timing.benchmark import _match, benchmark
from maskwright.timing.peer import drawn_scene, random_predictor
from maskwright.timing.turns import Apart, Ours, Side, Task


@pytest.mark.parametrize("apart", [False, True])
def test_finds_torchvisions_detections_and_times_both_sides(apart: bool) -> None:
    name, photo = "mask_rcnn_resnet50_fpn", drawn_scene(64, 96)
    result = benchmark(name, photo, imgsz=(64, 96), repeats=1, threads=1, max_det=20, apart=apart)
    assert result.size == (64, 96)
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


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Result:
    found = Detections(
        (40, 60), torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), None
    )
    return Result(found, drawn_scene(40, 60), ["a", "b"])


def test_each_detection_serves_once() -> None:
    ours = detections([[1, 1, 9, 9], [1, 1, 9, 9.01], [30, 30, 39, 39]], [0.9, 0.8, 0.7], [0, 0, 1])
    theirs = {
        "boxes": torch.tensor([[1.0, 1, 9, 9.01], [1, 1, 9, 9], [1, 1, 9, 9], [30, 30, 39, 39.5]]),
        "scores": torch.tensor([0.8, 0.9, 0.9, 0.7]),
        "labels": torch.tensor([1, 1, 1, 2]),  # background is 0 there
    }
    match = _match(ours, theirs)
    assert (match.found, match.total, match.ours) == (2, 4, 3)
    assert match.mask is None


def test_masks_are_compared_pixel_by_pixel() -> None:
    probs = torch.ones(1, 28, 28)
    found = Detections(
        (40, 60), torch.tensor([[4.0, 4, 34, 34]]), torch.tensor([0.9]), torch.tensor([0]), probs
    )
    ours = Result(found, drawn_scene(40, 60), ["a"])
    assert ours.masks is not None
    for value, expected in ((0.4985, (1, 1)), (0.2, (0, 0))):
        mask = ours.masks.float()[:, None].clone()
        mask[0, 0, 10:14, 10] = value  # 4 of some 900 pixels: below the tolerance of the IoU
        theirs = {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels + 1,
            "masks": mask,
        }
        match = _match(ours, theirs)
        assert (match.found, match.undecided) == expected
        assert match.mask == pytest.approx(1 - 4 / int(ours.masks.sum()))


def test_a_box_side_on_a_whole_pixel_may_fall_on_either_side() -> None:
    # torchvision's paste enlarges the box by 30/28 and cuts it: its left side at 4 to 3 or 4.
    probs = torch.linspace(0, 1, 28).expand(1, 28, 28).contiguous()
    boxes = torch.tensor([[[4.999, 5, 33, 33]], [[5.001, 5, 33, 33]]])
    sides = [
        Result(
            Detections((40, 60), box, torch.tensor([0.9]), torch.tensor([0]), probs),
            drawn_scene(40, 60),
            ["a"],
            paste_mode="torchvision",
        )
        for box in boxes
    ]
    assert sides[0].masks is not None and sides[1].masks is not None
    assert not torch.equal(sides[0].masks, sides[1].masks)
    theirs = {
        "boxes": boxes[1],
        "scores": torch.tensor([0.9]),
        "labels": torch.tensor([1]),
        "masks": sides[1].masks.float()[:, None],
    }
    match = _match(sides[0], theirs)
    assert (match.found, match.undecided) == (1, 1)
    assert match.mask is not None and match.mask < 0.999
    # Another mask in the same place is none of that.
    theirs["masks"] = theirs["masks"].flip(3)
    assert _match(sides[0], theirs).found == 0


def test_sides_apart_are_made_by_name_and_their_errors_arrive() -> None:
    with pytest.raises(OptionError, match="its name or its file"):
        benchmark(random_predictor("faster_rcnn_lite0_fpn", 2, drawn_scene(64, 96)), apart=True)
    task = Task(fail, drawn_scene(64, 96), PostProcess(), None, 1)
    with Apart(Ours, task) as side, pytest.raises(ValueError, match="no such model"):
        side(Side())
    with (
        Apart(Ours, replace(task, make=die)) as side,
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
