"""4-step alternating training: what each step changes, where it starts, and going on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_options
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.hub.loading import load_model
from maskwright.models import TwoStageDetector, build
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.structures import Images, Instances
from maskwright.tasks.detection.alternate import STEPS
from maskwright.tasks.detection.parts import proposing
from maskwright.training import train as training
from maskwright.training.stages import stage_folder
from maskwright.training.step import TrainStep
from maskwright.training.train import TrainResult, train

TINY = {
    "backbone": "test_efficientnet",
    "imgsz": 64,
    "rpn_width": 16,
    "box_width": 16,
    "anchor_sizes": (16, 32),
    "proposals": 20,
    "train_proposals": 30,
    "rois": 8,
}
Weights = dict[str, Tensor]


def alternating(coins: Path, project: Path) -> dict[str, Any]:
    return {
        **tiny_options(coins, project),
        "model": "faster_rcnn_resnet50_c4",
        "model_args": TINY,
        "alternate": True,
        "epochs": 1,
        "warmup": 0,
    }


@pytest.fixture(scope="module")
def whole(coins: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A training that nobody stops."""
    with pytest.MonkeyPatch.context() as patch:
        for place in (
            "reports.curves.plot_results",
            "tasks.detection.reporting.label_figure.plot_labels",
        ):
            patch.setattr(f"maskwright.{place}", lambda *args: None)
        patch.setattr(
            "maskwright.training.conclusion.write_report",
            lambda run: (run.dir / "report.html").touch(),
        )
        return train(**alternating(coins, tmp_path_factory.mktemp("whole")))


def last(folder: Path) -> Weights:
    return load_checkpoint(folder / "weights" / "last.safetensors", training=True).model


def changed(before: Weights, after: Weights) -> set[str]:
    """Parts of the network in which a tensor differs: backbone, tail, rpn, roi_heads."""
    parts = set()
    for key, value in after.items():
        if not torch.equal(before[key], value):
            part = key.split(".")[0]
            parts.add("tail" if part == "backbone" and ".blocks.4." in key else part)
    return parts


def test_each_step_changes_what_the_paper_says(whole: TrainResult) -> None:
    result = whole
    assert not result.interrupted and result.metrics and result.best is not None
    steps = [last(stage_folder(result.dir, STEPS[i])) for i in range(3)]
    final = last(result.dir)
    assert changed(steps[0], steps[1]) == {"backbone", "tail", "rpn", "roi_heads"}
    # The heads learn nothing from the RPN's training, and the other way round.
    torch.manual_seed(0)
    start = build("faster_rcnn_resnet50_c4", 1, **TINY, norm="bn").state_dict()
    assert changed(start, steps[0]) == {"backbone", "rpn"}
    assert changed(start, steps[1]) == {"backbone", "tail", "roi_heads"}
    assert changed(steps[1], steps[2]) == {"rpn"}
    assert changed(steps[2], final) == {"tail", "roi_heads"}
    for name in STEPS:
        table = (result.dir / "train" / name / "results.csv").read_text().splitlines()
        terms = {c for c in table[0].split(",") if c.startswith("train/")} - {"train/loss"}
        kind = "train/rpn/" if "rpn" in name else "train/roi/"
        assert len(terms) == 2 and all(term.startswith(kind) for term in terms)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_stopped_step_goes_on_to_the_same_weights(
    whole: TrainResult, coins: Path, tmp_path: Path, stop_at: int
) -> None:
    """Ctrl-C in the second step, and in the last."""
    calls = []
    optimise = training.optimise

    def stopping(run: Any, group: Any, interrupt: Any) -> bool:
        calls.append(run.place.step)
        stop = optimise(run, group, interrupt)
        return stop or (len(calls) == stop_at * 4 + 2)  # 4 steps in an epoch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "optimise", stopping)
        stopped = train(**alternating(coins, tmp_path))
    assert stopped.interrupted
    result = train(resume=stopped.dir)
    assert not result.interrupted and result.dir == stopped.dir
    for a, b in [(whole.dir, stopped.dir)] + [
        (stage_folder(whole.dir, STEPS[i]), stage_folder(stopped.dir, STEPS[i])) for i in range(3)
    ]:
        assert not changed(last(a), last(b))
    assert result.metrics.keys() == whole.metrics.keys()


def batch() -> tuple[Images, Instances]:
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([[64, 64]])
    images = Images(torch.rand(1, 3, 64, 64, generator=generator) * 255, size, size)
    box = torch.tensor([[[8.0, 8, 40, 48]]])
    valid = torch.ones(1, 1, dtype=torch.bool)
    return images, Instances(box, torch.zeros(1, 1, dtype=torch.int64), valid)


def test_heads_train_on_the_proposals_of_the_other_network() -> None:
    images, targets = batch()
    torch.manual_seed(0)
    proposer, detector = (build("faster_rcnn_resnet50_c4", 1, **TINY) for _ in range(2))
    assert isinstance(proposer, TwoStageDetector) and isinstance(detector, TwoStageDetector)
    detector.train().train_only("heads")
    keys = torch.tensor([7])
    found = TrainStep(detector, before=proposing(proposer.eval()))(images, targets, keys)
    assert found.keys() == {"roi/class", "roi/box", "total"}
    proposals = proposer.rpn.propose(proposer.rpn(proposer.features(images)), images, training=True)
    seen: list[Instances] = []
    losses = detector.roi_heads.losses

    def watch(pyramid: Any, given: Instances, *args: Any, **options: Any) -> Any:
        seen.append(given)
        return losses(pyramid, given, *args, **options)

    detector.roi_heads.losses = watch  # type: ignore[method-assign]
    again = TrainStep(detector, before=proposing(proposer))(images, targets, keys)
    assert torch.equal(seen[0].boxes, proposals.boxes) and torch.equal(
        again["total"], found["total"]
    )
    own = TrainStep(detector)(images, targets, keys)
    assert not torch.equal(seen[1].boxes, proposals.boxes)
    assert own.keys() == found.keys()
    # The other network is no part of the step: neither saved nor trained.
    step = TrainStep(detector, before=proposing(proposer))
    assert step.state_dict().keys() == TrainStep(detector).state_dict().keys()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("faster_rcnn_resnet50_fpn", set()),
        ("faster_rcnn_resnet50_c4", {"body.layer4"}),
        ("rfcn_resnet50", {"body.layer4"}),
        ("faster_rcnn_resnet50_dc5", set()),
    ],
)
@pytest.mark.parametrize("part", ["rpn", "heads", "rpn-only", "heads-only"])
def test_what_trains_in_each_part(name: str, own: set[str], part: str) -> None:
    with torch.device("meta"):
        detector = build(name, 2, norm="bn")
    assert isinstance(detector, TwoStageDetector)
    detector.freeze(2)
    detector.train_only(part)
    trained = {
        ".".join(key.split(".")[: 3 if key.startswith("backbone") else 1])
        for key, parameter in detector.named_parameters()
        if parameter.requires_grad
    }
    expected = {"rpn"} if part.startswith("rpn") else {"roi_heads"}
    if not part.endswith("-only"):
        expected |= {f"backbone.body.layer{i}" for i in (2, 3, 4)}
        expected |= {"fpn"} if detector.fpn is not None else set()
    tail = {f"backbone.{stage}" for stage in own}
    expected = expected - tail if part.startswith("rpn") else expected | tail
    assert trained == expected
    detector.train()
    norm = detector.backbone.get_submodule("body.layer3.0.bn1")
    assert norm.training == (not part.endswith("-only"))


def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="chooses train_part and proposal_model"):
        train(**options, alternate=True, train_part="rpn")
    with pytest.raises(OptionError, match="proposal_model is for train_part=heads"):
        train(**options, proposal_model="x.safetensors")
    with pytest.raises(OptionError, match="expected one of all, rpn"):
        train(**options, train_part="box")
    with pytest.raises(OptionError, match="train_part is one of"):
        detector = build("faster_rcnn_resnet50_c4", 1, **TINY)
        assert isinstance(detector, TwoStageDetector)
        detector.train_only("box")
    with pytest.raises(OptionError, match=r"needs a model with an RPN .* not fast_rcnn_vgg16"):
        arguments = {"backbone": "test_efficientnet", "box_width": 16, "source": "sliding_window"}
        train(
            **{**options, "model": "fast_rcnn_vgg16", "model_args": arguments}, train_part="heads"
        )


def test_a_part_alone_trains_from_a_checkpoint(options: dict[str, Any], no_figures: None) -> None:
    """R-FCN through training and back: joint, then only the layers that the RPN does not use."""
    args = {**TINY, "bins": 3, "width": 16}
    args.pop("box_width")
    options |= {"model": "rfcn_resnet50", "model_args": args, "epochs": 1, "warmup": 0}
    joint = train(**options)
    assert joint.metrics
    found = train(**{**options, "weights": joint.dir}, train_part="heads-only")
    assert changed(load_checkpoint(joint.dir).model, last(found.dir)) <= {"tail", "roi_heads"}
    detector, meta = load_model(found.dir)
    assert meta.model == "rfcn_resnet50" and detector.num_classes == 1
