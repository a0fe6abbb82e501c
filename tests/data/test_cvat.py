"""CVAT's XML: shapes, turned and in groups, its run lengths, tracks of videos, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image

from maskwright.data import find_splits, open_dataset, split_dataset

HEAD = "<?xml version='1.0'?>\n<annotations><version>1.1</version>"


def images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / name)


def one_image(root: Path, *shapes: str) -> Path:
    """Write a file of one image of 40 x 30 pixels (width x height)."""
    images(root, "images/a.png")
    image = '<image id="0" name="a.png" width="40" height="30">'
    file = root / "annotations.xml"
    file.write_text(f"{HEAD}{image}{''.join(shapes)}</image></annotations>")
    return root


def test_shapes(tmp_path: Path) -> None:
    root = one_image(
        tmp_path,
        '<box label="cat" xtl="2.5" ytl="3" xbr="12" ybr="8.25"/>',
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="14" rotation="90"/>',
        '<ellipse label="cat" cx="20" cy="15" rx="10" ry="4" rotation="90"/>',
        '<polygon label="dog" points="2,2;9,2;9,9"/>',
        '<mask label="cat" left="3" top="20" width="4" height="2" rle="1, 2, 3, 2"/>',
        '<mask label="cat" left="30" top="20" width="3" height="1" rle="0, 1, 2"/>',
        '<polygon label="dog" points="2,2;9,2;9,9"><attribute name="is_crowd">true</attribute>'
        "</polygon>",
    )
    data = open_dataset(root)
    expected = np.array(
        [
            *([2.5, 3, 12, 8.25], [18, 2, 22, 22], [16, 5, 24, 25], [2, 2, 9, 9]),
            *([4, 20, 7, 22], [30, 20, 31, 21], [2, 2, 9, 9]),
        ]
    )
    np.testing.assert_allclose(data.annotated_boxes(0), expected, atol=1e-9)
    assert data.names == ["cat", "dog"] and data[0].labels.tolist() == [0, 0, 0, 1, 0, 0, 1]
    assert data[0].crowd.tolist() == [False] * 6 + [True]
    mask = np.zeros((30, 40), bool)
    mask[20:22, 3:7] = [[0, 1, 1, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(full_mask(data, 0, 4), mask)


def test_a_turn_is_clockwise_on_the_screen(tmp_path: Path) -> None:
    box = '<box label="cat" xtl="10" ytl="13" xbr="30" ybr="17" rotation="30.0"/>'
    data = open_dataset(one_image(tmp_path, box))
    points = data.polygons(0, 0)
    assert points is not None
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    # The middle of the right side goes down.
    np.testing.assert_allclose(points[0][1:3].mean(0), [20 + 10 * c, 15 + 10 * s])


def test_a_group_is_one_object(tmp_path: Path) -> None:
    shape = '<polygon label="cat" points="{0},2;{0},9;{1},9" group_id="{2}"/>'
    root = one_image(
        tmp_path,
        shape.format(2, 9, 1),
        shape.format(12, 19, 1),
        shape.format(22, 29, 0),
        shape.format(32, 39, 0),
    )
    data = open_dataset(root)
    parts = [data.polygons(0, k) for k in range(3)]
    assert len(data[0].labels) == 3 and [len(one or ()) for one in parts] == [2, 1, 1]


def test_keypoints(tmp_path: Path) -> None:
    """Skeletons alone, of the group of a box; points in a group; points of no object."""
    element = '<points label="{}" points="{}" outside="{}" occluded="{}"/>'
    whole = element.format("nose", "5.0,6.0", 0, 1) + element.format("eye", "8,12", 0, 0)
    whole += element.format("ear", "0,0", 1, 0)
    box = '<box label="cat" xtl="2" ytl="3" xbr="20" ybr="25" group_id="{}"/>'
    root = one_image(
        tmp_path,
        f'<skeleton label="cat">{whole}</skeleton>',
        box.format(1),
        f'<skeleton label="cat" group_id="1">{whole}</skeleton>',
        box.format(2).replace("20", "30"),
        '<points label="eye" points="9,9" group_id="2"/>',
        '<points label="flower" points="1,1;5,5"/>',
    )
    data = open_dataset(root)
    assert data.skeleton is not None and data.skeleton.names == ("eye", "nose")
    joints = data[0].keypoints
    assert joints is not None
    by_box = dict(zip(map(tuple, data[0].boxes.tolist()), joints.tolist(), strict=True))
    assert by_box == {
        (5, 6, 8, 12): [[8, 12, 2], [5, 6, 1]],
        (2, 3, 20, 25): [[8, 12, 2], [5, 6, 1]],
        (2, 3, 30, 25): [[9, 9, 2], [0, 0, 0]],
    }
    (fault,) = data.faults
    assert fault.kind == "shape without area" and "1 x points" in fault.message


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    images(tmp_path, *(f"images/frame_{k:06}.png" for k in range(40)))
    box = '<box frame="{}" outside="0" xtl="2" ytl="1" xbr="9" ybr="9"/>'
    track = f'<track id="0" label="cat">{"".join(map(box.format, range(40)))}</track>'
    (tmp_path / "annotations.xml").write_text(f"{HEAD}{track}</annotations>")
    data = open_dataset(tmp_path)
    assert [one.action for one in data.faults if one.kind == "frames of one video"] == ["kept"]
    train, val = split_dataset(data, 0.2)
    numbers = sorted(int(val[i].path.stem[-6:]) for i in range(len(val)))
    assert len(numbers) == 8 and len(train) == 32
    assert [n % 4 for n in numbers] == [0, 1, 2, 3] * 2  # stretches of four frames


def test_frames_of_a_video(tmp_path: Path) -> None:
    """Tracks, frames in which an object is outside, frames without any."""
    images(tmp_path, *(f"images/frame_{k:06}.PNG" for k in (0, 1, 2, 4)))
    box = '<box frame="{}" outside="{}" keyframe="0" xtl="{}" ytl="1" xbr="9" ybr="9"/>'
    meta = "<meta><task><original_size><width>40</width><height>30</height></original_size>"
    meta += "<labels><label><name>dog</name></label><label><name>cat</name></label></labels>"
    tracks = [
        f'<track id="0" label="cat">{box.format(0, 0, 1)}{box.format(1, 0, 2)}'
        f"{box.format(2, 1, 3)}</track>",
        f'<track id="1" label="dog">{box.format(1, 0, 5)}{box.format(4, 0, 6)}</track>',
    ]
    file = tmp_path / "annotations.xml"
    file.write_text(f"{HEAD}{meta}</task></meta>{''.join(tracks)}</annotations>")
    data = open_dataset(tmp_path)
    assert data.names == ["dog", "cat"]
    found = {data[i].path.name: data[i].boxes[:, 0].tolist() for i in range(len(data))}
    assert found == {
        "frame_000000.PNG": [1], "frame_000001.PNG": [2, 5], "frame_000002.PNG": [],
        "frame_000004.PNG": [6],
    }  # fmt: skip
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=r"is of a video.*'Save images'"):
        open_dataset(tmp_path)
    file.write_text(f"{HEAD}<track label='a'><box xtl='1'/></track></annotations>")
    with pytest.raises(ValueError, match=r"annotations\.xml:2: <box> of a track needs a number"):
        open_dataset(tmp_path)


def test_subsets_are_splits(tmp_path: Path) -> None:
    images(tmp_path, "images/Train/a.png", "images/Validation/b.png")
    text = "".join(
        f'<image id="0" name="{name}" subset="{subset}" width="40" height="30">'
        '<box label="cat" xtl="2" ytl="3" xbr="12" ybr="8"/></image>'
        for name, subset in (("a.png", "Train"), ("b.png", "Validation"))
    )
    (tmp_path / "annotations.xml").write_text(f"{HEAD}{text}</annotations>")
    assert list(find_splits(tmp_path)) == ["train", "val"]
    for split, name in (("train", "a.png"), ("val", "b.png")):
        data = open_dataset(tmp_path, split)
        assert [data[i].path.name for i in range(len(data))] == [name]
    assert len(open_dataset(tmp_path / "annotations.xml", "val")) == 1


def test_many_images_are_read_one_by_one(tmp_path: Path) -> None:
    """More than one block of the file, elements cut anywhere between blocks."""
    images(tmp_path, *(f"{k}.png" for k in range(4)))
    long = ";".join(f"{k % 40},{k % 30}" for k in range(60_000))
    text = "".join(
        f'<image id="{k}" name="{k}.png" width="40" height="30"><polyline label="x" '
        f'points="{long}"/><box label="cat" xtl="{k}" ytl="3" xbr="12" ybr="8"/></image>'
        for k in range(4)
    )
    (tmp_path / "annotations.xml").write_text(f"{HEAD}{text}</annotations>")
    data = open_dataset(tmp_path)
    assert [data[k].boxes[0, 0] for k in range(4)] == [0, 1, 2, 3]
