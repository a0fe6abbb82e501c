"""Losses of independent classes, such as those of dense detectors: cross-entropy and focal.

Lin et al. 2017 (focal loss). Of the targets of an anchor at most one is 1, and of most anchors
none: the terms of the zeros are computed for all entries at once, and those of the ones only where
they are. No map of targets is made, which would be as large as the logits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .checks import as_float


def focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Return the focal loss of each entry: -alpha_t (1 - p_t)^gamma log p_t.

    With gamma 0 and alpha 0.5 it is half of the binary cross-entropy. It is finite for any finite
    logit.

    Args:
        logits: (...).
        targets: (...) 0 or 1.
        alpha: weight of the ones; that of the zeros is 1 - alpha.
        gamma: how much what is right already counts less.

    Returns:
        (...) at least 0.

    Reference: Lin et al. 2017, equation 5.

    Example:
        >>> focal_loss(torch.zeros(2), torch.tensor([0.0, 1.0])).div(0.6931).round(decimals=4)
        tensor([0.1875, 0.0625])
    """
    logits = as_float(logits)
    sign = 1 - 2 * targets.to(logits.dtype)  # logits of the wrong answer
    wrong = sign * logits
    weight = (1 - alpha) + (2 * alpha - 1) * targets.to(logits.dtype)
    return weight * torch.sigmoid(wrong).pow(gamma) * F.softplus(wrong)


def one_hot_losses(
    logits: Tensor,
    labels: Tensor,
    positive: Tensor,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Return the sum over the classes of the losses of each row.

    Args:
        logits: (..., C).
        labels: (...) int64 in [0, C), of the rows that are positive.
        positive: (...) bool: the target has a one at the label; the others are all zeros.
        alpha: see `focal_loss`; None: plain binary cross-entropy.
        gamma: see `focal_loss`.

    Returns:
        (...) at least 0.
    """
    logits = as_float(logits)
    zeros, ones = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
    power = 0.0 if alpha is None else gamma
    total: Tensor
    if torch.compiler.is_compiling():  # which chooses by itself what to keep
        total = zeros * (torch.sigmoid(logits).pow(power) * F.softplus(logits)).sum(-1)
    else:
        total = _Zeros.apply(logits, zeros, power)
    own = logits.gather(-1, labels[..., None])[..., 0]
    instead = ones * torch.sigmoid(-own).pow(power) * F.softplus(-own)
    instead = instead - zeros * torch.sigmoid(own).pow(power) * F.softplus(own)
    return total + torch.where(positive, instead, 0)


class _Zeros(torch.autograd.Function):
    """The sum over the last axis of the losses of logits whose targets are 0.

    The gradient is computed with the value, so that of all that leads there nothing is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: float, gamma: float) -> Tensor:
        p, cost = torch.sigmoid(logits), F.softplus(logits)
        if gamma == 0:
            value, grad = cost, p
        else:
            # d/dx p^g s = p^g (g (1 - p) s + p), as s' = p and p' = p (1 - p).
            factor = p.square() if gamma == 2 else p.pow(gamma)
            value = factor * cost
            grad = factor * (gamma * (1 - p) * cost + p)
        ctx.save_for_backward(weight * grad)
        return weight * value.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (own,) = ctx.saved_tensors
        return own * grad[..., None], None, None
