"""The stage after the training, for models that have one: what gradient descent does not fit.

It starts from the best weights and depends on nothing else, so that a run that is stopped in it
goes on by beginning it again. Every process computes it; what the first one found is taken by all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..nn.track import Piece
from ..storage.checkpoint import load_checkpoint, load_state
from ..structures import Images
from ..terminal import console
from ..terminal.interrupt import Interrupt
from .session import Session


class _StoppedError(Exception):
    """A signal between two images."""


def fit_after_training(run: Session, interrupt: Interrupt) -> bool:
    """Fit what follows the training, on the best weights; False if it was interrupted."""
    start = time.monotonic()
    best = run.dir / "weights" / "best.safetensors"
    run.fabric.barrier()  # the first process has written it
    weights = load_checkpoint(best).model
    models = [run.model] if run.ema is None else [run.model, run.ema.model]
    for one in models:
        load_state(one, weights, best)
    model = models[-1]
    was_training = model.training
    model.eval()
    passes = 0

    def batches() -> Iterator[tuple[Images, Any]]:
        nonlocal passes
        passes += 1
        loader = run.task.eval_loader(model, run.train_data, workers=run.recipe.workers)
        total, label = len(run.train_data), f"fit, pass {passes}"
        with console.progress(label, total=total, unit="img", enabled=run.first) as bar:
            for batch in interrupt.listen(loader, waits=loader.workers > 0):
                yield batch.images, batch.targets
                bar.update(len(batch))
        if interrupt.left:
            raise _StoppedError

    def track(label: str, pieces: Sequence[Piece]) -> Iterator[Piece]:
        for piece in console.track(pieces, f"fit, {label}", enabled=run.first):
            if interrupt.wanted:
                raise _StoppedError
            yield piece

    names = [name or f"class {label}" for label, name in enumerate(run.meta.names)]
    try:
        say = console.warn if run.first else lambda text: None
        model.fit_after_training(batches, len(run.train_data), names, say, track)
        stopped = False
    except _StoppedError:
        stopped = True
    finally:
        model.train(was_training)
    if any(run.gather(stopped)):
        return False
    if run.fabric.world_size > 1:
        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
    for one in models[:-1]:
        one.load_state_dict(model.state_dict())
    run.place.seconds += time.monotonic() - start
    return True
