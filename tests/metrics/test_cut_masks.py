"""Masks that their box cuts off: drawn cases with known answers, and a plain reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics.detection.cut_masks import cut_masks, share_along
from maskwright.ops.rle import encode_crop

SIZE = (60, 80)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    found: np.ndarray = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
    return found


def code(mask: np.ndarray) -> dict[str, Any]:
    return encode_crop(mask, (0, 0, SIZE[1], SIZE[0]), SIZE)


def within(mask: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The mask as a head within a box makes it: pixels whose centres lie in the box."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x1, y1, x2, y2 = box
    inside = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    found: np.ndarray = mask & inside
    return found


def scene(
    truth: np.ndarray, mask: np.ndarray, box: tuple[float, float, float, float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    tight = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    gt = {
        "images": [{"id": 7, "height": SIZE[0], "width": SIZE[1], "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": int(truth.sum()),
             "bbox": [float(v) for v in tight], "segmentation": code(truth)}
        ],
    }  # fmt: skip
    x1, y1, x2, y2 = box
    row = {"image_id": 7, "category_id": 1, "score": 0.9, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    return gt, [{**row, "segmentation": code(mask)}]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20.0, 10.0, 60.0, 50.0), 0),  # just around the disc of radius 20 about (40, 30)
        ((15.0, 5.0, 65.0, 55.0), 0),
        ((25.0, 10.0, 60.0, 50.0), 1),  # one side cuts
        ((20.0, 10.0, 60.0, 43.0), 1),
        ((26.4, 14.2, 55.6, 47.0), 1),
    ],
)
def test_a_disc_and_its_box(box: tuple[float, float, float, float], expected: int) -> None:
    truth = disc(40, 30, 20)
    found = cut_masks(*scene(truth, within(truth, box), box))
    assert (found.masks, len(found.cut)) == (1, expected)
    assert found.share == expected


def test_a_straight_object_in_its_own_box_is_not_cut() -> None:
    truth = np.zeros(SIZE, bool)
    truth[10:50, 20:60] = True  # its contour runs along the box, but nothing lies beyond
    box = (20.0, 10.0, 60.0, 50.0)
    assert cut_masks(*scene(truth, truth, box)).share == 0
    # A mask that is too small without touching the box is another fault.
    small = np.zeros(SIZE, bool)
    small[14:46, 24:56] = True
    assert cut_masks(*scene(truth, small, box)).share == 0


def test_only_what_was_found_counts() -> None:
    truth = disc(40, 30, 20)
    box = (25.0, 10.0, 60.0, 50.0)
    gt, rows = scene(truth, within(truth, box), box)
    assert cut_masks(gt, [{**rows[0], "score": 0.2}]).masks == 0
    assert np.isnan(cut_masks(gt, []).share)
    far = [{**rows[0], "bbox": [60.0, 40.0, 15.0, 15.0]}]
    assert cut_masks(gt, far).masks == 0
    gt["annotations"][0]["iscrowd"] = 1
    assert cut_masks(gt, rows).masks == 0


def slow_share(own: np.ndarray, goal: np.ndarray, box: tuple[float, ...]) -> float:
    """Pixel by pixel over the whole image."""

    def at(mask: np.ndarray, r: int, c: int) -> bool:
        return 0 <= r < SIZE[0] and 0 <= c < SIZE[1] and bool(mask[r, c])

    x1, y1, x2, y2 = box
    contour = made = 0
    for r, c in np.argwhere(own).tolist():
        ends = [
            (dr, dc) for dr, dc in ((0, -1), (0, 1), (-1, 0), (1, 0)) if not at(own, r + dr, c + dc)
        ]
        contour += bool(ends)
        hit = False
        for dr, dc in ends:
            # The next pixel on that side has its centre outside the box.
            outside = {
                (0, -1): c - 0.5 < x1, (0, 1): c + 1.5 >= x2,
                (-1, 0): r - 0.5 < y1, (1, 0): r + 1.5 >= y2,
            }[dr, dc]  # fmt: skip
            hit |= outside and at(goal, r + 2 * dr, c + 2 * dc)
        made += hit
    return made / contour


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(10, 70), st.floats(10, 50), st.floats(4, 25)),
    st.tuples(st.floats(0, 40), st.floats(0, 30), st.floats(5, 40), st.floats(5, 30)),
)
def test_as_pixel_by_pixel(round_: tuple[float, ...], shape: tuple[float, ...]) -> None:
    x, y, width, height = shape
    box = (x, y, x + width, y + height)
    goal = disc(*round_)
    own = within(disc(round_[0] + 1, round_[1], round_[2]), box)
    if not own.any():
        return
    frame = (0, 0, SIZE[1], SIZE[0])
    found = share_along((own, frame), (goal, frame), np.array(box))
    assert found == pytest.approx(slow_share(own, goal, box))
