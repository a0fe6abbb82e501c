"""`check_data`: what it finds, counts and draws."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data import check_data

Scene = Any  # of conftest.py


def test_mini_set(nuclei_mini: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    report = check_data(
        nuclei_mini, save=tmp_path, samples=5, progress=lambda *call: calls.append(call)
    )
    assert report.ok
    assert report.faults == []
    assert (report.splits["train"].images, report.splits["train"].objects) == (32, 926)
    assert report.splits["val"].per_class == {"nucleus": 405}
    assert sum(report.splits["val"].by_size.values()) == 405
    assert calls[-1] == ("val", 12, 12)
    assert {path.name for path in report.saved} == {
        "faults.csv",
        "report.txt",
        "statistics.png",
        "train_samples.png",
        "val_samples.png",
    }
    with Image.open(tmp_path / "train_samples.png") as mosaic:
        assert mosaic.size == (960, 640)
    assert "faults: none" in str(report)


def test_faults_that_only_decoding_finds(scene: Scene, tmp_path: Path) -> None:
    scene.content["images"] += [
        {"id": 1, "file_name": "cut.png", "height": 30, "width": 40},
        {"id": 2, "file_name": "other.png", "height": 30, "width": 40},
        {"id": 3, "file_name": "turned.png", "height": 30, "width": 40},
    ]
    # Too thin to hold the centre of a pixel.
    scene.first["segmentation"] = [[2.55, 2, 2.58, 12, 2.56, 12]]
    scene.first["bbox"] = [2.5, 2, 0.1, 10]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    noise.save(scene.folder / "cut.png")
    data = (scene.folder / "cut.png").read_bytes()
    (scene.folder / "cut.png").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (41, 30)).save(scene.folder / "other.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(scene.folder / "turned.png", exif=exif)
    report = check_data(scene.write(), save=tmp_path / "out")
    found = {(fault.kind, fault.action) for _, fault in report.faults}
    assert found == {
        ("unreadable image", "error"),
        ("image of another size", "error"),
        ("EXIF orientation", "repaired"),
        ("empty mask", "left out"),
    }
    assert not report.ok
    with (tmp_path / "out" / "faults.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert any(row["file"].endswith("cut.png") for row in rows)


def test_split_that_does_not_fit(scene: Scene, tmp_path: Path) -> None:
    scene.write()
    scene.content["categories"][0]["name"] = "wolf"
    scene.content["images"][0]["file_name"] = "b.png"
    scene.file = tmp_path / "val.json"
    scene.write()
    report = check_data(tmp_path)
    assert [(split, fault.kind) for split, fault in report.faults] == [("val", "unusable split")]
    assert "wolf" in str(report)


def test_notes(scene: Scene, tmp_path: Path) -> None:
    scene.write()
    scene.content["annotations"].pop()
    scene.content["annotations"] *= 1
    scene.content["annotations"] += [{**scene.first, "id": 10 + i} for i in range(120)]
    scene.file = tmp_path / "val.json"
    scene.write()
    notes = "\n".join(check_data(tmp_path).notes)
    assert "same image" in notes
    assert "max_det=121" in notes
    assert "fewer than 10 objects" in notes


def test_samples_out_of_range(nuclei_mini: Path) -> None:
    with pytest.raises(ValueError, match="samples"):
        check_data(nuclei_mini, samples=-1)
