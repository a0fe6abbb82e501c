"""The line from R-CNN to the pyramid on one data set: average precision beside images per second.

    python benchmarks/lineage.py DATA            # all of them, one by one
    python benchmarks/lineage.py DATA --only fast_rcnn,rfcn --out runs/lineage --device cpu
    python benchmarks/lineage.py DATA --show     # table and plot of what is there

Every detector has the same backbone (EfficientNet-Lite0 with the ImageNet weights of the package),
image size, seed and optimiser; steps and sampling are its own, in `DETECTORS`. A run that was cut
off goes on where it stopped, and one that is done is not done again. Region proposals are computed
once and kept in the cache of the package, but timed anew for each photo, since a user waits for
them. Images per second are those of `maskwright.load(run)(photo)` on photos of the validation
split: from pixels in memory to boxes, one at a time, the median of their times.

Leaves in `--out`: `rows.json`, `lineage.md` (the table), `lineage.png` (the plot) and the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.engine import console
from maskwright.engine.figures import colors, new_figure, save_figure, style

# What all share. The images of 640 x 480 pixels become 480 x 360.
COMMON: dict[str, Any] = {
    "imgsz": 480,
    "batch": 2,
    "lr": 5e-4,
    "freeze": 1,
    "flip": 0.5,
    "vflip": 0.5,
    "patience": 0,
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
        options: of the training, beside `COMMON`.
    """

    label: str
    year: int
    model: str
    steps: int
    args: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


# Another detector is another line.
DETECTORS = [
    Detector("R-CNN", 2014, "rcnn_lite0", 150, {**SEARCH, "rois": 32, "proposals": 500}),
    Detector("SPPnet", 2014, "sppnet_lite0", 500, SEARCH),
    Detector("Fast R-CNN", 2015, "fast_rcnn_lite0", 400, SEARCH),
    Detector("Faster R-CNN, C4", 2015, "faster_rcnn_lite0_c4", 350),
    Detector("Faster R-CNN, DC5", 2016, "faster_rcnn_lite0_dc5", 350),
    Detector("R-FCN", 2016, "rfcn_lite0", 350),
    Detector("Faster R-CNN, FPN", 2017, "faster_rcnn_lite0_fpn", 350),
]


def run(detector: Detector, args: argparse.Namespace) -> dict[str, Any]:
    """Train a detector, or go on with it, and return its row."""
    folder = args.out / "train" / detector.model
    if folder.is_dir():
        try:
            result = mw.train(resume=folder, device=args.device, workers=args.workers)
            metrics = result.metrics
        except ValueError as error:
            if "nothing to resume" not in str(error):
                raise
            metrics = mw.load(folder).meta.metrics
    else:
        options = {**COMMON, **detector.options}
        result = mw.train(
            args.data,
            detector.model,
            steps=args.steps or detector.steps,
            seed=args.seed,
            device=args.device,
            workers=args.workers,
            project=args.out,
            name=detector.model,
            model_args=detector.args,
            **options,
        )
        metrics = result.metrics
        if result.interrupted:
            raise KeyboardInterrupt
    return {
        "label": detector.label,
        "year": detector.year,
        "model": detector.model,
        "AP": metrics["box/AP"],
        "AP50": metrics["box/AP50"],
        **speed(folder, args),
    }


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
    for row, color in zip(rows, colors(len(rows)), strict=True):
        rate, ap = 1000 / row["ms"], 100 * row["AP"]
        ax.plot([rate], [ap], "o", color=color, markersize=8)
        ax.annotate(
            f"{row['label']} ({row['year']})",
            (rate, ap),
            xytext=(6, 6),
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
    console.note(
        f"table and plot: {out / 'lineage.md'}, {save_figure(figure, out / 'lineage.png')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data")
    parser.add_argument("--only", default="", help="beginnings of model names, with commas")
    parser.add_argument("--out", type=Path, default=Path("runs/lineage"))
    parser.add_argument("--steps", type=int, help="in place of each detector's own")
    parser.add_argument("--photos", type=int, default=10, help="on which the speed is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "rows.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    wanted = tuple(name for name in args.only.split(",") if name)
    for detector in DETECTORS:
        chosen = not wanted or detector.model.startswith(wanted)
        if chosen and detector.model not in rows and not args.show:
            rows[detector.model] = run(detector, args)
            path.write_text(json.dumps(rows, indent=2))
    done = [rows[detector.model] for detector in DETECTORS if detector.model in rows]
    if done:
        show(done, args.out)


if __name__ == "__main__":
    main()
