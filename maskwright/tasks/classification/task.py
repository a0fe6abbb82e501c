"""Classification: what training and prediction ask this task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.batches import Batch, Loader, load_batches
from ...data.label_batches import LabelBatches
from ...data.records import Dataset
from ...errors import OptionError
from ...models.base import Model
from ...models.classification.base import Classifier
from ...models.meta import Meta
from ...reports.next_command import predict_command, val_command
from ...structures import Images
from ..base import Opens, Settings, Study, Task, Written
from ..evidence import Explainer, check_method
from . import pictures
from .evaluate import (
    ClassificationEvaluation,
    ClassificationEvaluator,
    class_names,
    fitness,
    named,
    true_labels,
)
from .explain import make_explainer
from .freezing import frozen_stages, learning_rates
from .graph import GRAPHS
from .label_check import ClassificationCheck
from .recipe import ClassificationRecipe
from .report import write_report
from .result import ClassResult
from .settings import ClassificationSettings, Cut, cut_rule, make_settings
from .training_data import choices, training_loader, warn_of
from .views import collate, look
from .weak import weak_scores
from .weak_report import write_weak


class ClassificationTask(Task):
    """The class of an image, or its classes."""

    name = "classification"
    does = ClassificationRecipe.DOES
    recipe = ClassificationRecipe
    options = ("conf", "topk", "tta", "explain", "explain_target", "localize")
    columns = ClassResult.COLUMNS
    graph = GRAPHS
    doubts = ClassificationCheck()
    score = "accuracy"
    unscored = "the val images have no labels, so there is no accuracy"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "Accuracy": ("top1", "top5", "balanced_accuracy"),
        "Several labels": ("mAP", "F1", "exact"),
        "F1 of the classes": ("macro/F1", "macro/precision", "macro/recall"),
        "Log loss": ("-nll",),
    }
    shown = ("top1", "top5", "mAP", "macro/F1", "nll")
    compared: ClassVar[Mapping[str, str]] = {
        "top1": "top-1",
        "top5": "top-5",
        "mAP": "mAP",
        "macro/F1": "F1",
        "-nll": "log loss",
    }

    def finding(self, model: str | Model) -> dict[str, Any]:
        """Return that images have labels; see `Task`."""
        return {"records": "labels"}

    def fill(
        self, recipe: ClassificationRecipe, args: dict[str, Any], data: Dataset
    ) -> tuple[dict[str, Any], str]:
        """Return whether images have several labels; see `Task`."""
        if data.multilabel and "multilabel" not in args:
            return {"multilabel": True}, "several labels an image"
        return {}, ""

    def check(
        self, model: Classifier, recipe: ClassificationRecipe, data: Dataset, meta: Meta
    ) -> None:
        """Make sure that there is something to tell apart; see `Task`."""
        counts = data.images_per_class()
        known = int((counts > 0).sum())
        if known < 2 and not model.multilabel:
            mend = "add images of others, such as a folder of whatever else there is"
            if len(data.names) > 1:
                mend = (
                    f"add images of the other {len(data.names) - known} of its classes (some may "
                    "be held out for validation: val_fraction=0 trains on all)"
                )
            raise ValueError(
                f"data={recipe.data} has images of {known} class only to train on, and a "
                f"classifier needs two to tell apart: {mend}"
            )
        if model.multilabel and recipe.label_smoothing:
            raise OptionError(
                f"label_smoothing={recipe.label_smoothing} divides one label among all classes: "
                "with several labels an image leave it out"
            )
        if model.multilabel and not counts.any():
            raise ValueError(f"data={recipe.data}: no image has a label")
        true_labels(data, class_names(meta), model.multilabel)
        if meta.extra.get("random_start") and recipe.unfreeze_at:
            raise OptionError(
                "unfreeze_at lets trained stages wait, but these weights are random: leave it out, "
                "or give weights"
            )
        stages = len(model.network.stages())
        if recipe.freeze > stages:
            raise OptionError(f"freeze={recipe.freeze}: {meta.model} has {stages} stages")

    def check_scored(self, meta: Meta, data: Dataset) -> None:
        """Make sure that the model knows all classes; see `Task`."""
        true_labels(data, class_names(meta), True)

    def prepare_model(self, model: Classifier, recipe: ClassificationRecipe) -> None:
        """Let all train that ever does, so that the optimiser holds it; see `Task`."""
        if recipe.unfreeze_at:
            model.fix(())

    def before_epoch(self, model: Classifier, recipe: ClassificationRecipe, epoch: int) -> None:
        """Let the stages wait whose turn has not come; see `Task`."""
        if recipe.unfreeze_at:
            model.fix(range(frozen_stages(recipe, len(model.network.stages()), epoch)))

    def rates(
        self, model: Classifier, recipe: ClassificationRecipe, *, fresh: bool
    ) -> dict[str, float]:
        """Return the learning rates of the stages; see `Task`."""
        return learning_rates(model, recipe, fresh=fresh)

    def training_loader(
        self,
        recipe: ClassificationRecipe,
        data: Dataset,
        model: Classifier,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return the loader of the augmented training images; see `Task`."""
        return training_loader(recipe, data, model, rank=rank, world=world)

    def eval_loader(
        self,
        model: Classifier,
        data: Dataset,
        *,
        resize: Any = None,
        batch: int = 1,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return a loader over a data set in its order; see `Task`."""
        cut = resize or Cut(model.preprocess)
        return load_batches(
            LabelBatches(data, cut.preprocess, None, multilabel=True, ten_crop=cut.ten),
            batch=batch,
            seed=0,
            workers=workers,
            shuffle=False,
            rank=rank,
            world=world,
        )

    def counts(self, data: Dataset) -> str:
        """Return how many images of which classes; see `Task`."""
        each = data.images_per_class()
        names = ", ".join(
            f"{name} {count}" for name, count in zip(data.names[:5], each.tolist(), strict=False)
        )
        return f"{len(data.names)} classes: {names}{', ...' if len(data.names) > 5 else ''}"

    def rows(
        self, model: Classifier, recipe: ClassificationRecipe, data: Dataset
    ) -> list[tuple[str, str]]:
        """Return what was chosen by itself; see `Task`."""
        return choices(recipe, data)

    def warnings(
        self, model: Classifier, recipe: ClassificationRecipe, train: Dataset, val: Dataset | None
    ) -> list[str]:
        """Return what is unlike between training and validation; see `Task`."""
        return warn_of(train, val)

    def draw_batch(self, path: Path, batch: Batch, data: Dataset) -> None:
        """Draw images with their labels; see `Task`."""
        pictures.save_batch(path, batch, data)

    def draw_annotations(self, path: Path, data: Dataset) -> None:
        """Draw numbers and samples of the classes; see `Task`."""
        pictures.save_labels(path, data)

    def evaluator(
        self,
        model: Classifier,
        meta: Meta,
        data: Dataset,
        settings: Settings,
        options: Mapping[str, Any],
    ) -> ClassificationEvaluator:
        """Return what scores answers; see `Task`."""
        assert isinstance(settings, ClassificationSettings)
        return ClassificationEvaluator(model, data, meta, settings)

    def study(
        self,
        model: Classifier,
        meta: Meta,
        options: Mapping[str, Any],
        opens: Opens,
        *,
        split: str,
        batch: int,
        resize: Cut,
    ) -> Study | None:
        """Return how well heat maps find places, if `localize` asks for it; see `Task`."""
        if options.get("localize") is None:
            return None
        method, names = options["localize"], class_names(meta)
        check_method(method, model, meta.model, option="localize")
        if options.get("tta") is not None:
            raise OptionError(
                f"tta={options['tta']}: heat maps look at an image once: leave it out"
            )
        data = opens(split, names=names)
        found = weak_scores(
            model,
            method,
            data,
            lambda: opens("train", names=names),
            side=resize.preprocess.crop,
            batch=batch,
        )

        def write(folder: Path, title: str, options: Mapping[str, Any], device: str) -> list[str]:
            return write_weak(folder, found, data, title=title, options=options, device=device)

        return Study(found.metrics, write)

    def validation(
        self, recipe: ClassificationRecipe
    ) -> tuple[ClassificationSettings, dict[str, Any]]:
        """Return the settings of validations in a training; see `Task`."""
        tta = None if recipe.val_tta == "none" else recipe.val_tta
        return ClassificationSettings(topk=recipe.topk, tta=tta), {}

    def save_validation(
        self, folder: Path, result: ClassificationEvaluation, data: Dataset, settings: Settings
    ) -> None:
        """Write metrics, answers and pictures of them; see `Task`."""
        pictures.save_validation(folder, result, data)

    def named(self, metric: str) -> tuple[str, str] | None:
        """Tell the metrics of one class from the others; see `Task`."""
        return named(metric)

    def write_report(
        self,
        folder: Path,
        result: ClassificationEvaluation,
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
        found, lines = write_report(
            folder,
            result,
            data,
            title=title,
            command=command,
            options=options,
            device=device,
            notes=notes,
        )
        return Written(lines, command, found)

    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return the accuracy; see `fitness`."""
        return fitness(metrics)

    def repeated(self, recipe: ClassificationRecipe) -> dict[str, Any]:
        """Return how often an image is looked at, if it is not once; see `Task`."""
        return {} if recipe.val_tta == "none" else {"tta": recipe.val_tta}

    def best_evaluation(
        self, folder: Path, recipe: ClassificationRecipe, metrics: dict[str, float], data: Dataset
    ) -> ClassificationEvaluation | None:
        """Return the evaluation of the best epoch; see `Task`."""
        settings, _ = self.validation(recipe)
        return pictures.load_predictions(folder / pictures.PREDICTIONS, data.names, settings, data)

    def commands(
        self, model: str, data: Dataset, recipe: ClassificationRecipe, written: Written | None
    ) -> list[str]:
        """Return the prediction and the validation that follow a training; see `Task`."""
        own = self.repeated(recipe)
        predict = predict_command([model], data, own)
        if written is not None and written.command is not None:
            predict = written.command
        topk = {} if recipe.topk == ClassificationRecipe.topk else {"topk": recipe.topk}
        return [predict, val_command(model, recipe.data, {**own, **topk})]

    def settings(
        self,
        model: Any,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> ClassificationSettings:
        """Return what is shown, and how often an image is looked at; see `Task`."""
        return make_settings(model, given, defaults, names)

    def used(self, settings: ClassificationSettings) -> dict[str, Any]:
        """Return the settings as options; see `Task`."""
        return {"topk": settings.topk, "tta": settings.tta}

    def resize_rule(self, model: Any, imgsz: Any) -> Cut:
        """Return how a photo is cut; see `Task`."""
        return cut_rule(model, imgsz)

    def collate(self, pixels: Sequence[np.ndarray], model: Any, resize: Any) -> Images:
        """Return photos scaled and cut; see `Task`."""
        return collate(pixels, resize)

    def compute(
        self, network: Any, images: Sequence[Images], settings: ClassificationSettings, meta: Meta
    ) -> Any:
        """Return the logits of a batch; see `Task`."""
        return look(network, network, images[0], settings.tta)

    def decode(
        self, made: Any, images: Sequence[Images], settings: ClassificationSettings, model: Any
    ) -> list[Any]:
        """Return the probabilities of each image; see `Task`."""
        return list(model.probabilities(made).cpu())

    def result(
        self,
        found: Any,
        image: np.ndarray,
        model: Any,
        meta: Meta,
        settings: ClassificationSettings,
        *,
        names: list[str],
        path: str | None,
        speed: dict[str, float],
        source_name: str,
    ) -> ClassResult:
        """Return the classes of an image; see `Task`."""
        return ClassResult(
            found,
            image,
            names,
            path,
            speed,
            model.multilabel,
            settings.conf,
            settings.topk,
            source_name,
            floors=settings.floors,
        )

    def explainer(
        self, model: Classifier, meta: Meta, names: Sequence[str], method: Any, target: Any
    ) -> Explainer:
        """Return what shows where the evidence of a class lies; see `Task`."""
        return make_explainer(model, names, method, target, meta.model)


TASK = ClassificationTask()
