"""The same network, rearranged for inference: what training needs and prediction does not is gone.

`prepare` returns a copy of a module that shares its tensors except where it does better: batch
norm with fixed statistics becomes part of the convolution before it, and on a CPU 3x3 convolutions
go through Winograd's filtering, others through oneDNN in one piece with the activation behind them.
Layers with hooks stay as they are. Outputs agree up to rounding (about 1e-5 of the largest value,
in mask heads 1e-4), unless a shorter type is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .convolution import Conv2d, WinogradConv2d, suits_winograd
from .norm import OUTSIDE, FrozenBatchNorm2d
from .packed import ACTIVATIONS, PackedConv2d, can_pack, is_hooked

Net = TypeVar("Net", bound=nn.Module)
_Hook = Callable[[nn.Module, tuple[object, ...], object], None]

# Largest difference between a folded pair and the pair itself, relative to the largest output.
_TOLERANCE = 1e-4


def prepare(
    module: Net,
    run: Callable[[nn.Module], object],
    *,
    own: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """Return a copy for inference, or the module itself if nothing in it can be done better.

    Args:
        module: in evaluation mode.
        run: calls the module it is given on some small input, so that all its layers are seen.
        own: replace the convolutions that gain from it; only in float32.
        dtype: of all weights, with norms folded before they are rounded.
    """
    lower = dtype != torch.float32
    own = own and not lower
    if not lower and not any(
        _is_norm(layer) or (own and _replacement(layer) is not None) for layer in module.modules()
    ):
        return module
    copied = share(module)
    fold_norms(copied, run)
    if lower:
        round_weights(copied, dtype)
    if own:
        for parent in list(copied.modules()):
            for name, child in list(parent.named_children()):
                if not is_hooked(child) and (better := _replacement(child)) is not None:
                    setattr(parent, name, better)
        take_activations(copied, run)
        for layer in copied.modules():
            if isinstance(layer, PackedConv2d):
                layer.forget()  # of the small input
    return copied


def _replacement(layer: nn.Module) -> nn.Module | None:
    """Return what computes a convolution faster; None for other layers."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer, PackedConv2d):
        return None
    if suits_winograd(layer):
        return WinogradConv2d(layer)
    packs = (
        type(layer) in (nn.Conv2d, Conv2d)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and can_pack()
    )
    return PackedConv2d(layer) if packs else None


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
    return _join(module, run, _is_norm, nn.Conv2d, _fold)


def take_activations(module: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Make activations part of the packed convolutions before them, in place; see `fold_norms`."""
    return _join(module, run, lambda layer: type(layer) in ACTIVATIONS, PackedConv2d, _take)


def _join(
    module: nn.Module,
    run: Callable[[nn.Module], object],
    follows: Callable[[nn.Module], bool],
    maker: type[nn.Module],
    join: Callable[[nn.Module, str, str], Callable[[], None]],
) -> int:
    """Make layers part of the convolutions that feed them, where nothing changes by it.

    Args:
        module: see `fold_norms`.
        run: see `prepare`.
        follows: which layers.
        maker: kind of the convolutions.
        join: makes of the names of a convolution and of the layer one piece, and returns what puts
            both back.

    Returns:
        How many.
    """
    pairs, before = _watch(module, run, follows, maker)
    if not all(bool(value.isfinite().all()) for value in before.values()):
        return 0  # broken weights: nothing can be compared
    names = set(before)
    undo = [join(module, conv, name) for name, conv in pairs.items()]
    if _all_same(before, _watch(module, run, follows, maker, names)[1]):
        return len(pairs)
    for back in undo:
        back()
    joined = 0
    for name, conv in pairs.items():
        back = join(module, conv, name)
        if _all_same(before, _watch(module, run, follows, maker, names)[1]):
            joined += 1
        else:
            back()
    return joined


def _watch(
    module: nn.Module,
    run: Callable[[nn.Module], object],
    follows: Callable[[nn.Module], bool],
    maker: type[nn.Module],
    keep: set[str] | None = None,
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Run a module and see which convolution alone feeds which layer of a kind.

    Returns:
        The convolution of each such layer by their names, and the first output of each (of the
        modules `keep`, if given) and, by numbers, the tensors that the module itself gives.
    """
    # Tensors by address and version: what works in place makes another of them.
    made_by: dict[tuple[int, int], str] = {}
    readers: dict[tuple[int, int], int] = {}
    fed: dict[str, tuple[int, int]] = {}
    calls: dict[str, int] = {}
    outputs: dict[str, Tensor] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def before(name: str, layer: nn.Module) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def see(_: nn.Module, inputs: tuple[object, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            for value in inputs:
                if isinstance(value, Tensor) and not isinstance(layer, (nn.Identity, nn.Dropout)):
                    readers[_key(value)] = readers.get(_key(value), 0) + 1
                    if follows(layer):
                        fed[name] = _key(value)
                    alive.append(value)

        return see

    def after(name: str, layer: nn.Module) -> _Hook:
        def see(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor):
                alive.append(output)
                if isinstance(layer, maker):
                    made_by[_key(output)] = name
                if name not in outputs and (follows(layer) if keep is None else name in keep):
                    outputs[name] = output.clone()  # the next layer may work in place

        return see

    named = [(name, layer) for name, layer in module.named_modules() if name]
    leaves = [
        (name, layer)
        for name, layer in named
        if (follows(layer) or not list(layer.children())) or (keep is not None and name in keep)
    ]
    handles = [layer.register_forward_pre_hook(before(name, layer)) for name, layer in leaves]
    handles += [layer.register_forward_hook(after(name, layer)) for name, layer in leaves]
    try:
        # In inference mode a cached tensor would spoil training, and none has a version.
        with torch.inference_mode(False), torch.no_grad():
            result = run(module)
        outputs |= {f" {i}": value for i, value in enumerate(_tensors(result))}
    finally:
        for handle in handles:
            handle.remove()
    shared = {name for name, count in calls.items() if count > 1}
    pairs = {
        layer: made_by[value]
        for layer, value in fed.items()
        if value in made_by
        and readers[value] == 1
        and not shared & {layer, made_by[value]}
        and not any(is_hooked(module.get_submodule(name)) for name in (layer, made_by[value]))
    }
    return pairs, outputs


def _tensors(result: object) -> list[Tensor]:
    """Return the tensors of a result, also of one in lists and dicts."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in _tensors(part)]
    return []


def _key(value: Tensor) -> tuple[int, int]:
    return id(value), 0 if value.is_inference() else value._version


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
        if getattr(norm, "outside", False):
            scale = 1 / (var.double().sqrt() + OUTSIDE)
        else:
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
    layers = [
        layer
        for layer in rest
        if isinstance(layer, nn.Module) and not isinstance(layer, nn.Identity)
    ]
    module.set_submodule(conv_name, folded)
    module.set_submodule(norm_name, nn.Sequential(*layers) if layers else nn.Identity())

    def undo() -> None:
        module.set_submodule(conv_name, conv)
        module.set_submodule(norm_name, norm)

    return undo


def _take(module: nn.Module, conv_name: str, name: str) -> Callable[[], None]:
    """Make an activation part of a packed convolution; return what puts both back."""
    conv, activation = module.get_submodule(conv_name), module.get_submodule(name)
    taken = copy.copy(conv)
    assert isinstance(taken, PackedConv2d)
    taken.activation = type(activation)
    module.set_submodule(conv_name, taken)
    module.set_submodule(name, nn.Identity())

    def undo() -> None:
        module.set_submodule(conv_name, conv)
        module.set_submodule(name, activation)

    return undo
