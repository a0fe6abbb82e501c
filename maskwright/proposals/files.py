"""Files of proposals: COCO results, and arrays by the name of the image.

`.json` is a list of {"image_id", "bbox": [x, y, width, height], "score"}; `.npz` holds for each
image the arrays `boxes/<file name>` (n, 4) xyxy and, if there are scores, `scores/<file name>`
(n,). Boxes are in pixels of the original image.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# What a file that should hold arrays may raise: RuntimeError where its zip seems encrypted or has
# an unknown method, TypeError where it is no zip but one array.
UNREADABLE = (OSError, ValueError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile)


class ProposalFile:
    """A file of proposals, opened.

    Args:
        path: ends in `.json` or `.npz`.

    Raises:
        ValueError: if it cannot be read or is no such file; the message names file and entry.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{path}: there is no such file of proposals")
        self._by_id: dict[int, np.ndarray] = {}
        self._names: set[str] = set()
        if self.path.suffix == ".json":
            self._by_id = _read_results(self.path)
        else:
            with self._open() as arrays:
                self._names = {key[6:] for key in arrays if key.startswith("boxes/")}
            if not self._names:
                raise ValueError(f"{path}: holds no array boxes/<file name>")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                yield arrays
        except UNREADABLE as error:
            raise ValueError(f"{self.path}: cannot be read as arrays ({error})") from None

    def find(
        self, file_name: str | None, image_id: int | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return boxes (n, 4) xyxy and scores (n,), or None, of an image.

        Raises:
            ValueError: if the file has nothing for it, or what it has is no array of boxes.
        """
        if self.path.suffix == ".json":
            if image_id is None:
                raise ValueError(
                    f"{self.path} tells images by their id, which a photo outside a data set has "
                    "not: use a file of arrays (.npz), which has file names, or a source that "
                    "computes"
                )
            rows = self._by_id.get(image_id)
            if rows is None:  # a results file has no rows for an image without proposals
                return np.zeros((0, 4)), np.zeros(0)
            return rows[:, :4], rows[:, 4]
        if file_name is None or file_name not in self._names:
            raise ValueError(
                f"{self.path} has no proposals for {file_name or 'an image without a file name'}; "
                f"it has those of {min(self._names)} and {len(self._names) - 1} more. Is it the "
                "file of another split or data set? Where each split has its own, {split} stands "
                "for it, as in source=proposals_{split}.npz"
            )
        with self._open() as arrays:
            boxes = np.asarray(arrays[f"boxes/{file_name}"], dtype=np.float64)
            key = f"scores/{file_name}"
            scores = np.asarray(arrays[key], dtype=np.float64) if key in arrays else None
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{self.path}, boxes/{file_name}: expected (n, 4), got {boxes.shape}")
        if scores is not None and scores.shape != boxes.shape[:1]:
            raise ValueError(
                f"{self.path}, scores/{file_name}: expected {len(boxes)} numbers, got "
                f"{scores.shape}"
            )
        return boxes, scores


def write_proposals(path: Path, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a `.npz` file of proposals that `ProposalFile` reads.

    Args:
        path: the file.
        found: boxes (n, 4) xyxy and scores (n,) by the file name of the image.
    """
    arrays: dict[str, Any] = {}
    for name, (boxes, scores) in found.items():
        arrays[f"boxes/{name}"] = boxes
        arrays[f"scores/{name}"] = scores
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _read_results(path: Path) -> dict[int, np.ndarray]:
    """Return (n, 5) float64 xyxy and score by image id."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of COCO results, got a {type(rows).__name__}")
    grouped: dict[int, list[list[float]]] = {}
    for number, row in enumerate(rows):
        try:
            x, y, width, height = (float(value) for value in row["bbox"])
            score = float(row.get("score", 1.0))
            numbers = [x, y, x + width, y + height, score]
            if not all(map(math.isfinite, numbers)) or isinstance(row["image_id"], bool):
                raise ValueError
            grouped.setdefault(int(row["image_id"]), []).append(numbers)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise ValueError(
                f"{path}: entry {number} is no COCO result with image_id, bbox and score: "
                f"{str(row)[:100]}"
            ) from None
    return {image: np.array(values, dtype=np.float64) for image, values in grouped.items()}
