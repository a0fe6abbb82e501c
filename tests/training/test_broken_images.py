"""Images that cannot be used, or are too large, are told before a training, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import as_options, make_split, tiny_options

import maskwright as mw
from maskwright.cli import main
from maskwright.data.pixels.images import load_image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_split(tmp_path / "data", "train", 5, 0)
    make_split(tmp_path / "data", "val", 2, 1)
    return tmp_path / "data"


def test_all_broken_images_are_named_before_the_first_step(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = ["train/train1.png", "train/train4.png", "val/val1.png"]
    for name in broken:
        file = data / "images" / name
        file.write_bytes(file.read_bytes()[:200])
    options = tiny_options(data, tmp_path / "runs")
    with pytest.raises(ValueError, match="3 of 7 images cannot be used") as caught:
        mw.train(**options)
    for name in broken:
        assert str(data / "images" / name) in str(caught.value)
    assert "mend them, or take the images out" in str(caught.value)
    assert not (tmp_path / "runs").exists()
    del options["model_args"]
    assert main(["train", *as_options(options | {"model": "mask_rcnn_lite0_fpn"})]) == 1
    assert "3 of 7 images" in capfd.readouterr().err


def test_the_limit_on_pixels_holds_everywhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One environment variable for prediction, training, validation and the check of data."""
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "6000")  # images have 96 x 72 = 6912 pixels
    limit = Image.MAX_IMAGE_PIXELS
    file = data / "images" / "val" / "val0.png"
    calls: list[Any] = [
        lambda: load_image(file),
        lambda: mw.train(**tiny_options(data, tmp_path)),
        lambda: main(["predict", "model=nuclei", f"source={file}", "save=false", "device=cpu"]),
        lambda: main(["data", "check", f"data={data}", "save=false"]),
        lambda: main(["val", "model=nuclei", f"data={data}", "save=false"]),
    ]
    for call in calls:
        try:
            assert call() == 1
            text = "".join(capfd.readouterr())
        except ValueError as error:
            text = str(error)
        assert "MASKWRIGHT_MAX_PIXELS=6912" in " ".join(text.replace("\n", " ").split())
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "6912")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert load_image(file).shape == (72, 96, 3)
    assert Image.MAX_IMAGE_PIXELS == 3000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert main(["data", "check", f"data={data}", "save=false"]) == 0
    assert main(["predict", "model=nuclei", f"source={file}", "save=false", "device=cpu"]) == 0
    done = mw.train(**tiny_options(data, tmp_path) | {"workers": 1, "epochs": 1})
    assert mw.val(done.last, data, device="cpu", workers=1)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("text", ["many", "0", "-3", "nan"])
def test_a_wrong_limit_is_named(
    data: Path, text: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", text)
    assert main(["data", "check", f"data={data}", "save=false"]) == 2
    assert f"MASKWRIGHT_MAX_PIXELS={text}" in capfd.readouterr().err


def test_the_limit_may_be_lower_or_none(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = data / "images" / "val" / "val0.png"
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "6911")
    with pytest.raises(ValueError, match=r"val0\.png is refused"):
        load_image(file)
    monkeypatch.setenv("MASKWRIGHT_MAX_PIXELS", "none")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_image(file).shape == (72, 96, 3)
    monkeypatch.delenv("MASKWRIGHT_MAX_PIXELS")
    assert load_image(np.zeros((9, 9, 3), np.uint8)).shape == (9, 9, 3)  # it is there already
