"""Tables of keypoints: named or numbered points, gaps, boxes, splits, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from location_data import draw_data
from PIL import Image

import maskwright as mw
from maskwright.data import find_splits, open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def test_points_by_name_with_gaps_and_visibility(folder: Path) -> None:
    (folder / "train.csv").write_text(
        "path,nose_x,nose_y,left_eye_x,left_eye_y,left_eye_v,right_eye_x,right_eye_y\n"
        "a.png,10,11,5,6,1,20.5,7\n"
        "b.png,,,5,6,0,nan,nan\n"
        "c.png,12,13,,,,2,3\n"
    )
    data = open_dataset(folder, "train", keypoints=True)
    assert data.skeleton is not None and data.skeleton.names == ("nose", "left_eye", "right_eye")
    assert data.skeleton.mirrored == [0, 2, 1] and data.names == ["object"]
    wanted = [[10, 11, 2], [5, 6, 1], [20.5, 7, 2]]
    assert data[0].keypoints is not None and data[0].keypoints[0].tolist() == wanted
    np.testing.assert_allclose(data[0].boxes[0], [5, 6, 20.5, 11])
    assert not len(data[1].boxes)
    assert data[2].keypoints is not None and data[2].keypoints[0, 1].tolist() == [0, 0, 0]
    assert not data.faults


def test_numbered_points_a_box_and_a_column_of_splits(folder: Path) -> None:
    (folder / "points.csv").write_text(
        "path;x1;y1;x2;y2;x3;y3;xmin;ymin;xmax;ymax;split\n"
        "a.png;1;2;3;4;5;6;0;0;20;22;train\nb.png;1;2;3;4;5;6;0;1;9;10;val\n"
    )
    assert list(find_splits(folder)) == list(find_splits(folder / "points.csv")) == ["train", "val"]
    data = open_dataset(folder / "points.csv", "val", keypoints=True)
    assert len(data) == 1 and data[0].boxes.tolist() == [[0, 1, 9, 10]]
    assert data.skeleton is not None and data.skeleton.names == ("point_1", "point_2", "point_3")


def test_a_table_of_boxes_stays_one(folder: Path) -> None:
    (folder / "train.csv").write_text("path,label,x1,y1,x2,y2\na.png,cat,1,2,20,21\n")
    data = open_dataset(folder, "train")
    assert data.names == ["cat"] and data.skeleton is None


def test_a_point_needs_both_of_its_numbers(folder: Path) -> None:
    (folder / "train.csv").write_text("path,nose_x,eye_x,eye_y\na.png,1,2,3\n")
    for data in (folder, folder / "train.csv"):
        with pytest.raises(ValueError, match=r"nose_x has no column nose_y beside it"):
            open_dataset(data, "train", keypoints=True)


def test_what_is_wrong_in_a_row_is_told(folder: Path) -> None:
    (folder / "train.csv").write_text(
        "path,a_x,a_y\na.png,1,2\nb.png,one,2\n../c.png,1,2\nno.png,1,2\nc.png,3,inf\n"
    )
    data = open_dataset(folder, "train", keypoints=True)
    kinds = sorted(fault.kind for fault in data.faults)
    assert kinds.count("bad number") == 2 and "path outside the data set" in kinds
    assert any("line 3: 'one' is no number" in fault.message for fault in data.faults)
    assert any("no.png" in fault.message for fault in data.faults)
    (folder / "train.csv").rename(folder / "points.csv")
    (folder / "points.csv").write_text("path,a_x,a_y,split\na.png,1,2,sometimes\n")
    with pytest.raises(ValueError, match="line 2: split 'sometimes' is none of"):
        open_dataset(folder, "train", keypoints=True)


def test_a_table_trains_a_model_of_keypoints(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "coco", train=12, val=6)
    table = tmp_path / "table"
    table.mkdir()
    (table / "images").symlink_to(root / "images")
    for split in ("train", "val"):
        data = open_dataset(root, split, keypoints=True)
        assert data.skeleton is not None
        lines = ["path," + ",".join(f"{n}_x,{n}_y" for n in data.skeleton.names)]
        for index in range(len(data)):
            points = data[index].keypoints
            assert points is not None
            row = points[0, :, :2].ravel().tolist() if len(points) else [""] * 6
            lines.append(f"{split}/{data[index].path.name}," + ",".join(map(str, row)))
        (table / f"{split}.csv").write_text("\n".join(lines))
    again = open_dataset(table, "train", keypoints=True)
    first = open_dataset(root, "train", keypoints=True)
    assert again[0].keypoints is not None and first[0].keypoints is not None
    np.testing.assert_allclose(again[0].keypoints, first[0].keypoints, rtol=1e-6)
    result = mw.train(
        table,
        "locate_keypoints_mobilenetv2_100",
        imgsz=64,
        steps=1,
        workers=0,
        device="cpu",
        project=tmp_path / "runs",
        nme_pair="left_eye,right_eye",
    )
    assert result.metrics["keypoints/NME"] > 0
