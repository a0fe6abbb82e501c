"""The objects of a large image, from the detections of its tiles; masks stay codes throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....ops.rle import Crop, Frame, decode_rle, encode_crops
from ....structures import Detections, Tile
from ...assembling import Assembler
from ..crf import mask_codes, refined
from ..settings import DetectionSettings
from .seams import Finds, Group, group_box, group_mask, score_of, united

KEPT = 1024  # decoded masks of two neighbouring tiles and more
BATCH = 1024  # masks that are coded at once


class ObjectAssembler(Assembler):
    """Collects the objects of tiles; see `seams`.

    Args:
        settings: of the prediction, with a tiling.
        size: (height, width) of the image.
        paste_mode: how masks return to pixels, see `ops.paste_masks`.
    """

    PARTIAL = True  # what another tile sees better is left out, whether that was looked at or not

    def __init__(
        self,
        settings: DetectionSettings,
        size: tuple[int, int],
        paste_mode: str,
    ) -> None:
        super().__init__(settings)
        assert settings.tiling is not None
        self.tiling, self.size = settings.tiling, size
        self.paste_mode = paste_mode
        self._parts: list[Detections] = []
        self._codes: list[Mapping[str, Any]] = []
        self._tiles: list[Tile] = []
        self._masks = False

    def add(self, tile: Tile, found: Detections, pixels: np.ndarray) -> None:
        """Take over the objects of a tile; see `Assembler`."""
        if self.settings.crf is not None:
            found = refined(found, pixels, self.settings.crf, mode=self.paste_mode)
        codes = mask_codes(found, self.paste_mode)
        self._masks = codes is not None
        self._codes += codes or ()
        corner = torch.tensor([tile.left, tile.top], dtype=torch.float64)
        points = found.keypoints
        if points is not None:
            points = torch.cat([points[..., :2] + corner, points[..., 2:].double()], -1)
        full = found.full or len(found) >= self.settings.post.max_det
        self._tiles.append(tile)
        self._parts.append(
            Detections(
                self.size,
                found.boxes.double() + corner.repeat(2),
                found.scores,
                found.labels,
                keypoints=points,
                short=found.short,
                full=full,
            )
        )

    def finish(self) -> Detections:
        """Return the objects of the image by falling score; see `Assembler`."""
        parts = self._parts
        counts = [len(part) for part in parts]
        owner = np.repeat(np.arange(len(parts)), counts)
        mask = lru_cache(KEPT)(lambda k: self._mask(k, self._tiles[owner[k]]))
        finds = Finds(
            torch.cat([part.boxes for part in parts]).numpy(),
            torch.cat([part.scores for part in parts]).double().numpy(),
            torch.cat([part.labels for part in parts]).numpy(),
            owner,
            mask if self._masks else None,
        )
        groups = united(finds, self.tiling, self.size)
        scores = np.array([score_of(finds, group) for group in groups])
        groups = [groups[k] for k in np.argsort(-scores, kind="stable").tolist()]
        boxes = np.array([group_box(finds, group) for group in groups]).reshape(-1, 4)
        labels = [int(finds.labels[group.members[0]]) for group in groups]
        points = None
        if parts[0].keypoints is not None:
            every = torch.cat([part.keypoints for part in parts if part.keypoints is not None])
            surest = [_surest(every[list(group.members)]) for group in groups]
            points = torch.stack(surest).float() if surest else every[:0].float()
        return Detections(
            self.size,
            torch.from_numpy(boxes).float(),
            torch.from_numpy(-np.sort(-scores)).float(),
            torch.tensor(labels, dtype=torch.int64),
            keypoints=points,
            short=any(part.short for part in parts),
            codes=self._coded(finds, groups) if self._masks else None,
            full=any(part.full for part in parts),
        )

    def _mask(self, number: int, tile: Tile) -> tuple[Crop, Frame]:
        """Return a mask in the image; an empty one agrees with nothing."""
        crop, (x1, y1, x2, y2) = decode_rle(self._codes[number])
        if not crop.size:
            return np.zeros((0, 0), bool), (tile.left, tile.top, tile.left, tile.top)
        return crop, (x1 + tile.left, y1 + tile.top, x2 + tile.left, y2 + tile.top)

    def _coded(self, finds: Finds, groups: Sequence[Group]) -> list[dict[str, Any]]:
        """Return the run-length codes of objects in the image."""
        codes: list[dict[str, Any]] = []
        for first in range(0, len(groups), BATCH):
            some = [group_mask(finds, group) for group in groups[first : first + BATCH]]
            some = [(crop, frame if crop.size else (0, 0, 0, 0)) for crop, frame in some]
            codes += encode_crops([c for c, _ in some], [f for _, f in some], self.size)
        return codes


def _surest(points: Tensor) -> Tensor:
    """Return (J, 3): each keypoint of (V, J, 3) in the view of its highest score."""
    view = points[..., 2].argmax(0)
    return points[view, torch.arange(points.shape[1])]
