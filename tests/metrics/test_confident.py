"""Confident learning: by hand, and beside a plain loop over the definition in the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maskwright.metrics.confident import confident, margins


def plain(probs: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[list[int]]]:
    """Return guesses and joint, image by image."""
    count = probs.shape[1]
    means = {}
    for k in range(count):
        own = [float(row[k]) for row, label in zip(probs, labels, strict=True) if label == k]
        if own:
            means[k] = sum(own) / len(own)
    guesses, joint = [], [[0] * count for _ in range(count)]
    for row, label in zip(probs, labels, strict=True):
        sure = [k for k in means if row[k] >= means[k] - 1e-9]
        guess = max(sure, key=lambda k: row[k]) if sure else -1
        guesses.append(guess)
        if guess >= 0:
            joint[label][guess] += 1
    return guesses, joint


@pytest.mark.parametrize("seed", range(5))
def test_like_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(4, 0.5), 60)
    labels = rng.integers(0, 3, 60)  # nothing has the last class
    found = confident(probs, labels)
    guesses, joint = plain(probs, labels)
    assert found.guesses.tolist() == guesses and found.joint.tolist() == joint
    assert math.isnan(found.thresholds[3]) and 3 not in guesses
    gaps = [
        0.0 if g in (-1, y) else max(float(p[g] - p[y]), 0.0)
        for p, g, y in zip(probs, guesses, labels, strict=True)
    ]
    assert margins(probs, labels, found.guesses) == pytest.approx(gaps)


def test_swapped_labels_are_found_and_counted() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], 100)
    probs = np.full((300, 3), 0.05)
    probs[np.arange(300), true] = 0.9
    labels = true.copy()
    swapped = rng.choice(300, 30, replace=False)
    labels[swapped] = (labels[swapped] + 1) % 3
    found = confident(probs, labels)
    doubted = np.flatnonzero(margins(probs, labels, found.guesses))
    assert doubted.tolist() == sorted(swapped.tolist())
    assert found.share == pytest.approx(0.1, abs=0.01)


def test_a_class_of_which_the_model_is_seldom_sure_is_not_all_faults() -> None:
    # Class 1 never has more than 0.4, as likely as its neighbour 0: below the mean of that.
    probs = np.array([[0.9, 0.1]] * 8 + [[0.6, 0.4]] * 8)
    labels = np.array([0] * 8 + [1] * 8)
    found = confident(probs, labels)
    assert not margins(probs, labels, found.guesses).any() and found.share == 0


def test_nothing_is_said_of_nothing() -> None:
    found = confident(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert len(found.guesses) == 0 and math.isnan(found.share)
