"""Proposals on the disk: computed once for an image, whatever its file is called.

One `.npz` file an image, named by a hash of the pixels and of the source with its options. A file
that is damaged or empty is computed anew, with a warning.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskwright.files import replacing

from .files import UNREADABLE
from .sources import Proposals, Source

VERSION = 2  # of what is stored; raise it when a source finds something else


@dataclass(frozen=True)
class ProposalStore:
    """The proposals of any image: from the cache, or computed and put there.

    Attributes:
        source: finds them.
        folder: the cache; None: nothing is kept.
        count: most proposals of an image, the best ones; the cache holds all.
    """

    source: Source
    folder: Path | None = None
    count: int = 2000

    def __call__(
        self, image: np.ndarray, *, image_file: Path | None = None, image_id: int | None = None
    ) -> Proposals:
        """Return the proposals of an image; see `Source`."""
        found = self._cached(image, image_file, image_id)
        return replace(found, boxes=found.boxes[: self.count], scores=found.scores[: self.count])

    def path(self, image: np.ndarray) -> Path | None:
        """Return the cache file of an image; None without a cache."""
        if self.folder is None or not self.source.computes:
            return None
        digest = hashlib.blake2b(repr((VERSION, self.source.key, image.shape)).encode())
        digest.update(np.ascontiguousarray(image).data)
        name = digest.hexdigest()[:40]
        return self.folder / name[:2] / f"{name}.npz"

    def _cached(
        self, image: np.ndarray, image_file: Path | None, image_id: int | None
    ) -> Proposals:
        path = self.path(image)
        if path is not None and path.is_file():
            try:
                return _read(path)
            except (*UNREADABLE, KeyError) as error:
                reason = str(error) or type(error).__name__
                warnings.warn(
                    f"{path}: damaged ({reason}); the proposals of "
                    f"{image_file.name if image_file else 'an image'} are computed anew",
                    stacklevel=3,
                )
        found = self.source(image, image_file=image_file, image_id=image_id)
        if path is not None:
            _write(path, found)
        return found


def _read(path: Path) -> Proposals:
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        boxes, scores, dropped = (arrays[key] for key in ("boxes", "scores", "dropped"))
    good = boxes.dtype == scores.dtype == np.float32 and boxes.shape == (len(scores), 4)
    if not good or not np.isfinite(boxes).all() or dropped.shape != ():
        raise ValueError("it holds something else than proposals")
    return Proposals(boxes, scores, int(dropped), cached=True)


def _write(path: Path, found: Proposals) -> None:
    """Write a cache file; what another process reads meanwhile is whole."""
    advice = "make room, or set MASKWRIGHT_HOME to a folder that can be written"
    kept = replacing(path, durable=False, advice=advice)
    with kept as temporary, temporary.open("wb") as file:
        np.savez(file, boxes=found.boxes, scores=found.scores, dropped=found.dropped)
