"""Detectors without regions against torchvision: photos, networks, training steps; and how many a
second.

    python benchmarks/one_stage.py [--models retinanet_resnet50_fpn] [--rows photo network step]
    python benchmarks/one_stage.py --apart      # each side in a process of its own
    python benchmarks/one_stage.py --frames     # images a second of the light ones at 320 pixels

Both sides have the same random weights, scaled so that much is found, and take turns. In one
process both keep the memory that they free; apart each has that of its users, as in `maskwright
benchmark apart=true`: ours keeps it, as the commands do.

| row | what is timed |
| --- | --- |
| photo | a photo in memory to its detections; each of torchvision's is looked for among ours |
| network | a batch, resized and padded, to its detections |
| step | forward, losses, backward and update on a batch in memory; the losses are compared |

ResNets have frozen batch norm and train from their second stage on, as in fine-tuning; the batch
norm of MobileNets trains.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Comparison, Timing, apart, compare, header, line, machine, timed
from torch import nn
from train_step import scene, steps

import maskwright as mw
from maskwright.drawing.scene import drawn_scene
from maskwright.models.registry import list_models
from maskwright.tasks.detection.task import TASK
from maskwright.timing.benchmark import benchmark
from maskwright.timing.comparable import random_predictor

PEERS = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2")
PEERS += ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
LIGHT = ("retinanet_lite0_fpn", "ssdlite320_mobilenet_v3_large", "ssdlite320_lite0", "yolo_lite")
ROWS = ("photo", "network", "step")
CLASSES, OBJECTS = 20, 8
SIDE = 320  # of the photos of `--frames`
FROZEN = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")


class Pair:
    """One detector on both sides.

    Attributes:
        model: its name.
        size: (short, long) side of a photo at the input of the network; None: the model's own.
        batch: images of the rows `network` and `step`.
        apart: whether photos are timed with each side in a process of its own.
    """

    def __init__(
        self, model: str, size: tuple[int, int] | None, batch: int, apart: bool = False
    ) -> None:
        self.model, self.batch, self.apart = model, batch, apart
        self.resnet = "resnet" in model
        self.size = size if self.resnet else None
        options = dict(TASK.peer.options_of(model))
        if self.resnet or "mobilenet" in model:
            options["norm"] = "frozen" if self.resnet else "bn"
        photo = drawn_scene(256, 320)
        self.predictor = random_predictor(model, CLASSES, photo, options=options, device="cpu")
        self.ours = self.predictor.model
        self.rule = self.predictor.resize_rule(self.size)
        usual = {"conf": 0.05, "iou": 0.5, "max_det": 100}
        self.settings = self.predictor.settings(usual, benchmark)

    def rows(self) -> dict[str, Callable[[int], Comparison]]:
        """Return what can be timed, by name, each for a number of turns."""
        return {"photo": self.photo, "network": self.network, "step": self.step}

    def peer(self) -> Any:
        """Return torchvision's model with the weights of ours."""
        meta = self.predictor.meta
        plain = {key: value for key, value in meta.args.items() if key != "norm"}
        meta.args = plain  # batch norm is in the weights, frozen or not
        made = self.predictor.task.peer.build(
            self.ours, meta, self.settings, self.rule, torch.device("cpu")
        )
        if self.resnet:
            freeze_norms(made.backbone.body)
        made.transform._skip_resize = True
        return made

    def photo(self, repeats: int) -> Comparison:
        """Time the whole way of a drawn photo; see `maskwright benchmark`."""
        found = benchmark(
            self.model, imgsz=self.size, repeats=repeats, device="cpu", apart=self.apart
        )
        assert found.theirs is not None and found.match is not None
        for text in found.peer.told(found.match):
            print(f"<!-- {self.model}: {text} -->")
        sides = Timing("baseline", found.theirs.total), Timing("ours", found.ours.total)
        return Comparison(f"{self.model}, photo", *sides)

    def scene(self) -> Any:
        """Return a batch of square images of the network's size, and their objects."""
        side = self.rule.target_size(800, 800)[0]
        return scene(self.batch, side, OBJECTS, CLASSES)

    def network(self, repeats: int) -> Comparison:
        """Time a batch to its detections."""
        images, _ = self.scene()
        network, peer = self.predictor.network(), self.peer().eval()
        photos = [one / 255 for one in images.pixels]

        @torch.inference_mode()
        def theirs() -> Any:
            return peer(photos)

        @torch.inference_mode()
        def ours() -> Any:
            return network(images, self.settings.post)

        counts = ours().valid.sum(1).tolist()
        assert [len(one["boxes"]) for one in theirs()] == counts, "not the same detections"
        return compare(f"{self.model}, network", theirs, ours, repeats=repeats, warmup=1)

    def step(self, repeats: int) -> Comparison:
        """Time training steps."""
        images, targets = self.scene()
        peer = self.peer().train()
        for name, weight in peer.named_parameters():
            weight.requires_grad_(not (self.resnet and name.startswith(FROZEN)))
        detector = self.ours.train()
        if self.resnet:
            detector.freeze(2)
        photos = [one.contiguous() / 255 for one in images.pixels]
        given = [
            {"boxes": boxes, "labels": labels + 1}
            for boxes, labels in zip(targets.boxes, targets.labels, strict=True)
        ]
        trained = [
            sum(one.numel() for one in side.parameters() if one.requires_grad)
            for side in (peer, detector)
        ]
        theirs = steps(peer, lambda: peer(photos, given))
        ours = steps(detector, lambda: detector.losses(images, targets))
        a, b = theirs(), ours()
        print(f"<!-- {self.model}: losses {a:.5f} and {b:.5f}; parameters trained {trained} -->")
        assert abs(a - b) < 1e-3 * abs(a), "not the same losses"
        return compare(f"{self.model}, step", theirs, ours, repeats=repeats, warmup=1)


def freeze_norms(module: nn.Module) -> None:
    """Put torchvision's frozen batch norm in the place of each batch norm."""
    from torchvision.ops.misc import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, frozen)
        else:
            freeze_norms(child)


def frames(models: list[str], repeats: int) -> None:
    """Print images a second, from a photo in memory to its detections, all in turns."""
    photo = drawn_scene(SIDE, SIDE)
    looks: dict[str, Callable[[], Any]] = {}
    for model in models:
        rule = list_models()[model].arguments().get("imgsz")
        size = None if rule is not None and rule == SIDE else SIDE
        predictor = random_predictor(model, CLASSES, photo, device="cpu")
        looks[model] = lambda predictor=predictor, size=size: predictor(photo, imgsz=size, conf=0.3)
    times: dict[str, list[float]] = {model: [] for model in models}
    for turn in range(-2, repeats):
        for model, look in looks.items():
            start = time.perf_counter()
            found = look()
            if turn >= 0:
                times[model].append(time.perf_counter() - start)
            elif turn == -1:
                print(f"<!-- {model}: {len(found)} objects -->")
    print("\n| model | images/s | ms, middle half |\n| --- | ---: | --- |")
    for model, seconds in times.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(seconds, n=4))
        print(f"| {model} | {1e3 / middle:.1f} | {low:.1f} to {high:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", help="names; those that are registered if left out")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", nargs=2, type=int, default=(512, 512), help="of the ResNets")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--apart", action="store_true", help="each side in its own process")
    parser.add_argument("--frames", action="store_true", help="images a second, not rows")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.apart:
        mw.keep_memory()  # for both sides
    print(f"{machine()}\n")
    known = LIGHT if args.frames else PEERS
    models = args.models or [name for name in known if name in list_models()]
    if args.frames:
        frames(models, args.repeats)
        return
    print(header("torchvision"))
    for model in models:
        for row in args.rows:
            given = (model, tuple(args.size), args.batch, args.apart)
            way = partial(timed, Pair, given, row, args.repeats)
            one = (
                apart(way, f"{model}, {row}", args.repeats)
                if args.apart and row != "photo"
                else way()
            )
            print(line(one), flush=True)


if __name__ == "__main__":
    main()
