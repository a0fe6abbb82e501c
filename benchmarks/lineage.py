"""The line from R-CNN to the pyramid on one data set: average precision beside images per second.

    python benchmarks/lineage.py DATA               # all of them, one by one
    python benchmarks/lineage.py DATA --only fast_rcnn,rfcn --out runs/lineage --device cpu
    python benchmarks/lineage.py DATA --show        # table and plot of what is there

Two at once on two cores, their speed measured afterwards, when the machine is quiet:

    OMP_NUM_THREADS=1 python benchmarks/lineage.py DATA --untimed &
    OMP_NUM_THREADS=1 python benchmarks/lineage.py DATA --untimed &
    wait; python benchmarks/lineage.py DATA

Every detector has the same backbone (EfficientNet-Lite0 with the ImageNet weights of the package),
image size, seed and optimiser; steps, sampling and, where said, learning rate are its own, in
`DETECTORS`. A run that was cut off goes on where it stopped, and one that is done is not done
again; what another process is busy with is left to it. Region proposals are computed once and kept
in the cache of the package, but timed anew for each photo, since a user waits for them. Images per
second are those of `maskwright.load(run)(photo)` on photos of the validation split: from pixels in
memory to boxes, one at a time, the median of their times.

Leaves in `--out`: `rows/`, a file for each detector; `lineage.md` (the table), `lineage.png` (the
plot) and the runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.drawing.figures import colors, new_figure, save_figure, style
from maskwright.tasks.detection.reporting.report import REPORT
from maskwright.terminal import console

# What all share. The images of 640 x 480 pixels become 480 x 360.
COMMON: dict[str, Any] = {
    "imgsz": 480,
    "batch": 2,
    "lr": 5e-4,
    "freeze": 1,
    "flip": 0.5,
    "vflip": 0.5,
    "patience": 0,
    "seed": 0,
    "max_det": 100,
    "val_every": 1000,  # once, at the end: nothing is chosen by the validation images
}
SEARCH = {"source": "selective_search", "proposals": 1000}


@dataclass(frozen=True)
class Detector:
    """One detector of the line.

    Attributes:
        label: what it is called in table and plot.
        year: of its paper.
        model: registered name.
        steps: optimiser steps, for about ten minutes on two quiet cores.
        args: options of the model.
        options: of the training, in place of those of `COMMON` or beside them.
    """

    label: str
    year: int
    model: str
    steps: int
    args: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


# Another detector is another line.
DETECTORS = [
    # Every region is an image to the backbone: fewer and smaller ones, each about as large as its
    # cell is in the network input of the others.
    Detector(
        "R-CNN",
        2014,
        "rcnn_lite0",
        150,
        {**SEARCH, "proposals": 500, "rois": 32, "warp": 96, "context": 7, "pool": 3},
    ),
    Detector("SPPnet", 2014, "sppnet_lite0", 500, SEARCH),
    Detector("Fast R-CNN", 2015, "fast_rcnn_lite0", 400, SEARCH),
    Detector("Faster R-CNN, C4", 2015, "faster_rcnn_lite0_c4", 350),
    Detector("Faster R-CNN, DC5", 2016, "faster_rcnn_lite0_dc5", 350),
    # Its head needs a higher rate than layers on regions (see `models.rfcn`), its backbone not.
    Detector("R-FCN", 2016, "rfcn_lite0", 350, options={"lr": 2e-3, "backbone_lr": 0.125}),
    Detector("Faster R-CNN, FPN", 2017, "faster_rcnn_lite0_fpn", 350),
]


def train(detector: Detector, args: argparse.Namespace) -> dict[str, Any]:
    """Train a detector, or go on with it, and return its row, without its speed.

    Raises:
        SystemExit: if the training was interrupted; the next call goes on with it.
    """
    folder = run_folder(detector, args)
    where: dict[str, Any] = {"device": args.device, "workers": args.workers}
    if finished(folder):
        metrics = mw.load(folder).meta.metrics
    else:
        if folder.is_dir():
            result = mw.train(resume=folder, **where)
        else:
            result = mw.train(
                args.data,
                detector.model,
                steps=args.steps or detector.steps,
                project=args.out,
                name=detector.model,
                model_args=detector.args,
                **where,
                **{**COMMON, **detector.options},
            )
        if result.interrupted:
            raise SystemExit(130)
        metrics = result.metrics
    return {
        "label": detector.label,
        "year": detector.year,
        "AP": metrics["box/AP"],
        "AP50": metrics["box/AP50"],
    }


def run_folder(detector: Detector, args: argparse.Namespace) -> Path:
    """Return the run folder of a detector."""
    folder: Path = args.out / "train" / detector.model
    return folder


def finished(folder: Path) -> bool:
    """Return whether a training is done: its report is the last that it writes."""
    return (folder / REPORT).is_file()


def speed(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Return median times of a photo in ms: whole, and of that preparing with its proposals."""
    predictor = mw.load(folder, device=args.device)
    data = open_dataset(args.data, "val")
    whole, before = [], []
    for index in range(min(args.photos + 1, len(data))):
        times = predictor(data.image(index), conf=0.05).speed
        times.pop("load")
        if index:  # the first call prepares the network
            whole.append(sum(times.values()))
            before.append(times["preprocess"])
    return {"ms": statistics.median(whole), "preparing": statistics.median(before)}


def show(rows: list[dict[str, Any]], out: Path) -> None:
    """Print the table, and write it and the plot."""
    header = ["detector", "year", "AP", "AP50", "images/s", "s for proposals", "s for the network"]
    table = [
        [
            row["label"],
            row["year"],
            round(100 * row["AP"], 1),
            round(100 * row["AP50"], 1),
            round(1000 / row["ms"], 2),
            round(row["preparing"] / 1000, 3),
            round((row["ms"] - row["preparing"]) / 1000, 3),
        ]
        for row in rows
    ]
    console.table("From R-CNN to the pyramid", header, table)
    lines = [header, ["---"] * len(header), *table]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    (out / "lineage.md").write_text(text + "\n", encoding="utf-8")
    figure = new_figure(7.5, 4.5)
    ax = figure.subplots()
    by_rate = sorted(rows, key=lambda row: row["ms"])
    for row, color in zip(rows, colors(len(rows)), strict=True):
        rate, ap = 1000 / row["ms"], 100 * row["AP"]
        above = by_rate.index(row) % 2  # neighbours do not write over each other
        ax.plot([rate], [ap], "o", color=color, markersize=8)
        ax.annotate(
            f"{row['label']} ({row['year']})",
            (rate, ap),
            xytext=(6, 6 if above else -12),
            textcoords="offset points",
            fontsize=8.5,
        )
    style(ax, "Accuracy and speed", "images a second, proposals included", "box AP")
    ax.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    rates = [1000 / row["ms"] for row in rows]
    ax.set_xlim(min(rates) / 1.6, max(rates) * 2.5)  # room for the names
    ax.margins(y=0.2)
    ax.set_ylim(bottom=0)
    console.note(
        f"table and plot: {out / 'lineage.md'}, {save_figure(figure, out / 'lineage.png')}"
    )


def read_rows(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the rows that are there, by model."""
    files = {detector.model: args.out / "rows" / f"{detector.model}.json" for detector in DETECTORS}
    return {
        model: json.loads(path.read_text(encoding="utf-8"))
        for model, path in files.items()
        if path.exists()
    }


def write_row(path: Path, row: dict[str, Any]) -> None:
    """Write a row such that another process sees all of it or nothing."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row, indent=2), encoding="utf-8")
    part.replace(path)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold the lock of a file while the block runs; False: another process has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def complete(detector: Detector, args: argparse.Namespace) -> None:
    """Do what is missing of a detector, and write its row."""
    path = args.out / "rows" / f"{detector.model}.json"
    with alone(path.with_suffix(".lock")) as mine:
        if not mine:
            console.note(f"{detector.model}: another process is busy with it")
            return
        row = read_rows(args).get(detector.model)
        if row is None:
            row = train(detector, args)
            write_row(path, row)
        if "ms" not in row and not args.untimed:
            write_row(path, {**row, **speed(run_folder(detector, args), args)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data")
    parser.add_argument("--only", default="", help="beginnings of model names, with commas")
    parser.add_argument("--out", type=Path, default=Path("runs/lineage"))
    parser.add_argument("--steps", type=int, help="in place of each detector's own")
    parser.add_argument("--photos", type=int, default=10, help="on which the speed is measured")
    parser.add_argument("--untimed", action="store_true", help="leave the speed to a later call")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="train and measure nothing")
    args = parser.parse_args()
    (args.out / "rows").mkdir(parents=True, exist_ok=True)
    wanted = tuple(name for name in args.only.split(",") if name) or ("",)
    chosen = [detector for detector in DETECTORS if detector.model.startswith(wanted)]
    if not chosen:
        names = ", ".join(detector.model for detector in DETECTORS)
        raise SystemExit(f"--only={args.only}: no detector begins so; there are {names}")
    for detector in [] if args.show else chosen:
        complete(detector, args)
    rows = read_rows(args)
    if untimed := [model for model, row in rows.items() if "ms" not in row]:
        console.note(f"trained, but their speed is not measured yet: {', '.join(untimed)}")
    if timed := [row for row in rows.values() if "ms" in row]:
        show(timed, args.out)
    elif not rows:
        console.note(
            f"nothing is trained yet in {args.out}: leave out --show, or name another --out"
        )


if __name__ == "__main__":
    main()
