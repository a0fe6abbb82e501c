"""Images divided into parts: nothing lost, every class in its share, groups together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.rewriting.division import divide

FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.3), (0.34, 0.33, 0.33), (1.0,)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), FRACTIONS, st.integers(0, 3))
def test_one_class_an_image(labels: list[int], fractions: tuple[float, ...], seed: int) -> None:
    """Each part has of a class about its share, and one image wherever there are enough."""
    own = np.array(labels)
    part = divide(np.arange(len(own)), own, np.arange(len(own)), fractions, seed)
    assert part.shape == own.shape and set(part.tolist()) <= set(range(len(fractions)))
    for label in set(labels):
        counts = np.bincount(part[own == label], minlength=len(fractions))
        wanted = np.array(fractions) * counts.sum()
        assert (abs(counts - wanted) < len(fractions)).all()
        if counts.sum() >= len(fractions):
            assert (counts > 0).all()
    again = divide(np.arange(len(own)), own, np.arange(len(own)), fractions, seed)
    np.testing.assert_array_equal(part, again)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 3))), min_size=1, max_size=60))
def test_groups_stay_together(images: list[tuple[int, set[int]]]) -> None:
    units = np.unique([group for group, _ in images], return_inverse=True)[1]
    pairs = [(k, label) for k, (_, own) in enumerate(images) for label in sorted(own)]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    part = divide(table[:, 0], table[:, 1], units, (0.6, 0.2, 0.2))
    for unit in range(units.max() + 1):
        assert len(set(part[units == unit].tolist())) == 1


def test_the_rarest_class_is_in_all_parts() -> None:
    """One image in a hundred has it, beside the class that all have."""
    images = np.concatenate([np.arange(1000), [3, 500, 999]])
    labels = np.concatenate([np.zeros(1000, int), [1, 1, 1]])
    for seed in range(20):
        part = divide(images, labels, np.arange(1000), (0.8, 0.1, 0.1), seed)
        assert sorted(part[[3, 500, 999]].tolist()) == [0, 1, 2]
        np.testing.assert_allclose(np.bincount(part), [800, 100, 100], atol=2)


def test_a_large_group_goes_to_the_large_part() -> None:
    units = np.repeat(np.arange(8), [60, 5, 5, 5, 5, 7, 7, 6])
    for seed in range(10):
        part = divide(np.arange(100), np.zeros(100, int), units, (0.8, 0.1, 0.1), seed)
        assert part[0] == 0
        np.testing.assert_allclose(np.bincount(part), [80, 10, 10], atol=6)


@pytest.mark.parametrize("seed", range(5))
def test_images_of_several_classes(seed: int) -> None:
    """As of street scenes: few classes in nearly all images, many in few."""
    rng = np.random.default_rng(seed)
    has = rng.random((2000, 20)) < np.geomspace(0.9, 0.004, 20)
    images, labels = np.nonzero(has)
    part = divide(images, labels, np.arange(2000), (0.8, 0.1, 0.1), seed)
    sizes = np.bincount(part, minlength=3)
    np.testing.assert_allclose(sizes, [1600, 200, 200], atol=2)
    for label in range(20):
        counts = np.bincount(part[has[:, label]], minlength=3)
        assert (counts > 0).all() or counts.sum() < 3
        # A draw by chance strays by the square root of what is wanted.
        wanted = 0.1 * counts.sum()
        np.testing.assert_allclose(counts[1:], wanted, atol=max(4, 0.6 * wanted**0.5))
