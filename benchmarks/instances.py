"""Instances by two routes: masks of a detector's heads beside a segmenter in a detector's boxes.

    python benchmarks/instances.py FOLDER_OF_NUCLEI [--seeds 3] [--out rows.json] [--save FOLDER]

Mask R-CNN and RefineMask cut objects out of features that the boxes were found with; Detect, then
segment looks at the pixels of each box anew, here with a U-Net and with DeepLabv3+. All sides have
the same backbone and ImageNet weights (EfficientNet-Lite0), and the same steps, batches and
schedule, image for image (`maskwright.recipes.nuclei`). With `--out`, a run that was cut off goes
on with the rows that it lacks. Printed are COCO's mask AP and boundary AP on the split val, means
over the seeds that all sides have, and paired differences to Mask R-CNN.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import machine
from refine_mask import report, variant
from training import Ours, of_steps, run_all

from maskwright.devices import pick_device
from maskwright.recipes import nuclei

SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "Mask R-CNN": ("mask_rcnn", {}),
    "RefineMask": ("refine_mask", {}),
    "detect, then U-Net": ("detect_then_segment", {"segmenter": "unet_lite0"}),
    "detect, then DeepLabv3+": ("detect_then_segment", {"segmenter": "deeplabv3plus_lite0"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="other than the 480 of the recipe")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="some of the sides; none: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file of the rows, which is added to")
    parser.add_argument("--save", type=Path, help="folder for the trained weights")
    args = parser.parse_args()
    recipe = of_steps(nuclei(args.data), args.steps)
    sides = {name: (Ours, variant(recipe, *SIDES[name])) for name in args.sides or SIDES}
    print(machine())
    device = pick_device(args.device)
    rows = run_all(sides, args.seeds, device, args.workers, args.out, args.save)
    print(report(rows, [name for name in SIDES if name in sides]))


if __name__ == "__main__":
    main()
