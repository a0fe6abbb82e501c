"""Export of whole models: one graph from pixels to results, checked against eager torch.

A file appears under its name only after it has found what the model itself finds (`checked`). An
int8 file comes from a float graph that has passed this, and has kept its accuracy on the user's
data (`guard`). What a graph takes and gives, and what agrees, is the task's (`tasks.graph`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..drawing.scene import drawn_scene
from ..errors import OptionError, checked_options, nearest
from ..graphs.spec import describe
from ..graphs.writers import SUFFIXES, check_libraries
from ..paths import takes_paths
from ..prediction.load import load
from ..prediction.predictor import Predictor
from ..prediction.reading import Reading, read
from ..prediction.sources import list_sources
from ..prediction.windows import chosen_window
from ..tasks.graph import GraphModel, Photo, graph_kind
from ..tasks.thresholds import require_one
from ..terminal.interrupt import stoppable
from ..window import parse_window
from .checked import Job, write_checked
from .guard import check_options, make_plan
from .report import ExportReport, print_report

# Photos that lie beside the package in its repository.
_EXAMPLES = Path(__file__).parents[2] / "examples" / "nuclei_mini" / "images" / "val"


@checked_options
@takes_paths
def export(
    model: str | Path | Predictor,
    format: str,
    path: str | Path | None = None,
    *,
    imgsz: int | tuple[int, int] | str | None = "auto",
    batch: int | None = None,
    half: bool = False,
    int8: bool = False,
    data: str | Path | None = None,
    max_drop: float = 0.5,
    calibration: int = 64,
    conf: float = 0.05,
    iou: float | None = None,
    max_det: int = 100,
    source: str | Path | None = None,
    window: tuple[float, float] | str | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    report: Callable[[ExportReport], None] | None = None,
) -> Path:
    """Write a model as one graph, from pixels to results, that runs without its code.

    The file holds everything: weights, thresholds, names, how to resize. Before it appears, what
    it finds is compared with eager torch; see `docs/export.md`.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
        format: onnx (ONNX Runtime and most others), openvino, pt2 (torch's own graph) or aoti
            (compiled for this kind of machine; needs a C++ compiler).
        path: the file to write; none: the model's name in the current folder.
        imgsz: height and width of the graph's pixels, one number for a square, or none: a graph
            for any size. Sides are multiples of 32. auto: the square that the model's images fit
            into; 800,1216 for the rule of a short and a long side.
        batch: images of a call; none: any number.
        half: keep the weights in half precision: half the size, the arithmetic stays float32.
        int8: compute in 8-bit integers (onnx and openvino); wants data. There is a file only if
            accuracy on its validation split falls by no more than max_drop.
        data: with int8: the data set, any format that `maskwright data check` reads.
        max_drop: with int8: points, hundredths, that each metric may lose by which models of this
            kind are judged: average precision, or accuracy.
        calibration: with int8: images of the training split that give the ranges of the values.
        conf: smallest score in the graph; prediction may ask for more, not for less.
        iou: of two objects of one class that overlap more than this, the weaker is dropped. None:
            the model's own, mostly 0.5.
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
            what the model finds, or int8 loses too much; then there is no file.
        ImportError: if the libraries of the format are missing.
    """
    if parse_window(window) == "minmax":
        raise OptionError(
            "window=minmax: exported files know a declared window, as in window=0,4095, or "
            "window=percentile"
        )
    require_one(conf)
    if format not in SUFFIXES:
        meant = nearest(format, SUFFIXES)
        raise OptionError(f"format is one of {', '.join(SUFFIXES)}; got {format!r}{meant}")
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
    network = model.model
    if isinstance(network, GraphModel):
        raise OptionError(f"{network.source} is exported already: export the checkpoint it is from")
    if model.device.type != "cpu":
        raise OptionError(f"export works on the CPU, the model is on {model.device}: load it there")
    size = graph_kind(network.task).size(network, imgsz)
    settings = model.settings({"conf": conf, "iou": iou, "max_det": max_det}, export)
    scale = chosen_window(model.meta, window)
    meta = replace(model.meta, window=scale if isinstance(scale, tuple) else None)
    spec = describe(network, meta, settings, size=size, batch=batch, half=half)
    plan = None
    if int8:
        assert data is not None  # or its check would have refused
        plan = make_plan(network, meta, data, max_drop=max_drop, calibration=calibration)
    result = ExportReport(target, spec)
    photos = _photos(source, model.reading(window), result.notes)
    with stoppable():
        made = write_checked(Job(network, spec, format, target, photos, plan), result)
    (report or print_report)(made)
    return made.path


def _photos(source: str | Path | None, reading: Reading, notes: list[str]) -> list[Photo]:
    """Return three photos as the network looks at them."""
    if source is None and (reading.count != 3 or not _EXAMPLES.is_dir()):
        notes.append("compared on drawn scenes: source=... takes photos of your own")
        whole = drawn_scene()[..., [channel % 3 for channel in range(reading.count)]]
        parts = (whole, whole[:600, :800], whole[100:, 500:])
        return [Photo(f"drawn scene {i + 1}", part) for i, part in enumerate(parts)]
    listed = list_sources(_EXAMPLES if source is None else source)
    photos: list[Photo] = []
    for item in listed:
        if len(photos) == 3:
            break
        photos.append(Photo(item.name, read(item, reading).pixels))
    if len(photos) < 3:
        notes.append(f"compared on {len(photos)} of your photos, and on mirror images of them")
    while len(photos) < 3:
        last = photos[-1]
        mirrored = np.ascontiguousarray(last.pixels[:, ::-1])
        photos.append(Photo(f"{last.name}, mirrored", mirrored))
    return photos
