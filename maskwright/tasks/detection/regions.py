"""Region proposals for detectors that take them with the images: where a run gets them from."""

from __future__ import annotations

from pathlib import Path

from ...data.proposals import Found, find_proposals
from ...data.records import Dataset
from ...errors import OptionError, first_few
from ...models.detection.base import Detector
from ...paths import cache_dir
from ...proposals import ProposalStore, make_source
from ...terminal import console


def proposal_store(detector: Detector, split: str | None = None) -> ProposalStore | None:
    """Return where a detector gets its regions from; None for one that needs none.

    Args:
        detector: names its source.
        split: of the data set; the regions of a data set are kept in the cache, others are not.

    Raises:
        ValueError: if there is no such source.
    """
    if detector.proposal_source is None:
        return None
    source = make_source(detector.proposal_source, split=split)
    folder = None if split is None else cache_dir() / "proposals"
    return ProposalStore(source, folder, detector.max_proposals)


def take_regions_from(detector: Detector, name: str, source: str | None) -> None:
    """Let a detector get its regions from another source than the one that it was trained with.

    Args:
        detector: the detector.
        name: what it is called.
        source: see `make_source`; None: it keeps its own.

    Raises:
        OptionError: if it finds its regions itself.
    """
    if source is None:
        return
    if detector.proposal_source is None:
        raise OptionError(f"{name} finds its regions itself: leave out proposal_source")
    detector.proposal_source = source


def check_shared_ids(detector: Detector, *datasets: Dataset) -> None:
    """Make sure that no two images of different splits take the same proposals from a file.

    Args:
        detector: names its source.
        datasets: the splits.

    Raises:
        ValueError: if COCO results, which tell images by their id, serve several splits in which
            the same id stands for different images.
    """
    source = detector.proposal_source or ""
    if not source.endswith(".json") or "{split}" in source:
        return
    known: dict[int, Path] = {}
    for dataset in datasets:
        for index in range(len(dataset)):
            record = dataset[index]
            other = known.setdefault(record.image_id, record.path)
            if other != record.path:
                raise ValueError(
                    f"source={source}: the id {record.image_id} would stand for two images, "
                    f"{other} and {record.path}; give each split a file of its own, as in "
                    "source=proposals_{split}.json"
                )


def prepare_proposals(
    detector: Detector,
    dataset: Dataset,
    *,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Compute the regions of a data set ahead, with progress; nothing for other detectors.

    Args:
        detector: names its source.
        dataset: the images.
        workers: processes that compute.
        rank: number of this process, which takes its share of the images.
        world: number of processes.

    Raises:
        ValueError: if an image cannot be read, or the source has nothing to say of it.
    """
    store = proposal_store(detector, dataset.split)
    if store is None:
        return
    share = dataset.select(range(rank, len(dataset), world))
    label = f"proposals {dataset.split}"
    with console.progress(label, total=len(share), unit="img", enabled=rank == 0) as bar:
        found = find_proposals(
            share, store, workers=workers, progress=lambda done: bar.update(done - bar.done)
        )
    report_proposals(found, store.source.name, dataset.split)


def report_proposals(found: Found, source: str, split: str) -> None:
    """Say what was wrong with the proposals of a data set, if anything.

    Args:
        found: what computing them came to.
        source: name of the source.
        split: of the data set.
    """
    for message in found.messages:
        console.warn(message)
    if found.dropped:
        console.warn(
            f"{source}: {found.dropped} proposals outside their image or without area were left out"
        )
    if found.without:
        first = first_few(found.without, 3)
        console.warn(
            f"{source} has no proposals in {len(found.without)} of {len(found.counts)} {split} "
            f"images ({first}): nothing can be found there"
        )
