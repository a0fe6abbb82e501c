"""Training: one loop over epochs, readable from top to bottom.

`train` takes the fields of `TrainRecipe`; `fit` runs a recipe. Everything that can change in the
loop stands in `session.Place`, so that a run can stop after any step and go on as if it had not.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..data.loader import Batch
from ..errors import TrainingError, WorkerError
from ..hub.names import architecture
from ..prediction.load import finder
from ..prediction.tiles import evaluate_in_tiles
from ..reports.curves import Curves
from ..reports.page import REPORT
from ..storage.rundir import write_fault
from ..tasks import recipes
from ..tasks.evaluation import Evaluation, evaluate, to_device
from ..tasks.recipe import TrainRecipe, check_known, check_names, option_parameters
from ..terminal import console
from ..terminal.heap import give_back
from ..terminal.interrupt import Interrupt
from . import health
from .best import is_better, undefined_note
from .conclusion import conclude, go_on
from .fitting import fit_after_training
from .hooks import EVENTS, Function, Hooks, split_functions
from .introduce import introduce
from .optim import lr_factor, set_lr
from .prepare import make_fabric, prepare
from .result import TrainResult
from .resume import Resumed, find_run, kind_of
from .session import Session
from .stages import first_stages, stages_of
from .step import seed_dropout
from .trackers import require_trackers, tracked

SAVE_EVERY = 600.0  # seconds between two writes of `last` inside an epoch
SAVE_BEFORE_VAL = 60.0  # an older `last` is renewed before a validation, which may take long


def train(data: Any = "", model: str | None = None, **options: Any) -> TrainResult:
    """Train a model on your own images.

    Args:
        data: the data set, any format that `maskwright data check` reads; or a whole
            `TrainRecipe`, of which the other arguments then replace fields.
        model: registered name of the model.
        **options: fields of `TrainRecipe` and of the recipe of the model's task, where each stands
            with its meaning and default. The signature shows the defaults that hold without
            `model`; `maskwright train --help` tells where other models have others, as in `batch`.
            Besides, `on_train_start`, `on_step_end`, `on_epoch_end` and `on_train_end` are each a
            function, or several, that is called with the `Moment` (`training/hooks.py`).

    Returns:
        Run folder, checkpoints and metrics.

    Raises:
        TypeError: for an unknown option; the message names the nearest one.
        ValueError: if options contradict each other or do not fit data and model.
        TrainingError: a RuntimeError: if the loss is not finite several times in a row, or another
            process of the training has ended.
        WorkerError: a RuntimeError: if a process that loads images has ended.
        Exception: what a function that was given raises, with a note of whose it is; what was
            trained up to then is kept.

    Example:
        >>> import maskwright as mw
        >>> mw.train("cells/", epochs=20, batch=4)  # doctest: +SKIP
    """
    functions = split_functions(options)
    if model is not None:
        options["model"] = model
    check_known(options, recipes().values())  # before the name of the model is looked up
    kind = type(data) if isinstance(data, TrainRecipe) else kind_of(options)
    check_names(options, kind, recipes().values())
    if isinstance(data, TrainRecipe):
        return fit(replace(data, **options), options, functions)
    if str(data):
        options["data"] = data
    return fit(kind(**options), options, functions)


train.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *option_parameters(*recipes().values()),
        *(
            inspect.Parameter(
                event,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation="Callable[[Moment], object] | Sequence[Callable] | None",
            )
            for event in EVENTS
        ),
    ],
    return_annotation=TrainResult,
)


def fit(
    recipe: TrainRecipe,
    given: dict[str, Any] | None = None,
    functions: Mapping[str, Sequence[Function]] | None = None,
) -> TrainResult:
    """Run a recipe to its end, or on from where it was interrupted.

    Args:
        recipe: all options.
        given: those among them that the user chose, by name; matters for `resume` only.
        functions: what is called as it goes, by event; see `hooks`.
    """
    resumed = None
    if recipe.resume is not None:
        resumed = find_run(given or {}, recipe)
    else:
        architecture(str(recipe.model))  # a wrong name is told before anything is asked of it
    whole = recipe if resumed is None else resumed.recipe
    require_trackers(whole)
    run = partial(_fit, functions=functions)
    if stages_of(whole):
        fabric = make_fabric(whole.device)
        resumed, stopped = first_stages(whole, resumed, fabric, run)
        if stopped is not None:
            return stopped
    return run(recipe, resumed)


def _fit(
    recipe: TrainRecipe,
    resumed: Resumed | None,
    functions: Mapping[str, Sequence[Function]] | None = None,
) -> TrainResult:
    # The caller's random numbers stay as they are.
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(cuda)):
        run = _prepare(recipe, resumed)
        run.hooks = Hooks(functions)
        for note in resumed.notes if resumed is not None and run.first else ():
            console.warn(note)
        # Without a report, the run was stopped while writing it.
        if (
            resumed is not None
            and (reason := run.finished())
            and (run.val_data is None or run.gather((run.dir / REPORT).exists())[0])
        ):
            raise ValueError(f"{run.dir}: nothing to resume, {reason}")
        introduce(run)
        try:
            return _run(run)
        except KeyboardInterrupt:
            if run.first:
                console.note(go_on(run))
            raise
        except OSError as error:  # pictures and events; what matters is written with more care
            if error is run.hooks.fault:
                raise
            raise write_fault(run.dir, error) from error
        except RuntimeError as error:
            alone = run.fabric.world_size == 1 or error is run.hooks.fault
            if alone or not health.lost_process(error):
                raise
            raise TrainingError(
                f"another process of this training has ended (its own message tells why), so this "
                f"one stops at step {run.place.step}; {go_on(run)}"
            ) from error


def _prepare(recipe: TrainRecipe, resumed: Resumed | None) -> Session:
    try:
        return prepare(recipe, resumed)
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not health.lost_process(error):
            raise
        raise TrainingError(
            "another process of this training has ended before the first step; its own message "
            "tells why"
        ) from error


def _run(run: Session) -> TrainResult:
    with ExitStack() as inside:
        if run.first:  # first, as it tells of what cannot be had
            inside.enter_context(tracked(run.hooks, run.dir, run.table, run.recipe, run.place.step))
        reason, number = _train(run)
        result = conclude(run, reason, number)
        run.call("on_train_end", result.metrics, result=result)
    return result


def _train(run: Session) -> tuple[str | None, int]:
    """Train epoch by epoch; return why it has ended, or None and the number of a signal."""

    def schedule(step: int) -> float:
        return run.lr * lr_factor(run.recipe, step, run.total)

    by_step = None if run.recipe.minutes else schedule
    curves = Curves(run.dir, schedule=by_step, groups=run.task.curves)
    run.hooks.add("on_epoch_end", lambda moment: curves.add())
    with Interrupt() as interrupt, curves:
        run.call("on_train_start")
        while not (reason := run.finished()):
            fits = run.fits
            done = fit_after_training(run, interrupt) if fits else train_epoch(run, interrupt)
            if not done:
                break
            run.hear()
            result: Evaluation | None = None
            if run.val_data is not None and (fits or _validates(run)):
                result = validate(run, interrupt, keep=not fits)
                if result is None:
                    break
            finish_epoch(run, result, fitted=fits)
    return reason, max(run.gather(interrupt.number)) if reason is None else 0


def train_epoch(run: Session, interrupt: Interrupt) -> bool:
    """Train to the end of the epoch in which the run stands; False if it was interrupted."""
    place, recipe = run.place, run.recipe
    run.task.before_epoch(run.model, recipe, place.epoch)
    run.model.train()
    if place.step >= run.total:  # resumed where only the last validation was left
        return True
    clock = time.monotonic()
    label = run.called(place.epoch + 1)
    block = recipe.batch * run.fabric.world_size  # images that the processes take together
    images = len(run.train_data)
    if recipe.minutes is None:  # the last epoch is cut
        images = min(images, (place.batch + (run.total - place.step) * recipe.accumulate) * block)
    with console.progress(label, total=images, unit="img", enabled=run.first) as bar:
        bar.update(min(place.batch * block, images))
        for group in _groups(run, interrupt):
            stop = optimise(run, group, interrupt) if group else True
            seconds, clock = time.monotonic() - clock, time.monotonic()
            place.count_time(max(run.gather(seconds)) if recipe.minutes else seconds)
            means = {k: v / max(place.counted, 1) for k, v in place.sums.items()}
            lr = run.lr * lr_factor(recipe, place.step - 1, run.total)
            count = min(place.batch * block, images) - bar.done
            place.images += count
            bar.update(count, loss=means.get("total"), lr=lr)
            if group:
                try:
                    run.call("on_step_end", {"lr": lr, **run.losses})
                except Exception:
                    run.save_last()
                    raise
            if place.step == run.total:
                return True
            run.save_last(older_than=0 if stop else SAVE_EVERY)
            if stop:
                return False
    return True  # a wish of the last moment is heard by the validation or the next step


def optimise(run: Session, group: list[Batch], interrupt: Interrupt) -> bool:
    """Make one optimiser step from the batches of a group; True if training shall stop after it."""
    place, recipe, fabric = run.place, run.recipe, run.fabric
    if place.step < 3 and run.first:
        run.task.draw_batch(run.dir / f"train_batch{place.step}.jpg", group[0], run.train_data)
    set_lr(run.optimizer, lr_factor(recipe, place.step, run.total))
    parts: dict[str, torch.Tensor] = {}
    totals: list[torch.Tensor] = []
    for i, batch in enumerate(group):
        images = to_device(batch.images, fabric.device)
        targets = batch.targets.to(fabric.device, non_blocking=True)
        keys = batch.keys.to(fabric.device, non_blocking=True)
        more = i < len(group) - 1
        seed_dropout(run.model, batch.keys)
        with fabric.no_backward_sync(run.step, enabled=True) if more else nullcontext():
            terms = run.step(images, targets, keys)
            fabric.backward(terms["total"] / len(group))
        totals.append(terms["total"].detach())
        for name, value in terms.items():
            parts[name] = parts.get(name, 0.0) + value.detach() / len(group)
    norm = fabric.clip_gradients(
        run.step,
        run.wrapped_optimizer,
        max_norm=math.inf if recipe.clip is None else recipe.clip,
        error_if_nonfinite=False,
    )
    # One transfer per step: losses, gradient norm, and whether any process was interrupted.
    wish = torch.full((), float(interrupt.wanted), device=norm.device)
    vector = torch.stack([*parts.values(), norm.float(), wish])
    if fabric.world_size > 1:
        vector = fabric.all_reduce(vector, reduce_op="mean")
    *losses, norm_value, stop = vector.tolist()
    values = dict(zip(parts, losses, strict=True))
    run.losses = _named(values)
    place.batch += len(group)
    place.step += 1
    if all(math.isfinite(value) for value in (*losses, norm_value)):
        run.wrapped_optimizer.step()
        if run.ema is not None:
            run.ema.update(run.model)
        place.counted += 1
        for name, number in values.items():
            place.sums[name] = place.sums.get(name, 0.0) + number
        health.check(run, values["total"])
    else:
        health.report_bad_step(run, group, torch.stack(totals).tolist())
        health.check(run, None)
    run.optimizer.zero_grad(set_to_none=True)
    return bool(stop)


def validate(run: Session, interrupt: Interrupt, *, keep: bool = True) -> Evaluation | None:
    """Score the current weights; None if it was interrupted.

    Args:
        run: the training.
        interrupt: whether to stop.
        keep: write `last`, if it is old or there is an interruption; False after the stage that
            follows the training, which is done again as a whole.
    """
    assert run.val_data is not None and run.val_loader is not None
    if keep:
        run.save_last(older_than=SAVE_BEFORE_VAL)
    give_back()  # the first time, the loader's workers are forked now
    model = run.model if run.ema is None else run.ema.model
    settings, options = run.task.validation(run.recipe)
    evaluator = run.task.evaluator(model, run.meta, run.val_data, settings, options)
    result = (
        evaluate(
            evaluator,
            model,
            interrupt.listen(run.val_loader, waits=run.val_loader.workers > 0),
            total=len(run.val_data),
            stop=lambda: interrupt.wanted,
            gather=run.gather,
            enabled=run.first,
        )
        if settings.tiling is None
        else evaluate_in_tiles(
            evaluator,
            finder(model, run.meta, settings),
            run.val_data,
            stop=lambda: interrupt.wanted,
            gather=run.gather,
            rank=run.fabric.global_rank,
            world=run.fabric.world_size,
        )
    )
    if result is None and keep:
        run.save_last()
    return result


def finish_epoch(run: Session, result: Evaluation | None, *, fitted: bool = False) -> None:
    """Write the row, the checkpoints and the figures of an epoch, and move on to the next.

    Args:
        run: the training.
        result: of the validation, or None.
        fitted: what ends was the stage after the training: its weights are the best ones, whatever
            their score, because they are what was asked for.
    """
    place = run.place
    metrics = {} if result is None else result.metrics
    row: dict[str, float | int | None] = {
        "epoch": place.epoch + 1,
        "step": place.step,
        "seconds": round(place.seconds, 3),
        "images_per_s": round(place.images / max(place.seconds, 1e-9), 3),
        "lr": run.lr * lr_factor(run.recipe, place.step - 1, run.total),
    }
    row |= _named({key: value / place.counted for key, value in sorted(place.sums.items())})
    # The numbers of each name stand in metrics.json.
    row |= {f"val/{key}": v for key, v in metrics.items() if run.task.named(key) is None}
    place.epoch, place.batch = place.epoch + 1, 0
    place.sums, place.counted, place.images, place.seconds = {}, 0, 0, 0.0
    place.fitted = int(fitted)
    score, before = math.nan if result is None else result.fitness, place.best
    if (
        result is not None
        and math.isnan(score)
        and run.first
        and (text := undefined_note(place, run.task.unscored))
    ):
        console.warn(text)
    better = result is not None and is_better(
        place, score, every=run.recipe.val_every, wanted=fitted
    )
    if fitted and score < before and run.first:
        advice = run.model.fit_advice
        console.warn(
            f"what was fitted finds less than the best epoch before it did ({score:.4f} "
            f"instead of {before:.4f})" + (f"; {advice}" if advice else "")
        )
    if result is not None and better:
        place.best_metrics = result.metrics
        run.save_best()
    if run.val_data is None:  # nothing to choose by: the newest weights are the best
        place.best_epoch = place.epoch
        run.save_best()
    if run.first:
        run.table.append(row)
        if result is not None:
            _report(run, result)
            if better and run.val_data is not None:
                settings, _ = run.task.validation(run.recipe)
                run.task.save_validation(run.dir, result, run.val_data, settings)
    run.save_last()
    run.call("on_epoch_end", row, better=better)
    run.hear()
    run.fabric.barrier()


def _named(losses: Mapping[str, float]) -> dict[str, float]:
    """Return losses as the columns of `results.csv` call them."""
    return {f"train/{'loss' if key == 'total' else key}": v for key, v in losses.items()}


def _validates(run: Session) -> bool:
    if not run.recipe.validates:
        return False
    last = run.place.step >= run.total or run.halted
    return last or (run.place.epoch + 1) % run.recipe.val_every == 0


def _groups(run: Session, interrupt: Interrupt) -> Iterator[list[Batch]]:
    """Yield the batches of the epoch that are not done yet, as many as make one step.

    An empty group comes when a signal is heard between two steps: then nothing follows. Of several
    processes none leaves alone; the next step tells them all.

    Raises:
        WorkerError: if a process that loads images has ended; `last` is written.
    """
    run.loader.set_epoch(run.place.epoch, start=run.place.batch)
    alone = run.fabric.world_size == 1
    batches = iter(run.loader)
    heard = interrupt.listen(batches, waits=run.loader.workers > 0) if alone else batches
    while True:
        try:
            group = list(itertools.islice(heard, run.recipe.accumulate))
        except WorkerError as error:
            run.save_last()
            raise WorkerError(f"{error}; {go_on(run)}") from None
        if interrupt.left:
            yield []
            return
        if not group:
            return
        yield group


def _report(run: Session, result: Evaluation) -> None:
    task = run.task
    shown = {key: result.metrics[key] for key in task.shown if key in result.metrics}
    good = [f"{key} {value:.4f}" for key, value in shown.items() if math.isfinite(value)]
    text = ", ".join(good) or f"{task.score} undefined"
    place = run.place
    if place.fitted:  # the last stage, whose weights are kept
        console.note(f"fitted: {text}")
    else:
        best = f"best {place.best:.4f}" if place.best >= 0 else "the latest is the best"
        best += f" in epoch {place.best_epoch}" if place.best >= 0 else ""
        console.note(f"{run.called(place.epoch)}: {text} ({best})")
    for text in result.warnings(by="training"):
        console.warn(text)
