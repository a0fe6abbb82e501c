"""Localization with a box, with keypoints, and from labels alone, at a scale one core can do.

    python benchmarks/localize.py box --bccd FOLDER --out benchmarks/rows/localize.json

Each side trains with the same seeds on the same images; what is printed is measured on images
outside the training split, and the difference to the first side is paired by seed, with its 95 %
interval (Student's t). Nothing is chosen by these images: the last weights count. Rows that are in
the file are not made again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import Rows, machine
from papers import difference
from scenes import darts, scenes, white_cells

import maskwright as mw

Row = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """Sides that are compared.

    Attributes:
        data: makes the data of an empty folder and of BCCD's; returns what is trained on and what
            is scored.
        split: of the images that are scored.
        common: options that all trainings have.
        trained: options by what a side is called; the first is what others are held to.
        columns: metric, and what to multiply it with and add to it, by the head of its column; the
            difference is that of the first.
        methods: options by sides that are validations of one training, not trainings of their own.
    """

    data: Callable[[Path, Path], tuple[Path, Path]]
    split: str
    common: dict[str, Any]
    trained: dict[str, dict[str, Any]]
    columns: dict[str, tuple[str, float, float]]
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def sides(self) -> list[str]:
        return [*self.methods, *BASELINES] if self.methods else list(self.trained)


def _same(root: Path) -> tuple[Path, Path]:
    return root, root


SHORT = {"batch": 16, "workers": 0, "device": "cpu", "patience": 0, "epochs": 6}
LOCATE = {**SHORT, "model": "locate_tf_efficientnet_lite0", "imgsz": 96}
DRAWN = {**SHORT, "imgsz": 96, "epochs": 12}
# The network as it comes, and a last convolution and a linear layer that learn.
CLASSIFY = {
    **SHORT,
    "model": "classify_tf_efficientnet_lite0",
    "imgsz": 160,
    "epochs": 4,
    "freeze": -1,
}
BASELINES = {"gaussian": "centred Gaussian", "whole": "whole image"}
PLACES = {
    "localization error": ("box/top1_loc", -100.0, 100.0),
    "class right": ("class/top1", 100.0, 0.0),
    "IoU >= 0.5": ("box/gt_known", 100.0, 0.0),
    "IoU >= 0.75": ("box/IoU75", 100.0, 0.0),
    "mean IoU": ("box/IoU", 100.0, 0.0),
}
POINTS = {
    "NME": ("keypoints/NME", 100.0, 0.0),
    "failed": ("keypoints/failure", 100.0, 0.0),
    "PCK": ("keypoints/PCK", 100.0, 0.0),
}
WEAK = {
    "GT-known": ("gt_known", 100.0, 0.0),
    "class and box": ("top1_loc", 100.0, 0.0),
    "MaxBoxAcc": ("MaxBoxAcc", 100.0, 0.0),
    "MaxBoxAccV2": ("MaxBoxAccV2", 100.0, 0.0),
    "threshold, %": ("threshold", 100.0, 0.0),
}
METHODS: dict[str, dict[str, Any]] = {
    "cam": {},
    "gradcam": {},
    "gradcam++": {},
    "cam, 224 pixels": {"localize": "cam", "imgsz": 224},
}
EXPERIMENTS = {
    # The largest cell of a photograph, which is a white one in 97 of 104.
    "box": Experiment(
        lambda root, bccd: _same(bccd),
        "val",
        LOCATE,
        {"from ImageNet weights": {}, "from nothing": {"weights": "none"}},
        PLACES,
    ),
    "classes": Experiment(
        lambda root, bccd: _same(scenes(root, empty=0.1)),
        "test",
        {**DRAWN, "model": "locate_tf_efficientnet_lite0"},
        {
            "one box for all classes": {},
            "a box for each class": {"model_args": {"class_specific": True}},
        },
        PLACES,
    ),
    "keypoints": Experiment(
        lambda root, bccd: _same(darts(root)),
        "test",
        {**DRAWN, "model": "locate_keypoints_tf_efficientnet_lite0"},
        {loss: {"model_args": {"loss": loss}} for loss in ("l1", "mse", "wing")},
        POINTS,
    ),
    "cam": Experiment(white_cells, "test", CLASSIFY, {"classifier": {}}, WEAK, METHODS),
}


def train_once(
    experiment: Experiment, side: str, seed: int, places: tuple[Path, Path]
) -> list[Row]:
    """Train a side and return its row, or one row for each method and baseline."""
    learned, scored = places
    with tempfile.TemporaryDirectory() as folder:
        options = {**experiment.common, **experiment.trained[side]}
        # No image outside the training split is looked at before the end.
        options |= {"val_fraction": 0, "val_every": 10**6, "seed": seed, "project": folder}
        begin = time.perf_counter()
        run = mw.train(learned, **options)
        seconds = time.perf_counter() - begin
        if run.interrupted:
            raise SystemExit("interrupted: the rows that are whole are kept")
        shared = {"seed": seed, "seconds": seconds}
        if not experiment.methods:
            found = mw.val(run.last, scored, split=experiment.split, workers=0, batch=50)
            return [{"side": side, **shared, **found}]
        rows: list[Row] = []
        for side, how in experiment.methods.items():
            how = {"localize": side, **how}
            found = mw.val(run.last, scored, split=experiment.split, workers=0, batch=10, **how)
            prefixes = {side: how["localize"], **{name: name for name in BASELINES}}
            for name, prefix in prefixes.items():
                own = {k.split("/")[1]: v for k, v in found.items() if k.startswith(f"{prefix}/")}
                if all(row["side"] != name for row in rows):
                    rows.append({"side": name, **shared, **own})
        return rows


def table(experiment: Experiment, rows: list[Row]) -> str:
    """Return a Markdown table: by column the mean and, in brackets, seed by seed."""
    columns = experiment.columns
    lines = [
        f"| side | {' | '.join(columns)} | difference | minutes |",
        "| --- " * (len(columns) + 3) + "|",
    ]
    key, factor, _ = next(iter(columns.values()))
    found = {
        side: {row["seed"]: row for row in rows if row["side"] == side} for side in experiment.sides
    }
    first = found[experiment.sides[0]]
    for side, mine in found.items():
        if not mine:
            continue
        cells = [BASELINES.get(side, side)]
        for name, scale, offset in columns.values():
            values = [scale * mine[seed][name] + offset for seed in sorted(mine)]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ({each})")
        pairs = [
            factor * (mine[seed][key] - first[seed][key]) for seed in sorted(mine) if seed in first
        ]
        cells.append("" if mine is first else difference(pairs))
        cells.append(f"{statistics.median(row['seconds'] for row in mine.values()) / 60:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--bccd", type=Path, default=Path("bccd"), help="folder of BCCD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="file of the rows, which is added to")
    args = parser.parse_args()
    experiment = EXPERIMENTS[args.experiment]
    rows = Rows(args.out, args.experiment)
    mw.keep_memory()
    print(machine())
    todo = [
        (side, seed)
        for seed in args.seeds
        for side in experiment.trained
        if not any(
            row["seed"] == seed and (experiment.methods or row["side"] == side) for row in rows
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        places = experiment.data(Path(folder), args.bccd) if todo else None
        for side, seed in todo:
            assert places is not None
            rows.add(train_once(experiment, side, seed, places))
    print(table(experiment, rows))


if __name__ == "__main__":
    main()
