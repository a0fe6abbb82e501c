"""Finds out what `data=` points to: which annotation file and images make up each split.

Known so far: COCO JSON in its usual layouts, among them Roboflow's export, and Pascal VOC folders,
one or several. All names of the validation split (val, valid, validation, dev) are one and the
same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.errors import OptionError
from maskwright.paths import home_path, nearest_path

from .coco import read_coco
from .records import Dataset
from .voc import read_voc
from .voc_layout import VocPart, voc_part, voc_splits

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
LAYOUTS = """\
  my_data/annotations/train.json      my_data/annotations/val.json
  my_data/images/train/*.jpg          my_data/images/val/*.jpg
or train.json and val.json beside the folder images, or instances_train*.json and
instances_val*.json (COCO), or train/_annotations.coco.json and valid/_annotations.coco.json
(Roboflow), or one COCO JSON, or a YAML file with the entries train, val and images, or Pascal VOC:
  my_data/Annotations/*.xml     my_data/JPEGImages/*.jpg     my_data/ImageSets/Main/train.txt
or a folder of such folders, or XML files beside the images, or a list such as
VOC2007/ImageSets/Main/trainval.txt, or a YAML file whose entries name such lists"""
# A split and the name of a list that stands for it where there is no list of its own name.
STAND_INS = {"train": "trainval"}


@dataclass(frozen=True)
class CocoSource:
    """Where one split lies: COCO JSON.

    Attributes:
        annotations: the JSON file.
        roots: folders in which its images may lie, likely ones first.
    """

    annotations: Path
    roots: tuple[Path, ...]

    def read(self, split: str, names: Sequence[str] | None, difficult: bool) -> Dataset:
        """Return the data set; see `open_dataset`."""
        return read_coco(self.annotations, self.roots, split=split, names=names)


@dataclass(frozen=True)
class VocSource:
    """Where one split lies: Pascal VOC.

    Attributes:
        parts: the lists of its images.
    """

    parts: tuple[VocPart, ...]

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the first list, or its folder of XML files."""
        return self.parts[0].source

    def read(self, split: str, names: Sequence[str] | None, difficult: bool) -> Dataset:
        """Return the data set; see `open_dataset`."""
        return read_voc(self.parts, split=split, names=names, difficult=difficult)


Source = CocoSource | VocSource


def open_dataset(
    data: str | Path | Mapping[str, Any],
    split: str = "train",
    *,
    names: Sequence[str] | None = None,
    keypoints: bool = False,
    difficult: bool = False,
) -> Dataset:
    """Open one split of a data set, whatever its layout.

    Args:
        data: a COCO JSON, a list of Pascal VOC images, a folder, a YAML file or a mapping with the
            entries train, val, images.
        split: "train", "val" (or one of its other names) or "test".
        names: class names that give the labels, from the training split or a model; None: those of
            the annotation file, in the order of its category ids.
        keypoints: see `find_splits`.
        difficult: take objects that Pascal VOC marks `difficult` as objects like others; False:
            they count neither way, in training and in evaluation.

    Returns:
        The data set; what was wrong in the files stands in its `faults`.

    Raises:
        ValueError: if there is no such data set or split, its annotations cannot be read, no image
            is usable, or it uses classes that are not in `names`.
    """
    wanted = split_name(split)
    if wanted is None:
        raise OptionError(f"split is 'train', 'val' or 'test', got {split!r}")
    splits = find_splits(data, keypoints=keypoints)
    if wanted not in splits:
        raise ValueError(
            f"{_describe(data)} has no {wanted!r} split, only {', '.join(map(repr, splits))}: name "
            f"one of these, or add the annotations of the other"
        )
    return splits[wanted].read(wanted, names, difficult)


def find_splits(
    data: str | Path | Mapping[str, Any], *, keypoints: bool = False
) -> dict[str, Source]:
    """Return the splits that a data set has, by name: "train", "val", "test".

    A single COCO JSON or list of Pascal VOC is the split that its name (or that of its folder)
    tells, else "train". Of a VOC folder, trainval is "train" only where it has no list train.

    Args:
        data: see `open_dataset`.
        keypoints: prefer COCO's files of keypoints, which stand beside those of all objects.

    Raises:
        ValueError: if nothing known is found.
    """
    try:
        return _find_splits(data, keypoints)
    except OSError as error:  # no permission, a name too long, a loop of links
        raise ValueError(
            f"{_describe(data)[:300]} cannot be looked up: {error.strerror or error}"
        ) from None


def _find_splits(data: str | Path | Mapping[str, Any], keypoints: bool) -> dict[str, Source]:
    if isinstance(data, Mapping):
        return _from_mapping(data, Path(), keypoints)
    path = Path(home_path(data))
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        try:
            return _from_mapping(_load_yaml(path), path.parent, keypoints)
        except ValueError as error:
            message = str(error)
            raise ValueError(
                message if message.startswith(str(path)) else f"{path}: {message}"
            ) from None
    if path.is_file():
        split = split_name(path.stem) or _folder_split(path.parent) or "train"
        if path.suffix.lower() == ".txt":
            return {split: VocSource((voc_part(path),))}
        return {split: _source(path, split)}
    if path.exists() and not path.is_dir():
        raise ValueError(f"data={str(data)!r} is a pipe or a device, no file and no folder")
    if not path.is_dir():
        raise ValueError(f"data={str(path)!r} does not exist{nearest_path(path)}")
    found: dict[str, Source] = {}
    looked = [path / "annotations", path, *(sub for sub in _folders(path) if split_name(sub.name))]
    for folder in looked:
        inside = _folder_split(folder) if folder == path else split_name(folder.name)
        for split, file in _annotation_files(folder, inside, keypoints).items():
            found.setdefault(split, _source(file, split))
    found = found or _voc_sources(path)
    if not found:
        places = ", ".join(str(folder) for folder in looked if folder.is_dir())
        raise ValueError(
            f"no annotations found for data={str(data)!r}: looked for *.json in {places}, and for "
            f"*.xml of Pascal VOC in it, in Annotations and in the folders below. "
            f"Expected, for example:\n{LAYOUTS}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _voc_sources(path: Path) -> dict[str, Source]:
    """Return the splits of a folder of Pascal VOC folders; lists of one class are none."""
    lists = voc_splits(path)
    found: dict[str, Source] = {}
    for split, aliases in SPLITS.items():
        names = [name for name in lists if name.lower() in aliases]
        stand_in = STAND_INS.get(split)
        if not names and stand_in in lists:
            names = [stand_in]
        parts = [part for name in names for part in lists[name]]
        if parts:
            found[split] = VocSource(tuple(parts))
    unlisted = [part for parts in lists.values() for part in parts if part.listing is None]
    if not found and unlisted:  # folders without lists whose names tell no split
        found["train"] = VocSource(tuple(unlisted))
    return found


def split_name(text: str) -> str | None:
    """Return "train", "val" or "test" for a name like instances_val2017 or valid, else None."""
    words = re.findall("[a-z]+", text.lower())
    for split, aliases in SPLITS.items():
        if any(word in aliases for word in words):
            return split
    return None


def _folder_split(folder: Path) -> str | None:
    """Return the split of a folder named train, valid, test2017; not of one named test_project."""
    name = folder.name.lower().rstrip("0123456789")
    return next((split for split, aliases in SPLITS.items() if name in aliases), None)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())


def _annotation_files(folder: Path, inside: str | None, keypoints: bool) -> dict[str, Path]:
    """Return the annotation file of each split that lies directly in a folder.

    A file whose name tells no split belongs to `inside`, the split of the folder, or if it is the
    only one, to train.

    Of several for one split, instances_* wins over a plain name, and both over person_keypoints_*,
    captions_* and the like; with `keypoints`, person_keypoints_* comes first.
    """
    best: dict[str, tuple[int, str, Path]] = {}
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for file in files:
        split = split_name(file.stem) or inside or ("train" if len(files) == 1 else None)
        if split is None:
            continue
        stem = file.stem.lower()
        rank = 0 if stem.startswith("instances") else 1
        if re.match("person_keypoints|captions|panoptic|stuff|image_info", stem):
            rank = 2
        if keypoints and stem.startswith("person_keypoints"):
            rank = -1
        # Of equal rank, the shorter name: train.json before train_small.json.
        key = (rank, f"{len(stem):04}{stem}", file)
        best[split] = min(best.get(split, key), key)
    return {split: file for split, (rank, _, file) in best.items() if rank < 2}


def _source(file: Path, split: str, images: Path | None = None) -> CocoSource:
    """Return annotation file and image folders; `images`, where given, comes first."""
    here, above = file.parent, file.parent.parent
    suffix = file.stem.split("_")[-1]  # instances_train2017 -> train2017
    aliases = list(dict.fromkeys((suffix, *SPLITS[split])))
    parts = [
        *(f"images/{alias}" for alias in aliases),
        *aliases,
        "images",
        "JPEGImages",
        "data",
    ]
    roots = [here, *(here / part for part in parts)]
    if here.name in ("annotations", "labels") or _folder_split(here):
        roots += [*(above / part for part in parts), above]
    else:
        roots += [above / "images"]
    if images is not None:
        roots = [images, *(images / alias for alias in aliases)]
    return CocoSource(file, tuple(roots))


def _load_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read") from None
    if not isinstance(content, Mapping):  # not shown: with aliases, its text may be endless
        kind = type(content).__name__
        raise ValueError(f"{path}: expected the entries train and val, got a {kind}")
    return content


def _from_mapping(content: Mapping[str, Any], base: Path, keypoints: bool) -> dict[str, Source]:
    """Read train, val, test and images.

    Each split is a COCO JSON, a list of Pascal VOC, a folder of either, or several lists or folders
    of Pascal VOC in one list; images is a folder, or one for each split.
    """
    for key in ("path", "images"):
        value = content.get(key, ".")
        values = value.values() if isinstance(value, Mapping) else [value]
        if not all(item is None or isinstance(item, str | Path) for item in values):
            raise ValueError(f"the entry {key} must name a folder, got a {type(value).__name__}")
    base = base / home_path(str(content.get("path") or "."))
    found: dict[str, Source] = {}
    for key, value in content.items():
        split = split_name(str(key))
        several = value if isinstance(value, list) else [value]
        if split is None or not all(isinstance(one, str | Path) for one in several):
            continue
        files = [_entry_file(base / home_path(one), split, keypoints) for one in several]
        if len(files) == 1 and files[0].suffix.lower() == ".json" and files[0].is_file():
            images = content.get("images")
            if isinstance(images, Mapping):
                images = images.get(key)
            found[split] = _source(
                files[0], split, base / home_path(str(images)) if images else None
            )
            continue
        parts: list[VocPart] = []
        for name, file in zip(several, files, strict=True):
            own = _voc_parts(file, split)
            if not own:
                expected = "lists or folders of Pascal VOC" if len(files) > 1 else "a COCO JSON"
                raise ValueError(
                    f"{key}: {name} must name an existing COCO JSON, or a list or folder of Pascal "
                    f"VOC (looked for {file}, expected {expected}); images are given by the entry "
                    "images"
                )
            parts += own
        if parts:
            found[split] = VocSource(tuple(parts))
    if not found:
        raise ValueError(
            f"expected the entries train and val, each a COCO JSON or lists of Pascal VOC, got "
            f"{sorted(map(str, content))}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _entry_file(file: Path, split: str, keypoints: bool) -> Path:
    """Return the COCO JSON in a folder as Roboflow exports it, beside the images; else `file`."""
    if file.is_dir():
        return _annotation_files(file, split, keypoints).get(split, file)
    return file


def _voc_parts(file: Path, split: str) -> list[VocPart]:
    """Return the parts that a list or a folder of Pascal VOC stands for; none if it is neither."""
    if file.suffix.lower() == ".txt" and file.is_file():
        return [voc_part(file)]
    if not file.is_dir():
        return []
    sources = _voc_sources(file)
    source = sources.get(split)
    if source is None and len(sources) == 1:  # a folder with one split is the one asked for
        source = next(iter(sources.values()))
    if source is None and sources:
        raise ValueError(
            f"{file} has no list for {split!r}, only for {', '.join(map(repr, sources))}: name the "
            "list, such as ImageSets/Main/trainval.txt"
        )
    return list(source.parts) if isinstance(source, VocSource) else []


def _describe(data: Any) -> str:
    return "data" if isinstance(data, Mapping) else f"data={str(data)!r}"
