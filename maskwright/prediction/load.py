"""From a name, a file or a run folder to a `Predictor`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OptionError, checked_options
from ..graphs.sessions import open_graph
from ..hub.loading import GRAPH_SUFFIXES, load_model
from ..models.base import Model
from ..models.meta import Meta
from ..paths import takes_paths
from ..tasks import get_task
from ..tasks.base import Settings
from ..tasks.options import own_options
from .predictor import Predictor


@checked_options
@takes_paths
def load(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    backbone: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    trust: bool = False,
    proposal_source: str | None = None,
) -> Predictor:
    """Return a `Predictor`, ready to be called on images; see `hub.loading.load_model`.

    Args:
        model: as for `load_model`, or an exported file: .onnx, .xml (OpenVINO) or .pt2.
        weights: see `load_model`.
        num_classes: see `load_model`.
        backbone: see `load_model`.
        device: where to compute; exported files run on the CPU.
        precision: of the arithmetic: float32; bf16, on CPUs that have it (AVX-512 BF16, AMX) and on
            GPUs about twice as fast, with scores and places that differ a little; fp16, on GPUs.
        trust: run the machine code of a file that `maskwright export format=aoti` wrote; other
            files hold none.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from, in place of the `source` that the model was trained with.

    Example:
        >>> import maskwright as mw
        >>> mw.load("nuclei").names
        ['nucleus']
    """
    if Path(model).suffix in GRAPH_SUFFIXES:
        if weights is not None or num_classes is not None or backbone is not None:
            raise OptionError(
                f"{model} is an exported model and has all it needs: leave out weights, "
                "num_classes and backbone"
            )
        if device not in ("auto", "cpu"):
            raise OptionError(f"{model}: exported files run on the CPU, not on device={device}")
        if precision != "float32":
            raise OptionError(
                f"{model}: an exported file has its own arithmetic; leave out precision={precision}"
            )
        graph = open_graph(Path(model), trust=trust)
        _adapt(graph, str(model), proposal_source)
        predictor = Predictor(graph, graph.spec.meta, device="cpu")
        predictor.origin = _origin(model, trust=trust, proposal_source=proposal_source)
        return predictor
    network, meta = load_model(model, weights=weights, num_classes=num_classes, backbone=backbone)
    _adapt(network, meta.model, proposal_source)
    predictor = Predictor(network, meta, device=device, precision=precision)
    if num_classes is None and backbone is None:  # which the command line does not take
        predictor.origin = _origin(model, weights=weights, proposal_source=proposal_source)
    return predictor


def _adapt(model: Any, name: str, proposal_source: str | None) -> None:
    task = get_task(model.task)
    given = {"proposal_source": proposal_source}
    task.adapt(model, name, own_options(task, name, given, {"proposal_source": None}))


def _origin(model: str | Path, **options: Any) -> dict[str, str]:
    """Return the options of the command line that load a model, by name."""
    given = {"model": model} | {name: value for name, value in options.items() if value}
    return {name: "true" if value is True else str(value) for name, value in given.items()}


def finder(model: Model, meta: Meta, settings: Settings) -> Callable[[Any, str], Any]:
    """Return what looks at images with a copy of a model, in tiles; see `evaluate_in_tiles`.

    Args:
        model: the model, which may be in training.
        meta: what it says of itself.
        settings: of the looks.
    """
    predictor = Predictor(copy.deepcopy(model), meta, device=str(model.mean.device))
    rule = predictor.resize_rule(None, settings)

    def find(pixels: Any, name: str) -> Any:
        return predictor.find_one((pixels, None), rule, settings, name, 1)[0]

    return find
