"""Where the evidence for a result lies: what the tasks share of it. See `nn.cam` for the maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import OptionError, nearest
from ..nn.cam import METHODS
from ..reports.result import Mark

# Takes a result, what makes network input of images, and the rule by which that is done; gives
# (H, W) float32 in [0, 1] of the image and what is explained, or None where there is nothing.
Explainer = Callable[[Any, Any, Any], tuple[np.ndarray, Mark] | None]


def check_method(method: Any, model: nn.Module, called: str, *, option: str = "explain") -> str:
    """Return a method of `nn.cam` by its name.

    Args:
        method: as the user gives it.
        model: what is to be explained.
        called: how the user calls it.
        option: which option gives it, for messages.

    Raises:
        OptionError: if there is no such method, or the model is an exported graph.
    """
    if method not in METHODS:
        raise OptionError(
            f"{option} must be one of {', '.join(METHODS)}, got {method!r}"
            f"{nearest(str(method), METHODS)}"
        )
    if next(model.parameters(), None) is None:
        raise OptionError(
            f"{option}={method} needs the layers of the network, and {called} is an exported "
            "graph: give the checkpoint that it was made from"
        )
    return str(method)


def class_of(target: Any, names: Sequence[str]) -> int:
    """Return the class that a user names.

    Args:
        target: its name, or its number from 0 on.
        names: class names of the model.

    Raises:
        OptionError: if the model does not know it; the message names the nearest.
    """
    text = str(target)
    if text in names:
        return list(names).index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    known = ", ".join(names[:10]) + (", ..." if names[10:] else "")
    raise OptionError(
        f"explain_target={text}: the network knows no such class{nearest(text, list(names))} (it "
        f"knows {known})"
    )


def on_image(
    found: Tensor, size: tuple[int, int], window: tuple[float, float, float, float]
) -> np.ndarray:
    """Return a map of the network's input as one of the image, 0 where the network did not look.

    Args:
        found: (h, w) in [0, 1].
        size: (height, width) of the image.
        window: xyxy in pixels of the image: what the map shows of it; it may reach beyond.
    """
    height, width = size
    x1, y1, x2, y2 = window
    # Where the centre of each pixel lies in the map, from -1 to 1.
    x = 2 * (torch.arange(width) + 0.5 - x1) / (x2 - x1) - 1
    y = 2 * (torch.arange(height) + 0.5 - y1) / (y2 - y1) - 1
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    sampled = nn.functional.grid_sample(
        found.detach().cpu().float()[None, None],
        grid[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0, 0]
    inside = (x.abs() <= 1)[None] & (y.abs() <= 1)[:, None]
    # Sampling rounds: the highest value stays within 1.
    heat: np.ndarray = torch.where(inside, sampled, 0).clamp(0, 1).numpy()
    return heat
