"""Predicted label maps that pictures of an evaluation need: a few of all, and the worst ones.

The maps of a whole data set would fill the memory; these are few, and packed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SPREAD = 4  # images from all parts of the data set
WORST = 12


@dataclass(frozen=True)
class PackedMap:
    """A label map, compressed.

    Attributes:
        iou: mean IoU of the image, by which it was kept.
        size: (height, width).
        data: its labels.
    """

    iou: float
    size: tuple[int, int]
    data: bytes

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.size)


@dataclass
class KeptMaps:
    """The maps of one process.

    Attributes:
        count: images of the data set.
        maps: by position in the data set.
    """

    count: int
    maps: dict[int, PackedMap] = field(default_factory=dict)

    def add(self, index: int, iou: float, labels: npt.NDArray[np.uint8]) -> None:
        """Keep the map (H, W) of an image, if it is one of those; nan is never among the worst."""
        bar = sorted(one.iou for one in self.maps.values() if one.iou == one.iou)
        worst = iou == iou and (len(bar) < WORST + SPREAD or iou < bar[-1])
        if worst or index in spread(self.count):
            height, width = labels.shape
            packed = zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)
            self.maps[index] = PackedMap(iou, (height, width), packed)
            self.maps = chosen([self.maps], self.count)


def spread(count: int) -> list[int]:
    """Return the positions of up to `SPREAD` images from all parts of a data set."""
    places = np.linspace(0, count - 1, min(SPREAD, count)).astype(int)
    return sorted({int(place) for place in places})


def chosen(parts: Iterable[Mapping[int, PackedMap]], count: int) -> dict[int, PackedMap]:
    """Return the maps that are kept of those of all processes, by position.

    Args:
        parts: of the processes; an image may be in several.
        count: images of the data set.
    """
    whole = {index: one for part in parts for index, one in part.items()}
    ranked = sorted(
        (index for index, one in whole.items() if one.iou == one.iou),
        key=lambda index: (whole[index].iou, index),
    )
    picked = {*spread(count), *ranked[:WORST]}
    return {index: whole[index] for index in sorted(picked & whole.keys())}
