"""`check_data`: what it finds, counts and draws."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskwright.data import check_data, open_dataset
from maskwright.data.checking import figures as check_figures
from maskwright.data.checking.statistics import SplitStats
from maskwright.drawing.draw import CROWD
from maskwright.reports.data_page import describe_data

pytestmark = pytest.mark.figures

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
        # Three columns and two rows of pictures, 480 pixels each, with gaps and titles.
        assert 3 * 480 < mosaic.width < 3 * 500 and 2 * 480 < mosaic.height < 2 * 550
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
    assert "image(s) of val are also in train" in notes
    assert "max_det=121" in notes
    assert "fewer than 10 objects" in notes


def test_samples_out_of_range(nuclei_mini: Path) -> None:
    with pytest.raises(ValueError, match="samples"):
        check_data(nuclei_mini, samples=-1)


def test_samples_are_drawn_as_in_training(scene: Scene, tmp_path: Path) -> None:
    scene.content["images"][0].update(width=40, height=30)
    first = {**scene.first, "id": 1, "bbox": [2, 2, 12, 12], "iscrowd": 0}
    first["segmentation"] = [[2, 2, 14, 2, 14, 14, 2, 14]]
    crowd = {**first, "id": 2, "iscrowd": 1, "bbox": [20, 10, 15, 15], "area": 225}
    crowd["segmentation"] = [[20, 10, 35, 10, 35, 25, 20, 25]]
    scene.content["annotations"] = [first, crowd]
    data = open_dataset(scene.write(), "train")
    index = next(i for i in range(len(data)) if len(data[i].boxes))
    tile = np.asarray(check_figures._draw_tile(data, index)).astype(int)
    scale = tile.shape[1] / 40

    def edge(x: float, y: float) -> list[list[int]]:
        """Return the pixels near a point at the left edge of a mask."""
        near: list[list[int]] = tile[
            round(y * scale), round(x * scale) - 3 : round(x * scale) + 4
        ].tolist()
        return near

    assert list(CROWD) in edge(20, 20)
    assert list(CROWD) not in edge(2, 12)
    mosaic = check_figures.draw_samples(data, 4)
    assert mosaic is not None and mosaic.size[0] > check_figures.TILE


def test_statistics_are_legible_and_in_the_common_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.text import Text

    kept: list[Any] = []
    monkeypatch.setattr(check_figures, "save_figure", lambda figure, path: kept.append(figure))
    names = [f"{'long ' * 40}{k}" for k in range(100)]
    stats = SplitStats(
        2, per_class=dict.fromkeys(names, 3), per_image=np.array([300, 0]),
        areas=np.full(300, 900.0), image_sizes=Counter({(30, 40): 2}),
    )  # fmt: skip
    check_figures.plot_statistics({"train": stats, "val": stats}, tmp_path / "s.png")
    check_figures.plot_statistics({"train": SplitStats(per_class={"a": 0})}, tmp_path / "s.png")
    figure = kept[0]
    texts = [one for one in figure.findobj(Text) if one.get_text().strip()]
    assert all(t.get_fontsize() * 500 / 72 / figure.get_figwidth() >= 7 for t in texts)
    first = figure.axes[0]
    assert first.get_title(loc="left") == "600 objects, 100 classes"
    assert first.get_xlabel() == "objects of the 20 most frequent classes"
    assert [round(bar.get_width()) for bar in first.patches] == [3] * 40
    assert max(len(t.get_text()) for t in first.get_yticklabels()) < 30


def test_images_of_two_splits_are_counted(scene: Scene, tmp_path: Path) -> None:
    scene.write()
    notes = check_data({"train": str(scene.file), "val": str(scene.file)}).notes
    (note,) = [note for note in notes if "tell nothing" in note]
    assert note.startswith("2 image(s) of val are also in train, first ") and "a.png:" in note


def test_pages_and_channels_are_those_of_a_training(scene: Scene) -> None:
    """A file that lacks the page or a channel is found before a training stops at it."""
    rng = np.random.default_rng(1)
    for name, pages, channels in (("a.tif", 3, 5), ("b.tif", 2, 4)):
        stack = rng.integers(0, 4096, (pages, 30, 40, channels), np.uint16)
        with tifffile.TiffWriter(scene.folder / name) as out:
            for one in stack:
                out.write(one, photometric="minisblack", planarconfig="contig")
    for image, name in zip(scene.content["images"], ("a.tif", "b.tif"), strict=True):
        image["file_name"] = name
    scene.write()

    def errors(**options: Any) -> list[str]:
        report = check_data({"train": str(scene.file)}, **options)
        return [one.message for _, one in report.faults if one.action == "error"]

    assert [text.partition("b.tif ")[2] for text in errors()] == [
        "has 4 channels, and the images of the training data have 5, of which all are taken; "
        "choose as many by channels=, of which one may stand twice, as in channels=0,1,2,3,3"
    ]
    assert errors(channels="3,0", page="1") == []
    (text,) = errors(channels=(3, 0), page=2)
    assert text.endswith("b.tif has 2 pages, numbered from 0: there is no page=2")
    (text,) = errors(channels=4)
    assert text.endswith("b.tif has 4 channels, numbered from 0, but channels=4 is asked for")
    assert (
        describe_data({"train": str(scene.file)}, page=1, channels=(1, 2), samples=1).page is None
    )
    with pytest.raises(ValueError, match=r"page=0-1: .*one page of each file"):
        check_data(str(scene.file), page="0-1")
