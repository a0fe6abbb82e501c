"""Batches: the same for any number of workers and processes, legal without objects."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.data import Augment, Batch, Loader, make_loader, open_dataset, read_coco
from maskwright.structures import Resize

Scene = Any  # of conftest.py
SAME = Resize(None, None, 1.0)


def loader_of(dataset: Any, **options: Any) -> Loader:
    defaults: dict[str, Any] = {"batch": 4, "resize": SAME, "augment": None, "seed": 0}
    defaults |= {"workers": 0, "shuffle": False}
    return make_loader(dataset, **(defaults | options))


def tensors(batch: Batch) -> list[torch.Tensor]:
    targets = batch.targets
    assert targets.masks is not None
    assert targets.crowd is not None
    return [
        batch.images.pixels,
        batch.images.sizes,
        targets.boxes,
        targets.labels,
        targets.valid,
        targets.crowd,
        targets.masks.data,
        targets.masks.offsets,
        targets.masks.frames,
    ]


def assert_same(a: Iterable[Batch], b: Iterable[Batch]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.indices == y.indices
        assert all(torch.equal(s, t) for s, t in zip(tensors(x), tensors(y), strict=True))


def test_workers_change_nothing(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini).select(range(10))
    options = {"augment": Augment(crop=128, rotate90=0.5), "shuffle": True, "batch": 3}
    alone, helped = (loader_of(dataset, workers=workers, **options) for workers in (0, 2))
    orders = []
    for epoch in (0, 1):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        assert_same(alone, helped)
        orders.append([i for batch in alone for i in batch.indices])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    alone.set_epoch(0)
    assert [i for batch in alone for i in batch.indices] == orders[0]
    other = loader_of(dataset, seed=1, **options)
    assert [i for batch in other for i in batch.indices] != orders[0]


@pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="no spawn")
def test_spawned_workers(scene: Scene) -> None:
    dataset = read_coco(scene.write())
    loader = loader_of(dataset, workers=1, batch=1)
    loader._loader.multiprocessing_context = "spawn"
    assert_same(loader, loader_of(dataset, batch=1))


@pytest.mark.parametrize(("images", "world"), [(12, 2), (11, 2), (10, 4)])
def test_processes_share_the_blocks_of_one(nuclei_mini: Path, images: int, world: int) -> None:
    dataset = open_dataset(nuclei_mini).select(range(images))
    options = {"augment": Augment(), "shuffle": True}
    whole = list(loader_of(dataset, batch=4, **options))
    ranks = [
        list(loader_of(dataset, batch=4 // world, world=world, rank=rank, **options))
        for rank in range(world)
    ]
    assert {len(rank) for rank in ranks} == {len(whole)}
    for number, block in enumerate(whole):
        joined = [i for rank in ranks for i in rank[number].indices]
        assert joined == block.indices
        first = ranks[0][number]
        n = int(first.targets.valid[0].sum())
        assert torch.equal(first.targets.boxes[0, :n], block.targets.boxes[0, :n])


def test_evaluation_shows_every_image_once(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val").select(range(11))
    shares = [
        [i for batch in loader_of(dataset, batch=2, world=3, rank=rank) for i in batch.indices]
        for rank in range(3)
    ]
    assert sorted(i for share in shares for i in share) == list(range(11))
    loader = loader_of(dataset, batch=4)
    assert [len(batch) for batch in loader] == [4, 4, 3]
    assert len(loader) == 3
    short = loader_of(dataset, batch=4, drop_last=True)
    assert (len(short), [len(batch) for batch in short]) == (2, [4, 4])


def test_start_within_an_epoch(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini).select(range(9))
    loader = loader_of(dataset, batch=2, shuffle=True, augment=Augment())
    loader.set_epoch(3)
    whole = list(loader)
    loader.set_epoch(3, start=2)
    assert_same(whole[2:], loader)


def test_targets_are_padded_slots(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    batch = next(iter(loader_of(dataset, batch=3)))
    counts = [len(dataset[i].labels) for i in batch.indices]
    targets = batch.targets
    assert targets.boxes.shape[1] % 8 == 0
    assert max(counts) <= targets.boxes.shape[1] < max(counts) + 8
    assert targets.valid.sum(1).tolist() == counts
    assert targets.masks is not None
    for b, n in enumerate(counts):
        np.testing.assert_allclose(targets.boxes[b, :n], dataset[b].boxes)
        assert targets.boxes[b, n:].abs().sum() == 0
        for k in range(n):
            x1, y1, x2, y2 = targets.masks.frames[b, k].tolist()
            start = int(targets.masks.offsets[b, k])
            crop = targets.masks.data[start : start + (y2 - y1) * (x2 - x1)]
            native, frame = dataset.mask(b, k)
            assert frame == (x1, y1, x2, y2)
            np.testing.assert_array_equal(crop.reshape(native.shape).numpy(), native)
    assert batch.to("cpu").indices == batch.indices


def test_batch_without_any_object(scene: Scene) -> None:
    scene.content["annotations"] = []
    dataset = read_coco(scene.write())
    for workers in (0, 1):
        batch = next(iter(loader_of(dataset, workers=workers, augment=Augment(crop=16))))
        assert batch.targets.boxes.shape == (2, 8, 4)
        assert not batch.targets.valid.any()
        assert batch.targets.masks is None


def test_empty_images_among_others(scene: Scene) -> None:
    scene.content["annotations"].pop()
    dataset = read_coco(scene.write())
    batch = next(iter(loader_of(dataset)))
    assert batch.targets.valid.sum(1).tolist() == [1, 0]
    only = next(iter(loader_of(dataset.select([1]))))
    assert only.targets.masks is not None
    assert only.targets.masks.data.shape == (0,)


def test_boxes_only(nuclei_mini: Path) -> None:
    dataset = open_dataset(nuclei_mini, "val")
    batch = next(iter(loader_of(dataset, masks=False)))
    assert batch.targets.masks is None
    assert batch.targets.valid.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_named(scene: Scene, workers: int) -> None:
    dataset = read_coco(scene.write())
    file = scene.folder / "b.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.png.*data check") as caught:
        list(loader_of(dataset, batch=1, workers=workers))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"workers": -1}, {"world": 0}, {"rank": 2, "world": 2}]
)
def test_numbers_out_of_range(scene: Scene, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        loader_of(read_coco(scene.write()), **options)
