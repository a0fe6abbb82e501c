"""Segmenters against torchvision: predictions, training steps, and what is learned.

    python benchmarks/segmentation.py CAMVID [--networks fcn_resnet50] [--rows photo step] [--apart]
    python benchmarks/segmentation.py CAMVID --accuracy --out benchmarks/rows/segmentation.json

CAMVID has images and maps of labels in train and test. Both sides have the same network with the
same weights and take turns, in one process or, with `--apart`, each in its own with the memory of
its users (ours keeps what it frees); torchvision's are those of its segmentation reference.

| row | what is timed |
| --- | --- |
| photo | a file to its map of labels, one by one, as `Predictor` does it |
| network | a batch in memory to the logits of its pixels |
| step | forward, loss of both heads, backward and update on a batch in memory |

With `--accuracy` both train DeepLabv3 and FCN on the same backbone (EfficientNet-Lite0 of the
package, dilated to stride 16), seed by seed with the same images in the same batches and random
windows of the same size; each has its own recipe, head and augmentation: torchvision's is SGD with
a rate of 0.01 that falls polynomially. The last weights are scored on the test images at their own
size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Comparison, apart, compare, machine, timed
from papers import EXPERIMENTS, LITE0, SCENES
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from training import batches_of, learned

import maskwright as mw
from maskwright.converters.networks import from_maskwright
from maskwright.data.batches import Batch
from maskwright.hub.loading import start_model
from maskwright.models.meta import Meta
from maskwright.models.registry import build
from maskwright.structures import Images, LabelMaps
from maskwright.tasks.semantic.recipe import SemanticRecipe
from maskwright.terminal.interrupt import Interrupt
from maskwright.training.prepare import prepare
from maskwright.training.train import optimise

# What is trained with `--accuracy`, by our options.
FAMILIES: dict[str, dict[str, Any]] = {
    "DeepLabv3": EXPERIMENTS["scenes"].sides["DeepLab v3"],
    "FCN": {"model": "fcn_resnet50", "model_args": {**LITE0, "auxiliary": 0.0}},
}
NETWORKS = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large")
ROWS = ("photo", "network", "step")
WANTED = 1.3  # the least ratio of each row
AUXILIARY = 0.5  # weight of torchvision's second head
IGNORED = 255


def peer(network: str, classes: int, state: dict[str, Tensor]) -> nn.Module:
    """Return torchvision's network with the weights of ours."""
    from torchvision.models import segmentation

    made: nn.Module = getattr(segmentation, network)(
        weights=None, weights_backbone=None, num_classes=classes, aux_loss=True
    )
    given, _ = from_maskwright(state, model=network, target="torchvision")
    made.load_state_dict(given)
    return made


@dataclass
class Pair:
    """One network on both sides.

    Attributes:
        network: the name, which both libraries share.
        files: photographs.
        size: of a batch, images, height and width.
        short: side of a photo at the input of the network.
        folder: for run folders.
    """

    network: str
    files: list[Path]
    size: tuple[int, int, int]
    short: int
    data: Path
    folder: Path

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.options = {"imgsz": (self.short, 4 * self.short)}
        self.names = names_of(self.data)
        classes = len(self.names)
        self.model = build(self.network, classes, **self.options)
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.peer = peer(self.network, classes, state)
        generator = torch.Generator().manual_seed(0)
        batch, height, width = self.size
        self.pixels = torch.randint(0, 256, (batch, 3, height, width), generator=generator).float()
        # Patches of one class, as labels are.
        coarse = (batch, 1, height // 16, width // 16)
        labels = torch.randint(0, classes, coarse, generator=generator).float()
        self.labels = F.interpolate(labels, (height, width), mode="nearest")[:, 0].long()

    def rows(self) -> dict[str, Callable[[int], Comparison]]:
        """Return what can be timed, by name, each for a number of turns."""
        return {"photo": self.photo, "network": self.predictions, "step": self.step}

    def standardised(self) -> Tensor:
        """Return the pixels as torchvision's transforms give them."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in norm_of(self.model).values())
        return (self.pixels / 255 - mean) / std

    def images(self) -> Images:
        """Return the pixels as our loader gives them."""
        batch, height, width = self.size
        size = torch.tensor([[height, width]] * batch)
        return Images(self.pixels, size, size)

    def photo(self, repeats: int) -> Comparison:
        """Time files to maps of labels at the size of the photo."""
        predictor = mw.Predictor(
            self.model, Meta(self.network, self.options, self.names), device="cpu"
        )
        self.peer.eval()
        transform = for_test(self.short, norm_of(self.model))

        def theirs() -> list[Tensor]:
            found = []
            for file in self.files:
                with Image.open(file) as image, torch.inference_mode():
                    pixels = transform(image.convert("RGB"))
                    logits = self.peer(pixels[None])["out"]
                    large = F.interpolate(
                        logits, image.size[::-1], mode="bilinear", align_corners=False
                    )
                    found.append(large.argmax(1)[0])
            return found

        def ours() -> list[Tensor]:
            return [torch.from_numpy(predictor(file).labels) for file in self.files]

        for a, b in zip(theirs(), ours(), strict=True):
            # Logits are enlarged once here and twice there.
            assert float((a == b).float().mean()) > 0.95
        return compare("photo", theirs, ours, repeats=repeats, warmup=1)

    def predictions(self, repeats: int) -> Comparison:
        """Time a batch to the logits of its pixels."""
        predictor = mw.Predictor(
            self.model, Meta(self.network, self.options, self.names), device="cpu"
        )
        self.peer.eval()
        pixels, images = self.standardised(), self.images()

        @torch.inference_mode()
        def theirs() -> Tensor:
            return self.peer(pixels)["out"]

        @torch.inference_mode()
        def ours() -> Tensor:
            return predictor.network()(images)

        torch.testing.assert_close(theirs(), ours(), rtol=1e-3, atol=1e-3)
        return compare("network", theirs, ours, repeats=repeats, warmup=1)

    def step(self, repeats: int) -> Comparison:
        """Time training steps on a batch in memory."""
        self.peer.train()
        optimizer = reference_optimizer(self.peer)
        pixels = self.standardised()
        recipe = SemanticRecipe(
            data=str(self.data),
            model=self.network,
            weights="none",
            epochs=1000,
            batch=self.size[0],
            optimizer="sgd",
            lr=0.01,
            clip=None,
            val_fraction=0,
            workers=0,
            device="cpu",
            project=str(self.folder),
        )
        run = prepare(recipe)
        run.model.load_state_dict(self.model.state_dict())
        run.model.train()
        run.place.step = 3  # the first three draw pictures
        targets = LabelMaps(self.labels.to(torch.uint8))
        keys = torch.arange(self.size[0])
        batch = Batch(self.images(), targets, keys.tolist(), keys)

        def theirs() -> float:
            loss = reference_loss(self.peer(pixels), self.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        with Interrupt() as interrupt:
            return compare(
                "step", theirs, lambda: optimise(run, [batch], interrupt), repeats=repeats, warmup=1
            )


def norm_of(model: Any) -> dict[str, list[float]]:
    """Return mean and deviation of the input of one of our networks, of samples from 0 to 1."""
    return {key: (getattr(model, key).flatten() / 255).tolist() for key in ("mean", "std")}


def names_of(data: Path) -> list[str]:
    """Return the names of the classes."""
    return (data / "classes.txt").read_text().split()


def reference_loss(found: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Return the loss of torchvision's reference."""
    losses = {
        name: F.cross_entropy(logits, labels, ignore_index=IGNORED)
        for name, logits in found.items()
    }
    return losses["out"] + AUXILIARY * losses["aux"] if "aux" in losses else losses["out"]


def reference_optimizer(model: Any) -> torch.optim.Optimizer:
    """Return that of torchvision's reference; its second head learns ten times as fast."""
    weights: list[dict[str, Any]] = [
        {"params": [*model.backbone.parameters(), *model.classifier.parameters()]}
    ]
    if model.aux_classifier is not None:
        weights.append({"params": list(model.aux_classifier.parameters()), "lr": 0.1})
    return torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-4)


def for_test(short: int, norm: dict[str, list[float]]) -> Any:
    """Return torchvision's way from a photo to the input of a network."""
    from torchvision import transforms as T

    return T.Compose(
        [
            T.Resize(short, antialias=True),
            T.PILToTensor(),
            T.ConvertImageDtype(torch.float),
            T.Normalize(**norm),
        ]
    )


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Photos with maps of labels, read and changed as in torchvision's reference."""

    def __init__(
        self, data: Path, short: int, crop: tuple[int, int], norm: dict[str, list[float]]
    ) -> None:
        from torchvision.transforms import v2

        self.files = scenes(data, "train")
        self.change = v2.Compose(
            [
                v2.RandomResize(short // 2, 2 * short, antialias=True),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomCrop(crop, pad_if_needed=True, fill=_fill()),
                v2.ToDtype(_types(), scale=True),
                v2.Normalize(**norm),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from torchvision import tv_tensors

        photo, labels = (torch.from_numpy(read(file)) for file in self.files[index])
        image = tv_tensors.Image(photo.permute(2, 0, 1))
        image, mask = self.change(image, tv_tensors.Mask(labels))
        return image, mask.long()


def _fill() -> dict[Any, int]:
    from torchvision import tv_tensors

    return {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}


def _types() -> dict[Any, torch.dtype]:
    from torchvision import tv_tensors

    return {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}


def read(file: Path) -> np.ndarray:
    """Return the pixels of a photo in RGB, or the values of a map of labels."""
    with Image.open(file) as image:
        return np.array(image if file.suffix == ".png" else image.convert("RGB"))


def scenes(data: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the photos of a split and their maps of labels."""
    photos = sorted((data / "images" / split).iterdir())
    return [(photo, data / "labels" / split / f"{photo.stem}.png") for photo in photos]


class Maps(nn.Module):
    """One of our backbones as torchvision's segmenters call them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.body = backbone

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the last map by its name."""
        return {"out": self.body(x)[-1]}


def theirs_learns(args: argparse.Namespace, family: str, seed: int) -> float:
    """Return the mean IoU of torchvision's training."""
    from torchvision.models.segmentation import FCN, DeepLabV3
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    from torchvision.models.segmentation.fcn import FCNHead

    recipe = SemanticRecipe(data=str(args.data), **options_of(args, family))
    names = names_of(args.data)
    torch.manual_seed(seed)
    start, _, _ = start_model(recipe.model, names, options=recipe.model_args)
    backbone = start.backbone
    network, head = {"DeepLabv3": (DeepLabV3, DeepLabHead), "FCN": (FCN, FCNHead)}[family]
    model = network(Maps(backbone), head(backbone.channels[-1], len(names)), None)
    norm = norm_of(start)
    short = min(recipe.crop)  # that of whole frames
    train = Scenes(args.data, short, recipe.crop, norm)
    optimizer = reference_optimizer(model)
    batches = batches_of(seed, recipe.epochs, len(train), recipe.batch)
    falling = torch.optim.lr_scheduler.PolynomialLR(optimizer, len(batches), power=0.9)
    model.train()
    for images, labels in DataLoader(train, batch_sampler=batches, num_workers=args.workers):
        optimizer.zero_grad()
        reference_loss(model(images), labels).backward()
        optimizer.step()
        falling.step()
    model.eval()
    table = np.zeros((len(names), len(names)), np.int64)
    change = for_test(short, norm)
    for photo, file in scenes(args.data, "test"):
        truth = read(file)
        with Image.open(photo) as image, torch.inference_mode():
            logits = model(change(image.convert("RGB"))[None])["out"]
        large = F.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
        found, seen = large.argmax(1)[0].numpy(), truth != IGNORED
        pairs = truth[seen].astype(np.int64) * len(names) + found[seen]
        table += np.bincount(pairs, minlength=table.size).reshape(table.shape)
    either = table.sum(0) + table.sum(1) - table.diagonal()
    return float(100 * (table.diagonal()[either > 0] / either[either > 0]).mean())


def options_of(args: argparse.Namespace, family: str) -> dict[str, Any]:
    """Return the options of our training, which the line of segmenters has too."""
    more = {"workers": args.workers, "device": "cpu", "val_fraction": 0, "patience": 0}
    return {**SCENES, **FAMILIES[family], **more}


def ours_learns(args: argparse.Namespace, family: str, seed: int) -> float:
    """Return the mean IoU of our training."""
    with tempfile.TemporaryDirectory() as place:
        more = {"val_every": 10**6, "project": place, "seed": seed}
        made = mw.train(args.data, **options_of(args, family), **more)
        found = mw.val(made.last, args.data, split="test", workers=0, save=False)
    return 100 * found["mIoU"]


def accuracy(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table of what is learned."""
    sides = {"maskwright": ours_learns, "torchvision": theirs_learns}
    for family in args.families:
        by_seed = {
            f"{family}, {side}": partial(learn, args, family) for side, learn in sides.items()
        }
        yield from learned(by_seed, args.seeds, args.out, "mIoU", "mean IoU")
        yield ""


def speed(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table of times."""
    height, width = args.size
    photos = [photo for photo, _ in scenes(args.data, "test")[: args.batch]]
    yield f"{machine()}, batch {args.batch}, {height} x {width} pixels"
    yield ""
    yield "| network | row | torchvision, images/s | maskwright, images/s | ratio | wanted |"
    yield "| --- | --- | ---: | ---: | --- | --- |"
    with tempfile.TemporaryDirectory() as place:
        for network in args.networks:
            for name in args.rows:
                size = (args.batch, height, width)
                given = network, photos, size, height, args.data, Path(place) / "runs"
                way = partial(timed, Pair, given, name, args.repeats)
                row = apart(way, name, args.repeats) if args.apart else way()
                rates = [1e3 * args.batch / side.median for side in (row.baseline, row.ours)]
                low, high = min(row.ratios), max(row.ratios)
                met = "met" if row.ratio >= WANTED else "missed"
                yield (
                    f"| {network} | {name} | {rates[0]:.2f} | {rates[1]:.2f} "
                    f"| {row.ratio:.2f} ({low:.2f} to {high:.2f}) | {WANTED} {met} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5, help="turns of each comparison")
    parser.add_argument("--apart", action="store_true", help="each side in its own process")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), help="height and width")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if left out")
    parser.add_argument("--accuracy", action="store_true", help="what is learned, not how fast")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the mean IoUs as JSON, or go on from them")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    mw.keep_memory()
    for line in accuracy(args) if args.accuracy else speed(args):
        print(line, flush=True)


if __name__ == "__main__":
    main()
