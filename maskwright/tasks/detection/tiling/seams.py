"""Objects of a large image out of those that were found in its tiles.

Two tiles see their common strip alike: an object that reaches into it has, there, the same pixels
in both. Two finds are therefore one object if, *within what both tiles show*, the IoU of their
masks is at least 1/2. What they have outside of it says nothing, and boxes say little: those of
touching objects overlap, masks do not. As the masks of a tile hardly overlap each other, at most
one of a tile can agree so with a given mask.

What is one object is seen best by the tile whose inner borders are farthest from it. If these are
far enough, the object is what that tile says; if every tile cuts it, it is all parts together. A
part at the border of a tile that another tile shows with more around it is left out: that tile
decides, also against it. So nothing hangs on how a network sees the last pixels of a tile.

Larger tiles say what is too long for the strips of the smaller ones; of what both see whole the
smaller tiles decide, which see it larger, of what these cut the larger ones. A model without masks
has its boxes in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ops.rle import Crop, Frame
from ....structures import Tile, Tiling

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Pair = tuple[float, int, int]  # an agreement, and the two that agree

SAME = 0.5  # IoU within the common part from which on two finds are one object
SHARE = 16  # of a strip: what is nearer to a border of its tile may be cut by it


@dataclass(frozen=True)
class Finds:
    """What was found in all tiles, in pixels of the image.

    Attributes:
        boxes: (N, 4) xyxy.
        scores: (N,).
        labels: (N,).
        tiles: (N,) positions in the list of all tiles, rising.
        mask: the mask of a find by its position, as a crop and its frame; None: there are boxes.
    """

    boxes: Floats
    scores: Floats
    labels: Numbers
    tiles: Numbers
    mask: Callable[[int], tuple[Crop, Frame]] | None = None


@dataclass(frozen=True)
class Group:
    """An object of the image.

    Attributes:
        members: positions of the finds that it is made of: one, if a tile sees it whole.
        whole: whether a tile does.
    """

    members: tuple[int, ...]
    whole: bool


def united(finds: Finds, tiling: Tiling, size: tuple[int, int]) -> list[Group]:
    """Return the objects of an image.

    Args:
        finds: of all tiles, in their order.
        tiling: how the image was cut.
        size: (height, width) of the image.
    """
    kept: list[Group] = []
    first = 0
    for number, tiles in enumerate(tiling.tiles(size)):
        strip = tiling.strip * 2**number
        here = np.flatnonzero((finds.tiles >= first) & (finds.tiles < first + len(tiles)))
        if number:  # what fits into a strip of the level before, a tile of it has seen whole
            sides = finds.boxes[here, 2:] - finds.boxes[here, :2]
            here = here[sides.max(1, initial=0) > strip / 2]
        kept = _over_levels(finds, kept, _Level(finds, tiles, first, here, strip, size).groups())
        first += len(tiles)
    return kept


class _Level:
    """The finds of the tiles of one level.

    Args:
        finds: of all tiles.
        tiles: of this level.
        first: position of the first of them among all tiles.
        here: positions of the finds.
        strip: pixels that neighbours have in common, at least.
        size: (height, width) of the image.
    """

    def __init__(
        self,
        finds: Finds,
        tiles: Sequence[Tile],
        first: int,
        here: Numbers,
        strip: float,
        size: tuple[int, int],
    ) -> None:
        self.finds, self.tiles, self.first, self.size = finds, tiles, first, size
        # Of the tiles, which are a grid: its columns and rows, (first, behind the last) each.
        self.columns = sorted({(tile.left, tile.right) for tile in tiles})
        self.rows = sorted({(tile.top, tile.bottom) for tile in tiles})
        self.near = max(strip / SHARE, 1.0)
        boxes = finds.boxes[here]
        column = [self.columns.index((tile.left, tile.right)) for tile in tiles]
        row = [self.rows.index((tile.top, tile.bottom)) for tile in tiles]
        own = finds.tiles[here] - first
        across = _depths(boxes[:, 0], boxes[:, 2], self.columns, size[1])
        down = _depths(boxes[:, 1], boxes[:, 3], self.rows, size[0])
        every = np.arange(len(here))
        depths = np.minimum(
            across[every, np.array(column, int)[own]], down[every, np.array(row, int)[own]]
        )
        best = np.minimum(across.max(1, initial=0), down.max(1, initial=0))
        # Twice as far, so that two tiles whose finds differ a little never leave it to each other.
        decided = (depths < self.near) & (best >= 2 * self.near)
        self.here = here[~decided]
        self.depth = dict(zip(self.here.tolist(), depths[~decided].tolist(), strict=True))
        self.of_tile = [self.here[finds.tiles[self.here] == first + k] for k in range(len(tiles))]

    def groups(self) -> list[Group]:
        """Return the objects: finds that agree, one of a tile at most, the surest pairs first."""
        pairs = sorted(self._pairs(), key=lambda pair: (-pair[0], pair[1:]))
        group = {k: [k] for k in self.here.tolist()}
        tiles = {k: {int(self.finds.tiles[k])} for k in group}
        for _, a, b in pairs:
            one, other = group[a], group[b]
            if one is other or tiles[one[0]] & tiles[other[0]]:
                continue
            tiles[one[0]] |= tiles[other[0]]
            one += other
            for k in other:
                group[k] = one
        found = []
        for k, members in group.items():
            if members[0] == k:
                found.append(self._group(members))
        return found

    def _group(self, members: Sequence[int]) -> Group:
        scores = self.finds.scores
        best = max(members, key=lambda k: (self.depth[k], scores[k], -k))
        if self.depth[best] >= self.near:
            return Group((best,), True)
        return Group(tuple(sorted(members)), False)

    def _pairs(self) -> Iterator[Pair]:
        """Yield finds of one class that agree within what both of their tiles show."""
        boxes, labels = self.finds.boxes, self.finds.labels
        for one, other, (x1, y1, x2, y2) in self._strips():
            mine, theirs = (
                own[
                    (boxes[own, 0] < x2)
                    & (boxes[own, 2] > x1)
                    & (boxes[own, 1] < y2)
                    & (boxes[own, 3] > y1)
                ]
                for own in (self.of_tile[one], self.of_tile[other])
            )
            if not len(mine) or not len(theirs):
                continue
            limits = (x1, y1, x2, y2)
            cut = [_clipped(boxes[own], limits) for own in (mine, theirs)]
            shared = _overlaps(*cut)
            close = (shared > 0) & (labels[mine, None] == labels[None, theirs])
            if self.finds.mask is None:
                shares = shared / _union(shared, *map(_areas, cut))
                for i, j in np.argwhere(close & (shares >= SAME)).tolist():
                    yield float(shares[i, j]), int(mine[i]), int(theirs[j])
                continue
            for i, j in np.argwhere(close).tolist():
                a, b = int(mine[i]), int(theirs[j])
                both, *areas = _shared_pixels(self.finds.mask(a), self.finds.mask(b), limits)
                share = both / max(sum(areas) - both, 1)
                if share >= SAME:
                    yield share, a, b

    def _strips(self) -> Iterator[tuple[int, int, Frame]]:
        """Yield the positions of two tiles with finds, and what both show."""
        at = {(tile.top, tile.left): k for k, tile in enumerate(self.tiles)}
        busy = {k for k, own in enumerate(self.of_tile) if len(own)}
        for k in sorted(busy):
            tile = self.tiles[k]
            for top, bottom in self.rows:
                if not tile.top <= top < tile.bottom:
                    continue
                for left, right in self.columns:
                    other = at[top, left]
                    x1, x2 = max(left, tile.left), min(right, tile.right)
                    if other > k and other in busy and x1 < x2:
                        yield k, other, (x1, top, x2, min(bottom, tile.bottom))


def _depths(low: Floats, high: Floats, spans: Sequence[tuple[int, int]], length: int) -> Floats:
    """Return (N, S) how far from the inner borders of spans along an axis intervals lie in them."""
    begin = np.array([first if first else -np.inf for first, _ in spans])
    end = np.array([last if last < length else np.inf for _, last in spans])
    deep: Floats = np.minimum(low[:, None] - begin, end - high[:, None])
    return deep


def _over_levels(finds: Finds, fine: Sequence[Group], coarse: Sequence[Group]) -> list[Group]:
    """Return the objects of two levels; `fine` are those of all levels before."""
    if not fine or not coarse:
        return [*fine, *coarse]
    boxes = np.stack([group_box(finds, group) for group in fine])
    labels = np.array([finds.labels[group.members[0]] for group in fine])
    dropped: set[int] = set()
    added = []
    for group in coarse:
        box = group_box(finds, group)
        near = (_overlaps(boxes, box[None])[:, 0] > 0) & (labels == finds.labels[group.members[0]])
        stands, replaced = True, []
        for k in np.flatnonzero(near).tolist():
            both, part, area = _compared(finds, fine[k], group)
            same = both >= SAME * (part + area - both)
            cut = not fine[k].whole and group.whole
            if same and not cut:
                stands = False
                break
            weaker = score_of(finds, fine[k]) <= score_of(finds, group)
            if cut and (same or (both >= SAME * part and weaker)):
                replaced.append(k)
        if stands:
            added.append(group)
            dropped.update(replaced)
    return [group for k, group in enumerate(fine) if k not in dropped] + added


def _compared(finds: Finds, one: Group, other: Group) -> tuple[float, float, float]:
    """Return the pixels that two objects have in common, and of each all."""
    if finds.mask is None:
        pair = [group_box(finds, group)[None] for group in (one, other)]
        shared = float(_overlaps(pair[0], pair[1])[0, 0])
        return shared, float(_areas(pair[0])[0]), float(_areas(pair[1])[0])
    first, second = group_mask(finds, one), group_mask(finds, other)
    frames = np.array([first[1], second[1]])
    low, high = frames[:, :2].min(0).tolist(), frames[:, 2:].max(0).tolist()
    return _shared_pixels(first, second, (low[0], low[1], high[0], high[1]))


def score_of(finds: Finds, group: Group) -> float:
    """Return the score of an object: that of its surest part."""
    return float(finds.scores[list(group.members)].max())


def group_box(finds: Finds, group: Group) -> Floats:
    """Return (4,) xyxy of an object."""
    boxes = finds.boxes[list(group.members)]
    box: Floats = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return box


def group_mask(finds: Finds, group: Group) -> tuple[Crop, Frame]:
    """Return the mask of an object as a crop and its frame."""
    assert finds.mask is not None
    parts = [finds.mask(k) for k in group.members]
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if part[0].size] or parts[:1]
    frames = np.array([frame for _, frame in parts])
    left, top = frames[:, :2].min(0).tolist()
    right, bottom = frames[:, 2:].max(0).tolist()
    whole = np.zeros((bottom - top, right - left), bool)
    for crop, (x1, y1, x2, y2) in parts:
        whole[y1 - top : y2 - top, x1 - left : x2 - left] |= crop
    return whole, (left, top, right, bottom)


def _shared_pixels(
    one: tuple[Crop, Frame], other: tuple[Crop, Frame], limits: Frame
) -> tuple[float, float, float]:
    """Return the pixels within limits that two masks have in common, and of each all there."""
    areas = [float(np.count_nonzero(_part(mask, limits))) for mask in (one, other)]
    low = [max(a, b, c) for a, b, c in zip(one[1][:2], other[1][:2], limits[:2], strict=True)]
    high = [min(a, b, c) for a, b, c in zip(one[1][2:], other[1][2:], limits[2:], strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return 0.0, areas[0], areas[1]
    common = (low[0], low[1], high[0], high[1])
    both = np.count_nonzero(_part(one, common) & _part(other, common))
    return float(both), areas[0], areas[1]


def _part(mask: tuple[Crop, Frame], limits: Frame) -> Crop:
    """Return what of a mask lies within limits; of a frame around them, all that they enclose."""
    crop, (left, top, _, _) = mask
    x1, y1, x2, y2 = limits
    part: Crop = crop[max(y1 - top, 0) : max(y2 - top, 0), max(x1 - left, 0) : max(x2 - left, 0)]
    return part


def _clipped(boxes: Floats, limits: Frame) -> Floats:
    x1, y1, x2, y2 = limits
    clipped: Floats = boxes.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
    return clipped


def _overlaps(boxes: Floats, others: Floats) -> Floats:
    """Return (N, M) pixels that boxes (N, 4) have in common with others (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Floats = (high - low).clip(0).prod(2)
    return shared


def _areas(boxes: Floats) -> Floats:
    areas: Floats = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas


def _union(shared: Floats, areas: Floats, others: Floats) -> Floats:
    union: Floats = np.maximum(areas[:, None] + others[None] - shared, 1e-9)
    return union
