"""The option `crf`: borders refined by a dense CRF."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...crf.dense_crf import (
    PUBLISHED,
    SMOOTHNESS,
    Bilateral,
    Gaussian,
    dense_crf,
    unary_from_probabilities,
)
from ...errors import OptionError, nearest

USUAL = "deeplab_v2_resnet101"
ITERATIONS = 10
SEARCH = "search"


@dataclass(frozen=True)
class CrfSettings:
    """Parameters of a dense CRF, see `crf.dense_crf`.

    Attributes:
        gaussian: smoothness kernel.
        bilateral: appearance kernel.
        iterations: steps of mean field.
    """

    gaussian: Gaussian
    bilateral: Bilateral
    iterations: int = ITERATIONS

    @classmethod
    def parse(cls, value: Any) -> CrfSettings | None:
        """Read the option `crf`: true, a published set of parameters, or "weight,sxy,srgb".

        Raises:
            OptionError: if it is none of these.
        """
        if value is None or value is False or isinstance(value, CrfSettings):
            return value or None
        text = str(value).strip().lower()
        if text in ("true", "false"):
            return cls(**PUBLISHED[USUAL]) if text == "true" else None
        if text in PUBLISHED:
            return cls(**PUBLISHED[text])
        parts = value if isinstance(value, tuple | list) else text.split(",")
        try:
            weight, sxy, srgb = (float(part) for part in parts)
            if not (weight >= 0 and sxy > 0 and srgb > 0):
                raise ValueError
        except ValueError:
            raise OptionError(
                f"crf={value}: expected true, weight,sxy,srgb of the appearance kernel as in "
                f"4,67,3, or one of {', '.join(PUBLISHED)}{nearest(text, PUBLISHED)}"
            ) from None
        return cls.of(Bilateral(sxy, srgb, weight))

    @classmethod
    def of(cls, bilateral: Bilateral) -> CrfSettings:
        """Return an appearance kernel beside the smoothness kernel of DeepLab."""
        return cls(SMOOTHNESS, bilateral)

    def text(self) -> str:
        """Return the option that gives the appearance kernel."""
        sxy, srgb, weight = self.bilateral
        return f"{weight:g},{sxy:g},{srgb:g}"


def refined(found: Any, image: np.ndarray, crf: CrfSettings) -> Any:
    """Return the classes of an image drawn to its edges.

    Args:
        found: a `SemanticFound` with probabilities.
        image: (H, W, 3) uint8, the original.
        crf: the parameters.
    """
    assert found.probs is not None
    probs = dense_crf(
        unary_from_probabilities(torch.from_numpy(found.probs)),  # many times quicker than arrays
        image,
        gaussian=crf.gaussian,
        bilateral=crf.bilateral,
        iterations=crf.iterations,
    ).numpy()
    return replace(found, labels=probs.argmax(0).astype(np.uint8), probs=probs)
