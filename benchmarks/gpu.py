"""Mask R-CNN on a GPU: inference and training against torchvision on the same card.

    python benchmarks/gpu.py [--batches 1 4 16 64] [--repeats 10] [--only check,training]

Inference is the network alone, from pixels on the card to boxes and small masks, on images of 800 x
1216 with the same random weights on both sides: torchvision in float32, as it comes; ours in
float32, in bf16 and fp16 (channels-last), and in bf16 compiled with CUDA graphs. Training is the
step of `train_step.py`, and that in bf16 autocast. Operators are RoIAlign and NMS beside
torchvision's kernels. Before anything is timed, small models of every family are checked: losses,
gradients and what is found are those of the CPU, and how often the host waits for the card in a
step is said (`--only check` stops there). What does not fit into the card's memory is said and
left out. `--device cpu` with small sizes runs the same script, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import train_step
from common import compare, header, line, machine
from torch.utils._pytree import tree_leaves

from maskwright.drawing.scene import drawn_scene
from maskwright.models import PostProcess, build_tiny, list_models
from maskwright.models.inference import whole_products
from maskwright.nn.random import ImageNoise
from maskwright.ops import nms_padded, roi_align
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Images, Instances, LabelMaps, Labels, Resize
from maskwright.tasks.detection.peer import torchvision_model
from maskwright.timing.comparable import random_predictor

MODEL, CLASSES = "mask_rcnn_resnet50_fpn", 90
CHECKED_CLASSES = 3
POST = PostProcess(0.05, 0.5, 100)
Work = Callable[[], object]


def finished(work: Work, device: torch.device) -> Work:
    """Return work without gradients that ends when the card is done."""

    def run() -> None:
        with torch.inference_mode():
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def row(title: str, baseline: Work, ours: Work, args: argparse.Namespace, images: int = 0) -> None:
    """Print a row of the table, with our images a second if these are images."""
    try:
        done = compare(title, baseline, ours, repeats=args.repeats, warmup=3)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        print(f"| {title} | out of memory | | |", flush=True)
        return
    rate = f" {1e3 * images / done.ours.median:.1f} images/s |" if images else ""
    print(line(done) + rate, flush=True)


def networks(predictor: Predictor, args: argparse.Namespace) -> dict[str, Any]:
    """Return our ways to compute, by title."""
    cuda = args.device.startswith("cuda")
    made: dict[str, Any] = {"float32": predictor.network()}
    for precision in ("bf16", "fp16") if cuda else ("bf16",):
        # A copy: half types lay the weights out in another order, in place.
        detector, meta = copy.deepcopy(predictor.detector), predictor.meta
        other = Predictor(detector, meta, device=args.device, precision=precision)
        made[precision] = other.network()
    if cuda:
        made["bf16, CUDA graphs"] = torch.compile(made["bf16"], mode="reduce-overhead")
    return made


def inference(args: argparse.Namespace) -> None:
    """Compare prediction at several batch sizes."""
    device = torch.device(args.device)
    photo = drawn_scene(args.height, args.width)
    options = {"conventions": "torchvision"}
    predictor = random_predictor(MODEL, CLASSES, photo, options=options, device=args.device)
    short, long = sorted((args.height, args.width))
    rule = Resize(short, long)
    peer = torchvision_model(predictor.model, predictor.meta, POST, rule, predictor.device)
    assert peer is not None
    single = torch.from_numpy(photo).to(device).permute(2, 0, 1).float()
    for batch in args.batches:
        pixels = single.expand(batch, -1, -1, -1)
        sizes = torch.tensor([photo.shape[:2]] * batch, device=device)
        theirs = list(pixels / 255)
        for title, network in networks(predictor, args).items():
            rows = device.type == "cpu" or title != "float32"
            layout = torch.channels_last if rows else torch.contiguous_format
            images = Images(pixels.contiguous(memory_format=layout), sizes, sizes)
            row(
                f"inference, batch {batch}, {title}",
                finished(lambda theirs=theirs: peer(theirs), device),
                finished(lambda network=network, images=images: network(images, POST), device),
                args,
                images=batch,
            )


def training(args: argparse.Namespace) -> None:
    """Compare training steps, ours also in bf16 autocast."""
    for batch in args.batches:
        sides = train_step.make_sides(batch, args.side, 8, args.device)
        theirs = sides["torchvision"]()
        for precision, title in (("32", "float32"), ("bf16", "ours in bf16 autocast")):
            ours = sides[train_step.OURS[precision]]()
            row(f"training step, batch {batch}, {title}", theirs, ours, args, images=batch)


def operators(args: argparse.Namespace) -> None:
    """Compare RoIAlign and NMS."""
    from torchvision.ops import MultiScaleRoIAlign, batched_nms

    device = torch.device(args.device)
    generator = torch.Generator(device).manual_seed(0)
    strides = (4, 8, 16, 32)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    maps = [random(1, 256, args.height // s, args.width // s) for s in strides]
    named = {str(i): fmap for i, fmap in enumerate(maps)}
    pooler = MultiScaleRoIAlign(list(named), 7, 2)
    size = [(args.height, args.width)]
    limit = torch.tensor([args.width, args.height], device=device)
    for count in (100, 1000):
        corner = random(count, 2) * limit * 0.8
        boxes = torch.cat([corner, torch.minimum(corner + random(count, 2) * 200 + 16, limit)], 1)
        index = torch.zeros(count, dtype=torch.int64, device=device)
        scores, labels = random(count), (random(count) * 80).long()
        valid = torch.ones(1, count, dtype=torch.bool, device=device)

        def pool(boxes: torch.Tensor = boxes) -> object:
            return pooler(named, [boxes], size)

        def align(boxes: torch.Tensor = boxes, index: torch.Tensor = index) -> object:
            return roi_align(maps, boxes, index, strides=strides, output_size=7, aligned=False)

        def theirs(given: Any = (boxes, scores, labels)) -> object:
            return batched_nms(*given, 0.5)[:100]

        def ours(given: Any = (boxes, scores, labels, valid)) -> object:
            box, score, label, slots = given
            return nms_padded(box[None], score[None], slots, 0.5, 100, labels=label[None])

        row(
            f"RoIAlign, pyramid, {count} boxes",
            finished(pool, device),
            finished(align, device),
            args,
        )
        title = f"NMS, 80 classes, {count} boxes, best 100"
        row(title, finished(theirs, device), finished(ours, device), args)


def check(args: argparse.Namespace) -> None:
    """Compare a step and a prediction of every family with those of the CPU, in float32."""
    print(
        "\n| family | loss | gradient | found | waits of a step |\n| --- | --- | --- | --- | --- |"
    )
    for name, entry in list_models().items():
        if entry.tiny is None:
            continue
        try:
            with whole_products(torch.device(args.device)):
                told = " | ".join(_checked(name, torch.device(args.device)))
        except Exception as error:  # the next family may be sound
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} | | | "
        print(f"| {name} | {told} |", flush=True)


def _checked(name: str, device: torch.device) -> list[str]:
    """Return the largest differences of loss, gradient and result, and the number of waits."""
    torch.manual_seed(0)
    model = build_tiny(name, CHECKED_CLASSES)
    side = model.example_side(96)
    images, targets = _example(model.task, side)
    sides = [model, copy.deepcopy(model).to(device)]
    losses, grads, found, waits = [], [], [], "-"
    for one in sides:
        where = next(one.parameters()).device
        here, truth = images.to(where), targets.to(where)
        noise = ImageNoise(torch.arange(len(images), device=where))
        norms = [m for m in one.modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)]
        for layer in norms:  # torch draws otherwise on a card
            layer.p = 0.0
        if where.type == "cuda":
            state = copy.deepcopy(one.state_dict())
            one.train().losses(here, truth, generator=noise)  # what is chosen once
            one.load_state_dict(state)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                total = torch.stack([*one.losses(here, truth, generator=noise).values()]).sum()
                total.backward()
                torch.cuda.set_sync_debug_mode("default")
            waits = str(sum("synchroniz" in str(entry.message) for entry in told))
        else:
            total = torch.stack([*one.train().losses(here, truth, generator=noise).values()]).sum()
            total.backward()
        losses.append(total.detach().cpu())
        grads.append([p.grad.cpu() for p in one.parameters() if p.grad is not None])
        with torch.no_grad():
            outcome = one.eval()(here)
        found.append([t.cpu().float() for t in tree_leaves(outcome) if torch.is_tensor(t)])
    differ = [_difference([losses[0]], [losses[1]]), _difference(*grads), _difference(*found)]
    return [*(f"{value:.0e}" for value in differ), waits]


def _difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Return the largest difference of two lists of tensors, relative to each one's largest."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.numel()]
    return max(
        (float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs), default=0.0
    )


def _example(task: str, side: int) -> tuple[Images, Any]:
    """Return two images of a task with what is true of them."""
    images, objects = train_step.scene(2, side, 4, CHECKED_CLASSES, (8, side // 2))
    if task == "classify":
        return images, Labels(torch.eye(CHECKED_CLASSES)[:2])
    if task == "semantic":
        rows = torch.arange(side) * CHECKED_CLASSES // side
        return images, LabelMaps(rows.to(torch.uint8)[None, :, None].repeat(2, 1, side))
    low, high = objects.boxes[..., None, :2], objects.boxes[..., None, 2:]
    points = low + (high - low) * torch.linspace(0, 1, 5)[:, None]
    points = torch.cat([points, torch.full_like(points[..., :1], 2)], -1)
    whole = torch.tensor([0.0, 0, side, side]).expand(2, 1, 4)
    regions = torch.cat([objects.boxes, whole], 1)
    valid = torch.ones(regions.shape[:2], dtype=torch.bool)
    ids = torch.arange(regions.shape[1]).expand(2, -1)
    images = replace(images, proposals=Instances(regions, torch.zeros_like(ids), valid, ids=ids))
    return images, replace(objects, keypoints=points)


PARTS = {"check": check, "operators": operators, "inference": inference, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1216)
    parser.add_argument("--side", type=int, default=512, help="of training images")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default=",".join(PARTS), help="with commas")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    if args.device.startswith("cuda"):
        if not torch.cuda.is_available():
            parser.error("this torch sees no CUDA device; --device cpu runs the script without one")
        print(torch.cuda.get_device_name(args.device))
    print(machine())
    if "check" in wanted:
        check(args)
    if timed := [part for name, part in PARTS.items() if name in wanted and name != "check"]:
        print(f"\n{header('torchvision')}")
        for part in timed:
            part(args)


if __name__ == "__main__":
    main()
