"""Pages that zoom into large pictures: their tiles against the picture itself."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.reports.gallery import ResultWriter
from maskwright.reports.zoom import OVERVIEW, SIDE, write_zoom
from maskwright.structures import Detections
from maskwright.tasks.detection.result import Result
from maskwright.tasks.semantic.result import SemanticResult


@pytest.mark.parametrize(
    "size", [(700, 1537), (512, 512), (1, 600), pytest.param((3000, 2100), marks=pytest.mark.slow)]
)
def test_tiles_are_the_picture_at_halved_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([x * 255 / size[1], y * 255 / size[0], x * 0 + 90], -1).astype(np.uint8)
    whole = Image.fromarray(smooth)
    asked: list[tuple[int, int, int, int]] = []

    def draw(frame: tuple[int, int, int, int]) -> Image.Image:
        asked.append(frame)
        return whole.crop(frame)

    page = tmp_path / "big one.html"
    overview = write_zoom(page, size, draw, "A <picture>", [("7", "cells")])
    assert len(asked) == len(set(asked)) == -(-size[0] // SIDE) * -(-size[1] // SIDE)
    width, height, side, last = json.loads(
        re.search(r"= (\[[\d, ]+\])", page.read_text())[1]  # type: ignore[index]
    )
    assert (height, width, side) == (*size, SIDE)
    for level in range(last + 1):
        scale = 2 ** (last - level)
        high, wide = -(-size[0] // scale), -(-size[1] // scale)
        files = list((tmp_path / "big one" / str(level)).iterdir())
        assert len(files) == -(-high // SIDE) * -(-wide // SIDE)
        made = np.zeros((high, wide, 3), np.uint8)
        for file in files:
            row, column = (int(n) * SIDE for n in file.stem.split("_"))
            tile = np.asarray(Image.open(file))
            made[row : row + tile.shape[0], column : column + tile.shape[1]] = tile
        assert np.abs(made[..., 2].astype(int) - 90).max() < 8  # no dark rims where sides are odd
        plain = np.asarray(whole.resize((wide, high), Image.Resampling.BOX)).astype(int)
        assert np.abs(made.astype(int) - plain).max() < 24  # JPEG
    assert len(list((tmp_path / "big one" / "0").iterdir())) == 1
    assert max(overview.size) <= OVERVIEW


def test_a_large_result_has_a_page_and_a_smaller_picture(tmp_path: Path) -> None:
    image = np.full((300, 4500, 3), 60, np.uint8)
    boxes = torch.tensor([[500.0, 100, 540, 150], [4400, 10, 4490, 90]])
    found = Detections((300, 4500), boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
    result = Result(found, image, ["cell"], path="slide.png")
    saved = ResultWriter(tmp_path, originals=True).write(result)
    assert saved.page == tmp_path / "slide_zoom.html"
    text = saved.page.read_text()
    assert "http" not in text and "<b>2</b><span>cell</span>" in text
    assert saved.original is not None
    with Image.open(saved.overlay) as overlay, Image.open(saved.original) as original:
        assert overlay.size == (1125, 75) and max(original.size) == 1600
    finest = max((tmp_path / "slide_zoom").iterdir(), key=lambda folder: int(folder.name))
    tile = np.asarray(Image.open(finest / "0_1.jpg")).astype(int)  # columns 512 to 1023
    assert np.abs(tile[100:150, 0:28] - 60).max() > 60  # the border of the first box
    assert np.abs(tile[200:, 100:] - 60).max() < 12
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.size == (900, 60)
    pixels = np.asarray(shown).astype(int)
    assert np.abs(pixels[:, :95] - 60).max() < 3 < np.abs(pixels[20:30, 98:110] - 60).max()


def test_a_disk_that_takes_no_large_picture_keeps_what_was_found(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    image = np.random.default_rng(0).integers(0, 256, (300, 4500, 3), np.uint8)
    found = Detections((300, 4500), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    result = Result(found, image, ["cell"], path="slide.png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ValueError, match=r"what was found is there, slide\.json, the picture"):
            ResultWriter(tmp_path).write(result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["slide.json"]


def test_parts_of_a_picture_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    low = torch.from_numpy(rng.uniform(0, 200, (30, 2)))
    boxes = torch.cat([low, low + torch.from_numpy(rng.uniform(5, 90, (30, 2)))], 1).float()
    masks = torch.from_numpy(rng.random((30, 28, 28))).float()
    size = (300, 400)
    found = Detections(size, boxes, torch.linspace(0.9, 0.3, 30), torch.arange(30) % 3, masks)
    result = Result(found, image, ["a", "b", "c"])
    whole = result.plot(labels=False)
    for frame in ((0, 0, 128, 128), (100, 60, 300, 250), (380, 280, 400, 300)):
        part = result.plot_part(frame, labels=False)
        assert np.array_equal(np.asarray(part), np.asarray(whole.crop(frame)))
    labels = rng.integers(0, 2, size).repeat(1, 0).astype(np.uint8)
    classes = SemanticResult(labels, image, ["sky", "road"])
    assert classes.plot_part((10, 20, 50, 70)).size == (40, 50)
