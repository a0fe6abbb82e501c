"""4-step alternating training (Ren et al. 2015, section 3.2): RPN and heads come to share layers.

1. The RPN trains with its backbone. 2. The heads train with a backbone of their own, on the
proposals of the first. 3. The RPN trains anew on the backbone of the second, of which nothing that
both use changes. 4. The heads' own layers follow, on the proposals of the third. The first three
are runs of their own in the folder `train` of the run folder, which itself is the run of the last;
resuming goes on with whichever was stopped. Differences from the paper: proposals are made anew at
every step of the second training, for the image as it was augmented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..models import build
from ..storage.rundir import new_run_dir, remove_parts, write_args
from ..tasks import task_of
from ..tasks.recipe import TrainRecipe
from .result import TrainResult
from .resume import LAST, Resumed, find_run

STEPS = ("1-rpn", "2-heads", "3-rpn")  # the last is the run folder itself
FINISHED = "finished"  # a file in the folder of a step that is done
Run = Callable[[TrainRecipe, Resumed | None], TrainResult]


def step_folder(folder: Path, number: int) -> Path:
    """Return the run folder of one of the first three steps, counted from 0."""
    return folder / "train" / STEPS[number]


def whole_run(folder: Path) -> Path:
    """Return the folder of the whole training of which `folder` may be a step."""
    whole = folder.parent.parent
    return whole if folder.name in STEPS and (whole / "args.yaml").exists() else folder


def step_recipe(recipe: Any, folder: Path, number: int) -> TrainRecipe:
    """Return the options of one of the first three steps, counted from 0."""
    own: dict[str, Any] = {"train_part": ("rpn", "heads", "rpn-only")[number]}
    before = step_folder(folder, number - 1) / "weights" / LAST
    if number == 1:
        own["proposal_model"] = before
    elif number == 2:
        own["weights"] = before
    name = STEPS[number]
    step: TrainRecipe = replace(
        recipe, alternate=False, project=folder, name=name, resume=None, **own
    )
    return step


def last_step(recipe: Any, folder: Path) -> TrainRecipe:
    """Return the options of the last step: the heads' own layers, from where the third ended."""
    weights = step_folder(folder, 2) / "weights" / LAST
    last: TrainRecipe = replace(
        recipe, alternate=False, train_part="heads-only", weights=weights, resume=None
    )
    return last


def first_steps(
    recipe: TrainRecipe, resumed: Resumed | None, fabric: Any, run: Run
) -> tuple[Resumed, TrainResult | None]:
    """Run what is not done yet of the first three steps.

    Args:
        recipe: of the whole training.
        resumed: the whole training, if it goes on.
        fabric: devices and processes.
        run: trains by a recipe, or goes on.

    Returns:
        The whole training, to go on with its last step; and, if a step was interrupted, its result.
    """
    if resumed is None:
        with torch.device("meta"):  # before there is a folder
            plain = build(recipe.model, 1, **recipe.model_args)
        task_of(recipe.model).check_alternate(plain, recipe.model)
        folder = None
        if fabric.is_global_zero:
            folder = new_run_dir(recipe.project, "train", recipe.name)
            write_args(folder / "args.yaml", recipe.to_dict(), {"processes": fabric.world_size})
        resumed = Resumed(fabric.broadcast(folder), recipe, fabric.world_size, None, False, ())
    elif resumed.checkpoint is None:
        resumed = replace(resumed, notes=())  # the last step has not begun, but others may have
    for number in range(len(STEPS)):
        state = _state(step_folder(resumed.folder, number)) if fabric.is_global_zero else None
        state = fabric.broadcast(state)
        if state == "done":
            continue
        own = step_recipe(recipe, resumed.folder, number)
        going_on = None
        if state == "begun":
            own = replace(own, weights=None, resume=step_folder(resumed.folder, number))
            kept = {key: getattr(recipe, key) for key in ("data", "device", "workers")}
            going_on = find_run(kept, own)
        result = run(own, going_on)
        if result.interrupted:
            return resumed, replace(result, dir=resumed.folder)
        if fabric.is_global_zero:
            (step_folder(resumed.folder, number) / FINISHED).touch()
        fabric.barrier()
    return resumed, None


def _state(folder: Path) -> str:
    """Return "done", "begun" or "new" for the run folder of a step."""
    if (folder / FINISHED).exists():
        return "done"
    if (folder / "args.yaml").exists():
        return "begun"
    if folder.exists():  # killed as soon as it was made
        remove_parts(folder)
        folder.rmdir()
    return "new"
