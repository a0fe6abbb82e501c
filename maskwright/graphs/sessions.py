"""Open exported files and run them: ONNX Runtime, OpenVINO and torch behind one call.

What stands where a model stands, and turns outputs into what models return, is the task's
(`tasks.graph.GraphKind.open`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..paths import plain_path
from ..structures import Images
from ..tasks.graph import GraphSpec
from .archive import ArchiveError, check_archive
from .spec import KEY, from_json
from .torch_file import load_compiled, load_program
from .trace import quiet

# Maps the tensors of `spec.inputs` to those of `spec.outputs`, both in order.
Session = Callable[..., list[Tensor]]


class Graph:
    """Runs a graph on any number of images, in batches of its own size.

    Args:
        spec: the description in the file.
        session: the graph.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, session: Session, source: str) -> None:
        self.spec, self.source = spec, source
        self._session = session

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            ValueError: if the pixels have another size than the graph's, or it is not the graph of
                its description.
        """
        spec, size = self.spec, tuple(images.pixels.shape[2:])
        if spec.size is not None and size != spec.size:
            raise ValueError(f"{self.source} takes pixels of {spec.size}, not {size}")
        parts = [
            [value[:used] for value in self._one(given)]
            for given, used in fill_batches(images, spec)
        ]
        values = [torch.cat(values) for values in zip(*parts, strict=True)]
        return dict(zip(spec.outputs, values, strict=True))

    def _one(self, given: list[Tensor]) -> list[Tensor]:
        """Run the graph on one batch of its own size."""
        try:
            values = self._session(*given)
        except MemoryError:
            raise
        except Exception as error:  # of ONNX Runtime, OpenVINO or torch
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self.source} does not fit its own description ({reason}): export it again"
            ) from None
        for name, value in zip(self.spec.outputs, values, strict=True):
            wanted = (len(given[0]), *self.spec.own.shape(name))
            if tuple(value.shape[: len(wanted)]) != wanted:
                raise ValueError(
                    f"{self.source} does not fit its own description ({name} has the shape "
                    f"{tuple(value.shape)}): export it again"
                )
        return values


def fill_batches(images: Images, spec: GraphSpec) -> Iterator[tuple[list[Tensor], int]]:
    """Yield the inputs of a graph and the number of images that count, in batches that it takes.

    Args:
        images: any number of images.
        spec: of the graph; if it takes a number of images, the last batch is filled up with copies.
    """
    values = [images.pixels, images.sizes, *spec.kind.extra(images, spec)]
    step = spec.batch or len(images)
    for first in range(0, len(images), step):
        given = [value[first : first + step].contiguous() for value in values]
        used = len(given[0])
        if used < step:
            given = [
                torch.cat([value, value[-1:].expand(step - used, *value.shape[1:])])
                for value in given
            ]
        yield given, used


def open_graph(path: Path, *, trust: bool = False) -> Any:
    """Return the model in an exported file, recognised by its suffix.

    Args:
        path: the file.
        trust: run machine code that the file holds: only files of `format=aoti` have any.

    Returns:
        A `Model` that is a `tasks.graph.GraphModel` as well.

    Raises:
        ValueError: if the file is missing, damaged, or not one that maskwright wrote.
        ImportError: if the library that runs it is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    spec, session = _OPENERS[path.suffix](path, trust)
    return spec.kind.open(spec, Graph(spec, session, str(path)), str(path))


def _read_spec(text: str | None, path: Path) -> GraphSpec:
    if not text:
        raise ValueError(
            f"{path} does not say what it is: it was not written by `maskwright export`"
        )
    try:
        return from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _damaged(path: Path, what: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path} is damaged or no {what} file ({reason}): copy or export it again")


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))


def _open_onnx(path: Path, _: bool) -> tuple[GraphSpec, Session]:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            f"{path}: running ONNX needs onnxruntime: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        with plain_path(path) as plain:
            session = onnxruntime.InferenceSession(
                plain, options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:  # its errors have no common class
        raise _damaged(path, "ONNX", error) from None
    spec = _read_spec(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(*given: Tensor) -> list[Tensor]:
        values = {name: value.numpy() for name, value in zip(spec.inputs, given, strict=True)}
        return [_tensor(value) for value in session.run(spec.outputs, values)]

    return spec, run


def _open_openvino(path: Path, _: bool) -> tuple[GraphSpec, Session]:
    try:
        import openvino
    except ImportError:
        raise ImportError(f"{path}: running it needs OpenVINO: pip install openvino") from None
    if not path.with_suffix(".bin").is_file():
        raise ValueError(
            f"{path.with_suffix('.bin')} does not exist: the weights of {path.name} lie in it, the "
            "two stay together"
        )
    core = openvino.Core()
    settings = {
        # Or processors with bfloat16 would round every layer.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _damaged(path, "OpenVINO", error) from None
    spec = _read_spec(text, path)

    def run(*given: Tensor) -> list[Tensor]:
        values = {name: value.numpy() for name, value in zip(spec.inputs, given, strict=True)}
        found = compiled(values)
        return [_tensor(found[name]) for name in spec.outputs]

    return spec, run


def _open_pt2(path: Path, trust: bool) -> tuple[GraphSpec, Session]:
    data = path.read_bytes()
    try:
        text, code, graph = check_archive(data)
    except ArchiveError as error:
        raise ValueError(
            f"{path} is not opened: {error}; reading it might run code, and no file of `maskwright "
            "export` has that"
        ) from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, ".pt2", error) from None
    spec = _read_spec(text, path)
    if code and not trust:
        raise ValueError(
            f"{path} holds machine code, which would run with all your rights: if you know where "
            "it comes from, open it with trust=true"
        )
    try:
        with quiet():
            module: Any = load_compiled(path) if code else load_program(graph)
    except Exception as error:  # what torch raises for a graph that does not hold together
        raise _damaged(path, ".pt2", error) from None

    def run(*given: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*given))

    return spec, run


# Suffix of each kind of file, and who opens it.
_OPENERS: dict[str, Callable[[Path, bool], tuple[GraphSpec, Session]]] = {
    ".onnx": _open_onnx,
    ".xml": _open_openvino,
    ".pt2": _open_pt2,
}
