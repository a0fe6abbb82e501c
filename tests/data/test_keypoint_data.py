"""Keypoints of COCO files: what is read, what is reported, and where augmentation takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data import read_coco
from maskwright.data.checking.check import check_data
from maskwright.data.loader import make_loader
from maskwright.data.transforms import Augment, make_sample
from maskwright.structures import COCO_PERSON, Resize, Skeleton

NAMES = ["left_a", "right_a", "tip"]


@pytest.fixture
def points(scene: Any) -> Any:
    """The scene with keypoints of its two categories; the second object has none."""
    for category in scene.content["categories"]:
        category |= {"keypoints": NAMES, "skeleton": [[1, 2], [2, 3]]}
    scene.first.update({"keypoints": [3, 4, 2, 11, 5, 1, 0, 0, 0], "num_keypoints": 2})
    return scene


def faults(dataset: Any) -> list[tuple[str, str, int | None]]:
    return [(fault.kind, fault.action, fault.annotation_id) for fault in dataset.faults]


def test_keypoints_are_read_as_they_are(points: Any) -> None:
    dataset = read_coco(points.write())
    assert not dataset.faults
    assert dataset.skeleton == Skeleton(tuple(NAMES), ((0, 1), (1, 2)))
    assert dataset.has_keypoints
    assert dataset[0].keypoints.tolist() == [[[3, 4, 2], [11, 5, 1], [0, 0, 0]]]
    assert not dataset[1].keypoints.any(), "an object of which nobody labelled them"
    truth = dataset.to_coco()
    assert truth["annotations"][0]["num_keypoints"] == 2
    assert truth["categories"][0]["skeleton"] == [[1, 2], [2, 3]]
    assert truth["categories"][1]["keypoints"] == NAMES
    points.first["keypoints"][2::3] = [0, 0, 0]
    points.first["num_keypoints"] = 0
    assert not read_coco(points.write()).has_keypoints


@pytest.mark.parametrize(
    ("change", "kind", "words", "expected"),
    [
        ({"keypoints": [1, 2, 2]}, "bad keypoints", "must be 9 numbers .* got 3 numbers", None),
        ({"keypoints": "1,2,2"}, "bad keypoints", "must be 9 numbers", None),
        (
            {"keypoints": [3, 4, 7, 5, 5, -1, 6, 6, 0.5]},
            "bad visibility of keypoints",
            r"got \[7, -1, 0\.5\]",
            [[3, 4, 2], [0, 0, 0], [6, 6, 2]],
        ),
        ({"num_keypoints": 3}, "num_keypoints disagrees", "is 3, but 2 are labelled", None),
        (
            {"keypoints": [3, 4, 2, float("nan"), 5, 1, None, None, 0], "num_keypoints": 2},
            "bad keypoints",
            r"keypoints \[2\] are labelled but have no finite position",
            [[3, 4, 2], [0, 0, 0], [0, 0, 0]],
        ),
        (
            {"keypoints": [3, 4, 2, 400, 5, 1, 0, 0, 0]},
            "keypoints outside the image",
            r"keypoints \[2\] lie outside the image of 40x30",
            [[3, 4, 2], [0, 0, 0], [0, 0, 0]],
        ),
    ],
)
def test_what_is_wrong_is_listed(
    points: Any, change: dict[str, Any], kind: str, words: str, expected: Any
) -> None:
    points.first.update(change)
    dataset = read_coco(points.write())
    (fault,) = dataset.faults
    assert (fault.kind, fault.action) == (kind, "repaired")
    assert (fault.image_id, fault.annotation_id) == (5, 1) and fault.file == str(points.file)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(fault.message)
    if expected is not None:
        assert dataset[0].keypoints.tolist() == [expected]


def test_categories_and_their_keypoints(points: Any) -> None:
    dog, cat = points.content["categories"]
    dog["keypoints"] = ["nose", "tail"]
    points.content["annotations"][1]["keypoints"] = [21, 11, 2, 22, 12, 2]
    dataset = read_coco(points.write())
    assert faults(dataset) == [("other keypoints", "left out", None)]
    assert dataset.skeleton.names == tuple(NAMES) and not dataset[1].keypoints.any()
    del dog["keypoints"]
    cat |= {"keypoints": ["a", "b", "a"], "skeleton": [[1, 2], [0, 1], "x", [3, 4]]}
    dataset = read_coco(points.write())
    assert dataset.skeleton == Skeleton(("a", "b", "a#3"), ((0, 1),))
    assert [kind for kind, _, _ in faults(dataset)] == ["duplicate keypoint name"] + [
        "bad skeleton"
    ] * 3
    del cat["keypoints"]
    dataset = read_coco(points.write())
    assert dataset.skeleton is None and dataset[0].keypoints is None
    assert faults(dataset) == [("keypoints without names", "left out", 1)]
    assert "add the list" in dataset.faults[0].message


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (COCO_PERSON.names, [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]),
        (("Left Eye", "RIGHT EYE", "eye.L", "eye.R", "l_hip", "r_hip"), [1, 0, 3, 2, 5, 4]),
        (("left", "bright", "tail", "left_paw"), [0, 1, 2, 3]),
        (("Left", "left", "right"), [2, 1, 0]),
        (("corner_1", "corner_2"), [0, 1]),
    ],
)
def test_left_and_right_by_name(names: tuple[str, ...], expected: list[int]) -> None:
    assert Skeleton(names).mirrored == expected


def test_impossible_skeletons_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        Skeleton(("a", "a"))
    with pytest.raises(ValueError, match=r"bone \(0, 2\)"):
        Skeleton(("a", "b"), ((0, 2),))


AUGMENTS = [
    Augment(flip=1),
    Augment(flip=0, vflip=1),
    Augment(flip=1, vflip=1, photometric=False),
    Augment(flip=0, rotate90=1),
    Augment(flip=0, scale_jitter=(0.5, 0.5)),
    Augment(flip=0, crop=(40, 48)),
    Augment(flip=1, vflip=0.5, rotate90=0.5, crop=(70, 60), scale_jitter=(1.3, 2.0)),
]


@pytest.mark.parametrize("augment", AUGMENTS)
def test_keypoints_stay_on_their_pixels(points: Any, augment: Augment) -> None:
    """Each keypoint lies in a block of its own colour, wherever augmentation takes it."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    places = np.array([[6.0, 8], [30, 6], [20, 22]])
    picture = np.full((30, 40, 3), 60, np.uint8)
    for (x, y), colour in zip(places.astype(int), colours, strict=True):
        picture[y - 3 : y + 3, x - 3 : x + 3] = colour
    Image.fromarray(picture).save(points.folder / "a.png")
    points.first.update(
        {
            "bbox": [2, 2, 34, 26],
            "segmentation": [[2, 2, 36, 2, 36, 28, 2, 28]],
            "keypoints": np.concatenate([places, [[2], [1], [2]]], 1).ravel().tolist(),
            "num_keypoints": 3,
        }
    )
    dataset = read_coco(points.write())
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sample = make_sample(dataset, 0, Resize(None, 80), augment, rng)
        if not len(sample.boxes):
            continue
        height, width = sample.pixels.shape[1:]
        swapped = False
        for k, (x, y, shown) in enumerate(sample.keypoints[0].tolist()):
            if not shown:
                assert (x, y) == (0, 0)
                continue
            seen += 1
            assert 0 <= x <= width and 0 <= y <= height
            pixel = sample.pixels[:, min(int(y), height - 1), min(int(x), width - 1)].numpy()
            own = int(np.abs(colours - pixel).sum(1).argmin())
            assert np.abs(colours[own] - pixel).sum() < 120, "on a block, not on the ground"
            swapped |= own != k
            assert own == k or {own, k} == {0, 1}, "only left and right change places"
        mirrored = augment.flip == 1 and augment.vflip == 0
        if sample.keypoints[0, :2, 2].any() and augment.vflip in (0, 1):
            assert swapped == (mirrored or (augment.flip == 0 and augment.vflip == 1))
    assert seen > 5


def test_keypoints_outside_the_window_are_not_labelled(points: Any) -> None:
    points.first.update({"keypoints": [1, 1, 2, 38, 28, 1, 20, 15, 2], "num_keypoints": 3})
    dataset = read_coco(points.write())
    counts = set()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        augment = Augment(flip=0, crop=(16, 16), min_visible=0)
        sample = make_sample(dataset, 0, Resize(None, 40), augment, rng)
        if len(sample.boxes):
            shown = sample.keypoints[0, :, 2] > 0
            assert (sample.keypoints[0, shown, :2] < 16).all()
            assert not sample.keypoints[0, ~shown].any()
            counts.add(int(shown.sum()))
    assert min(counts) < 2


def test_data_check_counts_the_labelled(points: Any) -> None:
    points.write()
    report = check_data(points.file)
    assert report.ok and report.splits["train"].per_keypoint == {
        "left_a": 1,
        "right_a": 1,
        "tip": 0,
    }
    assert "labelled keypoints: left_a 1, right_a 1, tip 0" in str(report)
    points.content["annotations"] = []
    points.write()
    assert set(check_data(points.file).splits["train"].per_keypoint.values()) == {0}


def test_batches_carry_them(points: Any) -> None:
    dataset = read_coco(points.write())
    loader = make_loader(
        dataset, batch=2, resize=Resize(None, 40), augment=None, seed=0, workers=0, shuffle=False
    )
    (batch,) = loader
    assert batch.targets.keypoints.shape == (2, 8, 3, 3)
    assert batch.targets.keypoints[0, 0].tolist() == [[3, 4, 2], [11, 5, 1], [0, 0, 0]]
    assert not batch.targets.keypoints[1].any()
