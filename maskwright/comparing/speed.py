"""Milliseconds of a prediction: all models look at each photo in turns.

A machine that slows down slows all of them alike. Measured is what `predict` does with an image in
memory, from its pixels to the whole result in its pixels, with the network as `predict` prepares
it; reading the file, which is the same for all, is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..prediction.predictor import Predictor
from ..terminal import console
from .peak import predict_once, usual_settings

PHOTOS = 8  # of the scored images, spread over all of them


@dataclass(frozen=True)
class Timed:
    """What the turns of a model have shown.

    Attributes:
        ms: milliseconds of each prediction; none if one of them failed.
        fault: why it failed.
    """

    ms: list[float]
    fault: str = ""


def take_turns(
    models: Mapping[str, tuple[Predictor, Any]],
    photos: Sequence[np.ndarray],
    repeats: int,
    told: Callable[[Exception], str],
) -> dict[str, Timed]:
    """Time predictions of several models on the same photos.

    Args:
        models: predictor and `imgsz` by name.
        photos: (H, W, 3) uint8 each.
        repeats: how often each photo comes; once more is not counted, in which all warm up.
        told: puts an error into words.
    """
    ready = {
        name: (one, one.resize_rule(imgsz), usual_settings(one))
        for name, (one, imgsz) in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ready}
    faults: dict[str, str] = {}
    total = len(photos) * (repeats + 1)
    with console.progress("speed", total=total, unit="turn") as bar:
        for turn in range(total):
            names = list(ready)
            first = turn % max(len(names), 1)
            for name in names[first:] + names[:first]:
                predictor, rule, settings = ready[name]
                start = time.perf_counter()
                try:
                    predict_once(predictor, photos[turn % len(photos)], rule, settings)
                except Exception as error:  # the others go on
                    faults[name] = told(error)
                    del ready[name]
                    continue
                if predictor.device.type == "cuda":
                    torch.cuda.synchronize(predictor.device)
                if turn >= len(photos):
                    times[name].append(1e3 * (time.perf_counter() - start))
            bar.update()
    return {
        name: Timed([] if name in faults else ms, faults.get(name, ""))
        for name, ms in times.items()
    }
