"""Data sets divided, put together and with other classes: what stays, what is told."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import CLASSES, WRITTEN, Drawn, DrawnImage, data_sets, lay
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.cli import main
from maskwright.data import (
    Dataset,
    change_classes,
    convert_data,
    find_splits,
    merge_data,
    open_dataset,
    split_data,
)
from maskwright.data.rewriting.tables import joined, with_classes
from maskwright.errors import OptionError

FORMATS = [row.format for row in WRITTEN]
SQUARE = np.array([[2.0, 2], [12, 2], [12, 12], [2, 12]])


def square(label: int, at: int = 0) -> Drawn:
    return Drawn(label, "polygons", polygons=(SQUARE + at,))


def content(data: Dataset) -> list[tuple[Any, ...]]:
    """All that a data set says of each image, by its pixels, whatever its name."""
    found = []
    for index in range(len(data)):
        record, objects = data[index], []
        for k, label in enumerate(record.labels.tolist()):
            crop, frame = data.mask(index, k)
            polygons = [part.tolist() for part in data.polygons(index, k) or []]
            name = data.names[label] if label >= 0 else None
            mask = (frame, crop.tobytes(), str(polygons))
            marks = (bool(record.crowd[k]), bool(record.ignored[k]))
            objects.append(
                (name, *mask, *marks, str(data.annotated_boxes(index)[k].round(6).tolist()))
            )
        labels = [data.names[k] for k in data.labels_of(index).tolist()]
        found.append((data.image(index).tobytes(), record.size, str(labels), *objects))
    return sorted(found, key=str)


def every(folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    found = [
        content(open_dataset(folder, split, **options)) for split in find_splits(folder, **options)
    ]
    return sorted((one for own in found for one in own), key=str)


@settings(max_examples=6, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(images=st.lists(data_sets(), min_size=3, max_size=6), seed=st.integers(0, 2))
def test_parts_are_a_partition(images: list[list[DrawnImage]], seed: int) -> None:
    """Of what is written nothing is lost or there twice, and put together it is what it was."""
    drawn = [one for own in images for one in own]
    with tempfile.TemporaryDirectory() as folder:
        root = lay(Path(folder, "in"), drawn)
        report = split_data(root, Path(folder, "out"), fractions=(0.5, 0.5), seed=seed)
        assert sum(report.images.values()) == len(drawn) and not any(report.lost.values())
        before, out = content(open_dataset(root)), Path(folder, "out")
        assert every(out) == before
        assert list(find_splits(out)) == ["train", "val"]
        split_data(out, Path(folder, "whole"), fractions=(1,))
        assert content(open_dataset(Path(folder, "whole"))) == before
        parts = [open_dataset(out, split) for split in ("train", "val")]
        assert content(joined(parts, "train")) == before


@settings(max_examples=15, deadline=None)
@given(images=data_sets(), order=st.permutations(range(len(CLASSES))))
def test_new_names_can_be_taken_back(images: list[DrawnImage], order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = open_dataset(lay(Path(folder), images))
        there = with_classes(data, order, [f"c{k}" for k in range(len(order))])
        back = with_classes(there, np.argsort(order).tolist(), data.names)
        assert content(back) == content(data) and back.category_ids == data.category_ids
        gone = with_classes(data, [0, -1, 1], [CLASSES[0], CLASSES[2]])
        kept = [
            (pixels, size, labels, *(one for one in objects if one[0] != CLASSES[1]))
            for pixels, size, labels, *objects in content(data)
        ]
        assert content(gone) == sorted(kept, key=str)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_stays_what_it_is(format: str, tmp_path: Path) -> None:
    images = [DrawnImage((24, 30), [square(k % 2, k % 4), square(1 - k % 2, 12)]) for k in range(6)]
    convert_data(lay(tmp_path / "in", images, CLASSES[:2]), format, tmp_path / "a")
    report = split_data(tmp_path / "a", tmp_path / "b", fractions=(0.5, 0.5), seed=1)
    assert report.format == format and report.images == {"train": 3, "val": 3}
    assert every(tmp_path / "b") == every(tmp_path / "a")
    change_classes(tmp_path / "b", tmp_path / "c", rename={"cat": "pet"}, drop=("dog",))
    data = open_dataset(tmp_path / "c", "val")
    assert data.format == format and data.names == ["pet"]
    assert data.objects_per_class().tolist() == [3]
    report = merge_data((str(tmp_path / "b"), str(tmp_path / "c")), tmp_path / "d")
    assert report.format == format and report.images == {"train": 6, "val": 6}
    merged = open_dataset(tmp_path / "d", "train")
    assert merged.names == ["cat", "dog", "pet"]
    assert merged.objects_per_class().tolist() == [3, 3, 3]
    told = "\n".join(report.notes)
    assert "3 image(s) of train are also in train" in told
    assert "do not count" not in told and "c does not know cat, dog" in told


def pictures(root: Path, files: dict[str, int]) -> Path:
    for number, (name, value) in enumerate(files.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (value, number % 256, 0)).save(root / name)
    return root


def names(folder: Path, split: str) -> list[str]:
    data = open_dataset(folder, split, records=None)
    return [data[index].path.name for index in range(len(data))]


@pytest.mark.parametrize("by", ["(p[0-9]+)_", "p[0-9]+", "table", "folder"])
def test_groups(by: str, tmp_path: Path) -> None:
    files = {f"{kind}/p{k % 8}_{k}.png": k for k in range(40) for kind in ("cat", "dog")}
    root = pictures(tmp_path / "in", files)
    if by == "table":
        rows = [f"{Path(file).name},{Path(file).name[:2]}" for file in files if file[:3] == "cat"]
        (tmp_path / "groups.csv").write_text("\n".join(["image,patient", *rows]))
        by = str(tmp_path / "groups.csv")
    if by == "folder":
        with pytest.raises(ValueError, match=r"2 group\(s\) .* leave nothing for val"):
            split_data(root, tmp_path / "out", by=by)
        return
    split_data(root, tmp_path / "out", fractions=(0.5, 0.25, 0.25), by=by)
    owners = {
        split: {name[:2] for name in names(tmp_path / "out", split)}
        for split in ("train", "val", "test")
    }
    assert [len(own) for own in owners.values()] == [4, 2, 2]
    assert Counter(group for own in owners.values() for group in own).most_common(1)[0][1] == 1


def test_labels_and_rare_classes(tmp_path: Path) -> None:
    """Folders of classes, of which one has three images, another one."""
    counts = {"common": 30, "rare": 3, "lone": 1}
    files = {f"{name}/{k}.png": k for name, count in counts.items() for k in range(count)}
    root = pictures(tmp_path / "in", files)
    report = split_data(root, tmp_path / "out")
    assert report.format == "folders"
    assert [report.classes[split]["rare"] for split in ("train", "val", "test")] == [1, 1, 1]
    assert [report.classes[split]["lone"] for split in ("train", "val", "test")] == [1, 0, 0]
    assert "val has no image of lone: there are too few" in report.notes
    change_classes(root, tmp_path / "two", keep=("common", "rare"), to="csv")
    data = open_dataset(tmp_path / "two", records="labels")
    assert len(data) == 33 and data.names == ["common", "rare"]
    change_classes(root, tmp_path / "one", rename="rare:other,lone:other")
    data = open_dataset(tmp_path / "one", records="labels")
    assert data.images_per_class().tolist() == [30, 4] and data.names == ["common", "other"]


def test_label_maps(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("sky\nroad\nsign\n")
    for k in range(9):
        Image.new("RGB", (6, 4), (k, 0, 0)).save(root / f"images/{k}.png")
        numbers = np.zeros((4, 6), np.uint8)
        numbers[2:] = 1
        numbers[0, 0] = 2 * (k in (2, 5, 8))
        Image.fromarray(numbers).save(root / f"masks/{k}.png")
    report = split_data(root, tmp_path / "out", fractions=(0.34, 0.33, 0.33))
    assert report.format == "maps" and list(report.images.values()) == [3, 3, 3]
    assert [own["sign"] for own in report.classes.values()] == [1, 1, 1]
    change_classes(tmp_path / "out", tmp_path / "new", rename="road:ground", drop=("sign",))
    for split in ("train", "val", "test"):
        data = open_dataset(tmp_path / "new", split, records="maps")
        assert data.names == ["sky", "ground"]
        values = [np.unique(data.label_map(i)).tolist() for i in range(3)]
        assert sorted(values) == [[0, 1], [0, 1], [0, 1, 255]]
    merge_data([str(root), str(tmp_path / "new")], tmp_path / "both")  # type: ignore[arg-type]
    data = open_dataset(tmp_path / "both", records="maps")
    assert data.names == ["sky", "road", "sign", "ground"] and len(data) == 12
    sums = Counter(tuple(np.unique(data.label_map(i)).tolist()) for i in range(12))
    assert sums == {(0, 1): 6, (0, 1, 2): 3, (0, 3): 2, (0, 3, 255): 1}


def test_what_merging_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay(tmp_path / "a", [DrawnImage((24, 30), [square(0)]), DrawnImage((24, 31), [])])
    lay(tmp_path / "b", [DrawnImage((24, 30), [square(0, 3)])], ("dog", "Cat"))
    split_data(tmp_path / "a", tmp_path / "c", fractions=(0.5, 0.5))
    (tmp_path / "c/annotations/val.json").rename(tmp_path / "c/annotations/test.json")
    places = ",".join(str(tmp_path / name) for name in "abc")
    assert main(["data", "merge", f"data={places}", f"out={tmp_path / 'd'}", "to=yolo"]) == 0
    out = capsys.readouterr().out
    for words in (
        "does not know Cat",
        "b does not know cat, Ünïcode",
        "has no test",
        "capitals only: ['Cat', 'cat']",
        "have the name of another",
        "of test are also in train",
        "scores on them tell nothing",
    ):
        assert words in out, words
    data = open_dataset(tmp_path / "d")
    assert sorted(names(tmp_path / "d", "train")) == ["1.png", "1_1.png", "1_2.png", "2.png"]
    assert data.objects_per_class().sum() == 3 and data.names[1] == "dog"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"rename": "cat, big:lion"}, ["lion", "a:b", "dog"]),
        ({"rename": "dog:hound,cat, big:lion,a:b:c"}, ["lion", "c", "hound"]),
        ({"rename": "a:b:x, y,dog:z"}, ["cat, big", "x, y", "z"]),
        ({"drop": ("cat", "big", "dog")}, ["a:b"]),
        ({"keep": ("dog", "cat", "big")}, ["cat, big", "dog"]),
    ],
)
def test_names_with_commas(options: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    images = [DrawnImage((24, 30), [square(0), square(1, 6), square(2, 12)])]
    root = lay(tmp_path / "in", images, ("cat, big", "a:b", "dog"))
    change_classes(root, tmp_path / "out", to="coco", **options)
    assert open_dataset(tmp_path / "out").names == names


def test_fields_that_no_record_has_are_counted_once(tmp_path: Path) -> None:
    roots = []
    for name in ("a", "b"):
        images = [DrawnImage((24, 30), [square(0, k)]) for k in range(4)]
        root = lay(tmp_path / name, images, CLASSES[:1])
        text = (
            (root / "train.json").read_text().replace('"iscrowd": 0', '"iscrowd": 0, "who": "me"')
        )
        (root / "train.json").write_text(text.replace('"name"', '"supercategory": "pet", "name"'))
        roots.append(str(root))
    merged = merge_data(tuple(roots), tmp_path / "c").lost["train"]
    divided = split_data(roots[0], tmp_path / "d", fractions=(0.5, 0.5)).lost
    for lost, count in ((merged, 2), (divided["train"], 1)):
        found = {what.split(":")[0]: number for what, number in lost.items()}
        assert found == {
            "the supercategory of a class": count,
            "the entry 'who' of an annotation": 4 * count,
        }
    assert divided["val"] == {}


WRONG = [
    (split_data, {"fractions": (0.8, 0.1)}, "sum is 1"),
    (split_data, {"fractions": (0.8, -0.1, 0.3)}, "above 0"),
    (split_data, {"by": "(p"}, "no regular expression"),
    (split_data, {"by": "x"}, r"tells no group of 2 of 2 image\(s\): 1.png"),
    (split_data, {"by": "nothing.csv"}, "does not exist"),
    (split_data, {"seed": -1}, "seed must be at least 0"),
    (split_data, {}, "leave nothing for"),
    (split_data, {"to": "yollo"}, "did you mean 'yolo'"),
    (merge_data, {}, "two data sets or more"),
    (change_classes, {}, "nothing would change"),
    (change_classes, {"rename": "cat"}, "expected old:new"),
    (change_classes, {"rename": "cat:"}, "needs one new name"),
    (change_classes, {"rename": "cta:x"}, "did you mean 'cat'"),
    (change_classes, {"drop": ("cat",), "keep": ("dog",)}, "leave one of them out"),
    (change_classes, {"drop": ("cat",), "rename": "cat:x"}, "renamed and left out"),
    (change_classes, {"drop": CLASSES}, "no class would be left"),
]


@pytest.mark.parametrize(("function", "options", "message"), WRONG)
def test_wrong_options(
    function: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    root = lay(tmp_path / "in", [DrawnImage((24, 30), [square(0)]), DrawnImage((24, 30), [])])
    with pytest.raises(ValueError, match=message):
        function(str(root), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "in/out").mkdir()
    (tmp_path / "in/out/file").touch()
    with pytest.raises((OptionError, ValueError)):
        function(
            str(root),
            tmp_path / "in/out",
            **{"fractions": (1,)} if function is split_data else options,
        )
    assert [one.name for one in (tmp_path / "in/out").iterdir()] == ["file"]


def test_tables_of_groups(tmp_path: Path) -> None:
    root = lay(tmp_path / "in", [DrawnImage((24, 30), [square(0)])])
    table = tmp_path / "groups.csv"
    for text, message in (
        ("path,colour\n1.png,red\n", "no column group, only path, colour"),
        ("path,group\n1.png\n", "groups.csv, line 2: expected a path and a group"),
        ("path,group\n1.png,a\n1.png,b\n", "line 3: 1.png is of a and of b"),
        ("path,group\n2.png,a\n", r"no group of 1 of 1 image\(s\)"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            split_data(root, tmp_path / "out", by=table)


def test_what_is_read_and_not_written_is_told(tmp_path: Path) -> None:
    lay(tmp_path / "in", [DrawnImage((24, 30), [square(0)])])
    (tmp_path / "boxes.csv").write_text("path,label,x1,y1,x2,y2\nin/1.png,cat,2,2,9,9\n")
    with pytest.raises(OptionError, match=r"to=coco or .* or yolo or"):
        change_classes(tmp_path / "boxes.csv", tmp_path / "out", rename="cat:dog")
    change_classes(tmp_path / "boxes.csv", tmp_path / "out", rename="cat:dog", to="coco")
    assert open_dataset(tmp_path / "out").names == ["dog"]


MEMORY = """
import resource, sys
from maskwright.data import open_dataset, split_data
if sys.argv[2] == "open":
    open_dataset(sys.argv[1])
else:
    split_data(sys.argv[1], sys.argv[2], fractions=(0.5, 0.5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_copies_take_no_memory(tmp_path: Path) -> None:
    """What is written passes by: a copy needs no more than what was read needs."""
    image = DrawnImage((400, 400), [])
    lay(tmp_path / "in", [image] * 400)
    file = tmp_path / "in/train.json"
    whole = json.loads(file.read_text())
    points = [float(v) for v in np.random.default_rng(0).uniform(0, 400, 60).round(2)]
    whole["annotations"] = [
        {"id": k + 1, "image_id": k % 400 + 1, "category_id": k % 3 + 1, "segmentation": [points]}
        for k in range(40_000)
    ]
    file.write_text(json.dumps(whole))

    def peak(what: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path / "in"), what],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[-1])

    opened, copied = peak("open"), peak(str(tmp_path / "out"))
    assert copied < opened + 50_000  # KiB; as objects of Python they would take 100,000
