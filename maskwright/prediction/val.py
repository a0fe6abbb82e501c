"""Validation: a model, from a file or loaded, over annotated images; scored as COCO does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.checking.verdict import no_objects
from ..data.records import describe_faults
from ..errors import OptionError, checked_options
from ..metrics.detection.diagnostics import explain_zero
from ..paths import takes_paths
from ..runs import check_save, save_dir
from ..tasks.detection.evaluate import capped_notes, eval_loader, evaluate
from ..tasks.detection.regions import prepare_proposals
from ..tasks.detection.views import Views
from ..terminal import console
from ..window import describe_window, parse_window
from .held_out import open_scored
from .memory import require_data_memory
from .predictor import default_post, make_post
from .windows import chosen_window, warn_of_own_windows

if TYPE_CHECKING:
    from ..tasks.detection.diagnosis import Diagnosis
    from .predictor import Predictor


class ValResult(dict[str, float]):
    """The numbers of a validation by key, and what it left behind.

    Attributes:
        dir: the run folder; None without `save`.
        diagnosis: what the report is made of; None without `save`.
        command: the prediction that finds what the report shows; None without `save`.
    """

    def __init__(
        self,
        metrics: Mapping[str, float],
        dir: Path | None = None,
        diagnosis: Diagnosis | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(metrics)
        self.dir = dir
        self.diagnosis = diagnosis
        self.command = command


@checked_options
@takes_paths
def val(
    model: str | Path | Predictor,
    data: str | Path,
    *,
    split: str = "val",
    conf: float = 0.001,
    iou: float = 0.5,
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
    proposal_source: str | None = None,
    weights: str | Path | None = None,
) -> ValResult:
    """Score a model on annotated images with the COCO metrics.

    Args:
        model: checkpoint, run folder, registered name, or a loaded `Predictor`.
        data: the data set, any format that `maskwright data check` reads.
        split: which part of the data; of data without a split val, those images that the training
            held out.
        conf: smallest score that counts; AP wants a low one.
        iou: of two boxes of one class that overlap more than this, the weaker is dropped.
        max_det: most detections per image; raise it for crowded images.
        device: auto, cpu, cuda, cuda:1 or mps; a `Predictor` stays on its own.
        precision: float32, bf16 or fp16, see `load`; a `Predictor` keeps its own.
        imgsz: long side, (short, long) side or "1.25x"; None: the rule of the model.
        batch: images computed at once.
        workers: processes that load images beside the one that computes.
        save: write `report.html`, its figures and `metrics.json`: true into a new run folder, a
            path into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "val".
        sigmas: how far each keypoint may lie from the truth, relative to the size of its object.
            None: COCO's for the 17 keypoints of a person, 0.05 for all others.
        boundary: score masks by boundary IoU as well ("boundary/AP", Cheng et al. 2021).
        voc: score boxes by Pascal VOC's protocol as well: "box/VOC_AP50" by the area under the
            curve (from 2010 on), "box/VOC07_AP50" by eleven points. None: if the data is VOC.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects like others, not as regions
            of many (CVAT marks masks so). None: as the model was trained.
        soft_nms: let boxes that overlap a better one of their class lose score instead of dropping
            them: linear, gaussian, or gaussian:0.3 with another sigma than 0.5. None: plain NMS.
        tta: look at each image several times and merge what is found: factors on the image size and
            the word flip, as in flip or 0.75,1,1.25,flip. None: once.
        window: sample values that become 0 to 255 in images of more than 8 bits: the smallest and
            the largest, as in 0,4095; percentile or minmax: each image's own. None: auto, as the
            model was trained; percentile, if that was on 8-bit images.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from (selective_search, boxes_{split}.npz, ...). None: from where they
            came in training; a `Predictor` keeps its own.
        weights: for a registered name: published weights such as coco, or a checkpoint.

    Returns:
        Numbers by key: "box/AP", "box/AP50", "mask/AP", "mask/AP75", "mask/AP_small",
        "keypoints/AP", "mask/AP/<class name>", ...; nan where the data has no object to find.
        The run folder is the attribute `dir`.

    Raises:
        ValueError: if the model or the data cannot be read, or the data has a class that the
            model does not know.
    """
    post, views = make_post(conf, iou, max_det, soft_nms), Views.parse(tta)
    parse_window(window)
    where = check_save(save, project, name)
    called = str(model) if isinstance(model, str | Path) else model.meta.model
    if isinstance(model, str | Path):
        from ..hub.loading import load

        model = load(
            model,
            weights=weights,
            device=device,
            precision=precision,
            proposal_source=proposal_source,
        )
    elif weights is not None:
        raise OptionError("weights is for a model given by its name; this one has its own")
    detector, scale = model.detector, chosen_window(model.meta, window)
    asked, post = post.score_thresh, detector.limits(post, default_post(val))
    if post.score_thresh > asked:
        console.warn(
            f"{called} has no objects below conf={post.score_thresh:g}, so AP is a little lower "
            "than papers would give it: they count from 0.001 on; export with conf=0.001 for that"
        )
    if boundary and not detector.predicts_masks:
        raise OptionError(f"boundary=true scores masks, but {model.meta.model} finds none")
    if crowd_as_objects is None:
        crowd_as_objects = bool(model.meta.extra.get("crowd_as_objects", False))
    dataset, which = open_scored(
        data,
        split,
        model.meta,
        keypoints=detector.num_keypoints > 0,
        crowd_as_objects=crowd_as_objects,
    )
    if which:
        console.note(which)
    if problem := no_objects(dataset):
        console.warn(problem)
    elif faults := describe_faults(dataset):
        console.warn(faults)
    dataset.window = scale
    warn_of_own_windows(model.meta, dataset)
    resize = model.resize_rule(imgsz)
    rules = [resize] if views is None else views.resizes(resize)
    require_data_memory(model.memory, dataset.sizes, rules, batch, str(data))
    prepare_proposals(detector, dataset, workers=workers)
    loaders = [
        eval_loader(detector, dataset, resize=rule, batch=batch, workers=workers) for rule in rules
    ]
    result = evaluate(
        detector,
        dataset,
        *loaders,
        names=model.meta.names,
        post=post,
        skeleton=model.meta.keypoints,
        sigmas=sigmas,
        boundary=boundary,
        voc=voc,
        views=views,
        precision=model.precision,
    )
    assert result is not None
    notes = [
        *capped_notes(result, post.max_det),
        *explain_zero(result.gt, result.detections, result.metrics, by="model"),
    ]
    for text in notes:
        console.warn(text)
    said = len(notes)
    if detector.predicts_masks and not dataset.has_masks:
        notes.append(f"{data} has boxes only: the masks were not scored")
    if detector.num_keypoints and not dataset.has_keypoints:
        notes.append(f"{data} has no labelled keypoints: those found were not scored")
    for text in notes[said:]:
        console.note(text)
    folder = save_dir(where, project, "val", name)
    if folder is None:
        return ValResult(result.metrics)
    from ..reports.next_command import predict_command
    from ..storage.rundir import write_args
    from ..tasks.detection.diagnosis import diagnose
    from ..tasks.detection.pictures import save_validation
    from ..tasks.detection.report import write_report

    used = str(detector.mean.device)
    options: dict[str, object] = {
        "model": called,
        "data": str(data),
        "split": split,
        "conf": post.score_thresh,
        "iou": post.nms_thresh,
        "max_det": post.max_det,
        "device": used,
        "imgsz": list(imgsz) if isinstance(imgsz, tuple) else imgsz,
        "batch": batch,
        "soft_nms": soft_nms,
        "tta": tta,
        "window": None if scale is None else describe_window(scale),
    }
    write_args(folder / "args.yaml", options)
    diagnosis = diagnose(result, post.max_det, post.score_thresh)
    origin = [f"{key}={value}" for key, value in model.origin.items()]
    same = {**options, "imgsz": imgsz, "window": window, "precision": model.precision}
    command = predict_command(origin, dataset, diagnosis.conf, same)
    save_validation(folder, result, dataset, diagnosis.best, post.score_thresh)
    write_report(
        folder,
        diagnosis,
        result,
        dataset,
        title=f"Validation of {called} on {data}, {split} split",
        command=command,
        options=options,
        device=used,
        notes=notes,
    )
    return ValResult(result.metrics, folder, diagnosis, command)
