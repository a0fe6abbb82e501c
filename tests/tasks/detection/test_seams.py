"""Objects at the seams of tiles, against objects that were drawn and so are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from maskwright.ops.rle import Crop, Frame
from maskwright.structures import Tiling
from maskwright.tasks.detection.tiling.seams import Finds, group_box, group_mask, united

Bools = NDArray[np.bool_]


def tight(mask: Bools) -> tuple[Crop, Frame]:
    """Return a mask of the image as its crop and frame."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return mask[y1:y2, x1:x2].copy(), (int(x1), int(y1), int(x2), int(y2))


def seen(
    objects: Iterable[Bools],
    tiling: Tiling,
    size: tuple[int, int],
    *,
    masks: bool = True,
    levels: Sequence[int] | None = None,
) -> Finds:
    """Return what a faultless detector finds: of each object what a tile shows, in each tile.

    Args:
        objects: masks (H, W).
        tiling: of the image.
        size: of the image.
        masks: whether it has masks.
        levels: those at which it finds each object; None: at all.
    """
    boxes, tiles, found = [], [], []
    scenes = [tile for level in tiling.tiles(size) for tile in level]
    for number, tile in enumerate(scenes):
        shown = np.zeros(size, bool)
        shown[tile.top : tile.bottom, tile.left : tile.right] = True
        for k, mask in enumerate(objects):
            if (mask & shown).any() and (levels is None or tile.level == levels[k]):
                found.append(tight(mask & shown))
                boxes.append(found[-1][1])
                tiles.append(number)
    count = len(boxes)
    return Finds(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.linspace(0.9, 0.5, count),
        np.zeros(count, np.int64),
        np.array(tiles, np.int64),
        found.__getitem__ if masks else None,
    )


def disc(size: tuple[int, int], x: float, y: float, radius: float, *, tall: float = 1.0) -> Bools:
    """Return the mask of a disc, or an ellipse that is `tall` times as high as wide."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside: Bools = (columns + 0.5 - x) ** 2 + ((rows + 0.5 - y) / tall) ** 2 <= radius**2
    return inside


def same_objects(finds: Finds, tiling: Tiling, objects: Sequence[Bools]) -> None:
    """Make sure that what is united are these objects, to the pixel."""
    size = objects[0].shape
    groups = united(finds, tiling, (size[0], size[1]))
    made = set()
    for group in groups:
        crop, frame = group_mask(finds, group)
        whole = np.zeros(size, bool)
        whole[frame[1] : frame[3], frame[0] : frame[2]] = crop
        made.add(whole.tobytes())
        assert group_box(finds, group).tolist() == list(tight(whole)[1])
    assert len(groups) == len(objects)
    assert made == {one.tobytes() for one in objects}


@pytest.mark.parametrize("overlap", [0.1, 0.25, 0.6])
def test_an_object_is_one_wherever_it_lies(overlap: float) -> None:
    tiling, size = Tiling(32, overlap), (40, 90)
    for x in range(3, 88, 7):
        for radius in (2, 11):
            ellipse = disc(size, x + 0.3, 20, radius, tall=1.5)
            same_objects(seen([ellipse], tiling, size), tiling, [ellipse])


def test_objects_longer_than_a_tile_are_put_together_of_all_parts() -> None:
    tiling, size = Tiling(32, 0.25), (100, 100)
    bar = np.zeros(size, bool)
    bar[40:52, 5:97] = True
    bent = np.zeros(size, bool)
    bent[60:90, 10:20] = bent[80:90, 10:80] = True
    same_objects(seen([bar, bent], tiling, size), tiling, [bar, bent])


def test_touching_objects_at_a_seam_stay_two() -> None:
    # Their boxes overlap by more than half in the strip that both tiles show; the masks do not.
    tiling, size = Tiling(32, 0.25), (32, 56)
    rows, columns = np.mgrid[:32, :56]
    band = (columns > 12) & (columns < 44) & (rows > 3) & (rows < 29)
    upper = band & (rows < 0.5 * columns + 1)
    lower = band & (rows > 0.5 * columns + 2)
    same_objects(seen([upper, lower], tiling, size), tiling, [upper, lower])


def test_crowds_are_kept_apart_at_all_phases() -> None:
    rng = np.random.default_rng(0)
    tiling, size = Tiling(32, 0.3), (100, 100)
    for phase in range(3):
        objects: list[Bools] = []
        taken = np.zeros(size, bool)
        while len(objects) < 25:
            x, y = rng.uniform(0, 100, 2)
            one = disc(size, x + phase / 3, y, rng.uniform(2, 9)) & ~taken
            if one.sum() > 12:
                objects.append(one)
                taken |= one
        finds = seen(objects, tiling, size)
        groups = united(finds, tiling, size)
        owners = [
            {k for k, mask in enumerate(objects) if _covers(mask, group_mask(finds, group))}
            for group in groups
        ]
        assert sorted(len(own) for own in owners) == [1] * len(objects)
        assert set().union(*owners) == set(range(len(objects)))


def _covers(mask: Bools, part: tuple[Crop, Frame]) -> bool:
    crop, (x1, y1, x2, y2) = part
    return bool((mask[y1:y2, x1:x2] & crop).sum() == crop.sum())


def test_boxes_stand_in_for_masks() -> None:
    tiling, size = Tiling(32, 0.25), (32, 90)
    objects = []
    for x1, x2 in ((2, 20), (22, 35), (40, 88)):
        mask = np.zeros(size, bool)
        mask[5:25, x1:x2] = True
        objects.append(mask)
    finds = seen(objects, tiling, size, masks=False)
    boxes = sorted(group_box(finds, group).tolist() for group in united(finds, tiling, size))
    assert boxes == [[2, 5, 20, 25], [22, 5, 35, 25], [40, 5, 88, 25]]


def test_the_tile_that_shows_more_decides_against_a_part_at_a_border() -> None:
    # Two tiles, 0 to 32 and 24 to 56: the first one finds a sliver, which the other does not.
    tiling, size = Tiling(32, 0.25), (32, 56)
    finds = Finds(
        np.array([[29.0, 10, 32, 20], [2, 2, 12, 12]]),
        np.array([0.9, 0.8]),
        np.zeros(2, np.int64),
        np.zeros(2, np.int64),
    )
    assert [group.members for group in united(finds, tiling, size)] == [(1,)]


def test_classes_are_never_mixed() -> None:
    tiling, size = Tiling(32, 0.25), (32, 56)
    bar = np.zeros(size, bool)
    bar[10:20, 8:50] = True
    finds = seen([bar], tiling, size)
    other = Finds(finds.boxes, finds.scores, np.arange(2), finds.tiles, finds.mask)
    assert len(united(finds, tiling, size)) == 1
    assert len(united(other, tiling, size)) == 2


def test_larger_tiles_say_what_smaller_ones_cut() -> None:
    tiling, size = Tiling(32, 0.25, 3), (120, 120)
    large, small = disc(size, 60, 60, 40), disc(size, 12, 12, 5)
    # Found in parts at all levels: the parts of the smaller tiles give way to the whole.
    same_objects(seen([large, small], tiling, size), tiling, [large, small])
    # Found at the last level alone, as the smaller tiles show too little of it.
    finds = seen([large, small], tiling, size, levels=[2, 0])
    same_objects(finds, tiling, [large, small])
    # What is small and found in large tiles alone is no find: small tiles have seen it whole.
    finds = seen([large, small], tiling, size, levels=[2, 2])
    same_objects(finds, tiling, [large])


def test_without_finds_there_are_no_objects() -> None:
    finds = seen([], Tiling(32), (64, 64))
    assert united(finds, Tiling(32), (64, 64)) == []
