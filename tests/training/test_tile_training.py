"""Trainings on crops of large images at full resolution, read by window."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_runs import make_split, tiny_options

from maskwright.data import Augment, open_dataset
from maskwright.data.augment.patches import draw_tile
from maskwright.data.batches import random_source
from maskwright.data.transforms import draw_view, make_sample
from maskwright.errors import OptionError
from maskwright.prediction.load import load
from maskwright.prediction.val import val
from maskwright.structures import Resize
from maskwright.tasks import get_task
from maskwright.training.train import train


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two splits of large TIFFs with some discs each, made of small drawn images."""
    root = tmp_path / "slides"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        make_split(tmp_path / "coins", split, 9, seed=len(split))
        file = tmp_path / "coins" / "annotations" / f"{split}.json"
        content = json.loads(file.read_text())
        whole = rng.integers(20, 40, (600, 700, 3), dtype=np.uint8)
        for k, image in enumerate(content["images"]):
            y, x = 200 * (k // 3), 233 * (k % 3)
            path = tmp_path / "coins" / "images" / split / image["file_name"]
            whole[y : y + 72, x : x + 96] = np.asarray(Image.open(path))
            for one in content["annotations"]:
                if one["image_id"] == image["id"]:
                    one["bbox"][0] += x
                    one["bbox"][1] += y
                    (part,) = one["segmentation"]
                    one["segmentation"] = [[v + (y if i % 2 else x) for i, v in enumerate(part)]]
        for one in content["annotations"]:
            one["image_id"] = 1
        content["images"] = [{"id": 1, "file_name": "s.tif", "height": 600, "width": 700}]
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
        tifffile.imwrite(root / "images" / split / "s.tif", whole, tile=(64, 64), photometric="rgb")
    return root


def test_a_crop_is_what_is_there_with_all_its_objects(slides: Path) -> None:
    data = open_dataset(slides, "train")
    whole, record = data.image(0), data[0]
    augment = Augment(flip=0, tile=160)
    seen = set()
    for number in range(40):
        sample = make_sample(data, 0, Resize(None, None, 1.0), augment, random_source(0, number, 0))
        view = draw_view(record, Resize(None, None, 1.0), augment, random_source(0, number, 0))
        assert view.tile == view.window
        x1, y1, x2, y2 = view.tile
        assert (x2 - x1, y2 - y1) == (160, 160) and min(x1, y1) >= 0 and x2 <= 700 and y2 <= 600
        pixels = sample.pixels.numpy().transpose(1, 2, 0)
        assert np.array_equal(pixels, whole[y1:y2, x1:x2])
        inside = record.boxes.clip([x1, y1, x1, y1], [x2, y2, x2, y2]) - [x1, y1, x1, y1]
        inside = inside[((inside[:, 2:] - inside[:, :2]) >= 1).all(1)]
        assert np.array_equal(sample.boxes, inside.astype(np.float32))
        seen.add(view.tile)
    assert len(seen) > 30


def test_a_scaled_crop_is_the_tile_as_a_prediction_sees_it(slides: Path) -> None:
    data, rule = open_dataset(slides, "train"), Resize(96, 200)
    augment = Augment(flip=0, tile=160)
    sample = make_sample(data, 0, rule, augment, random_source(0, 0, 0))
    view = draw_view(data[0], rule, augment, random_source(0, 0, 0))
    assert view.tile is not None
    x1, y1, x2, y2 = view.tile
    part = Image.fromarray(data.image(0)[y1:y2, x1:x2])
    plain = np.asarray(part.resize((96, 96), Image.Resampling.BILINEAR))
    assert np.array_equal(sample.pixels.numpy().transpose(1, 2, 0), plain)
    scaled = (data[0].boxes - [x1, y1, x1, y1]) * 0.6
    inside = ((scaled[:, :2] > 0) & (scaled[:, 2:] < 96)).all(1)
    for box in scaled[inside]:
        assert np.abs(sample.boxes - box).max(1).min() < 0.51


def test_windows_of_a_crop_stay_within_it(slides: Path) -> None:
    data = open_dataset(slides, "train")
    augment = Augment(tile=160, crop=64, scale_jitter=(0.5, 2.0), vflip=0.5, rotate90=0.5)
    for number in range(20):
        sample = make_sample(data, 0, Resize(None, 160), augment, random_source(0, number, 0))
        assert max(sample.pixels.shape[1:]) <= 80
        assert sample.pixels.numpy().max() > 0


def test_crops_show_objects_and_background() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[5000.0, 7000, 5020, 7030]])
    tiles = [draw_tile((9000, 10_000), boxes, 500, rng) for _ in range(400)]
    shows = [x1 < 5010 < x2 and y1 < 7015 < y2 for x1, y1, x2, y2 in tiles]
    # Half and what chance brings; four standard deviations around it.
    assert abs(sum(shows) - 200) < 4 * math.sqrt(400 / 4)
    places = np.array(
        [(5010 - x1, 7015 - y1) for (x1, y1, *_), shown in zip(tiles, shows, strict=True) if shown]
    )
    assert places.min() < 60 and places.max() > 440  # anywhere in the tile
    assert draw_tile((300, 400), boxes[:0], 500, rng) == (0, 0, 400, 300)


@pytest.mark.parametrize(
    ("task", "model"), [("segment", "mask_rcnn_resnet50_fpn"), ("semantic", "unet")]
)
def test_what_follows_a_training_in_crops_looks_at_tiles(
    slides: Path, task: str, model: str
) -> None:
    data, kind = open_dataset(slides, "val"), get_task(task)
    for tile, words in ((128, ["tile=128"]), (None, [])):
        recipe = kind.recipe(data=str(slides), model=model, tile=tile)
        lines = kind.commands("model=run", data, recipe, None)
        assert len(lines) >= 2
        for line in lines[:2]:  # a prediction and a validation
            assert [word for word in shlex.split(line) if "tile" in word.split("=")[0]] == words
        assert kind.repeated(recipe) == ({} if tile is None else {"tile": tile})  # of the report


@pytest.mark.slow
def test_a_training_in_crops_is_scored_in_tiles(slides: Path, tmp_path: Path) -> None:
    options = {**tiny_options(slides, tmp_path / "runs"), "tile": 128, "epochs": 1, "flip": 0.0}
    result = train(**options)
    assert math.isfinite(result.metrics["mask/AP"])
    assert "tile: 128" in (result.dir / "args.yaml").read_text()
    # As the last lines of the training have it, the figures are the same.
    again = val(result.dir, slides, tile=128)
    assert load(result.dir).meta.extra["tile"] == 128
    assert again["mask/AP"] == pytest.approx(result.metrics["mask/AP"], abs=1e-6)


def test_small_tiles_are_told_before_a_training(slides: Path, tmp_path: Path) -> None:
    options = {**tiny_options(slides, tmp_path / "runs"), "tile": 32}
    with pytest.raises(OptionError, match="tile=32: a tile has 32 pixels of the image"):
        train(**options)
