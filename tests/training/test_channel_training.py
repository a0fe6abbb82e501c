"""Trainings on 16-bit images of four channels: kept in the checkpoint, used by val and predict."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiny_runs import make_split, stopping_after, tiny_options

import maskwright as mw
from maskwright.data.checking.check import check_data
from maskwright.data.discover import open_dataset
from maskwright.errors import OptionError
from maskwright.models.meta import Meta
from maskwright.storage.checkpoint import load_checkpoint

STEM = "backbone.body.body.conv_stem.weight"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coins whose picture stands in four channels of 16 bits, the last one constant."""
    root = tmp_path_factory.mktemp("coins")
    for split, count, seed in (("train", 4, 1), ("val", 2, 2)):
        make_split(root, split, count, seed)
        for file in (root / "images" / split).glob("*.png"):
            with Image.open(file) as image:
                colours = np.asarray(image).astype(np.uint16) * 97 + 13
            four = np.concatenate([colours, np.full_like(colours[..., :1], 400)], 2)
            options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
            tifffile.imwrite(file.with_suffix(".tif"), four, **options)
            file.unlink()
        notes = root / "annotations" / f"{split}.json"
        notes.write_text(notes.read_text().replace(".png", ".tif"))
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = tiny_options(data, tmp_path_factory.mktemp("runs")) | {"photometric": True}
    return Path(mw.train(**options | {"steps": 2}).last)


def test_all_channels_are_taken_in_full_depth(data: Path, trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert checkpoint.meta.channels == [0, 1, 2, 3]
    assert checkpoint.meta.args["input_channels"] == 4
    assert checkpoint.model[STEM].shape[1] == 4
    dataset = open_dataset(data, "train")
    dataset.window, dataset.channels = checkpoint.meta.window, (0, 1, 2, 3)
    low, high = checkpoint.meta.window or (0.0, 0.0)
    stored = tifffile.imread(dataset[0].path).astype(np.float64)
    expected = (stored.clip(low, high) - low) * 255 / (high - low)
    np.testing.assert_allclose(dataset.image(0), expected, atol=2e-5)


def test_data_of_other_channels_are_checked_and_drawn(data: Path, tmp_path: Path) -> None:
    report = check_data(data, save=tmp_path / "check")
    assert not [fault for fault in report.faults if fault.action == "error"]
    assert "4 images have more than 8 bits" in str(report) or "all images have more" in str(report)
    assert list((tmp_path / "check").rglob("*.jpg")) or list((tmp_path / "check").rglob("*.png"))


def test_val_and_predict_see_the_same(data: Path, trained: Path) -> None:
    mw.val(trained, data, device="cpu", workers=0)
    predictor = mw.load(trained, device="cpu")
    file = data / "images" / "val" / "val0.tif"
    found = predictor(file, conf=0.0)
    assert found.image.shape == (72, 96, 3) and found.image.dtype == np.uint8
    assert found.plot().size == (96, 72)
    given = predictor(tifffile.imread(file)[..., [3, 2, 1, 0]], conf=0.0, channels=(3, 2, 1, 0))
    np.testing.assert_array_equal(found.boxes, given.boxes)
    (streamed,) = mw.predict(predictor, file, conf=0.0, save=False)
    np.testing.assert_array_equal(found.boxes, streamed.boxes)


def test_other_numbers_of_channels_say_what_was_trained(data: Path, trained: Path) -> None:
    predictor = mw.load(trained, device="cpu")
    said = r"trained with 4 channels \(channels=0,1,2,3\)"
    for wrong in (np.zeros((20, 20, 3), np.uint16), np.zeros((20, 20), np.uint8)):
        with pytest.raises(ValueError, match=said):
            predictor(wrong)
    with pytest.raises(OptionError, match=said):
        predictor(data / "images" / "val" / "val0.tif", channels=(0, 1))


def test_files_of_more_channels_are_refused_unless_some_are_chosen(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    assert load_checkpoint(trained).meta.all_channels
    more = shutil.copytree(data, tmp_path / "more")
    for split in ("train", "val"):
        file = more / "images" / split / f"{split}0.tif"
        samples = tifffile.imread(file)
        options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(file, np.concatenate([samples, samples[..., :1]], 2), **options)
    predictor = mw.load(trained, device="cpu")
    said = r"has 5 channels, and the images of the training data have 4.*trained with 4 channels"
    with pytest.raises(ValueError, match=said):
        predictor(file)
    with pytest.raises(ValueError, match=said):
        predictor(tifffile.imread(file))
    four = predictor(data / "images" / "val" / "val0.tif", conf=0.0)
    np.testing.assert_array_equal(predictor(file, conf=0.0, channels="0,1,2,3").boxes, four.boxes)
    with pytest.raises(ValueError, match=r"val0\.tif has 5 channels"):
        mw.val(trained, more, device="cpu", workers=0)
    runs = tiny_options(more, tmp_path / "runs") | {"steps": 1, "val_every": 9, "warmup": 0}
    chosen = load_checkpoint(mw.train(**runs, channels="0,1,2,3").last)
    assert chosen.meta.channels == [0, 1, 2, 3] and not chosen.meta.all_channels
    with pytest.raises(ValueError, match=r"train\d\.tif has 4 channels, and the images.*have 5"):
        mw.train(**runs)


def test_chosen_channels(data: Path, tmp_path: Path) -> None:
    """One channel makes a network of one; three in another order are what colours were."""
    options = tiny_options(data, tmp_path) | {"steps": 1, "val_every": 9, "warmup": 0}
    one = load_checkpoint(mw.train(**options, channels=2).last)
    assert one.meta.channels == [2] and one.meta.args["input_channels"] == 1
    three = load_checkpoint(mw.train(**options, channels="2,0,1").last)
    assert three.meta.channels == [2, 0, 1] and "input_channels" not in three.meta.args
    with pytest.raises(ValueError, match=r"train\d\.tif.*4 channels.*channels=0,9"):
        mw.train(**options, channels=(0, 9))
    mixed = shutil.copytree(data, tmp_path / "mixed")
    tifffile.imwrite(mixed / "images" / "train" / "train1.tif", np.zeros((72, 96), np.uint16))
    with pytest.raises(
        ValueError, match=r"train1\.tif has one channel, and the images.*have 4, of"
    ):
        mw.train(**options | {"data": mixed})


def test_a_resumed_run_keeps_its_channels(data: Path, tmp_path: Path) -> None:
    options = tiny_options(data, tmp_path) | {"steps": 3, "val_every": 9}
    whole = mw.train(**options, name="whole")
    with stopping_after(2):
        part = mw.train(**options, name="part")
    assert part.interrupted
    first, second = (load_checkpoint(run.last) for run in (whole, mw.train(resume=part.dir)))
    assert first.meta.channels == second.meta.channels == [0, 1, 2, 3]
    for key, tensor in first.model.items():
        assert bool((tensor == second.model[key]).all()), key


def test_a_new_start_takes_the_filters_along(data: Path, trained: Path, tmp_path: Path) -> None:
    options = tiny_options(data, tmp_path) | {
        "steps": 1,
        "val_every": 9,
        "lr": 1e-9,
        "warmup": 0,
        "weights": trained,
    }
    again = load_checkpoint(mw.train(**options).last).model
    before = load_checkpoint(trained).model
    torch.testing.assert_close(before[STEM], again[STEM], atol=1e-5, rtol=1e-4)
    fewer = load_checkpoint(mw.train(**options, channels=(0, 1)).last).model
    torch.testing.assert_close(fewer[STEM], 2 * before[STEM][:, :2], atol=1e-5, rtol=1e-4)


def test_a_description_keeps_its_channels() -> None:
    assert Meta.from_dict(Meta("m", {}, ["a"], channels=[3, 0]).to_dict()).channels == [3, 0]
    for broken in ([], ["a"], "0", 3):
        with pytest.raises(ValueError, match="channels"):
            Meta.from_dict({**Meta("m", {}, ["a"]).to_dict(), "channels": broken})
