"""Write OpenVINO's pair of files, `.xml` and `.bin`, by way of ONNX.

OpenVINO's own reader of torch graphs knows nothing of our operators, the standard ones in ONNX it
translates to its own.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..tasks.graph import GraphSpec
from .onnx_file import write_onnx
from .spec import KEY, to_json


def write_openvino(program: torch.export.ExportedProgram, path: Path, spec: GraphSpec) -> int:
    """Write a graph of `trace` to `path` and the `.bin` beside it; return its number of nodes.

    Raises:
        ValueError: if OpenVINO cannot hold the graph.
    """
    between = path.with_suffix(".onnx")
    try:
        write_onnx(program, between, spec)
        return convert_onnx(between, path, spec)
    finally:
        between.unlink(missing_ok=True)


def convert_onnx(source: Path, path: Path, spec: GraphSpec) -> int:
    """Write an ONNX graph to `path` and the `.bin` beside it; return its number of nodes.

    Raises:
        ValueError: if OpenVINO cannot hold the graph.
    """
    import openvino

    try:
        model = openvino.Core().read_model(source)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{spec.meta.model} cannot be written for OpenVINO: {reason}; format=onnx and "
            "format=pt2 may"
        ) from None
    model.set_rt_info(to_json(spec), [KEY])
    # Weights are in the precision that was asked for already.
    openvino.save_model(model, path, compress_to_fp16=False)
    return len(model.get_ops())
