"""The cache of proposals: what is there is not computed again, what is broken is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from maskwright.data import open_dataset
from maskwright.data.loader import make_loader
from maskwright.data.proposals import find_proposals
from maskwright.data.records import Dataset
from maskwright.data.transforms import Augment
from maskwright.proposals import ProposalStore
from maskwright.proposals.sources import ComputedSource
from maskwright.structures import Resize


class Counting:
    """A source that counts its calls: boxes that depend on the first pixel."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        shift = float(image[0, 0, 0] % 4)
        boxes = np.array([[2.0, 3, 20, 18], [10, 5, 30 + shift, 25], [0, 0, 0.5, 0.5]])
        return boxes, np.array([0.9, 0.5, 0.1])


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def store(tmp_path: Path, counting: Counting) -> ProposalStore:
    return ProposalStore(ComputedSource("counting", counting), tmp_path / "cache", 10)


IMAGE = np.full((30, 40, 3), 5, np.uint8)


def test_an_image_is_computed_once(store: ProposalStore, counting: Counting) -> None:
    first, second = (
        store(IMAGE, image_file=Path("a.png")),
        store(IMAGE.copy(), image_file=Path("b.png")),
    )
    assert counting.calls == 1, "the same pixels under another name"
    assert np.array_equal(first.boxes, second.boxes)
    assert (first.cached, second.cached) == (False, True)
    other = IMAGE.copy()
    other[3, 4] = 9
    store(other)
    store(IMAGE.reshape(40, 30, 3))
    assert counting.calls == 3
    renamed = ProposalStore(ComputedSource("counting:more", counting), store.folder, 10)
    renamed(IMAGE)
    assert counting.calls == 4, "another option of the source"


def test_the_cache_holds_all_and_gives_the_best(store: ProposalStore, counting: Counting) -> None:
    few = ProposalStore(store.source, store.folder, 1)
    assert len(few(IMAGE)) == 1
    assert len(store(IMAGE)) == 3 and counting.calls == 1


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "text", "method", "array", "shape", "missing array", "nan"]
)
def test_a_damaged_file_is_computed_anew_and_reported(
    store: ProposalStore, counting: Counting, damage: str
) -> None:
    expected = store(IMAGE)
    path = store.path(IMAGE)
    assert path is not None and path.is_file()
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "method":  # of compression, in the directory of the archive
        at = whole.find(b"PK\x01\x02") + 10
        path.write_bytes(whole[:at] + b"\x09" + whole[at + 1 :])
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        boxes = np.zeros((2, 3 if damage == "shape" else 4), np.float32)
        if damage == "nan":
            boxes[0] = np.nan
        arrays = {"boxes": boxes, "scores": np.zeros(2, np.float32), "dropped": np.array(0)}
        if damage == "missing array":
            del arrays["scores"]
        np.savez(path, **arrays)
    with pytest.warns(UserWarning, match=r"damaged .* a\.png are computed anew") as caught:
        found = store(IMAGE, image_file=Path("a.png"))
    assert str(path) in str(caught[0].message)
    assert counting.calls == 2
    assert np.array_equal(found.boxes, expected.boxes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store(IMAGE)
    assert counting.calls == 2, "the file is whole again"


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, counting: Counting) -> None:
    (tmp_path / "file").write_text("")
    store = ProposalStore(ComputedSource("counting", counting), tmp_path / "file", 10)
    with pytest.raises(ValueError, match="MASKWRIGHT_HOME"):
        store(IMAGE)


@pytest.fixture
def dataset(nuclei_mini: Path) -> Dataset:
    return open_dataset(nuclei_mini, "val").select([0, 1, 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_is_computed_ahead(store: ProposalStore, dataset: Dataset, workers: int) -> None:
    done: list[int] = []
    kept = {}
    found = find_proposals(
        dataset, store, workers=workers, progress=done.append, keep=kept.__setitem__
    )
    assert found.counts == [3, 3, 3] and done == [1, 2, 3] and not found.messages
    for index in range(3):
        path = store.path(dataset.image(index))
        assert path is not None and path.is_file()
        assert np.array_equal(kept[index].boxes, store(dataset.image(index)).boxes)
        path.write_bytes(b"")
    again = find_proposals(dataset, store, workers=workers)
    assert len(again.messages) == 3 and again.counts == found.counts


def test_images_without_any_proposal_are_told(dataset: Dataset) -> None:
    nothing = ComputedSource("nothing", lambda image: (np.zeros((0, 4)), np.zeros(0)))
    found = find_proposals(dataset, ProposalStore(nothing))
    assert found.without == [dataset[i].path.name for i in range(3)]
    loader = make_loader(
        dataset,
        batch=3,
        resize=Resize(None, 96),
        augment=None,
        seed=0,
        workers=0,
        shuffle=False,
        proposals=ProposalStore(nothing),
    )
    regions = next(iter(loader)).images.proposals
    assert regions is not None and not regions.valid.any() and regions.boxes.shape == (3, 8, 4)


def test_regions_move_with_the_image(dataset: Dataset) -> None:
    """Regions that are the objects' boxes arrive where the objects do, whatever is done to both."""

    class Truth:
        name, key, computes = "truth", "truth", False

        def __call__(self, image, *, image_file=None, image_id=None):  # type: ignore[no-untyped-def]
            from maskwright.proposals.sources import clean

            record = next(r for r in (dataset[i] for i in range(3)) if r.image_id == image_id)
            return clean(record.boxes, None, record.size)

    loader = make_loader(
        dataset,
        batch=3,
        resize=Resize(None, 200),
        augment=Augment(
            flip=0.5, vflip=0.5, rotate90=0.5, scale_jitter=(0.7, 1.3), crop=120, min_visible=0
        ),
        seed=1,
        workers=0,
        shuffle=True,
        proposals=ProposalStore(Truth()),
        masks=False,
    )
    for epoch in range(4):
        loader.set_epoch(epoch)
        for batch in loader:
            regions = batch.images.proposals
            assert regions is not None and regions.ids is not None
            for b, index in enumerate(batch.indices):
                valid, objects = regions.valid[b], batch.targets.valid[b]
                assert 0 < valid.sum() < len(dataset[index].boxes), "some lie outside the window"
                got = regions.boxes[b][valid]
                assert got.tolist() == batch.targets.boxes[b][objects].tolist()
                assert (regions.ids[b][valid].diff() > 0).all()


def test_training_images_come_at_one_of_the_scales(dataset: Dataset) -> None:
    loader = make_loader(
        dataset,
        batch=1,
        resize=Resize(160, 170),
        augment=Augment(scales=(64, 96, 128)),
        seed=1,
        workers=0,
        shuffle=True,
    )
    shorts = set()
    for epoch in range(6):
        loader.set_epoch(epoch)
        shorts |= {int(batch.images.sizes.min()) for batch in loader}
    assert shorts == {64, 96, 128}
