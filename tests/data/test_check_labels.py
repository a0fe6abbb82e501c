"""`data check` of labelled images: it knows them by itself, and says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli import main
from maskwright.data import CheckReport, check_data, open_dataset
from maskwright.data.checking.inspection import inspect_images

RNG = np.random.default_rng(0)


def picture(path: Path, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (14, 16, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def sound(root: Path, *, train: int = 11, val: int = 3) -> Path:
    for split, count in (("train", train), ("val", val)):
        for name in ("cat", "dog"):
            for k in range(count):
                picture(root / split / name / f"{k}.png")
    return root


def found(report: CheckReport) -> dict[str, str]:
    return {fault.kind: fault.action for _, fault in report.faults}


def test_sound_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = sound(tmp_path / "data")
    report = check_data(data, save=tmp_path / "out", samples=4)
    assert report.ok and not report.faults and not report.notes
    assert "train: 22 images\n  classes: cat 11, dog 11\n" in str(report)
    assert "image sizes (width x height): 16x14 (22)" in str(report)
    names = {path.name for path in report.saved}
    assert names == {
        *("faults.csv", "train_samples.png", "val_samples.png", "statistics.png", "report.txt"),
    }
    assert main(["data", "check", f"data={data}", "save=false"]) == 0
    text = capsys.readouterr().out
    assert "Images by class" in text and "several labels" in text


def test_everything_that_can_be_wrong(tmp_path: Path) -> None:
    root = sound(tmp_path, train=12)
    twin = Image.open(root / "train/cat/0.png")
    twin.save(root / "val/cat/again.bmp")  # other bytes, same pixels
    twin.save(root / "train/dog/copy.png", compress_level=0)
    (root / "train/cat/1.png").write_bytes((root / "train/cat/1.png").read_bytes()[:200])
    (root / "train/cat/2.png").write_bytes(b"")
    picture(root / "train/dog/grey.png", "L")
    picture(root / "train/dog/clear.png", "RGBA")
    (root / "train/fish").mkdir()
    report = check_data(root)
    assert found(report) == {
        "empty image file": "left out",
        "unreadable image": "error",
        "class without images": "kept",
        "duplicate image": "kept",
    }
    assert not report.ok
    text = str(report)
    assert "One is dog, the other cat" in text
    assert "1 image(s) of val are also in train, first" in text
    assert "train: 1 of 26 image(s) of mode L are read" in text
    assert "train: 1 of 26 image(s) of mode RGBA are read" in text
    assert "no image of 'fish'" in text


def test_classes_that_differ_between_splits(tmp_path: Path) -> None:
    root = sound(tmp_path)
    picture(root / "val/Fish/0.png")
    report = check_data(root)
    assert found(report) == {"unusable split": "error"} and set(report.splits) == {"train"}
    assert "class(es) ['Fish'], but the known classes are ['cat', 'dog']" in str(report)
    (root / "val/Fish").rename(root / "train/Fish")
    report = check_data(root)
    assert report.ok and found(report) == {"class without images": "kept"}
    assert "note: fewer than 10 images to learn from: Fish" in str(report)
    assert "note: cat has 11 images, Fish 1: weigh the classes" in str(report)


def test_one_class_or_one_image(tmp_path: Path) -> None:
    picture(tmp_path / "a/train/only/0.png")
    report = check_data(tmp_path / "a")
    assert found(report) == {"one class": "error", "too few images": "error"}
    assert "one class only, 'only': a classifier tells two or more apart" in str(report)


def test_several_labels_and_groups(tmp_path: Path) -> None:
    rows = ["path,label,patient"]
    for k in range(4):
        picture(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{'a;b' if k else ''},p{k % 2}")
    (tmp_path / "x.csv").write_text("\n".join(rows))
    report = check_data(tmp_path)
    assert report.ok
    assert "train: 4 images (1 without a label, 3 with several, 2 groups)" in str(report)


def test_a_look_at_the_files_before_a_training(tmp_path: Path) -> None:
    """Sizes are not known before the files are seen; of many, some are decoded."""
    root = sound(tmp_path)
    (root / "train/dog/3.png").write_bytes((root / "train/dog/3.png").read_bytes()[:300])
    data = open_dataset(root, records="labels")
    whole = inspect_images(data)
    assert (whole.images, whole.decoded) == (22, 22)
    assert [data[index].path.name for index, _ in whole.broken] == ["3.png"]
    some = inspect_images(data, pixels=16 * 14 * 11)
    assert 11 <= some.decoded <= 13 and some.broken == whole.broken
