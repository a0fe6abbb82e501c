"""Two-stage detectors in parts: what trains alone, and detectors that propose for others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ...errors import OptionError
from ...hub.loading import load_model
from ...models.base import Model
from ...models.detection.base import TwoStageDetector
from ...structures import Images


def two_stage(model: Model, name: str, option: str) -> TwoStageDetector:
    """Return a detector if it has an RPN.

    Args:
        model: the detector.
        name: what it is called.
        option: the training option that needs one.

    Raises:
        OptionError: if it has none.
    """
    if not isinstance(model, TwoStageDetector):
        raise OptionError(f"{option} needs a model with an RPN such as faster_rcnn_..., not {name}")
    return model


def load_proposer(source: str | Path | None, device: torch.device) -> TwoStageDetector | None:
    """Return the detector whose proposals train the heads of another, or None.

    Raises:
        ValueError: if it cannot be read or has no RPN.
    """
    if source is None:
        return None
    found, meta = load_model(source)
    detector = two_stage(found, meta.model, "proposal_model").to(device).eval()
    return detector.requires_grad_(False)


def proposing(proposer: TwoStageDetector) -> Callable[[Images], Images]:
    """Return what puts the proposals of a detector beside images."""
    return lambda images: replace(images, proposals=proposer.propose(images))
