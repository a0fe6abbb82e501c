"""Write an ONNX file of standard operators alone, checked by ONNX's own checker."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from ..ops.decompositions import decompositions
from ..ops.onnx import translations
from ..tasks.graph import GraphSpec
from .spec import KEY, to_json
from .trace import quiet

OPSET = 18  # RoIAlign with half pixels since 16; all readers of the last years know it


def write_onnx(program: torch.export.ExportedProgram, path: Path, spec: GraphSpec) -> int:
    """Write a graph of `trace` to one file; return its number of nodes.

    Raises:
        ValueError: if the graph has an operator that ONNX lacks, or the checker refuses it.
    """
    known = translations()
    # What ONNX has no operator for goes in as tensor operations.
    other = {op: form for op, form in decompositions().items() if op not in known}
    if any(node.target in other for node in program.graph.nodes):
        with quiet(), torch.no_grad():
            program = program.run_decompositions(other)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            made = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=dict(known),
                opset_version=OPSET,
                output_names=spec.outputs,
                verbose=False,
                optimize=True,
            )
        assert made is not None
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(
            f"{spec.meta.model} cannot be written as ONNX: {reason}; format=pt2 has no such limit"
        ) from None
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    graph: Any = made.model
    graph.producer_name, graph.producer_version = "maskwright", None
    graph.metadata_props[KEY] = to_json(spec)
    for value in graph.graph.all_nodes():
        value.metadata_props.clear()  # where in the source each node comes from: machine paths
        value.doc_string = None
    made.save(path, external_data=False)
    check_onnx(path)
    return sum(1 for _ in graph.graph.all_nodes())


def copy_onnx(source: Path, path: Path, spec: GraphSpec) -> int:
    """Write the graph of an ONNX file with another description; return its number of nodes."""
    import onnx

    model = onnx.load(source)
    set_description(model, spec)
    onnx.save(model, path)
    return len(model.graph.node)


def check_onnx(path: Path) -> None:
    """Raise unless a file is sound and holds standard operators alone.

    Raises:
        ValueError: if the checker refuses it, or it has operators or functions of its own.
    """
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"the ONNX checker refuses the graph: {error}") from None
    model = onnx.load(path)
    foreign = {entry.domain for entry in model.opset_import} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ValueError(f"the graph has operators beyond ONNX's own: {sorted(foreign)}")


def set_description(model: Any, spec: GraphSpec) -> None:
    """Make `spec` all that an `onnx.ModelProto` says of itself."""
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=to_json(spec))
