"""Train RetinaNet and SSDLite on the same images with maskwright and with torchvision.

    python benchmarks/one_stage_training.py DATA --out rows.json    # such as BCCD
    python benchmarks/one_stage_training.py DATA --families ssdlite --seeds 6

DATA is a data set with the splits train and val. Both sides get the same backbone with the same
ImageNet weights (EfficientNet-Lite0), the same anchors, widths and least scores, the same
optimiser, schedule and batches, image for image, and the same evaluator; images are mirrored, and
nothing else. What differs is the code under test: heads and their start, matching, losses,
post-processing. The last weights count. With `--out`, a run that was cut off goes on with the rows
that it lacks.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import machine
from torch import Tensor, nn
from training import Maker, Ours, Theirs, of_steps, paired, run_all

from maskwright.data.loader import Batch
from maskwright.devices import pick_device
from maskwright.hub.backbone_weights import load_backbone
from maskwright.nn.backbones.backbone import Backbone
from maskwright.recipes import nuclei
from maskwright.tasks.detection.recipe import DetectionRecipe

BODY = "tf_efficientnet_lite0"
SIDE = 320  # pixels
SCORE, KEPT = 0.001, 100  # the least score, and how many detections an image has at most


class Body(nn.Module):
    """A backbone of ours with the layers of torchvision behind it.

    Args:
        strides: of the maps that are used.
        behind: makes, of the channels of the maps, what the maps go through.
        width: channels behind it, where all maps have the same.
    """

    def __init__(
        self, strides: tuple[int, ...], behind: Callable[[list[int]], nn.Module], width: int
    ) -> None:
        super().__init__()
        self.backbone = Backbone(BODY, strides=strides)
        load_backbone(self)  # type: ignore[arg-type]
        self.behind = behind(list(self.backbone.channels))
        self.out_channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.behind({str(i): one for i, one in enumerate(self.backbone(x))})


class ExtraMaps(nn.Module):
    """The smaller maps of torchvision's SSDLite."""

    widths = (512, 256, 256, 128)

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        from torchvision.models.detection import ssdlite

        maps = [channels[-1], *self.widths]
        pairs = itertools.pairwise(maps)
        self.extra = nn.ModuleList(ssdlite._extra_block(a, b, _norm) for a, b in pairs)
        ssdlite._normal_init(self.extra)

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        last = list(maps.values())[-1]
        for block in self.extra:
            last = block(last)
            maps[str(len(maps))] = last
        return maps


_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


def retinanet(names: list[str]) -> nn.Module:
    """Return torchvision's RetinaNet as `retinanet_lite0_fpn` is made."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    def pyramid(channels: list[int]) -> nn.Module:
        return FeaturePyramidNetwork(channels, 128, LastLevelP6P7(channels[-1], 128))

    smallest = (24, 48, 96, 192, 384)
    sizes = tuple(tuple(int(side * 2 ** (k / 3)) for k in range(3)) for side in smallest)
    return RetinaNet(
        Body((8, 16, 32), pyramid, 128),
        len(names),
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        head=RetinaNetHead(128, 9, len(names)),
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        score_thresh=SCORE,
        nms_thresh=0.5,
        detections_per_img=KEPT,
    )


def ssdlite(names: list[str]) -> nn.Module:
    """Return torchvision's SSDLite as `ssdlite320_lite0` is made."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead

    body = Body((16, 32), ExtraMaps, 0)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    channels = [*body.backbone.channels, *ExtraMaps.widths]
    return SSD(
        body,
        anchors,
        (SIDE, SIDE),
        len(names) + 1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        head=SSDLiteHead(channels, anchors.num_anchors_per_location(), len(names) + 1, _norm),
        score_thresh=SCORE,
        nms_thresh=0.5,
        detections_per_img=KEPT,
        topk_candidates=300,
    )


# Our preset, torchvision's network, whether images are stretched to a square and with background as
# the label 0, and the steps.
FAMILIES: dict[str, tuple[str, Callable[[list[str]], nn.Module], bool, int]] = {
    "RetinaNet": ("retinanet_lite0_fpn", retinanet, False, 240),
    "SSDLite": ("ssdlite320_lite0", ssdlite, True, 480),
}


class Torchvisions(Theirs):
    """torchvision's detector, trained and called as ours is.

    Args:
        make: returns the network.
        square: images are stretched to a square, and labels count background as 0.
    """

    def __init__(
        self, recipe: DetectionRecipe, names: list[str], *, make: Callable[..., Any], square: bool
    ) -> None:
        super().__init__()
        self.model = make(names)
        self.backbone = self.model.backbone.backbone  # what has the backbone's learning rate
        self.leave_sizes()
        self.first = int(square)
        self.stretch = (SIDE, SIDE) if square else None

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        targets = []
        for boxes, labels, valid in zip(
            batch.targets.boxes, batch.targets.labels, batch.targets.valid, strict=True
        ):
            targets.append({"boxes": boxes[valid], "labels": labels[valid] + self.first})
        torch.manual_seed(generator.initial_seed())
        return self.model(self.inputs(batch.images), targets)


class Squares(Ours):
    """Ours, with all images stretched to its one size."""

    stretch = (SIDE, SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="other than those of the families")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all figures as JSON, or go on from them")
    args = parser.parse_args()
    device = pick_device(args.device)
    sides: dict[str, tuple[Maker, DetectionRecipe]] = {}
    for family in args.families:
        model, make, square, steps = FAMILIES[family]
        base = replace(
            nuclei(args.data), model=model, imgsz=SIDE, crop=None, max_det=KEPT, model_args={}
        )
        recipe = of_steps(base, args.steps or steps)
        sides[f"{family}, maskwright"] = (Squares if square else Ours, recipe)
        theirs = partial(Torchvisions, make=make, square=square)
        sides[f"{family}, torchvision"] = (theirs, recipe)
    rows = run_all(sides, args.seeds, device, args.workers, args.out)
    print(f"\n{machine()}\n\n| side | seed | steps | AP |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['side']} | {row['seed']} | {row['steps']} | {row['box AP']:.1f} |")
    for family in args.families:
        lines = paired(
            rows, f"{family}, maskwright", f"{family}, torchvision", {"box AP": "box AP"}
        )
        print("\n".join(lines))


if __name__ == "__main__":
    main()
