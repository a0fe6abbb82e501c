"""Measures of landmarks: by hand, by plain formulas, and OKS as pycocotools counts it."""

import math

import numpy as np
import pytest

from maskwright.metrics.landmarks import (
    COCO_SIGMAS,
    box_side,
    box_size,
    distances,
    error_auc,
    eye_distance,
    failure_rate,
    head_size,
    landmark_metrics,
    normalised_errors,
    oks,
    pck,
    torso_size,
)

TRUE = np.array([[[0.0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [3, 4]], [[1, 1], [2, 2], [3, 3]]])
SEEN = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)


def test_normalised_mean_error_by_hand():
    points = TRUE + np.array([3, 4])
    gaps = distances(points, TRUE, SEEN)
    assert gaps[0].tolist() == [5, 5, 5] and np.isnan(gaps[1]).tolist() == [False, False, True]
    norm = eye_distance(TRUE, SEEN, 0, 1)
    assert norm[:2].tolist() == [10, 20] and math.isnan(norm[2])
    errors = normalised_errors(gaps, norm)
    assert errors[:2].tolist() == [0.5, 0.25] and math.isnan(errors[2])
    assert math.isnan(normalised_errors(gaps[:1], [0.0])[0])
    # Depth or visibility in further columns does not matter.
    more = np.concatenate([TRUE, np.full((3, 3, 1), 2.0)], 2)
    assert np.array_equal(distances(more + 1, more, SEEN), distances(TRUE + 1, TRUE, SEEN), True)


def test_lengths():
    pupils = eye_distance(TRUE, np.ones((3, 3), bool), [0, 1], [2])
    assert pupils.tolist() == [5.0, math.hypot(3, 6), math.hypot(1.5, 1.5)]
    assert torso_size(TRUE, SEEN, 0, 2)[0] == math.hypot(5, 5)
    assert math.isnan(torso_size(TRUE, SEEN, 0, 2)[1])
    boxes = [[0, 0, 4, 9], [5, 5, 5, 5]]
    assert box_size(boxes).tolist() == [6, 0] and box_side(boxes).tolist() == [9, 0]
    assert head_size(boxes).tolist() == pytest.approx([0.6 * math.hypot(4, 9), 0])
    assert box_side(np.zeros((0, 4))).shape == (0,)
    with pytest.raises(ValueError, match="no point 3: they are numbered from 0 to 2"):
        eye_distance(TRUE, SEEN, 0, 3)


def test_area_under_the_curve_of_errors():
    errors = np.append(np.random.default_rng(0).random(300) * 0.2, math.nan)
    assert failure_rate(errors) == pytest.approx(np.mean(errors[:-1] > 0.08))
    # The curve itself, integrated finely.
    at = np.linspace(0, 0.08, 20001)
    share = (errors[:-1, None] <= at).mean(0)
    assert error_auc(errors) == pytest.approx(share.mean(), abs=1e-4)
    assert error_auc([0.0, 0.0]) == 1 and error_auc([0.08, 9]) == 0 and failure_rate([0.08]) == 0
    assert math.isnan(error_auc([])) and math.isnan(failure_rate([math.nan]))


def test_share_of_right_points():
    gaps = distances(TRUE + np.array([[[1, 0], [0, 2], [4, 0]]]), TRUE, SEEN)
    share, each = pck(gaps, [10.0, 10, 10], 0.2)
    assert share == 4 / 5 and each.tolist() == [1, 1, 0]  # 2 of 10 is still right
    share, each = pck(gaps, [10.0, math.nan, 0], 0.1)
    assert share == 1 / 3 and each.tolist() == [1, 0, 0]
    share, each = pck(gaps[2:], [10.0])
    assert math.isnan(share) and np.isnan(each).all()


def test_similarity_equals_pycocotools():
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(1)
    true = rng.random((4, 17, 2)) * 200
    seen = rng.random((4, 17)) < 0.7
    points = true + rng.normal(size=true.shape) * 8
    area = np.array([900.0, 4000, 20000, 100])
    gt = coco.COCO()
    gt.dataset = {
        "images": [{"id": i + 1} for i in range(4)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0,
                "area": area[i], "bbox": [0, 0, 200, 200], "num_keypoints": int(seen[i].sum()),
                "keypoints": np.concatenate([true[i], 2.0 * seen[i, :, None]], 1).ravel().tolist(),
            }
            for i in range(4)
        ],
    }  # fmt: skip
    gt.createIndex()
    results = [
        {"image_id": i + 1, "category_id": 1, "score": 1.0,
         "keypoints": np.concatenate([points[i], np.ones((17, 1))], 1).ravel().tolist()}
        for i in range(4)
    ]  # fmt: skip
    run = cocoeval.COCOeval(gt, gt.loadRes(results), "keypoints")
    run.evaluate()
    wanted = [float(run.ious[i + 1, 1][0, 0]) for i in range(4)]
    found = oks(distances(points, true, seen), area, list(COCO_SIGMAS.values()))
    assert found == pytest.approx(wanted, abs=1e-12)
    assert math.isnan(oks(np.full((1, 17), math.nan), [1.0], list(COCO_SIGMAS.values()))[0])
    with pytest.raises(ValueError, match="2 sigmas do not fit"):
        oks(np.zeros((1, 3)), [1.0], [0.1, 0.1])


def test_all_measures_together():
    gaps = distances(TRUE + np.array([1, 0]), TRUE, SEEN)
    found = landmark_metrics(
        gaps, [10.0, 20, 5], ["a", "b", "c"], limit=0.1, area=[100.0, 400, 50], sigmas=[0.1] * 3
    )
    assert found == pytest.approx({
        "NME": 0.075, "failure": 0, "AUC": 0.25, "PCK": 1,
        "OKS": (math.exp(-1 / (200 * 0.04)) + math.exp(-1 / (800 * 0.04))) / 2,
        "NME/a": 0.075, "NME/b": 0.075, "NME/c": 0.1, "PCK/a": 1, "PCK/b": 1, "PCK/c": 1,
    })  # fmt: skip
    empty = landmark_metrics(np.zeros((0, 2)), [], ["a", "b"], area=[])
    assert empty and all(math.isnan(value) for value in empty.values())
    hidden = landmark_metrics(np.full((2, 2), math.nan), [1.0, 1], ["a", "b"])
    assert all(math.isnan(value) for value in hidden.values())
    with pytest.raises(ValueError, match="1 names do not fit"):
        landmark_metrics(np.zeros((1, 2)), [1.0], ["a"])
    with pytest.raises(ValueError, match="visible"):
        distances(TRUE, TRUE, SEEN[:2])
