"""A training on 16-bit images: one window, kept to the bit, used by val and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import make_split, stopping_after, tiny_options

import maskwright as mw
from maskwright.data.discover import open_dataset
from maskwright.data.pixels.depth import to_eight_bit
from maskwright.errors import OptionError
from maskwright.prediction.reading import read
from maskwright.prediction.sources import one_source
from maskwright.storage.checkpoint import load_checkpoint


def deepen(data: Path, split: str, gain: int = 13, offset: int = 900) -> np.ndarray:
    """Store the images of a split as 16-bit grey, and return all values."""
    every = []
    for file in sorted((data / "images" / split).iterdir()):
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L")).astype(np.uint16)
        deep = grey * np.uint16(gain) + np.uint16(offset)
        Image.fromarray(deep).save(file)
        every.append(deep.ravel())
    return np.concatenate(every)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("deep")
    make_split(root, "train", 6, 0)
    make_split(root, "val", 2, 1)
    deepen(root, "train")
    deepen(root, "val")
    return root


def values(data: Path, split: str = "train") -> np.ndarray:
    files = sorted((data / "images" / split).iterdir())
    return np.concatenate([np.asarray(Image.open(file)).ravel() for file in files])


@pytest.mark.filterwarnings("ignore:max_det")
def test_training_measures_keeps_and_uses_a_window(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = tiny_options(data, tmp_path) | {"epochs": 1}
    done = mw.train(**options)
    expected = tuple(np.percentile(values(data), [0.1, 99.9], method="inverted_cdf"))
    assert load_checkpoint(done.last).meta.window == expected
    # val and predict scale by it, in full depth; people see the same as of images of 8 bits.
    low, high = expected
    dataset, reading = open_dataset(data, "val"), mw.load(done.last, device="cpu").reading()
    reading.apply(dataset)
    for index, file in enumerate(sorted((data / "images" / "val").iterdir())):
        samples = np.asarray(Image.open(file)).astype(np.float64)
        scaled = (samples.clip(low, high) - low) * 255 / (high - low)
        for pixels in (dataset.image(index), read(one_source(file), reading).pixels):
            np.testing.assert_allclose(pixels, np.repeat(scaled[..., None], 3, 2), atol=2e-5)
    shallow = tmp_path / "shallow"
    make_split(shallow, "val", 2, 1)
    for file in sorted((data / "images" / "val").iterdir()):
        pixels = to_eight_bit(np.asarray(Image.open(file)), expected)
        Image.fromarray(pixels).save(shallow / "images" / "val" / file.name)
    predictor = mw.load(done.last, device="cpu")
    deep, plain = (
        predictor(part / "images" / "val" / "val0.png", conf=0.0, max_det=500)
        for part in (data, shallow)
    )
    np.testing.assert_array_equal(deep.image, plain.image)
    with pytest.warns(UserWarning, match="stands in place of"):
        mw.val(done.last, data, device="cpu", workers=0, window="0,4095")


@pytest.mark.parametrize("window", ["minmax", pytest.param((0, 4095), marks=pytest.mark.slow)])
def test_declared_and_minmax(data: Path, tmp_path: Path, window: Any) -> None:
    done = mw.train(**{**tiny_options(data, tmp_path), "steps": 2}, window=window)
    every = values(data)
    ends = (every.min(), every.max())
    assert load_checkpoint(done.last).meta.window == (ends if window == "minmax" else window)


def test_a_resumed_run_keeps_its_window(data: Path, tmp_path: Path) -> None:
    options = tiny_options(data, tmp_path) | {"window": "0.1,3333.3333333333335"}
    whole = mw.train(**options, name="whole")
    with stopping_after(2):
        part = mw.train(**options, name="part")
    assert part.interrupted
    again = mw.train(resume=part.dir)
    first, second = load_checkpoint(whole.last), load_checkpoint(again.last)
    assert first.meta.window == second.meta.window == (0.1, 3333.3333333333335)
    for key, tensor in first.model.items():
        assert bool((tensor == second.model[key]).all()), key
    with pytest.raises(ValueError, match="window"):
        mw.train(resume=part.dir, window="minmax")


def test_old_checkpoints_have_none() -> None:
    from maskwright.models.meta import Meta

    old = Meta("m", {}, ["a"]).to_dict()
    old.pop("window")
    assert Meta.from_dict(old).window is None
    new = json.loads(json.dumps(Meta("m", {}, ["a"], window=(0.1, 1 / 3)).to_dict()))
    assert Meta.from_dict(new).window == (0.1, 1 / 3)
    for broken in ([1], [2, 1], "wide", [0, "x"], ["nan", 1], 3):
        with pytest.raises(ValueError, match="window"):
            Meta.from_dict({**old, "window": broken})


def test_a_model_of_eight_bits_warns_once(
    data: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    make_split(shallow, "train", 2, 1)
    make_split(shallow, "val", 1, 1)
    done = mw.train(**tiny_options(shallow, tmp_path) | {"epochs": 2})
    assert load_checkpoint(done.last).meta.window is None
    capfd.readouterr()
    mw.val(done.last, data, device="cpu", workers=0)
    assert capfd.readouterr().err.count("window=0,4095") == 1
    with pytest.warns(UserWarning) as caught:
        list(mw.predict(str(done.last), data / "images" / "val", device="cpu"))
    assert sum("window=0,4095" in str(entry.message) for entry in caught) == 1


def test_wrong_windows_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for run in (
        lambda: mw.train("nowhere", window="9,3"),
        lambda: mw.val("nowhere", "nowhere", window="wide"),
        lambda: mw.predict("nowhere", "nowhere", window="1"),
        lambda: mw.export("nowhere", "onnx", window="1,2,3"),
    ):
        with pytest.raises(OptionError, match="window="):
            run()


PHOTO = Path(__file__).parents[2] / "examples/nuclei_mini/images/val/0c6507d493bf79b2.png"


@pytest.mark.filterwarnings("ignore:nuclei", "ignore:mask_rcnn")
def test_counts_do_not_depend_on_the_scale_of_a_photo() -> None:
    predictor = mw.load("nuclei", device="cpu")
    with Image.open(PHOTO) as image:
        grey = np.asarray(image.convert("L"))[:160, :160].astype(np.float64)
    counts = []
    for top in (255, 256, 4095, 4096, 6000, 65535):
        deep = (grey / grey.max() * top).round().astype(np.uint16)
        hot = deep.copy()
        hot[1, 1] = 65535
        counts += [len(predictor(one)) for one in ((deep, hot) if top == 4096 else (hot,))]
    whole = (grey / 255, grey - 300)
    counts += [len(predictor(one.astype(np.float32))) for one in whole]
    counts.append(len(predictor((grey * 100 - 12000).astype(np.int16))))
    assert min(counts) >= 8 and max(counts) - min(counts) <= 1
