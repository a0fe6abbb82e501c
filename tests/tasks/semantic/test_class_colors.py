"""The colours that a data set gives its classes come to pictures, label maps and checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data import Dataset, open_dataset
from maskwright.models import Meta, build_tiny
from maskwright.prediction.predictor import Predictor
from maskwright.tasks.semantic.evaluate import class_colors
from maskwright.tasks.semantic.pictures import save_annotations, save_batch
from maskwright.tasks.semantic.recipe import SemanticRecipe
from maskwright.tasks.semantic.task import TASK

COLORS = [(128, 64, 128), (244, 35, 232), (70, 70, 71)]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Label maps in colours, beside their table."""
    labels = np.repeat(np.arange(3), 20)[None].repeat(40, 0)
    for kind, pixels in (("images", np.full((40, 60, 3), 9)), ("masks", np.array(COLORS)[labels])):
        (tmp_path / kind / "train").mkdir(parents=True)
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(tmp_path / kind / "train" / "a.png")
    lines = [
        f"{r},{g},{b},{name}"
        for (r, g, b), name in zip(COLORS, ("road", "walk", "house"), strict=True)
    ]
    (tmp_path / "masks" / "class_dict.csv").write_text("\n".join(["r,g,b,name", *lines]) + "\n")
    return open_dataset(tmp_path, "train", records="maps")


def shown(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {
            tuple(color) for color in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
        }


def test_from_the_table_to_a_prediction(data: Dataset) -> None:
    extra = TASK.describe(SemanticRecipe("unet", "data"), data)["extra"]
    assert [tuple(color) for color in extra["colors"]] == data.colors == COLORS
    meta = Meta.from_dict(Meta("unet", {}, list(data.names), extra=extra).to_dict())
    predictor = Predictor(build_tiny("unet", num_classes=3), meta, device="cpu")
    result = predictor(data.image(0))
    assert result.palette.tolist() == [list(color) for color in COLORS]
    made = np.asarray(result.label_image().convert("RGB"))
    np.testing.assert_array_equal(made, np.array(COLORS, np.uint8)[result.labels])


@pytest.mark.figures
def test_pictures_of_a_training_have_them(data: Dataset, tmp_path: Path) -> None:
    save_annotations(tmp_path / "labels.png", data)
    recipe = SemanticRecipe("unet", "data", batch=1, workers=0, crop=None)
    (batch,) = TASK.training_loader(recipe, data, build_tiny("unet", num_classes=3))
    save_batch(tmp_path / "batch.png", batch, data)
    for name in ("labels.png", "batch.png"):
        assert set(COLORS) <= shown(tmp_path / name), name  # bars or legend: not over the photo


def test_some_classes_may_have_none_and_others_no_colours() -> None:
    some = Meta("unet", {}, ["a", "b"], extra={"colors": [None, [1, 2, 3]]})
    assert class_colors(some) == [None, (1, 2, 3)]
    assert class_colors(Meta("unet", {}, ["a"])) == []
    for wrong in ([1, 2, 300], [1, 2], "red"):
        with pytest.raises(ValueError, match="colour"):
            class_colors(Meta("unet", {}, ["a"], extra={"colors": [wrong]}))
