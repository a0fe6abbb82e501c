"""Run-length codes and polygons on crops against pycocotools on full images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwright.ops.rle import decode_rle, encode_crop, encode_crops, rasterise_polygons


def coco_encode(full: NDArray[np.bool_]) -> dict[str, Any]:
    code: dict[str, Any] = coco.encode(np.asfortranarray(full.astype(np.uint8)))
    return code


def paste(crop: NDArray[np.bool_], frame: tuple[int, ...], size: tuple[int, int]) -> Any:
    full = np.zeros(size, bool)
    x1, y1, x2, y2 = frame
    full[y1:y2, x1:x2] = crop
    return full


@st.composite
def framed_masks(draw: st.DrawFn) -> tuple[NDArray[np.bool_], tuple[int, ...], tuple[int, int]]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x1, x2 = sorted(draw(st.tuples(*[st.integers(0, width)] * 2)))
    y1, y2 = sorted(draw(st.tuples(*[st.integers(0, height)] * 2)))
    noise = np.random.default_rng(draw(st.integers(0, 1000))).random((y2 - y1, x2 - x1))
    crop = noise < draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
    return crop, (x1, y1, x2, y2), (height, width)


@settings(max_examples=300, deadline=None)
@given(framed_masks())
def test_codes_equal_pycocotools_and_come_back(mask: Any) -> None:
    crop, frame, size = mask
    full = paste(crop, frame, size)
    code = coco_encode(full)
    assert encode_crop(crop, frame, size) == code
    counts = code["counts"]
    runs = np.diff(np.flatnonzero(np.diff(full.T.ravel(), prepend=False)), append=full.size)
    first = full.size - int(runs.sum())
    for form in (counts, counts.decode(), [first, *runs.tolist()]):
        back, tight = decode_rle({"size": list(size), "counts": form})
        assert np.array_equal(paste(back, tight, size), full)
        if full.any():
            y, x = full.nonzero()
            assert tight == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        else:
            assert tight == (0, 0, 0, 0)


def test_large_images_need_long_numbers() -> None:
    full = np.zeros((5000, 7000), bool)
    full[:, 6990:] = True
    full[10, 3] = True
    assert encode_crop(full, (0, 0, 7000, 5000), (5000, 7000)) == coco_encode(full)
    back, frame = decode_rle(coco_encode(full))
    assert np.array_equal(paste(back, frame, full.shape), full)


def test_many_masks_at_once_keep_their_places() -> None:
    size = (9, 7)
    crops = [np.ones((9, 7), bool), np.zeros((0, 0), bool), np.eye(4, dtype=bool)]
    frames = [(0, 0, 7, 9), (0, 0, 0, 0), (3, 5, 7, 9)]
    want = [coco_encode(paste(c, f, size)) for c, f in zip(crops, frames, strict=True)]
    assert encode_crops(crops, frames, size) == want
    assert encode_crops([], [], size) == []


def test_runs_of_length_zero_inside_a_list() -> None:
    crop, frame = decode_rle({"size": [4, 3], "counts": [2, 1, 0, 2, 7]})
    assert frame == (0, 0, 2, 4)
    assert crop.T.ravel().tolist() == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("frame", "size"), [((0, 0, 3, 2), (5, 5)), ((4, 0, 6, 2), (5, 5)), ((-1, 0, 1, 2), (5, 5))]
)
def test_a_frame_that_does_not_fit_is_refused(frame: Any, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="frame"):
        encode_crop(np.ones((2, 2), bool), frame, size)


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        ({"counts": [4]}, "size"),
        ({"size": [2], "counts": [4]}, "size"),
        ({"size": [0, 2], "counts": []}, "at least one pixel"),
        ({"size": [-2, -2], "counts": [4]}, "at least one pixel"),
        ({"size": [2, 2], "counts": [5]}, "sum to 5"),
        ({"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62, 4]}, "sum"),
        ({"size": [2, 2], "counts": [5, -1]}, "negative"),
        ({"size": [2, 2], "counts": [2.5, 1.5]}, "whole"),
        ({"size": [2, 2], "counts": ["a"]}, "whole"),
        ({"size": [2, 2], "counts": None}, "NoneType"),
        ({"size": [2, 2]}, "NoneType"),
        ({"size": [2, 2], "counts": "\x00\x01"}, "does not occur"),
        ({"size": [2, 2], "counts": "é"}, "ASCII"),
        ({"size": [2, 2], "counts": b"oooo"}, "middle of a number"),
        ({"size": [2, 2], "counts": b"ooooooooo0"}, "beyond 32 bits"),
        ({"size": [2, 2], "counts": b""}, "sum to 0"),
        ({"size": [2, 2], "counts": b"9"}, "sum to 9"),
    ],
)
def test_broken_codes_are_refused_with_the_reason(rle: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_rle(rle)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30))
def test_garbage_never_does_more_than_raise(counts: bytes) -> None:
    try:
        crop, frame = decode_rle({"size": [5, 6], "counts": counts})
    except ValueError as error:
        assert "RLE" in str(error)
    else:
        assert crop.shape == (frame[3] - frame[1], frame[2] - frame[0])


@settings(max_examples=150, deadline=None)
@given(
    polygons=st.lists(
        st.lists(st.tuples(*[st.floats(-10, 60, width=32)] * 2), min_size=3, max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_equal_pycocotools(polygons: list[list[tuple[float, float]]]) -> None:
    flat = [[c for point in polygon for c in point] for polygon in polygons]
    size = (37, 51)
    want = coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)
    crop, frame = rasterise_polygons(flat, size)
    assert np.array_equal(paste(crop, frame, size), want)


@pytest.mark.parametrize(
    ("polygons", "reason"),
    [
        ([[1, 1, 2, 2]], "three points"),
        ([[1, 1, 2, 2, 3]], "three points"),
        ([[]], "three points"),
        ([[1, 1, 2, 2, 3, float("nan")]], "finite"),
        ([[1, 1, 2, 2, 3, 1e9]], "far outside"),
        ([["a", 1, 2, 2, 3, 3]], "numbers"),
        ([[[1, 1], [2, 2], [3, 3]]], "flat list"),
        ([0, 0, 5, 5, 0, 5], "flat list"),
    ],
)
def test_broken_polygons_are_refused_with_the_reason(polygons: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rasterise_polygons(polygons, (20, 20))


def test_no_polygon_is_an_empty_mask() -> None:
    crop, frame = rasterise_polygons([], (20, 20))
    assert crop.shape == (0, 0)
    assert frame == (0, 0, 0, 0)
