"""What a format cannot hold is counted before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import set_cases
import tool_cases
from drawn_objects import Drawn, DrawnImage, lay
from tool_cases import lay_files

from maskwright.data import open_dataset, write_dataset
from maskwright.data.formats.lost import WORDS, count_lost
from maskwright.data.formats.writing import lost_in


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
        "nameless": 0, "hidden": 0,
    }  # fmt: skip
    assert lost_in(data, "coco") == {}
    assert list(lost_in(data, "yolo").values()) == [1, 1, 1]
    boxes = [Drawn(0, "box", box=(3, 3, 9, 9)), Drawn(0, "box", box=(5, 5, 9, 9))]
    data = open_dataset(lay(tmp_path / "b", [DrawnImage((20, 20), boxes)]))
    assert count_lost(data, ()) == {WORDS["boxes"]: 2}
    inner, outer = (Drawn(0, "polygons", polygons=(one,)) for one in ((square + 5.5) / 2, square))
    for name, order, hidden in (("c", [inner, outer], 1), ("d", [outer, inner], 0)):
        data = open_dataset(lay(tmp_path / name, [DrawnImage((20, 20), order)]))
        assert lost_in(data, "instances").get(WORDS["hidden"], 0) == hidden


def test_labels_and_maps_lose_objects(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:9, 2:9] = True
    objects = [Drawn(0, "mask", mask=mask), Drawn(1, "mask", mask=mask, region="crowd")]
    root = lay(tmp_path, [DrawnImage((20, 20), objects), DrawnImage((20, 20), objects[:1])])
    for records, counts in (("labels", [2, 2, 1]), ("maps", [2])):
        data = open_dataset(root, records=records)
        assert list(lost_in(data, "csv" if records == "labels" else "maps").values()) == counts


UNREAD = {
    "coco": ('"iscrowd": 0', '"iscrowd": 0, "attributes": {"a": 1}', {"'attributes' of an ann": 1}),
    "labelme": ('"flags": {}', '"flags": {"torn": 1}, "description": "?"', {"torn": 1, "desc": 1}),
    "cvat": ("</box>", '<attribute name="torn">1</attribute></box>', {"the attribute 'torn'": 3}),
    "labelstudio": ('"id": "r"', '"id": "r", "meta": {"text": ["?"]}', {"text of a region": 3}),
    "supervisely": ('"tags": []', '"tags": [{"name": "torn"}]', {"n image": 1, "n object": 1}),
    "kitti": ("", "", {"in space": 3}),
    "openimages": (",0,1,0,0,0", ",1,1,0,0,0", {"IsOccluded": 3, "IsTruncated": 3}),
    "geo": ('"properties": {', '"properties": {"height": 3.5, ', {"'height' of a f": 1}),
    "huggingface": ('"area"', '"blur": [1], "area"', {"'blur' of an o": 3}),
    "voc": ("ncated>0<", "ncated>1<", {"truncated": 1}),
}  # fmt: skip


@pytest.mark.parametrize("tool", UNREAD)
def test_what_no_record_has_is_counted(tool: str, tmp_path: Path) -> None:
    """A field that the first file has once for each object."""
    old, new, counts = UNREAD[tool]
    if tool in ("coco", "voc"):
        square = Drawn(0, "box", box=(3, 3, 9, 9))
        data = open_dataset(lay(tmp_path / "in", [DrawnImage((20, 20), [square])], ("a", "b")))
        write_dataset(data, tmp_path / "out", tool)
        file = next((tmp_path / "out").rglob("*.json" if tool == "coco" else "*.xml"))
    else:
        files = (tool_cases.TOOLS | set_cases.TOOLS)[tool]
        lay_files(tmp_path / "out", files, (tool_cases.IMAGES | set_cases.IMAGES)[tool])
        file = tmp_path / "out" / next(name for name in files if name.split("/")[-1] != "meta.json")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    unread = open_dataset(tmp_path / "out").unread
    assert [n for what, n in unread.items() for part in counts if part in what] == [
        *counts.values()
    ]
    assert len(unread) == len(counts)
