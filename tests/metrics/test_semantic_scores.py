"""Measures of label maps against sklearn, scipy, and plain forms of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from maskwright.metrics.detection.boundary import boundary_iou, edge
from maskwright.metrics.semantic import Boundaries, Confusion, pixel_scores, semantic_metrics
from maskwright.structures import IGNORED

CLASSES = 5
NAMES = ["sky", "road", "car", "tree", "sign"]


def blobs(seed: int, size: tuple[int, int] = (37, 45), classes: int = CLASSES) -> NDArray[np.uint8]:
    """A map of soft regions; the last class is rare or missing."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((classes, *size)), (0, 2, 2))
    noise[-1] -= 0.06
    return noise.argmax(0).astype(np.uint8)


def pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Prediction and truth that agree in part; some pixels of the truth are ignored."""
    truth, other = blobs(seed), blobs(seed + 1000)
    rng = np.random.default_rng(seed)
    said = np.where(ndimage.gaussian_filter(rng.random(truth.shape), 3) > 0.5, truth, other)
    truth[ndimage.gaussian_filter(rng.random(truth.shape), 2) > 0.58] = IGNORED
    return said, truth


def plain_scores(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> dict[str, float]:
    """Count class by class over all images, as the definitions read."""
    metrics, ious, accuracies, dices, weighted = {}, [], [], [], 0.0
    said = np.concatenate([p.ravel() for p, _ in pairs])
    true = np.concatenate([t.ravel() for _, t in pairs])
    said, true = said[true != IGNORED], true[true != IGNORED]
    for label, name in enumerate(NAMES):
        both = ((said == label) & (true == label)).sum()
        union = ((said == label) | (true == label)).sum()
        size = (true == label).sum()
        iou = both / union if union else math.nan
        dice = 2 * both / (union + both) if union else math.nan
        accuracy = both / size if size else math.nan
        metrics |= {f"IoU/{name}": iou, f"accuracy/{name}": accuracy, f"dice/{name}": dice}
        ious += [iou] * bool(union)
        dices += [dice] * bool(union)
        accuracies += [accuracy] * bool(size)
        weighted += (iou if union else 0) * size / len(true)
    return metrics | {
        "mIoU": np.mean(ious),
        "mean_accuracy": np.mean(accuracies),
        "dice": np.mean(dices),
        "fwIoU": weighted,
        "pixel_accuracy": (said == true).mean(),
    }


def test_counts_equal_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    confusion, wanted = Confusion(CLASSES), np.zeros((CLASSES, CLASSES), np.int64)
    for seed in range(3):
        said, truth = pair(seed)
        valid = truth != IGNORED
        own = confusion.add(said, truth)
        one = metrics.confusion_matrix(truth[valid], said[valid], labels=range(CLASSES))
        assert np.array_equal(own[:, :-1], one)
        wanted += one
    assert np.array_equal(confusion.matrix, wanted)
    big = np.tile(pair(0)[0], (30, 30)), np.tile(pair(0)[1], (30, 30))  # more than one chunk
    assert np.array_equal(Confusion(CLASSES).add(*big), 900 * Confusion(CLASSES).add(*pair(0)))


@pytest.mark.parametrize("seeds", [(0, 1, 2), (5,), tuple(range(10, 16))])
def test_scores_equal_a_plain_reference(seeds: tuple[int, ...]) -> None:
    pairs = [pair(seed) for seed in seeds]
    confusion = Confusion(CLASSES)
    for said, truth in pairs:
        confusion.add(said, truth)
    found, wanted = semantic_metrics(confusion, NAMES), plain_scores(pairs)
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key
    assert next(iter(found)) == "mIoU"


def test_absent_classes_are_left_out_and_predicted_ones_count_as_0() -> None:
    confusion = Confusion(4)
    confusion.add([[0, 0, 1, 2]], [[0, 0, 1, 1]])
    scores = pixel_scores(confusion.counts)
    assert scores.iou.tolist()[:3] == [1.0, 0.5, 0.0] and math.isnan(scores.iou[3])
    assert scores.mean_iou == 0.5  # of three
    assert scores.mean_accuracy == 0.75  # of two
    assert scores.pixel_accuracy == 0.75
    assert scores.weighted_iou == 0.75
    assert math.isnan(scores.precision[3]) and scores.precision[2] == 0
    empty = semantic_metrics(Confusion(2), ["a", "b"], Boundaries(2))
    assert all(math.isnan(value) for value in empty.values())


def test_no_class_for_a_pixel_of_a_class_is_a_miss() -> None:
    """Cityscapes: it lowers recall and IoU of the true class, and no other."""
    truth = np.array([[0, 0, 0, 0, 1, 1, IGNORED]], np.uint8)
    said = np.array([[0, 0, IGNORED, IGNORED, 1, 0, IGNORED]], np.uint8)
    confusion = Confusion(2)
    confusion.add(said, truth)
    assert confusion.counts.tolist() == [[2, 0, 2], [1, 1, 0]]
    scores = pixel_scores(confusion.counts)
    assert scores.support.tolist() == [4, 2]
    assert scores.iou.tolist() == [2 / 5, 1 / 2]
    assert scores.precision.tolist() == [2 / 3, 1.0]
    assert scores.pixel_accuracy == 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.randoms(use_true_random=False))
def test_order_parts_and_ignored_pixels_do_not_matter(seed: int, random) -> None:
    pairs = [pair(seed + i) for i in range(4)]
    whole, borders = Confusion(CLASSES), Boundaries(CLASSES)
    for said, truth in pairs:
        whole.add(said, truth)
        borders.add(said, truth)
    random.shuffle(pairs)
    parts = [(Confusion(CLASSES), Boundaries(CLASSES)) for _ in range(2)]
    for said, truth in pairs:
        confusion, lines = random.choice(parts)
        # Whatever is predicted where the truth is ignored.
        other = np.where(truth == IGNORED, random.randrange(CLASSES), said).astype(np.uint8)
        confusion.add(other, truth)
        lines.add(other, truth)
    for confusion, lines in parts[1:]:
        parts[0][0].merge(confusion)
        parts[0][1].merge(lines)
    assert np.array_equal(parts[0][0].counts, whole.counts)
    assert np.array_equal(parts[0][1].bands, borders.bands)
    assert np.array_equal(parts[0][1].lines, borders.lines)
    # An image that is cut in two is counted in two.
    said, truth = pairs[0]
    halves = Confusion(CLASSES)
    for part in (np.s_[:11], np.s_[11:]):
        halves.add(said[part], truth[part])
    assert np.array_equal(halves.counts, Confusion(CLASSES).add(said, truth))


def masked(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    said, truth = pair(seed)
    return np.where(truth == IGNORED, IGNORED, said).astype(np.uint8), truth


@pytest.mark.parametrize("dilation", [0.02, 0.06, 0.5])
def test_boundary_iou_is_that_of_masks(dilation: float) -> None:
    """Of one image it is, class by class, the boundary IoU of its masks; of several, their sums."""
    total, sums = Boundaries(CLASSES, dilation=dilation), np.zeros((2, CLASSES))
    for seed in range(3):
        said, truth = masked(seed)
        one = Boundaries(CLASSES, dilation=dilation)
        one.add(said, truth)
        for label in range(CLASSES):
            a, b = said == label, truth == label
            wanted = boundary_iou(a, b, dilation) if (a | b).any() else math.nan
            assert one.iou[label] == pytest.approx(wanted, abs=1e-12, nan_ok=True)
            width = max(1, round(dilation * math.hypot(*truth.shape)))
            a, b = edge(a, width), edge(b, width)
            sums[:, label] += (a & b).sum(), (a | b).sum()
        total.merge(one)
    assert total.iou == pytest.approx(sums[0] / sums[1], abs=1e-12)


def plain_lines(labels: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    mask = labels == label
    inner = ndimage.binary_erosion(mask, border_value=1)  # the end of the image is no border
    return mask & ~inner


@pytest.mark.parametrize("tolerance", [0.0075, 0.05, 0.11])
def test_boundary_f_equals_distances_to_the_other_lines(tolerance: float) -> None:
    total = Boundaries(CLASSES, tolerance=tolerance)
    sums = np.zeros((4, CLASSES))
    for seed in range(3):
        said, truth = masked(seed)
        total.add(said, truth)
        reach = max(1, tolerance * math.hypot(*truth.shape))
        for label in range(CLASSES):
            lines = [plain_lines(labels, label) for labels in (said, truth)]
            for row, (mine, other) in enumerate((lines, lines[::-1])):
                away = ndimage.distance_transform_edt(~other) if other.any() else np.inf
                sums[2 * row : 2 * row + 2, label] += ((mine & (away <= reach)).sum(), mine.sum())
    assert np.array_equal(total.lines, sums)
    precision, recall = sums[0] / sums[1], sums[2] / sums[3]
    wanted = 2 * precision * recall / (precision + recall)
    assert total.f1 == pytest.approx(wanted, abs=1e-12)


def test_borders_of_known_shapes() -> None:
    truth = np.zeros((300, 400), np.uint8)  # its diagonal is 500 pixels
    truth[100:200, 100:200] = 1
    said = np.roll(truth, 3, 1)
    # Near by one pixel: 98 of the upper and of the lower side, and the two below their corner.
    for tolerance, wanted in ((0.008, 1.0), (0.002, 198 / 396)):
        borders = Boundaries(3, tolerance=tolerance)
        borders.add(said, truth)
        assert borders.f1[1] == wanted
        assert math.isnan(borders.f1[2]) and math.isnan(borders.iou[2])
    # Bands of 10 pixels: two frames of 3,600 pixels that are 3 columns apart.
    band = np.zeros((300, 400), bool)
    band[100:200, 100:200] = True
    band[110:190, 110:190] = False
    moved = np.roll(band, 3, 1)
    assert borders.iou[1] == (band & moved).sum() / (band | moved).sum()
    # A class that is only predicted has a line that is near none.
    truth[truth == 1] = 2
    only = Boundaries(3)
    only.add(said, truth)
    assert only.f1.tolist()[1:] == [0.0, 0.0]
    same = Boundaries(3)
    same.add(truth, truth)
    assert same.f1[[0, 2]].tolist() == same.iou[[0, 2]].tolist() == [1.0, 1.0]


def test_tensors_and_other_whole_numbers_are_taken() -> None:
    said, truth = pair(2)
    wanted = Confusion(CLASSES).add(said, truth)
    for kind in (torch.uint8, torch.int64):
        found = Confusion(CLASSES).add(torch.tensor(said, dtype=kind), truth.astype(np.int32))
        assert np.array_equal(found, wanted)
    assert not Confusion(2).add(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)).any()


def test_faults_are_named() -> None:
    confusion = Confusion(3)
    with pytest.raises(ValueError, match="the truth has the label 7 at 2 pixels"):
        confusion.add([[0, 0]], [[7, 7]])
    with pytest.raises(ValueError, match="the prediction has the label 3 at 1 pixels"):
        confusion.add([[3, 0]], [[1, 1]])
    with pytest.raises(ValueError, match=r"shape \(1, 2\), the truth \(1, 3\)"):
        confusion.add([[0, 0]], [[1, 1, 1]])
    with pytest.raises(ValueError, match=r"truth: labels lie in 0\.\.255, got -1 to 1"):
        confusion.add([[0, 0]], [[-1, 1]])
    with pytest.raises(ValueError, match="whole numbers, got float64"):
        confusion.add([[0.0, 0]], [[1, 1]])
    assert not confusion.counts.any()
    with pytest.raises(ValueError, match="one image"):
        Boundaries(3).add(np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8))
    for wrong in ({"tolerance": 0.0}, {"dilation": -1.0}):
        with pytest.raises(ValueError, match="must be above 0"):
            Boundaries(3, **wrong)
