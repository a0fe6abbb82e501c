"""Post-training quantisation: the layers of an ONNX graph in 8-bit integers.

Static quantisation as in Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference": a scale for each output channel of a layer's weights,
a scale and a zero point for each activation, from its range on calibration images. The graph says
so in standard operators, QuantizeLinear and DequantizeLinear around each layer, from which ONNX
Runtime and OpenVINO choose their integer kernels.

Three things differ from the usual. Layers whose output decides without another layer after it stay
in float, as do the first layer and depthwise convolutions: `choose_layers` says why. Activations
that follow a layer are part of it, so that its range is the one behind them. And weights have 7
bits: processors without dot products of 8-bit integers (x86 before VNNI) add pairs of products in
16 bits and would silently cut them off at 8, so that what was measured on one processor would not
hold on the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Images
from ..tasks.graph import GraphSpec
from .onnx_file import check_onnx, set_description
from .sessions import fill_batches

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ACTIVATIONS = {"Relu", "Clip"}  # whose range an 8-bit scale can take over
# Operators that turn values into decisions: order, positions, yes or no.
_DECISIONS = {
    *("TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero", "Not", "And", "Or"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"),
}
_REGIONS = {"RoiAlign", "MaxRoiPool"}  # their first input is features, the others say where


def choose_layers(graph: Any) -> tuple[list[str], list[str]]:
    """Return the names of the layers to quantise, and of those that stay in float.

    A layer is a convolution or a matrix product with constant weights. These stay in float:

    - The last ones: their output reaches an output of the graph, a decision (TopK, suppression, a
      comparison) or the places of RoIAlign without another layer in between, as scores, offsets
      and logits do. There a step of an 8-bit scale moves what is found by pixels or swaps two
      results, and no later layer averages it out.
    - The first ones, which read the pixels: what they lose, all others lose.
    - Depthwise convolutions, whose output channels each see one input channel: where that uses a
      small part of the range that all channels share, nothing makes up for its few levels.

    All of them are a small part of the work.

    Args:
        graph: an `onnx.GraphProto`.
    """
    readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers[name].append((node, place))
    outputs = {value.name for value in graph.output}

    def reach(starts: Iterable[str]) -> tuple[set[str], bool]:
        """Return the values computed from some without a layer; and whether they decide."""
        seen, decides = set(starts), False
        waiting = list(seen)
        while waiting:
            name = waiting.pop()
            decides |= name in outputs
            for node, place in readers[name]:
                if node.op_type in LAYERS or node.op_type in ("Shape", "Size"):
                    continue  # a layer of its own, or no value at all
                if node.op_type in _DECISIONS or (node.op_type in _REGIONS and place > 0):
                    decides = True
                    continue
                new = set(node.output) - seen
                seen |= new
                waiting += new
        return seen, decides

    pixels, _ = reach(value.name for value in graph.input)
    shapes = {value.name: tuple(value.dims) for value in graph.initializer}
    chosen: list[str] = []
    kept: list[str] = []
    for node in graph.node:
        if node.op_type in LAYERS and node.input[1] in shapes:
            groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
            depthwise = groups > 1 and shapes[node.input[1]][1] == 1
            alone = node.input[0] in pixels or depthwise or reach(node.output[:1])[1]
            (kept if alone else chosen).append(node.name)
    return chosen, kept


def _with_activations(graph: Any, chosen: list[str]) -> list[str]:
    """Return the names of some layers and of the activations that alone read them."""
    names, readers = set(chosen), defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = [node.output[0] for node in graph.node if node.name in names]
    alone = [readers[name][0] for name in outputs if len(readers[name]) == 1]
    return chosen + [node.name for node in alone if node.op_type in _ACTIVATIONS]


def quantise(source: Path, target: Path, spec: GraphSpec, images: Iterable[Images]) -> list[str]:
    """Write the int8 graph of a float ONNX graph of `write_onnx`; return the layers it changed.

    Args:
        source: the float graph.
        target: the file to write.
        spec: the description that goes into it.
        images: calibration images, resized as `spec` says.

    Raises:
        ValueError: if there is no layer to quantise, no image, or the checker refuses the result.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    model = onnx.load(source)
    chosen, _ = choose_layers(model.graph)
    if not chosen:
        raise ValueError(f"{spec.meta.model} has no layer that int8 could speed up: leave it out")

    class Reader(CalibrationDataReader):
        def __init__(self, inputs: Iterator[dict[str, np.ndarray]]) -> None:
            self.inputs = inputs

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    # Otherwise it warns that constants were not folded, which the exporter has done.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    prepared = target.with_suffix(".prepared.onnx")
    onnx.save(model, prepared)
    try:
        # It takes the scales of activations that nobody asked for as well, infinite ones too.
        with np.errstate(invalid="ignore"):
            quantize_static(
                prepared,
                target,
                Reader(_inputs(images, spec)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(LAYERS | _ACTIVATIONS),
                nodes_to_quantize=_with_activations(model.graph, chosen),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
    finally:
        prepared.unlink()
    made = onnx.load(target)
    made.producer_name, made.producer_version = "maskwright", ""
    own = [entry for entry in made.opset_import if entry.domain in ("", "ai.onnx")]
    del made.opset_import[:]
    made.opset_import.extend(own)
    set_description(made, spec)
    onnx.save(made, target)
    check_onnx(target)
    return chosen


def _inputs(images: Iterable[Images], spec: GraphSpec) -> Iterator[dict[str, np.ndarray]]:
    """Yield what the graph is fed with."""
    for batch in images:
        for given, _ in fill_batches(batch, spec):
            yield {name: value.numpy() for name, value in zip(spec.inputs, given, strict=True)}
