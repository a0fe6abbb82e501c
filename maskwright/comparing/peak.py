"""Memory of a prediction: `python -m maskwright.comparing.peak` is a process for one model.

Its peak is that of a process that has loaded the model and looked at an image, Python and torch
included, or on a GPU what was asked for there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..prediction.load import load
from ..prediction.predictor import Predictor, defaults_of
from ..prediction.reading import Loaded
from ..prediction.sources import one_source
from ..signatures import parse_value
from ..terminal.heap import keep_memory

STATUS = Path("/proc/self/status")  # of Linux
LOOKS = 2  # the second one has the network as it stays


def prediction_memory(model: str | Path, device: str, imgsz: Any, photo: np.ndarray) -> float:
    """Return the peak memory of a prediction in a process of its own, in MB; 0: not known here.

    Args:
        model: checkpoint, run folder or exported file.
        device: see `load`.
        imgsz: see `predict`.
        photo: (H, W, 3) uint8.

    Raises:
        RuntimeError: with the last words of the process, if it fails.
    """
    size = ",".join(map(str, imgsz)) if isinstance(imgsz, tuple) else str(imgsz)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo.npy")
        np.save(file, photo)
        words = [sys.executable, "-m", __name__, str(model), device, size, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        raise RuntimeError(f"a prediction alone was ended by signal {-done.returncode}")
    if done.returncode:
        raise RuntimeError(f"a prediction alone failed: {lines[-1] if lines else 'without a word'}")
    return float(done.stdout.split()[-1])


def usual_settings(predictor: Predictor) -> Any:
    """Return the settings of a prediction for which nobody says anything."""
    call = type(predictor).__call__
    own = predictor.task.options
    given = {name: value for name, value in defaults_of(call).items() if name in own}
    return predictor.settings(given, call)


def predict_once(predictor: Predictor, photo: np.ndarray, rule: Any, settings: Any) -> object:
    """Return all that a model makes of a photo, with what results leave until they are asked."""
    loaded = Loaded(one_source(photo, 0), photo, 0.0)
    return predictor.task.peer.finish(predictor.infer([loaded], rule, settings)[0])


def _main(model: str, device: str, size: str, file: str) -> None:
    predictor = load(model, device=device)
    cuda = predictor.device.type == "cuda"
    if predictor.device.type == "cpu":
        keep_memory()  # as the command does
    photo = np.load(file, allow_pickle=False)
    rule = predictor.resize_rule(parse_value("int | tuple[int, int] | str | None", size))
    settings = usual_settings(predictor)
    for _ in range(LOOKS):
        predict_once(predictor, photo, rule, settings)
    if cuda:
        print(torch.cuda.max_memory_allocated(predictor.device) / 1e6)
    elif STATUS.exists():
        # Not `ru_maxrss`: a process that another one starts begins with the peak of that one.
        print(int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
    else:
        print(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
