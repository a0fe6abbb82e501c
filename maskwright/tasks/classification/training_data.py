"""How the images of a training are changed at random, and what the data decides of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.batches import Chance
from ...data.records import Dataset
from ...models.classification.base import Classifier
from ...structures import Images, Labels
from .loading import labels_of
from .recipe import ClassificationRecipe
from .settings import Cut
from .views import collate

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
    return (0.08, 1.0) if len(data) >= MANY else (0.35, 1.0)


@dataclass(frozen=True)
class _Plain:
    """Stand-in."""

    dataset: Dataset
    cut: Cut
    flip: float

    def make(self, indices: list[int], others: list[int], chance: Chance) -> tuple[Images, Labels]:
        photos = []
        for index in indices:
            photo = self.dataset.image(index)
            if chance.of(index).random() < self.flip:
                photo = np.ascontiguousarray(photo[:, ::-1])
            photos.append(photo)
        return collate(photos, self.cut), labels_of(self.dataset, indices)


def training_batches(recipe: ClassificationRecipe, data: Dataset, model: Classifier) -> Any:
    """Return what makes the batches of a training."""
    return _Plain(data, Cut(model.preprocess), flip_share(recipe, data)[0])


def choices(recipe: ClassificationRecipe, data: Dataset, model: Any) -> list[tuple[str, str]]:
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
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
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
