"""Train the light presets beside ResNet-50 on one data set, seed by seed: AP, time and memory.

    python benchmarks/presets.py DATA [--recipe nuclei] [--seeds 3] [--out rows.json]
    python benchmarks/presets.py DATA --recipe penn_fudan --memory
    python benchmarks/presets.py DATA --models mask_rcnn_lite0_fpn --precisions 32 bf16
    python benchmarks/presets.py DATA --proposals nuclei --max-det 100   # or weights, with --save

DATA is a data set with the splits train and val, such as nuclei. All get the same images, batch
for batch, and the same optimiser and schedule, that of `maskwright.recipes`; pyramid, heads and
number of regions are each preset's own. Backbones start from ImageNet weights where there are any:
those of the light presets come with the package, ResNet-50's are fetched or, offline, replaced by
a random start with batch norm that trains, and a warning says so. With `--precisions`, a model
trains once with each of them; all are evaluated in float32. With `--out`, a run that was cut off
goes on with the rows that it lacks. `--memory` gives only the largest memory of a process that
makes a few training steps, and of one that predicts; `--proposals` what a trained model finds on
val that looks at fewer or more proposals, as many of each level before suppression as of an image.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from peak import peak_memory
from training import Ours, Trainer, paired, run_all

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.devices import pick_device
from maskwright.recipes import nuclei, penn_fudan
from maskwright.structures import Resize
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK

RECIPES = {"nuclei": nuclei, "penn_fudan": penn_fudan}
# The last one is what the others are compared with.
MODELS = ("mask_rcnn_lite0_fpn", "mask_rcnn_mobilenet_v2_fpn", "mask_rcnn_resnet50_fpn")
# Those of the arithmetic in training, with what they add to the name of a side; likewise, the first
# one is what the other is compared with.
PRECISIONS = {"32": "", "bf16": ", bf16"}
FIGURES = {
    "box AP": "box AP",
    "mask AP, grid paste": "mask AP",
    "mask AP75, grid paste": "mask AP75",
}
WORK = ("training", "prediction")
STEPS = 3
PROPOSALS = (1000, 500, 300, 200, 100)


def report(rows: list[dict]) -> str:
    """Return the means of all sides with their seeds, and their differences by model and type."""
    lines = [f"| model | {' | '.join(FIGURES.values())} | s/step |"]
    lines += ["| --- " * (len(FIGURES) + 2) + "|"]
    for side in (model + added for model in MODELS for added in PRECISIONS.values()):
        own = [row for row in rows if row["side"] == side]
        if not own:
            continue
        cells = []
        for key in FIGURES:
            single = ", ".join(f"{row[key]:.1f}" for row in own)
            cells.append(f"{statistics.mean(row[key] for row in own):.1f} ({single})")
        step = statistics.median(row["step"] for row in own)
        lines.append(f"| {side} | {' | '.join(cells)} | {step:.2f} |")
    for model in MODELS[:-1]:
        lines += paired(rows, model, MODELS[-1], FIGURES)
    for model in MODELS:
        lines += paired(rows, model + PRECISIONS["bf16"], model, FIGURES)
    return "\n".join(lines)


def work(recipe: DetectionRecipe, kind: str) -> int:
    """Make a few training steps, or predict a few images; return the peak memory in MB."""
    device = torch.device("cpu")
    if kind == "training":
        trainer = Trainer(Ours, 0, recipe, device, 0)
        for _ in range(STEPS):
            trainer.step()
    else:
        val = open_dataset(recipe.data, "val")
        side = Ours(recipe, val.names).to(memory_format=torch.channels_last).eval()
        images = TASK.eval_loader(side.detector, val, resize=Resize.parse(recipe.imgsz))
        with torch.inference_mode():
            for batch in islice(images, STEPS):
                side.detect(batch.images)
    return peak_memory()


def show_proposals(args: argparse.Namespace) -> None:
    """Print the AP of a trained model by the number of its proposals."""
    print("| proposals | box AP | mask AP |\n| ---: | ---: | ---: |")
    for most in PROPOSALS:
        predictor = mw.load(args.proposals, device=args.device)
        rpn = predictor.model.rpn
        rpn.kept = lambda max_det, most=most: (most, most)  # per level, and of the image
        options = {"max_det": args.max_det, "workers": args.workers, "save": False}
        found = mw.val(predictor, args.data, **options)
        print(
            f"| {most} | {100 * found['box/AP']:.1f} | {100 * found['mask/AP']:.1f} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="nuclei")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["32"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all figures as JSON, or go on from them")
    parser.add_argument("--save", type=Path, help="folder for the trained weights")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--proposals", metavar="MODEL", help="a trained model: AP by proposals")
    parser.add_argument("--max-det", type=int, default=100, help="objects, with --proposals")
    parser.add_argument("--only", choices=WORK, help=argparse.SUPPRESS)
    args = parser.parse_args()
    recipes = {name: replace(RECIPES[args.recipe](args.data), model=name) for name in args.models}
    if args.only:
        print(work(recipes[args.models[0]], args.only))
        return
    if args.proposals:
        show_proposals(args)
        return
    if args.memory:
        print(f"| model | {' | '.join(f'{kind}, MB' for kind in WORK)} |\n| --- | ---: | ---: |")
        for name in args.models:
            again = [sys.executable, __file__, str(args.data), "--recipe", args.recipe]
            peaks = [
                subprocess.run(
                    [*again, "--models", name, "--only", kind],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                ).stdout.strip()
                for kind in WORK
            ]
            print(f"| {name} | {' | '.join(peaks)} |", flush=True)
        return
    sides = {
        name + PRECISIONS[precision]: (Ours, replace(recipe, precision=precision))
        for name, recipe in recipes.items()
        for precision in args.precisions
    }
    device = pick_device(args.device)
    rows = run_all(sides, args.seeds, device, args.workers, args.out, args.save)
    print(f"\ntorch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    print(report(rows))


if __name__ == "__main__":
    main()
