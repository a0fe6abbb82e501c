"""Train Mask R-CNN on the same images with maskwright and with torchvision, seed by seed.

    python benchmarks/torchvision_training.py DATA [--seeds 3] [--recipe nuclei] [--device cpu]
    python benchmarks/torchvision_training.py DATA --sides maskwright   # ours alone
    python benchmarks/torchvision_training.py DATA --equal-time --out rows.json

DATA is a data set with the splits train and val, such as nuclei. Both sides get the same backbone
with the same ImageNet weights (EfficientNet-Lite0, batch-norm statistics frozen), the same pyramid
(128 channels, group norm), anchors, head sizes, sampling, optimiser, schedule, batches (image for
image: the loader is keyed by the seed) and the same evaluator. What differs is the code under
test: model, losses, post-processing. The recipe is one of `maskwright.recipes`; for torchvision it
was chosen to be a strong baseline (without the group norm its mask loss starts at 12 to 16).

Equal steps is the plain comparison. `--equal-time` adds a third run per seed: torchvision with only
as many steps as it makes in the time in which maskwright makes all of its own, schedule and warm-up
shortened in proportion. The ratio of the step times is measured first, both sides taking turns.
With `--out`, a run that was cut off goes on with the rows that it lacks.

Masks return to the image in two ways: by torchvision's integer boxes, or sampled at the pixel
centres of the exact box ("grid"). Both are reported for both sides.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from training import Ours, Theirs, Trainer, of_steps, paired, run_all

from maskwright.data.loader import Batch
from maskwright.devices import pick_device
from maskwright.hub.backbone_weights import load_backbone
from maskwright.nn.backbones.backbone import Backbone
from maskwright.recipes import nuclei, penn_fudan
from maskwright.structures import PackedMasks
from maskwright.tasks.detection.recipe import DetectionRecipe

RECIPES = {"nuclei": nuclei, "penn_fudan": penn_fudan}
EQUAL_TIME = "torchvision, equal time"
FIGURES = {
    "box AP": "box AP",
    "own": "mask AP, own paste",
    "mask AP, grid paste": "mask AP, grid paste",
}


class Torchvisions(Theirs):
    """torchvision's MaskRCNN with the same backbone and sizes."""

    def __init__(self, recipe: DetectionRecipe, names: list[str]) -> None:
        super().__init__()
        from torchvision.models.detection import MaskRCNN
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        body = Backbone("tf_efficientnet_lite0")

        class Pyramid(nn.Module):
            out_channels = 128

            def __init__(self) -> None:
                super().__init__()
                self.body = body
                self.fpn = FeaturePyramidNetwork(
                    list(body.channels), 128, LastLevelMaxPool(), partial(nn.GroupNorm, 16)
                )

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                return self.fpn({str(i): m for i, m in enumerate(self.body(x))})

        sizes = recipe.model_args["anchor_sizes"]
        ratios = recipe.model_args.get("anchor_ratios", (0.5, 1.0, 2.0))
        pyramid = Pyramid()
        model = MaskRCNN(
            pyramid,
            None,  # the predictors below say it
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            rpn_anchor_generator=AnchorGenerator(
                tuple((s,) for s in sizes), (ratios,) * len(sizes)
            ),
            box_head=TwoMLPHead(128 * 49, 512),
            box_predictor=FastRCNNPredictor(512, len(names) + 1),
            mask_head=MaskRCNNHeads(128, (128,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(128, 128, len(names) + 1),
            rpn_pre_nms_top_n_train=2000,
            rpn_pre_nms_top_n_test=1000,
            rpn_post_nms_top_n_train=2000,
            rpn_post_nms_top_n_test=1000,
            box_batch_size_per_image=128,
            box_score_thresh=0.001,
            box_nms_thresh=0.5,
            box_detections_per_img=recipe.max_det,
        )

        class Holder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.backbone = body

        load_backbone(Holder())  # type: ignore[arg-type]
        self.backbone = body  # named first: its parameters get the backbone's learning rate
        self.model = model
        # torchvision would silently resize to 800 at test; and raw masks of 28 x 28 are needed, so
        # that both ways back to the image can be compared.
        self.leave_sizes()

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        images, targets = self.inputs(batch.images), []
        for i in range(len(batch)):
            valid = batch.targets.valid[i]
            assert batch.targets.masks is not None
            targets.append(
                {
                    "boxes": batch.targets.boxes[i][valid],
                    "labels": batch.targets.labels[i][valid] + 1,
                    "masks": unpack(batch.targets.masks, i, valid, images[i].shape[-2:]),
                }
            )
        torch.manual_seed(generator.initial_seed())
        return self.model(images, targets)


def unpack(masks: PackedMasks, image: int, valid: Tensor, size: torch.Size) -> Tensor:
    """Return full-size masks (n, H, W) uint8 of one image, as torchvision wants them."""
    full = masks.data.new_zeros((int(valid.sum()), *size))
    frames, offsets = masks.frames[image][valid].tolist(), masks.offsets[image][valid].tolist()
    for k, ((x1, y1, x2, y2), offset) in enumerate(zip(frames, offsets, strict=True)):
        crop = masks.data[offset : offset + (y2 - y1) * (x2 - x1)]
        full[k, y1:y2, x1:x2] = crop.view(y2 - y1, x2 - x1)
    return full


SIDES = {"maskwright": Ours, "torchvision": Torchvisions}


def step_ratio(recipe: DetectionRecipe, device: torch.device, turns: int = 12) -> list[float]:
    """Return torchvision's time of a step over ours, turn by turn, both trained side by side."""
    sides = [Trainer(SIDES[kind], 0, recipe, device, 0) for kind in ("torchvision", "maskwright")]
    for side in sides:
        side.step()
    ratios = []
    for turn in range(turns):
        seconds = {}
        for i in (turn % 2, 1 - turn % 2):
            seconds[i] = sides[i].step()[1]
        ratios.append(seconds[0] / seconds[1])
    return ratios


def report(rows: list[dict], device: torch.device) -> str:
    """Return the table of all runs and, where both sides ran, the paired differences."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [
        f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads",
        "",
        "| side | seed | steps | box AP | mask AP, own paste | mask AP, grid paste "
        "| s/step | total s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own = "grid" if row["side"] == "maskwright" else "torchvision"
        row["own"] = row[f"mask AP, {own} paste"]
        lines.append(
            f"| {row['side']} | {row['seed']} | {row['steps']} | {row['box AP']:.1f} "
            f"| {row['own']:.1f} | {row['mask AP, grid paste']:.1f} | {row['step']:.3f} "
            f"| {row['seconds']:.0f} |"
        )
    for other in ("torchvision", EQUAL_TIME):
        lines += paired(rows, "maskwright", other, FIGURES)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="nuclei")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--equal-time", action="store_true", help="see above")
    parser.add_argument("--ratio", type=float, help="of the step times; measured if left out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all figures as JSON, or go on from them")
    parser.add_argument("--save", type=Path, help="folder for our trained weights")
    args = parser.parse_args()
    device = pick_device(args.device)
    recipe = of_steps(RECIPES[args.recipe](args.data), args.steps)
    # As many proposals at test as torchvision's has here.
    recipe = replace(recipe, model_args={**recipe.model_args, "proposals": 1000})
    plans = dict.fromkeys(args.sides, recipe)
    if args.equal_time:
        ratio = args.ratio
        if ratio is None:
            ratios = step_ratio(recipe, device)
            ratio = statistics.median(ratios)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"torchvision's step takes {ratio:.2f} ({spread}) times as long as ours")
        assert recipe.steps is not None
        plans[EQUAL_TIME] = of_steps(recipe, round(recipe.steps / ratio))
    sides = {name: (SIDES[name.split(",")[0]], plan) for name, plan in plans.items()}
    rows = run_all(sides, args.seeds, device, args.workers, args.out, args.save)
    print("\n" + report(rows, device))


if __name__ == "__main__":
    main()
