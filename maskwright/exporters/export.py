"""Export of whole detectors: one graph from pixels to instances, checked against eager torch.

A file appears under its name only after it has found what the detector itself finds, on photos, on
an image without objects, at two batch sizes and two image sizes. An int8 file comes from a float
graph that has passed this, and has kept its AP on the user's data (`int8`).
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.pixels.images import collate_images, load_image, resize_image
from ..data.proposals import with_regions
from ..errors import OptionError, checked_options
from ..files import require_space, writing
from ..graphs.sessions import GraphDetector, open_graph
from ..graphs.spec import GraphSpec
from ..graphs.trace import trace, whole_model
from ..graphs.writers import SUFFIXES, check_libraries, rewrite_graph, write_graph
from ..models.detection.base import Detector
from ..models.detection.regions import ProposalDetector
from ..nn.detection.poolers import MapPooler, Pooler
from ..paths import takes_paths
from ..prediction.load import load
from ..prediction.predictor import Predictor
from ..prediction.sources import list_sources
from ..prediction.windows import chosen_window
from ..structures import Images
from ..tasks.detection.agreement import (
    BOX_PX,
    KEYPOINT_PX,
    MASK_IOU,
    SCORE,
    UNDECIDED,
    Match,
    agrees,
    compare,
)
from ..tasks.detection.post import make_post
from ..tasks.detection.regions import proposal_store
from ..tasks.detection.views import to_detections
from ..terminal import console
from ..terminal.interrupt import stoppable
from ..timing.peer import drawn_scene
from ..window import Window, parse_window
from .guard import (
    Int8Plan,
    Int8Report,
    check_options,
    files_size,
    make_plan,
    print_int8,
    write_int8,
)

# Photos that lie beside the package in its repository.
_EXAMPLES = Path(__file__).parents[2] / "examples" / "nuclei_mini" / "images" / "val"
_SMALLER = 0.75  # the second image size
_GREY = 127


@dataclass(frozen=True)
class Case:
    """One call of the graph beside eager torch.

    Attributes:
        what: the image or images.
        batch: number of images.
        size: (height, width) of the pixels, padding included.
        match: how the detections agree.
    """

    what: str
    batch: int
    size: tuple[int, int]
    match: Match


@dataclass(frozen=True)
class Photo:
    """An image to compare on.

    Attributes:
        name: what it is called.
        pixels: (H, W, 3) uint8.
        regions: (n, 4) xyxy in its pixels, for detectors that take them with the image; or None.
    """

    name: str
    pixels: np.ndarray
    regions: np.ndarray | None


@dataclass
class ExportReport:
    """What an export came to.

    Attributes:
        path: the file, or the one that is named to open it.
        size_bytes: of all its files.
        nodes: of the graph; for compiled code, of the graph that it was compiled from.
        seconds: by step: "trace", "write", "load", "check"; with int8 "quantise" and "val".
        cases: the comparison with eager torch; with int8, of the float graph that it is made from.
        notes: what else there is to say.
        int8: what quantisation came to; None without.
    """

    path: Path
    size_bytes: int = 0
    nodes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    int8: Int8Report | None = None


@checked_options
@takes_paths
def export(
    model: str | Path | Predictor,
    format: str,
    path: str | Path | None = None,
    *,
    imgsz: tuple[int, int] | int | None = (800, 1216),
    batch: int | None = None,
    half: bool = False,
    int8: bool = False,
    data: str | Path | None = None,
    max_drop: float = 0.5,
    calibration: int = 64,
    conf: float = 0.05,
    iou: float = 0.5,
    max_det: int = 100,
    source: str | Path | None = None,
    window: tuple[float, float] | str | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    report: Callable[[ExportReport], None] | None = None,
) -> Path:
    """Write a detector as one graph from pixels to instances that runs without its code.

    The file holds everything: weights, thresholds, class names, how to resize. Before it appears,
    its detections are compared with eager torch; see `docs/export.md`.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
        format: onnx (ONNX Runtime and most others), openvino, pt2 (torch's own graph) or aoti
            (compiled for this kind of machine; needs a C++ compiler).
        path: the file to write; none: the model's name in the current folder.
        imgsz: height and width of the graph's pixels, one number for a square, or none: a graph
            for any size. Sides are multiples of 32.
        batch: images of a call; none: any number.
        half: keep the weights in half precision: half the size, the arithmetic stays float32.
        int8: compute in 8-bit integers (onnx and openvino); wants data. There is a file only if AP
            on its validation split falls by no more than max_drop.
        data: with int8: the data set, any format that `maskwright data check` reads.
        max_drop: with int8: points of AP that box, mask and keypoint AP may lose, each.
        calibration: with int8: images of the training split that give the ranges of the values.
        conf: smallest score in the graph; prediction may ask for more, not for less.
        iou: of two boxes of one class that overlap more than this, the weaker is dropped.
        max_det: slots of the result; prediction may ask for fewer.
        source: photos to compare on, as for predict; none: sample images of the repository, or
            drawn ones.
        window: sample values that the file takes for 0 to 255 in images of more than 8 bits, as in
            0,4095; percentile: each image's own. None: auto, as the model was trained; percentile,
            if that was on 8-bit images.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from; the file says so too. none: from where they came in training; a
            `Predictor` keeps its own.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        report: is called with the report; none: it is printed.

    Returns:
        The path of the file (of OpenVINO's two files the .xml).

    Raises:
        ValueError: if an option is wrong, the format cannot hold the model, the file does not find
            what the detector finds, or int8 loses too much AP; then there is no file.
        ImportError: if the libraries of the format are missing.
    """
    post = make_post(conf, iou, max_det)
    if parse_window(window) == "minmax":
        raise OptionError(
            "window=minmax: exported files know a declared window, as in window=0,4095, or "
            "window=percentile"
        )
    if format not in SUFFIXES:
        raise OptionError(f"format is one of {', '.join(SUFFIXES)}; got {format!r}")
    if batch is not None and batch < 1:
        raise OptionError(f"batch is a number of images or none, got {batch}")
    if int8:
        check_options(format, half, data, max_drop, calibration)
    else:
        given = {"data": data, "max_drop": max_drop, "calibration": calibration}
        usual = inspect.signature(export).parameters
        others = [f"{name}=..." for name, value in given.items() if value != usual[name].default]
        if others:
            raise OptionError(
                f"{', '.join(others)}: for int8=true alone; other graphs are compared with eager "
                "torch"
            )
    check_libraries(format, int8=int8)
    if isinstance(model, Predictor):
        name = model.meta.model
    else:  # a run folder may have a dot in its name
        name = Path(model).name if Path(model).is_dir() else Path(model).stem
    target = Path(f"{name}{SUFFIXES[format]}" if path is None else path)
    if target.suffix != SUFFIXES[format]:
        raise OptionError(f"path={target}: a file of {format} ends in {SUFFIXES[format]}")
    if not isinstance(model, Predictor):
        model = load(model, weights=weights, device="cpu", proposal_source=proposal_source)
    elif weights is not None:
        raise OptionError("weights is for a model given by its name; this one has its own")
    detector = model.detector
    if isinstance(detector, GraphDetector):
        raise ValueError(f"{detector.source} is exported already: export the checkpoint it is from")
    if model.device.type != "cpu":
        raise ValueError(f"export works on the CPU, the model is on {model.device}: load it there")
    size = _graph_size(imgsz, detector.size_divisor)
    scale = chosen_window(model.meta, window)
    meta = replace(model.meta, window=scale if isinstance(scale, tuple) else None)
    spec = GraphSpec.of(detector, meta, post, size=size, batch=batch, half=half)
    plan = None
    if int8:
        assert data is not None  # or its check would have refused
        plan = make_plan(detector, meta, data, max_drop=max_drop, calibration=calibration)
    result = ExportReport(target)
    store = proposal_store(detector)
    photos = [
        Photo(name, pixels, None if store is None else store(pixels, image_file=Path(name)).boxes)
        for name, pixels in _photos(source, meta.window, result.notes)
    ]
    with stoppable():
        made = _write_checked(detector, spec, format, target, photos, result, plan)
    (report or print_report)(made)
    return made.path


def _graph_size(imgsz: Any, divisor: int) -> tuple[int, int] | None:
    if imgsz is None:
        return None
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise OptionError(f"imgsz is height,width of the graph, one side, or none; got {imgsz!r}")
    if any(side % divisor for side in sides):
        near = ",".join(str(max(round(side / divisor), 1) * divisor) for side in sides)
        raise OptionError(
            f"imgsz={','.join(map(str, sides))}: sides of the graph are multiples of {divisor}, "
            f"such as imgsz={near}"
        )
    return sides[0], sides[1]


def _photos(
    source: str | Path | None, window: Window | None, notes: list[str]
) -> list[tuple[str, np.ndarray]]:
    """Return three photos with their names."""
    if source is None and not _EXAMPLES.is_dir():
        notes.append("compared on drawn scenes: source=... takes photos of your own")
        whole = drawn_scene()
        parts = (whole, whole[:600, :800], whole[100:, 500:])
        return [(f"drawn scene {i + 1}", part) for i, part in enumerate(parts)]
    listed = list_sources(_EXAMPLES if source is None else source)
    photos: list[tuple[str, np.ndarray]] = []
    for item in listed:
        if len(photos) == 3:
            break
        photos.append((item.name, load_image(item.data, window=window)))
    if len(photos) < 3:
        notes.append(f"compared on {len(photos)} of your photos, and on mirror images of them")
    while len(photos) < 3:
        name, pixels = photos[len(photos) - 1]
        photos.append((f"{name}, mirrored", np.ascontiguousarray(pixels[:, ::-1])))
    return photos


def _write_checked(
    detector: Detector,
    spec: GraphSpec,
    format: str,
    target: Path,
    photos: Sequence[Photo],
    report: ExportReport,
    plan: Int8Plan | None,
) -> ExportReport:
    """Write into a folder beside the target, compare, and only then give the files their names."""
    parents = [path for path in target.parents if not path.exists()]
    sizes = [value.numel() * value.itemsize for value in detector.state_dict().values()]
    require_space(target, sum(sizes) // (2 if spec.precision == "fp16" else 1))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    made = folder / target.name
    try:
        with writing(target):
            if plan is None:
                _write_float(detector, spec, format, made, photos, report)
                _judge(report, spec, target)
            else:
                passing = folder / "passing"
                alone = passing / "float"
                alone.mkdir(parents=True)
                between = passing / "float.onnx"
                graph = _write_float(
                    detector, spec, format, alone / target.name, photos, report, between
                )
                _judge(report, spec, target)
                report.int8, report.nodes = write_int8(plan, graph, between, format, made, target)
                report.seconds |= report.int8.seconds
                report.notes += report.int8.notes
            report.size_bytes = files_size(folder)
            if target.exists():
                report.notes.append(f"{target} was there before and is replaced")
            for file in folder.iterdir():
                if file.is_file():
                    file.replace(target.parent / file.name)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
            for parent in parents:  # those that stay empty, the innermost first
                parent.rmdir()
    return report


def _write_float(
    detector: Detector,
    spec: GraphSpec,
    format: str,
    made: Path,
    photos: Sequence[Photo],
    report: ExportReport,
    between: Path | None = None,
) -> GraphDetector:
    """Write a graph and compare it with eager torch; return it, open.

    Args:
        detector: the model.
        spec: the description of the graph.
        format: the format.
        made: the file to write.
        photos: see `_photos`.
        report: takes the figures.
        between: where the ONNX file stays from which the graph is made; None: nowhere.
    """
    cases = _cases(detector, spec, photos)
    with console.progress("export", total=3 + len(cases), unit="step") as bar:

        def timed(step: str, since: float) -> None:
            report.seconds[step] = report.seconds.get(step, 0.0) + time.perf_counter() - since
            bar.update(1)

        start = time.perf_counter()
        whole = whole_model(detector, spec)
        program = trace(whole)
        timed("trace", start)
        start = time.perf_counter()
        if between is None:
            report.nodes = write_graph(format, program, made, spec)
        else:
            write_graph("onnx", program, between, spec)
            report.nodes = rewrite_graph(format, between, made, spec)
        timed("write", start)
        start = time.perf_counter()
        graph = open_graph(made, trust=True)
        timed("load", start)
        # Rounded weights are judged beside the same weights: what rounding them does to the
        # accuracy is not for a handful of photos to say.
        eager = whole.detector if spec.precision == "fp16" else detector
        for what, images in cases:
            start = time.perf_counter()
            report.cases += _compare(eager, graph, what, images, spec)
            timed("check", start)
    return graph


def _cases(
    detector: Detector, spec: GraphSpec, photos: Sequence[Photo]
) -> list[tuple[list[str], Images]]:
    """Return the calls of the comparison: names of the images, and the batch."""
    first, second, third = photos
    pooler = detector.roi_heads.pooler if isinstance(detector, ProposalDetector) else None
    nothing = None if second.regions is None else second.regions[:0]
    grey = Photo("flat grey", np.full_like(second.pixels, _GREY), nothing)

    def batch(*images: Photo, factor: float = 1.0) -> tuple[list[str], Images]:
        scaled, regions = [], []
        for image in images:
            whole = image.pixels.shape[:2]
            height, width = (int(side * factor) for side in spec.resize.target_size(*whole))
            size = max(height, 1), max(width, 1)
            scaled.append((resize_image(image.pixels, size, spec.resize.antialias), size))
            if image.regions is not None:
                ratio = np.divide(size, whole)[[1, 0, 1, 0]].astype(np.float32)
                regions.append(_distinct(image.regions * ratio, pooler))
        buckets = [] if spec.size is None else [spec.size]
        made = collate_images(scaled, spec.divisor, buckets)
        made = with_regions(made, regions) if regions else made
        return [image.name for image in images], made

    return [batch(first), batch(second, grey), batch(third, factor=_SMALLER)]


def _distinct(boxes: np.ndarray, pooler: Pooler | None) -> np.ndarray:
    """Return boxes (n, 4) in network-input pixels without those that pool what an earlier one does.

    RoIPool cannot tell them apart, so their scores tie, and rounding says which one is kept.
    """
    if isinstance(pooler, MapPooler) and pooler.kind == "pool":
        for ratio in pooler.ratios:
            cells = np.floor(boxes * (ratio / pooler.stride) + 0.5)
            boxes = boxes[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
    return boxes


def _compare(
    eager: Detector, graph: Detector, what: list[str], images: Images, spec: GraphSpec
) -> list[Case]:
    with torch.inference_mode():
        wanted = to_detections(eager(images, spec.post), images)
        found = to_detections(graph(images, spec.post), images)
    size = (images.pixels.shape[2], images.pixels.shape[3])
    return [
        Case(name, len(images), size, compare(one, other, spec.post, spec.paste_mode))
        for name, one, other in zip(what, wanted, found, strict=True)
    ]


def _judge(report: ExportReport, spec: GraphSpec, target: Path) -> None:
    """Raise unless the file finds what the detector finds."""
    matches = [case.match for case in report.cases]
    if not agrees(matches):
        worst = max(
            report.cases, key=lambda case: (case.match.unexplained, case.match.at_threshold)
        )
        raise ValueError(
            f"{target.name} does not find what the model finds, so it was not written; in "
            f"{worst.what}: {_describe(worst.match)}"
        )
    if not any(match.total for match in matches):
        report.notes.append(
            "the model found nothing above conf in any of the images, so that the comparison says "
            "little: give source=... with objects in it, or a smaller conf"
        )
    if spec.batch is not None and spec.batch > 1:
        report.notes.append(f"the graph takes {spec.batch} images; fewer are padded to that")


def _describe(match: Match) -> str:
    parts = [f"{match.found} of {match.total} detections found again (it has {match.ours})"]
    parts += [f"boxes up to {match.box:.1e} px apart", f"scores {match.score:.1e}"]
    if match.mask is not None:
        parts.append(f"mask IoU from {match.mask:.5f}")
    if match.keypoint is not None:
        parts.append(f"keypoints {match.keypoint:.1e} px")
    return ", ".join(parts)


def print_report(report: ExportReport) -> None:
    """Print what an export came to."""
    console.table(
        "Compared with eager torch" + ("" if report.int8 is None else ": the float graph"),
        [
            *("image", "batch", "pixels", "objects", "found", "at a threshold"),
            *("box, px", "score", "mask IoU", "keypoint, px"),
        ],
        [
            [
                case.what,
                case.batch,
                f"{case.size[0]} x {case.size[1]}",
                case.match.total,
                case.match.found,
                case.match.at_threshold,
                f"{case.match.box:.1e}",
                f"{case.match.score:.1e}",
                None if case.match.mask is None else f"{case.match.mask:.5f}",
                None if case.match.keypoint is None else f"{case.match.keypoint:.1e}",
            ]
            for case in report.cases
        ],
    )
    undecided = sum(case.match.undecided for case in report.cases)
    wanted = f"{BOX_PX} px, score {SCORE}, mask IoU {MASK_IOU}, keypoints {KEYPOINT_PX} px"
    console.note(f"tolerances: {wanted}")
    if undecided:
        console.note(
            f"{undecided} masks differ in pixels whose probability is within {UNDECIDED} of the "
            "threshold, which count as equal"
        )
    if report.int8 is not None:
        print_int8(report.int8, report.size_bytes)
    for text in report.notes:
        console.note(text)
    times = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in report.seconds.items())
    console.note(f"{report.path}: {report.size_bytes / 1e6:.1f} MB, {report.nodes} nodes ({times})")
