"""A training step of Mask R-CNN against torchvision's: same weights, images, objects, optimiser.

    python benchmarks/train_step.py [--repeats 5] [--batch 2] [--side 512] [--objects 8]
    python benchmarks/train_step.py --apart     # each side in a process of its own, ours as `train`
    python benchmarks/train_step.py --precision bf16    # of our side; torchvision's is float32
    python benchmarks/train_step.py --memory    # peak memory, each side in a process of its own

Both sides train ResNet-50 with a pyramid from C3 on (frozen batch norm, as in fine-tuning), 512
regions an image, SGD with momentum; forward, backward and the update count, loading does not.
Losses of the same sampled regions are equal to 1e-4 (tests/parity/test_torchvision_losses.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Comparison, apart, compare, header, line, machine
from peak import peak_memory

import maskwright as mw
from maskwright.converters.torchvision import from_maskwright
from maskwright.drawing.scene import drawn_scene
from maskwright.structures import Images, Instances, PackedMasks
from maskwright.timing.comparable import random_predictor

MODEL, CLASSES = "mask_rcnn_resnet50_fpn", 20
# Our side by the precision of its arithmetic.
OURS = {"32": "maskwright", "bf16": "maskwright, bf16"}
Step = Callable[[], float]


def scene(
    batch: int, side: int, objects: int, classes: int, sides: tuple[int, int] = (16, 216)
) -> tuple[Images, Instances]:
    """Return square images with square objects.

    Args:
        batch: number of images.
        side: of an image.
        objects: in an image.
        classes: real classes.
        sides: least and largest side of an object.
    """
    generator = torch.Generator().manual_seed(0)
    shape, (least, most) = (batch, objects), sides
    sizes = torch.rand(shape, generator=generator) * (most - least) + least
    sizes = sizes.floor().clamp(max=side)
    corner = (torch.rand(*shape, 2, generator=generator) * (side - sizes)[..., None]).floor()
    boxes = torch.cat([corner, corner + sizes[..., None]], 2)
    areas = (sizes * sizes).long().flatten()
    offsets = (areas.cumsum(0) - areas).view(shape)
    data = torch.ones(int(areas.sum()), dtype=torch.uint8)
    valid = torch.ones(shape, dtype=torch.bool)
    labels = torch.arange(objects).expand(shape) % classes
    whole = torch.full((batch, 2), side)
    pixels = torch.rand(batch, 3, side, side, generator=generator) * 255
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    masks = PackedMasks(data, offsets, boxes.long())
    return Images(pixels, whole, whole), Instances(boxes, labels, valid, masks=masks)


def steps(module: Any, losses: Callable[[], dict[str, torch.Tensor]]) -> Step:
    """Return a step that trains a module by its losses."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-6, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(losses().values())).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())  # waits for a GPU

    return step


def make_sides(batch: int, side: int, objects: int, where: str) -> dict[str, Callable[[], Step]]:
    """Return what makes the step of each side, so that a process may hold one alone.

    Args:
        batch: number of images.
        side: of an image.
        objects: in an image.
        where: device.
    """
    options = {"conventions": "torchvision", "norm": "frozen"}
    device = torch.device(where)
    images, targets = (part.to(device) for part in scene(batch, side, objects, CLASSES))
    photo = drawn_scene(256, 320)
    predictor = random_predictor(MODEL, CLASSES, photo, options=options, device=where)

    def ours(half: bool) -> Step:
        detector = predictor.detector.train()
        detector.freeze(2)
        generator = torch.Generator(device).manual_seed(0)

        def losses() -> dict[str, torch.Tensor]:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                found = detector.losses(images, targets, generator=generator)
            return {name: value.float() for name, value in found.items()}

        return steps(detector, losses)

    def theirs() -> Step:
        from torchvision.models.detection import MaskRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
        peer = MaskRCNN(body, CLASSES + 1, _skip_resize=True).train()
        state, _ = from_maskwright(predictor.detector.state_dict(), {}, predictor.meta.category_ids)
        peer.load_state_dict(state)
        peer.to(device)
        photos = [photo.contiguous() / 255 for photo in images.pixels]
        given = []
        for boxes, labels in zip(targets.boxes, targets.labels, strict=True):
            masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8, device=device)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
                mask[y1:y2, x1:x2] = 1
            given.append({"boxes": boxes, "labels": labels + 1, "masks": masks})
        return steps(peer, lambda: peer(photos, given))

    own = {name: partial(ours, precision == "bf16") for precision, name in OURS.items()}
    return {"torchvision": theirs, **own}


def timed(
    batch: int, side: int, objects: int, device: str, precision: str, repeats: int
) -> Comparison:
    """Time a step of both sides in turns."""
    made = make_sides(batch, side, objects, device)
    theirs, ours = made["torchvision"](), made[OURS[precision]]()
    title = f"step, {batch} images of {side} x {side}, {objects} objects each"
    return compare(title, theirs, ours, repeats=repeats, warmup=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--objects", type=int, default=8, help="in an image")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=OURS, default="32", help="of our side")
    parser.add_argument(
        "--keep-memory", action="store_true", help="mw.keep_memory() for both sides"
    )
    parser.add_argument("--apart", action="store_true", help="each side in a process of its own")
    parser.add_argument("--memory", action="store_true", help="peak memory, not time")
    parser.add_argument("--only", help="one side, and print its peak memory")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.keep_memory:
        mw.keep_memory()
    if args.memory:
        rest = [word for word in sys.argv[1:] if word != "--memory"]
        for side in ("torchvision", OURS[args.precision]):
            subprocess.run([sys.executable, __file__, *rest, "--only", side], check=True)
        return
    given = args.batch, args.side, args.objects, args.device
    if args.only:
        step = make_sides(*given)[args.only]()
        before = peak_memory()
        begin = time.perf_counter()
        for _ in range(3):
            step()
        peak = peak_memory()
        each = (time.perf_counter() - begin) / 3
        print(f"{args.only}: peak {peak:.0f} MB, {before:.0f} MB before; {each:.2f} s a step")
        return
    print(f"{machine()}\n\n{header('torchvision')}")
    way = partial(timed, *given, args.precision, args.repeats)
    title = "step, each side in a process of its own"
    print(line(apart(way, title, args.repeats) if args.apart else way()))


if __name__ == "__main__":
    main()
