"""Images that are added to a COCO data set are read as they were drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_help import encoded

from maskwright.data import open_dataset
from maskwright.data.formats.coco.append import FILE, Drawn, add_image, fill_rings
from maskwright.ops.outlines import trace_parts
from maskwright.ops.rle import rasterise_polygons

SIZE = (40, 60)


def test_filled_outlines_are_the_masks_that_were_traced() -> None:
    rng = np.random.default_rng(0)
    for density in (0.2, 0.5, 0.9):
        mask = rng.random(SIZE) < density
        parts = trace_parts(mask, (0, 0, SIZE[1], SIZE[0]))
        rings = [np.asarray(r, float) for part in parts for r in (part.outline, *part.holes)]
        crop, (left, top) = fill_rings(rings, SIZE)
        filled = np.zeros(SIZE, bool)
        filled[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        assert (filled == mask).all()


def test_slanted_outlines_are_those_of_pycocotools_but_for_the_rim() -> None:
    star = np.array(
        [[30.0, 2], [36, 15], [55, 16], [40, 24], [45, 38], [30, 30], [10, 37], [20, 20]]
    )
    crop, (left, top) = fill_rings([star], SIZE)
    ours = np.zeros(SIZE, bool)
    ours[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    other, (x1, y1, x2, y2) = rasterise_polygons([star.ravel().tolist()], SIZE)
    theirs = np.zeros(SIZE, bool)
    theirs[y1:y2, x1:x2] = other
    rim = theirs.sum() - (theirs[1:-1, 1:-1] & theirs[:-2, 1:-1] & theirs[2:, 1:-1]).sum()
    assert (ours ^ theirs).sum() < 0.6 * rim


def draw(row: object) -> Drawn:
    return Drawn.read(row, SIZE)


def test_a_set_that_grows_is_read_back(tmp_path: Path) -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    square = {"name": "cell", "rings": [[[5, 5], [15, 5], [15, 12], [5, 12]]], "box": [0, 0, 9, 9]}
    plain = {"name": "other", "box": [20, 10, 70, 30]}
    names = ["cell", "nucleus"]
    first = add_image(tmp_path, "a.png", encoded(image), SIZE, [draw(square), draw(plain)], names)
    second = add_image(tmp_path, "a.png", encoded(image + 1), SIZE, [], names)
    assert (first.name, second.name) == ("a.png", "a-2.png")
    again = add_image(tmp_path, "a.png", encoded(image), SIZE, [draw(square)], names)
    assert again == first
    content = json.loads((tmp_path / FILE).read_text())
    assert [one["name"] for one in content["categories"]] == ["cell", "nucleus", "other"]
    (row,) = content["annotations"]
    assert row["bbox"] == [5, 5, 10, 7] and row["area"] == 70
    data = open_dataset(tmp_path, "train")
    assert len(data) == 2
    with Image.open(second) as picture:
        assert (np.asarray(picture) == 1).all()
    objects = {data[k].path.name: data[k] for k in range(2)}
    assert len(objects["a.png"].boxes) == 1 and len(objects["a-2.png"].boxes) == 0
    assert objects["a.png"].boxes[0].tolist() == [5, 5, 15, 12]


def test_places_are_cut_to_the_image() -> None:
    one = draw({"name": " cell ", "box": [-5, -5, 100, 20], "points": [[1, 2, 0.5], [3, 4, 0]]})
    assert one.name == "cell" and one.box == (0, 0, 60, 20)
    assert one.points == [(1, 2, True), (3, 4, False)]


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {"box": [0, 0, 5, 5]},
        {"name": "", "box": [0, 0, 5, 5]},
        {"name": "a\nb", "box": [0, 0, 5, 5]},
        {"name": "a" * 201, "box": [0, 0, 5, 5]},
        {"name": "a", "box": "0,0,5,5"},
        {"name": "a", "box": [0, 0, 5]},
        {"name": "a", "box": [0, 0, float("nan"), 5]},
        {"name": "a", "box": [0, 0, float("inf"), 5]},
        {"name": "a", "box": [70, 0, 90, 5]},
        {"name": "a", "box": [0, 0, 5, 5], "rings": [[[0, 0], [1, 1]]]},
        {"name": "a", "box": [0, 0, 5, 5], "rings": 5},
        {"name": "a", "box": [0, 0, 5, 5], "rings": [[["x", 0], [1, 1], [2, 2]]]},
        {"name": "a", "box": [0, 0, 5, 5], "points": [[1, 2]]},
        {"name": "a", "box": [0, 0, 5, 5], "rings": [[[0, 0], [1, 1], [2, 2]]] * 70_000},
    ],
)
def test_what_is_no_object_is_refused(row: object) -> None:
    with pytest.raises(ValueError):
        draw(row)


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [{}]}', '{"images": 1}'])
def test_a_folder_with_another_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match="no COCO file"):
        add_image(tmp_path, "a.png", b"", SIZE, [], [])
    assert (tmp_path / FILE).read_text() == text
    assert not (tmp_path / "images").exists()
