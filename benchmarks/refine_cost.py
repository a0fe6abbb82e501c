"""What RefineMask costs beside Mask R-CNN: time, arithmetic and memory of one image.

    python benchmarks/refine_cost.py [--backbone resnet50_fpn] [--size 800 1216] [--repeats 5]

The same 100 detections (random weights, scaled so that the models find many objects), the fast
network of prediction, from network input to mask probabilities. Arithmetic is counted on the plain
network by torch's counter (a multiplication and an addition are two); memory is the largest of a
process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import torch
from common import compare, header, line, machine
from peak import peak_memory
from torch.utils.flop_counter import FlopCounterMode

from maskwright.drawing.scene import drawn_scene
from maskwright.models import PostProcess
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Resize
from maskwright.timing.comparable import random_predictor

FAMILIES = ("mask_rcnn", "refine_mask", "refine_mask_fast")
POST = PostProcess(0.05, 0.5, 100)


def prepare(family: str, backbone: str, size: tuple[int, int]) -> tuple[Predictor, Any]:
    """Return a model that finds 100 objects in the drawn scene, and the scene as its input."""
    photo = drawn_scene()
    predictor = random_predictor(f"{family}_{backbone}", 80, photo)
    return predictor, predictor.prepare([(photo, None)], Resize(*sorted(size)))[0]


def show_memory(family: str, backbone: str, size: tuple[int, int]) -> None:
    """Print the peak of this process before and after one image."""
    predictor, images = prepare(family, backbone, size)
    with torch.inference_mode():
        predictor.network()(images, POST)
    print(peak_memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50_fpn", help="as in the models' names")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", choices=FAMILIES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory:
        show_memory(args.memory, args.backbone, size)
        return
    models = {family: prepare(family, args.backbone, size) for family in FAMILIES}
    print(machine())
    print("\n| model | detections | GFLOP | ratio | peak memory, MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first = 0.0
    with torch.inference_mode():
        for family, (predictor, images) in models.items():
            with FlopCounterMode(display=False) as counter:
                found = predictor.detector(images, POST)
            flops = counter.get_total_flops() / 1e9
            first = first or flops
            again = [sys.executable, __file__, "--memory", family, "--backbone", args.backbone]
            again += ["--size", *map(str, size)]
            peak = subprocess.run(again, check=True, capture_output=True, text=True).stdout.strip()
            count = int(found.valid.sum())
            print(f"| {family} | {count} | {flops:.0f} | {flops / first:.2f} | {peak} |")
        print("\n" + header("Mask R-CNN").replace("maskwright", "RefineMask"))
        (plain, plain_images) = models["mask_rcnn"]
        for family in FAMILIES[1:]:
            (refined, images) = models[family]
            row = compare(
                family,
                lambda: plain.network()(plain_images, POST),
                lambda refined=refined, images=images: refined.network()(images, POST),
                repeats=args.repeats,
                warmup=1,
            )
            print(line(row))
    print("\nThe ratio is Mask R-CNN's time over RefineMask's: below 1, RefineMask is slower.")


if __name__ == "__main__":
    main()
