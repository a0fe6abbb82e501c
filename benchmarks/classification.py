"""Classifiers against torchvision: predictions, training steps, whole trainings, what is learned.

    python benchmarks/classification.py DATA [--networks resnet18] [--rows photo step] [--apart]
    python benchmarks/classification.py DATA --accuracy --out benchmarks/rows/classification.json

DATA has a folder of photographs for each class in train and in val. Both sides have the same
network with the same weights and take turns, in one process or, with `--apart`, each in its own
with the memory of its users: ours keeps what it frees, as the commands do. torchvision's are those
of its classification reference: photos read by Pillow, its transforms, torch's loader, SGD.

| row | what is timed |
| --- | --- |
| photo | a file to its probabilities, one by one, as `Predictor` does it |
| network | a batch of squares in memory to logits |
| step | forward, backward and update on a batch in memory |
| training | an epoch of our training loop beside an epoch of theirs, augmentation and loading too |

With `--accuracy` both fine-tune MobileNetV2 from the ImageNet weights of the package, seed by seed
with the same images in the same batches, the same optimiser and schedule, each with its own
augmentation and its own way to the square at test; the last weights count. Runs whose rows are in
`--out` are not repeated.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import Comparison, apart, compare, machine, timed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from training import batches_of, learned

import maskwright as mw
from maskwright.converters.networks import from_maskwright
from maskwright.data import open_dataset
from maskwright.data.batches import Batch
from maskwright.hub.loading import start_model
from maskwright.models.meta import Meta
from maskwright.models.registry import build
from maskwright.structures import Images, Labels
from maskwright.tasks.classification.freezing import learning_rates
from maskwright.tasks.classification.recipe import ClassificationRecipe
from maskwright.terminal.interrupt import Interrupt
from maskwright.training.optim import build_optimizer, lr_factor, set_lr
from maskwright.training.prepare import prepare
from maskwright.training.session import Session
from maskwright.training.train import optimise, train_epoch

# torchvision's networks and ours.
NETWORKS = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenet_v2": "classify_mobilenetv2_100",
    "vgg16": "vgg16",
    "densenet121": "densenet121",
    "googlenet": "googlenet_bn",
    "inception_v3": "inception_v3",
    "alexnet": "alexnet",
}
# Least ratios that are wanted.
WANTED = {"photo": 1.3, "network": 1.3, "step": 1.2, "training": 1.2}
AUXILIARY = 0.3  # weight of the heads that GoogLeNet and Inception v3 have in training
DROPOUT = 0.2  # of torchvision's MobileNetV2; timm's has none


def our_options(network: str) -> dict[str, Any]:
    """Return the options with which our network is torchvision's."""
    return {"dropout": DROPOUT, "interpolation": "bilinear"} if network == "mobilenet_v2" else {}


def peer(network: str, classes: int, state: dict[str, Tensor]) -> nn.Module:
    """Return torchvision's network with the weights of ours."""
    import torchvision

    more = {"init_weights": False} if network in ("googlenet", "inception_v3") else {}
    made: nn.Module = getattr(torchvision.models, network)(num_classes=classes, **more)
    theirs = made.state_dict()
    if network == "mobilenet_v2":  # the layers stand in the same order
        given = dict(zip(theirs, state.values(), strict=True))
    else:
        given, _ = from_maskwright(state, model=NETWORKS[network], target="torchvision")
    made.load_state_dict(given)
    return made


class Photos(Dataset[tuple[Tensor, int]]):
    """Files with labels, read and changed as in torchvision's reference."""

    def __init__(self, files: list[tuple[Path, int]], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        file, label = self.files[index]
        with Image.open(file) as image:
            return self.transform(image.convert("RGB")), label


def norm_of(model: Any) -> dict[str, tuple[float, ...]]:
    """Return the means and deviations of the pixels that a model was trained with, of 1."""
    way = model.preprocess
    return {key: tuple(v / 255 for v in getattr(way, key)) for key in ("mean", "std")}


def for_training(side: int, scale: tuple[float, float], norm: dict[str, Any]) -> Any:
    """Return the changes of torchvision's reference in training."""
    from torchvision import transforms as T

    return T.Compose(
        [
            T.RandomResizedCrop(side, scale=scale, antialias=True),
            T.RandomHorizontalFlip(),
            T.PILToTensor(),
            T.ConvertImageDtype(torch.float),
            T.Normalize(**norm),
        ]
    )


def for_test(side: int, short: int, norm: dict[str, Any]) -> Any:
    """Return its way from a photo to a square at test."""
    from torchvision import transforms as T

    return T.Compose(
        [
            T.Resize(short, antialias=True),
            T.CenterCrop(side),
            T.PILToTensor(),
            T.ConvertImageDtype(torch.float),
            T.Normalize(**norm),
        ]
    )


def labelled(data: Path, split: str) -> tuple[list[tuple[Path, int]], list[str]]:
    """Return the files of a split with their labels, and the names of the classes."""
    found = open_dataset(data, split, records="labels")
    files = [(found[i].path, int(found.labels_of(i)[0])) for i in range(len(found))]
    return files, list(found.names)


def their_losses(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of one of torchvision's networks, auxiliary heads included."""
    found = model(images)
    if isinstance(found, Tensor):
        return F.cross_entropy(found, labels)
    main, *others = found
    return F.cross_entropy(main, labels) + AUXILIARY * sum(
        F.cross_entropy(logits, labels) for logits in others
    )


@dataclass
class Pair:
    """One network on both sides.

    Attributes:
        network: torchvision's name.
        data: folder with the images of a training.
        batch: images of a step.
        workers: processes that load, on each side.
        folder: for run folders.
    """

    network: str
    data: Path
    batch: int
    workers: int
    folder: Path

    def __post_init__(self) -> None:
        self.files, self.names = labelled(self.data, "train")
        torch.manual_seed(0)
        options = our_options(self.network)
        self.model = build(NETWORKS[self.network], len(self.names), **options)
        self.meta = Meta(NETWORKS[self.network], options, list(self.names))
        self.side, self.short = self.model.crop, self.model.preprocess.short
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.peer = peer(self.network, len(self.names), state)
        generator = torch.Generator().manual_seed(0)
        shape = (batch := self.batch, 3, self.side, self.side)
        self.pixels = torch.randint(0, 256, shape, generator=generator).float()
        self.labels = torch.randint(0, len(self.names), (batch,), generator=generator)

    def rows(self) -> dict[str, Callable[[int], Comparison]]:
        """Return what can be timed, by name, each for a number of turns."""
        return {
            "photo": self.photo,
            "network": self.predictions,
            "step": self.step,
            "training": self.training,
        }

    def standardised(self) -> Tensor:
        """Return the pixels as torchvision's transforms give them."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in norm_of(self.model).values())
        return (self.pixels / 255 - mean) / std

    def images(self) -> Images:
        """Return the pixels as our loader gives them."""
        size = torch.full((self.batch, 2), self.side)
        return Images(self.pixels, size, size)

    def photo(self, repeats: int) -> Comparison:
        """Time files to probabilities, one by one."""
        from PIL import Image

        files = [file for file, _ in self.files[:: len(self.files) // self.batch][: self.batch]]
        predictor = mw.Predictor(self.model, self.meta, device="cpu")
        self.peer.eval()
        transform = for_test(self.side, self.short, norm_of(self.model))

        def theirs() -> list[Tensor]:
            found = []
            for file in files:
                with Image.open(file) as image, torch.inference_mode():
                    square = transform(image.convert("RGB"))
                    found.append(self.peer(square[None]).softmax(1)[0])
            return found

        def ours() -> list[Tensor]:
            return [predictor(file).probs for file in files]

        for a, b in zip(theirs(), ours(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
        return compare("photo", theirs, ours, repeats=repeats, warmup=1)

    def predictions(self, repeats: int) -> Comparison:
        """Time a batch of squares to logits."""
        predictor = mw.Predictor(self.model, self.meta, device="cpu")
        self.peer.eval()
        pixels, images = self.standardised(), self.images()

        @torch.inference_mode()
        def theirs() -> Tensor:
            return self.peer(pixels)

        @torch.inference_mode()
        def ours() -> Tensor:
            return predictor.network()(images)

        torch.testing.assert_close(theirs(), ours(), rtol=1e-3, atol=1e-3)
        return compare("network", theirs, ours, repeats=repeats, warmup=1)

    def session(self) -> Session:
        """Return our training: random weights, all of them at one rate, as in the reference."""
        recipe = ClassificationRecipe(
            data=str(self.data),
            model=NETWORKS[self.network],
            model_args={**our_options(self.network)},
            weights="none",
            epochs=1000,
            batch=self.batch,
            optimizer="sgd",
            lr=1e-3,
            weight_decay=1e-4,
            crop_scale=(0.08, 1.0),
            clip=None,
            val_fraction=0,
            workers=self.workers,
            device="cpu",
            project=str(self.folder),
        )
        return prepare(recipe)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return that of torchvision's side."""
        weights = self.peer.parameters()
        return torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step(self, repeats: int) -> Comparison:
        """Time training steps on a batch in memory."""
        self.peer.train()
        optimizer, pixels = self.optimizer(), self.standardised()
        run = self.session()
        run.model.load_state_dict(self.model.state_dict())
        run.model.train()
        run.place.step = 3  # the first three draw pictures
        labels = Labels(F.one_hot(self.labels, len(self.names)).float(), None)
        keys = torch.arange(self.batch)
        batch = Batch(self.images(), labels, keys.tolist(), keys)

        def theirs() -> float:
            loss = their_losses(self.peer, pixels, self.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        with Interrupt() as interrupt:
            return compare(
                "step", theirs, lambda: optimise(run, [batch], interrupt), repeats=repeats, warmup=1
            )

    def training(self, repeats: int) -> Comparison:
        """Time epochs, from files to weights."""
        self.peer.train()
        optimizer = self.optimizer()
        loader = DataLoader(
            Photos(self.files, for_training(self.side, (0.08, 1.0), norm_of(self.model))),
            batch_size=self.batch,
            shuffle=True,
            num_workers=self.workers,
        )
        run = self.session()
        run.place.step = 3

        def theirs() -> float:
            total = 0.0
            for images, labels in loader:
                loss = their_losses(self.peer, images, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()
            return total

        def ours(interrupt: Interrupt) -> None:
            train_epoch(run, interrupt)
            run.place.epoch, run.place.batch = run.place.epoch + 1, 0

        with Interrupt() as interrupt:
            return compare("training", theirs, lambda: ours(interrupt), repeats=repeats, warmup=1)


def few(data: Path, folder: Path, images: int) -> Path:
    """Return a folder with so many of the training images, evenly from all classes."""
    files, names = labelled(data, "train")
    each = images // len(names)
    for label, name in enumerate(names):
        own = [file for file, other in files if other == label][:each]
        (folder / "train" / name).mkdir(parents=True)
        for file in own:
            (folder / "train" / name / file.name).symlink_to(file.resolve())
    return folder


def speed(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table of times."""
    yield f"{machine()}, batch {args.batch}, {args.workers} worker processes on each side"
    yield ""
    yield "| network | row | torchvision, images/s | maskwright, images/s | ratio | wanted |"
    yield "| --- | --- | ---: | ---: | --- | --- |"
    with tempfile.TemporaryDirectory() as place:
        data = few(args.data, Path(place) / "data", args.images)
        for network in args.networks:
            for name in args.rows:
                given = network, data, args.batch, args.workers, Path(place) / "runs"
                way = partial(timed, Pair, given, name, args.repeats)
                row = apart(way, name, args.repeats) if args.apart else way()
                count = len(labelled(data, "train")[0]) if name == "training" else args.batch
                rates = [1e3 * count / side.median for side in (row.baseline, row.ours)]
                low, high = min(row.ratios), max(row.ratios)
                met = "met" if row.ratio >= WANTED[name] else "missed"
                yield (
                    f"| {network} | {name} | {rates[0]:.2f} | {rates[1]:.2f} "
                    f"| {row.ratio:.2f} ({low:.2f} to {high:.2f}) | {WANTED[name]} {met} |"
                )


def recipe_of(args: argparse.Namespace, seed: int, project: Path) -> ClassificationRecipe:
    """Return the options of a fine-tuning."""
    options = our_options("mobilenet_v2")
    return ClassificationRecipe(
        data=str(args.data),
        model=NETWORKS["mobilenet_v2"],
        model_args=options,
        imgsz=args.imgsz,
        epochs=args.epochs,
        batch=args.batch,
        seed=seed,
        patience=0,
        val_every=args.epochs,
        workers=args.workers,
        device="cpu",
        project=str(project),
    )


def ours_learns(args: argparse.Namespace, seed: int) -> float:
    """Return the accuracy of our training."""
    with tempfile.TemporaryDirectory() as place:
        made = mw.train(recipe_of(args, seed, Path(place)))
        found = mw.val(made.last, args.data, workers=args.workers, device="cpu", save=False)
    return 100 * found["top1"]


def theirs_learns(args: argparse.Namespace, seed: int) -> float:
    """Return the accuracy of torchvision's."""
    recipe = recipe_of(args, seed, Path())
    files, names = labelled(args.data, "train")
    torch.manual_seed(seed)
    own = {**our_options("mobilenet_v2"), "imgsz": args.imgsz}
    start, _, _ = start_model(recipe.model, names, options=own)
    model = peer("mobilenet_v2", len(names), start.state_dict())
    pairs = dict(zip(start.state_dict(), model.state_dict(), strict=True))
    rates = {pairs[name]: rate for name, rate in learning_rates(start, recipe, fresh=False).items()}
    optimizer = build_optimizer(recipe, model, recipe.peak_lr(args.batch), rates)
    low_high = (0.35, 1.0)  # what our training takes for so few images
    photos = Photos(files, for_training(args.imgsz, low_high, norm_of(start)))
    batches = batches_of(seed, args.epochs, len(files), args.batch)
    model.train()
    loader = DataLoader(photos, batch_sampler=batches, num_workers=args.workers)
    for step, (images, labels) in enumerate(loader):
        set_lr(optimizer, lr_factor(recipe, step, len(batches)))
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        assert recipe.clip is not None
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    model.eval()
    scored, _ = labelled(args.data, "val")
    test = Photos(scored, for_test(args.imgsz, start.preprocess.short, norm_of(start)))
    right = 0
    with torch.inference_mode():
        for images, labels in DataLoader(test, args.batch, num_workers=args.workers):
            right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(scored)


def accuracy(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table of what is learned."""
    sides = {"maskwright": ours_learns, "torchvision": theirs_learns}
    by_seed = {side: partial(learn, args) for side, learn in sides.items()}
    yield from learned(by_seed, args.seeds, args.out, "top1", "top-1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", nargs="+", choices=WANTED, default=list(WANTED))
    parser.add_argument("--repeats", type=int, default=7, help="turns of each comparison")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=128, help="of an epoch that is timed")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if left out")
    parser.add_argument("--apart", action="store_true", help="each side in its own process")
    parser.add_argument("--accuracy", action="store_true", help="what is learned, not how fast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--out", type=Path, help="write the accuracies as JSON, or go on from them")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for line in accuracy(args) if args.accuracy else speed(args):
        print(line, flush=True)


if __name__ == "__main__":
    main()
