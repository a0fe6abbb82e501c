"""The command that a user may paste next: quoted for the shell, with the options that matter."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import Dataset

# Options that change what is found.
SAME = ("iou", "max_det", "imgsz", "soft_nms", "tta", "window", "precision")


def command(*words: str) -> str:
    """Return words as one line that a shell takes apart into these words again."""
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def predict_command(
    model: Sequence[str], dataset: Dataset, conf: float, options: Mapping[str, Any]
) -> str:
    """Return the `maskwright predict` that finds what the report shows.

    Args:
        model: words that name the model, such as "model=runs/train"; empty for a model in memory,
            which no command line can name.
        dataset: images that were evaluated; their folder stands as the source.
        conf: the advised score threshold.
        options: of the evaluation by name; those of `SAME` that differ from the defaults of
            `predict` are repeated, because the threshold belongs to them.

    Returns:
        A line for the shell, or the Python call for a model in memory.
    """
    from ..prediction.predictor import predict

    parameters = inspect.signature(predict).parameters
    own = {
        name: value
        for name, value in options.items()
        if name in SAME and value != parameters[name].default
    }
    if not model:
        given = "".join(f", {name}={value!r}" for name, value in own.items())
        return f"predictor(image, conf={conf:g}{given})"
    words = [f"{name}={_as_written(value)}" for name, value in own.items()]
    source = f"source={images_folder(dataset)}"
    return command("maskwright", "predict", *model, source, f"conf={conf:g}", *words)


def val_command(model: str, data: Any, max_det: int, boundary: bool) -> str:
    """Return the `maskwright val` that gives the figures of a training again."""
    from ..prediction.val import val

    words = ["maskwright", "val", model, f"data={data}"]
    if max_det != inspect.signature(val).parameters["max_det"].default:
        words.append(f"max_det={max_det}")
    return command(*words, *(["boundary=true"] if boundary else []))


def images_folder(dataset: Dataset) -> Path:
    """Return the folder of the first image."""
    return dataset[0].path.parent


def _as_written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value)
