"""A training run put together: from its recipe alone, or as it was left."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data.discover import find_splits, open_dataset
from ..data.records import Dataset
from ..data.rewriting.holdout import hold_out
from ..devices import pick_device
from ..hub.loading import RANDOM_START, start_model
from ..hub.reading import build_described
from ..models.base import Model
from ..models.channels import with_channels
from ..models.meta import Meta
from ..nn.parallel import share_batch_norm
from ..prediction.held_out import keep_division
from ..prediction.memory import require_training_memory
from ..prediction.tiles import with_tile
from ..prediction.windows import share_channels, share_window, with_window
from ..storage.checkpoint import Checkpoint
from ..storage.rundir import ResultsTable, new_run_dir, write_args
from ..tasks import task_of
from ..tasks.base import Task
from ..tasks.recipe import TrainRecipe
from .ema import Ema
from .inspection import check_images
from .optim import build_optimizer
from .resume import Resumed, share_batch
from .session import Session
from .stages import stage_recipe, stages_of
from .step import TrainStep, automatic_batch


def make_fabric(device: str, *, varies: bool = False) -> Any:
    """Return a Lightning Fabric for one device, or for the processes that torchrun started.

    Args:
        device: see `TrainRecipe`.
        varies: see `TrainRecipe`.
    """
    from lightning_fabric import Fabric

    chosen = pick_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        strategy = "ddp_find_unused_parameters_true" if varies else "ddp"
        fabric = Fabric(
            accelerator=chosen.type, devices=local, num_nodes=world // local, strategy=strategy
        )
        # DDP says that 1x1 filters have two names for one memory layout.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    else:
        devices: Any = [chosen.index or 0] if chosen.type == "cuda" else 1
        fabric = Fabric(accelerator=chosen.type, devices=devices)
    fabric.launch()
    return fabric


def open_splits(task: Task, recipe: TrainRecipe) -> tuple[Dataset, Dataset | None]:
    """Return the training and the validation images.

    Of a data set with one split, a part is held out; nothing (None) with `val_fraction=0`.
    """
    finding = {**task.finding(recipe.model), "format": recipe.format}
    learned = {**finding, **task.reading(recipe, training=True)}
    scored = {**finding, **task.reading(recipe)}
    train = open_dataset(recipe.data, "train", **learned)
    if "val" in find_splits(recipe.data, **finding):
        return train, open_dataset(recipe.data, "val", names=train.names, **scored)
    if not recipe.val_fraction:
        return train, None
    kept, held = hold_out(train, recipe.val_fraction, recipe.seed, holdout=recipe.holdout)
    same = train
    if recipe.learns_more:
        same = open_dataset(recipe.data, "train", **scored)
    return train.select(kept, "train"), same.select(held, "val")


def build_model(
    task: Task, recipe: TrainRecipe, data: Dataset, checkpoint: Checkpoint | None = None
) -> tuple[Model, Meta, str]:
    """Return the model for the data, its description, and where its weights start.

    Args:
        task: what the model is for.
        recipe: options.
        data: the training images.
        checkpoint: of the run that goes on: it says what the model is. Its weights come later.

    Raises:
        ValueError: if model, weights and data do not fit together.
    """
    torch.manual_seed(recipe.seed)
    if checkpoint is None:
        own = {"backbone": recipe.backbone, "imgsz": recipe.imgsz}
        args = {key: value for key, value in own.items() if value is not None} | recipe.model_args
        filled, words = task.fill(recipe, args, data)
        described = task.describe(recipe, data)
        model, args, report = start_model(
            recipe.model,
            data.names,
            weights=recipe.weights,
            options={**args, **filled},
            described=described,
        )
        random_start = report == RANDOM_START
        args.pop("input_channels", None)
        if model.channels != data.num_channels:
            with_channels(model, data.num_channels, recipe.model)
            report += f"; its first convolution now takes {data.num_channels} channels"
        if data.num_channels != 3:
            args["input_channels"] = data.num_channels
        start: dict[str, Any] = {"start": report, "random_start": random_start}
        if model.fresh:
            start["fresh"] = sorted(model.fresh)
        if words:
            report = start["start"] = f"{report}; {words}"
        meta = Meta(
            recipe.model,
            args,
            list(data.names),
            list(data.category_ids),
            source=f"trained by maskwright on {Path(recipe.data).name}",
            **{**described, "extra": {**start, **described.get("extra", {})}},
        )
    else:
        meta, report = checkpoint.meta, "the run goes on"
        if meta.names != data.names:
            raise ValueError(
                f"data={recipe.data} has the names {data.names}, the run that goes on was "
                f"trained on {meta.names}"
            )
        model = build_described(meta, checkpoint.model, recipe.resume or recipe.data)
        model.fresh = frozenset(meta.extra.get("fresh", ()))
    task.check(model, recipe, data, meta)
    model.check_fitting()  # now, not after hours of training
    # Random features that never change would teach the heads nothing.
    model.freeze(0 if meta.extra.get("random_start") else recipe.freeze)
    task.prepare_model(model, recipe)
    return model, meta, report


def prepare(recipe: TrainRecipe, resumed: Resumed | None = None) -> Session:
    """Put a run together, from the recipe alone or as it was left.

    Raises:
        ValueError: if data, model, device or folder do not exist or do not fit together.
    """
    fabric = make_fabric(recipe.device, varies=recipe.varies)
    checkpoint: Checkpoint | None = None
    folder: Path | None = None
    if resumed is not None:
        checkpoint, folder = resumed.checkpoint, resumed.folder
        recipe = share_batch(resumed.recipe, resumed.processes, fabric.world_size)
    task = task_of(recipe.model)
    train_data, val_data = open_splits(task, recipe)
    share_channels(recipe.page, recipe.channels, train_data, val_data, checkpoint)
    words = share_window(recipe.window, train_data, val_data, checkpoint, fabric)
    own = recipe
    if names := stages_of(recipe):
        assert folder is not None  # the stages before the last one are in it
        own = stage_recipe(recipe, folder, len(names))
    model, meta, report = build_model(task, own, train_data, checkpoint)
    finding = {**task.finding(model), "format": recipe.format}
    meta = with_tile(with_window(meta, train_data, words), task.repeated(recipe).get("tile"))
    meta = keep_division(meta, recipe, val_data, finding)
    if val_data is not None:
        task.check_scored(meta, val_data)  # now, not after the first epoch
    check_images(train_data, val_data, fabric=fabric)
    if fabric.world_size > 1:
        share_batch_norm(model)
    model.to(fabric.device)
    if fabric.device.type != "mps":
        model.to(memory_format=torch.channels_last)
    if recipe.whole_images:
        sizes, count = train_data.sizes, max(recipe.batch, 1)
        require_training_memory(model, sizes, count, fabric.device, str(recipe.data))
    step = TrainStep(
        model,
        autocast=torch.bfloat16 if recipe.precision == "bf16" else None,
        before=task.before_step(own, fabric.device),
    )
    if recipe.batch == -1:
        probe = next(
            iter(task.training_loader(replace(recipe, batch=2, workers=0), train_data, model))
        )
        fitting = automatic_batch(step, probe.images, probe.targets)
        recipe = replace(recipe, batch=fabric.broadcast(fitting))
    rank, world = fabric.global_rank, fabric.world_size
    parts = [part for part in (train_data, val_data) if part is not None]
    task.prepare_data(model, parts, workers=recipe.workers, rank=rank, world=world)
    fabric.barrier()
    loader = task.training_loader(recipe, train_data, model, rank=rank, world=world)
    val_loader = None
    if val_data is not None:
        settings, _ = task.validation(recipe)
        (rule,) = settings.rules(task.resize_rule(model, None))  # a training looks at one size
        val_loader = task.eval_loader(
            model, val_data, resize=rule, workers=recipe.workers, rank=rank, world=world
        )
    if fabric.device.type == "cuda":
        for one in (loader, val_loader):
            if one is not None:
                one.pin()
    lr = recipe.peak_lr(recipe.batch * recipe.accumulate * world)
    rates = task.rates(model, own, fresh=bool(meta.extra.get("random_start")))
    optimizer = build_optimizer(recipe, model, lr, rates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's advice on its own options
        wrapped_step, wrapped_optimizer = fabric.setup(step, optimizer)
    steps_per_epoch = math.ceil(len(loader) / recipe.accumulate)
    planned = recipe.steps or recipe.epochs * steps_per_epoch
    if folder is None:
        made = new_run_dir(recipe.project, "train", recipe.name) if rank == 0 else None
        folder = fabric.broadcast(made)
    assert folder is not None
    if checkpoint is None and rank == 0:
        resolved = {
            "lr": lr,
            "warmup": recipe.warmup_steps(planned) if recipe.minutes is None else recipe.warmup,
            "batch": recipe.batch,
            "processes": world,
            "steps": planned if recipe.minutes is None else None,
        }
        write_args(folder / "args.yaml", recipe.to_dict(), resolved)
        task.draw_annotations(folder / "labels.jpg", train_data)
    session = Session(
        task=task,
        recipe=recipe,
        fabric=fabric,
        dir=folder,
        train_data=train_data,
        val_data=val_data,
        loader=loader,
        val_loader=val_loader,
        model=model,
        step=wrapped_step,
        optimizer=optimizer,
        wrapped_optimizer=wrapped_optimizer,
        ema=None if recipe.ema is None else Ema(model, recipe.ema),
        meta=meta,
        table=ResultsTable(folder / "results.csv"),
        steps_per_epoch=steps_per_epoch,
        planned=planned,
        lr=lr,
        start=report,
    )
    if resumed is not None:
        session.restore(resumed)
    return session
