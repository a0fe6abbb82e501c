"""The graph of a whole model in torch's own form: plain tensors in, plain tensors out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.inference import fast_network
from ..nn.inference import share
from ..nn.same_padding import fix_padding
from ..tasks.graph import GraphSpec

# Of the example that a graph for any size is traced with: no side equals another one, on no level.
_EXAMPLE = (3, 5)
_CELL = 32  # stride of the coarsest map
MOST_IMAGES, MOST_PIXELS = 4096, 32768  # a batch and a side of a graph with free ones


def lean_network(model: Any, spec: GraphSpec) -> Any:
    """Return the network that is exported: batch norm folded, weights in the precision of `spec`.

    Args:
        model: in evaluation mode; it stays as it is.
        spec: its description.
    """
    network = share(fast_network(model, own=False))
    if spec.size is None:
        fix_padding(network, _run_blocks)
    if spec.precision == "fp16":
        _halve(network)
    return network


def whole_model(network: Any, spec: GraphSpec) -> nn.Module:
    """Return what is traced, in evaluation mode: from `spec.inputs` to `spec.outputs`.

    Args:
        network: of `lean_network`.
        spec: its description.
    """
    return spec.kind.wrap(network, spec).eval()


def _run_blocks(network: Any, blocks: int) -> object:
    """Run a model on an image of so many times `size_divisor` a side."""
    side = blocks * network.size_divisor
    return network.look(torch.zeros(1, network.channels, side, side))


class _Widen(nn.Module):
    """Weights kept in half precision, used in single precision."""

    def forward(self, kept: Tensor) -> Tensor:
        """Return the weights as the layer wants them."""
        return kept.float()


def _halve(network: nn.Module) -> None:
    """Keep the weights of all layers in half precision; biases and norms are too small to count."""
    for layer in list(network.modules()):
        for name, value in list(layer.named_parameters(recurse=False)):
            if value.ndim >= 2 and value.dtype == torch.float32:
                parametrize.register_parametrization(layer, name, _Widen(), unsafe=True)
                kept = layer.get_submodule(f"parametrizations.{name}")
                kept.original = nn.Parameter(value.detach().half(), requires_grad=False)


def trace(model: nn.Module, spec: GraphSpec) -> torch.export.ExportedProgram:
    """Return the graph of a model of `whole_model`, with our own operators in it."""
    batch = 2 if spec.batch is None else spec.batch
    height, width = spec.size or [64 * n for n in _EXAMPLE]
    pixels = torch.zeros(batch, spec.channels, height, width)
    sizes = torch.tensor([[height, width]]).repeat(batch, 1)
    given = [pixels, sizes, *spec.kind.example(spec, pixels)]

    def export(least: int) -> torch.export.ExportedProgram:
        dims: dict[str, dict[int, object]] = {name: {} for name in spec.inputs}
        if spec.batch is None:
            images = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
            dims = {name: {0: images} for name in spec.inputs}
        if spec.size is None:
            for axis, name in ((2, "rows"), (3, "columns")):
                count = torch.export.Dim(name, min=least, max=MOST_PIXELS // spec.divisor)
                dims["pixels"][axis] = spec.divisor * count
        with torch.no_grad(), quiet():
            return torch.export.export(model, tuple(given), dynamic_shapes=dims, strict=False)

    from torch._dynamo.exc import UserError  # the compiler, which predictions need not load

    try:
        return export(1)
    except UserError:
        if spec.size is not None or spec.divisor > 1:
            raise
        # Without padding an image may be smaller than a cell of a map: such ones have no graph.
        return export(_CELL)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters say about their own inner workings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
