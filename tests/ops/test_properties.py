"""Boxes, run lengths and polygons of any shape, against slow references and pycocotools."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from maskwright.ops.boxes import box_iou, decode_deltas, encode_deltas
from maskwright.ops.rle import decode_rle, encode_crop, measure_rle, rasterise_polygons

QUICK = settings(max_examples=60, deadline=None, database=None)
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
COORDINATES = st.floats(-30, 60, allow_nan=False, width=32)
CORNERS = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES)
POLYGON = st.lists(COORDINATES, min_size=6, max_size=24).map(lambda v: v[: len(v) // 2 * 2])


def ordered(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def slow_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


@QUICK
@given(st.lists(CORNERS, min_size=1, max_size=4), st.lists(CORNERS, min_size=1, max_size=4))
def test_iou_is_that_of_the_slow_formula_and_symmetric(first: list, second: list) -> None:
    a, b = [ordered(box) for box in first], [ordered(box) for box in second]
    found = box_iou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    expected = torch.tensor([[slow_iou(x, y) for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()
    back = box_iou(torch.tensor(b, dtype=torch.float64), torch.tensor(a, dtype=torch.float64))
    torch.testing.assert_close(back, found.T)


SIDES = st.floats(1, 200, allow_nan=False)
BOX = st.tuples(COORDINATES, COORDINATES, SIDES, SIDES).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@QUICK
@given(BOX, BOX)
def test_deltas_lead_back_to_the_box(box: tuple, anchor: tuple) -> None:
    boxes = torch.tensor([box], dtype=torch.float64)
    anchors = torch.tensor([anchor], dtype=torch.float64)
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = encode_deltas(boxes, anchors, weights)
    wider = (box[2] - box[0]) / (anchor[2] - anchor[0])
    assert deltas[0, 2].item() == pytest.approx(5 * math.log(wider), abs=1e-6)
    back = decode_deltas(deltas, anchors, weights, clamp=math.log(1000.0))
    torch.testing.assert_close(back, boxes, rtol=1e-9, atol=1e-9)


@QUICK
@given(MASKS)
def test_run_lengths_round_trip_and_equal_pycocotools(full: np.ndarray) -> None:
    size = full.shape
    code = encode_crop(full, (0, 0, size[1], size[0]), size)
    reference = coco.encode(np.asfortranarray(full.astype(np.uint8)))
    assert code["counts"] == reference["counts"]
    crop, (x1, y1, x2, y2) = decode_rle(code)
    again = np.zeros(size, bool)
    again[y1:y2, x1:x2] = crop
    np.testing.assert_array_equal(again, full)
    # The lengths themselves, as lists, and what is measured without a mask.
    changes = np.flatnonzero(np.diff(np.concatenate([[False], full.T.ravel()])))
    counts = np.diff(np.concatenate([[0], changes, [full.size]])).tolist()
    for rle in (code, {"size": list(size), "counts": counts}):
        area, frame = measure_rle(rle)
        assert area == full.sum() == coco.area(reference)
        assert frame == (x1, y1, x2, y2)
        x, y, w, h = coco.toBbox(reference).tolist()
        assert not area or frame == (x, y, x + w, y + h)


@QUICK
@given(st.lists(POLYGON, min_size=1, max_size=3))
def test_polygons_equal_pycocotools(polygons: list[list[float]]) -> None:
    size = (24, 31)
    crop, (x1, y1, x2, y2) = rasterise_polygons(polygons, size)
    full = np.zeros(size, bool)
    full[y1:y2, x1:x2] = crop
    reference = coco.merge(coco.frPyObjects(polygons, *size))
    np.testing.assert_array_equal(full, coco.decode(reference).astype(bool))


@QUICK
@given(st.floats(6, 30), st.floats(6, 30), st.floats(2, 5), st.integers(3, 20))
def test_area_of_convex_polygons(x: float, y: float, radius: float, corners: int) -> None:
    angles = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    crop, _ = rasterise_polygons([points.ravel().tolist()], (40, 40))
    exact = 0.5 * corners * radius**2 * math.sin(2 * math.pi / corners)
    # Only pixels that the outline passes can differ.
    assert abs(crop.sum() - exact) <= 2 * math.pi * radius + 4
