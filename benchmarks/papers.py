"""Claims of the papers on classifiers and segmenters, tried at a scale that two cores can do.

    python benchmarks/papers.py lenet --data FOLDER --out rows.json

FOLDER holds the data sets of an experiment under their names: mnist, cifar10_mini (2,000 training
and 500 test images of CIFAR-10), hymenoptera, camvid (184 training and 78 test images). Each side
of an experiment trains with the same seeds and sees the same images; what is printed is the
accuracy on images outside the training split (top-1, or the mean IoU of the classes), and the
difference to the first side, paired by seed, with its 95 % interval (Student's t). Nothing is
chosen by these images: the last weights count. Rows that are in the file are not made again, and a
side that stands in several experiments trains once.

    python benchmarks/papers.py scenes --data FOLDER --speed

tells parameters, and milliseconds from a photo in memory to its answer: medians, sides in turns.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import Rows, half_interval, machine

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.models.meta import Meta
from maskwright.models.registry import build, build_blank
from maskwright.tasks import task_of


@dataclass(frozen=True)
class Experiment:
    """Sides that are compared.

    Attributes:
        data: folder of the data set below `--data`.
        split: of the images that are scored.
        beside: a second split outside the training, scored as well.
        sides: options of `train` by what the side is called; the first is what others are held to.
        common: options that all sides have.
        metric: that is compared, a share.
        looks: options of `val` by what is put behind the name of the first side, whose models are
            scored with each of them.
    """

    data: str
    split: str
    sides: dict[str, dict[str, Any]]
    common: dict[str, Any] = field(default_factory=dict)
    metric: str = "top1"
    looks: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    beside: str | None = None

    @property
    def named(self) -> list[str]:
        """Return the names of all rows of a seed."""
        return [name for side in self.sides for name in self.names_of(side)]

    def names_of(self, side: str) -> list[str]:
        """Return the names of the rows of a side."""
        return [side + look for look in self.looks_of(side)]

    def looks_of(self, side: str) -> dict[str, dict[str, Any]]:
        """Return by which options a side is scored."""
        return self.looks if side == next(iter(self.sides)) else {"": {}}


# As for CIFAR in the papers: SGD with momentum, a tenth at half and three quarters, random crops,
# mirrored; at half their size, which makes it a quarter of the work.
CIFAR: dict[str, Any] = {
    "imgsz": 16,
    "epochs": 25,
    "batch": 64,
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 1e-4,
    "schedule": "multistep",
    "milestones": (0.5, 0.75),
    "warmup": 60,
    "weights": "none",
}

# Frames at a third of their size, by the recipe that segmenters have here, in 552 steps.
SCENES: dict[str, Any] = {"imgsz": 160, "crop": (120, 160), "epochs": 12, "batch": 4}
# The rate was the usual one when the rows were made.
LINE: dict[str, Any] = {**SCENES, "lr": 5e-4}
LITE0 = {"backbone": "tf_efficientnet_lite0", "output_stride": 16, "norm": "bn"}
# What a paper has at stride 8, with half the dilation at stride 16.
ON_LITE0: dict[str, dict[str, Any]] = {
    "LargeFOV": {"model": "deeplab_largefov", "model_args": {**LITE0, "rates": (6,)}},
    "v2": {"model": "deeplabv2_resnet101", "model_args": {**LITE0, "rates": (3, 6, 9, 12)}},
}

EXPERIMENTS: dict[str, Experiment] = {
    "lenet": Experiment(
        "mnist",
        "test",
        {"of today": {"model": "lenet5"}},
        {
            "epochs": 20,
            "batch": 128,
            "lr": 4e-3,
            "crop_scale": (0.8, 1.0),
            "ema": 0.999,
            "weights": "none",
            "weight_decay": 1e-4,
            "warmup": 200,
        },
    ),
    "residual": Experiment(
        "cifar10_mini",
        "test",
        {
            "plain, 20 layers": {"model": "plain20_cifar"},
            "residual, 20 layers": {"model": "resnet20_cifar"},
            "plain, 44 layers": {"model": "plain44_cifar"},
            "residual, 44 layers": {"model": "resnet44_cifar"},
        },
        CIFAR,
    ),
    "orders": Experiment(
        "cifar10_mini",
        "test",
        {
            f"({order})": {"model": "preact_resnet20_cifar", "model_args": {"order": order}}
            for order in "abcde"
        },
        CIFAR,
    ),
    "depth": Experiment(
        "cifar10_mini",
        "test",
        {
            "residual, 44 layers": {"model": "resnet44_cifar"},
            "stochastic depth": {"model": "resnet44_cifar", "model_args": {"drop_path": 0.5}},
        },
        CIFAR,
    ),
    "dense": Experiment(
        "cifar10_mini",
        "test",
        {
            "residual, 20 layers": {"model": "resnet20_cifar"},
            "dense, 22 layers, k 12": {"model": "densenet40_12_cifar", "model_args": {"depth": 22}},
        },
        CIFAR,
    ),
    "finetune": Experiment(
        "hymenoptera",
        "val",
        {
            "all at once": {},
            "head alone": {"freeze": -1},
            "head, half, all": {"unfreeze_at": (3, 6)},
            "from nothing": {"weights": "none"},
        },
        {"model": "classify_tf_efficientnet_lite0", "epochs": 10, "batch": 32, "imgsz": 160},
    ),
    "scenes": Experiment(
        "camvid",
        "test",
        {
            "FCN-32s": {"model": "fcn32s_lite0"},
            "FCN-16s": {"model": "fcn16s_lite0"},
            "FCN-8s": {"model": "fcn8s_lite0"},
            "U-Net": {"model": "unet_lite0"},
            "DeepLab v1": ON_LITE0["LargeFOV"],
            "DeepLab v2": ON_LITE0["v2"],
            "DeepLab v3": {"model": "deeplabv3_lite0"},
            "DeepLab v3+": {"model": "deeplabv3plus_lite0"},
            "semantic FPN": {"model": "semantic_fpn_lite0"},
            "SegNet-Basic, narrow, from nothing": {
                "model": "segnet_basic",
                "weights": "none",
                "model_args": {"width": 32},
            },
        },
        LINE,
        metric="mIoU",
        beside="val",
    ),
    "deeplab": Experiment(
        "camvid",
        "test",
        {
            "DeepLab v3+": {"model": "deeplabv3plus_lite0"},
            "not dilated": {"model_args": {"output_stride": 32}},
            "without image pooling": {"model_args": {"image_pooling": False}},
            "without the low-level map": {"model_args": {"low_level": False}},
        },
        {**LINE, "model": "deeplabv3plus_lite0"},
        metric="mIoU",
        looks={"": {}, " and CRF": {"crf": True}},
        beside="val",
    ),
}


def train_once(experiment: Experiment, side: str, seed: int, data: Path) -> list[dict[str, Any]]:
    """Train one side and return its rows: score in percent, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        options = {**experiment.common, **experiment.sides[side]}
        options |= {"val_fraction": 0, "patience": 0, "seed": seed, "workers": 0}
        options |= {"project": folder, "device": "cpu"}
        begin = time.perf_counter()
        train_part = data / experiment.data
        run = mw.train(train_part, **options, **validated_last(experiment))
        seconds = time.perf_counter() - begin
        if run.interrupted:
            raise SystemExit("interrupted: the rows that are whole are kept")
        with (run.dir / "results.csv").open(newline="") as file:
            loss = float(list(csv.DictReader(file))[-1]["train/loss"])
        rows = []
        for look, options in experiment.looks_of(side).items():

            def score(split: str, options: dict[str, Any] = options) -> float:
                asked = {"batch": 100 if experiment.metric == "top1" else 4, "workers": 0}
                scored = mw.val(run.last, train_part, split=split, **asked, **options)
                return 100 * float(scored[experiment.metric])

            row = {"side": side + look, "seed": seed, "score": score(experiment.split)}
            if experiment.beside:
                row[experiment.beside] = score(experiment.beside)
            rows.append({**row, "loss": loss, "seconds": seconds})
    return rows


def validated_last(experiment: Experiment) -> dict[str, Any]:
    """Return options by which a training neither looks at what is scored nor takes the time."""
    return {"val_every": 10**6} if experiment.split == "val" or experiment.metric != "top1" else {}


def table(rows: list[dict[str, Any]], experiment: Experiment) -> str:
    """Return a Markdown table: accuracy by seed, mean, and the difference to the first side."""
    beside = experiment.beside
    heads = ["side", f"{experiment.split}, % by seed", "mean", "difference"]
    heads += [f"{beside}, mean"] if beside else []
    heads += ["training loss at the end"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    sides = experiment.named
    found = {side: {row["seed"]: row for row in rows if row["side"] == side} for side in sides}
    first = found[sides[0]]
    for side in sides:
        mine = found[side]
        if not mine:
            continue
        values = [mine[seed]["score"] for seed in sorted(mine)]
        pairs = [mine[s]["score"] - first[s]["score"] for s in sorted(mine) if s in first]
        losses = [row["loss"] for row in mine.values() if "loss" in row]
        cells = [side, ", ".join(f"{v:.1f}" for v in values), f"{statistics.mean(values):.1f}"]
        cells += ["" if side == sides[0] else difference(pairs)]
        cells += [f"{statistics.mean(row[beside] for row in mine.values()):.1f}"] if beside else []
        cells += [", ".join(f"{v:.2f}" for v in losses)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(experiment: Experiment, sides: list[str], data: Path, turns: int = 9) -> str:
    """Return a Markdown table: parameters of the sides, and milliseconds of a photo."""
    name = {**experiment.common, **experiment.sides[sides[0]]}["model"]
    how = task_of(name).finding(build_blank(name, 1))
    photos = open_dataset(str(data / experiment.data), experiment.split, **how)
    photo, count = photos.image(0), len(photos.names)
    predictors: dict[str, tuple[mw.Predictor, Any]] = {}
    for side in sides:
        options = {**experiment.common, **experiment.sides[side]}
        made = build(options["model"], count, **options.get("model_args", {}))
        names: list[str | None] = [f"class_{i}" for i in range(count)]
        meta = Meta(options["model"], options.get("model_args", {}), names)
        predictors[side] = (mw.Predictor(made, meta, device="cpu"), options["imgsz"])
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):
        for side, (predictor, size) in predictors.items():
            begin = time.perf_counter()
            predictor(photo, imgsz=size)
            if turn:  # the first call prepares the network
                taken[side].append(1e3 * (time.perf_counter() - begin))
    lines = [
        "| side | million parameters | ms a photo (lowest to highest) |",
        "| --- | --- | --- |",
    ]
    for side, (predictor, _) in predictors.items():
        millions = sum(p.numel() for p in predictor.model.parameters()) / 1e6
        ms = taken[side]
        lines.append(
            f"| {side} | {millions:.2f} | {statistics.median(ms):.0f} ({min(ms):.0f} to "
            f"{max(ms):.0f}) |"
        )
    return "\n".join(lines)


def difference(pairs: list[float]) -> str:
    """Return a mean with its 95 % interval."""
    mean = statistics.mean(pairs)
    if len(pairs) < 2:
        return f"{mean:+.1f}"
    half = half_interval(pairs, 0.95)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", help="some of the sides; none: all")
    parser.add_argument("--out", type=Path, help="file of the rows, which is added to")
    parser.add_argument("--speed", action="store_true", help="train nothing: see above")
    args = parser.parse_args()
    experiment = EXPERIMENTS[args.experiment]
    sides = args.sides or list(experiment.sides)
    if args.speed:
        print(f"{machine()}\n\n{speed(experiment, sides, args.data)}")
        return
    rows = Rows(args.out, args.experiment)
    mw.keep_memory()
    print(machine())
    for seed in args.seeds:
        for side in sides:
            names = experiment.names_of(side)
            if any(row["side"] in names and row["seed"] == seed for row in rows):
                continue
            # A side of this name in another experiment has the same options.
            same = {row["side"]: row for row in rows.kept if row["seed"] == seed}
            made = (
                [same[name] for name in names]
                if same.keys() >= set(names)
                else train_once(experiment, side, seed, args.data)
            )
            rows.add(made)
    print(table(rows, experiment))


if __name__ == "__main__":
    main()
