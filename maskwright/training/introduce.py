"""What is said of a training before its first step."""

from __future__ import annotations

from ..channels import describe_channels
from ..data.records import describe_faults
from ..terminal import console
from .session import Session


def introduce(run: Session) -> None:
    """Print the table of a training, and warn of its data; in the first process."""
    if not run.first:
        return
    data, val, recipe = run.train_data, run.val_data, run.recipe
    parameters = sum(p.numel() for p in run.model.parameters())
    trainable = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    processes = run.fabric.world_size
    steps = f"{run.total} in {run.epochs} epochs"
    if recipe.minutes is not None:
        steps = f"as many as {recipe.minutes:g} minutes hold, in epochs"
    rows = [
        ["data", f"{recipe.data}: {len(data)} train, {len(val or ())} val images"],
        ["labels", run.task.counts(data)],
        [
            "model",
            f"{recipe.model}: {parameters / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M trained",
        ],
        ["steps", f"{steps} of {run.steps_per_epoch}, {run.place.step} done"],
        ["batch", f"{recipe.batch} x {recipe.accumulate} x {processes} images a step"],
        ["lr", f"{run.lr:.3g} ({recipe.optimizer}, {recipe.schedule})"],
        ["device", f"{run.fabric.device}, {processes} process(es), precision {recipe.precision}"],
        ["weights", run.start],
        *map(list, run.task.rows(run.model, recipe, data)),
        *([["channels", describe_channels(run.meta.channels)]] if run.meta.channels else []),
        *([["tile", f"{run.meta.extra['tile']} pixels"]] if "tile" in run.meta.extra else []),
        *([["window", run.meta.extra["window"]]] if "window" in run.meta.extra else []),
        ["folder", str(run.dir)],
    ]
    console.table("Training", ["what", "value"], rows)
    for part in {dataset.source: dataset for dataset in (data, val) if dataset}.values():
        if faults := describe_faults(part):
            console.warn(faults)
    for text in run.task.warnings(run.model, recipe, data, val):
        console.warn(text)
    if val is None:
        console.note(
            "no validation (val_fraction=0): all images train, patience has nothing to wait for, "
            "and the newest weights are kept as best"
        )
        return
    if shared := len(data.files() & val.files()):
        console.warn(
            f"{shared} of {len(val)} validation images are training images: {run.task.score} tells "
            "how well they are remembered, not how well new images will do"
        )
