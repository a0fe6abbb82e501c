"""Pages of files as images of their own: names, numbers, and what is said of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import maskwright as mw
from maskwright.channels import ALL_PAGES, parse_page
from maskwright.data.pixels.images import load_image
from maskwright.errors import OptionError
from maskwright.models import Meta, build_tiny
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.sources import list_sources, with_page

RNG = np.random.default_rng(6)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model: Any = build_tiny("mask_rcnn_resnet50_fpn", 2)
    return Predictor(model, Meta("mask_rcnn_resnet50_fpn", {}, ["cell", "dirt"]), device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stack = RNG.integers(0, 256, (12, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    Image.fromarray(stack[0]).save(tmp_path / "plain.png")
    return tmp_path


@pytest.mark.filterwarnings("ignore:max_det")
def test_all_pages_have_names_of_their_own(folder: Path, predictor: Predictor) -> None:
    results = mw.predict(predictor, folder, page="all", save=folder / "out", formats="png")
    names = []
    for number, result in enumerate(results):
        names.append(result.name)
        expected = load_image(folder / "stack.tif", page=number - 1) if number else None
        if expected is not None:
            np.testing.assert_array_equal(result.image, expected)
    assert names == ["plain.png", *(f"stack-page{number:02}.tif" for number in range(12))]
    written = sorted(file.name for file in (folder / "out").rglob("*page07*"))
    assert any(name.endswith(".json") for name in written)
    (notes,) = (folder / "out").rglob("*page07*.json")
    assert json.loads(notes.read_text())["page"] == 7 and result.page == 11


@pytest.mark.filterwarnings("ignore:max_det")
def test_pages_tell_their_time_and_plane(tmp_path: Path, predictor: Predictor) -> None:
    file, out = tmp_path / "s.ome.tif", tmp_path / "out"
    with tifffile.TiffWriter(file) as writer:  # two series, one with times and one alone
        for shape in ((2, 3, 40, 50), (1, 1, 40, 50)):
            stack = RNG.integers(0, 256, shape, np.uint8)
            writer.write(stack, photometric="minisblack", metadata={"axes": "TZYX"})
    results = list(mw.predict(predictor, file, page="1,5-6", save=out))
    axes = [{"series": 0, "T": 0, "Z": 1}, {"series": 0, "T": 1, "Z": 2}, {"series": 1}]
    assert [dict(one.axes) for one in results] == axes
    names = ["page1-series0-t0-z1", "page5-series0-t1-z2", "page6-series1"]
    assert [one.name for one in results] == [f"s.ome-{name}.tif" for name in names]
    told = [json.loads((out / f"s.ome-{name}.json").read_text()) for name in names]
    assert [one["axes"] for one in told] == axes
    list(mw.predict(predictor, file, page="all", stride=5, save=out))
    lines = [json.loads(line) for line in next(out.glob("*.jsonl")).read_text().splitlines()]
    assert [(one["page"], one["axes"]["series"]) for one in lines] == [(0, 0), (5, 0)]
    assert "axes" not in json.loads(
        predictor(RNG.integers(0, 256, (40, 50, 3), np.uint8)).to_json()
    )


@pytest.mark.filterwarnings("ignore:max_det", "ignore:1 of 2 images could not be read")
def test_one_page(folder: Path, predictor: Predictor) -> None:
    file = folder / "stack.tif"
    (result,) = mw.predict(predictor, file, page=5, save=False)
    assert result.page == 5 and predictor(folder / "plain.png").page is None
    np.testing.assert_array_equal(result.image, load_image(file, page=5))
    np.testing.assert_array_equal(predictor(file, page=5).image, result.image)
    with pytest.warns(UserWarning, match=r"12 pages or frames: only the first.*page=all"):
        predictor(file)
    with pytest.raises(ValueError, match=r"stack\.tif has 12 pages.*page=12"):
        predictor(file, page=12)
    with pytest.raises(OptionError, match="page=all"):
        predictor(file, page="all")
    with pytest.warns(UserWarning, match=r"stack\.tif has 12 pages.*no page=12"):
        (result,) = mw.predict(predictor, file, page="11-20", save=False)
    np.testing.assert_array_equal(result.image, load_image(file, page=11))
    with pytest.raises(OptionError, match="page=first"):
        mw.predict(predictor, file, page="first")


@pytest.mark.filterwarnings("ignore:max_det")
def test_a_stack_that_is_cut_off_is_told_of_once(tmp_path: Path, predictor: Predictor) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        for page in RNG.integers(0, 256, (6, 40, 50), np.uint8):
            out.write(page, photometric="minisblack", metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) * 5 // 12])
    with pytest.warns(UserWarning) as caught:
        assert len(list(mw.predict(predictor, tmp_path / "a.tif", page="all", save=False))) == 2
    said = [str(one.message) for one in caught if "cut off" in str(one.message)]
    assert len(said) == 1 and "a.tif: the file is cut off, only 3 pages are left" in said[0]


@pytest.mark.filterwarnings("ignore:max_det", "ignore:.*pages or frames")
def test_a_window_of_images_that_have_none_is_told(folder: Path, predictor: Predictor) -> None:
    said = r"window=0,100 is for samples of more than 8 bits: "
    with pytest.warns(UserWarning, match=f"{said}all images have 8"):
        list(mw.predict(predictor, folder, window="0,100", save=False))
    tifffile.imwrite(folder / "deep.tif", RNG.integers(0, 4096, (40, 50), np.uint16))
    with pytest.warns(UserWarning, match=f"{said}2 of 3 images have 8"):
        list(mw.predict(predictor, folder, window="0,100", save=False))
    with pytest.warns(UserWarning, match="window=minmax.*the image has 8"):
        predictor(folder / "plain.png", window="minmax")
    with warnings.catch_warnings(record=True) as caught:
        predictor(folder / "deep.tif", window="0,4095")
        predictor(folder / "plain.png", window="auto")
    assert not any("window" in str(one.message) for one in caught)
    with pytest.raises(OptionError, match=r"window .* a video is seen with 8"):
        (folder / "a.mp4").write_bytes(b"")
        mw.predict(predictor, folder / "a.mp4", window="0,100")


@pytest.mark.filterwarnings("ignore:max_det")
def test_channels_of_a_file(folder: Path, predictor: Predictor) -> None:
    """A model for colours takes any three, or one as grey; of others it says what it knows."""
    bands = RNG.integers(0, 256, (40, 50, 5), np.uint8)
    tifffile.imwrite(folder / "five.tif", bands, photometric="minisblack", planarconfig="contig")
    found = predictor(folder / "five.tif", channels=(4, 0, 2)).image
    np.testing.assert_array_equal(found, bands[..., [4, 0, 2]])
    grey = predictor(folder / "five.tif", channels=3).image
    np.testing.assert_array_equal(grey, np.repeat(bands[..., 3:4], 3, 2))
    said = r"5 channels, and mask_rcnn_resnet50_fpn was trained with 3 channels \(red, green and"
    with pytest.raises(ValueError, match=rf"five\.tif has {said}.*channels=0,1,2"):
        predictor(folder / "five.tif")
    with pytest.raises(OptionError, match=r"channels=0,1 has 2 channels.*trained with 3"):
        predictor(folder / "five.tif", channels="0,1")
    for compression in (None, "zlib"):
        two = {"photometric": "minisblack", "planarconfig": "separate", "compression": compression}
        tifffile.imwrite(folder / "two.tif", bands[..., :2].transpose(2, 0, 1), **two)
        with pytest.raises(ValueError, match=r"twice, as in channels=0,1,1, or one as grey"):
            predictor(folder / "two.tif")
        found = predictor(folder / "two.tif", channels="0,1,1").image
        np.testing.assert_array_equal(found, bands[..., [0, 1, 1]])
        grey = predictor(folder / "two.tif", channels=0).image
        np.testing.assert_array_equal(grey, np.repeat(bands[..., :1], 3, 2))
    with pytest.warns(UserWarning, match=r"stack\.tif: its 12 pages.*taken as channels"):
        found = predictor(folder / "stack.tif", channels=(2, 1, 11), page=None).image
    np.testing.assert_array_equal(
        found, tifffile.imread(folder / "stack.tif")[[2, 1, 11]].transpose(1, 2, 0)
    )


def test_pages_of_sources(folder: Path) -> None:
    sources = with_page(list_sources(folder / "stack.tif"), ALL_PAGES)
    assert len(sources) == 12 and not sources.single
    assert with_page(list_sources(folder / "plain.png"), ALL_PAGES).single
    for asked, pages in {
        "3": [3],
        "1,3": [1, 3],
        "0-2,2": [0, 1, 2],
        "10-": [10, 11],
        "10-99": [10, 11, 12],
        "50-60": [50],
        "50-": [50],
    }.items():  # the first page that is asked for and not there is refused when it is read
        found = with_page(list_sources(folder / "stack.tif"), parse_page(asked))
        assert [one.page for one in found] == pages
    found = with_page(list_sources(folder / "plain.png"), parse_page("0,1"))
    assert [(one.name, one.page) for one in found] == [("plain.png", None), ("plain-page1.png", 1)]
    (folder / "broken.tif").write_bytes(b"II*\0broken")
    assert len(with_page(list_sources(folder / "broken.tif"), ALL_PAGES)) == 1
    data = (folder / "stack.tif").read_bytes()
    assert [one.page for one in with_page(list_sources(data), ALL_PAGES)] == list(range(12))


@pytest.mark.filterwarnings("ignore:max_det")
def test_odd_samples_are_told_once_an_image(tmp_path: Path, predictor: Predictor) -> None:
    """And of a constant image nobody says that it was stretched."""
    holes = RNG.random((40, 50)).astype(np.float32)
    holes[:5], holes[5:8, 0] = np.nan, np.inf
    dark = np.full((40, 50, 3), 900, np.uint16)
    for name, samples in (
        ("holes", holes),
        ("dark", dark),
        ("nothing", np.full_like(holes, np.nan)),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", samples)
    with pytest.warns(UserWarning) as caught:
        predictor(tmp_path / "holes.tif")
    said = [text for text in map(str, (one.message for one in caught)) if "max_det" not in text]
    assert said[0] == "holes.tif: 13 % of its pixels are not finite"  # 253 of 2000
    assert len(said) == 2 and "percentile" in said[1]
    for name, text in (
        ("dark", "it is constant: every sample is 900"),
        ("nothing", "100 % of its pixels are not finite"),
    ):
        with pytest.warns(UserWarning) as caught:
            list(mw.predict(predictor, tmp_path / f"{name}.tif", save=False))
        said = [one for one in map(str, (one.message for one in caught)) if "max_det" not in one]
        assert said == [f"{name}.tif: {text}"]
