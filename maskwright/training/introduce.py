"""What is said of a training before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.checking.verdict import class_counts, no_objects, unlike_classes
from ..data.records import describe_faults
from ..terminal import console

if TYPE_CHECKING:
    from .session import Session


def introduce(run: Session) -> None:
    """Print the table of a training, and warn of its data; in the first process."""
    if not run.first:
        return
    data, val, recipe = run.train_data, run.val_data, run.recipe
    counts = class_counts(data)
    objects = sum(counts.values())
    names = ", ".join(data.names[:5]) + (", ..." if len(data.names) > 5 else "")
    parameters = sum(p.numel() for p in run.detector.parameters())
    trainable = sum(p.numel() for p in run.detector.parameters() if p.requires_grad)
    processes = run.fabric.world_size
    rows = [
        ["data", f"{recipe.data}: {len(data)} train, {len(val or ())} val images"],
        ["objects", f"{objects} of {len(data.names)} classes: {names}"],
        [
            "model",
            f"{recipe.model}: {parameters / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M trained",
        ],
        [
            "steps",
            f"{run.total} in {run.epochs} epochs of {run.steps_per_epoch}, {run.place.step} done",
        ],
        ["batch", f"{recipe.batch} x {recipe.accumulate} x {processes} images a step"],
        ["lr", f"{run.lr:.3g} ({recipe.optimizer}, {recipe.schedule})"],
        ["device", f"{run.fabric.device}, {processes} process(es), precision {recipe.precision}"],
        ["weights", run.start],
        *([["window", run.meta.extra["window"]]] if "window" in run.meta.extra else []),
        ["folder", str(run.dir)],
    ]
    console.table("Training", ["what", "value"], rows)
    for part in {dataset.source: dataset for dataset in (data, val) if dataset}.values():
        if faults := describe_faults(part):
            console.warn(faults)
    if val is None:
        console.note(
            "no validation (val_fraction=0): all images train, patience has nothing to wait for, "
            "and the newest weights are kept as best"
        )
        return
    for text in (no_objects(val), unlike_classes(counts, class_counts(val))):
        if text:
            console.warn(text)
    if shared := len(data.files() & val.files()):
        console.warn(
            f"{shared} of {len(val)} validation images are training images: AP tells how well they "
            "are remembered, not how well new images will do"
        )
