"""How the images of a training are changed at random, and what the data decides of it."""

from __future__ import annotations

import numpy as np
import torch

from ...data.batches import Loader, load_batches
from ...data.label_batches import LabelBatches, balanced_draws
from ...data.label_samples import LabelAugment
from ...data.records import Dataset
from ...data.sampling import class_weights
from ...errors import OptionError, first_few
from ...models.classification.base import Classifier
from ...nn.norm import starved_norm
from ...structures import Images, Labels
from .recipe import ClassificationRecipe

SMALL = 64  # pixels: images of digits and the like show one thing, which fills them
MANY = 10_000  # training images from which on small parts of an image teach enough
SIDED = ("left", "right")
LOPSIDED = 10  # times as many images in the largest class as in the smallest: worth a warning


def flip_share(recipe: ClassificationRecipe, data: Dataset) -> tuple[float, str]:
    """Return the share of images that are mirrored, and why where the data decides it."""
    if recipe.flip is not None:
        return recipe.flip, ""
    names = [name.casefold() for name in data.names]
    if all(len(name) == 1 or name.isdecimal() for name in names):
        return 0.0, "the classes are digits or letters"
    words = {word for name in names for word in name.replace("-", "_").replace(" ", "_").split("_")}
    if words >= set(SIDED):
        return 0.0, "the classes tell left from right"
    return 0.5, ""


def crop_scale(recipe: ClassificationRecipe, data: Dataset) -> tuple[float, float]:
    """Return the smallest and the largest share of an image's area that is seen."""
    if recipe.crop_scale is not None:
        return recipe.crop_scale
    if data[0].stored and max(data[0].size) <= SMALL:
        return 0.6, 1.0
    return (0.08, 1.0) if len(data) >= MANY else (0.35, 1.0)


def training_loader(
    recipe: ClassificationRecipe, data: Dataset, model: Classifier, *, rank: int, world: int
) -> Loader:
    """Return the loader of a training.

    Raises:
        OptionError: if batch norm cannot learn from one of its batches.
    """
    _check_alone(model, recipe.batch, len(data), world)
    weights = class_weights(data.images_per_class(), recipe.balance)
    by_loss = recipe.balance != "none" and recipe.balance_by == "loss"
    by_draw = recipe.balance != "none" and recipe.balance_by == "sampler"
    batches = LabelBatches(
        data,
        model.preprocess,
        LabelAugment(
            scale=crop_scale(recipe, data),
            flip=flip_share(recipe, data)[0],
            vflip=recipe.vflip,
            rotate90=recipe.rotate90,
            policy=recipe.augment,
            photometric=recipe.photometric,
            erase=recipe.erasing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            smoothing=recipe.label_smoothing,
        ),
        multilabel=model.multilabel,
        weights=weights if by_loss else None,
    )
    return load_batches(
        batches,
        batch=recipe.batch,
        seed=recipe.seed,
        workers=recipe.workers,
        shuffle=True,
        rank=rank,
        world=world,
        draws=balanced_draws(data, weights) if by_draw else None,
    )


def _check_alone(model: Classifier, batch: int, count: int, world: int) -> None:
    """Make sure that batch norm can learn from an image that is alone in its batch, if one is."""
    block = batch * world  # batch norm looks at the images of all processes
    if block > 1 and count % block != 1:
        return
    side, device = model.crop, model.mean.device
    size = torch.tensor([[side, side]], device=device)
    images = Images(torch.zeros(1, model.channels, side, side, device=device), size, size)
    labels = Labels(torch.zeros(1, model.num_classes, device=device), None)
    with torch.random.fork_rng(devices=[]):
        starved = starved_norm(model, lambda: model.losses(images, labels))
    if starved:
        better = next(more for more in range(batch + 1, batch + 4) if count % (more * world) != 1)
        where = "each batch has" if block == 1 else f"the last batch of {count} images has"
        raise OptionError(
            f"batch={batch}: {where} one image, and batch norm cannot learn from it, because maps "
            f"of {side} pixels a side shrink to a single one: batch={better}, or a larger imgsz"
        )


def choices(recipe: ClassificationRecipe, data: Dataset) -> list[tuple[str, str]]:
    """Return what was chosen by itself, for the table that opens a training."""
    flip, why = flip_share(recipe, data)
    low, high = crop_scale(recipe, data)
    text = f"crops of {low:g} to {high:g} of the area, {flip:g} mirrored"
    return [("augmentation", f"{text} ({why})" if why else text)]


def warn_of(train: Dataset, val: Dataset | None) -> list[str]:
    """Return what a user should know of the classes before a training."""
    found = []
    counts = train.images_per_class()
    empty = [name for name, count in zip(train.names, counts.tolist(), strict=True) if not count]
    if empty:
        shown = first_few(empty, 5)
        found.append(f"no training image of {len(empty)} of {len(train.names)} classes: {shown}")
    some = counts[counts > 0]
    if len(some) > 1 and some.max() > LOPSIDED * some.min():
        large, small = (
            int(counts.argmax()),
            int(np.where(counts > 0, counts, counts.max()).argmin()),
        )
        found.append(
            f"{train.names[large]} has {counts[large]} images and {train.names[small]} "
            f"{counts[small]}: balance=effective lets rare classes count more"
        )
    return found
