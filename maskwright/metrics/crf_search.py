"""Which parameters of a dense CRF score best on images with truth, searched on a grid.

Chen et al. 2015 (DeepLab) fix the smoothness kernel and search weight, reach and tolerance of
colours of the appearance kernel on some images of the training part, a hundred in their case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..crf.dense_crf import (
    SMOOTHNESS,
    Bilateral,
    Gaussian,
    checked_input,
    checked_weight,
    crf_kernel,
    mean_field,
    pixel_rows,
    unary_from_probabilities,
)
from .semantic import Confusion, pixel_scores


@dataclass(frozen=True)
class CrfTrial:
    """A place on the grid, and how well it did.

    Attributes:
        bilateral: appearance kernel; None: the probabilities as they are, without a CRF.
        mean_iou: over the classes that truth or prediction have, from one confusion matrix.
    """

    bilateral: Bilateral | None
    mean_iou: float


def search_crf(
    samples: Iterable[tuple[Any, Any, Any]],
    *,
    weights: Sequence[float] = (3, 4, 5, 6),
    sxy: Sequence[float] = (30, 40, 50, 60, 70, 80, 90, 100),
    srgb: Sequence[float] = (3, 4, 5, 6),
    gaussian: Gaussian = SMOOTHNESS,
    iterations: int = 10,
    normalisation: str = "symmetric",
    progress: Callable[[int], None] = lambda done: None,
) -> list[CrfTrial]:
    """Return all places of the grid, the best first, and among them what there is without a CRF.

    Args:
        samples: probabilities (C, H, W), image (H, W, 3) uint8 and truth (H, W) of each, `IGNORED`
            where nothing counts; arrays or tensors. They are gone through once.
        weights: of the appearance kernel.
        sxy: its standard deviations of positions, in pixels.
        srgb: its standard deviations of colours.
        gaussian: smoothness kernel.
        iterations: steps of mean field.
        normalisation: see `dense_crf`.
        progress: called after each image and standard deviations with the number of CRFs so far:
            in the end the number of samples times that of places on the grid.

    Raises:
        ValueError: if there is no sample, or one does not fit; see `dense_crf`.
    """
    kernels = [*product(sxy, srgb)]
    grid = [Bilateral(*deviations, weight) for deviations in kernels for weight in weights]
    counts: dict[Bilateral | None, Confusion] = {}
    done = 0
    for probs, image, truth in samples:
        unary, image = checked_input(unary_from_probabilities(probs), image)
        if not counts:
            counts = {place: Confusion(len(probs)) for place in (None, *grid)}
        counts[None].add(probs.argmax(0), truth)
        weight = checked_weight("gaussian", gaussian[1], unary)
        near = crf_kernel(image, gaussian[0], normalisation=normalisation, like=unary)
        rows = pixel_rows(unary)
        for deviations in kernels:
            alike = crf_kernel(image, *deviations, normalisation=normalisation, like=unary)
            for w in weights:
                found = mean_field(rows, [(near, weight), (alike, w)], iterations).argmax(1)
                counts[Bilateral(*deviations, w)].add(found.reshape(truth.shape), truth)
            done += len(weights)
            progress(done)
    if not counts:
        raise ValueError("samples: there is none, so no parameters can be compared")
    trials = [CrfTrial(place, pixel_scores(c.counts).mean_iou) for place, c in counts.items()]
    return sorted(trials, key=lambda trial: -trial.mean_iou)
