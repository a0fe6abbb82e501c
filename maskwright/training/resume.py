"""Going on with a run: from which checkpoint, with which options, in how many processes.

`last` is the newest checkpoint and `previous` the one before it: if `last` is damaged, the run goes
on from there. A run that was killed before its first checkpoint starts anew in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..hub.names import architecture
from ..paths import home_path
from ..storage.checkpoint import Checkpoint, load_checkpoint, resolve_checkpoint
from ..storage.rundir import ResultsTable, read_args, remove_parts
from ..tasks import task_of
from ..tasks.recipe import TrainRecipe

LAST, PREVIOUS, DAMAGED = "last.safetensors", "previous.safetensors", "last.damaged.safetensors"
# What a resumed run may be given anew: nothing here changes what is computed.
FREE_ON_RESUME = ("data", "device", "workers", "patience", "log")


@dataclass(frozen=True)
class Resumed:
    """A run that goes on.

    Attributes:
        folder: its run folder.
        recipe: its options, with the batch size that was chosen.
        processes: how many have trained it.
        checkpoint: where it goes on; None: at the beginning.
        fallback: whether `previous` stands in for `last`.
        notes: what the user should know.
    """

    folder: Path
    recipe: TrainRecipe
    processes: int
    checkpoint: Checkpoint | None
    fallback: bool
    notes: tuple[str, ...]

    def tidy(self) -> None:
        """Remove what killed writers have left, and set a damaged `last` aside; in one process."""
        weights = self.folder / "weights"
        for folder in (self.folder, weights):
            remove_parts(folder)
        if self.fallback:
            if (weights / LAST).exists():
                (weights / LAST).replace(weights / DAMAGED)
            (weights / PREVIOUS).replace(weights / LAST)


def find_run(options: dict[str, Any], given: TrainRecipe) -> Resumed:
    """Return the run that is to go on.

    Args:
        options: what the user gave, by name.
        given: the same as a recipe.

    Raises:
        ValueError: if there is no such run, no checkpoint of it can be read, or an option was
            given that cannot change.
    """
    assert given.resume is not None
    path = Path(given.resume)
    folder = path if path.is_dir() else path.parent.parent
    weights = folder / "weights"
    candidates = [weights / LAST, weights / PREVIOUS]
    if path not in (folder, weights / LAST):
        candidates = [path]
    found, checkpoint, faults = _first_readable(candidates)
    if found is None or checkpoint is None:
        if faults:
            raise ValueError(
                f"{'; '.join(faults)}. No checkpoint of this run can be read: start a new one, if "
                f"you like from weights={weights / 'best.safetensors'}"
            )
        # `best` of the first epoch is written before its `last`.
        best = (weights / "best.safetensors").exists()
        if path.is_dir() and (not best or len(ResultsTable(folder / "results.csv").rows) < 2):
            return _from_the_start(options, given, folder)
        found = resolve_checkpoint(path, "last")  # says what is missing
        checkpoint = load_checkpoint(found, training=True)
    if checkpoint.training is None:
        raise ValueError(
            f"resume={given.resume}: this checkpoint holds weights only; give the run folder or "
            f"its weights/{LAST}, or start a new run with weights={found}"
        )
    scalars = checkpoint.training.scalars
    try:
        recipe = _read_recipe(scalars["recipe"])
        step, world = int(scalars["place"]["step"]), int(scalars["world"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(found, error) from None
    recipe = _changed(recipe, options, given, found)
    fallback = len(candidates) > 1 and found == candidates[1]
    notes: tuple[str, ...] = ()
    if fallback:
        reason = faults[0] if faults else f"{candidates[0]} is missing"
        notes = (f"{reason}; going on from the checkpoint before it, {found} (step {step})",)
    return Resumed(found.parent.parent, recipe, world, checkpoint, fallback, notes)


def share_batch(recipe: TrainRecipe, before: int, now: int) -> TrainRecipe:
    """Return the recipe for another number of processes with the same images per step.

    Raises:
        ValueError: if the images cannot be shared evenly.
    """
    images = recipe.batch * before
    if images % now:
        raise OptionError(
            f"the run takes {images} images at a time, in {before} process(es); {now} cannot share "
            f"them evenly: start {before}, or another number that divides {images}"
        )
    return replace(recipe, batch=images // now)


def damaged(source: Path, error: Exception) -> ValueError:
    """Return the error for a checkpoint with a state that no training has written."""
    return ValueError(
        f"{source}: the state of the training is damaged ({type(error).__name__}: {error}); go on "
        "from another checkpoint, or start a new run with weights="
    )


def _first_readable(candidates: list[Path]) -> tuple[Path | None, Checkpoint | None, list[str]]:
    """Return the first checkpoint that is whole, and what is wrong with those before it."""
    faults: list[str] = []
    for path in candidates:
        if not path.is_file():
            continue
        try:
            return path, load_checkpoint(path, training=True), faults
        except ValueError as error:
            faults.append(str(error))
    return None, None, faults


def _from_the_start(options: dict[str, Any], given: TrainRecipe, folder: Path) -> Resumed:
    args = folder / "args.yaml"
    if not args.is_file():
        raise ValueError(
            f"{folder}: nothing to resume, there is neither a checkpoint nor args.yaml: start a "
            "new run"
        )
    plain, resolved = read_args(args)
    recipe = _changed(_read_recipe(plain), options, given, None)
    note = f"{folder} was stopped before its first checkpoint: the run starts anew, in its folder"
    return Resumed(folder, recipe, int(resolved["processes"]), None, False, (note,))


def _read_recipe(options: dict[str, Any]) -> TrainRecipe:
    """Return the options of a run, which keeps its own validation images.

    A run without `holdout` was begun when they were drawn by chance alone.
    """
    return kind_of(options).from_dict({"holdout": "random", **options})


def kind_of(options: Mapping[str, Any]) -> type[TrainRecipe]:
    """Return the recipe of the task that options of a training are for.

    Args:
        options: by name; `model` tells, or the run that `resume` goes on with.

    Raises:
        ValueError: if `model` is given and is no architecture.
    """
    model = options.get("model")
    if model is not None and not options.get("resume"):
        architecture(str(model))
    if model is None and options.get("resume"):
        path = Path(home_path(str(options["resume"])))
        folder = path if path.is_dir() else path.parent.parent
        try:
            model = read_args(folder / "args.yaml")[0].get("model")
        except ValueError:
            model = None  # whoever reads the run next tells what is wrong
    return task_of(TrainRecipe.model if model is None else str(model)).recipe


def _changed(
    recipe: TrainRecipe, options: dict[str, Any], given: TrainRecipe, source: Path | None
) -> TrainRecipe:
    """Return the recipe of a run with the options that may be given anew."""
    was, wanted = recipe.to_dict(), given.to_dict()
    for name in options:
        if name not in (*FREE_ON_RESUME, "resume") and wanted[name] != was[name]:
            start = f"a new run from weights={source}" if source else "a new run"
            value = "its own default" if was[name] is None else repr(was[name])
            raise ValueError(
                f"resume goes on with the options of the run, {name} is {value} there: "
                f"leave it out, or start {start}"
            )
    return replace(recipe, **{key: getattr(given, key) for key in options if key in FREE_ON_RESUME})
