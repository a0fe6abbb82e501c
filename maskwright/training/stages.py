"""A training of several stages, each a run of its own that starts from those before.

The task names the stages and their options (`Task.stages`). All but the last are runs in the folder
`train` of the run folder, which itself is the run of the last; resuming goes on with whichever was
stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models.registry import build_blank
from ..storage.rundir import new_run_dir, remove_parts, write_args
from ..tasks import task_of
from ..tasks.recipe import TrainRecipe
from .result import TrainResult
from .resume import LAST, Resumed, find_run

FINISHED = "finished"  # a file in the folder of a stage that is done
Run = Callable[[TrainRecipe, Resumed | None], TrainResult]


def stages_of(recipe: TrainRecipe) -> tuple[str, ...]:
    """Return the names of the stages before the last."""
    return task_of(recipe.model).stages(recipe)


def stage_folder(folder: Path, name: str) -> Path:
    """Return the run folder of a stage before the last."""
    return folder / "train" / name


def whole_run(folder: Path) -> Path:
    """Return the folder of the whole training of which `folder` may be a stage."""
    whole = folder.parent.parent
    staged = folder.parent.name == "train" and (whole / "args.yaml").exists()
    return whole if staged else folder


def stage_recipe(recipe: TrainRecipe, folder: Path, number: int) -> TrainRecipe:
    """Return the options of one stage, counted from 0; the last has those of the whole run.

    Args:
        recipe: of the whole training.
        folder: its run folder.
        number: of the stage.
    """
    names = stages_of(recipe)
    weights = [stage_folder(folder, name) / "weights" / LAST for name in names[:number]]
    own = task_of(recipe.model).stage(recipe, number, weights)
    if number < len(names):
        own |= {"project": folder, "name": names[number]}
    return replace(recipe, resume=None, **own)


def first_stages(
    recipe: TrainRecipe, resumed: Resumed | None, fabric: Any, run: Run
) -> tuple[Resumed, TrainResult | None]:
    """Run what is not done yet of the stages before the last.

    Args:
        recipe: of the whole training.
        resumed: the whole training, if it goes on.
        fabric: devices and processes.
        run: trains by a recipe, or goes on.

    Returns:
        The whole training, to go on with its last stage; and, if one was interrupted, its result.
    """
    if resumed is None:
        plain = build_blank(recipe.model, 1, **recipe.model_args)  # before there is a folder
        task_of(recipe.model).check_stages(plain, recipe.model)
        folder = None
        if fabric.is_global_zero:
            folder = new_run_dir(recipe.project, "train", recipe.name)
            write_args(folder / "args.yaml", recipe.to_dict(), {"processes": fabric.world_size})
        resumed = Resumed(fabric.broadcast(folder), recipe, fabric.world_size, None, False, ())
    elif resumed.checkpoint is None:
        resumed = replace(resumed, notes=())  # the last stage has not begun, but others may have
    for number, name in enumerate(stages_of(recipe)):
        here = stage_folder(resumed.folder, name)
        state = fabric.broadcast(state_of(here) if fabric.is_global_zero else None)
        if state == "done":
            continue
        own = stage_recipe(recipe, resumed.folder, number)
        going_on = None
        if state == "begun":
            own = replace(own, weights=None, resume=here)
            kept = {key: getattr(recipe, key) for key in ("data", "device", "workers")}
            going_on = find_run(kept, own)
        result = run(own, going_on)
        if result.interrupted:
            return resumed, replace(result, dir=resumed.folder)
        if fabric.is_global_zero:
            (here / FINISHED).touch()
        fabric.barrier()
    return resumed, None


def state_of(folder: Path) -> str:
    """Return "done", "begun" or "new" for the run folder of a stage."""
    if (folder / FINISHED).exists():
        return "done"
    if (folder / "args.yaml").exists():
        return "begun"
    if folder.exists():  # killed as soon as it was made
        remove_parts(folder)
        folder.rmdir()
    return "new"
