"""Dense CRF of arrays and of tensors; NumPy alone is enough."""

from .dense_crf import (
    PUBLISHED,
    Bilateral,
    Gaussian,
    dense_crf,
    refine_mask,
    refine_masks,
    unary_from_labels,
    unary_from_probabilities,
)

__all__ = [
    "PUBLISHED",
    "Bilateral",
    "Gaussian",
    "dense_crf",
    "refine_mask",
    "refine_masks",
    "unary_from_labels",
    "unary_from_probabilities",
]
