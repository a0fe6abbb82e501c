"""The formats: which file each one is, what it needs, and who writes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

from ..tasks.graph import GraphSpec
from .onnx_file import copy_onnx, write_onnx
from .openvino_file import convert_onnx, write_openvino
from .torch_file import find_compiler, write_aoti, write_pt2

Writer = Callable[[torch.export.ExportedProgram, Path, GraphSpec], int]

_WRITERS: dict[str, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "pt2": write_pt2,
    "aoti": write_aoti,
}
# Those that are made from an ONNX file.
_FROM_ONNX: dict[str, Callable[[Path, Path, GraphSpec], int]] = {
    "onnx": copy_onnx,
    "openvino": convert_onnx,
}
INT8_FORMATS = tuple(_FROM_ONNX)
# How the file of each format ends.
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "aoti": ".pt2"}
# What writing and checking a file takes beside torch.
_NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "pt2": (),
    "aoti": (),
}


def check_libraries(format: str, *, int8: bool = False) -> None:
    """Raise unless everything is installed that a format takes, before any work is done.

    Args:
        format: the format.
        int8: whether its graph is to be quantised, which ONNX Runtime does.

    Raises:
        ImportError: with the command that installs what is missing.
        ValueError: if there is no compiler.
    """
    if format == "aoti":
        find_compiler()
    needs = _NEEDS[format] + (("onnxruntime",) if int8 and format != "onnx" else ())
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"format={format} needs {', '.join(missing)}: pip install 'maskwright[export]'"
        )


def write_graph(
    format: str, program: torch.export.ExportedProgram, path: Path, spec: GraphSpec
) -> int:
    """Write a graph of `trace` in a format; return its number of nodes.

    Raises:
        ValueError: if the format cannot hold the graph.
    """
    return _WRITERS[format](program, path, spec)


def rewrite_graph(format: str, source: Path, path: Path, spec: GraphSpec) -> int:
    """Write the graph in an ONNX file in one of `INT8_FORMATS`; return its number of nodes.

    Args:
        format: the format.
        source: the ONNX file.
        path: the file to write.
        spec: what it says of itself, whatever `source` says.

    Raises:
        ValueError: if the format cannot hold the graph.
    """
    return _FROM_ONNX[format](source, path, spec)
