"""Windows that images do not fill: what a training says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.data import open_dataset
from maskwright.models import build
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
