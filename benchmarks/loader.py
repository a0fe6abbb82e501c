"""How many training images a second the loader makes alone, by worker processes.

    python benchmarks/loader.py DATA [--recipe nuclei] [--seconds 10] [--workers 0 1 2]
    python benchmarks/loader.py DATA --imgsz 512 --crop 512

DATA is a data set with the split train. Images are read, resized, cropped and mirrored as in
training, masks included; the first batches, which start the workers, are not counted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import machine
from training import endless

from maskwright.data.discover import open_dataset
from maskwright.data.loader import make_loader
from maskwright.data.transforms import Augment
from maskwright.recipes import nuclei, penn_fudan
from maskwright.structures import Resize

RECIPES = {"nuclei": nuclei, "penn_fudan": penn_fudan}


def rate(args: argparse.Namespace, workers: int) -> float:
    """Return images a second."""
    data = open_dataset(args.data, "train")
    if args.recipe:
        recipe = RECIPES[args.recipe](args.data)
        resize, augment = Resize.parse(recipe.imgsz), Augment(flip=recipe.flip, crop=recipe.crop)
        batch = recipe.batch
    else:
        resize, batch = Resize.parse(args.imgsz), args.batch
        augment = Augment(crop=args.crop)
    loader = make_loader(
        data,
        batch=batch,
        resize=resize,
        augment=augment,
        seed=0,
        workers=workers,
        shuffle=True,
        drop_last=True,
    )
    batches = endless(loader)
    for _ in range(2 * max(workers, 1) + 1):  # what the workers have made ahead counts for nothing
        next(batches)
    images, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < args.seconds:
        images += len(next(batches))
    return images / passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, help="size, crop and batch of a recipe")
    parser.add_argument("--imgsz", type=int, default=512, help="long side, without a recipe")
    parser.add_argument("--crop", type=int, help="side of random crops, without a recipe")
    parser.add_argument("--batch", type=int, default=2, help="without a recipe")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print(f"{machine()}\n\n| worker processes | images a second |\n| ---: | ---: |")
    for workers in args.workers:
        print(f"| {workers} | {rate(args, workers):.1f} |", flush=True)


if __name__ == "__main__":
    main()
