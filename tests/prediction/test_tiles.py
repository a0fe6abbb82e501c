"""Large images in tiles, end to end, with a detector that finds bright rectangles and no more."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiny_models import fresh

from maskwright.data.pixels.lazy import LazyPixels
from maskwright.errors import OptionError
from maskwright.models.detection.base import Detector, PostProcess
from maskwright.models.meta import Meta
from maskwright.ops.components import find_parts
from maskwright.prediction import tiles
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.tiles import with_tile
from maskwright.prediction.val import val
from maskwright.structures import Images, Instances, Resize, Tiling


class Bright(Detector):
    """Finds each connected bright part of an image: its box, and a mask that fills it."""

    task = "segment"

    def __init__(self) -> None:
        rule = Resize(None, None, 1.0)
        super().__init__(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=rule)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        assert post is not None
        self.batches.append(len(images))
        shape = (len(images), post.max_det)
        boxes, valid = torch.zeros(*shape, 4), torch.zeros(shape, dtype=torch.bool)
        for i, (height, width) in enumerate(images.sizes.tolist()):
            bright = images.pixels[i, 0, :height, :width].numpy() > 128
            found = torch.from_numpy(find_parts(bright[None]).boxes)[: post.max_det].float()
            boxes[i, : len(found)], valid[i, : len(found)] = found, True
        scores = valid * 0.9
        crops = torch.ones(*shape, 28, 28)
        return Instances(boxes, valid.long() * 0, valid, scores, mask_crops=crops)


@pytest.fixture
def bright() -> Predictor:
    predictor = Predictor(Bright(), Meta("bright", {}, ["spot"]))
    predictor.fast = False
    return predictor


def drawn(size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, set[tuple[float, ...]]]:
    """Return an image with rectangles that do not touch, and their boxes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.uint8)
    boxes = set()
    for y in range(2, size[0] - 40, 42):
        for x in range(2, size[1] - 40, 42):
            h, w = rng.integers(3, 38, 2)
            image[y : y + h, x : x + w] = 255
            boxes.add((float(x), float(y), float(x + w), float(y + h)))
    return image, boxes


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.2), (97, 0.5), (128, 0.1)])
def test_tiles_find_what_the_whole_image_has(bright: Predictor, tile: int, overlap: float) -> None:
    image, boxes = drawn((340, 420))
    result = bright(image, tile=tile, overlap=overlap, max_det=50)
    assert {tuple(box) for box in result.boxes.tolist()} == boxes
    assert result.masks is not None
    whole = bright(image, max_det=200)
    assert result.masks.any(0).equal(whole.masks.any(0))
    assert result.masks.sum((1, 2)).sort().values.equal(whole.masks.sum((1, 2)).sort().values)


def test_an_image_no_larger_than_a_tile_is_seen_as_ever() -> None:
    predictor = Predictor(fresh("mask_rcnn_resnet50_fpn", 2), Meta("tiny", {}, ["a", "b"]))
    image = np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8)
    plain = predictor(image, conf=0.0)
    tiled = predictor(image, conf=0.0, tile=96, tile_levels=2)
    assert len(plain) and tiled.boxes.equal(plain.boxes) and tiled.scores.equal(plain.scores)
    assert tiled.detections.mask_probs.equal(plain.detections.mask_probs)


def test_batches_of_tiles_change_nothing(bright: Predictor) -> None:
    image, boxes = drawn((200, 300))
    (result,) = predict(bright, image, tile=64, batch=5)
    assert {tuple(box) for box in result.boxes.tolist()} == boxes
    assert max(bright.model.batches) == 5
    # A level of its own never shares a batch: its tiles are resized by another factor.
    assert sum(bright.model.batches) == len(Tiling(64).tiles((200, 300))[0])


def test_the_limit_holds_for_each_tile(bright: Predictor) -> None:
    image, boxes = drawn((340, 420))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = bright(image, tile=64, max_det=12)
    assert len(result) == len(boxes) > 12
    with pytest.warns(UserWarning, match="max_det=3 was reached in a tile of image"):
        bright(image, tile=128, max_det=3)


def test_an_object_larger_than_a_tile_is_seen_by_larger_ones(bright: Predictor) -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    image[40:250, 30:270] = 255
    for levels in (1, 3):
        result = bright(image, tile=64, tile_levels=levels)
        assert result.boxes.tolist() == [[30.0, 40.0, 270.0, 250.0]]


def test_a_model_of_tiles_is_not_shown_a_large_image_as_a_whole_in_silence(
    bright: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bright.meta = with_tile(bright.meta, 100)
    bright.model.resize = Resize(None, 100)
    image, boxes = drawn((340, 420))
    small = image[:150, :200]
    text = "bright was trained on tiles of 100 pixels .* 420 x 340 .* 4.2 times smaller: .*tile=100"
    with pytest.warns(UserWarning, match=text) as told:
        bright([image, image])
    with pytest.warns(UserWarning, match=text) as streamed:
        list(predict(bright, [small, image, image]))
    assert sum("tiles" in str(one.message) for one in [*told, *streamed]) == 2
    data = coco_data(tmp_path / "data", {"a.tif": (image, boxes), "b.tif": (image, boxes)})
    val(bright, data, workers=0)
    assert " ".join(capsys.readouterr().err.split()).count("everything is 4.2 times smaller") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bright(image, tile=100)
        bright(image, imgsz="1x", max_det=200)  # as large as in a tile
        bright(small)
        val(bright, data, tile=100)
        bright.meta = Meta("bright", {}, ["spot"])
        bright(image)
    assert "smaller" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 1024, "overlap": 0.95}, "overlap=0.95: expected the share"),
        ({"tile": 1024, "overlap": 0.0}, "overlap=0.0: expected the share"),
        ({"tile": 32}, "tile=32: a tile of 32 pixels a side is 32 pixels to the network, and at"),
        (
            {"tile": 8, "imgsz": 256},
            "tile=8: a tile has 8 pixels of the image a side, and at least 64 are needed",
        ),
        (
            {"tile": 100, "imgsz": 32},
            "tile=100: a tile of 100 .* 32 pixels to the network.* or a larger imgsz$",
        ),
        ({"tile": 1.5}, "tile"),
        ({"tile": 0}, "tile"),
        (
            {"overlap": 0.3},
            "^overlap=0.3 is about tiles: give their side as well, such as tile=1024",
        ),
        ({"tile_levels": 2}, "^tile_levels=2 is about tiles"),
        ({"overlap": 0.3, "tile_levels": 2}, "^overlap=0.3 and tile_levels=2 are about tiles"),
        ({"tile": 256, "tile_levels": 99}, "tile_levels=99: expected 1 to 12"),
    ],
)
def test_wrong_options_are_told(bright: Predictor, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        bright(np.zeros((100, 100, 3), np.uint8), **options)


def test_narrow_images_are_seen_at_the_size_of_square_tiles() -> None:
    tiling, rule = Tiling(1024), Resize(800, 1333)
    assert tiling.rule(rule, 0).target_size(1024, 1024) == rule.target_size(1024, 1024)
    assert tiling.rule(rule, 0).target_size(300, 1024) == (234, 800)
    assert tiling.rule(rule, 1).target_size(2048, 2048) == rule.target_size(2048, 2048)
    assert tiling.rule(Resize(None, None, 1.25), 1).factor == 0.625


def test_a_tiff_is_read_by_window(bright: Predictor, tmp_path: Path) -> None:
    image, boxes = drawn((340, 420))
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb")
    (result,) = predict(bright, path, tile=100)
    assert isinstance(result.image, LazyPixels)
    assert {tuple(box) for box in result.boxes.tolist()} == boxes
    assert np.array_equal(np.asarray(result.image), image)
    assert np.array_equal(result.image[30:80, 7:19], image[30:80, 7:19])


def test_a_deeper_image_has_one_window_for_all_tiles(bright: Predictor, tmp_path: Path) -> None:
    image, boxes = drawn((340, 420))
    path = tmp_path / "deep.tif"
    samples = image[..., 0].astype(np.uint16) * 3
    samples[300:, 300:] //= 255  # a corner of dark noise, which a window of its own would brighten
    tifffile.imwrite(path, samples, tile=(64, 64))
    with pytest.warns(UserWarning, match="more bits"):
        result = bright(path, tile=100)
    dark = {box for box in boxes if box[0] >= 300 and box[1] >= 300}
    found = {tuple(box) for box in result.boxes.tolist()}
    assert found & boxes >= {box for box in boxes if box[2] < 300 or box[3] < 300}
    assert not found & dark


def coco_data(root: Path, images: dict[str, tuple[np.ndarray, set[tuple[float, ...]]]]) -> Path:
    """Write a data set of rectangles, split val."""
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    content: dict[str, Any] = {"categories": [{"id": 1, "name": "spot"}]}
    content |= {"images": [], "annotations": []}
    for number, (name, (image, boxes)) in enumerate(images.items(), 1):
        height, width = image.shape[:2]
        content["images"].append(
            {"id": number, "file_name": name, "height": height, "width": width}
        )
        for x1, y1, x2, y2 in sorted(boxes):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
        tifffile.imwrite(root / "images" / "val" / name, image, tile=(64, 64), photometric="rgb")
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    return root


def test_a_validation_in_tiles_counts_all_objects_of_an_image(
    bright: Predictor, tmp_path: Path
) -> None:
    data = coco_data(
        tmp_path / "data", {"a.tif": drawn((340, 420)), "b.tif": drawn((50, 60), seed=1)}
    )
    numbers = val(bright, data, tile=100, max_det=12)
    assert numbers["mask/AP"] == numbers["box/AP"] == pytest.approx(1)
    assert numbers["mask/AR"] == pytest.approx(1)
    # As a whole, the limit cuts most of the 80 objects off.
    assert val(bright, data, max_det=12, workers=0)["mask/AR"] < 0.5


def test_a_report_of_a_validation_in_tiles_says_so(bright: Predictor, tmp_path: Path) -> None:
    data = coco_data(tmp_path / "data", {"a.tif": drawn((200, 220))})
    made = val(bright, data, tile=100, save=tmp_path / "run")
    assert "tile: 100" in (tmp_path / "run" / "args.yaml").read_text()
    assert made.command is not None and made.command.endswith(", tile=100)")
    made = val(bright, data, tile=100, overlap=0.4, tile_levels=2, save=tmp_path / "again")
    assert str(made.command).endswith(", tile=100, overlap=0.4, tile_levels=2)")
    plain = val(bright, data, save=tmp_path / "plain", workers=0)
    assert plain.command is not None and "tile" not in plain.command


def test_objects_of_tiles_go_out_in_map_coordinates(bright: Predictor, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra geo")
    image, boxes = drawn((340, 420))
    path = tmp_path / "scene.tif"
    place = rasterio.transform.from_origin(500_000.0, 5_400_000.0, 0.5, 0.5)
    options = {"driver": "GTiff", "width": 420, "height": 340, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, tiled=True, **options) as out:
        out.write(image.transpose(2, 0, 1))
    list(predict(bright, path, tile=100, save=tmp_path / "run", formats="geo,geojson"))
    (file,) = (tmp_path / "run" / "geo").rglob("*.geojson")
    found = set()
    for feature in json.loads(file.read_text())["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        x, y = np.array(ring).T
        columns, rows = (x - 500_000) / 0.5, (5_400_000 - y) / 0.5
        found.add((columns.min(), rows.min(), columns.max(), rows.max()))
    assert found == boxes
    assert (tmp_path / "run" / "scene.geojson").is_file()

    plain = tmp_path / "plain.png"
    Image.fromarray(image).save(plain)
    with pytest.warns(UserWarning, match=r"formats=geo: 1 image.* no GeoTIFF.*are pixels"):
        list(predict(bright, plain, tile=100, save=tmp_path / "flat", formats="geo"))


def test_few_tiles_that_take_long_have_a_bar(
    bright: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = drawn((150, 200))
    bright(image, tile=100)
    assert "tile" not in capsys.readouterr().err
    monkeypatch.setattr(tiles, "SLOW", 0.0)
    bright(image, tile=100)
    assert re.search(r"image 1: (\d+)/\1 tile, took", capsys.readouterr().err)


class Stopped(Bright):
    """A signal comes while it looks at its eighth tile."""

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        if len(self.batches) == 7:
            raise KeyboardInterrupt
        return super().forward(images, post)


def test_what_was_found_before_a_signal_is_written_and_said_to_be_a_part(tmp_path: Path) -> None:
    image, boxes = drawn((340, 420))
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        Image.fromarray(image).save(path)

    def stopped() -> Predictor:
        predictor = Predictor(Stopped(), Meta("bright", {}, ["spot"]))
        predictor.fast = False
        return predictor

    results = predict(
        stopped(), paths, tile=100, overlap=0.4, formats="geojson", save=tmp_path / "run"
    )
    with (
        pytest.warns(UserWarning, match=r"a\.png: stopped after 7 of 35 tiles.*is written"),
        pytest.raises(KeyboardInterrupt),
    ):
        next(results)
    written = json.loads((tmp_path / "run" / "a.json").read_text())
    assert written["stopped"] == {"tiles": 7, "of": 35}
    found = {tuple(one["box"]) for one in written["objects"]}
    first = Tiling(100, 0.4, 1).tiles((340, 420))[0][:7]  # a row, from left to right
    # What reaches its border, up to a sixteenth of the strip, is left to the next row.
    assert found == {box for box in boxes if box[3] < first[0].bottom - 40 / 16} and len(found) > 10
    assert (tmp_path / "run" / "a.geojson").is_file() and not list(tmp_path.rglob("b.json"))
    # Nobody who counts what is there gets a part of it.
    for call in (
        lambda: next(predict(stopped(), paths, tile=100, overlap=0.4)),
        lambda: stopped()(paths[0], tile=100, overlap=0.4),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    data = coco_data(tmp_path / "data", {"a.tif": (image, boxes)})
    with pytest.raises(KeyboardInterrupt):
        val(stopped(), data, tile=100, overlap=0.4, save=tmp_path / "val")


def test_what_is_read_by_window_may_be_larger_than_what_is_read_whole(
    bright: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "20000")  # the image has 142,800
    data = coco_data(tmp_path / "data", {"a.tif": drawn((340, 420))})
    assert val(bright, data, tile=100)["mask/AP"] == pytest.approx(1)
    (result,) = predict(bright, data / "images" / "val" / "a.tif", tile=100)
    assert len(result) > 50
    with pytest.raises(ValueError, match="more than the limit of 20000"):
        bright(data / "images" / "val" / "a.tif")
