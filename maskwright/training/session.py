"""What a training run is made of, put together from its recipe, and saved and restored.

`Place` is where the training stands; everything that decides what comes next is either in it, in
the recipe or in a tensor of the checkpoint, so that a resumed run goes on as if never stopped.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from ..data.checking.verdict import no_masks, no_objects
from ..data.discover import find_splits, open_dataset
from ..data.holdout import hold_out
from ..data.loader import Loader, make_loader
from ..data.records import Dataset
from ..data.transforms import Augment
from ..devices import pick_device
from ..errors import OptionError
from ..models.detection.base import Detector
from ..models.meta import Meta
from ..models.registry import get_entry
from ..nn.parallel import share_batch_norm
from ..prediction.held_out import keep_division
from ..prediction.memory import require_training_memory
from ..prediction.windows import share_window, with_window
from ..storage.checkpoint import Checkpoint, TrainingState, load_state, save_checkpoint
from ..storage.rundir import ResultsTable, new_run_dir, write_args
from ..tasks.detection.data_options import own_anchors, own_keypoints
from ..tasks.detection.evaluate import eval_loader, match_classes, match_keypoints
from ..tasks.detection.pictures import save_labels
from ..tasks.detection.regions import check_shared_ids, prepare_proposals, proposal_store
from ..tasks.recipe import TrainRecipe
from .alternate import last_step, load_proposer, two_stage
from .best import fitness, waited
from .ema import Ema
from .inspection import check_images
from .optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from .resume import LAST, PREVIOUS, Resumed, damaged, share_batch
from .step import TrainStep, automatic_batch


@dataclass
class Place:
    """Where the training stands.

    Attributes:
        epoch: epochs done, validation included.
        batch: batches done of the next epoch.
        step: optimiser steps done.
        bad: steps with a non-finite or exploded loss in a row, up to now.
        first_loss: loss of the first step.
        sums: sums over the steps of this epoch of each loss term.
        counted: number of steps in `sums`.
        images: number of images seen in this epoch, by all processes.
        seconds: time spent in this epoch.
        fitted: 1 once the stage after the training is done, for a detector that has one.
        best: best AP so far, -1 before the first validation and as long as it is undefined.
        best_epoch: epochs done when it was reached.
        unscored: epochs since then whose AP is undefined.
        best_metrics: all numbers of that validation.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    bad: int = 0
    first_loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    images: int = 0
    seconds: float = 0.0
    fitted: int = 0
    best: float = -1.0
    best_epoch: int = 0
    unscored: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type == "int":
                good = type(value) is int and value >= 0
            elif entry.type == "float":
                good = type(value) in (int, float) and math.isfinite(value)
            else:
                good = isinstance(value, dict)
            if not good:
                raise ValueError(f"{entry.name} is {value!r}")


@dataclass
class Session:
    """A training run: its parts and its place.

    Attributes:
        recipe: the options, with the batch size that was chosen.
        fabric: devices and processes.
        dir: the run folder.
        train_data, val_data: the images; None: there is no validation.
        loader, val_loader: batches of them, this process's share.
        detector: the bare model.
        step: the training step as Fabric wraps it.
        optimizer: the bare optimiser.
        wrapped_optimizer: the optimiser as Fabric wraps it.
        ema: average of the weights, or None.
        meta: what the checkpoints say of the model.
        table: `results.csv`.
        steps_per_epoch: optimiser steps of a whole epoch.
        total: optimiser steps of the whole training.
        lr: peak learning rate.
        start: where the first weights came from, for people.
        place: where the training stands.
        saved: when `last` was written, by the monotonic clock.
    """

    recipe: TrainRecipe
    fabric: Any
    dir: Path
    train_data: Dataset
    val_data: Dataset | None
    loader: Loader
    val_loader: Loader | None
    detector: Detector
    step: Any
    optimizer: Optimizer
    wrapped_optimizer: Any
    ema: Ema[Detector] | None
    meta: Meta
    table: ResultsTable
    steps_per_epoch: int
    total: int
    lr: float
    start: str
    place: Place = field(default_factory=Place)
    saved: float = field(default_factory=time.monotonic)

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one possibly cut short by `steps`."""
        return math.ceil(self.total / self.steps_per_epoch)

    @property
    def first(self) -> bool:
        """True in the process that writes files and talks."""
        return bool(self.fabric.is_global_zero)

    @property
    def fits(self) -> bool:
        """True if the training is done, but the stage that follows it is not."""
        waiting = self.detector.fits_after_training and not self.place.fitted
        return waiting and self.trained() is not None

    def finished(self) -> str | None:
        """Return why nothing follows, neither an epoch nor the stage after them, or None."""
        if self.place.fitted:
            return "trained, and fitted after it"
        return None if self.fits else self.trained()

    def trained(self) -> str | None:
        """Return why no further epoch follows, or None."""
        epochs = waited(self.place)
        if self.place.step >= self.total and self.place.batch == 0:
            return f"all {self.total} steps are done"
        if self.recipe.patience and epochs >= self.recipe.patience and self.place.best >= 0:
            return f"no better AP for {epochs} epochs (patience={self.recipe.patience})"
        return None

    def save_last(self, *, older_than: float = 0.0) -> None:
        """Write `weights/last`: all that a resumed run needs.

        Args:
            older_than: leave it if the one that is there is younger than this, in seconds.
        """
        if time.monotonic() - self.saved < older_than:
            return
        self.saved = time.monotonic()
        if self.first:
            scalars = {
                "recipe": self.recipe.to_dict(),
                "place": asdict(self.place),
                "ema_updates": 0 if self.ema is None else self.ema.updates,
                "world": self.fabric.world_size,
            }
            ema = {} if self.ema is None else self.ema.model.state_dict()
            state = TrainingState(scalars, optimizer_tensors(self.optimizer, self.detector), ema)
            weights = self.dir / "weights"
            save_checkpoint(
                weights / LAST,
                self.meta,
                self.detector.state_dict(),
                training=state,
                previous=weights / PREVIOUS,
            )

    def save_best(self) -> None:
        """Write `weights/best`: the weights that were validated, with their metrics."""
        if self.first:
            model = self.detector if self.ema is None else self.ema.model
            metrics = {k: v for k, v in self.place.best_metrics.items() if math.isfinite(v)}
            path = self.dir / "weights" / "best.safetensors"
            save_checkpoint(path, replace(self.meta, metrics=metrics), model.state_dict())

    def gather(self, share: Any) -> list[Any]:
        """Return the plain data that each process gives, in all of them."""
        shares: list[Any] = [share] * self.fabric.world_size
        if len(shares) > 1:
            torch.distributed.all_gather_object(shares, share)
        return shares

    def restore(self, resumed: Resumed) -> None:
        """Put everything back as it was when the checkpoint was written."""
        self.fabric.barrier()  # all processes have read the checkpoint
        if self.first:
            resumed.tidy()
        checkpoint, source = resumed.checkpoint, resumed.folder
        if checkpoint is None:
            if self.first:
                self.table.truncate(0)
            return
        state = checkpoint.training
        assert state is not None
        load_state(self.detector, checkpoint.model, source)
        if self.ema is not None:
            load_state(self.ema.model, state.ema, source)
        try:
            load_optimizer_tensors(self.optimizer, self.detector, state.optimizer)
            updates = int(state.scalars["ema_updates"])
            self.place = Place(**state.scalars["place"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(source, error) from None
        if self.ema is not None:
            self.ema.updates = updates
        self.place.best_metrics = {  # JSON has no nan
            key: math.nan if value is None else value
            for key, value in self.place.best_metrics.items()
        }
        if self.place.best_metrics and math.isnan(fitness(self.place.best_metrics)):
            self.place.best = -1.0  # older versions wrote 0 for what is undefined
        if self.first:
            self.table.truncate(self.place.epoch)


def make_fabric(device: str) -> Any:
    """Return a Lightning Fabric for one device, or for the processes that torchrun started."""
    from lightning_fabric import Fabric

    chosen = pick_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        fabric = Fabric(
            accelerator=chosen.type, devices=local, num_nodes=world // local, strategy="ddp"
        )
        # DDP says that 1x1 filters have two names for one memory layout.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    else:
        devices: Any = [chosen.index or 0] if chosen.type == "cuda" else 1
        fabric = Fabric(accelerator=chosen.type, devices=devices)
    fabric.launch()
    return fabric


def open_splits(recipe: TrainRecipe) -> tuple[Dataset, Dataset | None]:
    """Return the training and the validation images.

    Of a data set with one split, a part is held out; nothing (None) with `val_fraction=0`.
    """
    keypoints = "num_keypoints" in get_entry(recipe.model).arguments()
    options: dict[str, Any] = {"keypoints": keypoints, "crowd_as_objects": recipe.crowd_as_objects}
    train = open_dataset(recipe.data, "train", difficult=recipe.difficult, **options)
    if "val" in find_splits(recipe.data, keypoints=keypoints):
        return train, open_dataset(recipe.data, "val", names=train.names, **options)
    if not recipe.val_fraction:
        return train, None
    kept, held = hold_out(train, recipe.val_fraction, recipe.seed, holdout=recipe.holdout)
    same = train
    if recipe.difficult:  # learned from, but never scored
        same = open_dataset(recipe.data, "train", **options)
    return train.select(kept, "train"), same.select(held, "val")


def build_detector(
    recipe: TrainRecipe, data: Dataset, checkpoint: Checkpoint | None = None
) -> tuple[Detector, Meta, str]:
    """Return the model for the classes of the data, its description, and where its weights start.

    Args:
        recipe: options.
        data: the training images.
        checkpoint: of the run that goes on: it says what the model is. Its weights come later.

    Raises:
        ValueError: if model, weights and data do not fit together.
    """
    from ..hub.loading import RANDOM_START, build_described, start_detector

    torch.manual_seed(recipe.seed)
    if checkpoint is None:
        own = {"backbone": recipe.backbone, "imgsz": recipe.imgsz}
        args = {key: value for key, value in own.items() if value is not None} | recipe.model_args
        skeleton = own_keypoints(recipe, args, data)
        if skeleton is not None:
            args["num_keypoints"] = len(skeleton)
        anchors = own_anchors(recipe, args, data)
        detector, args, report = start_detector(
            recipe.model,
            data.names,
            weights=recipe.weights,
            options={**args, **anchors},
            skeleton=skeleton,
        )
        random_start = report == RANDOM_START
        if anchors:
            sizes = ", ".join(f"{size:g}" for size in anchors["anchor_sizes"])
            report += f"; anchors of {sizes} pixels, by the objects in the data"
        source = f"trained by maskwright on {Path(recipe.data).name}"
        meta = Meta(
            recipe.model,
            args,
            list(data.names),
            list(data.category_ids),
            skeleton,
            source=source,
            extra={
                "start": report,
                "random_start": random_start,
                **({"crowd_as_objects": True} if recipe.crowd_as_objects else {}),
            },
        )
    else:
        meta, report = checkpoint.meta, "the run goes on"
        if meta.names != data.names:
            raise ValueError(
                f"data={recipe.data} has the classes {data.names}, the run that goes on was "
                f"trained on {meta.names}"
            )
        names = None if data.skeleton is None else data.skeleton.names
        if meta.keypoints is not None and meta.keypoints.names != names:
            raise ValueError(
                f"data={recipe.data} has other keypoints than the run that goes on, which was "
                f"trained on {', '.join(meta.keypoints.names)}"
            )
        detector = build_described(meta, checkpoint.model, recipe.resume or recipe.data)
    if problem := no_objects(data):
        raise ValueError(f"there is nothing to learn from: {problem}")
    if detector.predicts_masks and (problem := no_masks(data)):
        raise ValueError(
            f"{recipe.model} needs masks, but {problem}; else choose a model of boxes such as "
            "faster_rcnn_resnet50_fpn, or add masks to the annotations"
        )
    if recipe.val_boundary and not detector.predicts_masks:
        raise OptionError(f"val_boundary=true scores masks, but {recipe.model} finds none")
    detector.check_fitting()  # now, not after hours of training
    # Random features that never change would teach the heads nothing.
    detector.freeze(0 if meta.extra.get("random_start") else recipe.freeze)
    if recipe.train_part != "all":
        two_stage(detector, recipe.model, "train_part").train_only(recipe.train_part)
    return detector, meta, report


def training_loader(
    recipe: TrainRecipe, data: Dataset, detector: Detector, *, rank: int = 0, world: int = 1
) -> Loader:
    """Return the loader of the augmented training images."""
    return make_loader(
        data,
        batch=recipe.batch,
        resize=detector.resize,
        augment=Augment(
            flip=recipe.flip,
            vflip=recipe.vflip,
            rotate90=recipe.rotate90,
            scale_jitter=recipe.scale_jitter,
            scales=detector.train_scales,
            crop=recipe.crop,
            photometric=recipe.photometric,
        ),
        seed=recipe.seed,
        workers=recipe.workers,
        shuffle=True,
        divisor=detector.size_divisor,
        rank=rank,
        world=world,
        masks=detector.predicts_masks,
        proposals=proposal_store(detector, data.split),
    )


def prepare(recipe: TrainRecipe, resumed: Resumed | None = None) -> Session:
    """Put a run together, from the recipe alone or as it was left.

    Raises:
        ValueError: if data, model, device or folder do not exist or do not fit together.
    """
    fabric = make_fabric(recipe.device)
    checkpoint: Checkpoint | None = None
    folder: Path | None = None
    if resumed is not None:
        checkpoint, folder = resumed.checkpoint, resumed.folder
        recipe = share_batch(resumed.recipe, resumed.processes, fabric.world_size)
    train_data, val_data = open_splits(recipe)
    words = share_window(recipe.window, train_data, val_data, checkpoint, fabric)
    own = recipe
    if recipe.alternate:
        assert folder is not None  # the steps before the last one are in it
        own = last_step(recipe, folder)
    detector, meta, report = build_detector(own, train_data, checkpoint)
    meta = keep_division(with_window(meta, train_data.window, words), recipe, val_data)
    if val_data is not None:
        match_classes(meta.names, val_data.names)  # now, not after the first epoch
        match_keypoints(meta.keypoints, val_data)
    check_images(train_data, val_data, fabric=fabric)
    if fabric.world_size > 1:
        share_batch_norm(detector)
    detector.to(fabric.device)
    if fabric.device.type != "mps":
        detector.to(memory_format=torch.channels_last)
    if recipe.crop is None:
        sizes, count = train_data.sizes, max(recipe.batch, 1)
        require_training_memory(detector, sizes, count, fabric.device, str(recipe.data))
    step = TrainStep(
        detector,
        autocast=torch.bfloat16 if recipe.precision == "bf16" else None,
        proposer=load_proposer(recipe, fabric.device),
    )
    if recipe.batch == -1:
        probe = next(
            iter(training_loader(replace(recipe, batch=2, workers=0), train_data, detector))
        )
        fitting = automatic_batch(step, probe.images, probe.targets)
        recipe = replace(recipe, batch=fabric.broadcast(fitting))
    rank, world = fabric.global_rank, fabric.world_size
    parts = [part for part in (train_data, val_data) if part is not None]
    check_shared_ids(detector, *parts)
    for part in parts:
        prepare_proposals(detector, part, workers=recipe.workers, rank=rank, world=world)
    fabric.barrier()
    loader = training_loader(recipe, train_data, detector, rank=rank, world=world)
    val_loader = None
    if val_data is not None:
        val_loader = eval_loader(detector, val_data, workers=recipe.workers, rank=rank, world=world)
    lr = recipe.peak_lr(recipe.batch * recipe.accumulate * world)
    optimizer = build_optimizer(recipe, detector, lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's advice on its own options
        wrapped_step, wrapped_optimizer = fabric.setup(step, optimizer)
    steps_per_epoch = math.ceil(len(loader) / recipe.accumulate)
    total = recipe.steps or recipe.epochs * steps_per_epoch
    if folder is None:
        made = new_run_dir(recipe.project, "train", recipe.name) if rank == 0 else None
        folder = fabric.broadcast(made)
    assert folder is not None
    if checkpoint is None and rank == 0:
        resolved = {
            "lr": lr,
            "warmup": recipe.warmup_steps(total),
            "batch": recipe.batch,
            "processes": world,
            "steps": total,
        }
        write_args(folder / "args.yaml", recipe.to_dict(), resolved)
        save_labels(folder / "labels.jpg", train_data)
    session = Session(
        recipe=recipe,
        fabric=fabric,
        dir=folder,
        train_data=train_data,
        val_data=val_data,
        loader=loader,
        val_loader=val_loader,
        detector=detector,
        step=wrapped_step,
        optimizer=optimizer,
        wrapped_optimizer=wrapped_optimizer,
        ema=None if recipe.ema is None else Ema(detector, recipe.ema),
        meta=meta,
        table=ResultsTable(folder / "results.csv"),
        steps_per_epoch=steps_per_epoch,
        total=total,
        lr=lr,
        start=report,
    )
    if resumed is not None:
        session.restore(resumed)
    return session
