"""The search on a grid against dense CRFs run one by one, scored with torchvision-free sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskwright.crf import Bilateral, dense_crf, unary_from_probabilities
from maskwright.metrics.crf_search import search_crf

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def samples() -> list[Sample]:
    """Discs of another colour on a ground, with noisy probabilities."""
    made = []
    for seed, (height, width) in enumerate(((14, 18), (16, 12))):
        draw = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        truth = ((y - 7) ** 2 + (x - 7) ** 2 < 20).astype(np.uint8)
        image = np.where(truth[..., None] == 1, 170, 60) + draw.integers(0, 9, (height, width, 3))
        logits = (2.0 * truth - 1) + draw.normal(size=truth.shape) * 1.5
        second = 1 / (1 + np.exp(-logits))
        probs = np.stack([1 - second, second]).astype(np.float32)
        truth[0] = 255
        made.append((probs, image.astype(np.uint8), truth))
    return made


def mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of all pixels at once."""
    found, truth = (np.concatenate([p[i].reshape(-1) for p in pairs]) for i in (0, 1))
    found, truth = found[truth != 255], truth[truth != 255]
    classes = range(2)
    each = [
        ((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in classes
    ]
    return float(np.mean(each))


@pytest.mark.parametrize("tensors", [False, True])
def test_every_place_scores_as_on_its_own_and_the_best_comes_first(tensors: bool) -> None:
    data = samples()
    done: list[int] = []
    given = ((torch.from_numpy(p), i, torch.from_numpy(t)) for p, i, t in data) if tensors else data
    trials = search_crf(
        given, weights=(1, 4), sxy=(3, 9), srgb=(6,), iterations=3, progress=done.append
    )
    assert done == [2, 4, 6, 8]
    assert len(trials) == 5 and trials == sorted(trials, key=lambda t: -t.mean_iou)
    for trial in trials:
        pairs = []
        for probs, image, truth in data:
            if trial.bilateral is not None:
                unary = unary_from_probabilities(probs)
                probs = dense_crf(unary, image, bilateral=trial.bilateral, iterations=3)
            pairs.append((probs.argmax(0), truth))
        assert trial.mean_iou == pytest.approx(mean_iou(pairs), abs=1e-9)
    places = {trial.bilateral for trial in trials}
    assert places == {None, *(Bilateral(xy, 6, w) for xy in (3, 9) for w in (1, 4))}
    assert trials[0].bilateral is not None  # the CRF helps on such images


def test_bad_samples_are_named() -> None:
    with pytest.raises(ValueError, match="samples: there is none"):
        search_crf([])
    probs, image, truth = samples()[0]
    with pytest.raises(ValueError, match="image: expected"):
        search_crf([(probs, image[:-1], truth)])
