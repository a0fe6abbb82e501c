"""Looks a data set over before any training: faults, statistics, drawn samples.

Opening a data set reads the annotations only; here every image is decoded and every mask is made.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.errors import OptionError, checked_options
from maskwright.files import replacing_picture, write_whole
from maskwright.paths import takes_paths
from maskwright.runs import save_dir
from maskwright.window import parse_window

from ..discover import find_splits, open_dataset
from ..pixels.images import image_header, load_image
from ..pixels.limits import max_pixels
from ..records import Dataset, Fault
from .depth import check_depths
from .figures import draw_samples, plot_statistics
from .statistics import SplitStats, describe, remarks, statistics
from .verdict import no_masks, no_objects, too_few_images


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
    splits: dict[str, SplitStats] = field(default_factory=dict)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    dir: Path | None = None

    @property
    def ok(self) -> bool:
        """True if no fault would stop a training; what is left out or repaired does not."""
        return not any(fault.action == "error" for _, fault in self.faults)

    def __str__(self) -> str:
        lines = [f"data: {self.data}"]
        for split, stats in self.splits.items():
            lines += describe(split, stats)
        groups = Counter((split, fault.kind, fault.action) for split, fault in self.faults)
        if not groups:
            lines.append("faults: none")
        for (split, kind, action), count in groups.most_common():
            example = next(
                fault.message
                for other, fault in self.faults
                if (other, fault.kind, fault.action) == (split, kind, action)
            )
            lines.append(f"fault ({split}, {action}): {kind}, {count} x, first: {example}")
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
    crowd_as_objects: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Decode every image and mask of all splits and report faults and statistics.

    Args:
        data: a COCO JSON, a folder or a YAML file, as for training.
        save: write samples, statistics and the list of faults: true into a new run folder, a path
            into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "check".
        samples: images to draw for each split.
        window: sample values that become 0 to 255 in images of more than 8 bits, as for training.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects, as for training.
        progress: called with split, images done and images in all.

    Raises:
        ValueError: if there is no data set at all, or `samples` is negative.
    """
    require_samples(samples)
    scale = parse_window(window)
    max_pixels()  # a wrong limit is an error of its own, not one of each image
    splits = find_splits(data)  # what is no data set leaves no run folder behind
    folder = save_dir(save, project, "check", name)
    report = CheckReport(str(data))
    datasets: dict[str, Dataset] = {}
    names: list[str] | None = None
    hashes: dict[bytes, tuple[str, str]] = {}
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    modes: dict[tuple[str, str], list[str]] = {}
    for split, source in splits.items():
        try:
            dataset = open_dataset(data, split, names=names, crowd_as_objects=crowd_as_objects)
        except ValueError as error:
            fault = Fault(
                str(source.annotations), None, None, "unusable split", str(error), "error"
            )
            report.faults.append((split, fault))
            continue
        names = names or dataset.names
        datasets[split] = dataset
        report.faults += [(split, fault) for fault in (*_verdict(dataset, splits), *dataset.faults)]
        report.splits[split] = statistics(dataset)
        for index in range(len(dataset)):
            report.faults += [(split, fault) for fault in _check_image(dataset, index, modes)]
            twin = _find_twin(dataset, index, hashes, shared)
            report.faults += [(split, fault) for fault in twin]
            if progress is not None:
                progress(split, index + 1, len(dataset))
    for (split, other), twins in shared.items():
        again, first = twins[0]
        report.notes.append(
            f"{len(twins)} image(s) of {split} are also in {other}, first {again}"
            f"{'' if again == first else f', which is {first}'}: scores on them tell nothing"
        )
    for (split, mode), files in modes.items():
        report.notes.append(
            f"{split}: {len(files)} image(s) of mode {mode} are read as 8-bit RGB, first {files[0]}"
        )
    report.notes += check_depths(datasets, scale)
    report.notes += remarks(report.splits)
    if "train" not in splits:
        report.notes.append(f"no split to train on, only {', '.join(splits)}")
    if folder is not None:
        report.dir = folder
        _save(report, datasets, folder, samples)
    return report


def require_samples(samples: int) -> None:
    """Raise OptionError for a negative number of images to draw."""
    if samples < 0:
        raise OptionError(f"samples must be at least 0, got {samples}")


def _verdict(dataset: Dataset, splits: Collection[str]) -> list[Fault]:
    """Return what `train` refuses the split for, or warns of."""
    file = str(dataset.source)
    if problem := no_objects(dataset):
        action = "error" if dataset.split == "train" else "kept"
        return [Fault(file, None, None, "no objects", problem, action)]
    if (problem := no_masks(dataset)) and (dataset.has_masks or dataset.masks_of_crowds):
        return [Fault(file, None, None, "no masks", problem, "error")]
    alone = dataset.split == "train" and "val" not in splits
    if alone and (problem := too_few_images(dataset)):
        return [Fault(file, None, None, "too few images", problem, "error")]
    return []


def _check_image(
    dataset: Dataset, index: int, modes: dict[tuple[str, str], list[str]]
) -> list[Fault]:
    """Decode an image and its masks; `modes` gets the file if it is not 8-bit RGB."""
    record = dataset[index]
    file = str(record.path)
    faults: list[Fault] = []

    def fault(kind: str, message: str, action: str, number: int | None = None) -> None:
        faults.append(Fault(file, record.image_id, number, kind, message, action))

    try:
        header = image_header(record.path)
        pixels = load_image(record.path, size=record.size)
    except ValueError as error:
        fault("unreadable image", str(error), "error")
        return faults
    if pixels.shape[:2] != record.size:
        try:
            dataset.image(index)
        except ValueError as error:
            message = str(error).partition(" (image id")[0]
            fault("image of another size", message, "error")
    elif header.size != header.stored == record.size:
        message = (
            f"{file} is turned by its EXIF orientation, but was annotated unturned: read unturned"
        )
        fault("EXIF orientation", message, "repaired")
    if header.broken_exif:
        message = f"{file} has an EXIF block that cannot be read: its pixels are read unturned"
        fault("broken EXIF block", message, "kept")
    if header.frames > 1:
        message = f"{file} holds {header.frames} frames or pages: only the first is used"
        fault("several frames", message, "kept")
    if record.path.suffix.lower() not in header.suffixes:
        message = f"{file} is {header.format} by its content: other programs may refuse it"
        fault("wrong file suffix", message, "kept")
    if header.mode != "RGB" and not header.deep:
        modes.setdefault((dataset.split, header.mode), []).append(record.path.name)
    masks: dict[int, Any] = {}
    for k in np.flatnonzero(~record.crowd).tolist() if dataset.has_masks else ():
        number = int(record.ann_ids[k])
        masks[k] = dataset.mask(index, k)
        if not masks[k][0].size:
            message = f"annotation {number} of {record.path.name}: no pixel lies in its polygons"
            fault("empty mask", message, "left out", number)
    first: dict[tuple[Any, ...], int] = {}
    for k, key in enumerate(zip(record.labels.tolist(), *record.boxes.T.tolist(), strict=True)):
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


def _find_twin(
    dataset: Dataset,
    index: int,
    hashes: dict[bytes, tuple[str, str]],
    shared: dict[tuple[str, str], list[tuple[str, str]]],
) -> list[Fault]:
    """Tell of an image that occurs, byte for byte, a second time.

    Args:
        dataset: the images.
        index: position of the image.
        hashes: split and file of each content so far.
        shared: gets the files of two splits that are the same, by the names of the splits.
    """
    record = dataset[index]
    path = record.path
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return []  # a fault already
    split, twin = hashes.setdefault(digest, (dataset.split, str(path)))
    if split != dataset.split:
        shared.setdefault((dataset.split, split), []).append((str(path), twin))
    elif twin != str(path):
        message = f"{path} is the same image as {twin}: annotated twice?"
        return [Fault(str(path), record.image_id, None, "duplicate image", message, "kept")]
    return []


def _save(report: CheckReport, datasets: Mapping[str, Dataset], folder: Path, samples: int) -> None:
    listing = folder / "faults.csv"
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["split", "file", "image", "annotation", "kind", "action", "message"])
    for split, f in report.faults:
        row = [split, f.file, f.image_id, f.annotation_id, f.kind, f.action, f.message]
        writer.writerow(["" if value is None else value for value in row])
    write_whole(listing, stream.getvalue())
    report.saved.append(listing)
    for split, dataset in datasets.items():
        mosaic = draw_samples(dataset, samples)
        if mosaic is not None:
            report.saved.append(folder / f"{split}_samples.png")
            with replacing_picture(report.saved[-1]) as temporary:
                mosaic.save(temporary)
    if report.splits:
        report.saved.append(folder / "statistics.png")
        plot_statistics(report.splits, report.saved[-1])
    summary = folder / "report.txt"
    report.saved.append(summary)
    write_whole(summary, f"{report}\n")
