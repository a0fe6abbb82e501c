"""Images and label maps as network input: labels lie where their pixels lie, whatever happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from map_files import numbers, photo, read, save

from maskwright.data import Dataset
from maskwright.data.augment.view import View
from maskwright.data.batches import Chance, load_batches
from maskwright.data.maps.batches import MapBatches
from maskwright.data.maps.counts import (
    PixelCounts,
    count_pixels,
    median_frequency,
    median_weights,
)
from maskwright.data.maps.samples import (
    MapAugment,
    draw_map_view,
    make_map_sample,
    nearest,
    padding_share,
    sample_labels,
)
from maskwright.errors import OptionError
from maskwright.structures import LabelMaps, Resize

SAME = Resize(None, None, 1.0)
PLAIN = MapAugment(scale=(1.0, 1.0), crop=None, flip=0.0)


@given(st.integers(1, 80), st.integers(1, 160))
@settings(max_examples=60, deadline=None)
def test_nearest_is_the_pixel_in_which_the_centre_lies(old: int, new: int) -> None:
    places = nearest(old, new)
    exact = [(2 * j + 1) * old / (2 * new) for j in range(new)]  # of the centre, in old pixels
    assert all(place <= x <= place + 1 for place, x in zip(places.tolist(), exact, strict=True))
    # A mirror image stays one, wherever a centre does not lie on an edge.
    sure = np.array([abs(x - round(x)) > 1e-9 for x in exact])
    assert (places[sure] == (old - 1 - places[::-1])[sure]).all()
    if new % old == 0 and (new // old) % 2:
        assert (places[new // old // 2 :: new // old] == np.arange(old)).all()


def test_nearest_against_torch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        h, w, H, W = rng.integers(1, 40, 4).tolist()
        labels = rng.integers(0, 9, (h, w), np.uint8)
        view = View((H, W), (W / w, H / h), (0, 0, W, H))
        theirs = F.interpolate(
            torch.from_numpy(labels)[None, None].double(), (H, W), mode="nearest-exact"
        )
        on_edge = [
            [(2 * j + 1) * old % (2 * new) == 0 for j in range(new)]
            for old, new in ((h, H), (w, W))
        ]
        sure = ~(np.array(on_edge[0])[:, None] | np.array(on_edge[1]))
        np.testing.assert_array_equal(sample_labels(labels, view)[sure], theirs[0, 0].numpy()[sure])


@pytest.fixture
def coded(tmp_path: Path) -> Dataset:
    """Images whose colour is the label, so that what is seen tells where it comes from."""
    rng = np.random.default_rng(1)
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text("".join(f"c{i}\n" for i in range(8)))
    for number, size in enumerate([(40, 60), (30, 30), (1, 1), (64, 48)]):
        blocks = rng.integers(0, 8, (-(-size[0] // 10), -(-size[1] // 10)), np.uint8)
        labels = blocks.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]]
        save(tmp_path / f"masks/{number}.png", labels)
        save(
            tmp_path / f"images/{number}.png",
            np.stack([labels * 30, 255 - labels * 30, labels], -1),
        )
    return read(tmp_path)


AUGMENTS = {
    "scale": MapAugment(crop=None),
    "crop": MapAugment(crop=24),
    "oblong": MapAugment(crop=(16, 40), vflip=0.5, rotate90=1.0),
    "turns": MapAugment(scale=(1.0, 1.0), crop=None, vflip=0.5, rotate90=0.8),
    "filled": MapAugment(crop=(20, 20), class_limit=0.75),
}


@pytest.mark.parametrize("case", AUGMENTS)
@pytest.mark.parametrize("antialias", [True, False])
def test_labels_lie_where_their_pixels_lie(coded: Dataset, case: str, antialias: bool) -> None:
    """Away from the edges of the blocks the colour of a pixel is that of its label, to the bit."""
    resize, augment = Resize(None, None, 1.0, antialias=antialias), AUGMENTS[case]
    for draw in range(40):
        index = draw % len(coded)
        sample = make_map_sample(coded, index, resize, augment, np.random.default_rng(draw))
        labels = sample.labels
        assert sample.pixels.shape[1:] == labels.shape and labels.dtype == torch.uint8
        if augment.crop is not None:
            assert all(a <= b for a, b in zip(labels.shape, augment.crop_size, strict=True))
        padded = F.pad(labels[None, None].float(), (3, 3, 3, 3), value=-1)
        inside = (F.max_pool2d(padded, 7, 1) == -F.max_pool2d(-padded, 7, 1))[0, 0]
        expected = torch.stack([labels * 30.0, 255 - labels * 30.0, labels.float()])
        difference = (sample.pixels - expected).abs().amax(0)
        assert (difference[inside] <= 1e-3).all()
        # Wherever the image is pure, it is so with its own label: an edge is not shifted a pixel.
        step = (sample.pixels[0] - labels * 30.0).abs()
        assert (step <= 15 * 8).float().mean() > 0.5


def test_an_unchanged_image_keeps_its_map(coded: Dataset) -> None:
    for index in range(len(coded)):
        sample = make_map_sample(coded, index, SAME, PLAIN, np.random.default_rng(0))
        np.testing.assert_array_equal(sample.labels, coded.label_map(index))
        np.testing.assert_array_equal(sample.pixels.numpy().transpose(1, 2, 0), coded.image(index))


def test_flips_and_turns_are_those_of_numpy(coded: Dataset) -> None:
    """Each of the eight orientations comes, image and labels alike."""
    found = set()
    augment = MapAugment(scale=(1.0, 1.0), crop=None, flip=0.5, vflip=0.5, rotate90=0.75)
    original = coded.label_map(3)
    assert original is not None
    eight = {
        (np.rot90(a, k).shape, np.rot90(a, k).tobytes()): (k, a is original)
        for a in (original, original[:, ::-1])
        for k in range(4)
    }
    for seed in range(60):
        sample = make_map_sample(coded, 3, SAME, augment, np.random.default_rng(seed))
        labels = sample.labels.numpy()
        found.add(eight[labels.shape, labels.tobytes()])
        np.testing.assert_array_equal(sample.pixels[2].numpy(), labels)
    assert len(found) == 8


def test_the_scale_is_even_on_top_of_the_rule_of_the_model() -> None:
    rng = np.random.default_rng(0)
    augment = MapAugment(scale=(0.5, 2.0))
    sizes = [draw_map_view((100, 150), Resize(200, 1000), augment, rng).full for _ in range(2000)]
    short = np.array(sizes)[:, 0]
    assert short.min() >= 100 and short.max() <= 400
    assert abs(short.mean() - 250) < 5 and abs(np.quantile(short, 0.25) - 175) < 8
    assert all(abs(w / h - 1.5) < 0.02 for h, w in sizes)


def test_crops_are_not_filled_by_one_class(tmp_path: Path) -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[35:65, 35:65] = 1
    labels[:, :5] = 255
    photo(tmp_path / "images/a.png", (100, 100))
    save(tmp_path / "masks/a.png", labels)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    data = read(tmp_path)

    def filled(most: float) -> float:
        """The share of crops with more than 3/4 of one class."""
        augment = MapAugment(scale=(1.0, 1.0), crop=24, class_limit=most)
        count = 0
        for seed in range(150):
            sample = make_map_sample(data, 0, SAME, augment, np.random.default_rng(seed))
            found = torch.bincount(sample.labels.flatten().long(), minlength=256)[:255]
            count += int(found.max() >= 0.75 * found.sum())
        return count / 150

    often = filled(1.0)
    # After ten tries a crop is taken as it is: by chance so many are filled all the same.
    assert 0.6 < often < 0.8 and filled(0.75) < 0.8**10 + 0.05


def batch_of(data: Dataset, augment: MapAugment | None, **options: object) -> MapBatches:
    return MapBatches(data, Resize(32, 64), augment, **options)  # type: ignore[arg-type]


def test_batches_of_crops_are_of_one_size(coded: Dataset) -> None:
    for augment, expected in (
        (MapAugment(crop=33), (40, 40)),
        (MapAugment(crop=(16, 33), rotate90=0.5), (16, 40)),
    ):
        makes = batch_of(coded, augment, divisor=8, weights=[1.0] * 8)
        for epoch in range(3):
            images, targets = makes.make([0, 2, 3], [1], Chance(0, epoch, 0))
            assert isinstance(targets, LabelMaps) and targets.weights is not None
            assert images.pixels.shape[-2:] == targets.maps.shape[-2:] == expected
            for k, (height, width) in enumerate(images.sizes.tolist()):
                assert (targets.maps[k, height:] == 255).all()
                assert (targets.maps[k, :, width:] == 255).all()
                assert (targets.maps[k, :height, :width] != 255).all()
                assert not images.pixels[k, :, height:].any()
            assert images.original_sizes.tolist() == [[40, 60], [1, 1], [64, 48]]


@pytest.mark.parametrize("crop", [None, 24])
def test_two_processes_make_what_one_makes(coded: Dataset, crop: int | None) -> None:
    makes = batch_of(coded, MapAugment(crop=crop, class_limit=0.9, rotate90=0.5), divisor=4)
    options = {"seed": 3, "workers": 0, "shuffle": True}
    whole = list(load_batches(makes, batch=4, **options))  # type: ignore[arg-type]
    halves = [list(load_batches(makes, batch=2, rank=r, world=2, **options)) for r in range(2)]  # type: ignore[arg-type]
    assert len(whole) == 1
    parts = [half[0] for half in halves]
    assert torch.equal(whole[0].images.pixels, torch.cat([p.images.pixels for p in parts]))
    assert torch.equal(whole[0].targets.maps, torch.cat([p.targets.maps for p in parts]))
    again = next(iter(load_batches(makes, batch=4, **options)))  # type: ignore[arg-type]
    assert torch.equal(again.targets.maps, whole[0].targets.maps)
    other = load_batches(makes, batch=4, **options)  # type: ignore[arg-type]
    other.set_epoch(1)
    assert not torch.equal(next(iter(other)).images.pixels, whole[0].images.pixels)


@pytest.mark.slow
def test_colours_change_and_labels_do_not(coded: Dataset) -> None:
    plain, bright = (
        make_map_sample(
            coded, 0, SAME, MapAugment(crop=20, photometric=on), np.random.default_rng(4)
        )
        for on in (False, True)
    )
    assert torch.equal(plain.labels, bright.labels)
    assert not torch.equal(plain.pixels, bright.pixels) and bright.pixels.max() <= 255


@pytest.mark.slow
def test_workers_make_the_same(coded: Dataset) -> None:
    for augment in (MapAugment(crop=16), None):
        makes = batch_of(coded, augment)
        here, there = (
            list(load_batches(makes, batch=2, seed=0, workers=workers, shuffle=augment is not None))
            for workers in (0, 1)
        )
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a.images.pixels, b.images.pixels)
            maps = [x.targets.maps if augment else x.targets for x in (a, b)]
            assert all(torch.equal(p, q) for p, q in zip(*maps, strict=True))


def test_for_evaluation_maps_stay_in_original_pixels(coded: Dataset) -> None:
    makes = batch_of(coded, None, divisor=16)
    for batch in load_batches(makes, batch=2, seed=0, workers=0, shuffle=False):
        assert all(side % 16 == 0 for side in batch.images.pixels.shape[-2:])
        for k, index in enumerate(batch.indices):
            np.testing.assert_array_equal(batch.targets[k], coded.label_map(index))
            assert batch.images.original_sizes[k].tolist() == list(batch.targets[k].shape)
            assert batch.images.sizes[k].tolist() == list(
                Resize(32, 64).target_size(*batch.targets[k].shape)
            )


def test_whole_images_fill_the_buckets_that_are_allowed(coded: Dataset) -> None:
    makes = batch_of(coded, None, divisor=16, buckets=[(64, 64), (48, 64)])
    images, _ = makes.make([0, 1], [], Chance(0, 0, 0))
    assert images.pixels.shape[-2:] == (48, 64)


def test_what_cannot_be(coded: Dataset, tmp_path: Path) -> None:
    for options, message in (
        ({"flip": 2.0}, "flip must lie between 0 and 1"),
        ({"scale": (2.0, 1.0)}, "scale is"),
        ({"class_limit": 0.0}, "class_limit is a share"),
        ({"crop": 0}, "crop must be at least one pixel"),
        ({"crop": (4, 0)}, "crop must be at least one pixel"),
    ):
        with pytest.raises(OptionError, match=message):
            MapAugment(**options)  # type: ignore[arg-type]
    coded.records = "labels"
    with pytest.raises(ValueError, match="has no label maps: open it with records='maps'"):
        batch_of(coded, None)


def test_a_faulty_map_is_told_by_the_loader(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    save(tmp_path / "masks/a.png", numbers(0, 5))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for augment in (MapAugment(), None):
        loader = load_batches(
            batch_of(read(tmp_path), augment), batch=1, seed=0, workers=0, shuffle=False
        )
        with pytest.raises(ValueError, match=r"a\.png: 60 pixel\(s\) have the value 5"):
            list(loader)


def test_pixel_counts_and_median_frequency(tmp_path: Path) -> None:
    """Worked out by hand: two images of 120 pixels, in thirds, halves."""
    for name, labels in (("a", numbers(0, 1, 255)), ("b", numbers(0, 2))):
        photo(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}.png", labels)
    (tmp_path / "classes.txt").write_text("x\ny\nz\nnever\n")
    counts = count_pixels(read(tmp_path), enabled=False)
    assert counts.pixels.tolist() == [100, 40, 60, 0] and counts.images.tolist() == [2, 1, 1, 0]
    assert counts.around.tolist() == [200, 80, 120, 0] and counts.ignored == 40
    np.testing.assert_allclose(counts.shares, [0.5, 0.2, 0.3, 0])
    np.testing.assert_allclose(median_frequency(counts), [1.0, 1.0, 1.0, 0])  # 1/2 each
    assert median_weights(read(tmp_path), enabled=False).tolist() == [1, 1, 1, 0]
    counts.pixels[:] = [100, 20, 60, 0]
    np.testing.assert_allclose(median_frequency(counts), [1.0, 2.0, 1.0, 0])
    with pytest.raises(ValueError, match="need label maps with pixels of them"):
        median_frequency(PixelCounts.none(3))


@pytest.mark.parametrize("crop", [(24, 40), 40, (90, 100)])
def test_the_share_of_padding_is_that_of_windows_that_are_drawn(
    crop: int | tuple[int, int],
) -> None:
    augment = MapAugment(scale=(0.5, 2.0), crop=crop)
    rng, resize, size = np.random.default_rng(0), Resize(None, 40, None), (60, 80)
    height, width = augment.crop_size
    drawn = [draw_map_view(size, resize, augment, rng).full for _ in range(2000)]
    inside = np.mean([min(h, height) * min(w, width) / (height * width) for h, w in drawn])
    assert abs(padding_share(size, resize, augment) - (1 - inside)) < 0.02
