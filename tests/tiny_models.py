"""Tiny models for tests of every family, drawn at random once and copied."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.models import build_tiny


@lru_cache(maxsize=1)
def _drawn(name: str, num_classes: int) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return build_tiny(name, num_classes), torch.get_rng_state()


def fresh(name: str, num_classes: int) -> Any:
    """Return what `build_tiny` builds after seed 0, and leave torch's random numbers where it does.

    The last model is kept and copied, which is ten times as fast: tests of many families go through
    them family by family, by a fixture of their names for a whole module.
    """
    model, state = _drawn(name, num_classes)
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def random_norms(module: nn.Module) -> None:
    """Give every norm statistics of its own, by which a layer in the wrong place is seen."""
    for key, value in module.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
