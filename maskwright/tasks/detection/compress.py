"""`maskwright compress`: truncated SVD of the fully connected layers of a trained detector.

Fast R-CNN (Girshick 2015, section 3.1 and 4.4): nearly half of its time goes into these layers,
and low ranks cost little accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...data.discover import open_dataset
from ...devices import pick_device
from ...errors import OptionError, checked_options
from ...hub.loading import load_model
from ...models.detection.base import Detector, PostProcess
from ...models.registry import build, get_entry, list_models
from ...nn.detection.box_head import BoxHead
from ...nn.detection.svd import truncate
from ...paths import takes_paths
from ...storage.checkpoint import save_checkpoint
from ...storage.rundir import new_run_dir
from ..evaluation import evaluate
from .evaluate import DetectionEvaluator
from .regions import prepare_proposals, take_regions_from
from .settings import DetectionSettings
from .task import TASK


@dataclass(frozen=True)
class Compressed:
    """A detector before and after.

    Attributes:
        dir: run folder of the new checkpoint.
        rows: one for each: name, parameters of the fully connected layers, and where it was
            measured milliseconds an image, AP and AP50 of the boxes.
    """

    dir: Path
    rows: list[tuple[str, int, float | None, float | None, float | None]]


@checked_options
@takes_paths
def compress(
    model: str | Path,
    *,
    rank: tuple[int, ...],
    data: str | Path | None = None,
    split: str = "val",
    workers: int = 2,
    device: str = "auto",
    project: str | Path = "runs",
    name: str | None = None,
    proposal_source: str | None = None,
) -> Compressed:
    """Replace the fully connected layers of a detector by products of low rank.

    Args:
        model: checkpoint or run folder of a trained detector whose options include `svd`.
        rank: singular values that are kept, one number for each layer from the first on; Fast
            R-CNN took 1024,256.
        data: a data set on which speed and AP are measured before and after. None: nothing is.
        split: which part of it.
        workers: processes that load images.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; None: "compress".
        proposal_source: where the regions come from that speed and AP are measured with. None: from
            where they came in training.

    Returns:
        The run folder, and the figures before and after.

    Raises:
        ValueError: if the model cannot be read, has no such layers, or is compressed already; if a
            rank exceeds the size of its layer.
    """
    found: Any  # a detector, or one without the layers that are looked for below
    found, meta = load_model(model)
    take_regions_from(found, meta.model, proposal_source)
    chosen = pick_device(device)
    detector = found.eval().to(chosen).to(memory_format=torch.channels_last)
    head = getattr(getattr(detector, "roi_heads", None), "box_head", None)
    if "svd" not in get_entry(meta.model).arguments() or not isinstance(head, BoxHead):
        able = [name for name, entry in list_models().items() if "svd" in entry.arguments()]
        families = dict.fromkeys(name.rsplit("_", 1)[0] for name in able)
        raise ValueError(
            f"compress takes models of {', '.join(families)}, whose fully connected layers cost "
            f"most of the time; {meta.model} is none of them"
        )
    if meta.args.get("svd"):
        raise ValueError(
            f"{model} is compressed already, to the ranks {', '.join(map(str, meta.args['svd']))}"
        )
    ranks = tuple(rank)
    if not 1 <= len(ranks) <= len(head.fcs):
        raise OptionError(
            f"rank needs one number for each of up to {len(head.fcs)} layers, got {len(ranks)}"
        )
    args = {**meta.args, "svd": list(ranks)}
    smaller = truncated(detector, build(meta.model, len(meta.names), **args), ranks)
    smaller = smaller.to(chosen).to(memory_format=torch.channels_last).eval()
    rows = []
    for label, network in (("before", detector), ("after", smaller)):
        layers = network.get_submodule("roi_heads.box_head.fcs")
        count = sum(parameter.numel() for parameter in layers.parameters())
        ms = ap = ap50 = None
        if data is not None:
            dataset = open_dataset(data, split)
            dataset.window = meta.window
            dataset.channels = meta.taken
            prepare_proposals(network, dataset, workers=workers)
            settings = DetectionSettings(PostProcess(score_thresh=0.001))
            result = evaluate(
                DetectionEvaluator(network, dataset, meta, settings),
                network,
                TASK.eval_loader(network, dataset, workers=workers),
                total=len(dataset),
                label=label,
            )
            assert result is not None
            ms, ap, ap50 = result.ms, result.metrics["box/AP"], result.metrics["box/AP50"]
        rows.append((label, count, ms, ap, ap50))
    folder = new_run_dir(project, "compress", name)
    metrics = {} if rows[1][3] is None else {"box/AP": rows[1][3], "box/AP50": rows[1][4] or 0.0}
    described = replace(meta, args=args, metrics=metrics)
    save_checkpoint(folder / "weights" / "best.safetensors", described, smaller.state_dict())
    return Compressed(folder, rows)


def truncated(detector: Detector, smaller: Detector, ranks: tuple[int, ...]) -> Detector:
    """Fill a detector that is built with `svd=ranks` from one that is not, and return it."""
    state = detector.state_dict()
    prefix = "roi_heads.box_head.fcs"
    for number, rank in enumerate(ranks):
        layer = detector.get_submodule(f"{prefix}.{number}")
        assert isinstance(layer, nn.Linear)
        for key in ("weight", "bias"):
            state.pop(f"{prefix}.{number}.{key}")
        for key, value in truncate(layer, rank).state_dict().items():
            state[f"{prefix}.{number}.{key}"] = value
    with torch.no_grad():
        smaller.load_state_dict(state)
    return smaller
