"""Recorded outputs of Darknet: a part lies here, all of them beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from maskwright.structures import Instances

HERE = Path(__file__).parent / "darknet"
ALL = Path(__file__).resolve().parents[3] / "shared" / "golden" / "darknet"
FOLDER = ALL if ALL.is_dir() else HERE
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())


def cases(kind: str) -> list[str]:
    """Return the names of the cases of a kind."""
    return [name for name, case in INDEX.items() if case["kind"] == kind]


def tensors(name: str) -> dict[str, Tensor]:
    """Return the tensors of a case."""
    return load_file(FOLDER / INDEX[name]["file"])


def truths(rows: list[list[list[float]]], size: tuple[int, int]) -> Instances:
    """Return objects, given as centre, sides and class, in pixels of a canvas (height, width)."""
    slots = max(1, *(len(image) for image in rows))
    boxes, valid = torch.zeros(len(rows), slots, 4), torch.zeros(len(rows), slots, dtype=torch.bool)
    labels = torch.zeros(len(rows), slots, dtype=torch.int64)
    scale = torch.tensor([size[1], size[0]] * 2)
    for b, image in enumerate(rows):
        for k, (x, y, w, h, label) in enumerate(image):
            corners = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            boxes[b, k], labels[b, k], valid[b, k] = corners * scale, int(label), True
    return Instances(boxes, labels, valid)
