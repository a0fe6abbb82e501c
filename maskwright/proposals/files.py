"""Files of proposals: COCO results, and arrays by the name of the image.

`.json` is a list of {"image_id", "bbox": [x, y, width, height], "score"}; `.npz` holds for each
image the arrays `boxes/<file name>` (n, 4) xyxy and, if there are scores, `scores/<file name>`
(n,). Where two images have the same file name, each has that of its folder before it, as in
`boxes/plate 1/07.png`. Boxes are in pixels of the original image.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.files import replacing
from maskwright.text import encodable

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
        self._asked: dict[str, Path] = {}
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
        self, image_file: Path | None, image_id: int | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return boxes (n, 4) xyxy and scores (n,), or None, of an image.

        Raises:
            ValueError: if the file has nothing for it or the same for another image, or what it
                has is no array of boxes.
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
        file_name = self._name(image_file)
        with self._open() as arrays:
            boxes = np.asarray(arrays[f"boxes/{file_name}"], dtype=np.float64)
            key = f"scores/{file_name}"
            scores = np.asarray(arrays[key], dtype=np.float64) if key in arrays else None
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{self.path}, boxes/{file_name}: expected (n, 4), got {boxes.shape}")
        if scores is not None and not np.isfinite(scores).all():
            raise ValueError(f"{self.path}, scores/{file_name}: not all of them are numbers")
        if scores is not None and scores.shape != boxes.shape[:1]:
            raise ValueError(
                f"{self.path}, scores/{file_name}: expected {len(boxes)} numbers, got "
                f"{scores.shape}"
            )
        return boxes, scores

    def _name(self, image_file: Path | None) -> str:
        """Return under which name an image stands: the longest end of its path that there is."""
        parts = () if image_file is None else image_file.parts
        name = next((tail for tail in _tails(parts) if tail in self._names), None)
        if name is None or image_file is None:
            raise ValueError(
                f"{self.path} has no proposals for {parts[-1] if parts else 'an image without a '}"
                f"{'' if parts else 'file name'}; it has those of {min(self._names)} and "
                f"{len(self._names) - 1} more. Is it the file of another split or data set? Where "
                "each split has its own, {split} stands for it, as in source=proposals_{split}.npz"
            )
        if self._asked.setdefault(name, image_file) != image_file:
            raise ValueError(
                f"{self.path}: boxes/{name} would stand for two images, {self._asked[name]} and "
                f"{image_file}: put the name of the folder before that of the file, as `maskwright "
                "proposals` does where two files have the same name"
            )
        return name


def _tails(parts: Sequence[str]) -> Iterator[str]:
    """Yield the ends of a path, the longest first."""
    for first in range(len(parts)):
        yield _stored("/".join(parts[first:]))


def _stored(name: str) -> str:
    """Return a name as a ZIP archive can hold it: bytes that are no UTF-8 are escaped."""
    return encodable(name, "utf-8")


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return names of image files for a file of proposals: no two images have the same.

    The name of the file where no other image has it, else the shortest end of the path that tells
    them apart.
    """
    depth = dict.fromkeys(paths, 1)
    while True:
        known: dict[str, set[Path]] = {}
        for path, parts in depth.items():
            known.setdefault("/".join(path.parts[-parts:]), set()).add(path)
        shared = [path for same in known.values() if len(same) > 1 for path in same]
        if not shared:
            return ["/".join(path.parts[-depth[path] :]) for path in paths]
        for path in shared:
            depth[path] += 1


def write_proposals(path: Path, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a `.npz` file of proposals that `ProposalFile` reads.

    Args:
        path: the file.
        found: boxes (n, 4) xyxy and scores (n,) by the file name of the image.
    """
    arrays: dict[str, Any] = {}
    for name, (boxes, scores) in found.items():
        arrays[f"boxes/{_stored(name)}"] = boxes
        arrays[f"scores/{_stored(name)}"] = scores
    with replacing(path) as temporary, temporary.open("wb") as file:
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
