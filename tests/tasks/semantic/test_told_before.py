"""What a training says of its data before it begins: what cannot be learned, windows that images
do not fill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data import find_splits, open_dataset
from maskwright.models import Meta, build, build_tiny
from maskwright.models.registry import get_entry
from maskwright.tasks.semantic.recipe import SemanticRecipe
from maskwright.tasks.semantic.task import SemanticTask


def told(root: Path, **options: object) -> list[str]:
    """Return the warnings on 12 images of 60 x 80 pixels at half their size."""
    for folder, value in (("images", 90), ("labels", 1)):
        (root / folder / "train").mkdir(parents=True, exist_ok=True)
        for number in range(12):
            pixels = np.full((60, 80), value, np.uint8)
            pixels[:20] = 0
            Image.fromarray(pixels).save(root / folder / "train" / f"{number}.png")
    data = open_dataset(root, "train", records="maps")
    name = "deeplabv3plus_resnet18"
    model = build(name, 2, **{**get_entry(name).tiny, "imgsz": 40})
    recipe = SemanticRecipe(data=str(root), model=name, imgsz=40, **options)  # type: ignore[arg-type]
    return SemanticTask().warnings(model, recipe, data, None)


def test_windows_much_larger_than_the_images_are_told(tmp_path: Path) -> None:
    (text,) = told(tmp_path, crop=80, scale_jitter=(1.0, 1.0))
    # 30 x 40 pixels in 80 x 80 leave 81.25 % of it.
    assert text.startswith("81% of what is trained is padding: images of 30 x 40 pixels (imgsz=40)")
    assert "crop=80" in text and "imgsz larger" in text


def test_windows_that_images_fill_are_not(tmp_path: Path) -> None:
    assert not told(tmp_path, crop=(30, 40))
    assert not told(tmp_path, crop=None)


def maps(root: Path, **splits: list[int]) -> None:
    """Write an image a number, each with a label map of the class of that number."""
    (root / "classes.txt").write_text("sky\nroad\nsea\n")
    for split, values in splits.items():
        for number, value in enumerate(values):
            for folder, pixels in (("images", 90), ("masks", value)):
                file = root / folder / split / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), pixels, np.uint8)).save(file)


def test_classes_that_validation_alone_has_are_told(tmp_path: Path) -> None:
    maps(tmp_path, train=[0, 1, 255], val=[0, 2])
    train, val = (open_dataset(tmp_path, split, records="maps") for split in ("train", "val"))
    recipe = SemanticRecipe("unet", str(tmp_path), crop=None)
    model = build_tiny("unet", num_classes=3)
    assert SemanticTask().warnings(model, recipe, train, val) == ["in val but never in train: sea"]
    assert not SemanticTask().warnings(model, recipe, val, train.select([0], "val"))
    with pytest.raises(ValueError, match=r"label maps.* a model of semantic segmentation reads it"):
        find_splits(tmp_path, records="labels")


def test_maps_without_a_class_are_refused(tmp_path: Path) -> None:
    maps(tmp_path, train=[255, 255])
    data = open_dataset(tmp_path, "train", records="maps")
    recipe, meta = SemanticRecipe("unet", str(tmp_path)), Meta("unet", {}, list(data.names))
    with pytest.raises(ValueError, match="no pixel of its 2 label maps has a class"):
        SemanticTask().check(build_tiny("unet", num_classes=3), recipe, data, meta)


def test_classes_are_ignored_by_name_or_number() -> None:
    assert SemanticRecipe("unet", "data", ignore=(7, "void")).ignore == (7, "void")
    for wrong in ((-1,), (0.5,), (True,)):
        with pytest.raises(ValueError, match="numbers or names of classes"):
            SemanticRecipe("unet", "data", ignore=wrong)  # type: ignore[arg-type]
