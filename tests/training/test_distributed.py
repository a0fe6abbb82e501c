"""Several processes, as torchrun starts them: together they are one."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from tiny_runs import TINY, as_options, make_split, run_in_rank, table
from torch import nn

import maskwright.training.train as module
from maskwright.cli import main
from maskwright.data.batch_file import load_batch
from maskwright.models.detection.base import TwoStageDetector
from maskwright.models.detection.fast_rcnn import TINY as REGIONS
from maskwright.nn.parallel import mean_count, share_batch_norm
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.detection.recipe import DetectionRecipe

Launch = Callable[..., tuple[list[BaseProcess], list[Path]]]


def record(options: dict[str, Any], home: Path | None = None) -> None:
    """Train, and write losses and objects of every step, one file for each process."""
    if home is not None:
        os.environ["MASKWRIGHT_HOME"] = str(home)
    original, seen, steps = module.optimise, dict[str, float](), list[dict[str, Any]]()

    def optimise(run: Any, group: Any, interrupt: Any) -> bool:
        stop = original(run, group, interrupt)
        sums = dict(run.place.sums)
        before = seen if run.place.counted > 1 else {}
        steps.append(
            {
                "losses": {k: v - before.get(k, 0.0) for k, v in sums.items()},
                "images": [i for batch in group for i in batch.indices],
                "objects": sum(int(batch.targets.valid.sum()) for batch in group),
                "size": list(group[0].images.pixels.shape[2:]),
            }
        )
        seen.clear()
        seen.update(sums)
        return stop

    module.optimise = optimise
    result = module.fit(DetectionRecipe(**options))
    path = result.dir / f"steps{os.environ.get('RANK', 0)}.json"
    path.write_text(json.dumps(steps))


@pytest.fixture
def launch(forked: ForkServerContext, tmp_path: Path) -> Iterator[Launch]:
    """Start processes that call a function together; return them and their logs."""
    every: list[BaseProcess] = []

    def begin(world: int, function: Callable[..., object], *args: Any) -> Any:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        logs = [tmp_path / f"log{len(every) + rank}" for rank in range(world)]
        processes = [
            forked.Process(target=run_in_rank, args=(log, rank, world, port, function, *args))
            for rank, log in enumerate(logs)
        ]
        every.extend(processes)
        for process in processes:
            process.start()
        return processes, logs

    yield begin
    for process in every:
        process.kill()


def finish(processes: list[BaseProcess], logs: list[Path]) -> str:
    """Wait for processes that end well; return what all have printed."""
    for process in processes:
        process.join(300)
    text = "".join(log.read_text() for log in logs)
    assert [process.exitcode for process in processes] == [0] * len(processes), text[-3000:]
    return text


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 images of different sizes, most of them without objects; 3 to validate."""
    root = tmp_path_factory.mktemp("sparse")
    make_split(root, "train", 7, seed=5)
    make_split(root, "val", 3, seed=1)
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in (1, 5)]
    assert len(content["annotations"]) > 2
    path.write_text(json.dumps(content))
    return root


def test_two_processes_equal_one(options: dict[str, Any], sparse: Path, launch: Launch) -> None:
    """The same losses in each step, the same weights and metrics, whatever each process sees.

    Blocks of 2, 2, 2 and 1 images: at the end of an epoch one process has no image at all.
    """
    options |= {"data": sparse, "optimizer": "sgd", "lr": 0.01, "epochs": 2}
    options |= {"scale_jitter": (0.3, 1.5), "backbone_lr": 1.0}
    options["model_args"] = {**TINY, "norm": "affine"}
    folders, recorded = {}, {}
    for processes in (1, 2):
        name = f"of{processes}"
        recipe = DetectionRecipe(**options | {"batch": 2 // processes, "name": name}).to_dict()
        text = finish(*launch(processes, record, recipe))
        assert text.count("Training\n") == 1  # one process talks
        folders[processes] = options["project"] / "train" / name
        recorded[processes] = [
            json.loads((folders[processes] / f"steps{rank}.json").read_text())
            for rank in range(processes)
        ]
    (one,), two = recorded[1], recorded[2]
    assert len(one) == len(two[0]) == len(two[1]) == 8
    for a, b, c in zip(one, *two, strict=True):
        assert a["images"] == b["images"] + c["images"]
        assert a["size"] == b["size"] == c["size"]
        assert b["losses"] == c["losses"]
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-5)
    # What the comparison is to cover: differently sized, empty and no images.
    assert len({tuple(step["size"]) for step in one}) > 1
    pairs = [(b["objects"], c["objects"]) for b, c in zip(*two, strict=True)]
    assert any(b and not c for b, c in pairs) and any(c and not b for b, c in pairs)
    assert any(not b and not c for b, c in pairs)
    assert any(not step["images"] for step in two[1])

    rows = [table(folder) for folder in folders.values()]
    assert [row["step"] for row in rows[0]] == ["4", "8"]
    for a, b in zip(*rows, strict=True):
        numbers = [{k: float(v) for k, v in row.items() if v} for row in (a, b)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-5, abs=1e-6, nan_ok=True)
    states = [
        load_checkpoint(f / "weights" / "last.safetensors", training=True) for f in folders.values()
    ]
    for key, value in states[0].model.items():
        torch.testing.assert_close(states[1].model[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert len(list(folders[2].parent.iterdir())) == 2  # one folder each


def command(line: list[str]) -> None:
    """Run `maskwright` and leave with its status."""
    sys.exit(main(line))


def test_a_dead_process_stops_the_others(
    options: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to one of two; then one process goes on alone, to the end."""
    options |= {"batch": 1, "epochs": 500, "lr": 1e-4}
    line = as_options(options | options.pop("model_args") | {"norm": "affine"})
    (left, killed), logs = launch(2, command, ["train", *line])
    folder = options["project"] / "train" / "train"
    while not (folder / "results.csv").exists():
        assert left.is_alive() and killed.is_alive(), "".join(log.read_text() for log in logs)
        time.sleep(0.05)
    killed.kill()
    left.join(timeout=60)
    text = logs[0].read_text()
    assert left.exitcode, text
    assert "another process of this training has ended" in text
    assert f"maskwright train resume={folder}" in text

    before = load_checkpoint(folder / "weights" / "last.safetensors", training=True).training
    original = module.optimise

    def optimise(run: Any, group: Any, interrupt: Any) -> bool:
        assert run.recipe.batch == 2 and len(group[0]) == 2
        signal.raise_signal(signal.SIGINT)
        return original(run, group, interrupt)

    monkeypatch.setattr(module, "optimise", optimise)
    assert module.train(resume=folder).interrupted
    after = load_checkpoint(folder / "weights" / "last.safetensors", training=True).training
    assert before is not None and after is not None
    assert after.scalars["place"]["step"] == before.scalars["place"]["step"] + 1
    assert (before.scalars["world"], after.scalars["world"]) == (2, 1)


def poison(options: dict[str, Any]) -> None:
    """Train; in the third step the loss of the second process is not a number."""
    losses, calls = TwoStageDetector.losses, list[int]()

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        terms = losses(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 3 and os.environ["RANK"] == "1":
            terms["rpn/box"] = terms["rpn/box"] * float("nan")
        return terms

    TwoStageDetector.losses = poisoned  # type: ignore[method-assign]
    module.fit(DetectionRecipe(**options))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_skips_the_step_in_all(
    options: dict[str, Any], launch: Launch
) -> None:
    recipe = DetectionRecipe(**options | {"batch": 1, "epochs": 1, "steps": 3})
    text = finish(*launch(2, poison, recipe.to_dict()))
    folder = options["project"] / "train" / "train"
    kept = {path.name for path in folder.glob("bad_step*")}
    assert kept == {"bad_step3_rank1.safetensors", "bad_step3_rank1.jpg"}
    batch, info = load_batch(folder / "bad_step3_rank1.safetensors")
    (named,) = (line for line in text.splitlines() if "loss is not finite" in line)
    assert len(batch) == 1 and named.endswith(f"images: {Path(info['files'][0]).name}")
    assert float(table(folder)[0]["train/loss"]) > 0
    assert load_checkpoint(folder / "weights" / "last.safetensors", training=True).training


def share_norms() -> None:
    """Compare batch norm of all images with that of the shares of two processes."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)

    def make() -> nn.Module:
        layers = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4), nn.Conv2d(4, 2, 1)
        return nn.Sequential(*layers).double()

    whole, shared = make(), make()
    shared.load_state_dict(whole.state_dict())
    share_batch_norm(shared)
    assert shared.state_dict().keys() == whole.state_dict().keys()
    x = torch.randn(5, 3, 4, 6, dtype=torch.float64)
    goal = torch.randn(5, 2, 4, 6, dtype=torch.float64)
    # 3 + 2 images, then all of them in the first process.
    for first in (3, 5):
        mine = slice(0, first) if rank == 0 else slice(first, 5)
        for net in (whole, shared):
            net.zero_grad()
        a = x.clone().requires_grad_()
        (whole(a) * goal).sum().div(5).backward()
        b = x[mine].clone().requires_grad_()
        valid = torch.ones(len(b), dtype=torch.bool)
        assert float(mean_count(valid)) == 2.5 and float(mean_count(valid & False)) == 0.5
        (shared(b) * goal[mine]).sum().div(mean_count(valid)).backward()
        # The losses were twice as large as their share: distributed training takes the mean.
        torch.testing.assert_close(b.grad / 2, a.grad[mine], rtol=1e-5, atol=1e-7)
        for p, q in zip(whole.parameters(), shared.parameters(), strict=True):
            dist.all_reduce(q.grad)
            torch.testing.assert_close(q.grad / 2, p.grad, rtol=1e-5, atol=1e-6)
        for p, q in zip(whole.buffers(), shared.buffers(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(shared.eval()(x), whole.eval()(x), rtol=1e-5, atol=1e-6)
    print("same")
    dist.destroy_process_group()


def test_batch_norm_and_counts_over_processes(launch: Launch) -> None:
    """Against torch's batch norm of all images in one process: values, gradients, statistics."""
    assert finish(*launch(2, share_norms)).count("same") == 2


@pytest.mark.slow
def test_a_clock_ends_all_processes_at_the_same_step(
    options: dict[str, Any], launch: Launch
) -> None:
    recipe = DetectionRecipe(**options | {"batch": 1, "minutes": 0.05, "val_every": 99})
    finish(*launch(2, record, recipe.to_dict()))
    folder = options["project"] / "train" / "train"
    counts = [len(json.loads((folder / f"steps{rank}.json").read_text())) for rank in (0, 1)]
    place = load_checkpoint(folder / "weights" / "last.safetensors", training=True)
    assert place.training is not None
    assert counts == [place.training.scalars["place"]["step"]] * 2 and counts[0] > 1
    assert place.training.scalars["place"]["spent"] >= 3


@pytest.mark.slow
def test_two_processes_with_regions_equal_one(
    options: dict[str, Any], sparse: Path, launch: Launch, tmp_path: Path
) -> None:
    """Regions from outside, and SVMs after the training, whatever each process sees of it."""
    args = {**REGIONS, "source": "sliding_window:200", "proposals": 200, "norm": "affine"}
    options |= {"model": "sppnet_vgg16", "model_args": args, "data": sparse, "optimizer": "sgd"}
    options |= {"lr": 0.01, "epochs": 1, "backbone_lr": 1.0, "scale_jitter": (0.5, 1.5)}
    states, rows = [], []
    for processes in (1, 2):
        recipe = DetectionRecipe(**options | {"batch": 2 // processes, "name": f"of{processes}"})
        finish(*launch(processes, record, recipe.to_dict(), tmp_path / "cache"))
        folder = options["project"] / "train" / f"of{processes}"
        states.append(load_checkpoint(folder / "weights" / "best.safetensors").model)
        rows.append(table(folder))
    assert [len(part) for part in rows] == [2, 2], "an epoch, and the stage after it"
    assert states[0]["roi_heads.box_head.fitted"]
    for a, b in zip(*rows, strict=True):
        numbers = [{k: float(v) for k, v in row.items() if v} for row in (a, b)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-5, nan_ok=True)
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=2e-3, atol=1e-4, msg=key)
