"""Inference side by side with torchvision: same weights, same photo, stage by stage, in turns.

torchvision's own model is built from the detector's weights. The two take turns, so that a machine
that slows down slows both; times are medians and the ratio is the median of the turns' ratios.
Every detection of torchvision is looked for among ours.
"""

from __future__ import annotations

import copy
import statistics
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, checked_options, whole_number
from ..ops.masks import paste_masks
from ..paths import takes_paths
from ..prediction.load import load
from ..prediction.predictor import Predictor
from ..prediction.reading import read
from ..prediction.sources import one_source
from ..runs import check_save, save_dir
from ..storage.rundir import write_whole
from ..tasks.detection.agreement import (
    BOX_PX,
    KEYPOINT_PX,
    MASK_IOU,
    SCORE,
    UNDECIDED,
    Match,
    pair,
)
from ..tasks.detection.post import make_post
from ..tasks.detection.regions import take_regions_from
from ..tasks.detection.result import Result
from ..terminal import console
from ..text import to_json
from .peer import drawn_scene, has_peer, random_predictor
from .turns import Apart, Ours, Runner, Side, Task, Theirs, take_turns

# Stages in the order of the table.
STAGES = (
    "read and resize",
    "find regions",
    "backbone",
    "pyramid",
    "proposal head",
    "proposals",
    "pool for boxes",
    "last stage on regions",
    "box head",
    "choose boxes",
    "pool for masks, keypoints",
    "mask head",
    "keypoint head",
    "find keypoints",
    "paste masks",
)


@dataclass
class Benchmark:
    """The outcome of `benchmark`.

    Attributes:
        model: what was timed.
        size: (height, width) of the network input before padding.
        threads: of torch.
        device: where it ran.
        apart: whether each side had a process of its own.
        ours: our times.
        theirs: torchvision's; None where it has no such model.
        match: how the detections agree; None if there was nothing to compare with.
        file: where all figures are; None without `save`.
    """

    model: str
    size: tuple[int, int]
    threads: int
    device: str
    apart: bool
    ours: Side
    theirs: Side | None
    match: Match | None
    file: Path | None = None

    @property
    def ratio(self) -> float | None:
        """torchvision's time over ours, the median of all turns."""
        if self.theirs is None:
            return None
        return statistics.median(
            a / b for a, b in zip(self.theirs.total, self.ours.total, strict=True)
        )


@checked_options
@takes_paths
def benchmark(
    model: str | Path | Predictor = "mask_rcnn_resnet50_fpn",
    source: Any = None,
    *,
    weights: str | Path | None = None,
    conf: float = 0.05,
    iou: float = 0.5,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    repeats: int = 5,
    threads: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    fast: bool = True,
    apart: bool = False,
    proposal_source: str | None = None,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
) -> Benchmark:
    """Time inference from the photo to full-size masks, beside torchvision where it has the model.

    Args:
        model: registered name, checkpoint or run folder; `maskwright models` lists the names. In
            Python also a `Predictor`, which keeps its weights, device, precision and regions.
        source: a photo; None: a drawn scene of 800 x 1216 pixels.
        weights: for a registered name: published weights such as coco, or a checkpoint. None:
            random weights, scaled so that the model finds many objects.
        conf: smallest score of an object.
        iou: of two boxes of one class that overlap more than this, the weaker is dropped.
        max_det: most objects.
        imgsz: long side, (short, long) side or a factor such as 1.25x; None: the rule of the model.
        repeats: turns; one more is not counted.
        threads: of torch; None: its own choice.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        precision: of our arithmetic: float32, bf16 or fp16 (see `load`); torchvision's is float32.
        fast: False: without folding and Winograd.
        apart: each side in a process of its own, with the memory that its users have: ours keeps
            what it frees, as the commands do. They still take turns.
        proposal_source: where the regions come from, for models that take them with the image;
            None: from where they came in training.
        save: write all figures to `benchmark.json`: true into a new run folder, a path into that
            folder, or into that file if it ends in .json, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "benchmark".

    Raises:
        ValueError: if the model, the photo or an option is wrong.
    """
    repeats = whole_number("repeats", repeats)
    threads = None if threads is None else whole_number("threads", threads)
    if precision != "float32" and not fast:
        raise OptionError(
            f"precision={precision} belongs to the fast network: leave out fast=false"
        )
    if isinstance(model, Predictor):
        if apart:
            raise OptionError(
                "apart=True makes the model in each process: give its name or its file"
            )
        own = {"weights": None, "device": "auto", "precision": "float32", "proposal_source": None}
        given = (weights, device, precision, proposal_source)
        for (option, usual), value in zip(own.items(), given, strict=True):
            if value != usual:
                raise OptionError(f"{option}={value}: a Predictor keeps its own; load it with that")
    file = _figures_file(save)
    where = False if file is not None else check_save(save, project, name)
    pixels = drawn_scene() if source is None else read(one_source(source, 0)).pixels
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        make = partial(_make, model, weights, device, pixels, precision, fast, proposal_source)
        predictor = make()
        post = make_post(conf, iou, max_det)
        task = Task(make, pixels, post, imgsz, torch.get_num_threads())
        result = _compare(task, predictor, repeats, apart)
    finally:
        torch.set_num_threads(before)
    folder = save_dir(where, project, "benchmark", name if where is True else None)
    file = folder / "benchmark.json" if folder is not None else file
    if file is not None:
        figures = {**asdict(result), "ratio": result.ratio}
        del figures["file"]
        write_whole(file, to_json(figures, indent=1))
        result = replace(result, file=file)
    return result


def _figures_file(save: bool | str | Path | None) -> Path | None:
    """Return the file that `save` names, None if it names none; its folder must be there."""
    if not isinstance(save, str | Path) or Path(save).suffix.lower() != ".json":
        return None
    folder = Path(save).resolve().parent
    if not folder.is_dir():
        raise ValueError(f"save={save}: there is no folder {folder}")
    return Path(save)


def _make(
    model: str | Path | Predictor,
    weights: str | Path | None,
    device: str,
    pixels: np.ndarray,
    precision: str,
    fast: bool,
    proposal_source: str | None,
) -> Predictor:
    if isinstance(model, Predictor):
        predictor = copy.copy(model)  # whose `fast` may be set
    else:
        predictor = comparable(model, weights, device, pixels, precision=precision)
        take_regions_from(predictor.detector, predictor.meta.model, proposal_source)
    predictor.fast = fast
    return predictor


def comparable(
    model: str | Path,
    weights: str | Path | None,
    device: str,
    photo: np.ndarray,
    *,
    precision: str = "float32",
) -> Predictor:
    """Return a model that torchvision can be compared with, if it has one of that name.

    Args:
        model: registered name, checkpoint or run folder.
        weights: see `hub.load`; None: for a registered name random ones that find much.
        device: see `pick_device`.
        photo: (H, W, 3) uint8; random weights are scaled on it.
        precision: see `hub.load`.
    """
    from ..models.registry import list_models

    if str(model) not in list_models() or weights is not None:
        return load(model, weights=weights, device=device, precision=precision)
    # torchvision's conventions: with ours, its model could not give the same numbers.
    options = {"conventions": "torchvision"}
    made = random_predictor(str(model), 90, photo, options=options, device=device)
    return Predictor(made.detector, made.meta, device=device, precision=precision)


def _compare(task: Task, predictor: Predictor, repeats: int, apart: bool) -> Benchmark:
    resize = predictor.resize_rule(task.imgsz)
    size = resize.target_size(*task.pixels.shape[:2])
    kinds: list[type[Ours] | type[Theirs]] = [Ours]
    if has_peer(predictor, resize.short):
        kinds.append(Theirs)
    sides = [Side() for _ in kinds]
    with ExitStack() as stack:
        runners: list[Runner] = [
            stack.enter_context(Apart(kind, task)) if apart else kind(task, predictor)
            for kind in kinds
        ]
        bar = stack.enter_context(console.progress("benchmark", total=repeats + 1, unit="turn"))
        take_turns(runners, sides, repeats, bar.update)
        results = [runner.result() for runner in runners]
    alone = len(runners) == 1
    return Benchmark(
        predictor.meta.model,
        size,
        task.threads,
        str(predictor.device),
        apart,
        sides[0],
        None if alone else sides[1],
        None if alone else _match(*results),
    )


def _match(ours: Result, theirs: dict[str, Tensor]) -> Match:
    """Look for each of torchvision's detections among ours; each of ours serves once."""
    theirs = {key: value.cpu() for key, value in theirs.items()}
    masks = ours.masks if "masks" in theirs else None
    points = ours.keypoints if "keypoints" in theirs else None
    match = Match(
        0,
        len(theirs["boxes"]),
        len(ours),
        mask=None if masks is None else 1.0,
        keypoint=None if points is None else 0.0,
    )
    for i, j, box, score in pair(
        theirs["boxes"],
        theirs["scores"],
        theirs["labels"] - 1,
        ours.boxes,
        ours.scores,
        ours.labels,
    ):
        iou, rounding, point = 1.0, False, 0.0
        if masks is not None:
            probability = theirs["masks"][i, 0]
            iou, rounding = _agree(probability, masks[j])
            if iou < MASK_IOU and not rounding and ours.paste_mode == "torchvision":
                # Its paste cuts the box to whole pixels: a side that lies on one jumps by
                # rounding. In its own box, our mask must be the same.
                crops = ours.detections.mask_probs
                assert crops is not None
                size, place = ours.detections.size, theirs["boxes"][i : i + 1]
                moved = paste_masks(crops[j : j + 1], place, size, mode=ours.paste_mode)[0]
                again, decided = _agree(probability, moved)
                rounding = again >= MASK_IOU or decided
        if points is not None:
            point = float((theirs["keypoints"][i] - points[j])[:, :2].abs().max())
        match.add(box, score, iou, rounding, point)
    return match


def _agree(probability: Tensor, mask: Tensor) -> tuple[float, bool]:
    """Return the IoU of two masks, and whether only undecided pixels differ."""
    other = probability >= 0.5
    union = int((other | mask).sum())
    differ = other != mask
    iou = 1 - int(differ.sum()) / union if union else 1.0
    return iou, bool(((probability[differ] - 0.5).abs() <= UNDECIDED).all())


def report(result: Benchmark) -> None:
    """Print the outcome as tables."""
    theirs = result.theirs
    columns = ["stage", "maskwright, ms"]
    if theirs is not None:
        columns = ["stage", "torchvision, ms", "maskwright, ms", "ratio"]
    rows: list[list[object]] = []
    for stage in (*STAGES, None):
        mine, other = result.ours.median(stage), theirs.median(stage) if theirs else None
        if mine is None and other is None:
            continue
        ratio = other / mine if other and mine else None
        name = "in all" if stage is None else stage
        if stage is None:
            ratio = result.ratio
        times: list[object] = [None if mine is None else round(mine, 1)]
        if theirs is not None:
            times.insert(0, None if other is None else round(other, 1))
            times.append(ratio and f"{ratio:.2f}")
        rows.append([name, *times])
    height, width = result.size
    console.table(
        f"{result.model}, {height} x {width}, {result.device}, {result.threads} threads, "
        f"{len(result.ours.total)} turns, medians{', apart' if result.apart else ''}",
        columns,
        rows,
    )
    if theirs is None:
        console.note(
            "torchvision has no such model, weights, options and image size (its imgsz is "
            "SHORT,LONG): nothing to compare with"
        )
    if result.match is not None:
        match = result.match
        wanted = [f"{BOX_PX} px", f"score {SCORE}"]
        furthest = [f"{match.box:.1e} px", f"score {match.score:.1e}"]
        if match.mask is not None:
            wanted.append(f"mask IoU {MASK_IOU}")
            furthest.append(f"mask IoU {match.mask:.5f}")
        if match.keypoint is not None:
            wanted.append(f"keypoints {KEYPOINT_PX} px")
            furthest.append(f"keypoint {match.keypoint:.1e} px")
        console.note(
            f"{match.found} of torchvision's {match.total} detections found again within "
            f"{', '.join(wanted)} (ours: {match.ours}; furthest: {', '.join(furthest)})"
        )
        if match.undecided:
            console.note(
                f"in {match.undecided} of them the masks differ only in pixels whose probability "
                f"is within {UNDECIDED} of the threshold, or by a box whose side rounding puts on "
                "another whole pixel, which counts as equal"
            )
