"""What training, prediction, evaluation and export ask a task: the whole difference between tasks.

A task is one folder; its module `task` holds one object of a class below `Task`. All else (loops,
run folder, checkpoints, processes, interrupts, progress) is shared, and knows no task. Add one: a
folder here with `recipe.py` and `task.py`, a line in `tasks.FOLDERS`, a model base in `models/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..data.loader import Batch, Loader
from ..data.records import Dataset, describe_faults
from ..errors import OptionError
from ..models.base import Model
from ..models.meta import Meta
from ..reports.result import Gathered, ImageResult
from ..reports.undefined import named_metric
from ..structures import Images, Resize
from .answers import Attach as Attach
from .answers import Opens as Opens
from .answers import Settings as Settings
from .answers import Study as Study
from .answers import Tracker as Tracker
from .answers import Written as Written
from .assembling import Assembler
from .evaluation import Evaluator
from .graph import GraphKind
from .label_check import LabelCheck
from .peer import Peer
from .recipe import TrainRecipe


class Task(ABC):
    """One task; the methods stand in the order in which a training and a prediction ask them.

    Attributes:
        name: its folder.
        does: what its models do, for messages: "find objects", "classify".
        recipe: the options of its trainings, with the task's own defaults.
        options: those options of `predict` and `val` that are not for every task.
        files: further files of a result by the name of their format, see `ImageResult.FILES`.
        columns: of a table of what was found, see `ImageResult.COLUMNS`.
        score: what the number is called by which epochs are compared.
        unscored: why it may be undefined.
        curves: titles and metrics of the panels of `results.png`, the main metric of each first;
            "-" before the key of one that gets better as it falls.
        shown: the metrics that one line of an epoch shows, as far as they are there.
        compared: what a comparison of models shows: metrics and what they are called; "-" before
            the key as in `curves`. The first that all of them have is what they are compared by.
        graph: what export asks; None: its models have no form in a file.
        peer: what a benchmark asks.
        doubts: what a comparison of labels with a model asks.
        tracker: what follows finds through a video; None: they are not followed.
    """

    name: ClassVar[str]
    does: ClassVar[str]
    recipe: ClassVar[type[TrainRecipe]]
    options: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[Mapping[str, tuple[str, str]]] = {}
    columns: ClassVar[Mapping[str, str]]
    score: ClassVar[str]
    unscored: ClassVar[str]
    curves: ClassVar[Mapping[str, Sequence[str]]]
    shown: ClassVar[tuple[str, ...]]
    compared: ClassVar[Mapping[str, str]]
    graph: ClassVar[GraphKind | None] = None
    peer: ClassVar[Peer] = Peer()
    doubts: ClassVar[LabelCheck]
    tracker: ClassVar[type[Tracker] | None] = None

    # The data.

    @abstractmethod
    def finding(self, model: str | Model) -> dict[str, Any]:
        """Return the options of `data.find_splits` for a model or its registered name."""

    def reading(self, recipe: Any, *, training: bool = False) -> dict[str, Any]:
        """Return the options of `data.open_dataset` beside those of `finding`.

        Args:
            recipe: of the training.
            training: for the images that are learned from, not those that are scored.
        """
        return {}

    def scoring(self, model: Any, meta: Meta, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `data.open_dataset` beside those of `finding`, for a validation.

        Args:
            model: the model.
            meta: what it says of itself.
            options: of `val`, by name; those that are None take what the model was trained with.

        Raises:
            OptionError: if an option does not fit the model.
        """
        return {}

    @abstractmethod
    def fill(self, recipe: Any, args: dict[str, Any], data: Dataset) -> tuple[dict[str, Any], str]:
        """Return the options of a new model that the data decides, and what to say of them.

        Args:
            recipe: of the training.
            args: the options that the user gave.
            data: the training images.

        Raises:
            ValueError: if model and data do not fit together.
        """

    def describe(self, recipe: Any, data: Dataset) -> dict[str, Any]:
        """Return further fields of the `Meta` of a new model, by name."""
        return {}

    @abstractmethod
    def check(self, model: Any, recipe: Any, data: Dataset, meta: Meta) -> None:
        """Make sure, before a training, that model, options and training images fit together.

        Raises:
            ValueError: if there is nothing to learn from; OptionError: if an option does not fit.
        """

    @abstractmethod
    def check_scored(self, meta: Meta, data: Dataset) -> None:
        """Make sure that the model knows all that is to be scored.

        Raises:
            ValueError: naming what it does not know.
        """

    def stages(self, recipe: Any) -> tuple[str, ...]:
        """Return the names of the runs that a training makes before its last; most make none."""
        return ()

    def check_stages(self, model: Any, name: str) -> None:
        """Make sure that a model can be trained in stages.

        Raises:
            OptionError: if it cannot.
        """

    def stage(self, recipe: Any, number: int, weights: Sequence[Path]) -> dict[str, Any]:
        """Return the options in which a stage differs from the whole training.

        Args:
            recipe: of the whole training.
            number: of the stage, from 0; the last comes behind those of `stages`.
            weights: checkpoints of the stages before it.
        """
        return {}

    def prepare_model(self, model: Any, recipe: Any) -> None:
        """Choose what of a model trains, beside the frozen stages of the backbone."""

    def before_epoch(self, model: Any, recipe: Any, epoch: int) -> None:
        """Choose what of a model trains in an epoch; it hangs on the number alone, to be repeated.

        Args:
            model: the model, whose optimiser holds all that ever trains.
            recipe: of the training.
            epoch: number of the epoch, the first being 0.
        """

    def rates(self, model: Any, recipe: Any, *, fresh: bool) -> dict[str, float]:
        """Return the learning rate of parameters by name, as a fraction of `lr`; others: 1.

        Args:
            model: the model.
            recipe: of the training.
            fresh: whether its weights are random.
        """
        own = {id(one) for part in model.parts for one in part.backbone.parameters()}
        named = model.named_parameters()
        return {name: recipe.backbone_lr for name, one in named if id(one) in own}

    def prepare_data(
        self, model: Any, parts: Sequence[Dataset], *, workers: int, rank: int, world: int
    ) -> None:
        """Compute ahead what the images need beside their pixels."""

    def before_step(self, recipe: Any, device: torch.device) -> Callable[[Images], Images] | None:
        """Return what to do with each batch of images before the loss, or None."""
        return None

    @abstractmethod
    def training_loader(
        self, recipe: Any, data: Dataset, model: Any, *, rank: int = 0, world: int = 1
    ) -> Loader:
        """Return the loader of the augmented training images."""

    @abstractmethod
    def eval_loader(
        self,
        model: Any,
        data: Dataset,
        *,
        resize: Resize | None = None,
        batch: int = 1,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return a loader over a data set in its order, without augmentation."""

    def counts(self, data: Dataset) -> str:
        """Return in a few words what the annotations hold."""
        return f"{len(data.names)} classes"

    def rows(self, model: Any, recipe: Any, data: Dataset) -> list[tuple[str, str]]:
        """Return further rows of the table that opens a training: what was chosen by itself."""
        return []

    def warnings(self, model: Any, recipe: Any, train: Dataset, val: Dataset | None) -> list[str]:
        """Return what a user should know of the data before a training."""
        return []

    def lacks(self, data: Dataset) -> list[str]:
        """Return what is wrong with the images of a validation."""
        faults = describe_faults(data)
        return [faults] if faults else []

    # Pictures of a training.

    @abstractmethod
    def draw_batch(self, path: Path, batch: Batch, data: Dataset) -> None:
        """Draw the augmented images of a batch with their targets: what the network sees."""

    @abstractmethod
    def draw_annotations(self, path: Path, data: Dataset) -> None:
        """Draw what the annotations of a data set look like."""

    # Evaluation and its report.

    @abstractmethod
    def evaluator(
        self, model: Any, meta: Meta, data: Dataset, settings: Settings, options: Mapping[str, Any]
    ) -> Evaluator:
        """Return what scores a model on a data set.

        Args:
            model: the model.
            meta: what its checkpoint says of it.
            data: the images.
            settings: of the prediction.
            options: of `val` by name, as far as they are the task's.
        """

    def study(
        self,
        model: Any,
        meta: Meta,
        options: Mapping[str, Any],
        opens: Opens,
        *,
        split: str,
        batch: int,
        resize: Any,
    ) -> Study | None:
        """Return a validation of another kind, if an option asks for it; None for the usual one.

        Args:
            model: the model itself, not one rearranged for inference.
            meta: what it says of itself.
            options: of `val`, as far as they are the task's.
            opens: opens a part of the data; see `Opens`.
            split: the part that is scored.
            batch: images that are computed at once.
            resize: how images are resized, see `resize_rule`.

        Raises:
            OptionError: if an option does not fit the model.
        """
        return None

    def comparing(self, model: Any) -> dict[str, Any]:
        """Return the options of `val` that measure what models are compared by."""
        return {}

    @abstractmethod
    def validation(self, recipe: Any) -> tuple[Settings, dict[str, Any]]:
        """Return the settings and the options of `evaluator` for the validations of a training."""

    @abstractmethod
    def save_validation(self, folder: Path, result: Any, data: Dataset, settings: Settings) -> None:
        """Write what an evaluation found, with pictures, into a run folder."""

    @abstractmethod
    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return the number by which epochs are compared, of the metrics of one; nan: none."""

    def named(self, metric: str) -> tuple[str, str] | None:
        """Return what a metric of one class measures and the class, by its key; None: of all."""
        return named_metric(metric)

    @abstractmethod
    def write_report(
        self,
        folder: Path,
        result: Any,
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
        """Write `report.html`, its figures and `metrics.json` into a run folder.

        Args:
            folder: the run folder.
            result: the evaluation.
            data: the images that were evaluated.
            settings: of the evaluation.
            title: heading of the page.
            options: options of the run by name.
            device: where the model ran.
            notes: what the reader should know first.
            origin: words that name the model on the command line; none: it has no name there.
            same: options of the evaluation, of which the advised prediction repeats some.
        """

    def repeated(self, recipe: Any) -> dict[str, Any]:
        """Return the options of the validations of a training that a prediction is to repeat."""
        return {}

    @abstractmethod
    def best_evaluation(
        self, folder: Path, recipe: Any, metrics: dict[str, float], data: Dataset
    ) -> Any:
        """Return the evaluation of the best epoch from what `save_validation` left, or None."""

    @abstractmethod
    def commands(
        self, model: str, data: Dataset, recipe: Any, written: Written | None
    ) -> list[str]:
        """Return the commands that follow a training: a prediction, a validation.

        Args:
            model: word that names the model, such as "model=runs/train".
            data: images to show it on.
            recipe: of the training.
            written: the report; None: there is none.
        """

    # Prediction.

    @abstractmethod
    def settings(
        self,
        model: Any,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> Settings:
        """Return the checked options of a prediction or a validation; see `options`.

        Args:
            model: the model: an exported graph has some of its own.
            given: options by name.
            defaults: what they are if nobody says anything: they give way to the model's.
            names: class names.

        Raises:
            OptionError: if one is wrong.
        """

    def settled(self, given: Mapping[str, Any], settings: Settings, called: str) -> list[str]:
        """Return what to say where a model has its own limits in place of those asked for.

        Args:
            given: options by name.
            settings: what became of them.
            called: the model.
        """
        return []

    def used(self, settings: Any) -> dict[str, Any]:
        """Return the settings of a validation as options by name."""
        return {}

    def adapt(self, model: Any, name: str, given: Mapping[str, Any]) -> None:
        """Change what options of `load` change in a loaded model.

        Raises:
            OptionError: if one does not fit the model.
        """

    def resize_rule(self, model: Any, imgsz: Any) -> Any:
        """Return how images are resized: the rule of the model, or that of `imgsz` in its terms.

        Raises:
            OptionError: if `imgsz` is no size.
        """
        return model.resize.to(imgsz)

    def attach(self, model: Any) -> Attach | None:
        """Return what adds to the images of a prediction what the model takes beside pixels."""
        return None

    @abstractmethod
    def collate(self, pixels: Sequence[np.ndarray], model: Any, resize: Resize) -> Images:
        """Return images in memory as network input.

        Args:
            pixels: (H, W, 3) uint8 RGB each.
            model: the model.
            resize: how they are resized.
        """

    @abstractmethod
    def compute(self, network: Any, images: Sequence[Images], settings: Any, meta: Meta) -> Any:
        """Return what a network makes of the same images at each size, on its device."""

    @abstractmethod
    def decode(self, made: Any, images: Sequence[Images], settings: Any, model: Any) -> list[Any]:
        """Return for each image, on the CPU and in its own pixels, what was found."""

    def assembler(self, model: Any, settings: Any, size: tuple[int, int]) -> Assembler:
        """Return what makes of the finds of the tiles of an image (height, width) those of it."""
        raise NotImplementedError

    @abstractmethod
    def result(
        self,
        found: Any,
        image: np.ndarray,
        model: Any,
        meta: Meta,
        settings: Any,
        *,
        names: list[str],
        path: str | None,
        speed: dict[str, float],
        source_name: str,
    ) -> ImageResult:
        """Return what a prediction gives to people; see `ImageResult`."""

    def explainer(
        self, model: Any, meta: Meta, names: Sequence[str], method: Any, target: Any
    ) -> Any:
        """Return what finds where the evidence for a result lies; see `evidence.Explainer`.

        Args:
            model: the model itself, not one rearranged for inference.
            meta: what it says of itself.
            names: class names.
            method: see `nn.cam.METHODS`.
            target: what is to be explained, as the user names it; None: the best find.

        Raises:
            OptionError: if the method or the target does not fit the model.
        """
        raise OptionError(f"explain is not there for models that {self.does}")

    def remarks(
        self, results: Sequence[Any], model: Any, settings: Any, said: set[str]
    ) -> Iterable[str]:
        """Return warnings on results, such as limits that were reached, each kind once.

        Args:
            results: results of one or several images.
            model: the model.
            settings: of the prediction.
            said: kinds that were said before; a new one is added.
        """
        return ()

    @property
    def datasets(self) -> Sequence[str]:
        """Formats in which all results together may be written as labels."""
        return ()

    def gather(self, formats: Sequence[str], polygons: float | None) -> Gathered:
        """Return what collects results and writes them in some of `datasets`; see `predict`."""
        raise NotImplementedError

    def check_formats(self, formats: Sequence[str], model: Any, name: str) -> None:
        """Make sure that a model has what the further files of its results hold.

        Raises:
            OptionError: if it does not.
        """
