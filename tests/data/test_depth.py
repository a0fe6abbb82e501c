"""From deep samples to 8 bits, against numpy's percentiles and a stretch written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskwright.data.checking.check import check_data
from maskwright.data.checking.depth import measure_depths
from maskwright.data.discover import open_dataset
from maskwright.data.pixels.depth import own_window, to_eight_bit
from maskwright.data.pixels.images import load_image, load_samples
from maskwright.data.pixels.picture import open_picture
from maskwright.errors import OptionError
from maskwright.window import describe_window, parse_window

KINDS = ("u2", "i2", "u4", "i4", "f2", "f4", "f8", "i1")


def scene(kind: str, shape: tuple[int, ...] = (300, 280)) -> np.ndarray:
    values = np.random.default_rng(2).gamma(2.0, 8.0, shape)
    return (values - 20 * (kind[0] in "if")).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 280), (300, 280, 3), (5, 4)])
def test_own_window_is_the_percentiles(kind: str, shape: tuple[int, ...]) -> None:
    samples = scene(kind, shape)
    low, high = np.percentile(samples.ravel(), [0.1, 99.9], method="inverted_cdf")
    assert own_window(samples) == (low, high)
    assert own_window(samples, "minmax") == (samples.min(), samples.max())


@pytest.mark.parametrize("kind", KINDS)
def test_stretch(kind: str) -> None:
    samples = scene(kind)
    low, high = 3.0, 40.5
    exact = (samples.astype(np.float64).clip(low, high) - low) / (high - low) * 255
    found = to_eight_bit(samples, (low, high))
    assert found.shape == (300, 280, 3) and found.dtype == np.uint8
    assert np.abs(found[..., 1] - exact).max() <= 0.5 + 1e-9
    # The table of 16-bit values and the arithmetic of few samples are one rule.
    part = to_eight_bit(samples[:7, :5], (low, high))
    np.testing.assert_array_equal(part, found[:7, :5])


def test_eight_bits_are_untouched() -> None:
    samples = np.random.default_rng(0).integers(3, 90, (20, 30, 3), np.uint8)
    for window in (None, "minmax", "percentile", (0.0, 10.0)):
        np.testing.assert_array_equal(to_eight_bit(samples, window), samples)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_and_nearly_constant_images(kind: str) -> None:
    flat = np.full((50, 40), 7, kind)
    assert to_eight_bit(flat).max() == 0
    assert to_eight_bit(flat, "minmax").max() == 0
    spot = np.full((200, 200), 7, kind)
    spot[3, 3] = 100  # less than 0.1 % of the image
    assert to_eight_bit(spot)[3, 3].tolist() == [255] * 3 and to_eight_bit(spot)[9, 9, 0] == 0


def test_what_is_no_number_has_no_say() -> None:
    samples = scene("f4")
    low, high = own_window(samples)
    holes = samples.copy()
    holes[0, :4] = np.nan, np.inf, -np.inf, np.nan
    rest = np.sort(holes[np.isfinite(holes)])
    assert own_window(holes, "minmax") == (rest[0], rest[-1])
    assert own_window(holes) == pytest.approx((low, high), abs=0.5)
    assert to_eight_bit(holes)[0, :4, 0].tolist() == [0, 255, 0, 0]
    for filled in (np.nan, np.inf):
        assert own_window(np.full((4, 4), filled, np.float32)) == (0.0, 1.0)
    assert to_eight_bit(np.full((4, 4), np.nan)).max() == 0


def test_the_scale_of_an_image_does_not_matter() -> None:
    samples = scene("f8")
    base = to_eight_bit(samples).astype(int)
    for factor, offset in ((1 / 255, 0), (257, 0), (1, -5000), (1e6, 1e9), (1e-9, 3e-9)):
        other = to_eight_bit(samples * factor + offset).astype(int)
        assert np.abs(other - base).max() <= 1
    for top in (255, 256, 4095, 4096, 6000, 65535):
        whole = (samples - samples.min()) / np.ptp(samples)
        grey = (whole * top).round().astype(np.uint16)
        hot = grey.copy()
        hot[0, 0] = 65535
        plain = to_eight_bit(grey).astype(int)
        # One hot pixel moves the order statistic by one place.
        assert np.abs(to_eight_bit(hot).astype(int) - plain)[1:].max() <= 3
        assert np.abs(plain - base).max() <= 255 / top * 3 + 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("auto", None),
        ("AUTO", None),
        ("minmax", "minmax"),
        ("percentile", "percentile"),
        ("0,4095", (0.0, 4095.0)),
        ((0, 4095), (0.0, 4095.0)),
        ([-1.5, 2], (-1.5, 2.0)),
        (" 1e-3 , 5e3 ", (0.001, 5000.0)),
        (np.array([1, 2]), (1.0, 2.0)),
    ],
)
def test_windows_are_read(text: Any, value: Any) -> None:
    assert parse_window(text) == value
    assert parse_window(describe_window(parse_window(text))) == value


@pytest.mark.parametrize(
    "text",
    ["", "percentil", "4095", "0,4095,1", "5,5", "7,2", "nan,3", "0,inf", 3, (1,), (2, 1), "a,b"],
)
def test_wrong_windows_are_named(text: Any) -> None:
    with pytest.raises(OptionError, match=r"window=.*0,4095"):
        parse_window(text)


def test_a_typing_slip_is_guessed() -> None:
    with pytest.raises(OptionError, match="did you mean 'percentile'"):
        parse_window("percentil")


def deep_data(root: Path, pictures: list[np.ndarray]) -> Path:
    (root / "images").mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "spot"}]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / "images" / f"{number}.png")
        height, width = picture.shape[:2]
        entry = {"id": number + 1, "file_name": f"{number}.png", "height": height, "width": width}
        content["images"].append(entry)
        content["annotations"].append(
            {"id": number + 1, "image_id": number + 1, "category_id": 1, "bbox": [4, 4, 9, 9]}
            | {"area": 81, "iscrowd": 0, "segmentation": [[4, 4, 13, 4, 13, 13, 4, 13]]}
        )
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def test_one_window_for_a_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deep = [(rng.gamma(2.0, 300.0 + 50 * i, (60, 40))).astype(np.uint16) for i in range(5)]
    shallow = [rng.integers(0, 256, (60, 40, 3), np.uint8) for _ in range(3)]
    pictures = [deep[0], shallow[0], *deep[1:], *shallow[1:]]
    data = open_dataset(deep_data(tmp_path / "mixed", pictures))
    found = measure_depths(data)
    every = np.stack(deep).ravel()
    assert found.window == tuple(np.percentile(every, [0.1, 99.9], method="inverted_cdf"))
    assert (list(found.deep), found.images, found.kinds) == ([0, 2, 3, 4, 5], 8, {"uint16": 5})
    assert (found.smallest, found.largest) == (every.min(), every.max())
    text = found.describe()
    assert "5 of 8 images have more than 8 bits (uint16)" in text and "the 3 of 8 bits" in text
    assert measure_depths(data, "minmax").window == (every.min(), every.max())
    # The window of the data set is what its images are stretched by.
    data.window = found.window
    np.testing.assert_array_equal(data.photo(2), to_eight_bit(deep[1], found.window))
    np.testing.assert_array_equal(data.select([1]).image(0), shallow[0])
    assert data.select([2]).window == found.window
    other = open_dataset(tmp_path / "mixed")
    # Ties may round otherwise from the full depth.
    assert np.abs(other.photo(2) - load_image(deep[1]).astype(int)).max() <= 1


def test_data_of_eight_bits_have_no_window(tmp_path: Path) -> None:
    pictures = [np.full((20, 20, 3), 9, np.uint8)] * 2
    found = measure_depths(open_dataset(deep_data(tmp_path, pictures)))
    assert (found.window, list(found.deep), found.sampled) == (None, [], 0)


def test_data_check_says_what_training_would_take(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deep = [(rng.gamma(2.0, 300.0, (60, 40))).astype(np.uint16) for _ in range(4)]
    shallow = [rng.integers(0, 256, (60, 40, 3), np.uint8)]
    every = np.stack(deep).ravel()
    low, high = np.percentile(every, [0.1, 99.9], method="inverted_cdf")
    data = deep_data(tmp_path / "mixed", [*deep, *shallow])
    text = str(check_data(data))
    assert (
        f"4 of 5 images have more than 8 bits (uint16), with values from {every.min()} to" in text
    )
    assert f"window={low},{high} to 8 bits" in text and "the 1 of 8 bits" in text
    assert f"values up to {every.max()} become white" in text
    declared = str(check_data(data, window=(0, 65535)))
    assert "window=0,65535 to 8 bits, as declared" in declared and "become" not in declared
    assert f"window={every.min()},{every.max()} to 8" in str(check_data(data, window="minmax"))
    with pytest.raises(OptionError, match="window=wide"):
        check_data(data, window="wide")
    assert "8 bits" not in str(check_data(deep_data(tmp_path / "shallow", shallow)))


def test_data_check_compares_the_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deep = [(rng.gamma(2.0, 300.0, (60, 40))).astype(np.uint16) for _ in range(2)]
    for split, pictures in (("train", deep), ("val", [one // 16 for one in deep])):
        source = deep_data(tmp_path / split, pictures)
        (source / "annotations.json").rename(tmp_path / split / "_annotations.coco.json")
        for file in (source / "images").iterdir():
            file.rename(source / file.name)
    assert "were they recorded alike?" in str(check_data(tmp_path))
    for file in (tmp_path / "train").glob("*.png"):
        Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(file)
    assert "val: the training images have 8 bits" in str(check_data(tmp_path))


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "float32", "float64"])
def test_what_a_file_declares_as_missing_has_no_say(kind: str, tmp_path: Path) -> None:
    """GDAL's nodata, as an elevation model has it around what was measured."""
    file, missing = tmp_path / "a.tif", 0 if kind == "uint16" else -9999
    values = np.random.default_rng(0).integers(200, 1000, (40, 50)).astype(kind)
    edge = values.copy()
    edge[:15] = missing
    tag = (42113, "s", 0, f"{missing} ", True)
    tifffile.imwrite(file, edge, extratags=[tag], tile=(16, 16))
    with open_picture(file) as picture:
        read, part = picture.whole(), picture.read(10, 0, 20, 50)
        assert read.dtype == picture.dtype and picture.missing == missing
    assert np.isnan(read[:15]).all() and np.isnan(part[:5]).all()
    np.testing.assert_array_equal(read[15:], values[15:])
    assert own_window(read) == own_window(values[15:])
    shown = load_image(file)
    assert not shown[:15].any() and 100 < shown[15:].mean() < 155
    for text in ("none", "", "1e99"):  # nothing that a sample can have
        tifffile.imwrite(file, edge, extratags=[(42113, "s", 0, text, True)])
        np.testing.assert_array_equal(load_samples(file).astype(kind), edge)


def test_what_is_odd_in_the_samples_is_told_before_a_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((4, 20, 30, 3), np.float32)
    values[..., 1] = 0.25  # a lamp that was never on
    values[1, :5], values[2, 0, 0] = np.nan, np.inf
    values[3] = 0.5
    data = deep_data(tmp_path, [np.zeros((20, 30), np.uint8)] * 4)
    for number, one in enumerate(values):  # a file is what it holds, whatever its name
        tifffile.imwrite(data / "images" / f"{number}.png", one, planarconfig="contig")
    found = measure_depths(open_dataset(data))
    assert found.valueless == (2, pytest.approx(0.25)) and found.constant == 1
    assert found.idle == (1,)
    text = found.describe()
    assert (
        "2 of 4 that were looked at have pixels without a value" in text and "25 % of one" in text
    )
    assert "1 of 4 that were looked at are constant" in text and "channel 1 is constant in" in text
    assert text.count(";") == 3
