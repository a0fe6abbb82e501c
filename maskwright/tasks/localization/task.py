"""Localization: what training and prediction ask this task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.batches import Batch, Loader, load_batches
from ...data.checking.verdict import class_counts, no_objects, unlike_classes
from ...data.pixels.resizing import collate_images
from ...data.records import Dataset
from ...errors import OptionError, first_few, require_known
from ...models.base import Model
from ...models.localization.base import Localizer
from ...models.meta import Meta
from ...reports.next_command import predict_command, val_command
from ...structures import Images, Places, Resize
from ..base import Settings, Task, Written
from ..evaluation import Evaluator
from ..evidence import Explainer
from ..keypoints import check_same_keypoints, own_keypoints, reads_keypoints
from ..scaling import scale_photos
from . import pictures
from .batches import Augment, LocationBatches, square
from .evaluate import BoxEvaluator, KeypointEvaluator, LocationEvaluation, fitness, to_places
from .explain import make_explainer
from .graph import GRAPHS
from .label_check import LocationCheck
from .objects import check_single
from .recipe import LocalizationRecipe, pair_of
from .report import load_places, save_places, write_location_report
from .result import LocationResult, Place


class LocalizationTask(Task):
    """The one object of an image: its class and box, or its keypoints."""

    name = "localization"
    does = LocalizationRecipe.DOES
    recipe = LocalizationRecipe
    options = ("explain", "explain_target")
    columns = LocationResult.COLUMNS
    graph = GRAPHS
    doubts = LocationCheck()
    score = "localized top-1 (for keypoints 1 / (1 + NME))"
    unscored = (
        "the val images hold no object (with keypoints: none that is labelled), so there is no "
        "place to be right or wrong"
    )
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "Localized": ("box/top1_loc", "box/gt_known", "box/IoU"),
        "Class": ("class/top1",),
        "Keypoints": ("keypoints/PCK", "keypoints/AUC", "keypoints/NME"),
    }
    shown = ("box/top1_loc", "box/IoU", "class/top1", "keypoints/NME", "keypoints/PCK")
    compared: ClassVar[Mapping[str, str]] = {
        "box/top1_loc": "localized top-1",
        "box/IoU": "box IoU",
        "class/top1": "top-1",
        "-keypoints/NME": "NME",
        "keypoints/PCK": "PCK",
    }

    def finding(self, model: str | Model) -> dict[str, Any]:
        """Return whether keypoints are read; see `Task`."""
        return {"keypoints": reads_keypoints(model)}

    def scoring(self, model: Any, meta: Meta, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the classes of the model, which give the labels; see `Task`."""
        return {"names": [name or f"class {i}" for i, name in enumerate(meta.names)]}

    def fill(
        self, recipe: LocalizationRecipe, args: dict[str, Any], data: Dataset
    ) -> tuple[dict[str, Any], str]:
        """Return the number of keypoints; see `Task`."""
        advice = f"; for boxes take a model such as {LocalizationRecipe.model}"
        skeleton = own_keypoints(recipe, args, data, advice)
        return ({} if skeleton is None else {"num_keypoints": len(skeleton)}), ""

    def describe(self, recipe: LocalizationRecipe, data: Dataset) -> dict[str, Any]:
        """Return the keypoints and how they are scored; see `Task`."""
        keypoints = self.finding(recipe.model)["keypoints"]
        pair = pair_of(recipe.nme_pair)
        extra = {"nme_limit": recipe.nme_limit, "nme_pair": pair and list(pair)}
        return {
            "keypoints": data.skeleton if keypoints else None,
            "extra": extra if keypoints else {},
        }

    def check(
        self, model: Localizer, recipe: LocalizationRecipe, data: Dataset, meta: Meta
    ) -> None:
        """Make sure that there are places to learn, and one an image if asked for; see `Task`."""
        check_same_keypoints(recipe, data, meta)
        if problem := no_objects(data):
            raise ValueError(f"there is no place to learn: {problem}")
        if recipe.nme_pair is not None and not model.num_keypoints:
            raise OptionError(
                f"nme_pair={recipe.nme_pair} is about keypoints, and {recipe.model} finds none"
            )
        if model.num_keypoints:
            pair = pair_of(recipe.nme_pair)
            KeypointEvaluator(data, meta.keypoints, pair, recipe.nme_limit)
        if recipe.several == "error":
            check_single(data)

    def check_scored(self, meta: Meta, data: Dataset) -> None:
        """Make sure that data and model have the same labels; see `Task`."""
        require_known(data.names, meta.names, f"{data.source} has classes")

    def training_loader(
        self,
        recipe: LocalizationRecipe,
        data: Dataset,
        model: Localizer,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return the loader of the augmented training images; see `Task`."""
        augment = Augment(
            flip=recipe.flip,
            vflip=recipe.vflip,
            rotate90=recipe.rotate90,
            scale_jitter=recipe.scale_jitter,
            photometric=recipe.photometric,
        )
        return load_batches(
            _batches(model, data, model.resize, augment),
            batch=recipe.batch,
            seed=recipe.seed,
            workers=recipe.workers,
            shuffle=True,
            rank=rank,
            world=world,
        )

    def eval_loader(
        self,
        model: Localizer,
        data: Dataset,
        *,
        resize: Resize | None = None,
        batch: int = 1,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return a loader over a data set in its order; see `Task`."""
        return load_batches(
            _batches(model, data, resize or model.resize, None),
            batch=batch,
            seed=0,
            workers=workers,
            shuffle=False,
            rank=rank,
            world=world,
        )

    def counts(self, data: Dataset) -> str:
        """Return how many images have an object; see `Task`."""
        there = len(np.unique(data.classes_of_images()[0]))
        names = first_few(data.names, 5)
        return (
            f"{there} images with an object, {len(data) - there} without; {len(data.names)} "
            f"classes: {names}"
        )

    def warnings(
        self, model: Localizer, recipe: LocalizationRecipe, train: Dataset, val: Dataset | None
    ) -> list[str]:
        """Return what is unlike between training and validation, or crowded; see `Task`."""
        found = []
        if val is not None:
            found = [no_objects(val), unlike_classes(class_counts(train), class_counts(val))]
            if train.skeleton is not None and not val.has_keypoints:
                found.append(f"{val.source} has no keypoint that is labelled: none is scored")
        several = sum(int((~train[i].crowd).sum()) > 1 for i in range(len(train)))
        if several:
            found.append(
                f"{several} of {len(train)} training images have several objects, of which the "
                "largest is learned (several=largest); a detector finds all"
            )
        return [text for text in found if text]

    def draw_batch(self, path: Path, batch: Batch, data: Dataset) -> None:
        """Draw images with the object that counts; see `Task`."""
        pictures.save_batch(path, batch, data)

    def draw_annotations(self, path: Path, data: Dataset) -> None:
        """Draw the first images; see `Task`."""
        pictures.save_annotations(path, data, keypoints=data.skeleton is not None)

    def evaluator(
        self,
        model: Localizer,
        meta: Meta,
        data: Dataset,
        settings: Settings,
        options: Mapping[str, Any],
    ) -> Evaluator:
        """Return what scores places; see `Task`."""
        if not model.num_keypoints:
            return BoxEvaluator(data)
        pair = meta.extra.get("nme_pair")
        limit = float(meta.extra.get("nme_limit", LocalizationRecipe.nme_limit))
        around = _around(model)
        return KeypointEvaluator(data, meta.keypoints, pair_of(pair), limit, around=around)

    def validation(self, recipe: LocalizationRecipe) -> tuple[Settings, dict[str, Any]]:
        """Return no settings: how keypoints are scored stands in the model; see `Task`."""
        return Settings(), {}

    def save_validation(
        self, folder: Path, result: LocationEvaluation, data: Dataset, settings: Settings
    ) -> None:
        """Write metrics, places and pictures of the worst; see `Task`."""
        save_places(folder, result, data)

    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return localized top-1, or 1 / (1 + NME); see `fitness`."""
        return fitness(metrics)

    def write_report(
        self,
        folder: Path,
        result: LocationEvaluation,
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
        command = predict_command(origin, data, same)
        lines = write_location_report(
            folder,
            result,
            data,
            title=title,
            command=command,
            options=options,
            device=device,
            notes=notes,
        )
        return Written(lines, command, result)

    def best_evaluation(
        self, folder: Path, recipe: LocalizationRecipe, metrics: dict[str, float], data: Dataset
    ) -> LocationEvaluation | None:
        """Return the evaluation of the best epoch; see `Task`."""
        return load_places(folder, metrics)

    def commands(
        self, model: str, data: Dataset, recipe: LocalizationRecipe, written: Written | None
    ) -> list[str]:
        """Return the prediction and the validation that follow a training; see `Task`."""
        return [predict_command([model], data, {}), val_command(model, recipe.data, {})]

    def settings(
        self,
        model: Localizer,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> Settings:
        """Return the settings of a prediction, which has none of its own; see `Task`."""
        return Settings()

    def resize_rule(self, model: Localizer, imgsz: Any) -> Resize:
        """Return the rule of the model, or another side of the square input; see `Task`."""
        if imgsz is None:
            return model.resize
        text = str(imgsz).strip()
        if not text.isdigit() or not 1 <= int(text) <= 4096:
            raise OptionError(
                f"imgsz is the side of the square input of a localizer, as in imgsz={model.side}; "
                f"got {imgsz!r}"
            )
        return Resize(None, int(text), None, antialias=model.resize.antialias)

    def collate(self, pixels: Sequence[np.ndarray], model: Localizer, resize: Resize) -> Images:
        """Return images scaled and padded to a square; see `Task`."""
        side = square(resize)
        return collate_images(scale_photos(pixels, resize), 32, [(side, side)])

    def compute(
        self, network: Localizer, images: Sequence[Images], settings: Settings, meta: Meta
    ) -> Any:
        """Return what the network says; see `Task`."""
        return network(images[0])

    def decode(
        self, made: Places, images: Sequence[Images], settings: Settings, model: Localizer
    ) -> list[Place]:
        """Return the place in each image; see `Task`."""
        return to_places(made, images[0])

    def result(
        self,
        found: Place,
        image: np.ndarray,
        model: Localizer,
        meta: Meta,
        settings: Settings,
        *,
        names: list[str],
        path: str | None,
        speed: dict[str, float],
        source_name: str,
    ) -> LocationResult:
        """Return the object of an image; see `Task`."""
        return LocationResult(found, image, names, path, speed, meta.keypoints, source_name)

    def explainer(
        self, model: Any, meta: Meta, names: Sequence[str], method: Any, target: Any
    ) -> Explainer:
        """Return what explains the class of an image; see `Task`."""
        return make_explainer(model, names, method, target, meta.model)


def _batches(
    model: Localizer, data: Dataset, resize: Resize, augment: Augment | None
) -> LocationBatches:
    return LocationBatches(
        data,
        resize,
        augment,
        keypoints=model.num_keypoints > 0,
        around=_around(model),
    )


def _around(model: Localizer) -> bool:
    """Whether a model sees the surroundings of an object instead of the image."""
    return getattr(model, "region", "image") == "object"


TASK = LocalizationTask()
