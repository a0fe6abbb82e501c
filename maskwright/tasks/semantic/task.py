"""Semantic segmentation: what training and prediction ask this task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.batches import Batch, Loader, load_batches
from ...data.checking.maps import never_shown, nothing_shown
from ...data.maps.batches import MapBatches
from ...data.maps.counts import median_weights
from ...data.maps.samples import MapAugment, padding_share
from ...data.pixels.resizing import collate_images
from ...data.records import Dataset
from ...models.base import Model
from ...models.meta import Meta
from ...models.semantic.base import Segmenter
from ...nn.semantic.losses import make_loss
from ...reports.next_command import predict_command, val_command
from ...structures import Images, Resize, Tiling
from ..base import Opens, Settings, Study, Task, Written
from ..crf import SEARCH
from ..evidence import Explainer
from ..scaling import scale_photos
from . import pictures
from .crf import refined
from .crf_search import crf_study
from .evaluate import (
    SemanticEvaluation,
    SemanticEvaluator,
    class_colors,
    class_names,
    fitness,
    known_classes,
    named,
)
from .explain import make_explainer
from .graph import GRAPHS
from .label_check import SemanticCheck
from .recipe import SemanticRecipe
from .report import write_report
from .result import SemanticResult
from .settings import SemanticSettings, make_settings
from .tiling import MapAssembler
from .views import look, to_maps

MUCH_PADDING = 0.5  # share of the windows from which on a user is told


def augment_of(recipe: SemanticRecipe) -> MapAugment:
    """Return what chance changes in training images."""
    return MapAugment(
        crop=recipe.crop,
        scale=recipe.scale_jitter,
        flip=recipe.flip,
        vflip=recipe.vflip,
        rotate90=recipe.rotate90,
        photometric=recipe.photometric,
        class_limit=recipe.class_limit,
        tile=recipe.tile,
    )


class SemanticTask(Task):
    """A class for every pixel."""

    name = "semantic"
    does = SemanticRecipe.DOES
    recipe = SemanticRecipe
    options = (
        *("tta", "slide", "crf", "probs", "boundary", "explain", "explain_target"),
        *("tile", "overlap", "tile_levels"),
    )
    files, columns = SemanticResult.FILES, SemanticResult.COLUMNS
    graph = GRAPHS
    doubts = SemanticCheck()
    score = "mean IoU"
    unscored = "the val images have no labelled pixel, so there is no IoU"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "Mean IoU": ("mIoU", "fwIoU", "dice"),
        "Accuracy": ("pixel_accuracy", "mean_accuracy"),
        "Borders": ("boundary/IoU", "boundary/F"),
    }
    shown = ("mIoU", "pixel_accuracy", "boundary/IoU")
    compared: ClassVar[Mapping[str, str]] = {
        "mIoU": "mean IoU",
        "pixel_accuracy": "pixel accuracy",
        "boundary/IoU": "boundary IoU",
        "boundary/F": "boundary F",
    }

    def finding(self, model: str | Model) -> dict[str, Any]:
        """Return that images have label maps; see `Task`."""
        return {"records": "maps"}

    def reading(self, recipe: SemanticRecipe, *, training: bool = False) -> dict[str, Any]:
        """Return the values that are ignored; see `Task`."""
        return {"ignore": recipe.ignore or ()}

    def scoring(self, model: Any, meta: Meta, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the classes of the model, and the values that it was told to ignore."""
        return {"names": class_names(meta), "ignore": meta.extra.get("ignore", ())}

    def fill(
        self, recipe: SemanticRecipe, args: dict[str, Any], data: Dataset
    ) -> tuple[dict[str, Any], str]:
        """Return the size of images that are smaller than the model's own; see `Task`."""
        if "imgsz" in args:
            return {}, ""
        shorts = data.sizes.min(1).values
        short = int(shorts.float().median()) if len(shorts) else 0
        own = SemanticRecipe.SHORT
        if not 0 < short < own:  # 0: only the files know
            return {}, ""
        words = f"images of a short side of {short} pixels are not enlarged"
        return {"imgsz": (short, 4 * short)}, words

    def describe(self, recipe: SemanticRecipe, data: Dataset) -> dict[str, Any]:
        """Return the values that are ignored, and the colours of classes; see `Task`."""
        extra: dict[str, Any] = {"ignore": list(recipe.ignore)} if recipe.ignore else {}
        if any(data.colors):
            extra["colors"] = [color and list(color) for color in data.colors]
        return {"extra": extra}

    def check(self, model: Segmenter, recipe: SemanticRecipe, data: Dataset, meta: Meta) -> None:
        """Make sure that the loss is one, and that there are classes to tell apart; see `Task`."""
        make_loss(recipe.loss)
        if recipe.tile is not None:
            Tiling(recipe.tile).require(model.resize, model.size_divisor)
        if len(data.names) < 2:
            raise ValueError(
                f"data={recipe.data} has pixels of one class only, {data.names[0]!r}, and a "
                "segmenter needs two to tell apart: give the background a number of its own"
            )
        known_classes(meta, data)
        if problem := nothing_shown(data):
            raise ValueError(f"there is nothing to learn from: {problem}")

    def check_scored(self, meta: Meta, data: Dataset) -> None:
        """Make sure that the model knows all classes; see `Task`."""
        known_classes(meta, data)

    def warnings(
        self, model: Segmenter, recipe: SemanticRecipe, train: Dataset, val: Dataset | None
    ) -> list[str]:
        """Return what cannot be learned, and how much of windows lies beside images; see `Task`."""
        unlike = None if val is None else never_shown(train, val)
        found = [] if unlike is None else [unlike]
        part = augment_of(recipe).part
        sizes = [part(train[i].size) for i in range(len(train)) if min(train[i].size)]
        if recipe.crop is None or not sizes:
            return found
        size = (
            int(np.median([one[0] for one in sizes])),
            int(np.median([one[1] for one in sizes])),
        )
        share = padding_share(size, model.resize, augment_of(recipe))
        if share < MUCH_PADDING:
            return found
        height, width = model.resize.target_size(*size)
        crop = recipe.crop if isinstance(recipe.crop, int) else " x ".join(map(str, recipe.crop))
        return [
            *found,
            f"{share:.0%} of what is trained is padding: images of {height} x {width} pixels "
            f"(imgsz={recipe.imgsz}), scaled by {recipe.scale_jitter[0]:g} to "
            f"{recipe.scale_jitter[1]:g}, do not fill windows of crop={crop}; make crop smaller or "
            "imgsz larger",
        ]

    def prepare_model(self, model: Segmenter, recipe: SemanticRecipe) -> None:
        """Choose the loss; see `Task`."""
        model.criterion = make_loss(recipe.loss)

    def rates(self, model: Segmenter, recipe: SemanticRecipe, *, fresh: bool) -> dict[str, float]:
        """Return the learning rate of the backbone; that of random weights is whole; see `Task`."""
        if fresh:
            return {}
        names = (name for name, _ in model.named_parameters())
        return {n: recipe.backbone_lr for n in names if n.startswith("network.backbone.")}

    def training_loader(
        self,
        recipe: SemanticRecipe,
        data: Dataset,
        model: Segmenter,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return the loader of the augmented training images; see `Task`."""
        weights = None
        if recipe.balance == "median":
            weights = median_weights(data, enabled=rank == 0)
        return load_batches(
            MapBatches(
                data, model.resize, augment_of(recipe), divisor=model.size_divisor, weights=weights
            ),
            batch=recipe.batch,
            seed=recipe.seed,
            workers=recipe.workers,
            shuffle=True,
            rank=rank,
            world=world,
        )

    def eval_loader(
        self,
        model: Segmenter,
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
            MapBatches(
                data,
                resize or model.resize,
                None,
                divisor=model.size_divisor,
                buckets=model.buckets,
            ),
            batch=batch,
            seed=0,
            workers=workers,
            shuffle=False,
            rank=rank,
            world=world,
        )

    def draw_batch(self, path: Path, batch: Batch, data: Dataset) -> None:
        """Draw images with their label maps; see `Task`."""
        pictures.save_batch(path, batch, data)

    def draw_annotations(self, path: Path, data: Dataset) -> None:
        """Draw the shares of the classes and samples; see `Task`."""
        pictures.save_annotations(path, data)

    def evaluator(
        self,
        model: Segmenter,
        meta: Meta,
        data: Dataset,
        settings: Settings,
        options: Mapping[str, Any],
    ) -> SemanticEvaluator:
        """Return what scores label maps; see `Task`."""
        assert isinstance(settings, SemanticSettings)

        def labels(network: Any, batches: Sequence[Batch]) -> list[Any]:
            images = [batch.images for batch in batches]
            made = look(network, images, settings)
            found = to_maps(made, settings)
            if settings.crf is not None:
                photos = (data.photo(index) for index in batches[0].indices)
                found = [refined(*pair, settings.crf) for pair in zip(found, photos, strict=True)]
            return [one.labels for one in found]

        return SemanticEvaluator(data, meta, labels, boundary=bool(options.get("boundary")))

    def study(
        self,
        model: Segmenter,
        meta: Meta,
        options: Mapping[str, Any],
        opens: Opens,
        *,
        split: str,
        batch: int,
        resize: Any,
    ) -> Study | None:
        """Search the parameters of the CRF, if `crf=search` asks for it; see `Task`."""
        if options.get("crf") != SEARCH:
            return None
        data = opens(split, **self.finding(model), **self.scoring(model, meta, {}))
        return crf_study(model, data, resize)

    def comparing(self, model: Segmenter) -> dict[str, Any]:
        """Return that borders count; see `Task`."""
        return {"boundary": True}

    def validation(self, recipe: SemanticRecipe) -> tuple[SemanticSettings, dict[str, Any]]:
        """Return the settings of validations in a training; see `Task`."""
        tiling = None if recipe.tile is None else Tiling(recipe.tile)
        return SemanticSettings(tiling=tiling), {"boundary": recipe.val_boundary}

    def save_validation(
        self, folder: Path, result: SemanticEvaluation, data: Dataset, settings: Settings
    ) -> None:
        """Write metrics and counts; see `Task`."""
        pictures.save_validation(folder, result, data)

    def named(self, metric: str) -> tuple[str, str] | None:
        """Tell the metrics of one class from the others; see `Task`."""
        return named(metric)

    def write_report(
        self,
        folder: Path,
        result: SemanticEvaluation,
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
        """Return the mean IoU; see `fitness`."""
        return fitness(metrics)

    def repeated(self, recipe: SemanticRecipe) -> dict[str, Any]:
        """Return the tiles in which images are looked at, if they are; see `Task`."""
        return {} if recipe.tile is None else {"tile": recipe.tile}

    def best_evaluation(
        self, folder: Path, recipe: SemanticRecipe, metrics: dict[str, float], data: Dataset
    ) -> SemanticEvaluation | None:
        """Return the evaluation of the best epoch; see `Task`."""
        return pictures.load_validation(folder, metrics, data.names)

    def commands(
        self, model: str, data: Dataset, recipe: SemanticRecipe, written: Written | None
    ) -> list[str]:
        """Return the prediction and the validation that follow a training; see `Task`."""
        own = self.repeated(recipe)
        return [predict_command([model], data, own), val_command(model, recipe.data, own)]

    def settings(
        self,
        model: Any,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> SemanticSettings:
        """Return how often an image is looked at, and what comes after; see `Task`."""
        return make_settings(given, defaults)

    def used(self, settings: SemanticSettings) -> dict[str, Any]:
        """Return the settings as options; see `Task`."""
        return settings.used()

    def collate(self, pixels: Sequence[np.ndarray], model: Segmenter, resize: Resize) -> Images:
        """Return photos scaled and padded; see `Task`."""
        return collate_images(scale_photos(pixels, resize), model.size_divisor, model.buckets)

    def compute(
        self, network: Any, images: Sequence[Images], settings: SemanticSettings, meta: Meta
    ) -> Any:
        """Return the logits of the network at each size and part; see `Task`."""
        return look(network, images, settings)

    def decode(
        self, made: Any, images: Sequence[Images], settings: SemanticSettings, model: Any
    ) -> list[Any]:
        """Return the classes of the pixels of the originals; see `Task`."""
        return to_maps(made, settings)

    def assembler(
        self, model: Any, settings: SemanticSettings, size: tuple[int, int]
    ) -> MapAssembler:
        """Return what blends the probabilities of tiles; see `Task`."""
        return MapAssembler(settings, size)

    def result(
        self,
        found: Any,
        image: np.ndarray,
        model: Any,
        meta: Meta,
        settings: SemanticSettings,
        *,
        names: list[str],
        path: str | None,
        speed: dict[str, float],
        source_name: str,
    ) -> SemanticResult:
        """Return the classes of the pixels of an image; see `Task`."""
        if settings.crf is not None:
            found = refined(found, image, settings.crf)
        probs = found.probs if settings.probs else None
        return SemanticResult(
            found.labels,
            image,
            names,
            path,
            speed,
            probs,
            source_name,
            colors=class_colors(meta),
        )

    def explainer(
        self, model: Segmenter, meta: Meta, names: Sequence[str], method: Any, target: Any
    ) -> Explainer:
        """Return what shows where the evidence of a class lies; see `Task`."""
        return make_explainer(model, names, method, target, meta.model)


TASK = SemanticTask()
