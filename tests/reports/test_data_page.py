"""`maskwright data stats`: its numbers against a count by hand, and the page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.data.checking.overview import overview
from maskwright.data.checking.statistics import statistics
from maskwright.reports.data_page import describe_data


def scenes(root: Path, seed: int) -> dict[str, Any]:
    """Images of three sizes with boxes of three classes, some of them crowds."""
    rng = np.random.default_rng(seed)
    sizes = [(40, 60), (50, 60), (200, 300)]
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate("abc")],
    }
    for number in range(1, 9):
        height, width = sizes[number % 3]
        Image.new("RGB", (width, height), (number, 0, 0)).save(root / f"{seed}_{number}.png")
        name = f"{seed}_{number}.png"
        content["images"].append(
            {"id": number, "file_name": name, "height": height, "width": width}
        )
        for _ in range(int(rng.integers(0, 6))):
            x, y = rng.uniform(0, [width - 30, height - 30]).round(2).tolist()
            w, h = rng.uniform(2, 28, 2).round(2).tolist()
            entry = {"id": len(content["annotations"]) + 1, "image_id": number}
            entry |= {"category_id": int(rng.integers(1, 4)), "bbox": [x, y, w, h]}
            entry["iscrowd"] = int(rng.random() < 0.2)
            content["annotations"].append(entry)
    rng.shuffle(content["annotations"])
    return content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, split in enumerate(("train", "val")):
        (tmp_path / f"{split}.json").write_text(json.dumps(scenes(tmp_path, seed)))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_numbers_against_a_count_by_hand(split: str, data: Path) -> None:
    content = json.loads((data / f"{split}.json").read_text())
    objects = [one for one in content["annotations"] if not one["iscrowd"]]
    stats = statistics(open_dataset(data, split))
    assert stats.images == 8 and stats.objects == len(objects)
    assert stats.crowds == len(content["annotations"]) - len(objects)
    named = Counter("abc"[one["category_id"] - 1] for one in objects)
    assert stats.per_class == {name: named[name] for name in "abc"}
    counts = Counter(one["image_id"] for one in objects)
    assert stats.per_image.tolist() == [counts[number] for number in range(1, 9)]
    assert stats.without_objects == sum(not counts[number] for number in range(1, 9))
    sizes = Counter((one["height"], one["width"]) for one in content["images"])
    assert stats.image_sizes == sizes
    size_of = {one["id"]: one["height"] * one["width"] for one in content["images"]}
    expected = sorted((*one["bbox"][2:], one["bbox"][2] * one["bbox"][3]) for one in objects)
    found = sorted(zip(*stats.sides.T.tolist(), stats.areas.tolist(), strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    shares = sorted(one["bbox"][2] * one["bbox"][3] / size_of[one["image_id"]] for one in objects)
    np.testing.assert_allclose(np.sort(stats.shares), shares, rtol=1e-9)
    few = statistics(open_dataset(data, split).select([3, 1]))
    assert few.per_image.tolist() == [counts[4], counts[2]]
    assert few.objects == counts[4] + counts[2]


def test_tables(data: Path) -> None:
    tables = {title: (header, rows) for title, header, rows in overview(data).tables}
    header, rows = tables["Sizes and shapes of the objects"]
    by_name = {(row[0], row[1]): row[2:] for row in rows}
    sides = statistics(open_dataset(data)).sides
    assert by_name["train", "width, pixels"][2] == float(f"{np.median(sides[:, 0]):.3g}")
    assert by_name["train", "height, pixels"][4] == float(f"{sides[:, 1].max():.3g}")
    assert header[2:] == ["least", "5 %", "median", "95 %", "most"]
    sizes = {row[0]: row[1:] for row in tables["Sizes of the images, width x height"][1]}
    assert sizes == {"60 x 50": [3, 3], "60 x 40": [2, 2], "300 x 200": [3, 3]}


def test_the_command_and_its_page(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert main(["data", "stats", "data=.", "samples=2"]) == 0
    out = capsys.readouterr().out
    assert "Sizes and shapes of the objects" in out and "runs/stats/stats/report.html" in out
    page = (data / "runs/stats/stats/report.html").read_text()
    assert page.count("data:image/png;base64") == 3  # statistics, samples of two splits
    assert "Sizes of the images, width x height" in page and "<b>16</b><span>images" in page
    made = describe_data(data)
    assert made.page is None and made.faults == 2  # of both splits, that many are crowd regions
    assert main(["data", "stats", "data=.", "samples=-1"]) == 2


def test_images_with_labels(tmp_path: Path) -> None:
    for k in range(4):
        for name in ("cat", "dog"):
            place = tmp_path / f"train/{name}/{k}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + k // 3, 6)).save(place)
    tables = {title: rows for title, _, rows in overview(tmp_path).tables}
    assert tables["Images by class"] == [["cat", 4], ["dog", 4]]
    assert tables["Sizes of the images, width x height"] == [["8 x 6", 6], ["9 x 6", 2]]
