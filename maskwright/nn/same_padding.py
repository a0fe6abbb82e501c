"""TensorFlow's "same" padding as numbers, for graphs whose images may have any size.

The networks that timm took from TensorFlow (`tf_...`) work out from the size of each map how much a
layer with a stride pads it. In a graph of free sizes that is a formula of the height and the width
which every later layer inherits; the tracer then spends minutes to hours on comparing formulas.
Where the sides of a map are multiples of the stride, the padding is the same number for all of
them, and the formula is not needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Blocks a side of the images on which the layers are watched: one alone is too little for norms.
_TIMES = (2, 3, 4)
# Layers of timm by name, as what they are after the padding (None: as themselves, told not to).
_PLAIN: dict[str, type[nn.Module] | None] = {
    "Conv2dSame": nn.Conv2d,
    "MaxPool2dSame": nn.MaxPool2d,
    "AvgPool2dSame": nn.AvgPool2d,
    "StdConv2dSame": None,
    "ScaledStdConv2dSame": None,
}


def fix_padding(module: nn.Module, run: Callable[[nn.Module, int], object]) -> int:
    """Replace, in place, "same" padding that is the same number for all images of whole blocks.

    Args:
        module: in evaluation mode; a copy of `inference.share`, since layers are replaced.
        run: calls the module on an image of so many blocks a side; the images that the graph will
            see have whole numbers of blocks along each axis.

    Returns:
        The number of layers that were replaced. Those whose maps have other sizes stay as they are.
    """
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if type(layer).__name__ in _PLAIN and getattr(layer, "same_pad", True)
    }
    if not layers:
        return 0
    sides: dict[str, list[set[tuple[int, int]]]] = {name: [] for name in layers}
    for times in _TIMES:
        seen = _watch(layers, partial(run, module, times))
        for name in layers:
            sides[name].append(seen[name])
    fixed = 0
    for name, layer in layers.items():
        if _is_even(sides[name], _pair(layer.stride)):
            module.set_submodule(name, _padded(layer))
            fixed += 1
    return fixed


def _watch(
    layers: dict[str, nn.Module], run: Callable[[], object]
) -> dict[str, set[tuple[int, int]]]:
    """Return the sides of the maps that each layer sees in a run."""
    seen: dict[str, set[tuple[int, int]]] = {name: set() for name in layers}
    handles = []
    for name, layer in layers.items():

        def see(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name].add((inputs[0].shape[-2], inputs[0].shape[-1]))

        handles.append(layer.register_forward_pre_hook(see))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _is_even(sides: Sequence[set[tuple[int, int]]], strides: tuple[int, int]) -> bool:
    """Whether maps, of one size each or growing with the image, are multiples of the strides.

    Args:
        sides: of the maps in images of `_TIMES` blocks.
        strides: along both axes.
    """
    first = sides[0]
    if not first:  # a layer that was not used
        return False
    blocks = 1
    if any(now != first for now in sides):
        blocks = _TIMES[0]
        if any(h % blocks or w % blocks for h, w in first):
            return False
        for times, now in zip(_TIMES, sides, strict=True):
            if now != {(h // blocks * times, w // blocks * times) for h, w in first}:
                return False
    return all(h // blocks % strides[0] == w // blocks % strides[1] == 0 for h, w in first)


def _padded(layer: nn.Module) -> nn.Module:
    """Return a layer behind the padding that it does on maps of whole strides."""
    kernel = _pair(layer.kernel_size)
    spans = [
        max((size - 1) * dilation + 1 - stride, 0)
        for size, stride, dilation in zip(
            kernel, _pair(layer.stride), _pair(getattr(layer, "dilation", 1)), strict=True
        )
    ]
    # As timm has it: what is left of an odd number goes to the right and the bottom.
    top, left = spans[0] // 2, spans[1] // 2
    around = (left, spans[1] - left, top, spans[0] - top)
    plain = copy.copy(layer)
    kind = _PLAIN[type(layer).__name__]
    if kind is None:
        plain.same_pad = False  # type: ignore[assignment]
    else:
        plain.__class__ = kind
    value = -torch.inf if isinstance(layer, nn.MaxPool2d) else 0.0
    return nn.Sequential(nn.ConstantPad2d(around, value), plain)


def _pair(value: Any) -> tuple[int, int]:
    """Return a size along both axes, as layers keep it: one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
