"""Writer of COCO JSON files: what `read_coco` reads, with all parts and holes of the masks."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...records import Dataset

IMAGES = "images"


@takes_paths
def write_coco(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as COCO JSON, with copies of its images.

    Args:
        dataset: the images and objects. Crowd regions get iscrowd=1, those that are ignored
            ignore=1 as well; one of unknown class is written once for each class.
        folder: where annotations/SPLIT.json and images/ go; other splits may be there already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the split is there already, or another image of the same name.
    """
    folder = Path(folder)
    file = folder / f"annotations/{dataset.split}.json"
    if file.exists():
        raise ValueError(f"{file} exists: the folder has a split {dataset.split!r} already")
    content = dataset.to_coco()
    entries: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        entries[entry["image_id"]].append(entry)
    with writing(folder):
        for index, image in enumerate(content["images"]):
            _copy(dataset, index, folder / IMAGES / image["file_name"])
            _mark_ignored(dataset, index, entries[image["id"]])
    write_whole(file, json.dumps(content))
    return file


def _copy(dataset: Dataset, index: int, target: Path) -> None:
    file = dataset[index].path
    if target.exists() and not filecmp.cmp(file, target, shallow=False):
        raise ValueError(f"{target} exists and is another image than {file}: choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _mark_ignored(dataset: Dataset, index: int, entries: list[dict[str, Any]]) -> None:
    record, at = dataset[index], 0
    for label, ignored in zip(record.labels.tolist(), record.ignored.tolist(), strict=True):
        count = 1 if label >= 0 else len(dataset.names)
        for entry in entries[at : at + count]:
            entry["ignore"] = int(ignored)
        at += count
