"""Looks a data set over before any training: faults, statistics, drawn samples.

Whether its images have objects or labels of their own it finds by itself. Opening a data set reads
the annotations only; here every image is decoded and every mask is made.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from maskwright.channels import parse_channels, parse_one_page
from maskwright.errors import OptionError, checked_options
from maskwright.files import replacing_picture, write_whole
from maskwright.paths import takes_paths
from maskwright.runs import save_dir
from maskwright.window import parse_window

from ..discover import find_splits, open_dataset
from ..pixels.large import choose
from ..pixels.limits import max_pixels
from ..records import Dataset, Fault
from .depth import check_depths
from .figures import draw_samples, plot_classes, plot_statistics
from .files import Modes, Twins, check_file
from .labels import (
    LABEL_HEADER,
    LabelStats,
    describe_labels,
    label_remarks,
    label_row,
    label_statistics,
    one_class,
)
from .maps import (
    MAP_HEADER,
    MapStats,
    check_map,
    describe_maps,
    map_remarks,
    map_row,
    missing_classes,
    no_labels,
)
from .statistics import OBJECT_HEADER, SplitStats, describe, object_row, remarks, statistics
from .verdict import no_masks, no_objects, too_few_images

SHOWN = 3  # faults of a kind; the list has all
FAULTS, STATISTICS = "faults.csv", "statistics.png"
Stats = SplitStats | LabelStats | MapStats
S = TypeVar("S", SplitStats, LabelStats, MapStats)


@dataclass
class CheckReport:
    """What `check_data` found; as text, a summary.

    Attributes:
        data: what was checked.
        splits: statistics by name of the split.
        faults: pairs of split and fault.
        notes: things that are no faults but good to know.
        saved: files written.
        dir: folder of these; None without `save`.
    """

    data: str
    splits: dict[str, Stats] = field(default_factory=dict)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    dir: Path | None = None

    @property
    def ok(self) -> bool:
        """True if no fault would stop a training; what is left out or repaired does not."""
        return not any(fault.action == "error" for _, fault in self.faults)

    def tables(self) -> list[tuple[str, list[str], list[list[Any]]]]:
        """Return title, header and rows of the tables of all splits, and of all classes."""
        objects, labels = _of_kind(self.splits, SplitStats), _of_kind(self.splits, LabelStats)
        maps = _of_kind(self.splits, MapStats)
        found: list[tuple[str, list[str], list[list[Any]]]] = []
        if objects or not (labels or maps):
            rows = [[split, *object_row(stats)] for split, stats in objects.items()]
            found.append((self.data, ["split", *OBJECT_HEADER], rows))
        if labels:
            rows = [[split, *label_row(stats)] for split, stats in labels.items()]
            found.append((self.data, ["split", *LABEL_HEADER], rows))
        if maps:
            rows = [[split, *map_row(stats)] for split, stats in maps.items()]
            found.append((self.data, ["split", *MAP_HEADER], rows))
        names = dict.fromkeys(name for stats in self.splits.values() for name in stats.per_class)
        each = [s.shares if isinstance(s, MapStats) else s.per_class for s in self.splits.values()]
        rows = [[name, *(round(own.get(name, 0), 3) for own in each)] for name in names]
        title = "Images by class" if labels else "Objects by class"
        title = "Pixels by class, in percent" if maps else title
        return [*found, (title, ["class", *self.splits], rows)]

    def by_kind(self) -> dict[tuple[str, str, str], list[str]]:
        """Return the messages of the faults by split, kind and action, the most frequent first."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for split, fault in self.faults:
            found.setdefault((split, fault.kind, fault.action), []).append(fault.message)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def remarks(self) -> list[str]:
        """Return what the numbers of all splits tell that is no fault."""
        return [
            *remarks(_of_kind(self.splits, SplitStats)),
            *label_remarks(_of_kind(self.splits, LabelStats)),
            *map_remarks(_of_kind(self.splits, MapStats)),
        ]

    def __str__(self) -> str:
        lines = [f"data: {self.data}"]
        for split, stats in self.splits.items():
            if isinstance(stats, SplitStats):
                lines += describe(split, stats)
            elif isinstance(stats, MapStats):
                lines += describe_maps(split, stats)
            else:
                lines += describe_labels(split, stats)
        if not self.faults:
            lines.append("faults: none")
        for (split, kind, action), messages in self.by_kind().items():
            lines.append(f"fault ({split}, {action}): {kind}, {len(messages)} x")
            lines += [f"  {message}" for message in messages[:SHOWN]]
        lines += [f"note: {note}" for note in self.notes]
        if self.saved:
            lines.append(f"saved: {', '.join(str(path) for path in self.saved)}")
        return "\n".join(lines)


@checked_options
@takes_paths
def check_data(
    data: str | Path | Mapping[str, Any],
    *,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
    samples: int = 16,
    window: tuple[float, float] | str | None = None,
    page: int | str | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    crowd_as_objects: bool = False,
    records: Literal["objects", "labels", "maps"] | None = None,
    ignore: int | str | tuple[int | str, ...] | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Decode every image and mask of all splits and report faults and statistics.

    Args:
        data: a COCO JSON, a table, a folder or a YAML file, as for training.
        save: write samples, statistics and the list of faults: true into a new run folder, a path
            into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "check".
        samples: images to draw for each split.
        window: sample values that become 0 to 255 in images of more than 8 bits, as for training.
        page: which image of files that hold several, from 0 on, as for training; none: the first.
        channels: which channels of the files, as for training.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects, as for training.
        records: what is looked at, where a folder has several: objects, labels of images, or maps
            of labels; none: the first of these that there is.
        ignore: numbers or names of classes of label maps that are ignored, as for training.
        format: read the data as this format, where a folder has several or is taken for another.
        progress: called with split, images done and images in all.

    Raises:
        ValueError: if there is no data set at all, or `samples` is negative.
    """
    require_samples(samples)
    scale = parse_window(window)
    taken = parse_one_page(page), parse_channels(channels)
    max_pixels()  # a wrong limit is an error of its own, not one of each image
    # What is no data set leaves no run folder behind.
    splits = find_splits(data, records=records, format=format)
    folder = save_dir(save, project, "check", name)
    report = CheckReport(str(data))
    datasets: dict[str, Dataset] = {}
    names: list[str] | None = None
    twins, modes = Twins(), Modes()
    for split, source in splits.items():
        try:
            dataset = open_dataset(
                data,
                split,
                names=names,
                crowd_as_objects=crowd_as_objects,
                records=records,
                ignore=ignore,
                format=format,
            )
        except ValueError as error:
            fault = Fault(
                str(source.annotations), None, None, "unusable split", str(error), "error"
            )
            report.faults.append((split, fault))
            continue
        names = names or dataset.names
        datasets[split] = dataset
        choose(datasets.values(), *taken)
        report.faults += [(split, fault) for fault in (*_verdict(dataset, splits), *dataset.faults)]
        stats = report.splits[split] = look_over(dataset)
        for index in range(len(dataset)):
            faults, pixels = check_file(dataset, index, modes)
            if isinstance(stats, MapStats):
                faults += check_map(dataset, index, stats)
            if isinstance(stats, SplitStats):
                faults += [] if pixels is None else _check_objects(dataset, index)
            elif pixels is not None:
                stats.image_sizes[pixels.shape[0], pixels.shape[1]] += 1
            faults += twins.find(dataset, index, pixels)
            report.faults += [(split, fault) for fault in faults]
            if progress is not None:
                progress(split, index + 1, len(dataset))
        if isinstance(stats, MapStats):
            report.faults += [(split, fault) for fault in missing_classes(dataset, stats)]
            if (problem := no_labels(dataset, stats)) and split == "train":
                fault = Fault(str(dataset.source), None, None, "nothing to learn", problem, "error")
                report.faults.append((split, fault))
    report.notes += twins.notes()
    report.notes += _of_modes(modes, datasets)
    report.notes += check_depths(datasets, scale)
    report.notes += report.remarks()
    if "train" not in splits:
        report.notes.append(f"no split to train on, only {', '.join(splits)}")
    if folder is not None:
        report.dir = folder
        _save(report, datasets, folder, samples)
    return report


def look_over(dataset: Dataset) -> Stats:
    """Return the numbers of a split, as far as they are known before its files are read."""
    if dataset.records == "maps":
        return MapStats.of(dataset)
    return statistics(dataset) if dataset.records == "objects" else label_statistics(dataset)


def _of_modes(modes: Modes, datasets: Mapping[str, Dataset]) -> list[str]:
    """Return a note for each kind of images that are not stored as 8-bit RGB."""
    return [
        f"{split}: {len(files)} of {len(datasets[split])} image(s) of mode {mode} are read as "
        f"8-bit RGB, first {files[0]}"
        for (split, mode), files in modes.items()
    ]


def require_samples(samples: int) -> None:
    """Raise OptionError for a negative number of images to draw."""
    if samples < 0:
        raise OptionError(f"samples must be at least 0, got {samples}")


def _verdict(dataset: Dataset, splits: Collection[str]) -> list[Fault]:
    """Return what `train` refuses the split for, or warns of."""
    file = str(dataset.source)
    alone = dataset.split == "train" and "val" not in splits
    few = too_few_images(dataset) if alone else None
    if dataset.records == "maps":
        return [Fault(file, None, None, "too few images", few, "error")] if few else []
    if dataset.records == "labels":
        problems = [("one class", one_class(dataset)), ("too few images", few)]
        return [Fault(file, None, None, kind, text, "error") for kind, text in problems if text]
    if problem := no_objects(dataset):
        action = "error" if dataset.split == "train" else "kept"
        return [Fault(file, None, None, "no objects", problem, action)]
    if (problem := no_masks(dataset)) and (dataset.has_masks or dataset.masks_of_crowds):
        return [Fault(file, None, None, "no masks", problem, "error")]
    if few is not None:
        return [Fault(file, None, None, "too few images", few, "error")]
    return []


def _check_objects(dataset: Dataset, index: int) -> list[Fault]:
    """Make the masks of an image, and look for objects that are there twice."""
    record = dataset[index]
    faults: list[Fault] = []

    def fault(kind: str, message: str, action: str, number: int) -> None:
        file = str(record.path)
        faults.append(Fault(file, record.image_id, number, kind, message, action))

    masks: dict[int, Any] = {}
    for k in np.flatnonzero(~record.crowd).tolist() if dataset.has_masks else ():
        number = int(record.ann_ids[k])
        masks[k] = dataset.mask(index, k)
        if not masks[k][0].size:
            x1, y1, x2, y2 = dataset.annotated_boxes(index)[k].tolist()
            message = (
                f"{dataset.source}: object {k + 1} of {record.path.name} (annotation {number}, a "
                f"{dataset.names[record.labels[k]]} at x={x1:.2f} to {x2:.2f}, y={y1:.2f} to "
                f"{y2:.2f}): no pixel lies in its polygons"
            )
            fault("empty mask", message, "left out", number)
    first: dict[tuple[Any, ...], int] = {}
    for k, key in enumerate(zip(record.labels.tolist(), *record.boxes.T.tolist(), strict=True)):
        if record.ignored[k]:  # what cannot be read is everywhere, and told already
            continue
        twin = first.setdefault((*key, bool(record.crowd[k])), k)
        if twin != k and _same_mask(masks.get(k), masks.get(twin)):
            number, other = int(record.ann_ids[k]), int(record.ann_ids[twin])
            message = f"annotations {other} and {number} of {record.path.name} are the same object"
            fault("duplicate object", message, "kept", number)
    return faults


def _same_mask(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return bool(a[1] == b[1] and np.array_equal(a[0], b[0]))


def _of_kind(splits: Mapping[str, Stats], kind: type[S]) -> dict[str, S]:
    return {split: stats for split, stats in splits.items() if isinstance(stats, kind)}


def _save(report: CheckReport, datasets: Mapping[str, Dataset], folder: Path, samples: int) -> None:
    listing = folder / FAULTS
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["split", "file", "image", "annotation", "kind", "action", "message"])
    for split, f in report.faults:
        row = [split, f.file, f.image_id, f.annotation_id, f.kind, f.action, f.message]
        writer.writerow(["" if value is None else value for value in row])
    write_whole(listing, stream.getvalue())
    report.saved.append(listing)
    draw_all(report, datasets, folder, samples)
    summary = folder / "report.txt"
    report.saved.append(summary)
    write_whole(summary, f"{report}\n")


def draw_all(
    report: CheckReport, datasets: Mapping[str, Dataset], folder: Path, samples: int
) -> None:
    """Draw samples of each split and the statistics into a folder, and note the files.

    Args:
        report: of the splits.
        datasets: the splits.
        folder: where to.
        samples: images to draw for each split.
    """
    for split, dataset in datasets.items():
        mosaic = draw_samples(dataset, samples)
        if mosaic is not None:
            report.saved.append(folder / f"{split}_samples.png")
            with replacing_picture(report.saved[-1]) as temporary:
                mosaic.save(temporary)
    figure = folder / STATISTICS
    if objects := _of_kind(report.splits, SplitStats):
        plot_statistics(objects, figure)
    if labels := _of_kind(report.splits, LabelStats):
        plot_classes(labels, figure)
    if maps := _of_kind(report.splits, MapStats):
        plot_classes(maps, figure)
    report.saved += [figure] * bool(objects or labels or maps)
