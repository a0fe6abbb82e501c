"""Short trainings on real data for paired comparisons, with checkpoints of their figures.

A side is a module with `losses(batch, generator)`, `detect(images)` and a backbone; every side
sees the same batches of a seed, image for image, and the same optimiser, schedule and evaluator.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import half_interval
from torch import Tensor, nn

from maskwright.data.batches import random_source
from maskwright.data.discover import open_dataset
from maskwright.data.loader import Batch, Loader, make_loader
from maskwright.data.transforms import Augment
from maskwright.hub.loading import start_model
from maskwright.metrics.detection.cut_masks import cut_masks
from maskwright.models import Meta, PostProcess
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.structures import Detections, Images, Resize
from maskwright.tasks.detection.evaluate import score, to_coco_rows
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.views import to_detections
from maskwright.terminal import console
from maskwright.terminal.heap import give_back
from maskwright.training.optim import build_optimizer, lr_factor, set_lr

# Makes the module of one side from a recipe and the names of the classes.
Maker = Callable[[DetectionRecipe, list[str]], Any]


class Ours(nn.Module):
    """maskwright's detector, trained and called through its two methods."""

    def __init__(self, recipe: DetectionRecipe, names: list[str]) -> None:
        super().__init__()
        options = {**recipe.model_args, "imgsz": recipe.imgsz}
        self.detector, used, _ = start_model(recipe.model, names, options=options)
        self.meta = Meta(recipe.model, used, list(names))
        self.backbone = self.detector.backbone
        self.post = PostProcess(0.001, 0.5, recipe.max_det)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return self.detector.losses(batch.images, batch.targets, generator=generator)

    def detect(self, images: Images) -> list[Detections]:
        return to_detections(self.detector(images, self.post), images, self.detector.mask_reach)


class Theirs(nn.Module):
    """What detectors of torchvision share here; subclasses set `model` and give `losses`.

    Images come at the size that the loader gave them, and results go back to that of the photo.

    Attributes:
        first: its label of our class 0.
    """

    model: Any
    first = 1

    def inputs(self, images: Images) -> list[Tensor]:
        """Return the images one by one, without padding, samples from 0 to 1."""
        return [
            pixels[:, :height, :width] / 255
            for pixels, (height, width) in zip(images.pixels, images.sizes.tolist(), strict=True)
        ]

    def leave_sizes(self) -> None:
        """Let the model neither resize images nor paste what it finds in them."""
        self.model.transform.resize = lambda image, target=None: (image, target)
        self.model.transform.postprocess = lambda result, *_: result

    def detect(self, images: Images) -> list[Detections]:
        """Return what it finds, masks as they leave the head."""
        found = []
        for i, result in enumerate(self.model(self.inputs(images))):
            height, width = images.original_sizes[i].tolist()
            scale = images.original_sizes[i].cpu() / images.sizes[i].cpu()
            boxes = result["boxes"].cpu() * scale.flip(0).repeat(2)
            masks = result["masks"][:, 0].cpu() if "masks" in result else None
            labels = result["labels"].cpu() - self.first
            found.append(Detections((height, width), boxes, result["scores"].cpu(), labels, masks))
        return found


def one_class(data: Path, folder: Path) -> Path:
    """Write the splits train and val of COCO data with all classes as one; return the YAML file.

    For data with too few images to learn their classes: the masks can be compared all the same.

    Args:
        data: folder with annotations/instances_{split}.json and images/{split}.
        folder: what is written goes there; the images stay where they are.
    """
    for split in ("train", "val"):
        content = json.loads((data / "annotations" / f"instances_{split}.json").read_text())
        content["categories"] = [{"id": 1, "name": "object"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        (folder / f"{split}.json").write_text(json.dumps(content))
    images = {split: str((data / "images" / split).resolve()) for split in ("train", "val")}
    file = folder / "data.yaml"
    file.write_text(json.dumps({"train": "train.json", "val": "val.json", "images": images}))
    return file


def of_steps(recipe: DetectionRecipe, steps: int | None = None) -> DetectionRecipe:
    """Return a recipe with other steps, a twelfth of them to warm up; None: as many as it has."""
    steps = steps or recipe.steps
    assert steps is not None
    return replace(recipe, steps=steps, warmup=max(steps // 12, 1))


def size_rule(side: Any, recipe: DetectionRecipe) -> Resize:
    """Return how images reach a side: all in one shape if it says so, by its `stretch`."""
    shape = getattr(side, "stretch", None)
    return Resize(None, None, stretch=shape) if shape else Resize.parse(recipe.imgsz)


def endless(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield from loader


class Trainer:
    """One side in training: model, optimiser, endless batches."""

    def __init__(
        self, make: Maker, seed: int, recipe: DetectionRecipe, device: torch.device, workers: int
    ) -> None:
        train = open_dataset(recipe.data, "train")
        give_back()  # what the run before has kept would stay a second time in the loader's workers
        torch.manual_seed(seed)
        self.device, self.recipe, self.done = device, recipe, 0
        self.side = make(recipe, train.names).to(device)
        self.side = self.side.to(memory_format=torch.channels_last)
        self.loader = make_loader(
            train,
            batch=recipe.batch,
            resize=size_rule(self.side, recipe),
            augment=Augment(flip=recipe.flip, crop=recipe.crop),
            seed=seed,
            workers=workers,
            shuffle=True,
            drop_last=True,
        )
        self.batches = endless(self.loader)
        own = {id(one) for one in self.side.backbone.parameters()}
        named = self.side.named_parameters()
        rates = {name: recipe.backbone_lr for name, one in named if id(one) in own}
        self.optimizer = build_optimizer(recipe, self.side, recipe.peak_lr(recipe.batch), rates)
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.generator = torch.Generator(device)
        self.side.train()

    def step(self) -> tuple[float, float]:
        """Make one step; return its loss and its seconds, loading not counted."""
        batch = next(self.batches)
        start = time.perf_counter()
        assert self.recipe.steps is not None
        set_lr(self.optimizer, lr_factor(self.recipe, self.done, self.recipe.steps))
        generator = self.generator.manual_seed(self.done)
        half = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            losses = self.side.losses(batch.to(self.device), generator)
        loss = sum(value.float() for value in losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip or math.inf)
        self.optimizer.step()
        self.done += 1
        value = float(loss.detach())
        return value, time.perf_counter() - start


def run(
    name: str,
    make: Maker,
    seed: int,
    recipe: DetectionRecipe,
    device: torch.device,
    workers: int,
    save: Path | None = None,
) -> dict:
    """Train one side with one seed and evaluate it; our weights go to the folder `save`."""
    trainer = Trainer(make, seed, recipe, device, workers)
    times: list[float] = []
    begin = time.perf_counter()
    assert recipe.steps is not None
    for step in range(1, recipe.steps + 1):
        loss, seconds = trainer.step()
        times.append(seconds)
        if step % 40 == 0:
            print(f"{name} seed {seed} step {step} loss {loss:.3f}", flush=True)
    total = time.perf_counter() - begin
    if save is not None and isinstance(trainer.side, Ours):
        save.mkdir(parents=True, exist_ok=True)
        file = save / f"{name.replace(' ', '_')}_{seed}.safetensors"
        save_checkpoint(file, trainer.side.meta, trainer.side.detector.state_dict())
    val = open_dataset(recipe.data, "val")
    metrics = evaluate(trainer.side.eval(), val, device, workers, recipe)
    row = {"side": name, "seed": seed, "steps": recipe.steps, "seconds": total}
    return {**row, "step": statistics.median(times), **metrics}


@torch.inference_mode()
def evaluate(
    side: Any, val: Any, device: torch.device, workers: int, recipe: DetectionRecipe
) -> dict:
    """Return box AP and, of masks and both ways of pasting them, mask AP, in percent."""
    give_back()
    loader = make_loader(
        val,
        batch=1,
        resize=size_rule(side, recipe),
        augment=None,
        seed=0,
        workers=workers,
        shuffle=False,
    )
    rows: dict[str, list[dict]] = {"grid": [], "torchvision": []}
    labels = {i: i for i in range(len(val.names))}
    for batch in loader:
        for index, found in zip(batch.indices, side.detect(batch.to(device).images), strict=True):
            for mode, kept in rows.items():
                kept += to_coco_rows(found, val[index].image_id, labels, mode)
    result = {}
    if not any("segmentation" in row for row in rows["grid"]):
        metrics = score(val.to_coco(by_label=True), rows["grid"], max_det=recipe.max_det)
        return {"box AP": 100 * metrics["box/AP"]}
    for mode, kept in rows.items():
        own = mode == "grid"
        metrics = score(
            val.to_coco(by_label=True), kept, masks=True, max_det=recipe.max_det, boundary=own
        )
        result[f"mask AP, {mode} paste"] = 100 * metrics["mask/AP"]
        result["box AP"] = 100 * metrics["box/AP"]
        if own:
            result["mask AP75, grid paste"] = 100 * metrics["mask/AP75"]
            result["boundary AP, grid paste"] = 100 * metrics["boundary/AP"]
            cut = cut_masks(val.to_coco(by_label=True), kept, max_det=recipe.max_det)
            result["cut masks, grid paste"] = 100 * cut.share
    return result


def run_all(
    sides: Mapping[str, tuple[Maker, DetectionRecipe]],
    seeds: int,
    device: torch.device,
    workers: int,
    out: Path | None,
    save: Path | None = None,
) -> list[dict]:
    """Train all sides with all seeds, except those whose rows already stand in `out`.

    Seeds are the outer loop, so that a drift of the machine hits all sides.
    """
    rows: list[dict] = json.loads(out.read_text()) if out and out.is_file() else []
    for seed in range(seeds):
        for name, (make, recipe) in sides.items():
            if any((row["side"], row["seed"]) == (name, seed) for row in rows):
                continue
            rows.append(run(name, make, seed, recipe, device, workers, save))
            print(json.dumps(rows[-1]), flush=True)
            if out:
                out.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def batches_of(seed: int, epochs: int, images: int, batch: int) -> list[list[int]]:
    """Return the images of each step of a training of ours, for a loader of another library."""
    found: list[list[int]] = []
    for epoch in range(epochs):
        order = random_source(seed, epoch, -1).permutation(images).tolist()
        found += [order[i : i + batch] for i in range(0, images, batch)]
    return found


def learned(
    sides: Mapping[str, Callable[[int], float]], seeds: int, out: Path | None, key: str, title: str
) -> Iterator[str]:
    """Train both sides, seed by seed, and yield the lines of the table of what they learn.

    Args:
        sides: percent by seed, of ours and then of theirs.
        seeds: how many.
        out: file of the rows; runs whose rows it has are not repeated. None: rows are kept nowhere.
        key: what the figure is called in the rows.
        title: and in the table.
    """
    rows = json.loads(out.read_text()) if out and out.is_file() else []
    for seed in range(seeds):
        for side, learn in sides.items():
            if any((row["side"], row["seed"]) == (side, seed) for row in rows):
                continue
            rows.append({"side": side, "seed": seed, key: learn(seed)})
            console.note(json.dumps(rows[-1]))
            if out:
                out.write_text(json.dumps(rows, indent=1) + "\n")
    yield f"| side | seed | {title} |"
    yield "| --- | --- | --- |"
    for row in rows:
        if row["side"] in sides:
            yield f"| {row['side']} | {row['seed']} | {row[key]:.1f} |"
    ours, theirs = sides
    yield from paired(rows, ours, theirs, {key: title})


def paired(rows: list[dict], side: str, other: str, keys: Mapping[str, str]) -> list[str]:
    """Return the table of the differences side - other over their common seeds, if two or more.

    Args:
        rows: what `run_all` returned.
        keys: of the figures, with their titles.
    """
    by = {(row["side"], row["seed"]): row for row in rows}
    lines = []
    for key, title in keys.items():
        gains = [
            by[side, seed][key] - by[other, seed][key]
            for name, seed in by
            if name == side and (other, seed) in by and key in by[other, seed]
        ]
        if len(gains) < 2:
            continue
        mean = statistics.mean(gains)
        half = half_interval(gains, 0.9)
        single = ", ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(
            f"| {title} | {mean:+.2f} | {mean - half:+.2f} to {mean + half:+.2f} | {single} |"
        )
    if not lines:
        return []
    head = [f"| {side} - {other} | mean | 90% interval | by seed |", "| --- | --- | --- | --- |"]
    return ["", *head, *lines]
