"""Reliability, temperature and intervals: by hand, and as properties of what was drawn."""

import math

import numpy as np
import pytest
import torch

from maskwright.metrics.calibration import (
    COLDEST,
    HOTTEST,
    bin_scores,
    bootstrap_interval,
    fit_temperature,
    reliability,
)


def test_reliability_by_hand():
    # 0.6 = 9 / 15 closes the ninth bin and does not open the tenth.
    probs = np.array([[0.6, 0.4], [0.41, 0.59], [0.05, 0.95], [0.97, 0.03]])
    found = reliability(probs, [0, 0, 1, 1])
    assert len(found.counts) == 15 and found.counts[8] == 2 and found.counts[14] == 2
    assert found.precision[8] == 0.5 and found.score[8] == pytest.approx(0.595)
    wanted = (2 * abs(0.595 - 0.5) + 2 * abs(0.96 - 0.5)) / 4
    assert found.error == pytest.approx(wanted)
    assert found.bias == pytest.approx((0.6 + 0.59 + 0.95 + 0.97) / 4 - 0.5)
    assert math.isnan(found.score[0])
    empty = reliability(np.zeros((0, 2)), [])
    assert math.isnan(empty.error) and empty.counts.sum() == 0


def test_error_equals_the_published_formula():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet([0.3] * 6, 500)
    labels = rng.integers(0, 6, 500)
    sure, right = probs.max(1), probs.argmax(1) == labels
    error = 0.0
    for i in range(15):  # Guo et al. 2017, eq. 5
        mine = (sure > i / 15) & (sure <= (i + 1) / 15)
        if mine.any():
            error += mine.mean() * abs(sure[mine].mean() - right[mine].mean())
    assert reliability(probs, labels).error == pytest.approx(error, abs=1e-12)


def test_ends_of_bins():
    right = [True] * 4
    assert bin_scores([0.0, 0.25, 0.5, 1.0], right, 4).counts.tolist() == [2, 1, 0, 1]
    left = bin_scores([0.0, 0.25, 0.5, 1.0], right, 4, closed="left")
    assert left.counts.tolist() == [1, 1, 1, 1]


def test_temperature_equals_a_search_over_all():
    rng = np.random.default_rng(2)
    for shift in (1.0, 4.0):
        logits = rng.normal(size=(300, 5)) * 3
        labels = rng.integers(0, 5, 300)
        logits[np.arange(300), labels] += shift
        found = fit_temperature(logits, labels)
        loss = torch.nn.functional.cross_entropy
        z, y = torch.from_numpy(logits), torch.from_numpy(labels)
        at = [float(loss(z / t, y)) for t in (found * 0.999, found, found * 1.001)]
        assert at[1] < min(at[0], at[2])
        # At the best temperature the slope vanishes.
        t = torch.tensor(found, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(z / t, y), t)
        assert abs(float(slope)) < 1e-12


def test_temperature_undoes_a_factor():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(20000, 4))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)  # drawn from softmax(true)
    assert fit_temperature(true, labels) == pytest.approx(1, abs=0.05)
    assert fit_temperature(true * 7, labels) == pytest.approx(7 * fit_temperature(true, labels))


def test_temperature_of_several_labels():
    rng = np.random.default_rng(6)
    z = rng.normal(size=(500, 3)) * 4
    y = rng.random((500, 3)) < 1 / (1 + np.exp(-z / 4))
    found = fit_temperature(z, y)
    t = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    (slope,) = torch.autograd.grad(loss(torch.from_numpy(z) / t, torch.from_numpy(y).double()), t)
    assert found == pytest.approx(4, rel=0.15) and abs(float(slope)) < 1e-12


def test_temperature_without_an_end():
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [0, 1]) == COLDEST  # nothing is wrong
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [1, 0]) == HOTTEST  # everything is
    assert fit_temperature(np.zeros((3, 2)), [0, 1, 1]) == 1  # any serves
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1
    assert 0 < fit_temperature([[1e5, -1e5], [0.0, 1.0]], [0, 0]) <= HOTTEST
    with pytest.raises(ValueError, match="finite"):
        fit_temperature([[np.inf, 0.0]], [0])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2,\)"):
        fit_temperature([[1.0, 0.0]], [0, 1])


def test_interval_of_a_share():
    right = np.random.default_rng(0).random(400) < 0.8

    def share(rows):
        return right[rows].mean()

    low, high = bootstrap_interval(share, 400, seed=1)
    assert bootstrap_interval(share, 400, seed=1) == (low, high)
    assert bootstrap_interval(share, 400, seed=2) != (low, high)
    # The normal approximation of a binomial share.
    p = right.mean()
    half = 1.96 * math.sqrt(p * (1 - p) / 400)
    assert low == pytest.approx(p - half, abs=0.006) and high == pytest.approx(p + half, abs=0.006)
    narrow = bootstrap_interval(share, 400, seed=1, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_without_a_score():
    assert all(math.isnan(end) for end in bootstrap_interval(lambda rows: 1.0, 0))
    assert all(math.isnan(end) for end in bootstrap_interval(lambda rows: math.nan, 5))
    with pytest.raises(ValueError, match="level=1"):
        bootstrap_interval(lambda rows: 1.0, 5, level=1)
