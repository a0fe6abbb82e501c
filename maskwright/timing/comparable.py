"""Models to be timed: loaded, or with random weights that find much and a peer to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.meta import Meta
from ..models.registry import build, list_models
from ..prediction.load import load
from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded
from ..prediction.sources import one_source
from ..tasks import task_of


def comparable(
    model: str | Path,
    weights: str | Path | None,
    device: str,
    photo: np.ndarray,
    *,
    precision: str = "float32",
) -> Predictor:
    """Return a model that torchvision can be compared with, if it has one of that name.

    Args:
        model: registered name, checkpoint or run folder.
        weights: see `hub.load`; None: for a registered name random ones that find much.
        device: see `pick_device`.
        photo: (H, W, 3) uint8; random weights are scaled on it.
        precision: see `hub.load`.
    """
    if str(model) not in list_models() or weights is not None:
        return load(model, weights=weights, device=device, precision=precision)
    peer = task_of(str(model)).peer
    options = peer.options_of(str(model))
    made = random_predictor(str(model), peer.num_names, photo, options=options, device=device)
    return Predictor(made.model, made.meta, device=device, precision=precision)


def random_predictor(
    model: str,
    count: int,
    photo: np.ndarray,
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Predictor:
    """Return a model with random weights, always the same, that finds much in a photo.

    Args:
        model: registered name.
        count: how many names it knows.
        photo: (H, W, 3) uint8.
        options: of the model's builder.
        device: see `pick_device`.
    """
    options = dict(options or {})
    torch.manual_seed(0)
    network = build(model, count, **options)
    meta = Meta(model, options, [f"class_{i}" for i in range(count)])
    predictor = Predictor(network, meta, device=device)
    loaded = Loaded(one_source(photo, 0), photo, 0.0)
    predictor.fast = False
    predictor.task.peer.calibrate(
        predictor.model,
        lambda settings: predictor.infer([loaded], predictor.resize_rule(), settings),
    )
    predictor.fast = True
    return predictor
