"""Inference side by side with torchvision: same weights, same photo, stage by stage, in turns.

torchvision's own model is built from the detector's weights. The two take turns, so that a machine
that slows down slows both; times are medians and the ratio is the median of the turns' ratios.
Every detection of torchvision is looked for among ours.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..models.base import Detector, PostProcess, TwoStageDetector
from ..ops.masks import paste_masks
from . import console
from .agreement import BOX_PX, KEYPOINT_PX, MASK_IOU, SCORE, UNDECIDED, Match, pair
from .peer import drawn_scene, random_predictor, torchvision_model
from .predict import Loaded, Predictor, read
from .result import Result
from .sources import one_source

# Stages in the order of the table.
STAGES = (
    "read and resize",
    "backbone",
    "pyramid",
    "proposal head",
    "proposals",
    "pool for boxes",
    "box head",
    "choose boxes",
    "pool for masks, keypoints",
    "mask head",
    "keypoint head",
    "find keypoints",
    "paste masks",
)


@dataclass
class Side:
    """One side of the comparison: milliseconds of each turn, by stage and in all."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    total: list[float] = field(default_factory=list)

    def median(self, stage: str | None = None) -> float | None:
        """Return the median of a stage, None if there is no such stage, or of the whole."""
        times = self.total if stage is None else self.stages.get(stage)
        return statistics.median(times) if times else None


@dataclass
class Benchmark:
    """The outcome of `benchmark`.

    Attributes:
        model: what was timed.
        size: (height, width) of the network input before padding.
        threads: of torch.
        device: where it ran.
        ours: our times.
        theirs: torchvision's; None where it has no such model.
        match: how the detections agree; None if there was nothing to compare with.
    """

    model: str
    size: tuple[int, int]
    threads: int
    device: str
    ours: Side
    theirs: Side | None
    match: Match | None

    @property
    def ratio(self) -> float | None:
        """torchvision's time over ours, the median of all turns."""
        if self.theirs is None:
            return None
        return statistics.median(
            a / b for a, b in zip(self.theirs.total, self.ours.total, strict=True)
        )


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
) -> Benchmark:
    """Time inference from the photo to full-size masks, beside torchvision where it has the model.

    Args:
        model: registered name, checkpoint or run folder; `maskwright models` lists the names.
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

    Raises:
        ValueError: if the model, the photo or an option is wrong.
    """
    if repeats < 1:
        raise OptionError(f"repeats must be at least 1, got {repeats}")
    if threads is not None and threads < 1:
        raise OptionError(f"threads must be at least 1, got {threads}")
    if precision != "float32" and not fast:
        raise OptionError(
            f"precision={precision} belongs to the fast network: leave out fast=false"
        )
    pixels = drawn_scene() if source is None else read(one_source(source, 0)).pixels
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        predictor = (
            model
            if isinstance(model, Predictor)
            else comparable(model, weights, device, pixels, precision=precision)
        )
        predictor.fast = fast
        return _compare(predictor, pixels, PostProcess(conf, iou, max_det), imgsz, repeats)
    finally:
        torch.set_num_threads(before)


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
    from ..hub import load
    from ..models.registry import list_models

    if str(model) not in list_models() or weights is not None:
        return load(model, weights=weights, device=device, precision=precision)
    # torchvision's conventions: with ours, its model could not give the same numbers.
    options = {"conventions": "torchvision"}
    made = random_predictor(str(model), 90, photo, options=options, device=device)
    return Predictor(made.detector, made.meta, device=device, precision=precision)


def _compare(
    predictor: Predictor, pixels: np.ndarray, post: PostProcess, imgsz: Any, repeats: int
) -> Benchmark:
    resize = predictor.resize_rule(imgsz)
    size = resize.target_size(*pixels.shape[:2])
    loaded = Loaded(one_source(pixels, 0), pixels, 0.0)
    cuda = predictor.device.type == "cuda"
    peer = torchvision_model(predictor, post, resize.short, resize.long)
    sides = [Side()] if peer is None else [Side(), Side()]
    results: list[Any] = [None, None]

    def ours() -> Result:
        with _Stages(sides[0], cuda) as stages:
            stages.watch_ours(predictor.network())
            stages.watch(predictor, "prepare", "read and resize")
            result = predictor.infer([loaded], resize, post)[0]
            with stages.stage("paste masks"):
                _ = result.masks
        return result

    def theirs() -> Any:
        assert peer is not None
        with _Stages(sides[1], cuda) as stages, torch.inference_mode():
            stages.watch_torchvision(peer)
            image = torch.from_numpy(pixels).to(predictor.device).permute(2, 0, 1) / 255
            return peer([image])[0]

    calls: list[Callable[[], Any]] = [ours] if peer is None else [ours, theirs]
    with console.progress("benchmark", total=repeats + 1, unit="turn") as bar:
        for turn in range(repeats + 1):
            order = range(len(calls)) if turn % 2 else reversed(range(len(calls)))
            for i in order:
                results[i] = calls[i]()
            if turn == 0:  # the first one warms up
                for side in sides:
                    side.stages.clear()
                    side.total.clear()
            bar.update()
    return Benchmark(
        predictor.meta.model,
        size,
        torch.get_num_threads(),
        str(predictor.device),
        sides[0],
        None if peer is None else sides[1],
        None if peer is None else _match(results[0], results[1]),
    )


class _Stages:
    """Times what is watched while the context is open, as one turn of a side."""

    def __init__(self, side: Side, cuda: bool) -> None:
        self.side = side
        self.cuda = cuda
        self.open: dict[str, float] = {}
        self.handles: list[Callable[[], None]] = []

    def __enter__(self) -> _Stages:
        self.begin = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.side.total.append(1e3 * (self.now() - self.begin))
        for stage, ms in self.open.items():
            self.side.stages.setdefault(stage, []).append(ms)
        for undo in self.handles:
            undo()

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begin = self.now()
        yield
        self.open[name] = self.open.get(name, 0.0) + 1e3 * (self.now() - begin)

    def watch(self, owner: Any, method: str, stage: str | Callable[..., str]) -> None:
        """Time a method of an object; `stage` may depend on the arguments."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage if isinstance(stage, str) else stage(*args, **kwargs)):
                return inner(*args, **kwargs)

        owner.__dict__[method] = timed
        self.handles.append(lambda: owner.__dict__.pop(method))

    def watch_ours(self, network: Detector) -> None:
        """Time the parts of a two-stage detector; of others only the whole."""
        if not isinstance(network, TwoStageDetector):
            return
        heads = network.roi_heads

        def pool_stage(*args: Any, **_: Any) -> str:
            for_boxes = args[3] == heads.box_head.pool * heads.trunk_stride
            return "pool for boxes" if for_boxes else "pool for masks, keypoints"

        self.watch(network.backbone, "forward", "backbone")
        if network.fpn is not None:
            self.watch(network.fpn, "forward", "pyramid")
        if network.trunk is not None:
            self.watch(network.backbone, "tail", "last stage on regions")
        self.watch(heads.box_head, "maps", "box head")
        self.watch(network.rpn, "forward", "proposal head")
        self.watch(network.rpn, "propose", "proposals")
        self.watch(heads, "pool", pool_stage)
        self.watch(heads.box_head, "forward", "box head")
        self.watch(heads.box_head, "decode", "choose boxes")
        if heads.mask_head is not None:
            self.watch(heads.mask_head, "forward", "mask head")
        if heads.keypoint_head is not None:
            self.watch(heads.keypoint_head, "forward", "keypoint head")
            self.watch(heads.keypoint_head, "decode", "find keypoints")

    def watch_torchvision(self, peer: Any) -> None:
        """Time the parts of torchvision's detector."""
        heads = peer.roi_heads
        self.watch(peer.transform, "forward", "read and resize")
        self.watch(peer.backbone.body, "forward", "backbone")
        self.watch(peer.backbone.fpn, "forward", "pyramid")
        self.watch(peer.rpn.head, "forward", "proposal head")
        self.watch(peer.rpn, "filter_proposals", "proposals")
        self.watch(heads.box_roi_pool, "forward", "pool for boxes")
        self.watch(heads.box_head, "forward", "box head")
        self.watch(heads.box_predictor, "forward", "box head")
        self.watch(heads, "postprocess_detections", "choose boxes")
        if heads.has_mask():
            self.watch(heads.mask_roi_pool, "forward", "pool for masks, keypoints")
            self.watch(heads.mask_head, "forward", "mask head")
            self.watch(heads.mask_predictor, "forward", "mask head")
        if heads.has_keypoint():
            self.watch(heads.keypoint_roi_pool, "forward", "pool for masks, keypoints")
            self.watch(heads.keypoint_head, "forward", "keypoint head")
            self.watch(heads.keypoint_predictor, "forward", "keypoint head")
        self.watch(peer.transform, "postprocess", "paste masks")


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
        f"{len(result.ours.total)} turns, medians",
        columns,
        rows,
    )
    if theirs is None:
        console.note("torchvision has no such model: nothing to compare with")
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


def save(result: Benchmark, path: Path) -> None:
    """Write all figures as JSON."""
    path.write_text(json.dumps({**asdict(result), "ratio": result.ratio}, indent=1))
