"""Hugging Face's tables: rows as the Hub and `save_to_disk` have them, and the order of a box."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data import find_splits, open_dataset, write_dataset
from maskwright.errors import OptionError

BOXES = [[20.0, 10.0, 15.0, 18.0], [1.0, 2.0, 38.0, 20.0]]  # x, y, width, height


def pixels(kind: str = "PNG", seed: int = 0) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def corners(boxes: list[list[float]]) -> list[list[float]]:
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


def objects(boxes: list[Any] = BOXES, **more: Any) -> dict[str, Any]:
    return {"bbox": boxes, "category": [1, 0][: len(boxes)]} | more


NAMES = {"names": ["cat", "dog"], "_type": "ClassLabel"}
# As `datasets` up to 3 notes a sequence of dictionaries, and as it does from 4 on.
FEATURES = {
    "3": {"objects": {"feature": {"bbox": {}, "category": NAMES}, "_type": "Sequence"}},
    "4": {"objects": {"bbox": {}, "category": {"feature": NAMES, "_type": "List"}}},
}


def table(rows: list[dict[str, Any]], features: str = "3") -> Any:
    pa = pytest.importorskip("pyarrow", reason="the extra hf")
    noted = json.dumps({"info": {"features": FEATURES[features]}})
    return pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": noted})


def parquet(file: Path, rows: list[dict[str, Any]], features: str = "3") -> Path:
    made = table(rows, features)
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, file)
    return file


def row(boxes: list[Any] = BOXES, name: str | None = "a.png", **more: Any) -> dict[str, Any]:
    image = {"bytes": pixels(), "path": name}
    return {"image_id": 1, "image": image, "objects": objects(boxes, **more)}


@pytest.mark.parametrize("features", FEATURES)
def test_parquet(features: str, tmp_path: Path, home: Path) -> None:
    for split in ("train", "validation"):
        rows = [row(), row([], name=None), row(name="a.png")]
        rows[1]["image"]["bytes"] = pixels("JPEG")
        parquet(tmp_path / f"data/{split}-00000-of-00001.parquet", rows, features)
    assert set(find_splits(tmp_path)) == {"train", "val"}
    data = open_dataset(tmp_path, "val")
    assert (data.names, len(data), data.format) == (["cat", "dog"], 3, "huggingface")
    assert not data.faults
    assert data[0].labels.tolist() == [1, 0] and len(data[1].labels) == 0
    np.testing.assert_allclose(data.annotated_boxes(0), corners(BOXES))
    with Image.open(io.BytesIO(pixels())) as image:
        np.testing.assert_array_equal(data.image(0), np.asarray(image))
    assert [data[i].path.suffix for i in range(3)] == [".png", ".jpg", ".png"]
    assert data[0].path != data[2].path and home in data[0].path.parents
    before = data[0].path.stat().st_mtime_ns
    assert open_dataset(tmp_path, "val")[0].path.stat().st_mtime_ns == before  # once


def test_arrow_of_save_to_disk(tmp_path: Path) -> None:
    made = table([row(), row()])
    import pyarrow as pa

    folder = tmp_path / "train"
    folder.mkdir()
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, made.schema) as writer,
    ):
        writer.write_table(made)
    (folder / "cache-1.arrow").write_bytes(b"x")
    data = open_dataset(tmp_path)
    assert len(data) == 2 and data.names == ["cat", "dog"]
    np.testing.assert_allclose(data.annotated_boxes(1), corners(BOXES))


def lines(root: Path, *rows: dict[str, Any]) -> Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    for name in "ab":
        (root / f"train/{name}.png").write_bytes(pixels())
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (root / "train/metadata.jsonl").write_text(text)
    return root


def line(name: str = "a.png", boxes: list[Any] = BOXES, **more: Any) -> dict[str, Any]:
    return {"file_name": name, "objects": objects(boxes) | more}


@pytest.mark.parametrize("way", ["xywh", "xyxy"])
def test_the_order_of_a_box(way: str, tmp_path: Path) -> None:
    boxes = BOXES if way == "xywh" else corners(BOXES)
    data = open_dataset(lines(tmp_path / "by size", line(boxes=boxes)))
    np.testing.assert_allclose(data.annotated_boxes(0), corners(BOXES))
    small = [[2.0, 3.0, 10.0, 9.0]]  # fits in either order
    root = lines(tmp_path / "by area", line(boxes=small, area=[90.0 if way == "xywh" else 48.0]))
    expected = corners(small) if way == "xywh" else small
    np.testing.assert_allclose(open_dataset(root).annotated_boxes(0), expected)
    root = lines(tmp_path / "neither", line(boxes=small))
    with pytest.raises(ValueError, match="fit the images as both"):
        open_dataset(root)
    data = open_dataset(root, format=f"huggingface_{way}")
    np.testing.assert_allclose(data.annotated_boxes(0), expected)
    with pytest.raises(ValueError, match="as neither"):
        open_dataset(lines(tmp_path / "wrong", line(boxes=[[50.0, 3, 60, 2]])))
    with pytest.raises(OptionError, match="huggingface_xywh"):
        open_dataset(root, format="huggingface_xyhw")


def test_fractions_and_lists_of_objects(tmp_path: Path) -> None:
    shares = [[x / 40, y / 30, w / 40, h / 30] for x, y, w, h in BOXES]
    data = open_dataset(lines(tmp_path / "a", line(boxes=shares)))
    np.testing.assert_allclose(data.annotated_boxes(0), corners(BOXES))
    several = [{"bbox": box, "label": "cat"} for box in BOXES]
    data = open_dataset(lines(tmp_path / "b", {"file_name": "a.png", "objects": several}))
    np.testing.assert_allclose(data.annotated_boxes(0), corners(BOXES))
    flat = {"file_name": "a.png", "bboxes": BOXES, "labels": [10, 9]}
    assert open_dataset(lines(tmp_path / "c", flat)).names == ["9", "10"]


def test_labels(tmp_path: Path) -> None:
    """Image and label, as most classification sets of the Hub have them."""
    rows = [{"image": {"bytes": pixels(seed=k), "path": None}, "label": k % 2} for k in range(4)]
    rows[3]["label"] = -1
    made = table(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": {"label": NAMES}}})}
    )
    import pyarrow.parquet as pq

    (tmp_path / "hub").mkdir()
    pq.write_table(made, tmp_path / "hub/train-00000-of-00001.parquet")
    data = open_dataset(tmp_path / "hub", records="labels")
    assert (data.names, data.format, data.multilabel) == (["cat", "dog"], "huggingface", False)
    assert [data.labels_of(i).tolist() for i in range(len(data))] == [[0], [1], [0]]
    assert [fault.kind for fault in data.faults] == ["image without a label"]
    with Image.open(io.BytesIO(pixels(seed=1))) as image:
        np.testing.assert_array_equal(data.image(1), np.asarray(image))
    several = [
        {"file_name": f"{name}.png", "labels": own}
        for name, own in zip("ab", (["x", "y"], []), strict=True)
    ]
    data = open_dataset(lines(tmp_path / "lines", *several), records="labels")
    assert data.names == ["x", "y"] and data.multilabel
    with pytest.raises(ValueError, match="labels of their own and no objects"):
        open_dataset(tmp_path / "lines")


def test_what_goes_out_comes_in(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra hf")
    data = open_dataset(lines(tmp_path / "in", line(), line("b.png", iscrowd=[0, 1])))
    write_dataset(data, tmp_path / "out", "huggingface")
    write_dataset(data.select([1], "val"), tmp_path / "out", "huggingface")
    again = open_dataset(tmp_path / "out")
    assert again.names == data.names and len(again) == 2 and not again.faults
    assert len(open_dataset(tmp_path / "out", "val")) == 1
    for k in range(2):
        np.testing.assert_array_equal(again.annotated_boxes(k), data.annotated_boxes(k))
        assert again[k].crowd.tolist() == data[k].crowd.tolist()
        np.testing.assert_array_equal(again.image(k), data.image(k))
    with pytest.raises(ValueError, match="already"):
        write_dataset(data, tmp_path / "out", "huggingface")


@pytest.mark.parametrize(
    ("rows", "kind", "says"),
    [
        ([line(), {"file_name": 3}], "unreadable image", r"line 2: an image is a path, got 3"),
        ([line(), line("c.png")], "missing image", r"c\.png"),
        ([line(), line("../../c.png")], "missing image", r"c\.png"),
        ([line(), line("b.png", [[1, 2, 3], [1, 2, 3, "x"]])], "bad box", "line 2, object 0"),
        ([line(), line("b.png", category=[None, 1])], "unknown category", "no class"),
    ],
)
def test_faults_of_lines(rows: list[Any], kind: str, says: str, tmp_path: Path) -> None:
    data = open_dataset(lines(tmp_path, *rows))
    found = [fault.message for fault in data.faults if fault.kind == kind]
    assert found and any(re.search(says, one) for one in found)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a/train.parquet", [row()])
    whole = file.read_bytes()
    for content in (whole[:-30], b"PAR1", whole[:-200] + b"x" * 192 + whole[-8:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.parquet"):
            open_dataset(tmp_path / "a")
    bad = row()
    bad["image"]["bytes"] = b"no image"
    data = open_dataset(parquet(tmp_path / "b/train.parquet", [bad, row()]).parent)
    (fault,) = data.faults
    assert fault.kind == "unreadable image" and "row 0: the bytes of the image" in fault.message
    text = (lines(tmp_path / "c", line()) / "train/metadata.jsonl").read_text()
    for content, says in ((text[:-9], "jsonl:1: no valid JSON"), ("[1]\n", "a line is an object")):
        (tmp_path / "c/train/metadata.jsonl").write_text(content)
        with pytest.raises(ValueError, match=says):
            open_dataset(tmp_path / "c")
    (tmp_path / "c/train/metadata.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        open_dataset(tmp_path / "c")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'maskwright\[hf\]'"):
        open_dataset(tmp_path)
