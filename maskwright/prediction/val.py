"""Validation: a model, from a file or loaded, over annotated images; scored as COCO does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..errors import OptionError, checked_options, whole_number
from ..paths import takes_paths
from ..reports.next_command import changed
from ..reports.undefined import Named, named_metric
from ..runs import check_save, save_dir
from ..storage.rundir import write_args
from ..tasks.base import Study, Task
from ..tasks.evaluation import Evaluation, evaluate
from ..tasks.options import own_options
from ..tasks.thresholds import require_one
from ..terminal import console
from ..window import describe_window, parse_window
from .held_out import open_scored
from .load import load
from .memory import require_data_memory
from .predict import predict
from .predictor import Predictor, defaults_of
from .tiles import evaluate_in_tiles, untiled_warning
from .windows import warn_of_own_windows

# Options of a task that are told and repeated as they were given.
SHOWN = ("soft_nms", "tta", "tile", "overlap", "tile_levels")


class ValResult(dict[str, float]):
    """The numbers of a validation by key, and what it left behind.

    Attributes:
        dir: the run folder; None without `save`.
        diagnosis: what the report is made of; None without `save`.
        command: the prediction that finds what the report shows; None without `save`.
        lines: what the report says first; none without `save`.
        named: see `Task.named`.
    """

    named: Named = staticmethod(named_metric)

    def __init__(
        self,
        metrics: Mapping[str, float],
        dir: Path | None = None,
        diagnosis: Any = None,
        command: str | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__(metrics)
        self.dir = dir
        self.diagnosis = diagnosis
        self.command = command
        self.lines = list(lines)


@checked_options
@takes_paths
def val(
    model: str | Path | Predictor,
    data: str | Path,
    *,
    split: str = "val",
    format: str | None = None,
    conf: float = 0.001,
    iou: float | None = None,
    max_det: int = 100,
    device: str = "auto",
    precision: str = "float32",
    imgsz: int | tuple[int, int] | str | None = None,
    batch: int = 1,
    workers: int = 2,
    save: bool | str | Path | None = False,
    project: str | Path = "runs",
    name: str | None = None,
    sigmas: tuple[float, ...] | None = None,
    boundary: bool = False,
    voc: bool | None = None,
    crowd_as_objects: bool | None = None,
    soft_nms: str | None = None,
    tta: str | None = None,
    window: tuple[float, float] | str | None = None,
    page: int | str | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    localize: str | None = None,
    topk: int = 5,
    slide: int | None = None,
    crf: bool | str | tuple[float, ...] | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
    tile_levels: int = 1,
) -> ValResult:
    """Score a model on annotated images: what is measured is up to its task.

    Args:
        model: checkpoint, run folder, registered name, or a loaded `Predictor`.
        data: the data set, any format that `maskwright data check` reads.
        split: which part of the data; of data without a split val, those images that the training
            held out.
        format: read the data as this format, such as yolo or labelme, where a folder has several or
            is taken for another. None: as what is recognised.
        conf: smallest score that counts; a low one leaves the curves of precision whole.
        iou: of two objects of one class that overlap more than this, the weaker is dropped. None:
            the model's own, as for `predict`.
        max_det: most objects per image; raise it for crowded images.
        device: auto, cpu, cuda, cuda:1 or mps; a `Predictor` stays on its own.
        precision: float32, bf16 or fp16, see `load`; a `Predictor` keeps its own.
        imgsz: long side, (short, long) side or "1.25x"; None: the rule of the model.
        batch: images computed at once.
        workers: processes that load images beside the one that computes.
        save: write `report.html`, its figures and `metrics.json`: true into a new run folder, a
            path into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "val".
        sigmas: how far each point of an object may lie from the truth, relative to its size.
            None: COCO's for the 17 of a person, 0.05 for all others.
        boundary: score outlines by boundary IoU as well (Cheng et al. 2021), of label maps
            also by boundary F.
        voc: score by Pascal VOC's protocol as well: by the area under the curve (from 2010 on),
            and by eleven points. None: if the data is VOC.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects like others, not as regions
            of many (CVAT marks all so). None: as the model was trained.
        soft_nms: let objects that overlap a better one of their class lose score instead of
            dropping them: linear, gaussian, or gaussian:0.3 with another sigma than 0.5. None:
            plain NMS.
        tta: look at each image several times and merge what is found: factors on the image size and
            the word flip, as in flip or 0.75,1,1.25,flip. None: once.
        window: sample values that become 0 to 255 in images of more than 8 bits: the smallest and
            the largest, as in 0,4095; percentile or minmax: each image's own. None: auto, as the
            model was trained; percentile, if that was on 8-bit images.
        page: which image of files that hold several, from 0 on; None: the first.
        channels: see `predict`.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from (selective_search, regions_{split}.npz, ...). None: from where
            they came in training; a `Predictor` keeps its own.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        localize: for a classifier, on data with places: score how well its heat maps find these:
            cam, gradcam or gradcam++. The threshold is chosen on the split train. None: score what
            the model is for.
        topk: for models that classify images: k of the accuracy by which the k best answers count.
        slide: for models that give every pixel a class: see `predict`.
        crf: see `predict`; search: find the parameters that suit these images best, which should
            be some that were trained on (split=train).
        tile: look at larger images in tiles of so many of their pixels a side, see `predict`; the
            images are read one by one, then.
        overlap: see `predict`.
        tile_levels: see `predict`.

    Returns:
        Numbers by key: what was measured, the metric and, where it is that of one class, its name,
        joined by "/"; nan where the data has nothing to measure. `docs/guide.md` lists the keys.
        The run folder is the attribute `dir`.

    Raises:
        ValueError: if the model or the data cannot be read, or the data has a class that the
            model does not know.
    """
    require_one(conf)
    parse_window(window)
    batch = whole_number("batch", batch)
    where = check_save(save, project, name)
    called = str(model) if isinstance(model, str | Path) else model.meta.model
    if isinstance(model, str | Path):
        model = load(
            model,
            weights=weights,
            device=device,
            precision=precision,
            proposal_source=proposal_source,
        )
    elif weights is not None:
        raise OptionError("weights is for a model given by its name; this one has its own")
    network, meta, task = model.model, model.meta, model.task
    given: dict[str, Any] = {
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "sigmas": sigmas,
        "boundary": boundary,
        "voc": voc,
        "crowd_as_objects": crowd_as_objects,
        "soft_nms": soft_nms,
        "tta": tta,
        "localize": localize,
        "topk": topk,
        "slide": slide,
        "crf": crf,
        "tile": tile,
        "overlap": overlap,
        "tile_levels": tile_levels,
    }
    settings, view = model.settings(given, val), model.reading(window, channels, page)
    for text in task.settled(given, settings, called):
        console.warn(text)
    own = own_options(task, meta.model, given, defaults_of(val))

    def opens(part: str, **reading: Any) -> Dataset:
        found = {"records": reading.pop("records")} if "records" in reading else {}
        found["format"] = format
        opened, which = open_scored(data, part, meta, found, reading)
        if which:
            console.note(which)
        view.apply(opened)
        return opened

    resize = model.resize_rule(imgsz, settings)
    study = task.study(network, meta, own, opens, split=split, batch=batch, resize=resize)
    if study is not None:
        used = str(network.mean.device)
        given = {"model": called, "data": str(data), "split": split, **own, "device": used}
        given["imgsz"] = list(imgsz) if isinstance(imgsz, tuple) else imgsz
        return _studied(study, save_dir(where, project, "val", name), given)
    finding = {**task.finding(network), "format": format}
    reading = task.scoring(network, meta, own)
    dataset, which = open_scored(data, split, meta, finding, reading)
    if which:
        console.note(which)
    for text in task.lacks(dataset):
        console.warn(text)
    view.apply(dataset)
    warn_of_own_windows(meta, dataset, window)
    if shrunk := untiled_warning(network, meta, resize, settings, dataset.sizes.tolist()):
        console.warn(shrunk)
    evaluator = task.evaluator(network, meta, dataset, settings, own)
    result: Evaluation | None
    if settings.tiling is not None:
        predictor = model

        def find(pixels: Any, name: str) -> Any:
            return predictor.find_one((pixels, None), resize, settings, name, batch)[0]

        result = evaluate_in_tiles(evaluator, find, dataset)
    else:
        rules = settings.rules(resize)
        whole = settings.part
        require_data_memory(model.memory, dataset.sizes, rules, batch, str(data), part=whole)
        task.prepare_data(network, [dataset], workers=workers, rank=0, world=1)
        loaders = [
            task.eval_loader(network, dataset, resize=rule, batch=batch, workers=workers)
            for rule in rules
        ]
        total = len(dataset)
        result = evaluate(evaluator, network, *loaders, total=total, precision=model.precision)
    assert result is not None
    warned, remarks = result.warnings(), result.remarks()
    for text in warned:
        console.warn(text)
    for text in remarks:
        console.note(text)
    folder = save_dir(where, project, "val", name)
    if folder is None:
        return _told(ValResult(result.metrics), task)
    used = str(network.mean.device)
    options: dict[str, object] = {
        "model": called,
        "data": str(data),
        "split": split,
        **task.used(settings),
        "device": used,
        "imgsz": list(imgsz) if isinstance(imgsz, tuple) else imgsz,
        "batch": batch,
        **{name: own[name] for name in SHOWN if name in own},
        "window": None if view.window is None else describe_window(view.window),
        "page": view.page,
        "channels": None if view.channels is None else list(view.channels),
    }
    write_args(folder / "args.yaml", options)
    task.save_validation(folder, result, dataset, settings)
    same = {**options, "iou": iou, "imgsz": imgsz, "window": window, "precision": model.precision}
    same["channels"] = channels  # those of the training need not be named again
    written = task.write_report(
        folder,
        result,
        dataset,
        settings,
        title=f"Validation of {called} on {data}, {split} split",
        options=options,
        device=used,
        notes=[*warned, *remarks],
        origin=[f"{key}={value}" for key, value in model.origin.items()],
        same=changed(same, defaults_of(predict)),
    )
    made = ValResult(result.metrics, folder, written.diagnosis, written.command, written.lines)
    return _told(made, task)


def _told(result: ValResult, task: Task) -> ValResult:
    """Return a result that knows which of its keys are of one name."""
    result.named = task.named
    return result


def _studied(study: Study, folder: Path | None, options: dict[str, Any]) -> ValResult:
    """Return the numbers of a validation of another kind, with a report if there is a folder."""
    if folder is None:
        return ValResult(study.metrics)
    write_args(folder / "args.yaml", options)
    title = f"Validation of {options['model']} on {options['data']}, {options['split']} split"
    lines = study.write(folder, title, options, str(options["device"]))
    return ValResult(study.metrics, folder, study, None, lines)
