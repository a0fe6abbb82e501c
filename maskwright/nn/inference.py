"""The same network, rearranged for inference: what training needs and prediction does not is gone.

`prepare` returns a copy of a module that shares its tensors except where it does better: batch
norm with fixed statistics becomes part of the convolution before it, and on a CPU 3x3 convolutions
go through Winograd's filtering. Layers with hooks stay as they are. Outputs agree up to rounding
(about 1e-5 of the largest value, in mask heads 1e-4), unless a shorter type is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .norm import FrozenBatchNorm2d
from .winograd import WinogradConv2d, suits_winograd

Net = TypeVar("Net", bound=nn.Module)
_Hook = Callable[[nn.Module, tuple[object, ...], object], None]

# Largest difference between a folded pair and the pair itself, relative to the largest output.
_TOLERANCE = 1e-4


def prepare(
    module: Net,
    run: Callable[[nn.Module], object],
    *,
    winograd: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """Return a copy for inference, or the module itself if nothing in it can be done better.

    Args:
        module: in evaluation mode.
        run: calls the module it is given on some small input, so that all its layers are seen.
        winograd: replace the convolutions that gain from it; only in float32.
        dtype: of all weights, with norms folded before they are rounded.
    """
    lower = dtype != torch.float32
    replaced = suits_winograd if winograd and not lower else _none
    if not lower and not any(_is_norm(layer) or replaced(layer) for layer in module.modules()):
        return module
    copied = share(module)
    fold_norms(copied, run)
    if lower:
        round_weights(copied, dtype)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and replaced(child) and not _is_hooked(child):
                setattr(parent, name, WinogradConv2d(child))
    return copied


def _none(layer: nn.Module) -> bool:
    return False


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Give a copy of `share` its weights in another type, and the statistics of its norms."""
    for layer in module.modules():
        for name, weight in layer._parameters.items():
            if weight is not None:
                layer._parameters[name] = nn.Parameter(weight.detach().to(dtype), False)
        if _is_norm(layer):
            for name, value in layer._buffers.items():
                if value is not None and value.is_floating_point():
                    layer._buffers[name] = value.to(dtype)


def share(module: Net) -> Net:
    """Return a copy of the tree of modules with the same parameters and buffers."""
    made: dict[nn.Module, nn.Module] = {}  # a module that stands in two places is copied once

    def walk(old: nn.Module) -> nn.Module:
        if old not in made:
            new = made[old] = copy.copy(old)
            for kind in ("_parameters", "_buffers", "_modules"):
                new.__dict__[kind] = dict(old.__dict__[kind])
            for kind, hooks in vars(old).items():
                if kind.endswith("hooks") and isinstance(hooks, dict):
                    new.__dict__[kind] = hooks.copy()  # or ours would fire in other threads
            for name, child in old.named_children():
                new._modules[name] = walk(child)
        return made[old]

    walk(module)
    return made[module]  # type: ignore[return-value]


def fold_norms(module: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Make batch norms with fixed statistics part of the convolutions before them, in place.

    Which convolution feeds which norm is seen by running the module once. A second run checks that
    all norms still give what they gave; if not (code that reads the output of a convolution beside
    its norm), the pairs are tried one by one.

    Args:
        module: in evaluation mode.
        run: see `prepare`.

    Returns:
        The number of norms that are gone.
    """
    pairs, before = _watch(module, run)
    if not all(bool(value.isfinite().all()) for value in before.values()):
        return 0  # broken weights: nothing can be compared
    names = set(before)
    undo = [_fold(module, conv, norm) for norm, conv in pairs.items()]
    if _all_same(before, _watch(module, run, names)[1]):
        return len(pairs)
    for back in undo:
        back()
    folded = 0
    for norm, conv in pairs.items():
        back = _fold(module, conv, norm)
        if _all_same(before, _watch(module, run, names)[1]):
            folded += 1
        else:
            back()
    return folded


def _watch(
    module: nn.Module, run: Callable[[nn.Module], object], keep: set[str] | None = None
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Run a module and see which convolution alone feeds which norm.

    Returns:
        The convolution of each norm by their names, and the first output of each norm (of the
        modules `keep`, if given) and, under "", of the module if that is a tensor.
    """
    made_by: dict[int, str] = {}
    readers: dict[int, int] = {}
    fed: dict[str, int] = {}
    calls: dict[str, int] = {}
    outputs: dict[str, Tensor] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def hook(
        name: str, layer: nn.Module
    ) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def see(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            for value in inputs:
                if isinstance(value, Tensor):
                    readers[id(value)] = readers.get(id(value), 0) + 1
                    if _is_norm(layer):
                        fed[name] = id(value)
                    alive.append(value)
            if isinstance(output, Tensor):
                alive.append(output)
                if isinstance(layer, nn.Conv2d):
                    made_by[id(output)] = name
                if name not in outputs and (_is_norm(layer) if keep is None else name in keep):
                    outputs[name] = output.clone()  # the next layer may work in place

        return see

    named = [(name, layer) for name, layer in module.named_modules() if name]
    leaves = [
        (name, layer)
        for name, layer in named
        if (_is_norm(layer) or not list(layer.children())) or (keep is not None and name in keep)
    ]
    handles = [layer.register_forward_hook(hook(name, layer)) for name, layer in leaves]
    try:
        with torch.no_grad():  # in inference mode a cached tensor would spoil training
            result = run(module)
        if isinstance(result, Tensor):
            outputs[""] = result
    finally:
        for handle in handles:
            handle.remove()
    shared = {name for name, count in calls.items() if count > 1}
    pairs = {
        norm: made_by[value]
        for norm, value in fed.items()
        if value in made_by
        and readers[value] == 1
        and not shared & {norm, made_by[value]}
        and not any(_is_hooked(module.get_submodule(name)) for name in (norm, made_by[value]))
    }
    return pairs, outputs


def _is_hooked(layer: nn.Module) -> bool:
    """Whether somebody reads or changes what goes in or out: then the layer has to be called."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _is_norm(layer: nn.Module) -> bool:
    fixed = isinstance(layer, _BatchNorm) and not layer.training
    return (fixed and layer.running_mean is not None) or isinstance(layer, FrozenBatchNorm2d)


def _all_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(
        name in after
        and after[name].shape == value.shape
        and bool((after[name] - value).abs().max() <= _TOLERANCE * value.abs().max())
        for name, value in before.items()
        if value.numel()
    )


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> Callable[[], None]:
    """Fold a norm into a convolution; return what puts both back."""
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    mean, var, weight, bias, eps = (
        getattr(norm, name) for name in ("running_mean", "running_var", "weight", "bias", "eps")
    )
    with torch.no_grad():
        # In double precision: the product is then rounded once.
        scale = (var.double() + eps).rsqrt()
        scale = scale if weight is None else scale * weight.double()
        shift = -mean.double() * scale
        shift = shift if bias is None else shift + bias.double()
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        folded = copy.copy(conv)
        folded._parameters = dict(conv._parameters)
        product = conv.weight.double() * scale[:, None, None, None]
        order = (
            torch.channels_last
            if conv.weight.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        folded.weight = nn.Parameter(
            product.to(conv.weight.dtype).contiguous(memory_format=order), requires_grad=False
        )
        folded.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    # timm's norms carry the activation that follows them.
    rest = [getattr(norm, part, None) for part in ("drop", "act")]
    layers = [layer for layer in rest if isinstance(layer, nn.Module)]
    module.set_submodule(conv_name, folded)
    module.set_submodule(norm_name, nn.Sequential(*layers) if layers else nn.Identity())

    def undo() -> None:
        module.set_submodule(conv_name, conv)
        module.set_submodule(norm_name, norm)

    return undo
