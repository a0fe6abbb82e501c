"""Weights of classes by the published formula; draws by what comes out of many."""

import numpy as np
import pytest

from maskwright.data.sampling import class_weights, image_weights, weighted_order


def test_weights_by_hand():
    assert class_weights([90, 10], "none").tolist() == [1, 1]
    assert class_weights([90, 10], "inverse").tolist() == pytest.approx([0.2, 1.8])
    assert class_weights([90, 10], "sqrt").tolist() == pytest.approx([0.5, 1.5])
    assert class_weights([30, 0, 10], "inverse").tolist() == pytest.approx([0.5, 0, 1.5])
    assert class_weights([5, 5, 5], "effective").tolist() == pytest.approx([1, 1, 1])


def test_effective_number_equals_the_formula():
    counts = np.array([1, 17, 500, 5000])
    for beta in (0.9, 0.999, 0.9999):
        plain = (1 - beta) / (1 - beta**counts)
        plain *= 4 / plain.sum()
        assert class_weights(counts, "effective", beta=beta) == pytest.approx(plain, rel=1e-9)
    # From one end to the other: no weights at all, and the inverse.
    assert class_weights(counts, "effective", beta=0.0).tolist() == [1] * 4
    near = class_weights(counts, "effective", beta=1 - 1e-12)
    assert near == pytest.approx(class_weights(counts, "inverse"), rel=1e-6)


def test_images_of_several_labels():
    weights = [1.0, 4.0, 0.5]
    assert image_weights([2, 0, 1], weights).tolist() == [0.5, 1, 4]
    many = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    assert image_weights(many, weights).tolist() == [4, 0.5, 0.5]


def test_equal_weights_give_a_permutation():
    order = weighted_order(np.zeros(50, int), [1.0], 50, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(50)) and order.tolist() != list(range(50))
    again = weighted_order(np.zeros(50, int), [1.0], 50, np.random.default_rng(0))
    assert np.array_equal(order, again) and order.dtype == np.int64
    other = weighted_order(np.zeros(50, int), [1.0], 50, np.random.default_rng(1))
    assert not np.array_equal(order, other)


def test_inverse_weights_show_all_classes_equally_often():
    labels = np.repeat([0, 1, 2], [80, 15, 5])
    weights = class_weights([80, 15, 5], "inverse")
    wanted = image_weights(labels, weights)
    wanted *= 100 / wanted.sum()
    seen = np.zeros(100)
    for epoch in range(300):
        order = weighted_order(labels, weights, 100, np.random.default_rng(epoch))
        times = np.bincount(order, minlength=100)
        assert len(order) == 100 and (abs(times - wanted) < 1).all()
        assert (abs(np.bincount(labels[order]) - 100 / 3) < 7).all()
        seen += times
    assert seen / 300 == pytest.approx(wanted, abs=0.15)
    # Each half of an epoch looks alike: the order is mixed.
    halves = [np.bincount(labels[half], minlength=3) for half in np.split(order, 2)]
    assert (abs(halves[0] - halves[1]) < 20).all()


def test_any_number_of_draws():
    labels = np.array([0, 1, 1, 2])
    for count in (0, 1, 3, 11):
        order = weighted_order(labels, [1.0, 1, 0], count, np.random.default_rng(count))
        assert len(order) == count and not (order == 3).any()


def test_faults_are_named():
    with pytest.raises(ValueError, match="did you mean 'inverse'"):
        class_weights([1, 2], "invers")
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1"):
        class_weights([1, 2], "effective", beta=1)
    for counts in ([], [0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="number of images of each class"):
            class_weights(counts, "inverse")
    with pytest.raises(ValueError, match=r"0\.\.1, got 0 to 2"):
        image_weights([0, 2], [1.0, 1.0])
    with pytest.raises(ValueError, match="3 classes but 2 weights"):
        image_weights(np.zeros((1, 3), bool), [1.0, 1.0])
    with pytest.raises(ValueError, match="no image can be drawn"):
        weighted_order([0, 0], [0.0, 1.0], 2, np.random.default_rng(0))
