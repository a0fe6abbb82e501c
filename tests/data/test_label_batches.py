"""Batches of labelled images: torchvision's crops, keyed randomness, mixed labels, balance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from maskwright.data import Dataset, LabelAugment, LabelBatches, Loader, load_batches, open_dataset
from maskwright.data.batch_file import load_batch, save_batch
from maskwright.data.label_batches import balanced_draws, cut_box, mixed
from maskwright.data.label_samples import augmented, centred, draw_crop, ten_crops
from maskwright.data.sampling import class_weights
from maskwright.errors import OptionError
from maskwright.structures import Labels, Preprocess

FIT = Preprocess(crop=24, short=32)
ALL: dict[str, Any] = {"vflip": 0.5, "rotate90": 0.5, "photometric": True, "erase": 0.5}
ALL |= {"mixup": 0.2, "cutmix": 1.0, "smoothing": 0.1, "policy": "randaugment"}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Nine images of three classes, 5, 3 and 1 of them, of various sizes."""
    rng = np.random.default_rng(0)
    for name, count in (("a", 5), ("b", 3), ("c", 1)):
        (tmp_path / name).mkdir()
        for k in range(count):
            size = (40 + 3 * k, 60 - 5 * k, 3)
            Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / name / f"{k}.png")
    return open_dataset(tmp_path, records="labels")


def loader_of(data: Dataset, augment: LabelAugment | None = None, **options: Any) -> Loader:
    defaults = {"batch": 4, "seed": 3, "workers": 0, "shuffle": augment is not None}
    return load_batches(LabelBatches(data, FIT, augment), **defaults | options)


@pytest.mark.parametrize("way", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(480, 333), (301, 301), (97, 640)])
def test_the_middle_and_ten_crops_are_torchvisions(way: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    fit = Preprocess(crop=65, short=84, interpolation=way)
    resize = v2.Resize(84, v2.InterpolationMode(way), antialias=True)
    image = resize(Image.fromarray(pixels))
    middle = v2.functional.pil_to_tensor(v2.CenterCrop(65)(image))
    torch.testing.assert_close(centred(pixels, fit), middle.float(), rtol=0, atol=0)
    crops = torch.stack([v2.functional.pil_to_tensor(crop) for crop in v2.TenCrop(65)(image)])
    torch.testing.assert_close(ten_crops(pixels, fit), crops.float(), rtol=0, atol=0)
    # On tensors torchvision's filter rounds in another place, on few pixels.
    tensor = v2.CenterCrop(65)(resize(torch.from_numpy(pixels).permute(2, 0, 1)))
    assert (centred(pixels, fit) - tensor).abs().max() <= 1


def test_random_crops_have_the_areas_and_ratios_of_the_paper() -> None:
    augment, rng = LabelAugment(scale=(0.2, 0.7)), np.random.default_rng(0)
    boxes = np.array([draw_crop((400, 500), augment, rng) for _ in range(2000)])
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    assert (boxes >= 0).all() and (boxes[:, 2] <= 500).all() and (boxes[:, 3] <= 400).all()
    area, ratio = w * h / 200000, np.log(w / h)
    assert 0.195 < area.min() < 0.21 and 0.66 < area.max() < 0.705
    assert abs(area.mean() - 0.45) < 0.015  # even
    assert abs(ratio).max() < math.log(4 / 3) + 0.01 and abs(ratio.mean()) < 0.01
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(8, scale=(0.2, 0.7))
    drawn = [theirs.make_params([torch.empty(3, 400, 500)]) for _ in range(2000)]
    shares = np.array([one["height"] * one["width"] for one in drawn]) / 200000
    for share in (0.1, 0.5, 0.9):
        assert abs(np.quantile(shares, share) - np.quantile(area, share)) < 0.03
    # Where none fits, the largest in the middle.
    assert draw_crop((10, 1000), LabelAugment(scale=(1, 1)), rng) == (493, 0, 506, 10)
    assert draw_crop((1000, 12), LabelAugment(scale=(1, 1)), rng) == (0, 492, 12, 508)


def test_a_view_is_the_crop_resized_and_mirrored() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (90, 120, 3), np.uint8)
    augment = LabelAugment(flip=1.0)
    view = augmented(pixels, FIT, augment, np.random.default_rng(5))
    x1, y1, x2, y2 = draw_crop((90, 120), augment, np.random.default_rng(5))
    size = [y1, x1, y2 - y1, x2 - x1, [24, 24]]
    theirs = v2.functional.resized_crop(Image.fromarray(pixels), *size)
    torch.testing.assert_close(view, v2.functional.pil_to_tensor(theirs).flip(-1).float())


def test_policies_are_torchvisions_with_the_numbers_of_the_image() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 24, 3), np.uint8)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}
    plain = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    before = torch.get_rng_state()
    for policy, theirs in (
        ("randaugment", v2.RandAugment(2, 9)),
        ("trivialaugment", v2.TrivialAugmentWide()),
    ):
        augment = LabelAugment(policy=policy, **whole)  # type: ignore[arg-type]
        views = [augmented(pixels, FIT, augment, np.random.default_rng(k)) for k in range(8)]
        again = augmented(pixels, FIT, augment, np.random.default_rng(3))
        assert torch.equal(views[3], again) and not torch.equal(views[3], views[4])
        rng = np.random.default_rng(3)
        draw_crop((24, 24), augment, rng)
        rng.random(3)
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**63)))
            assert torch.equal(theirs(plain).float(), again)
    assert torch.equal(torch.get_rng_state(), before)
    erased = augmented(pixels, FIT, LabelAugment(erase=1.0, **whole), np.random.default_rng(0))  # type: ignore[arg-type]
    gone = (erased != plain).any(0)
    rows, columns = gone.any(1).sum(), gone.any(0).sum()
    assert gone.sum() == rows * columns and 0.02 * 576 * 0.7 < gone.sum() < 0.33 * 576 * 1.3
    np.testing.assert_allclose(erased[:, gone][:, 0], FIT.mean, rtol=1e-6)


def same(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.indices == y.indices and torch.equal(x.keys, y.keys)
        assert torch.equal(x.images.pixels, y.images.pixels)
        assert torch.equal(x.targets.probs, y.targets.probs)


def test_workers_and_processes_change_nothing(data: Dataset) -> None:
    augment = LabelAugment(**ALL)
    alone = loader_of(data, augment)
    helped = loader_of(data, augment, workers=2)
    for epoch in (0, 1):
        for loader in (alone, helped):
            loader.set_epoch(epoch)
        same(alone, helped)
    ranks = [loader_of(data, augment, batch=2, world=2, rank=rank) for rank in (0, 1)]
    alone.set_epoch(0)
    whole = list(alone)
    for number, block in enumerate(whole[:2]):  # full ones
        parts = [list(rank)[number] for rank in ranks]
        assert [i for part in parts for i in part.indices] == block.indices
        joined = torch.cat([part.images.pixels for part in parts])
        assert torch.equal(joined, block.images.pixels)
        probs = torch.cat([part.targets.probs for part in parts])
        assert torch.equal(probs, block.targets.probs)
    assert [len(list(rank)[2]) for rank in ranks] == [1, 0]  # nine images
    assert list(ranks[1])[2].images.pixels.shape == (0, 3, 24, 24)


def test_evaluation_shows_the_labels_as_they_are(data: Dataset, tmp_path: Path) -> None:
    batches = list(loader_of(data))
    assert [batch.indices for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    probs = torch.cat([batch.targets.probs for batch in batches])
    assert probs.argmax(1).tolist() == [0] * 5 + [1] * 3 + [2] and (probs.sum(1) == 1).all()
    first = batches[0].images
    assert torch.equal(first.pixels[1], centred(data.image(1), FIT))
    assert first.original_sizes[1].tolist() == list(data.image(1).shape[:2])
    ten = load_batches(
        LabelBatches(data, FIT, None, ten_crop=True), batch=4, seed=0, workers=0, shuffle=False
    )
    made = next(iter(ten))
    assert made.images.pixels.shape[0] == 40 and len(made.targets) == len(made) == 4
    assert torch.equal(made.images.pixels[10:20], ten_crops(data.image(1), FIT))
    save_batch(tmp_path / "b.safetensors", batches[0], {"x": 1})
    again, _ = load_batch(tmp_path / "b.safetensors")
    assert isinstance(again.targets, Labels) and torch.equal(again.targets.probs, probs[:4])


def constant(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
    return values.expand(count, 3, 20, 30).clone(), torch.eye(count)


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_pixels_are(way: str) -> None:
    """With images of one value each, the mean value tells the shares."""
    shares = []
    for seed in range(40):
        pixels, probs = mixed(
            *constant(5),
            LabelAugment(**{way: 1.0}),
            np.random.default_rng(seed),  # type: ignore[arg-type]
        )
        found = pixels.mean((1, 2, 3))
        expected = probs @ torch.arange(5.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert torch.equal(probs[4], torch.eye(5)[4]) and bool((pixels[4] == 4).all())
        assert torch.equal(probs[0, [0, 1]], probs[1, [1, 0]])
        torch.testing.assert_close(probs.sum(1), torch.ones(5))
        shares.append(float(probs[0, 0]))
    assert min(shares) < 0.4 and max(shares) > 0.8


def test_a_batch_is_mixed_in_one_way() -> None:
    kinds = set()
    for seed in range(30):
        augment = LabelAugment(mixup=1.0, cutmix=1.0)
        pixels, _ = mixed(*constant(4), augment, np.random.default_rng(seed))
        whole = {bool(one.unique().numel() == 1) for one in pixels}
        assert len(whole) == 1
        kinds |= whole
    assert kinds == {True, False}


def test_the_share_is_that_of_the_clipped_box() -> None:
    assert cut_box(0.75, (15, 10), (20, 30)) == ((8, 5, 22, 15), 1 - 140 / 600)
    assert cut_box(0.75, (0, 19), (20, 30)) == ((0, 14, 7, 20), 1 - 42 / 600)
    assert cut_box(1.0, (3, 3), (20, 30))[1] == 1.0


def test_smoothing_is_that_of_torch(data: Dataset) -> None:
    batch = next(iter(loader_of(data, LabelAugment(smoothing=0.1))))
    logits = torch.randn(4, 3)
    labels = torch.tensor([data[i].image_labels[0] for i in batch.indices])  # type: ignore[index]
    theirs = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    ours = torch.nn.functional.cross_entropy(logits, batch.targets.probs)
    torch.testing.assert_close(ours, theirs)


def test_rare_classes_are_drawn_more_often_and_otherwise(data: Dataset) -> None:
    counts = data.images_per_class()
    weights = class_weights(counts, "inverse")
    batches = LabelBatches(data, FIT, LabelAugment(), weights=weights)
    draws = balanced_draws(data, weights)
    loader = load_batches(batches, batch=3, seed=0, workers=0, shuffle=True, draws=draws)
    shown = list(loader)
    indices = [i for batch in shown for i in batch.indices]
    assert len(indices) == 9 and indices.count(8) == 3  # the only one of its class
    assert shown[0].targets.weights is not None
    views = [
        batch.images.pixels[row]
        for batch in shown
        for row, index in enumerate(batch.indices)
        if index == 8
    ]
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    same(loader, load_batches(batches, batch=3, seed=0, workers=1, shuffle=True, draws=draws))


def test_options_that_contradict_each_other(data: Dataset, nuclei_mini: Path) -> None:
    with pytest.raises(ValueError, match="has objects but no labels of images"):
        LabelBatches(open_dataset(nuclei_mini), FIT, None)
    with pytest.raises(OptionError, match="ten_crop is for evaluation"):
        LabelBatches(data, FIT, LabelAugment(), ten_crop=True)
    with pytest.raises(OptionError, match=r"smoothing=0\.1 divides one label"):
        LabelBatches(data, FIT, LabelAugment(smoothing=0.1), multilabel=True)
    for wrong in (
        {"scale": (0, 1)}, {"ratio": (2, 1)}, {"flip": 2}, {"policy": "autoaugment"},
        {"magnitude": 31}, {"mixup": -1}, {"smoothing": 1},
    ):  # fmt: skip
        with pytest.raises(OptionError, match=next(iter(wrong))):
            LabelAugment(**wrong)  # type: ignore[arg-type]


def test_several_labels(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (30, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "x.csv").write_text("path,label\na.png,x;y\nb.png,y\n")
    data = open_dataset(tmp_path, records="labels")
    with pytest.raises(ValueError, match=r"1 of 2 images have not exactly one.*a\.png with 2"):
        LabelBatches(data, FIT, None)
    batches = LabelBatches(data, FIT, None, multilabel=True)
    made = next(iter(load_batches(batches, batch=2, seed=0, workers=0, shuffle=False)))
    assert made.targets.probs.tolist() == [[1, 1], [0, 1]]
