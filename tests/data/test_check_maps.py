"""`data check` of label maps: it knows them by itself, draws them, and tells what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from map_files import numbers, pair, photo, save
from PIL import Image

from maskwright.cli import main
from maskwright.data import CheckReport, check_data
from maskwright.data.checking.inspection import inspect_images
from maskwright.data.checking.maps import interpolated
from maskwright.data.discover import open_dataset


def sound(root: Path) -> Path:
    for split, count in (("train", 12), ("val", 3)):
        for i in range(count):
            pair(root, f"{split}/images/{i}.png", f"{split}/masks/{i}.png", numbers(0, 1, 2, 255))
    (root / "classes.txt").write_text("road\nsky\ntree\n")
    return root


def found(report: CheckReport) -> dict[str, str]:
    return {fault.kind: fault.action for _, fault in report.faults}


def test_sound_label_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sound(tmp_path / "data")
    report = check_data(root, save=tmp_path / "out", samples=5)
    assert report.ok and not report.faults and not report.notes
    text = str(report)
    assert "train: 12 images, 25 % of the pixels ignored\n" in text
    assert "classes, by their share of the others: road 33.3 %, sky 33.3 %, tree 33.3 %" in text
    assert "image sizes (width x height): 12x10 (12)" in text
    names = {path.name for path in report.saved}
    assert names == {
        *("faults.csv", "train_samples.png", "val_samples.png", "statistics.png", "report.txt"),
    }
    assert all(path.stat().st_size for path in report.saved if path.name != "faults.csv")
    assert main(["data", "check", f"data={root}", "save=false"]) == 0
    out = capsys.readouterr().out
    assert "Pixels by class, in percent" in out and "33.33 " in out
    assert main(["data", "check", f"data={root}", "save=false", "ignore=1,tree"]) == 1
    assert "has one class only, 'road'" in capsys.readouterr().out


def test_the_drawing_shows_the_classes(tmp_path: Path) -> None:
    """Each class has a colour of its own in the mosaic, that of its table where there is one."""
    root = tmp_path / "data"
    for i in range(4):
        colors = np.array([(250, 0, 0), (0, 0, 250)], np.uint8)
        Image.new("RGB", (120, 100), (128, 128, 128)).save(photo(root / f"images/{i}.png"))
        save(root / f"masks/{i}.png", colors[numbers(0, 1, size=(100, 120))])
    (root / "class_dict.csv").write_text("name,r,g,b\na,250,0,0\nb,0,0,250\n")
    check_data(root, save=tmp_path / "out", samples=1)
    pixels = np.array(Image.open(tmp_path / "out/train_samples.png").convert("RGB"), np.int64)
    reddish = (pixels[..., 0] > pixels[..., 2] + 80).mean()
    bluish = (pixels[..., 2] > pixels[..., 0] + 80).mean()
    assert 0.2 < reddish < 0.5 and 0.2 < bluish < 0.5


def test_everything_that_can_be_wrong(tmp_path: Path) -> None:
    root = sound(tmp_path)
    save(root / "train/masks/0.png", numbers(0, 7))
    save(root / "train/masks/1.png", numbers(0, 1, size=(10, 13)))
    save(root / "train/masks/2.png", numbers(255))
    (root / "train/masks/3.png").write_bytes((root / "train/masks/4.png").read_bytes()[:60])
    photo(root / "train/masks/5.jpg")
    (root / "train/masks/5.png").unlink()
    (root / "train/masks/6.png").unlink()
    (root / "train/images/7.png").write_bytes((root / "train/images/8.png").read_bytes())
    photo(root / "train/images/lonely.png")
    save(root / "train/masks/extra.png", numbers(0))
    (root / "classes.txt").write_text("road\nsky\ntree\nriver\n")
    report = check_data(root)
    assert found(report) == {
        "value without a class": "error",
        "image of another size": "error",
        "unreadable label map": "error",
        "nothing but ignored pixels": "kept",
        "JPEG label map": "left out",
        "image without a label map": "left out",
        "label map without an image": "left out",
        "duplicate image": "kept",
        "class without pixels": "kept",
    }
    assert not report.ok
    text = str(report)
    assert "0.png: 60 pixel(s) have the value 7, the first at x=6, y=0" in text
    assert "label map" in text and "1.png is 13x10 pixels, its image" in text
    assert "has no pixel of 'river'" in text
    assert "train: 10 images, 1 of them without a class" in text


def test_classes_of_one_split_alone(tmp_path: Path) -> None:
    root = sound(tmp_path)
    for i in range(12):
        save(root / f"train/masks/{i}.png", numbers(0, 1))
    one = numbers(0, 0, 0, 1)
    one[0, 0] = 2
    save(root / "val/masks/0.png", one)
    report = check_data(root)
    assert report.ok and found(report) == {"class without pixels": "kept"}
    assert "note: in val but never in train: tree" in str(report)
    for i in range(12):
        save(root / f"train/masks/{i}.png", numbers(0, size=(10, 12)))
    few = numbers(0)
    few[0, 0] = 1
    save(root / "train/masks/0.png", few)
    text = str(check_data(root))
    assert "in fewer than 10 images to learn from: sky" in text
    assert "road has 99.9 % of the pixels, sky 0.069 %: weigh the classes" in text


def test_a_class_of_val_that_no_table_names(tmp_path: Path) -> None:
    root = sound(tmp_path)
    (root / "classes.txt").unlink()
    save(root / "val/masks/1.png", numbers(0, 9))
    report = check_data(root)
    assert found(report) == {"classes without names": "kept", "value without a class": "error"}
    assert "1.png: 60 pixel(s) have the value 9" in str(report)


def test_nothing_to_learn(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.png", "masks/a.png", numbers(255))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    report = check_data(tmp_path)
    assert found(report)["nothing to learn"] == found(report)["too few images"] == "error"
    assert "no pixel of its 1 label maps has a class" in str(report)


def test_maps_that_were_interpolated(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :160]
    labels = np.uint8(8) * ((y - 60) ** 2 + (x - 80) ** 2 < 40**2) + np.uint8(2) * (x > 120)
    assert interpolated(labels) == 0
    thin = labels.copy()
    thin[:, 60] = 4  # a pole before two others is no accident of resizing
    assert interpolated(thin) == 0
    soft = Image.fromarray(labels).resize((80, 60), Image.Resampling.BILINEAR)
    assert interpolated(np.array(soft)) >= 20
    for i in range(3):
        photo(tmp_path / f"images/{i}.png", (60, 80))
        soft.save(tmp_path / "masks" / f"{i}.png") if i else save(
            tmp_path / "masks/0.png", labels[::2, ::2]
        )
    (tmp_path / "classes.txt").write_text("".join(f"c{i}\n" for i in range(11)))
    report = check_data(tmp_path)
    assert found(report)["interpolated labels"] == "kept" and report.ok
    assert sum(fault.kind == "interpolated labels" for _, fault in report.faults) == 2


def test_what_is_looked_at_can_be_chosen(tmp_path: Path) -> None:
    root = sound(tmp_path)
    (root / "train.csv").write_text("path,label,x1,y1,x2,y2\ntrain/images/0.png,cat,1,1,5,5\n")
    assert "objects" in str(check_data(root))
    report = check_data(root, records="maps")
    assert "of the pixels ignored" in str(report) and set(report.splits) == {"train", "val"}


def test_a_look_at_the_files_before_a_training(tmp_path: Path) -> None:
    root = sound(tmp_path)
    (root / "train/images/3.png").write_bytes((root / "train/images/3.png").read_bytes()[:100])
    look = inspect_images(open_dataset(root, records="maps"))
    assert look.images == 12 and len(look.broken) == 1


def test_camvid_and_maps_of_objects(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "labelme_voc"
    report = check_data(root / "voc", records="maps", save=tmp_path / "a")
    assert report.ok and "person" in str(report)
    report = check_data(root / "coco", records="maps", save=tmp_path / "b")
    assert report.ok and "background" in str(report)
    assert (tmp_path / "b/train_samples.png").is_file()
