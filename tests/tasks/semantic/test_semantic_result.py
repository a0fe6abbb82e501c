"""What a prediction of pixel classes gives to people: files that others read, and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.drawing.label_maps import class_palette
from maskwright.reports.gallery import ResultWriter
from maskwright.reports.gallery_page import gallery_html
from maskwright.tasks.semantic.result import SemanticResult

NAMES = ["background", "cell", "débris"]


def make(probs: bool = True, size: tuple[int, int] = (40, 60)) -> SemanticResult:
    rng = np.random.default_rng(0)
    labels = np.zeros(size, np.uint8)
    labels[5:25, 5:35] = 1
    labels[10:15, 10:20] = 0  # a hole
    labels[30:38, 40:50] = 1
    labels[12, 12] = 2
    image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    values = rng.random((3, *size)).astype(np.float32) if probs else None
    return SemanticResult(labels, image, NAMES, "folder/a.png", {"inference": 3.0}, values)


def test_numbers_of_the_classes() -> None:
    result = make()
    cells = 20 * 30 - 50 + 80
    assert result.pixels == {"background": 2400 - cells - 1, "cell": cells, "débris": 1}
    assert sum(result.shares.values()) == pytest.approx(1)
    assert repr(result) == "a.png: background 74%, cell 26%, débris 0%, 3 ms"
    assert result.counts() == {"background": 1, "cell": 1, "débris": 1}
    assert result.marks()[1] == ("cell", int(1000 * cells / 2400), None)
    assert result.mask("cell").sum() == cells
    data = json.loads(result.to_json())
    assert (data["height"], data["width"]) == (40, 60)
    assert data["classes"][1] == {
        "class": "cell",
        "label": 1,
        "pixels": cells,
        "share": round(cells / 2400, 6),
    }


def test_files_are_read_by_others(tmp_path: Path) -> None:
    result = make()
    writer = ResultWriter(tmp_path / "run", formats="labels,geojson,probs")
    saved = writer.write(result)
    assert saved.counts == result.counts()
    with Image.open(tmp_path / "run" / "labels" / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), result.labels)
        colors = class_palette(NAMES)
        assert np.array_equal(np.asarray(picture.convert("RGB")), colors[result.labels])
    with np.load(tmp_path / "run" / "probs" / "a.npz", allow_pickle=False) as stored:
        assert stored["probs"].dtype == np.float16
        assert np.array_equal(stored["probs"], result.probs.astype(np.float16))
        assert stored["names"].tolist() == NAMES
    tree = json.loads((tmp_path / "run" / "a.geojson").read_text(encoding="utf-8"))
    first, second = tree["features"]
    assert first["properties"]["classification"] == {"name": "cell"}
    assert first["geometry"]["type"] == "MultiPolygon"
    large, small = first["geometry"]["coordinates"]
    assert large == [
        [[5, 5], [35, 5], [35, 25], [5, 25], [5, 5]],
        [[20, 10], [10, 10], [10, 15], [20, 15], [20, 10]],
    ]
    assert small == [[[40, 30], [50, 30], [50, 38], [40, 38], [40, 30]]]
    assert second["geometry"]["coordinates"] == [[[12, 12], [13, 12], [13, 13], [12, 13], [12, 12]]]
    assert second["properties"]["pixels"] == 1
    assert result.save(tmp_path / "b.geojson").read_text(encoding="utf-8") == result.to_geojson()


def test_the_page_of_a_run_tells_shares(tmp_path: Path) -> None:
    saved = ResultWriter(tmp_path / "run").write(make())
    page = gallery_html([saved], tmp_path / "run", "title")
    assert "share from <input" in page and "score from" not in page


def test_pictures_have_the_size_of_the_image_or_a_legend_below_it(tmp_path: Path) -> None:
    result = make(size=(400, 600))
    assert result.plot(labels=False).size == (600, 400)
    width, height = result.plot().size
    assert width == 600 and height > 400
    assert make().plot().width >= 320
    assert result.save(tmp_path / "a.jpg").is_file()
    assert result._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="predict with probs=true"):
        make(probs=False).save_probs(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        make().save_probs(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"must end in \.png"):
        make().save_labels(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="not in list"):
        make().mask("nucleus")
