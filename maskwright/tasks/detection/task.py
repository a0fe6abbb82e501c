"""Detection, instance segmentation and keypoints: what training and prediction ask this task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...data.checking.verdict import class_counts, no_masks, no_objects, unlike_classes
from ...data.loader import Batch, Loader, long_side, make_loader
from ...data.pixels.resizing import collate_images
from ...data.proposals import with_regions
from ...data.records import Dataset
from ...errors import OptionError, first_few
from ...metrics.detection.scores import SMALLEST_SCORE
from ...models.base import Model
from ...models.detection.base import Detector
from ...models.meta import Meta
from ...reports.next_command import export_command, predict_command, val_command
from ...structures import Images, Resize, Tiling
from ..base import Attach, Settings, Task, Written
from ..evidence import Explainer
from ..keypoints import check_same_keypoints, own_keypoints, reads_keypoints
from ..scaling import scale_photos
from . import alternate
from .crf import refined
from .data_options import WITHOUT_KEYPOINTS, augmentation, own_anchors
from .evaluate import (
    COMPARED,
    DetectionEvaluation,
    DetectionEvaluator,
    fitness,
    match_classes,
    match_keypoints,
)
from .explain import make_explainer
from .exporting.graph import GRAPHS
from .label_check import DetectionCheck
from .labelling import Labels, written_formats
from .parts import load_proposer, proposing, two_stage
from .peer import PEER
from .post import make_post
from .reached import limits_reached
from .recipe import DetectionRecipe
from .regions import check_shared_ids, prepare_proposals, proposal_store, take_regions_from
from .reporting import pictures
from .reporting.diagnosis import DEFAULT_CONF, advise, diagnose
from .reporting.report import spoken, write_report
from .result import Result
from .settings import DetectionSettings, make_settings
from .tiling.assemble import ObjectAssembler
from .tracking.tracker import ObjectTracker
from .views import detect_views, to_detections


class DetectionTask(Task):
    """Objects by box, and as the model has them by mask and keypoints."""

    name = "detection"
    does = DetectionRecipe.DOES
    recipe = DetectionRecipe
    options = (
        *("conf", "iou", "max_det", "soft_nms", "tta", "crf"),
        *("sigmas", "boundary", "voc", "crowd_as_objects", "proposal_source"),
        *("explain", "explain_target", "tile", "overlap", "tile_levels", "track", "line"),
    )
    files, columns = Result.FILES, Result.COLUMNS
    score = "AP"
    unscored = "the val images hold no object to find, so AP is undefined"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        f"{kind.capitalize().rstrip('s')} AP": (f"{kind}/AP", f"{kind}/AP50", f"{kind}/AP75")
        for kind in ("box", "mask", "boundary", "keypoints")
    }
    graph = GRAPHS
    doubts = DetectionCheck()
    peer = PEER
    shown = ("box/AP", "mask/AP", "mask/AP50", "keypoints/AP", "keypoints/AP50")
    compared = COMPARED
    tracker = ObjectTracker

    def finding(self, model: str | Model) -> dict[str, Any]:
        """Return whether keypoints are read; see `Task`."""
        return {"keypoints": reads_keypoints(model)}

    def reading(self, recipe: DetectionRecipe, *, training: bool = False) -> dict[str, Any]:
        """Return what counts as an object; see `Task`."""
        options = {"crowd_as_objects": recipe.crowd_as_objects}
        return {**options, "difficult": recipe.difficult} if training else options

    def scoring(self, model: Any, meta: Meta, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what counts as an object, as the model was trained; see `Task`."""
        if options.get("boundary") and not model.predicts_masks:
            raise OptionError(f"boundary=true scores masks, but {meta.model} finds none")
        crowd = options.get("crowd_as_objects")
        if crowd is None:
            crowd = bool(meta.extra.get("crowd_as_objects", False))
        return {"crowd_as_objects": crowd}

    def fill(
        self, recipe: DetectionRecipe, args: dict[str, Any], data: Dataset
    ) -> tuple[dict[str, Any], str]:
        """Return the number of keypoints, and anchors that fit the objects; see `Task`."""
        own: dict[str, Any] = {}
        skeleton = own_keypoints(recipe, args, data, WITHOUT_KEYPOINTS)
        if skeleton is not None:
            own["num_keypoints"] = len(skeleton)
        anchors, told = own_anchors(recipe, {**args, **own}, data)
        return {**own, **anchors}, told

    def describe(self, recipe: DetectionRecipe, data: Dataset) -> dict[str, Any]:
        """Return the keypoints, and what counted as an object; see `Task`."""
        keypoints = self.finding(recipe.model)["keypoints"]
        extra = {"crowd_as_objects": True} if recipe.crowd_as_objects else {}
        return {"keypoints": data.skeleton if keypoints else None, "extra": extra}

    def check(self, model: Detector, recipe: DetectionRecipe, data: Dataset, meta: Meta) -> None:
        """Make sure that there are objects, and masks and keypoints if need be; see `Task`."""
        check_same_keypoints(recipe, data, meta)
        if problem := no_objects(data):
            raise ValueError(f"there is nothing to learn from: {problem}")
        if model.predicts_masks and (problem := no_masks(data)):
            raise ValueError(
                f"{recipe.model} needs masks, but {problem}; else choose a model of boxes such as "
                "faster_rcnn_resnet50_fpn, or add masks to the annotations"
            )
        stretch = model.resize.stretch
        if stretch is not None and recipe.crop is not None:
            raise OptionError(
                f"crop={recipe.crop}: {recipe.model} takes images of {stretch[0]}x{stretch[1]} "
                "pixels and no windows of another size: leave crop out, and choose imgsz"
            )
        if stretch is not None and recipe.rotate90 and stretch[0] != stretch[1]:
            raise OptionError(
                f"rotate90={recipe.rotate90} is for square input; "
                f"{recipe.model} takes {stretch[0]}x{stretch[1]} pixels"
            )
        if recipe.multiscale is not None:
            if stretch is not None or model.buckets:
                raise OptionError(
                    f"multiscale={recipe.multiscale}: {recipe.model} takes images of one size alone"
                )
            long_side(model.resize)  # or it says that there is none
        if recipe.tile is not None:
            Tiling(recipe.tile).require(model.resize, model.size_divisor)
            if model.proposal_source is not None:
                raise OptionError(
                    f"tile={recipe.tile}: {recipe.model} takes regions of whole images"
                )
        if recipe.val_boundary and not model.predicts_masks:
            raise OptionError(f"val_boundary=true scores masks, but {recipe.model} finds none")

    def check_scored(self, meta: Meta, data: Dataset) -> None:
        """Make sure that the model knows all classes and keypoints; see `Task`."""
        match_classes(meta.names, data.names)
        match_keypoints(meta.keypoints, data)

    def stages(self, recipe: DetectionRecipe) -> tuple[str, ...]:
        """Return the first steps of alternating training; see `alternate`."""
        return alternate.STEPS if recipe.alternate else ()

    def check_stages(self, model: Model, name: str) -> None:
        """Make sure that there is an RPN; see `Task`."""
        two_stage(model, name, "alternate=true")

    def stage(
        self, recipe: DetectionRecipe, number: int, weights: Sequence[Path]
    ) -> dict[str, Any]:
        """Return what trains in a step, and from what; see `alternate`."""
        return alternate.step_options(number, weights)

    def prepare_model(self, model: Detector, recipe: DetectionRecipe) -> None:
        """Train one part of a two-stage detector alone, if it is asked for; see `Task`."""
        if recipe.train_part != "all":
            two_stage(model, recipe.model, "train_part").train_only(recipe.train_part)

    def prepare_data(
        self, model: Detector, parts: Sequence[Dataset], *, workers: int, rank: int, world: int
    ) -> None:
        """Compute the proposals of detectors that take them from outside; see `Task`."""
        check_shared_ids(model, *parts)
        for part in parts:
            prepare_proposals(model, part, workers=workers, rank=rank, world=world)

    def before_step(
        self, recipe: DetectionRecipe, device: torch.device
    ) -> Callable[[Images], Images] | None:
        """Return what adds the proposals of another detector to the images; see `Task`."""
        proposer = load_proposer(recipe.proposal_model, device)
        return None if proposer is None else proposing(proposer)

    def training_loader(
        self,
        recipe: DetectionRecipe,
        data: Dataset,
        model: Detector,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return the loader of the augmented training images; see `Task`."""
        return make_loader(
            data,
            batch=recipe.batch,
            resize=model.resize,
            augment=augmentation(recipe, model),
            seed=recipe.seed,
            workers=recipe.workers,
            shuffle=True,
            divisor=model.size_divisor,
            rank=rank,
            world=world,
            masks=model.predicts_masks,
            proposals=proposal_store(model, data.split),
            multiscale=recipe.multiscale,
        )

    def eval_loader(
        self,
        model: Detector,
        data: Dataset,
        *,
        resize: Resize | None = None,
        batch: int = 1,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return a loader over a data set in its order; see `Task`."""
        return make_loader(
            data,
            batch=batch,
            resize=resize or model.resize,
            augment=None,
            seed=0,
            workers=workers,
            shuffle=False,
            divisor=model.size_divisor,
            buckets=model.buckets,
            rank=rank,
            world=world,
            masks=False,  # the evaluator takes them from the data set
            proposals=proposal_store(model, data.split),
        )

    def counts(self, data: Dataset) -> str:
        """Return how many objects of which classes; see `Task`."""
        names = first_few(data.names, 5)
        return f"{sum(class_counts(data).values())} objects of {len(data.names)} classes: {names}"

    def warnings(
        self, model: Detector, recipe: DetectionRecipe, train: Dataset, val: Dataset | None
    ) -> list[str]:
        """Return what is unlike between training and validation; see `Task`."""
        if val is None:
            return []
        found = (no_objects(val), unlike_classes(class_counts(train), class_counts(val)))
        return [text for text in found if text]

    def lacks(self, data: Dataset) -> list[str]:
        """Return whether there is anything to find, and what was wrong; see `Task`."""
        problem = no_objects(data)
        return [problem] if problem else super().lacks(data)

    def draw_batch(self, path: Path, batch: Batch, data: Dataset) -> None:
        """Draw images with their objects; see `Task`."""
        pictures.save_batch(path, batch, data)

    def draw_annotations(self, path: Path, data: Dataset) -> None:
        """Draw numbers, sizes and places of the objects; see `Task`."""
        pictures.save_labels(path, data)

    def evaluator(
        self,
        model: Detector,
        meta: Meta,
        data: Dataset,
        settings: Settings,
        options: Mapping[str, Any],
    ) -> DetectionEvaluator:
        """Return what scores detections by AP; see `Task`."""
        assert isinstance(settings, DetectionSettings)
        own = {key: options[key] for key in ("sigmas", "boundary", "voc") if key in options}
        return DetectionEvaluator(model, data, meta, settings, **own)

    def comparing(self, model: Detector) -> dict[str, Any]:
        """Return that borders count, where there are masks; see `Task`."""
        return {"boundary": True} if model.predicts_masks else {}

    def validation(self, recipe: DetectionRecipe) -> tuple[DetectionSettings, dict[str, Any]]:
        """Return the thresholds of validations in a training; see `Task`."""
        post = make_post(0.001, 0.5, recipe.max_det)
        tiling = None if recipe.tile is None else Tiling(recipe.tile)
        return DetectionSettings(post, tiling=tiling), {"boundary": recipe.val_boundary}

    def save_validation(
        self, folder: Path, result: DetectionEvaluation, data: Dataset, settings: Settings
    ) -> None:
        """Write metrics, detections and pictures of them; see `Task`."""
        assert isinstance(settings, DetectionSettings)
        best = advise(result, settings.post.max_det)
        pictures.save_validation(folder, result, data, best, settings.post.score_thresh)

    def write_report(
        self,
        folder: Path,
        result: DetectionEvaluation,
        data: Dataset,
        settings: Settings,
        *,
        title: str,
        options: Mapping[str, Any],
        device: str,
        notes: Sequence[str],
        origin: Sequence[str],
        same: Mapping[str, Any],
    ) -> Written:
        """Write the report of an evaluation; see `Task`."""
        assert isinstance(settings, DetectionSettings)
        post = settings.post
        found = diagnose(result, post.max_det, post.score_thresh)
        command = predict_command(origin, data, {"conf": found.conf, **same})
        write_report(
            folder,
            found,
            result,
            data,
            title=title,
            command=command,
            options=options,
            device=device,
            notes=notes,
        )
        return Written(spoken(found, folder), command, found)

    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return the mean AP of masks and keypoints, else that of boxes; see `fitness`."""
        return fitness(metrics)

    def repeated(self, recipe: DetectionRecipe) -> dict[str, Any]:
        """Return the number of detections and the tiles, where they are not the usual ones."""
        own = {"max_det": recipe.max_det, "tile": recipe.tile}
        return {name: n for name, n in own.items() if n != getattr(DetectionRecipe, name)}

    def best_evaluation(
        self, folder: Path, recipe: DetectionRecipe, metrics: dict[str, float], data: Dataset
    ) -> DetectionEvaluation | None:
        """Return the evaluation of the best epoch; see `Task`."""
        if not (folder / pictures.DETECTIONS).is_file():
            return None  # best before such files were written: `maskwright val` makes the report
        gt, rows = data.to_coco(by_label=True), pictures.load_detections(folder, data)
        return DetectionEvaluation(metrics, math.nan, gt, rows, recipe.max_det)

    def commands(
        self, model: str, data: Dataset, recipe: DetectionRecipe, written: Written | None
    ) -> list[str]:
        """Return what follows a training: an export too, if its usual `conf` would be too high."""
        own = self.repeated(recipe)
        usual = {"conf": DEFAULT_CONF, **own}
        predict = (written and written.command) or predict_command([model], data, usual)
        scored = own | {"boundary": True} if recipe.val_boundary else own
        conf = DEFAULT_CONF if written is None else written.diagnosis.conf
        following = [predict, val_command(model, recipe.data, scored), export_command(model, conf)]
        return following if conf < SMALLEST_SCORE else following[:2]

    def settings(
        self,
        model: Detector,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> DetectionSettings:
        """Return thresholds, views and CRF; see `Task`."""
        return make_settings(model, given, defaults, names)

    def settled(self, given: Mapping[str, Any], settings: Settings, called: str) -> list[str]:
        """Return what an exported graph has no objects for; see `Task`."""
        assert isinstance(settings, DetectionSettings)
        least = settings.post.score_thresh
        if least <= given["conf"]:
            return []
        return [
            f"{called} has no objects below conf={least:g}, so AP is a little lower than papers "
            "would give it: they count from 0.001 on; export with conf=0.001 for that"
        ]

    def used(self, settings: DetectionSettings) -> dict[str, Any]:
        """Return thresholds and CRF; see `Task`."""
        post, crf = settings.post, settings.crf
        used = {"conf": post.score_thresh, "iou": post.nms_thresh, "max_det": post.max_det}
        return used if crf is None else {**used, "crf": crf.option}

    def adapt(self, model: Detector, name: str, given: Mapping[str, Any]) -> None:
        """Let a detector take its regions from elsewhere; see `Task`."""
        take_regions_from(model, name, given.get("proposal_source"))

    def attach(self, model: Detector) -> Attach | None:
        """Return what adds regions to images, for detectors that take them; see `Task`."""
        if model.proposal_source is None:
            return None
        store = proposal_store(model)
        assert store is not None

        def add(images: Images, photos: Sequence[tuple[np.ndarray, Path | None]]) -> Images:
            found = [store(pixels, image_file=file).boxes for pixels, file in photos]
            return with_regions(images, found)

        return add

    def collate(self, pixels: Sequence[np.ndarray], model: Detector, resize: Resize) -> Images:
        """Return images resized and padded; see `Task`."""
        return collate_images(scale_photos(pixels, resize), model.size_divisor, model.buckets)

    def compute(
        self, network: Detector, images: Sequence[Images], settings: DetectionSettings, meta: Meta
    ) -> Any:
        """Return the instances of a batch, with views the detections; see `Task`."""
        if settings.views is None:
            return network(images[0], settings.post)
        mirrored = None if meta.keypoints is None else meta.keypoints.mirrored
        return detect_views(network, images, settings.post, settings.views.flip, mirrored)

    def decode(
        self, made: Any, images: Sequence[Images], settings: DetectionSettings, model: Detector
    ) -> list[Any]:
        """Return the detections of each image; see `Task`."""
        if settings.views is None:
            made = to_detections(made, images[0], model.mask_reach)
        return [settings.kept(one) for one in made]

    def assembler(
        self, model: Detector, settings: DetectionSettings, size: tuple[int, int]
    ) -> ObjectAssembler:
        """Return what unites the objects at the seams of tiles; see `Task`."""
        return ObjectAssembler(settings, size, model.paste_mode)

    def result(
        self,
        found: Any,
        image: np.ndarray,
        model: Detector,
        meta: Meta,
        settings: DetectionSettings,
        *,
        names: list[str],
        path: str | None,
        speed: dict[str, float],
        source_name: str,
    ) -> Result:
        """Return the objects of an image; see `Task`."""
        if settings.crf is not None and found.codes is None:
            found = refined(found, image, settings.crf, mode=model.paste_mode)
        return Result(
            found,
            image,
            names,
            path,
            speed,
            meta.category_ids,
            model.paste_mode,
            meta.keypoints,
            source_name,
        )

    def explainer(
        self, model: Detector, meta: Meta, names: Sequence[str], method: Any, target: Any
    ) -> Explainer:
        """Return what explains a detection; see `Task`."""
        return make_explainer(model, names, method, target, meta.model)

    def remarks(
        self,
        results: Sequence[Result],
        model: Detector,
        settings: DetectionSettings,
        said: set[str],
    ) -> Iterable[str]:
        """Return what limits may have cut off; see `Task`."""
        return limits_reached(results, model, settings, said)

    @property
    def datasets(self) -> Sequence[str]:
        """Formats of objects that are written; see `Task`."""
        return written_formats()

    def gather(self, formats: Sequence[str], polygons: float | None) -> Labels:
        """Return what writes objects as labels; see `Task`."""
        return Labels(formats, polygons)

    def check_formats(self, formats: Sequence[str], model: Detector, name: str) -> None:
        """Make sure that there are masks for label images; see `Task`."""
        if "labels" in formats and not model.predicts_masks:
            raise OptionError(f"formats=labels needs masks, and {name} predicts boxes alone")


TASK = DetectionTask()
