"""What a format cannot hold is counted before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawn_objects import Drawn, DrawnImage, lay

from maskwright.data import open_dataset
from maskwright.data.formats.lost import WORDS, count_lost
from maskwright.data.formats.table import lost_in


def test_each_loss_is_counted(tmp_path: Path) -> None:
    ring = np.ones((20, 20), bool)
    ring[5:15, 5:15] = False
    square = np.array([[2.0, 2], [9, 2], [9, 9], [2, 9]])
    objects = [
        Drawn(0, "mask", mask=ring),
        Drawn(0, "mask", mask=ring, region="crowd"),
        Drawn(1, "mask", mask=ring, region="ignored"),
        Drawn(1, "polygons", polygons=(square, square + 10.0)),
        Drawn(1, "polygons", polygons=(square / 2,)),
    ]
    data = open_dataset(lay(tmp_path / "a", [DrawnImage((20, 20), objects)]))
    counts = {word: count_lost(data, set(WORDS) - {word}) for word in WORDS}
    found = {word: next(iter(own.values()), 0) for word, own in counts.items()}
    assert found == {
        "masks": 3, "boxes": 0, "own boxes": 0, "corners": 1, "parts": 1, "overlaps": 5,
        "keypoints": 0, "masks beside keypoints": 0, "crowds": 1, "ignored": 1, "checked": 0,
    }  # fmt: skip
    assert lost_in(data, "coco") == {}
    assert list(lost_in(data, "yolo").values()) == [1, 1, 1]
    boxes = [Drawn(0, "box", box=(3, 3, 9, 9)), Drawn(0, "box", box=(5, 5, 9, 9))]
    data = open_dataset(lay(tmp_path / "b", [DrawnImage((20, 20), boxes)]))
    assert count_lost(data, ()) == {WORDS["boxes"]: 2}
