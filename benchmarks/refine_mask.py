"""Train RefineMask beside Mask R-CNN, or RefineMask with fewer parts, seed by seed.

    python benchmarks/refine_mask.py DATA [--recipe nuclei] [--seeds 3] [--out rows.json]
    python benchmarks/refine_mask.py DATA --ablation stages     # 1, 2, 3 and 4 stages
    python benchmarks/refine_mask.py DATA --ablation fusion     # parts of the fusion, boundaries
    python benchmarks/refine_mask.py DATA --ablation reach      # masks beyond their boxes

DATA is a data set with the splits train and val, such as nuclei; `--one-class` takes all objects of
COCO data as one class, where there are too few images to learn their classes. All sides get the
same backbone, weights, schedule and batches, image for image (EfficientNet-Lite0, the chosen one of
`maskwright.recipes`); only the mask head differs, and with it, as published, the weight of the box
losses. With `--out`, a run that was cut off goes on with the rows that it lacks; with `--save`, the
trained weights are kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training import Ours, of_steps, one_class, paired, run_all

from maskwright.devices import pick_device
from maskwright.nn.detection.refine_head import FUSION_PARTS
from maskwright.recipes import coco_subset, nuclei, penn_fudan
from maskwright.tasks.detection.recipe import DetectionRecipe

RECIPES = {"nuclei": nuclei, "penn_fudan": penn_fudan, "coco_subset": coco_subset}
FIGURES = {
    "mask AP, grid paste": "mask AP",
    "mask AP75, grid paste": "mask AP75",
    "boundary AP, grid paste": "boundary AP",
    "box AP": "box AP",
    "cut masks, grid paste": "cut masks",
}
FULL = "RefineMask"
# The first one of each is what the others are compared with.
STUDIES: dict[str | None, dict[str, tuple[str, dict[str, Any]]]] = {
    None: {"Mask R-CNN": ("mask_rcnn", {}), FULL: ("refine_mask", {})},
    "stages": {
        FULL: ("refine_mask", {}),
        **{
            f"{n} stage{'s' * (n > 1)} ({7 << n} a side)": ("refine_mask", {"mask_stages": n})
            for n in (3, 2, 1)
        },
    },
    "fusion": {
        FULL: ("refine_mask", {}),
        **{
            f"without {part.replace('_', ' ')}": (
                "refine_mask",
                {"fusion_parts": tuple(other for other in FUSION_PARTS if other != part)},
            )
            for part in FUSION_PARTS
        },
        "without boundaries": ("refine_mask", {"boundary": False}),
    },
    "reach": {
        "Mask R-CNN": ("mask_rcnn", {}),
        **{
            f"Mask R-CNN, masks {reach} boxes wide": ("mask_rcnn", {"mask_reach": reach})
            for reach in (1.2, 1.5)
        },
        FULL: ("refine_mask", {}),
        f"{FULL}, masks 1.2 boxes wide": ("refine_mask", {"mask_reach": 1.2}),
    },
}


def variant(recipe: DetectionRecipe, family: str, options: dict[str, Any]) -> DetectionRecipe:
    """Return a recipe with another mask head."""
    model = recipe.model.replace("mask_rcnn", family)
    return replace(recipe, model=model, model_args={**recipe.model_args, **options})


def report(rows: list[dict], sides: list[str]) -> str:
    """Return the means of all sides over their common seeds, and their paired differences."""
    seeds = [{row["seed"] for row in rows if row["side"] == side} for side in sides]
    common = set.intersection(*filter(None, seeds)) if any(seeds) else set()
    shown = {key: title for key, title in FIGURES.items() if all(key in row for row in rows)}
    lines = [f"| side | seeds | {' | '.join(shown.values())} |"]
    lines += ["| --- " * (len(shown) + 2) + "|"]
    for side in sides:
        own = [row for row in rows if row["side"] == side and row["seed"] in common]
        if not own:
            continue
        figures = " | ".join(f"{statistics.mean(row[key] for row in own):.1f}" for key in shown)
        lines.append(f"| {side} | {len(own)} | {figures} |")
    for side in sides[1:]:
        lines += paired(rows, side, sides[0], shown)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="nuclei")
    parser.add_argument("--one-class", action="store_true", help="take all objects as one class")
    parser.add_argument("--ablation", choices=[name for name in STUDIES if name])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all figures as JSON, or go on from them")
    parser.add_argument("--save", type=Path, help="folder for the trained weights")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.one_class:
            args.data = one_class(args.data, Path(folder))
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Train all sides of the study and print their tables."""
    recipe = of_steps(RECIPES[args.recipe](args.data), args.steps)
    study = STUDIES[args.ablation]
    sides = {name: (Ours, variant(recipe, *what)) for name, what in study.items()}
    device = pick_device(args.device)
    rows = run_all(sides, args.seeds, device, args.workers, args.out, args.save)
    print(f"\ntorch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    print(report(rows, list(sides)))


if __name__ == "__main__":
    main()
