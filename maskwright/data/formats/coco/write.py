"""Writer of COCO JSON files: what `read_coco` reads, with all parts and holes of the masks."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskwright.files import replacing, writing
from maskwright.paths import takes_paths

from ...records import Dataset
from ..outgoing import refuse_written, sized, write_list
from .truth import negatives

IMAGES = "images"
BLOCK = 16  # images whose objects are in memory at once as objects of Python


@takes_paths
def write_coco(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as COCO JSON, with copies of its images.

    Images keep their folders; one whose name another has gets a number.

    Args:
        dataset: the images and objects. Crowd regions get iscrowd=1, those that are ignored
            ignore=1 as well; one of unknown class is written once for each class. Images that
            belong together get one `video_id`.
        folder: where annotations/SPLIT.json and images/ go; other splits may be there already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the split is there already.
    """
    folder = Path(folder)
    file = folder / f"annotations/{dataset.split}.json"
    refuse_written(file, dataset)
    with (
        writing(folder),
        replacing(file) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        empty = dataset.to_coco([])
        stream.write(f'{{"info": {json.dumps(empty["info"])},\n')
        videos = _videos(dataset)
        if videos:
            named = [{"id": one, "name": f"group {one}"} for one in dict.fromkeys(videos.values())]
            stream.write(f'"videos": {json.dumps(named)},\n')
        stream.write('"images": ')
        write_list(stream, _images(dataset, folder / IMAGES, videos))
        stream.write(f',\n"categories": {json.dumps(empty["categories"])},\n"annotations": ')
        write_list(stream, _annotations(dataset))
        stream.write("}\n")
    return file


def _videos(dataset: Dataset) -> dict[int, int]:
    """Return a number from 1 on for each group of several images, by the images' positions."""
    groups = [] if dataset.groups is None else dataset.groups.tolist()
    counts = Counter(groups)
    return {index: one + 1 for index, one in enumerate(groups) if counts[one] > 1}


def _images(dataset: Dataset, folder: Path, videos: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Copy the images, and yield their entries."""
    ids = dataset.own_ids
    for index in range(len(dataset)):
        record = sized(dataset, index)
        row = int(dataset.rows[index])
        name = _copy(record.path, folder, dataset.columns.path(row))
        height, width = record.size
        entry = {"id": record.image_id, "file_name": name, "height": height, "width": width}
        if index in videos:
            entry["video_id"] = videos[index]
        yield entry | negatives(dataset.columns, row, ids)


def _copy(file: Path, folder: Path, name: str) -> str:
    """Copy an image to where it lies below the folder, and return that."""
    place, number = Path(name), 0
    while (target := folder / name).exists() and not filecmp.cmp(file, target, shallow=False):
        number += 1
        name = place.with_stem(f"{place.stem}_{number}").as_posix()
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    return name


def _annotations(dataset: Dataset) -> Iterator[dict[str, Any]]:
    before = 0  # ids count on from block to block
    for first in range(0, len(dataset), BLOCK):
        block = range(first, min(first + BLOCK, len(dataset)))
        entries = dataset.to_coco(block)["annotations"]
        at = 0
        for index in block:
            record = dataset[index]
            for label, ignored in zip(record.labels.tolist(), record.ignored.tolist(), strict=True):
                for entry in entries[at : (at := at + (1 if label >= 0 else len(dataset.names)))]:
                    yield {**entry, "id": before + entry["id"], "ignore": int(ignored)}
        before += len(entries)
