"""Which boxes of a dense detector take part in the loss of the classes, image by image.

Of many thousand places nearly all are background, most of it easy. The focal loss counts all of
them, each by its weight (Lin et al. 2017); the other ways pick some: at random (Ren et al. 2015),
the hardest negatives in proportion to the positives (Liu et al. 2016, section 2.2), or those of the
largest loss, whatever they are (Shrivastava et al. 2016, without its NMS).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ....errors import OptionError
from ...random import RandomSource
from ..samplers import BalancedSampler

# Of an image: losses (B, N) without gradient, states (B, N) as of `matchers.Match`, random numbers
# -> (B, N) bool.
Mining = Callable[[Tensor, Tensor, RandomSource], Tensor]

SAMPLED = 256  # boxes of an image that random and ohem take, as the RPN
NEGATIVES = 3  # hard negatives for each positive


def every(losses: Tensor, state: Tensor, generator: RandomSource) -> Tensor:
    """Take all that are not ignored."""
    return state >= 0


def at_random(losses: Tensor, state: Tensor, generator: RandomSource) -> Tensor:
    """Take 256 of an image, at most half of them positive."""
    sample = BalancedSampler(SAMPLED, 0.5)(state, generator=generator)
    taken = torch.zeros_like(state, dtype=torch.bool)
    return taken.scatter(1, sample.slot, sample.valid)


def hard_negatives(
    losses: Tensor, state: Tensor, generator: RandomSource, *, least: int = NEGATIVES
) -> Tensor:
    """Take all positives, and for each of them the three negatives of the largest loss.

    Args:
        losses, state, generator: see `Mining`.
        least: negatives that an image gives in any case. Deviation from Liu et al. 2016, who have
            none: there an empty image teaches nothing.
    """
    positive = state == 1
    wanted = (NEGATIVES * positive.sum(1, keepdim=True)).clamp(min=least)
    keys = torch.where(state == 0, losses, -1.0)
    order = keys.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(keys.shape[1], device=keys.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, place)
    return positive | ((rank < wanted) & (state == 0))


def hardest(losses: Tensor, state: Tensor, generator: RandomSource) -> Tensor:
    """Take the 256 of an image with the largest losses."""
    keys = torch.where(state >= 0, losses, -1.0)
    top, at = keys.topk(min(SAMPLED, keys.shape[1]), 1)
    return torch.zeros_like(state, dtype=torch.bool).scatter(1, at, top >= 0)


MININGS: dict[str, Mining] = {
    "none": every,
    "random": at_random,
    "hard_negatives": hard_negatives,
    "ohem": hardest,
}


def get_mining(name: str) -> Mining:
    """Return what picks boxes by its name.

    Raises:
        OptionError: if there is none.
    """
    if name not in MININGS:
        raise OptionError(f"mining is one of {', '.join(MININGS)}; got {name!r}")
    return MININGS[name]
