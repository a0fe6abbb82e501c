"""Writer of YOLO's text files: what `YoloReader` reads, with `data.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...records import Dataset
from ..outgoing import Names, Outgoing, copy_image, is_object, objects_of

DECIMALS = 10  # of a fraction: below 1e-5 of a pixel on sides of up to 50,000
FILE = "data.yaml"


@takes_paths
def write_yolo(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as YOLO labels: with keypoints as pose, with masks as segments, else as boxes.

    A mask becomes one polygon: its parts and holes are joined by lines that are walked twice.
    Coordinates keep 1e-5 of a pixel. Regions that are ignored cannot be said and are left out, and
    of two objects with the same line one is read.

    Args:
        dataset: the images and objects.
        folder: where data.yaml, images/SPLIT/ (copies) and labels/SPLIT/ go; other splits may be
            there already.

    Returns:
        The data.yaml.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    import yaml

    root = Path(folder)
    images, labels = root / "images" / dataset.split, root / "labels" / dataset.split
    table = root / FILE
    content: dict[str, Any] = {"names": dict(enumerate(dataset.names))}
    if dataset.skeleton is not None:
        content |= {
            "kpt_shape": [len(dataset.skeleton), 3],
            "flip_idx": list(dataset.skeleton.mirrored),
            "kpt_names": {0: list(dataset.skeleton.names)},
        }
    before: dict[str, Any] = {}
    if table.exists():
        before = yaml.safe_load(table.read_text(encoding="utf-8")) or {}
        if {key: before.get(key) for key in content} != content:
            raise ValueError(f"{table} has other classes or keypoints than {dataset.source}")
    if labels.exists() or dataset.split in before:
        raise ValueError(f"{labels} exists: the folder has a split {dataset.split!r} already")
    names = Names()
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True)
        for record, objects in objects_of(dataset):
            stem = names.free(record.path)
            copy_image(record, images, stem)
            lines = [line(one, record.size, dataset) for one in objects if is_object(one)]
            (labels / f"{stem}.txt").write_text("".join(f"{text}\n" for text in lines), "utf-8")
    splits: dict[str, Any] = {key: before[key] for key in ("train", "val", "test") if key in before}
    splits[dataset.split] = f"images/{dataset.split}"
    # Without `path`: others look for a relative one elsewhere than beside the file.
    text = yaml.safe_dump({**splits, **content}, sort_keys=False, allow_unicode=True)
    write_whole(table, text)
    return table


def line(one: Outgoing, size: tuple[int, int], dataset: Dataset) -> str:
    """Return the line of an object: a box with keypoints, a polygon, or a box."""
    height, width = size
    numbers: Sequence[float]
    points = one.polygon() if dataset.skeleton is None else None
    if points is not None:
        numbers = (points / (width, height)).ravel().tolist()
    else:
        x1, y1, x2, y2 = one.box
        numbers = [
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        ]
        if dataset.skeleton is not None:
            joints = one.keypoints
            for k in range(len(dataset.skeleton)):
                x, y, seen = (0.0, 0.0, 0.0) if joints is None else joints[k].tolist()
                numbers += [x / width, y / height, int(seen)]
    return " ".join((str(one.label), *map(_short, numbers)))


def _short(value: float) -> str:
    return f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".") or "0"
