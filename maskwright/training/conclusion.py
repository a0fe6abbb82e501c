"""The end of a training: what is said, the report of its best epoch, and what is handed back."""

from __future__ import annotations

from ..processes import signal_name
from ..reports.undefined import is_defined, undefined_line, undefined_metrics
from ..tasks.base import Written
from ..terminal import console
from .result import TrainResult
from .session import Session


def go_on(run: Session) -> str:
    """Return in words how a run goes on that has stopped."""
    return f"go on with\n  {run.resuming}"


def write_report(run: Session) -> Written | None:
    """Write the report of the best epoch from what it left; None if it left nothing."""
    place, recipe, task = run.place, run.recipe, run.task
    assert run.val_data is not None
    best = task.best_evaluation(run.dir, recipe, place.best_metrics, run.val_data)
    if best is None:
        return None
    settings, _ = task.validation(recipe)
    written = task.write_report(
        run.dir,
        best,
        run.val_data,
        settings,
        title=f"Training of {recipe.model} on {recipe.data}, best epoch {place.best_epoch}",
        options=recipe.to_dict(),
        device=str(run.fabric.device),
        notes=best.warnings(by="model"),
        origin=[f"model={run.dir}"],
        same=task.repeated(recipe),
    )
    for line in written.lines:
        console.note(line)
    return written


def conclude(run: Session, reason: str | None, number: int) -> TrainResult:
    """Say how a training ended, write its report, and return what it left.

    Args:
        run: the training.
        reason: why it has ended; None: it was interrupted.
        number: of the signal that did, or 0.
    """
    best = run.dir / "weights" / "best.safetensors"
    last = run.dir / "weights" / "last.safetensors"
    found = best.is_file()
    if run.first:
        if reason is None:
            by = f" by {signal_name(number)}" if number else ""
            console.note(f"interrupted at step {run.place.step} of {run.total}{by}; {go_on(run)}")
        elif run.val_data is None:
            following = run.task.commands(f"model={run.dir}", run.train_data, run.recipe, None)
            console.note(
                f"{reason}, without a validation, so no threshold is advised; next:\n  "
                + following[0]
            )
        elif not found:
            console.note(f"{reason}; the weights are in {last}")
        else:
            metrics = run.place.best_metrics
            whole = {key: value for key, value in metrics.items() if run.task.named(key) is None}
            rows = [[key, value] for key, value in whole.items() if is_defined(value)]
            place = run.place
            title = "After the fit" if place.fitted else f"Best epoch: {place.best_epoch}"
            if rows:
                console.table(f"{title} ({reason})", ["metric", "value"], rows)
                if line := undefined_line(undefined_metrics(whole)):
                    console.note(line)
            else:
                console.note(
                    f"{reason}; {run.task.score} is undefined, the latest weights are in {best}"
                )
            written = write_report(run)
            following = run.task.commands(f"model={run.dir}", run.val_data, run.recipe, written)
            if written is None:
                following = following[1:]  # nothing tells what to look at
            console.note("next:\n  " + "\n  ".join(following))
    return TrainResult(
        run.dir,
        best if found else None,
        last,
        run.place.best_metrics,
        reason is None,
        number,
        run.task.shown,
    )
