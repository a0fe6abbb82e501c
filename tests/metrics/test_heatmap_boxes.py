"""Boxes of heat maps against the published procedure, done with OpenCV step by step."""

import math

import numpy as np
import pytest

from maskwright.metrics.heatmap_boxes import (
    THRESHOLDS,
    accuracy_at,
    best_threshold,
    centred_gaussian,
    map_box,
    map_mask,
    map_overlaps,
    max_box_accuracy,
    max_box_accuracy_v2,
    resize_boxes,
    whole_image,
)


def plain_overlaps(heatmap, true, threshold, every):
    """Best IoU of the boxes of one threshold, as the authors of MaxBoxAcc describe and count."""
    cv2 = pytest.importorskip("cv2")
    height, width = heatmap.shape
    levels = (heatmap * 255).astype(np.uint8)
    mask = (levels > int(threshold * levels.max())).astype(np.uint8)
    contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) and not every:
        contours = [max(contours, key=cv2.contourArea)]
    best = 0.0
    for x, y, w, h in [cv2.boundingRect(c) for c in contours] or [(0, 0, 0, 0)]:
        a = (x, y, min(x + w, width - 1), min(y + h, height - 1))
        for b in true:
            inter = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
            inter *= max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
            areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
            best = max(best, inter / (sum(areas) - inter))
    return best


def smooth(rng, size, times):
    heatmap = rng.random(size)
    for _ in range(times):
        for axis in (0, 1):
            heatmap = (np.roll(heatmap, 1, axis) + heatmap + np.roll(heatmap, -1, axis)) / 3
    return (heatmap - heatmap.min()) / (np.ptp(heatmap) or 1)


@pytest.mark.parametrize("times", [0, 1, 5])
@pytest.mark.parametrize("size", [(24, 31), (17, 8), (1, 9), (1, 1)])
def test_every_threshold_equals_the_published_procedure(size, times):
    rng = np.random.default_rng(times)
    heatmap = smooth(rng, size, times)
    true = np.sort(rng.integers(0, [size[1], size[0]], (2, 2, 2)), axis=1).reshape(2, 4)
    found = map_overlaps(heatmap, true)
    assert len(found.largest) == len(THRESHOLDS) == 100
    for every, values in ((False, found.largest), (True, found.any)):
        wanted = [plain_overlaps(heatmap, true, t, every) for t in THRESHOLDS]
        assert values.tolist() == wanted


def test_equal_parts_and_holes_are_taken_as_opencv_takes_them():
    heatmap = np.zeros((12, 20))
    heatmap[1:4, 1:4] = heatmap[6:9, 10:13] = 1.0  # two of one size: the last one is taken
    heatmap[0:12, 15:20], heatmap[3:8, 17:19] = 0.5, 0.0  # a frame, whose hole counts too
    boxes = [[10, 6, 13, 9], [1, 1, 4, 4], [16, 2, 20, 9]]
    for box in boxes:
        found = map_overlaps(heatmap, [box])
        for every, values in ((False, found.largest), (True, found.any)):
            assert values.tolist() == [plain_overlaps(heatmap, [box], t, every) for t in THRESHOLDS]
    assert map_overlaps(heatmap, boxes[:1]).largest[60] == 1  # 13 and 9 are one pixel further
    assert map_overlaps(heatmap, boxes[1:2]).largest[60] < 0.1
    assert map_overlaps(heatmap, boxes[1:2]).any[60] == 1


def test_a_map_of_zeros_and_whole_images():
    nothing = map_overlaps(np.zeros((10, 10)), [[0, 0, 9, 9]])
    assert nothing.largest.tolist() == [0.01] * 100 == nothing.any.tolist()
    everything = map_overlaps(whole_image((10, 10)), [[0, 0, 9, 9]])
    assert everything.largest.tolist() == [1] * 100
    middle = centred_gaussian((30, 50))
    assert middle.shape == (30, 50) and middle.min() == 0 and middle.max() == 1
    assert np.allclose(middle, middle[::-1, ::-1])
    assert map_overlaps(middle, [[12, 8, 37, 21]]).largest.max() > 0.85
    assert centred_gaussian((1, 1)).tolist() == [[0]]


def test_accuracies_by_hand():
    overlaps = np.array([[0.6, 0.4, 0.2], [0.1, 0.5, 0.8], [0.0, 0.5, 0.3]])
    assert max_box_accuracy(overlaps) == pytest.approx(2 / 3)  # the second threshold
    assert max_box_accuracy(overlaps, least=0.7) == pytest.approx(1 / 3)
    assert max_box_accuracy(overlaps, least=0.3) == 1
    assert max_box_accuracy_v2(overlaps) == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    assert best_threshold(overlaps) == 1 and accuracy_at(overlaps, 1) == pytest.approx(2 / 3)
    assert accuracy_at(overlaps, 0) == pytest.approx(1 / 3)
    # One threshold for all images, not the best one of each, which would be right everywhere.
    assert max_box_accuracy(np.eye(3)) == pytest.approx(1 / 3)
    none = np.zeros((0, 3))
    assert math.isnan(max_box_accuracy(none)) and math.isnan(max_box_accuracy_v2(none))
    assert math.isnan(accuracy_at(none, 1))
    with pytest.raises(ValueError, match="there are none"):
        best_threshold(none)


def test_true_boxes_in_pixels_of_the_map():
    # Numbers of the authors' own test.
    assert resize_boxes([[1, 2, 4, 3]], (20, 10), (10, 35)).tolist() == [[3, 1, 14, 1]]
    assert resize_boxes([[1, 2, 1, 2]], (3, 3), (3, 3)).tolist() == [[1, 2, 1, 2]]


def test_box_and_mask_of_the_largest_part():
    heatmap = np.zeros((8, 10))
    heatmap[1:3, 1:3] = 1.0
    heatmap[3, 3] = 0.3  # touches at a corner
    heatmap[6, 5:9] = 0.9
    assert map_box(heatmap).tolist() == [1, 1, 4, 4]
    assert map_box(heatmap, 0.3).tolist() == [1, 1, 3, 3]  # strictly above
    assert map_box(heatmap, 0.95).tolist() == [1, 1, 3, 3]
    assert map_mask(heatmap).sum() == 5
    assert map_box(np.zeros((3, 3))) is None and not map_mask(np.zeros((3, 3))).any()
    half = heatmap / 2
    assert map_box(half).tolist() == map_box(heatmap).tolist()  # of the maximum, not of 1


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"\[0, 1\], got -1"):
        map_overlaps(np.array([[-1.0, 1]]), [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"\[0, 1\], got nan"):
        map_box(np.array([[math.nan, 1]]))
    with pytest.raises(ValueError, match=r"\(H, W\), got \(3,\)"):
        map_box(np.zeros(3))
    with pytest.raises(ValueError, match="without a true box"):
        map_overlaps(np.zeros((3, 3)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1"):
        map_box(np.zeros((3, 3)), 1.0)
