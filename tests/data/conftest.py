"""A small data set written to disk, which the tests then damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SQUARE = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]


class Scene:
    """Two images of 40 x 30 pixels (width x height), one object each; `content` may be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "train.json"
        rng = np.random.default_rng(0)
        for name in ("a.png", "b.png"):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / name)
        self.content: Any = {
            "images": [
                {"id": 5, "file_name": "a.png", "height": 30, "width": 40},
                {"id": 9, "file_name": "b.png", "height": 30, "width": 40},
            ],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 5,
                    "category_id": 3,
                    "bbox": [2, 2, 10, 10],
                    "area": 100,
                    "iscrowd": 0,
                    "segmentation": SQUARE,
                },
                {
                    "id": 2,
                    "image_id": 9,
                    "category_id": 7,
                    "bbox": [20, 10, 10, 10],
                    "area": 100,
                    "iscrowd": 0,
                    "segmentation": [[20, 10, 30, 10, 30, 20, 20, 20]],
                },
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        }

    @property
    def first(self) -> dict[str, Any]:
        """The first annotation."""
        annotation: dict[str, Any] = self.content["annotations"][0]
        return annotation

    def write(self) -> Path:
        self.file.write_text(json.dumps(self.content), encoding="utf-8")
        return self.file


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of what is unpacked."""
    folder = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("MASKWRIGHT_HOME", str(folder))
    return folder


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def write_png() -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)

    return write
