"""Training in several processes as if in one: counts and batch statistics over all of them.

Distributed training averages the gradients of the processes. A loss that each process divides by
its own count would then weigh an object in a sparse image more than one in a dense image; divided
by `mean_count`, the average is the loss of the whole batch in one process. In one process nothing
here costs anything.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .norm import norm_outside


def num_processes() -> int:
    """Return the number of processes that train together."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def mean_count(valid: Tensor) -> Tensor:
    """Return how many values are true, on average over the processes; at least one in all.

    What a loss that sums over `valid` is divided by. Every process must call it, and as often as
    the others, also where nothing is valid.

    Args:
        valid: bool, any shape.
    """
    count = valid.sum()
    processes = num_processes()
    if processes > 1:
        dist.all_reduce(count)
        return count.clamp(min=1) / processes
    return count.clamp(min=1)


def mean_sum(shares: Tensor) -> Tensor:
    """Return the sum of weights, on average over the processes, for a mean as of `mean_count`.

    Never 0, so that what is divided by it may be.

    Args:
        shares: floating point, at least 0, any shape, without a gradient.
    """
    total = shares.sum()
    processes = num_processes()
    if processes > 1:
        dist.all_reduce(total)
        total /= processes
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def whole_sum(values: Tensor) -> Tensor:
    """Return the sum over the processes: of what a loss takes from the whole batch, as Dice does.

    Gradients flow into the own values alone, times the number of processes: their average is the
    gradient of the loss of the whole batch in one process.

    Args:
        values: of the same shape in all processes.
    """
    processes = num_processes()
    if processes == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    own = values * processes
    return own + (total - own.detach())


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all processes (what torch offers for CUDA only).

    Parameters and buffers have the names of `nn.BatchNorm2d`.

    Args:
        source: the layer whose place it takes; parameters and buffers are shared with it.
    """

    def __init__(self, source: _BatchNorm) -> None:
        super().__init__(source.num_features, source.eps, source.momentum, source.affine)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(source, name))
        self.training = source.training
        # Habits of Darknet's, see `darknet.layers.UnbiasedBatchNorm2d`.
        self.unbiased = bool(getattr(source, "unbiased", False))
        self.outside = bool(getattr(source, "outside", False))
        # timm has layers that go on with an activation.
        self.after = nn.Sequential(*source.children())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in training by the mean and variance over all processes."""
        if not self.training and self.outside:
            return norm_outside(self, x)
        if not self.training or num_processes() == 1:
            result: Tensor = self.after(super().forward(x))
            return result
        wide = x.to(self.weight.dtype)
        y, mean, var, count = _Normalise.apply(wide, self.weight, self.bias, self.eps)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            if self.momentum is None:
                factor = 1 / self.num_batches_tracked
            else:
                factor = torch.full_like(count, self.momentum)
            factor = torch.where(count > 0, factor, 0)
            self.running_mean.lerp_(mean, factor)
            # The unbiased variance, as torch keeps it.
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), factor)
            share = ((count - 1).clamp(min=0) / count.clamp(min=1)).sqrt()
        if self.unbiased:
            bias = self.bias[:, None, None]
            y = bias + (y - bias) * share
        result = self.after(y.to(x.dtype))
        return result


class _Normalise(torch.autograd.Function):
    """Batch norm with one exchange forward and one backward; a process may have no values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        if x.numel():
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        else:
            var, mean = x.new_zeros(2, channels)
        share = torch.cat([mean, var, x.new_full((1,), x.numel() / channels)])
        shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, share)
        means, variances, counts = torch.stack(shares).split([channels, channels, 1], 1)
        count = counts.sum()
        part = counts / count.clamp(min=1)
        mean = (part * means).sum(0)
        # The variance of the union: within the processes, and of their means (Chan et al. 1979).
        var = (part * (variances + (means - mean) ** 2)).sum(0)
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, mean, weight, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        x, mean, weight, scale, count = ctx.saved_tensors
        grad = gradients[0]
        normal = (x - mean[:, None, None]) * scale[:, None, None]
        sums = torch.stack([grad.sum((0, 2, 3)), (grad * normal).sum((0, 2, 3))])
        total = sums.clone()
        dist.all_reduce(total)
        offset, slope = (total / count.clamp(min=1))[..., None, None]
        grad_x = (weight * scale)[:, None, None] * (grad - offset - normal * slope)
        return grad_x, sums[1], sums[0], None


def share_batch_norm(module: nn.Module) -> None:
    """Put `SharedBatchNorm2d` in the place of every batch norm inside a module."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and child.track_running_stats and child.affine:
            setattr(module, name, SharedBatchNorm2d(child))
        else:
            share_batch_norm(child)
