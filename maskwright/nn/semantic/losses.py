"""Losses of segmenters: logits of every pixel against a map of labels, of which some are ignored.

All have one form, `PixelLoss`, and give 0 with gradients of 0 where no pixel counts. Several
processes together get the loss of their whole batch: terms of pixels and images are divided by the
counts of all (`nn.parallel`), overlaps of classes are summed over all.

Lin et al. 2017 (focal loss), Milletari et al. 2016 (Dice), Berman et al. 2018 (Lovasz-softmax),
Shrivastava et al. 2016 (hard examples).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskwright.errors import OptionError, nearest

from ...structures import IGNORED
from ..parallel import mean_count, mean_sum, whole_sum

# (logits (B, C, H, W) float32, maps (B, H, W) uint8, weights (C,) or None) -> scalar
PixelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, maps: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over the pixels that count, of all processes.

    Args:
        logits: (B, C, H, W) float32.
        maps: (B, H, W) uint8, `IGNORED` where nothing counts.
        weights: (C,), how much the pixels of each class count; None: all the same.

    Returns:
        A scalar; 0, with gradients of 0, where no pixel counts.

    Example:
        >>> maps = torch.tensor([[[0, 1, IGNORED]]], dtype=torch.uint8)
        >>> round(cross_entropy(torch.zeros(1, 2, 1, 3), maps).item(), 4)  # ln 2
        0.6931
    """
    return _mean(pixel_cross_entropy(logits, maps), maps, weights)


def focal(
    logits: Tensor, maps: Tensor, weights: Tensor | None = None, *, gamma: float = 2.0
) -> Tensor:
    """Return the mean of (1 - p)^gamma x cross-entropy: pixels that are right count for little.

    Divided by the number of pixels (the sum of their weights), not of those that are hard.

    Args:
        logits, maps, weights: see `cross_entropy`.
        gamma: 0 gives the cross-entropy.

    Reference: Lin et al. 2017, equation 5, with the softmax in place of the sigmoid.
    """
    each = pixel_cross_entropy(logits, maps)
    return _mean((-torch.expm1(-each)).pow(gamma) * each, maps, weights)


def ohem(
    logits: Tensor,
    maps: Tensor,
    weights: Tensor | None = None,
    *,
    thresh: float = 0.7,
    least: float = 1 / 16,
) -> Tensor:
    """Return the mean cross-entropy over the hard pixels (online hard example mining).

    Hard are those whose true class has a probability below `thresh`, and in each image the hardest
    in any case; mmsegmentation has a number for that, 100,000 an image, which is all of a small
    crop.

    Args:
        logits, maps, weights: see `cross_entropy`.
        thresh: probability of the true class from which on a pixel is easy.
        least: share of the pixels of each image that count in any case, the hardest.

    Reference: Shrivastava et al. 2016, for pixels.
    """
    each = pixel_cross_entropy(logits, maps)
    hardest = _hardest(each.detach(), maps, least)
    return _mean(each, maps, weights, hardest | (each.detach() > -math.log(thresh)))


def topk(
    logits: Tensor, maps: Tensor, weights: Tensor | None = None, *, share: float = 0.2
) -> Tensor:
    """Return the mean cross-entropy over the hardest pixels of each image (bootstrapped).

    Args:
        logits, maps, weights: see `cross_entropy`.
        share: of the pixels of an image that enter the mean.
    """
    each = pixel_cross_entropy(logits, maps)
    return _mean(each, maps, weights, _hardest(each.detach(), maps, share))


def dice(logits: Tensor, maps: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return 1 - Dice of the classes, on average over those that the batch has.

    Dice is 2 sum(p t) / (sum p + sum t) over all pixels of the batch, p being the probability of
    the class and t whether it is there.

    Args:
        logits, maps: see `cross_entropy`.
        weights: (C,), how much each class counts in the average; None: all the same.

    Reference: Milletari et al. 2016, without the squares in the denominator.
    """
    both, said, true = _overlaps(logits, maps)
    return _class_mean(1 - 2 * both / (said + true + (true == 0)), true > 0, weights)


def jaccard(logits: Tensor, maps: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return 1 - IoU of the classes, sum(p t) / (sum p + sum t - sum(p t)); else as `dice`."""
    both, said, true = _overlaps(logits, maps)
    return _class_mean(1 - both / (said + true - both + (true == 0)), true > 0, weights)


def lovasz(logits: Tensor, maps: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the Lovasz-softmax loss: the Lovasz extension of 1 - IoU, a mean of images.

    Of each image the mean over the classes that it has.

    Args:
        logits, maps: see `cross_entropy`.
        weights: (C,), how much each class counts in the average; None: all the same.

    Reference: Berman et al. 2018, equations 8, 9 and 11, with the classes that are present.
    """
    probs = logits.softmax(1)
    slopes = torch.zeros_like(probs)
    constants = []
    for i, truth in enumerate(maps):
        constants.append(_lovasz_slopes(probs[i].detach(), truth, weights, slopes[i]))
    total = (slopes * probs).sum() + torch.stack([*constants, slopes.new_zeros(())]).sum()
    return total / mean_count((maps != IGNORED).flatten(1).any(1))


LOSSES: Mapping[str, PixelLoss] = {
    "ce": cross_entropy,
    "ohem": ohem,
    "topk": topk,
    "focal": focal,
    "dice": dice,
    "jaccard": jaccard,
    "lovasz": lovasz,
}


def make_loss(text: str) -> PixelLoss:
    """Return the loss that an option names: one of `LOSSES`, or a sum, such as "ce+0.5*dice".

    Raises:
        OptionError: if there is no such loss.

    Example:
        >>> make_loss("ce") is cross_entropy
        True
    """
    terms = [_term(part, text) for part in str(text).split("+")]
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return partial(_weighted_sum, terms)


def _term(part: str, text: str) -> tuple[float, PixelLoss]:
    """Return factor and loss of one term of an option."""
    factor, star, name = part.rpartition("*")
    name = name.strip()
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = math.nan
    if name in LOSSES and 0 < weight < math.inf:
        return weight, LOSSES[name]
    hint = nearest(name, LOSSES) if name not in LOSSES else ""
    raise OptionError(
        f"loss is one of {', '.join(LOSSES)}, or a sum of them such as ce+dice or ce+0.5*dice; "
        f"got {text!r}{hint}"
    )


def _weighted_sum(
    terms: list[tuple[float, PixelLoss]], logits: Tensor, maps: Tensor, weights: Tensor | None
) -> Tensor:
    return torch.stack([factor * loss(logits, maps, weights) for factor, loss in terms]).sum()


def pixel_cross_entropy(logits: Tensor, maps: Tensor) -> Tensor:
    """Return the cross-entropy (B, H, W) of each pixel; 0, without a gradient, where ignored.

    Keeps one number a pixel for the gradient in place of one for each class, and takes the labels
    as they are, which is faster than `F.cross_entropy` on a CPU for more than a few classes.

    Args:
        logits: (B, C, H, W) float32.
        maps: (B, H, W) uint8.
    """
    if torch.compiler.is_compiling():  # which joins the steps by itself
        return F.cross_entropy(logits, maps.long(), ignore_index=IGNORED, reduction="none")
    each: Tensor = _PixelCrossEntropy.apply(logits, maps)
    return each


class _PixelCrossEntropy(torch.autograd.Function):
    """ln sum exp z - z of the true class, whose gradient is softmax z - 1 at the true class."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, maps: Tensor) -> Tensor:
        norms = logits.new_empty(maps.shape)
        for one, norm in zip(logits, norms, strict=True):  # what is computed between is as large
            torch.logsumexp(one, 0, out=norm)
        ctx.save_for_backward(logits, maps, norms)
        true = logits.gather(1, _places(maps)[:, None])[:, 0]
        return (norms - true).masked_fill_(maps == IGNORED, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, maps, norms = ctx.saved_tensors
        slope = gradients[0].masked_fill(maps == IGNORED, 0)[:, None]
        found = (logits - norms[:, None]).exp_().mul_(slope)
        return found.scatter_add_(1, _places(maps)[:, None], -slope), None


def _places(maps: Tensor) -> Tensor:
    """Return labels (B, H, W) as int64, 0 in place of `IGNORED`."""
    return maps.long().masked_fill_(maps == IGNORED, 0)


def _mean(each: Tensor, maps: Tensor, weights: Tensor | None, kept: Tensor | None = None) -> Tensor:
    """Return the mean of values (B, H, W) over the pixels that count, by the weights of classes."""
    counts = maps != IGNORED if kept is None else kept & (maps != IGNORED)
    if weights is None:
        return (each if kept is None else each * counts).sum() / mean_count(counts)
    shares = weights[_places(maps)] * counts
    return (each * shares).sum() / mean_sum(shares)


def _hardest(each: Tensor, maps: Tensor, share: float) -> Tensor:
    """Return which pixels (B, H, W) are a share of each image with the highest loss, or more.

    Those with the same loss as the last one are among them.
    """
    valid = (maps != IGNORED).flatten(1)
    falling = -each.flatten(1).masked_fill(~valid, -1)
    last = (valid.sum(1, keepdim=True) * share).ceil().long().clamp(min=1) - 1
    if each.device.type == "cpu" and not torch.compiler.is_compiling():
        ranked = torch.from_numpy(np.sort(falling.numpy(), 1))  # in a twentieth of torch's time
    else:
        ranked = falling.sort(1).values
    return -each <= ranked.gather(1, last)[..., None]


def _overlaps(logits: Tensor, maps: Tensor) -> Tensor:
    """Return (3, C) sums over the pixels of all processes: of p t, of p, and of t."""
    probs = logits.softmax(1)
    valid = (maps != IGNORED).to(probs.dtype).flatten(1)
    places = _places(maps)
    hit = probs.gather(1, places[:, None])[:, 0].flatten() * valid.flatten()
    zeros = probs.new_zeros(probs.shape[1])
    sums = (
        zeros.index_add(0, places.flatten(), hit),
        (probs.flatten(2) @ valid[..., None]).sum((0, 2)),
        zeros.index_add(0, places.flatten(), valid.flatten()),
    )
    return whole_sum(torch.stack(sums))


def _class_mean(each: Tensor, there: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of values (C,) over the classes that are there; 0 without any."""
    shares = there.to(each.dtype) if weights is None else there * weights
    return (each * shares).sum() / shares.sum().clamp(min=torch.finfo(each.dtype).tiny)


def _lovasz_slopes(probs: Tensor, truth: Tensor, weights: Tensor | None, out: Tensor) -> Tensor:
    """Write the gradient of the loss of one image, and return the loss without probabilities.

    The loss is a sum of errors |t - p|, each times what the IoU falls by if that pixel is wrong
    beside all that are worse; so it is linear in p while the order of the errors lasts.

    Args:
        probs: (C, H, W).
        truth: (H, W) uint8.
        weights: (C,) or None.
        out: (C, H, W) zeros, to be filled.
    """
    truth = truth.flatten()
    valid = truth != IGNORED
    numbers = truth[valid].unique().tolist()
    if weights is None:
        shares = probs.new_full((len(numbers),), 1 / max(len(numbers), 1))
    else:
        shares = weights[numbers] / weights[numbers].sum().clamp(min=torch.finfo(probs.dtype).tiny)
    constant = probs.new_zeros(())
    for label, share in zip(numbers, shares, strict=True):
        true = truth == label
        errors = (true.to(probs.dtype) - probs[label].flatten()).abs_().masked_fill_(~valid, -1)
        order = _falling_order(errors)
        ranked = true[order]
        wrong = ranked.cumsum(0)  # of the class, among the worst pixels so far
        total = ranked.sum()
        union = (total + (~ranked).cumsum(0)).to(probs.dtype)
        # A pixel of the class leaves the intersection; another one enlarges the union.
        step = torch.where(ranked, 1 / union, (total - wrong) / (union * (union - 1)))
        slope = torch.empty_like(errors).index_copy_(0, order, step) * valid * share
        constant += torch.where(true, slope, 0).sum()
        out[label] = torch.where(true, -slope, slope).view_as(out[label])
    return constant


def _falling_order(values: Tensor) -> Tensor:
    """Return the positions of float32 values (N,), -1 or at least 0, the highest first."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(descending=True)
    # The bits of a positive number rise with it. Sorted as whole numbers with their positions
    # below them, they take a fifth of the time.
    keys = values.numpy().view(np.int32).astype(np.int64) << 32
    keys |= np.arange(len(keys) - 1, -1, -1)
    keys.sort()
    return torch.from_numpy(len(keys) - 1 - (keys[::-1] & 0xFFFFFFFF))
