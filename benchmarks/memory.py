"""Memory of long runs: predictions, training steps and epochs of a loader, after a warm-up.

    python benchmarks/memory.py predictions=10000 steps=1000 epochs=20

prints the resident memory after the warm-up and at the end, in MB, one line a run. Linux only.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "nuclei_mini"
MODEL = "mask_rcnn_resnet50_fpn"
TINY = {
    "backbone": "test_efficientnet",
    "width": 16,
    "box_width": 32,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "proposals": 50,
    "rois": 32,
    "imgsz": 64,
}
WORKERS = 4


def resident() -> float:
    """Return the memory of this process and its children in MB."""
    own = str(Path("/proc/self").resolve().name)
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
        except OSError:  # it ended meanwhile
            continue
        if own in (status.parent.name, fields["PPid"].strip()):
            total += int(fields.get("VmRSS", "0 kB").split()[0])
    return total / 1024


def report(what: str, count: int, values: list[float]) -> None:
    print(
        f"{what}: {count}, after warm-up {values[0]:.1f} MB, at the end {values[-1]:.1f} MB, "
        f"growth {values[-1] - values[0]:.1f} MB",
        flush=True,
    )


class Watch:
    """Takes the memory at the end of the warm-up, a tenth of the way, and at the end."""

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0
        self.values: list[float] = []

    def step(self) -> None:
        self.done += 1
        if self.done in (max(self.count // 10, 1), self.count):
            gc.collect()
            self.values.append(resident())


def predictions(count: int) -> None:
    import torch

    from maskwright.models import Meta, build
    from maskwright.prediction.predictor import Predictor

    torch.manual_seed(0)
    predictor = Predictor(build(MODEL, 2, **TINY), Meta(MODEL, TINY, ["a", "b"]), device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (8, 60, 90, 3), np.uint8)
    watch = Watch(count)
    for k in range(count):
        result = predictor(images[k % 8], conf=0.0, max_det=100)
        assert len(result.rle) == len(result)
        watch.step()
    report("predictions", count, watch.values)


def steps(count: int) -> None:
    import maskwright.training.train as module

    watch = Watch(count)
    original = module.optimise

    def optimise(*args: Any) -> bool:
        stop = original(*args)
        watch.step()
        return stop

    module.optimise = optimise
    with tempfile.TemporaryDirectory() as folder:
        module.train(
            DATA, MODEL, model_args=TINY, weights="none", steps=count, batch=2, workers=0,
            device="cpu", project=folder, val_every=10**6, patience=0,
        )  # fmt: skip
    report("training steps", count, watch.values)


def epochs(count: int) -> None:
    from maskwright.data import Augment, make_loader, open_dataset
    from maskwright.structures import Resize

    loader = make_loader(
        open_dataset(DATA), batch=2, resize=Resize(None, 128), augment=Augment(), seed=0,
        workers=WORKERS, shuffle=True,
    )  # fmt: skip
    watch = Watch(count)
    for epoch in range(count):
        loader.set_epoch(epoch)
        for _ in loader:
            pass
        watch.step()
    report(f"epochs of a loader with {WORKERS} workers", count, watch.values)


RUNS: dict[str, tuple[Callable[[int], None], int]] = {
    "predictions": (predictions, 10_000),
    "steps": (steps, 1000),
    "epochs": (epochs, 20),
}

if __name__ == "__main__":
    if not Path("/proc/self/status").is_file():
        sys.exit("memory is read from /proc, which this system lacks")
    given = dict(argument.split("=") for argument in sys.argv[1:])
    for name, (run, count) in RUNS.items():
        if not given or name in given:
            run(int(given.get(name, count)))
