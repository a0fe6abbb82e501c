"""What a localizer is shown: squares, cuts that keep the object, mirrored keypoints, its object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from location_data import draw_data

from maskwright.data import open_dataset
from maskwright.data.batches import Chance
from maskwright.data.records import Dataset
from maskwright.structures import Resize
from maskwright.tasks.localization.batches import Augment, LocationBatches
from maskwright.tasks.localization.evaluate import box_metrics, mistake
from maskwright.tasks.localization.objects import choose


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root: Path = draw_data(tmp_path_factory.mktemp("data"), train=12, val=1)
    return open_dataset(root, "train", keypoints=True)


def test_the_whole_image_lies_on_a_square(data: Dataset) -> None:
    images, targets = LocationBatches(data, Resize(None, 80), None).make(
        [0, 5], [], Chance(0, 0, 0)
    )
    assert images.pixels.shape == (2, 3, 96, 96)  # a multiple of 32
    assert int(images.sizes.max()) == 80
    record = data[0]
    scale = images.sizes[0].flip(0).repeat(2) / torch.tensor(record.size).flip(0).repeat(2)
    torch.testing.assert_close(targets.boxes[0, 0], torch.from_numpy(record.boxes[0]) * scale)
    assert targets.valid[:, 0].tolist() == [True, False]


def colour_inside(pixels: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    x1, y1, x2, y2 = box.round().int().tolist()
    return pixels[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean((1, 2))


def test_random_views_keep_centre_and_a_quarter_of_the_object(data: Dataset) -> None:
    augment = Augment(0.5, 0.5, 0.5, (1.0, 3.0))
    makes = LocationBatches(data, Resize(None, 64), augment, keypoints=True)
    cut = 0
    for epoch in range(60):
        for index in (0, 1, 2):
            chance = Chance(3, epoch, 0)
            images, targets = makes.make([index], [], chance)
            view = makes.view(choose(data[index]).record, chance.of(index))
            box, whole = targets.boxes[0, 0], view.to_window(data[index].boxes.reshape(-1, 2, 2))
            sides = (whole[0, 1] - whole[0, 0]).prod()
            kept = float((box[2:] - box[:2]).prod()) / sides
            assert kept >= 0.25 - 1e-6
            centre = whole[0].mean(0)
            assert bool(((centre >= 0) & (centre <= view.window_size[::-1])).all())
            cut += kept < 0.99
            if min((box[2:] - box[:2]).tolist()) > 8:
                red, _, blue = colour_inside(images.pixels[0], box).tolist()
                assert (red > blue) == (int(targets.labels[0, 0]) == 0)
    assert cut > 20


def test_mirrors_exchange_left_and_right(data: Dataset) -> None:
    plain = LocationBatches(data, Resize(None, 64), None, keypoints=True)
    mirror = LocationBatches(data, Resize(None, 64), Augment(flip=1.0), keypoints=True)
    images, a = plain.make([0], [], Chance(0, 0, 0))
    flipped, b = mirror.make([0], [], Chance(0, 0, 0))
    width = int(images.sizes[0, 1])
    assert a.keypoints is not None and b.keypoints is not None
    wanted = a.keypoints[0, 0, [0, 2, 1]].clone()
    wanted[:, 0] = width - wanted[:, 0]
    torch.testing.assert_close(b.keypoints[0, 0], wanted)
    part = images.pixels[0, :, :, :width].flip(2)
    assert torch.equal(flipped.pixels[0, :, :, :width], part)


def test_the_surroundings_of_an_object_fill_the_square(data: Dataset) -> None:
    makes = LocationBatches(data, Resize(None, 64), None, keypoints=True, around=True)
    for index in (0, 1, 2, 3):
        images, targets = makes.make([index], [], Chance(0, 0, 0))
        assert 60 <= int(images.sizes[0].max()) <= 64
        box, record = targets.boxes[0, 0], data[index]
        ratio = (record.boxes[0, 2:] - record.boxes[0, :2]) * 1.25
        assert float((box[2:] - box[:2]).max()) >= 64 / 1.25 - 2
        assert targets.keypoints is not None and bool((targets.keypoints[0, 0, :, 2] == 2).all())
        expected = box[:2] + torch.tensor([0.5, 0.5]) * (box[2:] - box[:2])
        torch.testing.assert_close(targets.keypoints[0, 0, 0, :2], expected, atol=1e-3, rtol=0)
        assert ratio.min() > 0


def test_the_largest_object_counts_and_regions_of_many_are_unknown(data: Dataset) -> None:
    record = data[0]
    boxes = np.array([[0, 0, 9, 9], [0, 0, 20, 20], [0, 0, 40, 40], [1, 1, 9, 9]], np.float32)
    several = replace(
        record,
        boxes=boxes,
        labels=np.array([1, 1, 0, 1]),
        crowd=np.array([False, False, True, False]),
        ann_ids=np.arange(4),
        keypoints=np.zeros((4, 3, 3), np.float32),
    )
    chosen = choose(several)
    assert chosen.label == 1 and chosen.record.boxes.tolist() == [[0, 0, 20, 20]]
    assert chosen.boxes.tolist() == boxes[[0, 1, 3]].tolist() and not chosen.unknown
    crowd = choose(replace(several, crowd=np.ones(4, bool)))
    assert crowd.label is None and crowd.unknown
    hidden = choose(several, keypoints=True)
    assert hidden.label is None


def test_metrics_and_mistakes_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        label = int(rng.integers(0, 7))  # 6: the background
        named = rng.permutation(7)[:5].tolist()
        overlaps = [0.0 if k == 6 else float(rng.random()) for k in named]
        known = overlaps[named.index(label)] if label in named else float(rng.random())
        rows.append({"label": label, "named": named, "overlaps": overlaps, "known": known})
    found = box_metrics(rows, 6)
    there = [row for row in rows if row["label"] != 6]
    top1 = [r["named"][0] == r["label"] and r["overlaps"][0] >= 0.5 for r in there]
    top5 = [
        any(k == r["label"] and o >= 0.5 for k, o in zip(r["named"], r["overlaps"], strict=True))
        for r in there
    ]
    assert found["box/top1_loc"] == pytest.approx(np.mean(top1))
    assert found["box/top5_loc"] == pytest.approx(np.mean(top5))
    assert found["box/gt_known"] == pytest.approx(np.mean([r["known"] >= 0.5 for r in there]))
    assert found["box/IoU"] == pytest.approx(np.mean([r["known"] for r in there]))
    assert found["class/top1"] == pytest.approx(
        np.mean([r["named"][0] == r["label"] for r in rows])
    )
    kinds = [mistake(row, 6) for row in rows]
    assert kinds.count("") - sum(r["label"] == 6 and r["named"][0] == 6 for r in rows) == sum(top1)
    assert set(kinds) == {"", "class", "box", "both", "object"}
