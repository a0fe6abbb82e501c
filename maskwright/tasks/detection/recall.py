"""`maskwright proposals`: computes region proposals of a data set and measures their recall."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...data.discover import open_dataset
from ...data.proposals import find_proposals
from ...drawing.figures import colors, legend, new_figure, save_figure, style
from ...errors import OptionError, checked_options
from ...files import write_whole
from ...metrics.detection.proposal_recall import ProposalRecall, proposal_recall
from ...paths import cache_dir, takes_paths
from ...proposals import Proposals, ProposalStore, make_source
from ...proposals.files import short_names, write_proposals
from ...runs import check_save, save_dir
from ...storage.rundir import write_args
from ...terminal import console
from .regions import report_proposals


@dataclass(frozen=True)
class ProposalReport:
    """What the proposals of a data set are worth.

    Attributes:
        source: where they come from, with all its options.
        counts: proposals of each image.
        cached: of how many images they were in the cache.
        seconds: seconds an image, those in the cache as well; reading the image included.
        recall: over the objects that are no crowd regions.
        files: boxes (n, 4) and scores (n,) by the file name of the image, see `short_names`.
        dir: folder of the files; None without `save`.
    """

    source: str
    counts: list[int]
    cached: int
    seconds: float
    recall: ProposalRecall
    files: dict[str, tuple[np.ndarray, np.ndarray]]
    dir: Path | None = None


@checked_options
@takes_paths
def proposals(
    data: str | Path,
    source: str = "selective_search",
    *,
    split: str = "train",
    count: int = 2000,
    workers: int = 2,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
) -> ProposalReport:
    """Compute the region proposals of a data set, or take them from the cache, and measure them.

    Args:
        data: the data set, any format that `maskwright data check` reads.
        source: selective_search, selective_search:quality, edge_boxes, edge_boxes:MODEL_FILE,
            sliding_window, sliding_window:COUNT, or a file of proposals (.json, .npz); {split} in
            its path stands for the split.
        split: which part of the data.
        count: most proposals of an image that are looked at, the best ones.
        workers: processes that compute; 0: only this one.
        save: write the recall curves and the proposals themselves: true into a new run folder, a
            path into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "proposals".

    Returns:
        Numbers of proposals, and recall against IoU and number.

    Raises:
        ValueError: if the data or a file of proposals cannot be read, or there is no such source.
    """
    if count < 1 or workers < 0:
        raise OptionError(f"count is at least 1 and workers at least 0, got {count} and {workers}")
    where = check_save(save, project, name)
    dataset = open_dataset(data, split)
    store = ProposalStore(
        make_source(source, split=dataset.split), cache_dir() / "proposals", count
    )
    boxes: dict[int, Proposals] = {}
    start = time.perf_counter()
    with console.progress(f"proposals {split}", total=len(dataset), unit="img") as bar:
        found = find_proposals(
            dataset,
            store,
            workers=workers,
            progress=lambda done: bar.update(done - bar.done),
            keep=boxes.__setitem__,
        )
    seconds = (time.perf_counter() - start) / max(len(dataset), 1)
    report_proposals(found, store.source.name, split)
    objects = []
    for index in range(len(dataset)):
        record = dataset[index]
        objects.append(record.boxes[~record.crowd])
    recall = proposal_recall(objects, [boxes[index].boxes for index in range(len(dataset))])
    short = short_names([dataset[index].path for index in range(len(dataset))])
    files = {file: (boxes[i].boxes, boxes[i].scores) for i, file in enumerate(short)}
    cached = sum(one.cached for one in boxes.values())
    report = ProposalReport(store.source.name, found.counts, cached, seconds, recall, files)
    folder = save_dir(where, project, "proposals", name)
    if folder is None:
        return report
    options = {"data": data, "source": source, "split": split, "count": count, "workers": workers}
    write_args(folder / "args.yaml", {key: str(value) for key, value in options.items()})
    save_report(report, folder)
    return replace(report, dir=folder)


def save_report(report: ProposalReport, folder: Path) -> None:
    """Write `recall.csv`, `recall.png` and `proposals.npz`."""
    recall = report.recall
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["proposals", "average_recall", *(f"recall@{iou:g}" for iou in recall.ious)])
    for count, average, row in zip(recall.counts, recall.average, recall.recall, strict=True):
        writer.writerow([count, f"{average:.6f}", *(f"{value:.6f}" for value in row)])
    write_whole(folder / "recall.csv", text.getvalue())
    plot_recall({report.source: recall}, folder / "recall.png")
    write_proposals(folder / "proposals.npz", report.files)


def plot_recall(curves: dict[str, ProposalRecall], out: Path) -> Path:
    """Draw recall against IoU, with all proposals, and against their number.

    Args:
        curves: recall by the name of the source.
        out: the file.
    """
    figure = new_figure(7.2, 3.2)
    left, right = figure.subplots(1, 2)
    for (name, recall), color in zip(curves.items(), colors(len(curves)), strict=True):
        label = f"{name}, {recall.counts[-1]} proposals"
        left.plot(recall.ious, recall.recall[-1], color=color, label=label, marker=".")
        for iou, dash in ((0.5, "-"), (0.7, "--")):
            column = int(np.argmin(np.abs(np.array(recall.ious) - iou)))
            right.plot(
                recall.counts,
                recall.recall[:, column],
                dash,
                color=color,
                marker=".",
                label=f"{name}, IoU {recall.ious[column]:g}",
            )
        right.plot(recall.counts, recall.average, ":", color=color, label=f"{name}, average")
    style(left, "Recall and overlap", "IoU with an object", "recall")
    style(right, "Recall and number", "proposals an image", "recall")
    right.set_xscale("log")
    for ax in (left, right):
        ax.set_ylim(0, 1.02)
        legend(ax)
    return save_figure(figure, out)
