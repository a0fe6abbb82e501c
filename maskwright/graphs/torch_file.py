"""Write and read torch's own graph (`.pt2`), and code compiled from it for this kind of machine.

Our operators are Python and do not travel, so both hold them as plain tensor operations. What is
written has no pickles, no guards and no notes on where in the source a node comes from, so that
`archive` can tell a harmless file from others.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..ops.decompositions import decompositions
from ..tasks.graph import GraphSpec
from .spec import GRAPH_FILE, to_json
from .trace import quiet

# What torch would store of each node beside its operation: paths of source files, names of types.
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node")


def write_pt2(program: torch.export.ExportedProgram, path: Path, spec: GraphSpec) -> int:
    """Write a graph of `trace` as torch's graph; return its number of nodes."""
    plain = _plain(program)
    plain.example_inputs = None  # they would be stored as a pickle
    written = io.BytesIO()  # on a full disk torch's own writer ends the process
    with quiet():
        torch.export.save(plain, written, extra_files={GRAPH_FILE: to_json(spec)})
    path.write_bytes(written.getbuffer())
    return len(plain.graph.nodes)


def load_program(data: bytes) -> Any:
    """Return what calls the graph in what `check_archive` made of a `.pt2` file."""
    with _silent("torch.export"):
        return torch.export.load(io.BytesIO(data)).module()


def write_aoti(program: torch.export.ExportedProgram, path: Path, spec: GraphSpec) -> int:
    """Compile a graph of `trace` for this kind of machine; return its number of nodes.

    Raises:
        ValueError: if the compiler fails.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InductorError

    plain = _plain(program)
    try:
        with quiet(), _silent("torch._inductor"), torch.no_grad():
            aoti_compile_and_package(plain, package_path=str(path))
    except (CppCompileError, InductorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{spec.meta.model} could not be compiled: {reason}; format=pt2 needs no compiler"
        ) from None
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/extra/{GRAPH_FILE}", to_json(spec))
    return len(plain.graph.nodes)


def load_compiled(path: Path) -> Any:
    """Return what calls the machine code in a `.pt2` file; loading it may run anything."""
    from torch._inductor import aoti_load_package

    return aoti_load_package(str(path))


def find_compiler() -> None:
    """Raise unless there is the C++ compiler that compiled graphs take.

    Raises:
        ValueError: if there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        raise ValueError(
            "format=aoti compiles C++ and found no compiler: install g++ or clang (or name one in "
            "the environment variable CXX), or take format=pt2, which needs none"
        ) from None


def _plain(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the graph without our operators, guards and notes."""
    with quiet(), torch.no_grad():
        plain: torch.export.ExportedProgram = program.run_decompositions(decompositions())
    plain._guards_code = []
    for module in plain.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)
    return plain


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library from logging what is raised as an error anyway."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
