"""When the loss is not finite or explodes: skip the step, keep the batch, stop with advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..data.batch_file import save_batch as save_tensors
from ..data.loader import Batch
from ..errors import TrainingError
from ..terminal import console
from .session import Session

MAX_BAD_STEPS = 5  # in a row
MAX_GROWTH = 1000.0  # of the loss over that of the first step; no training comes back from there
KEPT_BATCHES = 5  # of a run: a batch of large images takes 50 MB


def report_bad_step(run: Session, group: Sequence[Batch], totals: Sequence[float]) -> None:
    """Say which images a step with a non-finite loss had, and keep their batches.

    Every process calls it. Where the loss itself is finite and only the gradient is not, all
    batches of the step are named and kept.

    Args:
        run: the training; its step is counted already.
        group: the batches of this process.
        totals: the loss of each.
    """
    place = run.place
    guilty = [batch for batch, total in zip(group, totals, strict=True) if not math.isfinite(total)]
    shares = run.gather([_names(run, batch) for batch in guilty])
    if not any(shares):
        guilty = list(group)
        shares = run.gather([_names(run, batch) for batch in guilty])
    if run.first:
        names = [name for share in shares for batch in share for name in batch]
        console.warn(
            f"step {place.step}: the loss is not finite and the step was skipped; images: "
            f"{', '.join(names)}"
        )
    for number, batch in enumerate(guilty):
        _keep(run, batch, number)


def check(run: Session, total: float | None) -> None:
    """Stop a training whose loss is not finite or has exploded, step after step.

    Args:
        run: the training; its step is counted already.
        total: the loss of the step; None if it was not finite.

    Raises:
        TrainingError: with advice.
    """
    place = run.place
    if total is not None and not place.first_loss:
        place.first_loss = total
    exploded = total is not None and total > MAX_GROWTH * max(place.first_loss, 1.0)
    place.bad = place.bad + 1 if total is None or exploded else 0
    # What ends on two such steps in a row has come to nothing, however short it was.
    if place.bad < (2 if place.step >= run.total else MAX_BAD_STEPS):
        return
    what = "was not finite" if total is None else f"grew more than {MAX_GROWTH:.0f}-fold"
    pictures_there = f"look at bad_step*.jpg in {run.dir} and " if total is None else ""
    raise TrainingError(
        f"the loss {what} in {place.bad} steps in a row, up to step {place.step}: {_advice(run)}; "
        f"{pictures_there}check the annotations with `maskwright data check data="
        f"{run.recipe.data}`; then start a new run, for resume= keeps the learning rate"
    )


def _advice(run: Session) -> str:
    recipe = run.recipe
    images = recipe.batch * recipe.accumulate * run.fabric.world_size
    default = replace(recipe, lr=None).peak_lr(images)
    better = default if run.lr > 1.01 * default else run.lr / 10
    text = f"lower lr (now {run.lr:.3g}; try lr={better:.2g})"
    text += f", lengthen warmup (now {recipe.warmup_steps(run.total)} steps)"
    return text + (", set clip=5" if recipe.clip is None else "")


def _names(run: Session, batch: Batch) -> list[str]:
    return [run.train_data[index].path.name for index in batch.indices]


def _keep(run: Session, batch: Batch, number: int) -> None:
    """Save a batch as tensors and as a picture, unless the run has enough of them."""
    place, rank = run.place, run.fabric.global_rank
    suffix = f"_rank{rank}" if rank else ""
    kept = list(run.dir.glob(f"bad_step*{suffix}.safetensors"))
    if len(kept) >= KEPT_BATCHES or not batch.indices:
        return
    path = run.dir / f"bad_step{place.step}{f'_{number}' if number else ''}{suffix}.safetensors"
    info: dict[str, Any] = {
        "step": place.step,
        "epoch": place.epoch,
        "seed": run.recipe.seed,
        "files": [str(run.train_data[index].path) for index in batch.indices],
    }
    save_tensors(path, batch, info)
    run.task.draw_batch(path.with_suffix(".jpg"), batch, run.train_data)


def lost_process(error: RuntimeError) -> bool:
    """Tell whether an error means that another process has gone."""
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "nccl" in text
