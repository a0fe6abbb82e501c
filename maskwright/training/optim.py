"""Optimiser, its parameter groups, the learning-rate schedule, and their state by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ..tasks.recipe import TrainRecipe


def build_optimizer(
    recipe: TrainRecipe, model: nn.Module, lr: float, rates: Mapping[str, float]
) -> Optimizer:
    """Return the optimiser of a recipe over the trainable parameters of a model.

    A group for each learning rate, and in it two: one-dimensional parameters (biases, norms) have
    no weight decay. The peak rate of a group stands under `peak_lr`.

    Args:
        recipe: options.
        model: the model.
        lr: peak learning rate.
        rates: that of parameters by name as a fraction of `lr`; others: 1. See `Task.rates`.

    Raises:
        ValueError: if nothing is trainable.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (-rates.get(name, 1.0), parameter.dim() > 1)  # the fastest first
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError(f"freeze={recipe.freeze} leaves nothing to train: lower it")
    options = []
    for (slowness, decays), parameters in sorted(groups.items(), key=lambda item: item[0]):
        peak = lr * -slowness
        decay = recipe.decay() if decays else 0.0
        options.append({"params": parameters, "lr": peak, "peak_lr": peak, "weight_decay": decay})
    if recipe.optimizer == "sgd":
        return SGD(options, lr=lr, momentum=recipe.momentum)
    return AdamW(options, lr=lr, betas=(recipe.momentum, 0.999))


def lr_factor(recipe: TrainRecipe, step: int, total: int) -> float:
    """Return the learning rate of an optimiser step as a fraction of its peak.

    Args:
        recipe: options.
        step: number of steps done before; below 0 counts as 0.
        total: number of steps of the whole training.
    """
    warmup, step = recipe.warmup_steps(total), max(step, 0)
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "multistep":
        passed = sum(step >= fraction * total for fraction in recipe.milestones)
        return float(0.1**passed)
    done = (step - warmup) / max(total - warmup, 1)
    if recipe.schedule == "poly":  # Chen et al. 2017, section 4.1
        return float(max(1 - done, 0.0) ** 0.9)
    # Loshchilov & Hutter 2017, eq. 5, one period, down to 0
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state by "<parameter name>.<slot>"."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{slot}"] = value
    return tensors


def load_optimizer_tensors(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned, in the memory layout of each parameter.

    Raises:
        ValueError: if a tensor belongs to no trainable parameter, or has another shape.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    adaptive = isinstance(optimizer, torch.optim.AdamW)
    slots = {"step", "exp_avg", "exp_avg_sq"} if adaptive else {"momentum_buffer"}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters:
            raise ValueError(f"optimiser state {key!r} belongs to no trainable parameter")
        parameter = parameters[name]
        if slot == "step" and tensor.numel() == 1:  # a scalar, which the optimisers keep on the CPU
            optimizer.state[parameter][slot] = tensor.clone()
            continue
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"optimiser state {key!r} is {tuple(tensor.shape)}, "
                f"expected {tuple(parameter.shape)}"
            )
        with torch.no_grad():
            optimizer.state[parameter][slot] = torch.empty_like(parameter).copy_(tensor)
    for key in tensors:
        name, _, slot = key.rpartition(".")
        needed = {f"{name}.{other}" for other in slots}
        if slot not in slots or not needed <= set(tensors):
            wanted = ", ".join(sorted(needed))
            raise ValueError(f"optimiser state {key!r} is there, but not all and only {wanted}")
