"""Polygons of masks: filling them gives back the mask; parts and holes as scipy counts them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from scipy import ndimage

from maskwright.ops.outlines import Part, as_geometry, simplify_outline, trace_labels, trace_parts


@st.composite
def crops(draw: st.DrawFn) -> NDArray[np.bool_]:
    shape = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    noise = np.random.default_rng(draw(st.integers(0, 10_000))).random(shape)
    smooth = draw(st.sampled_from([0, 1, 2]))
    values = ndimage.gaussian_filter(noise, smooth) if smooth else noise
    crop: NDArray[np.bool_] = values < np.quantile(values, draw(st.floats(0.05, 0.95)))
    return crop


def fill(parts: list[Part], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill outlines and empty holes with COCO's rasteriser."""
    full = np.zeros(size, int)
    for part in parts:
        for sign, ring in [(1, part.outline), *((-1, hole) for hole in part.holes)]:
            full += sign * coco.decode(coco.frPyObjects([ring.ravel().tolist()], *size)[0]).astype(
                int
            )
    assert set(np.unique(full)) <= {0, 1}  # parts do not overlap, holes lie inside
    return full.astype(bool)


def area(ring: NDArray[np.float64]) -> float:
    closed = [*ring.tolist(), ring[0].tolist()]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(closed)) / 2


@settings(max_examples=300, deadline=None)
@given(crops())
def test_filling_gives_back_the_mask(crop: NDArray[np.bool_]) -> None:
    h, w = crop.shape
    full = np.zeros((h + 7, w + 9), bool)
    full[3 : 3 + h, 5 : 5 + w] = crop
    parts = trace_parts(crop, (5, 3, 5 + w, 3 + h))
    assert np.array_equal(fill(parts, full.shape), full)
    # Independent counts: pieces by edges, holes by edges and corners.
    pieces, count = ndimage.label(full)
    assert len(parts) == count
    _, outside = ndimage.label(~np.pad(full, 1), np.ones((3, 3)))
    assert sum(len(part.holes) for part in parts) == outside - 1
    # Each part is one piece: its signed areas add up to that piece's pixels.
    sizes = sorted(np.bincount(pieces.ravel())[1:].tolist(), reverse=True)
    found = [area(part.outline) + sum(area(hole) for hole in part.holes) for part in parts]
    assert sorted(found, reverse=True) == sizes
    for part in parts:
        assert area(part.outline) > 0
        assert all(area(hole) < 0 for hole in part.holes)
        for ring in (part.outline, *part.holes):  # corners only: every one turns
            steps = np.roll(ring, -1, axis=0) - ring
            turns = steps[:, 0] * np.roll(steps[:, 1], -1) - steps[:, 1] * np.roll(steps[:, 0], -1)
            assert (turns != 0).all()


def test_ring_with_an_island_has_two_parts_and_a_hole() -> None:
    crop = np.zeros((9, 9), bool)
    crop[0:9, 0:9] = True
    crop[1:8, 1:8] = False
    crop[3:6, 3:6] = True
    first, second = trace_parts(crop, (10, 20, 19, 29))
    assert first.outline.tolist() == [[10, 20], [19, 20], [19, 29], [10, 29]]
    assert len(first.holes) == 1
    assert second.outline.tolist() == [[13, 23], [16, 23], [16, 26], [13, 26]]
    assert second.holes == ()


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    assert len(trace_parts(np.eye(2, dtype=bool), (0, 0, 2, 2))) == 2
    ring = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    parts = trace_parts(ring, (0, 0, 3, 3))
    assert len(parts) == 4
    assert all(not part.holes for part in parts)


def test_an_empty_mask_has_no_parts() -> None:
    assert trace_parts(np.zeros((3, 3), bool), (0, 0, 3, 3)) == []
    assert trace_parts(np.zeros((0, 0), bool), (0, 0, 0, 0)) == []


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_simplified_outlines_stay_within_the_tolerance(tolerance: float) -> None:
    y, x = np.mgrid[:80, :100]
    crop = ((x - 50) / 40) ** 2 + ((y - 40) / 30) ** 2 < 1
    exact = trace_parts(crop, (0, 0, 100, 80))[0].outline
    rough = trace_parts(crop, (0, 0, 100, 80), tolerance=tolerance)[0].outline
    assert len(rough) < len(exact) * (1 if tolerance < 1 else 0.5)
    assert set(map(tuple, rough.tolist())) <= set(map(tuple, exact.tolist()))
    # Slow and plain: each exact corner against every edge of the rough outline.
    for point in exact:
        away = []
        for a, b in zip(rough, np.roll(rough, -1, axis=0), strict=True):
            t = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            away.append(np.linalg.norm(point - a - t * (b - a)))
        assert min(away) <= tolerance + 1e-9
    picture = Image.new("1", (100, 80))
    ImageDraw.Draw(picture).polygon([tuple(p) for p in rough.tolist()], fill=1)
    assert abs(np.asarray(picture).sum() / crop.sum() - 1) < 0.15


def test_a_small_mask_never_vanishes_by_simplifying() -> None:
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    outline = trace_parts(cross, (0, 0, 3, 3), tolerance=50)[0].outline
    assert len(outline) >= 3
    assert area(outline) > 0
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        trace_parts(cross, (0, 0, 3, 3), tolerance=-1)
    assert len(simplify_outline(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), 9)) == 4


def inside(parts: list[Part], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixel centres lie inside: those with an odd number of edges to their left."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    odd = np.zeros(size, bool)
    for part in parts:
        for ring in (part.outline, *part.holes):
            for a, b in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
                odd ^= (min(a[1], b[1]) < y) & (y < max(a[1], b[1])) & (x > a[0])
    return odd


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20), st.integers(1, 5))
def test_filling_gives_back_a_label_map(seed: int, height: int, width: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((classes, height, width)), (0, 1, 1))
    labels = noise.argmax(0).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = 255
    found = trace_labels(labels)
    assert set(found) == set(np.unique(labels[labels != 255]).tolist())
    filled = np.full(labels.shape, 255, np.uint8)
    for label, parts in found.items():
        filled[inside(parts, labels.shape)] = label
        shape = as_geometry(parts)
        assert shape is not None
        polygons = shape["coordinates"]
        polygons = [polygons] if shape["type"] == "Polygon" else polygons
        assert len(polygons) == len(parts)
        for polygon, part in zip(polygons, parts, strict=True):
            assert all(ring[0] == ring[-1] for ring in polygon)
            rings = [np.array(ring[:-1]) for ring in polygon]
            assert np.array_equal(rings[0], part.outline) and len(rings) == 1 + len(part.holes)
    assert np.array_equal(filled, labels)


def test_a_geometry_without_parts_is_none() -> None:
    assert as_geometry([]) is None
    assert trace_labels(np.full((3, 3), 255, np.uint8)) == {}
