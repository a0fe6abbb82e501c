"""The formats: which file each one is, what it needs, and who writes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

from .onnx_file import write_onnx
from .openvino_file import write_openvino
from .spec import GraphSpec
from .torch_file import find_compiler, write_aoti, write_pt2

Writer = Callable[[torch.export.ExportedProgram, Path, GraphSpec], int]

_WRITERS: dict[str, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "pt2": write_pt2,
    "aoti": write_aoti,
}
# How the file of each format ends.
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "aoti": ".pt2"}
# What writing and checking a file takes beside torch.
_NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "pt2": (),
    "aoti": (),
}


def check_libraries(format: str) -> None:
    """Raise unless everything is installed that a format takes, before any work is done.

    Raises:
        ImportError: with the command that installs what is missing.
        ValueError: if there is no compiler.
    """
    if format == "aoti":
        find_compiler()
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
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
