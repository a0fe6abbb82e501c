"""Masks as polygons, for the tools in which people move corners; what that changes is counted."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from maskwright.errors import OptionError
from maskwright.ops.outlines import trace_parts
from maskwright.ops.rle import Crop, Frame, rasterise_polygons

from ..columns import pack_offsets
from ..formats.outgoing import joined
from ..records import Dataset
from ..segments import POLYGONS, RLE

FARTHEST = 100.0  # pixels


@dataclass
class Traced:
    """What became of masks that are polygons now.

    Attributes:
        masks: how many there were.
        changed: of them, those whose polygons do not give the same pixels.
        worst: the smallest IoU of a mask and its polygons; 1 where none has changed.
        total: the IoU of all of them together, summed up.
    """

    masks: int = 0
    changed: int = 0
    worst: float = 1.0
    total: float = 0.0

    def lost(self, tolerance: float) -> dict[str, int]:
        """Return what is lost, in words, and of how many objects."""
        if not self.changed:
            return {}
        what = (
            f"masks that polygons within {tolerance:g} pixels give but nearly: IoU "
            f"{self.total / self.masks:.3f} on average of all, {self.worst:.2f} at worst"
        )
        return {what: self.changed}


def checked_tolerance(polygons: float) -> float:
    """Return the option `polygons`.

    Raises:
        OptionError: if it is no distance in pixels.
    """
    number = isinstance(polygons, int | float) and not isinstance(polygons, bool)
    if not number or not 0 <= polygons <= FARTHEST:
        raise OptionError(
            f"polygons={polygons!r}: expected pixels from 0 (exact) to {FARTHEST:g}, or none"
        )
    return float(polygons)


def as_polygons(
    dataset: Dataset, tolerance: float, tell: Callable[[int], None] | None = None
) -> tuple[Dataset, Traced]:
    """Return a data set whose objects have polygons in place of run lengths.

    A part of a mask becomes a polygon, its holes joined to it by lines that are walked twice and
    enclose nothing. Regions that count neither way stay what they are.

    Args:
        dataset: images with objects.
        tolerance: pixels by which a polygon may stray from the edges of the pixels; 0: none, so
            that filling it gives the same mask.
        tell: called with the number of each image that is done.
    """
    table, traced = dataset.columns, Traced()
    first, crowd = table.ann_first.numpy(), table.crowd.numpy()
    kinds = table.kinds.numpy().copy()
    made: dict[int, list[np.ndarray]] = {}
    for index, row in enumerate(dataset.rows.tolist()):
        size = tuple(table.sizes[row].tolist())
        for number in range(int(first[row]), int(first[row + 1])):
            if kinds[number] == RLE and not crowd[number]:
                crop, frame = dataset.mask(index, number - int(first[row]))
                parts = [joined([one]) for one in trace_parts(crop, frame, tolerance=tolerance)]
                kinds[number], made[number] = POLYGONS, parts
                _compare(traced, crop, frame, parts, (size[0], size[1]))
        if tell is not None:
            tell(index + 1)
    points, lengths, counts = array("d"), array("q"), array("q")
    codes, code_lengths = bytearray(), array("q")
    for number in range(len(kinds)):
        own = made.get(number)
        parts = own if own is not None else table.polygons(number) or []
        counts.append(len(parts))
        for part in parts:
            lengths.append(len(part))
            points.frombytes(np.ascontiguousarray(part, np.float64).tobytes())
        code = b"" if own is not None else table.rle(number)
        codes += code
        code_lengths.append(len(code))
    columns = replace(
        table,
        kinds=torch.from_numpy(kinds),
        part_first=pack_offsets(counts),
        point_first=pack_offsets(lengths),
        points=torch.from_numpy(np.frombuffer(points, np.float64).reshape(-1, 2).copy()),
        rle_first=pack_offsets(code_lengths),
        rle_bytes=torch.from_numpy(np.frombuffer(bytes(codes), np.uint8).copy()),
    )
    return dataset.like(columns, dataset.rows), traced


def _compare(
    traced: Traced, crop: Crop, frame: Frame, parts: list[np.ndarray], size: tuple[int, int]
) -> None:
    """Count a mask, and whether its polygons give its pixels."""
    traced.masks += 1
    again, (x1, y1, x2, y2) = rasterise_polygons([one.ravel().tolist() for one in parts], size)
    left, top, right, bottom = frame
    if again.size:
        left, top, right, bottom = min(left, x1), min(top, y1), max(right, x2), max(bottom, y2)
    before, after = (np.zeros((bottom - top, right - left), bool) for _ in range(2))
    a, b = frame[1] - top, frame[0] - left
    before[a : a + crop.shape[0], b : b + crop.shape[1]] = crop
    if again.size:
        after[y1 - top : y2 - top, x1 - left : x2 - left] = again
    both, either = int((before & after).sum()), int((before | after).sum())
    traced.changed += both < either
    iou = both / max(either, 1)
    traced.total += iou
    traced.worst = min(traced.worst, iou)
