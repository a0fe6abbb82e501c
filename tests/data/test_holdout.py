"""The images that are held out for validation: whatever the data, both parts can be used."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data import Dataset, open_dataset, read_coco, split_dataset
from maskwright.data.rewriting.holdout import hold_out


def make(root: Path, classes: list[list[int]], names: int, crowds: tuple[int, ...] = ()) -> Dataset:
    """A data set in which image i has an object of each of `classes[i]`; of `crowds` a region."""
    Image.new("RGB", (8, 8)).save(root / "x.png")
    pairs = [(image, label) for image, labels in enumerate(classes) for label in labels]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in range(len(classes))
        ],
        "annotations": [
            {"id": k, "image_id": image, "category_id": label, "bbox": [1, 1, 4, 4]}
            | {"iscrowd": int(label in crowds)}
            for k, (image, label) in enumerate(pairs, 1)
        ],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(names)],
    }
    for i in range(len(classes)):
        (root / f"{i}.png").hardlink_to(root / "x.png")
    (root / "train.json").write_text(json.dumps(content))
    return read_coco(root / "train.json")


SETS = st.lists(st.lists(st.integers(0, 4), max_size=3, unique=True), min_size=2, max_size=25)


@settings(max_examples=60, deadline=None)
@given(SETS, st.sampled_from([0.1, 0.15, 0.3, 0.5]), st.integers(0, 3))
def test_both_parts_have_objects_and_classes(
    classes: list[list[int]], fraction: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder), classes, 5)
    train, val = (part.tolist() for part in hold_out(dataset, fraction, seed))
    assert sorted(train + val) == list(range(len(classes)))
    assert len(val) == min(max(round(len(classes) * fraction), 1), len(classes) - 1)
    again = [part.tolist() for part in hold_out(dataset, fraction, seed)]
    assert again == [train, val]
    objects = [image for image, labels in enumerate(classes) if labels]
    if objects:
        assert set(objects) & set(train), "nothing to learn from"
    if len(objects) > 1:
        assert set(objects) & set(val), "nothing to score"
    # Where there is room for one image of each class, every class that can be is in both parts.
    repeated = [c for c in range(5) if sum(c in labels for labels in classes) > 1]
    singles = {c for c in range(5) if sum(c in labels for labels in classes) == 1}
    plain = not any(len(labels) > 1 for labels in classes)
    if plain and len(val) >= len(repeated):
        for label in repeated:
            for part in (train, val):
                assert any(label in classes[image] for image in part), (label, train, val)
    # A class of one image is trained on, unless only such images could be scored.
    free = sum(not set(labels) & singles for labels in classes)
    if plain and repeated and len(val) <= free // 2:
        assert all(not set(classes[image]) & singles for image in val)


def test_three_images_with_objects_of_forty(tmp_path: Path) -> None:
    classes: list[list[int]] = [[] for _ in range(40)]
    for image in (3, 17, 29):
        classes[image] = [0]
    dataset = make(tmp_path, classes, 1)
    random = 0
    for seed in range(20):
        train, val = hold_out(dataset, 0.15, seed)
        assert len(val) == 6
        assert {3, 17, 29} & set(val.tolist()) and {3, 17, 29} & set(train.tolist())
        random += not {3, 17, 29} & set(hold_out(dataset, 0.15, seed, holdout="random")[1].tolist())
    assert random > 5  # chance alone often leaves the validation without an object


def test_classes_in_proportion(tmp_path: Path) -> None:
    classes = [[0]] * 200 + [[1]] * 80 + [[0, 2]] * 20 + [[]] * 100
    dataset = make(tmp_path, classes, 3)
    for seed in range(5):
        val = hold_out(dataset, 0.2, seed)[1]
        counts = [sum(label in classes[image] for image in val) for label in range(3)]
        assert len(val) == 80
        assert np.allclose(counts, [44, 16, 4], atol=1)
    assert not np.array_equal(hold_out(dataset, 0.2, 0)[1], hold_out(dataset, 0.2, 1)[1])


def test_crowd_regions_are_no_objects(tmp_path: Path) -> None:
    classes = [[1]] * 30 + [[0]] * 2
    dataset = make(tmp_path, classes, 2, crowds=(1,))
    for seed in range(10):
        train, val = (set(part.tolist()) for part in hold_out(dataset, 0.1, seed))
        assert train & {30, 31} and val & {30, 31}
    images, labels = dataset.classes_of_images()
    assert (images.tolist(), labels.tolist()) == ([30, 31], [0, 0])
    images, labels = dataset.select([31, 2, 30]).classes_of_images()
    assert (images.tolist(), labels.tolist()) == ([0, 2], [0, 0])


def test_by_chance_alone_as_it_was(tmp_path: Path) -> None:
    dataset = make(tmp_path, [[0]] * 20, 1)
    order = np.random.Generator(np.random.Philox(key=[7, 0])).permutation(20)
    train, val = split_dataset(dataset, 0.3, 7, holdout="random")
    assert [val[i].image_id for i in range(6)] == sorted(order[:6].tolist())
    assert [train[i].image_id for i in range(14)] == sorted(order[6:].tolist())


def test_too_few_images_say_what_to_do(tmp_path: Path) -> None:
    dataset = make(tmp_path, [[0]], 1)
    with pytest.raises(ValueError, match=r"1 usable image.*val_fraction=0 trains on all"):
        split_dataset(dataset, 0.15)


def labelled(folder: Path, rows: list[tuple[str, str]]) -> Dataset:
    """Images with (label, group); group "" stands alone."""
    lines = ["path,label,group"]
    for number, (label, group) in enumerate(rows):
        Image.new("L", (8, 8), number % 256).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{label},{group}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return open_dataset(folder, records="labels")


def test_labels_are_held_out_in_proportion(tmp_path: Path) -> None:
    rows = [("common", "")] * 60 + [("rare", "")] * 10 + [("two", "")] * 2 + [("one", "")]
    data = labelled(tmp_path, rows)
    train, val = split_dataset(data, 0.2, seed=3)
    per_class = dict(zip(data.names, val.images_per_class().tolist(), strict=True))
    assert per_class == {"common": 12, "one": 0, "rare": 2, "two": 1}
    assert len(train) + len(val) == 73 and not train.files() & val.files()


@pytest.mark.parametrize("holdout", ["stratified", "random"])
def test_groups_stay_together(tmp_path: Path, holdout: str) -> None:
    rng = np.random.default_rng(0)
    # 30 patients with 1 to 6 images, most of one class; one class in a single patient.
    rows = [
        ("ab"[int(rng.random() < (0.2 if patient % 2 else 0.8))], f"p{patient}")
        for patient in range(30)
        for _ in range(int(rng.integers(1, 7)))
    ]
    data = labelled(tmp_path, [*rows, ("c", "last"), ("c", "last")])
    parts = set()
    for seed in range(5):
        train, val = split_dataset(data, 0.2, seed=seed, holdout=holdout)
        assert train.groups is not None and val.groups is not None
        assert not set(train.groups.tolist()) & set(val.groups.tolist())
        assert len(train) + len(val) == len(data) and 0.1 < len(val) / len(data) < 0.3
        if holdout == "stratified":
            assert train.images_per_class().min() > 0
            share = val.images_per_class()[:2] / data.images_per_class()[:2]
            assert (abs(share - 0.2) < 0.06).all()
        parts.add(tuple(sorted(val.files())))
        again = split_dataset(data, 0.2, seed=seed, holdout=holdout)[1]
        assert again.files() == val.files()
    assert len(parts) > 1


def test_one_group_cannot_be_divided_and_two_can(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    data = labelled(tmp_path / "one", [("a", "x"), ("b", "x"), ("b", "x")])
    with pytest.raises(ValueError, match="all images are of one group"):
        split_dataset(data)
    data = labelled(tmp_path / "two", [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("b", "y")])
    train, val = split_dataset(data, 0.2)
    assert (len(train), len(val)) == (3, 2)
