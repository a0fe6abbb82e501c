"""Trainings small enough for tests: drawn coins, a model of 134,000 parameters."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from maskwright.models.registry import get_entry

MODEL = "mask_rcnn_resnet50_fpn"
# The smallest instance of the family, smaller still: 134,000 parameters.
TINY = {**(get_entry(MODEL).tiny or {}), "backbone": "test_efficientnet", "imgsz": 64}
BY_CLOCK = ("seconds", "images_per_s")  # columns


@contextmanager
def stopping_after(step: int) -> Iterator[None]:
    """Let trainings stop behind a step, as an interrupt does."""
    from maskwright.training import train as module

    original = module.optimise

    def optimise(run: Any, group: Any, interrupt: Any) -> bool:
        return original(run, group, interrupt) or run.place.step == step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "optimise", optimise)
        yield


def make_split(root: Path, split: str, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    folder = root / "images" / split
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        picture = Image.new("RGB", (96, 72), (30, 30, 60))
        pen = ImageDraw.Draw(picture)
        file = f"{split}{number}.png"
        images.append({"id": number + 1, "file_name": file, "height": 72, "width": 96})
        for _ in range(int(torch.randint(0, 4, (), generator=generator))):
            w, h = torch.randint(12, 40, (2,), generator=generator).tolist()
            x, y = (torch.rand(2, generator=generator) * torch.tensor([96 - w, 72 - h])).tolist()
            x, y = int(x), int(y)
            pen.ellipse((x, y, x + w - 1, y + h - 1), fill=(220, 200, 40))
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": 5,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
        picture.save(folder / file)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "coin"}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def tiny_options(data: Path, project: Path) -> dict[str, Any]:
    """Return options of a training of the tiny model that takes a few seconds."""
    return {
        "data": data,
        "model": MODEL,
        "model_args": TINY,
        "weights": "none",
        "project": project,
        "device": "cpu",
        "workers": 0,
        "batch": 2,
        "epochs": 2,
        "freeze": 0,
        "lr": 1e-3,
        "warmup": 2,
        "patience": 0,
    }


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `results.csv` without the columns that a clock has filled."""
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in BY_CLOCK} for row in rows]


def as_options(options: dict[str, Any]) -> list[str]:
    """Return options as they are written on the command line."""
    return [
        f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key, value in options.items()
    ]


def blank(figure: Any, file: Any, **_: Any) -> None:
    """Stand in for `Figure.savefig`: a white picture, since painting takes most of a small run."""
    width, height = (max(int(20 * side), 1) for side in figure.get_size_inches())
    Image.new("RGB", (width, height), "white").save(file)


def settle(log: Path) -> None:
    """Make a forked process ready for a test: one thread, what it prints in a file, no figures."""
    import multiprocessing
    import os

    from matplotlib.figure import Figure

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as from a shell
    Figure.savefig = blank  # type: ignore[method-assign]
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def run_in_log(log: Path, options: dict[str, Any], limit: int | None = None) -> None:
    """Train with what is printed going to a file: what a process forked for a test does.

    Args:
        log: the file.
        options: of `train`.
        limit: largest file that may be written, in bytes.
    """
    import resource
    import sys

    from maskwright.cli import main

    settle(log)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if "resume" in options:
        sys.exit(main(["train", f"resume={options['resume']}"]))
    from maskwright.training.train import train

    train(**options)


def run_in_rank(
    log: Path, rank: int, world: int, port: int, function: Callable[..., object], *args: Any
) -> None:
    """Call a function in one of several forked processes, which know each other as by torchrun.

    Args:
        log: where it prints.
        rank: its number.
        world: how many they are.
        port: where they meet on this machine.
        function: to be imported from the module of a test.
        *args: its arguments.
    """
    import os

    settle(log)
    if world > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
        own |= {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({name: str(number) for name, number in own.items()})
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
    function(*args)
