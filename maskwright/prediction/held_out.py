"""The images that a training held out for its validation, found again by `val`.

A data set without a split val is divided by chance; the checkpoint keeps how, so that a later
validation looks at those images, and not at some that were learned from.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.discover import find_splits, open_dataset
from ..data.formats.folders import split_name
from ..data.records import Dataset
from ..data.rewriting.holdout import hold_out
from ..models.meta import Meta
from ..tasks.recipe import TrainRecipe

KEY = "held_out"  # in `Meta.extra`


def keep_division(
    meta: Meta, recipe: TrainRecipe, val: Dataset | None, finding: Mapping[str, Any]
) -> Meta:
    """Return the description of a model with how its validation images were divided from the rest.

    Unchanged if none were, or if a run goes on whose description has it already.

    Args:
        meta: the description.
        recipe: of the training.
        val: the validation images.
        finding: options of `find_splits`.
    """
    if val is None or KEY in meta.extra:
        return meta
    if "val" in find_splits(recipe.data, **finding):
        return meta
    division = {
        "fraction": recipe.val_fraction,
        "seed": recipe.seed,
        "holdout": recipe.holdout,
        "difficult": recipe.learns_more,
        "images": _fingerprint(val),
    }
    return replace(meta, extra={**meta.extra, KEY: division})


def open_scored(
    data: str | Path | Mapping[str, Any],
    split: str,
    meta: Meta,
    finding: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Dataset, str]:
    """Return the images of a split; of a data set without "val", those that the training held out.

    Args:
        data: see `open_dataset`.
        split: name of the split.
        meta: of the model.
        finding: options of `find_splits` and `open_dataset`.
        options: further ones of `open_dataset`.

    Returns:
        The images, and a line that says which they are where no split has them; else "".

    Raises:
        ValueError: see `open_dataset`; or if other images would be held out than in training.
    """
    division = meta.extra.get(KEY)
    splits = find_splits(data, **finding)
    options = {**finding, **options}
    if split_name(split) != "val" or "val" in splits or "train" not in splits or not division:
        return open_dataset(data, split, **options), ""
    try:
        fraction, seed = float(division["fraction"]), int(division["seed"])
        known, how = division["images"], str(division["holdout"])
        difficult = bool(division["difficult"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the checkpoint's field {KEY!r} is damaged: name split=train") from None
    whole = open_dataset(data, "train", **options)
    drawn = open_dataset(data, "train", difficult=True, **options) if difficult else whole
    enough = len(drawn) > 1
    held = whole.select(hold_out(drawn, fraction, seed, holdout=how)[1] if enough else [], "val")
    if _fingerprint(held) != known:
        raise ValueError(
            f"data={str(data)!r} has no 'val' split, and is not what {meta.model} was trained on "
            "(another data set, or changed since), so that the images held out then cannot be "
            "told: name split=train to score on all images, or add the annotations of a split val"
        )
    return held, f"no 'val' split: scored on the {len(held)} images that the training held out"


def _fingerprint(data: Dataset) -> int:
    """Return a number that tells the names of the images, wherever their folder is."""
    names = sorted(os.path.relpath(file, data.root) for file in data.files())
    return zlib.crc32("\n".join(names).replace(os.sep, "/").encode(errors="surrogateescape"))
