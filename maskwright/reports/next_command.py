"""The command that a user may paste next: quoted for the shell, with the options that matter."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import Dataset

# Options that change what is found.
SAME = (
    *("iou", "max_det", "imgsz", "soft_nms", "tta", "window", "precision"),
    *("tile", "overlap", "tile_levels", "slide", "crf", "page", "channels"),
)


def command(*words: str) -> str:
    """Return words as one line that a shell takes apart into these words again."""
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def predict_command(model: Sequence[str], dataset: Dataset, options: Mapping[str, Any]) -> str:
    """Return the `maskwright predict` that finds what a report shows.

    Args:
        model: words that name the model, such as "model=runs/train"; empty for a model in memory,
            which no command line can name.
        dataset: images that were evaluated; their folder stands as the source.
        options: options of the prediction by name.

    Returns:
        A line for the shell, or the Python call for a model in memory.
    """
    if not model:
        given = "".join(f", {name}={_as_python(value)}" for name, value in options.items())
        return f"predictor(image{given})"
    words = [f"{name}={_as_written(value)}" for name, value in options.items()]
    return command("maskwright", "predict", *model, f"source={images_folder(dataset)}", *words)


def val_command(model: str, data: Any, options: Mapping[str, Any]) -> str:
    """Return the `maskwright val` that gives the figures of a training again."""
    words = [f"{name}={_as_written(value)}" for name, value in options.items()]
    return command("maskwright", "val", model, f"data={data}", *words)


def export_command(model: str, conf: float) -> str:
    """Return the `maskwright export` of a file that a prediction with `conf` can be asked of."""
    return command("maskwright", "export", model, "format=onnx", f"conf={_as_written(conf)}")


def changed(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that change what is found and differ from their defaults."""
    return {
        name: value
        for name, value in options.items()
        if name in SAME and value != defaults.get(name)
    }


def images_folder(dataset: Dataset) -> Path:
    """Return the folder of the first image; of images in folders by class a pattern of all.

    Images that are no files have none: a name stands for one of the user's own.
    """
    first = dataset[0]
    if first.stored:
        return Path("image.png")
    if dataset.records == "labels":
        return dataset.root / "**" / "*"
    return first.path.parent


def _as_written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_as_written(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_python(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
