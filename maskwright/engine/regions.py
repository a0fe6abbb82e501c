"""Region proposals for detectors that take them with the images: where a run gets them from."""

from __future__ import annotations

from ..data.proposals import Found, find_proposals
from ..data.records import Dataset
from ..models.base import Detector
from ..proposals import ProposalStore, make_source
from . import console
from .published import cache_dir


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
        first = ", ".join(found.without[:3]) + (", ..." if len(found.without) > 3 else "")
        console.warn(
            f"{source} has no proposals in {len(found.without)} of {len(found.counts)} {split} "
            f"images ({first}): nothing can be found there"
        )
