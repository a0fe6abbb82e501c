"""Classes of the pixels of large images, blended of tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image
from tiny_models import fresh

from maskwright.data import open_dataset
from maskwright.data.batches import random_source
from maskwright.data.maps.batches import MapBatches
from maskwright.data.maps.samples import MapAugment, make_map_sample
from maskwright.errors import OptionError
from maskwright.models.meta import Meta
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.val import val
from maskwright.structures import Resize, Tiling
from maskwright.structures.tiling import ramps, starts
from maskwright.tasks.semantic.settings import SemanticSettings
from maskwright.tasks.semantic.tiling import MapAssembler
from maskwright.tasks.semantic.views import SemanticFound


@pytest.fixture
def segmenter() -> Predictor:
    return Predictor(fresh("unet", 3), Meta("unet", {}, list(tiny.NAMES)))


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.2), (70, 0.5), (66, 0.9), (200, 0.3)])
def test_tiles_that_agree_give_what_they_agree_on(tile: int, overlap: float) -> None:
    rng = np.random.default_rng(0)
    size, tiling = (150, 190), Tiling(tile, overlap)
    probs = rng.dirichlet(np.ones(4), size).transpose(2, 0, 1).astype(np.float32)
    settings = SemanticSettings(tiling=tiling, probs=True)
    assembler = MapAssembler(settings, size)
    for part in tiling.tiles(size)[0]:
        place = slice(part.top, part.bottom), slice(part.left, part.right)
        found = SemanticFound(probs[:, *place].argmax(0).astype(np.uint8), probs[:, *place])
        assembler.add(part, found, np.zeros((*part.size, 3), np.uint8))
    made = assembler.finish()
    assert made.probs is not None and np.abs(made.probs - probs).max() < 1e-6
    assert np.array_equal(made.labels, probs.argmax(0))


def test_a_tile_counts_the_less_the_nearer_its_edge() -> None:
    for length, window, overlap in ((100, 32, 0.25), (97, 40, 0.5), (50, 50, 0.2), (64, 32, 0.9)):
        begins = starts(length, window, overlap)
        whole = np.zeros(length)
        for begin, weights in zip(begins, ramps(length, begins, window), strict=True):
            whole[begin : begin + window] += weights
        assert np.allclose(whole, 1)
    first, second = ramps(56, [0, 24], 32)
    assert first[:24] == [1.0] * 24 and np.all(np.diff(first[24:]) < 0)
    assert np.allclose(np.array(first[24:]) + np.array(second[:8]), 1)


def test_an_image_no_larger_than_a_tile_is_seen_as_ever(segmenter: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    plain, tiled = segmenter(image, probs=True), segmenter(image, probs=True, tile=96)
    assert np.array_equal(plain.labels, tiled.labels)
    assert np.array_equal(plain.probs, tiled.probs)


def test_a_larger_image_is_blended(segmenter: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    tiled = segmenter(image, tile=96, overlap=0.3, probs=True, imgsz="1x")
    assert tiled.labels.shape == (150, 200)
    assert np.abs(tiled.probs.sum(0) - 1).max() < 1e-5
    assert np.array_equal(tiled.labels, tiled.probs.argmax(0))
    # Where one tile alone looks, it is what that tile says.
    corner = segmenter(image[:96, :96], probs=True, imgsz="1x")
    assert np.allclose(tiled.probs[:, :50, :60], corner.probs[:, :50, :60], atol=1e-6)


def test_a_part_of_a_map_is_not_kept_and_that_is_said(
    segmenter: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        Image.new("RGB", (150, 120) if name == "b" else (40, 40)).save(tmp_path / f"{name}.png")
    find, looked = Predictor.find, []

    def stopping(*args: Any, **options: Any) -> Any:
        looked.append(args)
        if len(looked) == 4:  # the first image is one
            raise KeyboardInterrupt
        return find(*args, **options)

    monkeypatch.setattr(Predictor, "find", stopping)
    results = predict(segmenter, tmp_path, tile=64, save=tmp_path / "out")
    next(results)
    with (
        pytest.warns(UserWarning, match=r"b\.png: stopped after 2 of \d+ tiles, .*nothing is kept"),
        pytest.raises(KeyboardInterrupt),
    ):
        next(results)
    written = {file.name for file in (tmp_path / "out").iterdir() if file.is_file()}
    assert written == {"a.png", "a.json"}


def test_a_validation_counts_every_pixel_once(segmenter: Predictor, tmp_path: Path) -> None:
    data = tiny.write(tmp_path / "data")
    whole = val(segmenter, data, tile=120, workers=0)
    assert whole == pytest.approx(val(segmenter, data, workers=0), nan_ok=True)
    tiled = val(segmenter, data, tile=64)
    assert 0 <= tiled["pixel_accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 64, "tile_levels": 2}, "tile_levels is for models that find objects"),
        ({"tile": 64, "crf": True}, "crf=True is for images that are seen as a whole"),
    ],
)
def test_what_does_not_go_with_tiles_is_told(
    segmenter: Predictor, options: dict[str, object], text: str
) -> None:
    with pytest.raises(OptionError, match=text):
        segmenter(np.zeros((200, 200, 3), np.uint8), **options)


def test_training_sees_parts_of_large_images_with_their_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (200, 300)).astype(np.uint8)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        # Red tells the class, green and blue the place.
        y, x = np.mgrid[:200, :300]
        pixels = np.stack([labels * 80, y, x // 2], -1).astype(np.uint8)
        tifffile.imwrite(
            tmp_path / "images" / split / "a.tif", pixels, tile=(64, 64), photometric="rgb"
        )
        Image.fromarray(labels).save(tmp_path / "masks" / split / "a.png")
    (tmp_path / "classes.txt").write_text("\n".join(tiny.NAMES) + "\n")
    data = open_dataset(tmp_path, "train", records="maps")
    augment = MapAugment(scale=(1, 1), crop=50, flip=0.5, tile=96)
    places = set()
    for number in range(20):
        sample = make_map_sample(data, 0, Resize(None, None, 1.0), augment, chance(number))
        assert sample.pixels.shape == (3, 50, 50) and sample.original_size == (200, 300)
        assert np.array_equal(sample.pixels[0].numpy(), sample.labels.numpy() * 80.0)
        places.add((int(sample.pixels[1].min()), int(sample.pixels[2].min())))
    assert len(places) > 15
    # Another process knows how large a part is without making it.
    for number in range(5):
        whole = MapAugment(scale=(0.5, 2), crop=None, tile=96)
        batches = MapBatches(data, Resize(None, None, 1.0), whole)
        made = make_map_sample(data, 0, Resize(None, None, 1.0), whole, chance(number))
        assert batches._size(0, Numbers(number)) == tuple(made.pixels.shape[1:])  # type: ignore[arg-type]


def chance(number: int) -> np.random.Generator:
    return random_source(0, number, 0)


class Numbers:
    """Gives the numbers of `chance`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def of(self, index: int) -> np.random.Generator:
        return chance(self.number)
