"""Finds out what `data=` points to: which annotation file and images make up each split.

What is known stands in `formats.table.TABLE`: COCO JSON, among them Roboflow's export, Pascal VOC
folders, one or several, and images with labels of their own. All names of the validation split
(val, valid, validation, dev) are one and the same, in any case. Nothing that looks like a part of
the data set is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from maskwright.errors import OptionError, nearest
from maskwright.paths import home_path, nearest_path
from maskwright.stores import is_address, local_copy

from .formats.class_folders import FolderSource, class_folders, lone_class
from .formats.coco.layout import CocoSource, by_folders, by_lists, coco_source
from .formats.folders import (
    ANNOTATION_FOLDERS,
    LIST_SUFFIXES,
    SPLITS,
    Tree,
    folder_split,
    is_file,
    split_name,
)
from .formats.maps.described import described_maps
from .formats.maps.panoptic import PanopticSource
from .formats.maps.source import MapSource
from .formats.recognition import describe, examples, recognise, seen, splits_of_file
from .formats.rivals import settled
from .formats.rows import Look
from .formats.sniff import BROKEN, COCO, sniff
from .formats.source import ReadOptions, Source
from .formats.table import ROWS, TABLE
from .formats.voc.layout import VocPart, voc_part
from .formats.voc.source import VocSource
from .formats.yolo.find import described_yolo
from .pixels.large import all_channels
from .records import BACKGROUND, Dataset, Kind

# What a folder has instead of what was asked for: by that, and by what it has.
ELSE = {
    ("objects", "maps"): (
        "{} has label maps, the class of every pixel, and no objects: a model of semantic "
        "segmentation reads it; models that find objects need these apart: give "
        "format=instances where each object has a number of its own, or COCO JSON"
    ),
    ("objects", "labels"): (
        "{} has images with labels of their own and no objects: a classifier reads it, such as "
        "model=resnet18; what finds or measures objects needs their boxes or masks"
    ),
    ("maps", "labels"): (
        "{} has images with labels of their own and no label maps: a classifier reads it, such as "
        "model=resnet18; semantic segmentation needs the class of every pixel"
    ),
    ("labels", "maps"): (
        "{} has label maps, the class of every pixel: a model of semantic segmentation reads it; a "
        "classifier needs a folder for each class, or a table with the columns path,label"
    ),
}
# Formats with properties, one of which tells classes.
DETAILED = ("geo", "shapefile", "via", "fiftyone")
TWO_CLASSES = (
    "a classifier tells at least two classes apart, each a folder of its images, as in "
    "train/cat/1.jpg, train/dog/2.jpg, val/cat/3.jpg, val/dog/4.jpg; without train and val, a part "
    "is held out"
)
# Folders inside a data set that are sometimes given in place of it.
INNER = (*ANNOTATION_FOLDERS, "imagesets", "main", "segmentation", "jpegimages", "images")


def open_dataset(
    data: str | Path | Mapping[str, Any],
    split: str = "train",
    *,
    names: Sequence[str] | None = None,
    keypoints: bool = False,
    difficult: bool = False,
    crowd_as_objects: bool = False,
    records: Kind | None = "objects",
    ignore: int | str | Sequence[int | str] | None = None,
    overlaps: str = "smaller",
    format: str | None = None,
) -> Dataset:
    """Open one split of a data set, whatever its layout.

    Args:
        data: a COCO JSON, a list of Pascal VOC images, a folder, a YAML file or a mapping with the
            entries train, val, images; or the address of one of the first four in an object store
            (s3://, gs://, ...), which is copied to the cache of this machine.
        split: "train", "val" (or one of its other names) or "test".
        names: class names that give the labels, from the training split or a model; None: those of
            the annotation file, in the order of its category ids.
        keypoints: see `find_splits`.
        difficult: take objects that Pascal VOC marks `difficult` as objects like others; False:
            they count neither way, in training and in evaluation.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects like others; False: as
            regions of many, which count neither way.
        records: what the images must have: "objects", "labels" of their own, or "maps" of labels.
            Of a data set of objects the labels are the classes of these, the maps are drawn from
            their masks, with class 0 as background. None: whatever the data set has; files of
            labelling tools without a single object may have labels of whole images.
        ignore: numbers or names of classes of label maps whose pixels are ignored, beside 255;
            None: no others.
        overlaps: of label maps that are drawn from objects, see `Dataset.as_maps`.
        format: read it as this format, such as "yolo" or "labelme", where a folder has several;
            "geo:species" takes the classes of GeoJSON from the property species, "via:species"
            those of VIA from that attribute. None: as what is recognised.

    Returns:
        The data set; what was wrong in the files stands in its `faults`.

    Raises:
        ValueError: if there is no such data set or split, its annotations cannot be read, no image
            is usable, or it uses classes that are not in `names`.
    """
    wanted = split_name(split)
    if wanted is None:
        raise OptionError(f"split is 'train', 'val' or 'test', got {split!r}")
    splits = find_splits(data, keypoints=keypoints, records=records, format=format)
    if wanted not in splits:
        raise ValueError(
            f"{_describe(data)} has no {wanted!r} split, only {', '.join(map(repr, splits))}: name "
            f"one of these, or add the annotations of the other"
        )
    source = splits[wanted]
    known = list(names) if names is not None else None
    ignored = (ignore,) if isinstance(ignore, int | str) else tuple(ignore or ())
    options = ReadOptions(difficult, crowd_as_objects, ignored)
    if records == "maps" and not isinstance(source, MapSource | PanopticSource):
        return _drawn(source, wanted, known, options, overlaps)
    dataset = _read(source, wanted, known, options)
    if records == "objects" and dataset.records != records:
        raise ValueError(ELSE[records, dataset.records].format(source.annotations))
    return dataset.as_labels() if records == "labels" else dataset


def _drawn(
    source: Source, split: str, names: list[str] | None, options: ReadOptions, overlaps: str
) -> Dataset:
    """Return label maps that are drawn from objects."""
    if names is not None and names[:1] != [BACKGROUND]:
        raise ValueError(
            f"{source.annotations} has objects, whose label maps begin with the class "
            f"{BACKGROUND!r}, but the known classes are {names[:20]}"
        )
    if options.ignore:
        raise OptionError(
            f"ignore is for values of label maps; those of {source.annotations} are drawn from "
            "objects, where crowd regions are ignored"
        )
    dataset = _read(source, split, None if names is None else names[1:], options)
    return dataset.as_maps(overlaps)


def _read(source: Source, split: str, names: list[str] | None, options: ReadOptions) -> Dataset:
    """Return a split with all of its faults, compared with other labels of the same images."""
    dataset = source.read(split, names, options)
    dataset.channels = all_channels(dataset)
    dataset.faults.extend(source.faults)
    return settled(dataset, source.others, names, options)


def find_splits(
    data: str | Path | Mapping[str, Any],
    *,
    keypoints: bool = False,
    records: Kind | None = "objects",
    format: str | None = None,
) -> dict[str, Source]:
    """Return the splits that a data set has, by name: "train", "val", "test".

    A single COCO JSON or list of Pascal VOC is the split that its name (or that of its folder)
    tells, else "train". Of a VOC folder, trainval is "train" only where it has no list train.

    Args:
        data: see `open_dataset`.
        keypoints: prefer COCO's files of keypoints, which stand beside those of all objects.
        records: see `open_dataset`.
        format: see `open_dataset`.

    Raises:
        ValueError: if nothing known is found.
    """
    formats = dict.fromkeys(row.format for row in TABLE if row.find and row.format)
    name, _, detail = (format or "").partition(":")
    if detail and name not in DETAILED:
        raise OptionError(
            f"format={format!r}: only format=geo:PROPERTY, format=via:ATTRIBUTE and "
            "format=fiftyone:FIELD say more"
        )
    if format is not None and name not in formats:
        raise OptionError(
            f"format={format!r}: read are {', '.join(formats)}{nearest(format, formats)}"
        )
    if records not in (None, "objects", "labels", "maps"):
        raise OptionError(f"records is 'objects', 'labels', 'maps' or None, got {records!r}")
    try:
        return _find_splits(data, keypoints, records, format)
    except OSError as error:  # no permission, a name too long, a loop of links
        raise ValueError(
            f"{_describe(data)[:300]} cannot be looked up: {error.strerror or error}"
        ) from None


def _find_splits(
    data: str | Path | Mapping[str, Any],
    keypoints: bool,
    records: Kind | None,
    format: str | None,
) -> dict[str, Source]:
    if isinstance(data, Mapping):
        return _from_mapping(data, Path(), keypoints, records, format)
    path = local_copy(str(data)) if is_address(data) else Path(home_path(data))
    if not str(data).strip():
        raise OptionError("data is empty: give the folder or file of the data set")
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        try:
            return _from_mapping(_load_yaml(path), path.parent, keypoints, records, format, path)
        except ValueError as error:
            message = str(error)
            if (kind := sniff(path)) in ROWS:
                message += f". By its entries it is a {kind}, not read: {ROWS[kind].todo}"
            raise ValueError(
                message if message.startswith(str(path)) else f"{path}: {message}"
            ) from None
    if path.is_file():
        return _in_order(_from_file(path, keypoints, records, format))
    if path.exists() and not path.is_dir():
        raise ValueError(f"data={str(data)!r} is a pipe or a device, no file and no folder")
    if not path.is_dir():
        raise ValueError(f"data={str(path)!r} does not exist{nearest_path(path)}")
    look = Look(path, keypoints, format=format)
    found = recognise(look, records, format)
    if format is not None and not found:
        raise ValueError(
            f"data={str(path)!r} is not recognised as format={format}. It has: {seen(look)}"
        )
    for wanted, other in () if found else ELSE:
        if records == wanted and _has(look, other):
            raise ValueError(ELSE[wanted, other].format(f"data={str(path)!r}"))
    if not found:
        meant = _elsewhere(path, keypoints, records)
        if records == "labels" and (what := lone_class(look.tree, path)):
            raise ValueError(f"data={str(path)!r} {what}: {TWO_CLASSES}{meant}")
        raise ValueError(
            f"no annotations found for data={str(path)!r}{meant or '.'} It has: "
            f"{seen(look)}. What is read, for example:\n{examples(records)}\nor a YAML file with "
            "the entries train, val and images"
        )
    return _in_order(found)


def _has(look: Look, records: str) -> bool:
    """Return True for images with labels, or label maps, of their own, be they told well or not."""
    try:
        return bool(recognise(look, records))
    except ValueError:
        return False


def _in_order(found: dict[str, Source]) -> dict[str, Source]:
    return {split: found[split] for split in SPLITS if split in found}


def _from_file(
    path: Path, keypoints: bool, records: Kind | None, format: str | None
) -> dict[str, Source]:
    """Return the splits of a COCO JSON or a table, or the one of a list of Pascal VOC."""
    if found := splits_of_file(path, records, format):
        return found
    if format not in (None, "coco" if path.suffix.lower() == ".json" else "voc"):
        raise ValueError(f"data={str(path)!r} is not recognised as format={format}")
    if records == "objects" and splits_of_file(path, "labels"):
        raise ValueError(ELSE["objects", "labels"].format(f"data={str(path)!r}"))
    split = split_name(path.stem) or folder_split(path.parent)
    kind = sniff(path)
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES and kind in ("text", "empty file"):
        return {split or "train": VocSource((voc_part(path),))}
    row = ROWS.get(kind)
    if suffix != ".json" or (row is not None and row.find is None):
        raise ValueError(
            f"data: {describe(path)}; data= takes a COCO JSON, a list of Pascal VOC, a CSV, a "
            "YAML file or a folder"
        )
    look = Look(path.parent, keypoints)
    if path.parent.name.lower() in ANNOTATION_FOLDERS:
        look = Look(path.parent.parent, keypoints)
    if split is None and kind in (COCO, BROKEN):
        divided = by_lists(look.coco, path) or by_folders(look.coco, path) if kind == COCO else {}
        if divided:
            return dict(divided)
    return {split or "train": coco_source(look.tree, path, split or "train")}


def _elsewhere(path: Path, keypoints: bool, records: Kind | None) -> str:
    """Return "; did you mean ...?" with a folder above or below that is a data set."""
    places = [
        one
        for one in (path, *path.parents[:1])
        if one.name.lower() in INNER or (one != path and folder_split(one))
    ]
    below = islice(Tree().below(path, 3), 1, 60)
    for folder in (*(place.parent for place in places), *below):
        try:
            if recognise(Look(folder, keypoints), records):
                return f"; did you mean data={str(folder)!r}?"
        except (OSError, ValueError):
            continue
    return ""


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


def _from_mapping(
    content: Mapping[str, Any],
    base: Path,
    keypoints: bool,
    records: Kind | None,
    format: str | None = None,
    file: Path | None = None,
) -> dict[str, Source]:
    """Read train, val, test and images.

    Each split is a COCO JSON, a list of Pascal VOC, a folder of either, or several lists or folders
    of Pascal VOC in one list; images is a folder, or one for each split.
    """
    for key in ("path", "images"):
        value = content.get(key, ".")
        values = value.values() if isinstance(value, Mapping) else [value]
        if not all(item is None or isinstance(item, str | Path) for item in values):
            raise ValueError(f"the entry {key} must name a folder, got a {type(value).__name__}")
    may_be_yolo = records != "maps" and "masks" not in content and format in (None, "yolo")
    if may_be_yolo and (yolo := described_yolo(content, base, file)):
        return _in_order(dict(yolo))
    base = base / home_path(str(content.get("path") or "."))
    wanted = records == "maps" or (records is None and "masks" in content)
    if wanted and format in (None, "maps") and (maps := described_maps(content, base)):
        return _in_order(dict(maps))
    if format not in (None, "coco", "voc", "csv", "folders"):
        raise ValueError(f"{file or 'the mapping'} does not describe data of format={format}")
    found: dict[str, Source] = {}
    for key, value in content.items():
        split = split_name(str(key))
        several = value if isinstance(value, list) else [value]
        if split is None:
            _check_entry(key, value, base)
            continue
        if value is None:  # as YOLO writes a split that there is not
            continue
        if not all(isinstance(one, str | Path) for one in several):
            raise ValueError(
                f"the entry {key} must name a file or a folder, or several in a list, got a "
                f"{type(value).__name__}"
            )
        if split in found:
            raise ValueError(f"two entries are the {split} split, {key} is the second: leave one")
        files = [base / home_path(one) for one in several]
        own = _labelled(files[0], split, records) if len(files) == 1 else None
        if own is not None:
            found[split] = own
            continue
        within = _coco_within(files[0], split, keypoints) if len(files) == 1 else None
        if within is not None and not content.get("images"):
            found[split] = within
            continue
        if within is not None:
            files = [within.annotations]
        if len(files) == 1 and files[0].suffix.lower() == ".json" and files[0].is_file():
            images = content.get("images")
            if isinstance(images, Mapping):
                images = images.get(key)
            place = base / home_path(str(images)) if images else None
            only = None if within is None else within.only
            found[split] = replace(coco_source(Tree(), files[0], split, place), only=only)
            continue
        parts: list[VocPart] = []
        for name, file in zip(several, files, strict=True):
            lists = _voc_parts(file, split)
            if not lists:
                expected = "lists or folders of Pascal VOC" if len(files) > 1 else "a COCO JSON"
                raise ValueError(
                    f"{key}: {name} must name an existing COCO JSON, or a list or folder of Pascal "
                    f"VOC (looked for {file}, expected {expected}"
                    f"{'' if file.exists() else nearest_path(file)}); images are given by the "
                    "entry images"
                )
            parts += lists
        if parts:
            found[split] = VocSource(tuple(parts))
    if not found:
        raise ValueError(
            f"expected the entries train and val, each a COCO JSON or lists of Pascal VOC, got "
            f"{sorted(map(str, content))}"
        )
    return _in_order(found)


def _check_entry(key: Any, value: Any, base: Path) -> None:
    """Raise for an entry that names annotations, but no split."""
    if key in ("path", "images") or not isinstance(value, str | Path):
        return
    file = base / home_path(value)
    if file.suffix.lower() in (".json", ".txt") and is_file(file):
        raise ValueError(
            f"the entry {key} names {value}, but {key} is no split: call it train, val or test, or "
            "take it out"
        )


def _coco_within(file: Path, split: str, keypoints: bool) -> CocoSource | None:
    """Return the COCO JSON of a split in a folder, such as Roboflow exports, beside the images."""
    if not file.is_dir():
        return None
    found = recognise(Look(file, keypoints))
    source = found.get(split) or (next(iter(found.values())) if len(found) == 1 else None)
    return source if isinstance(source, CocoSource) else None


def _labelled(file: Path, split: str, records: Kind | None) -> Source | None:
    """Return where a split of labelled images, or a table of boxes, lies; None for others."""
    if file.is_file() and file.suffix.lower() == ".csv":
        splits = splits_of_file(file, records)
        return splits.get(split) or next(iter(splits.values()), None)
    if records == "objects" or not file.is_dir() or _coco_within(file, split, False):
        return None
    tree = Tree()
    return FolderSource(file, tree) if class_folders(tree, file) else None


def _voc_parts(file: Path, split: str) -> list[VocPart]:
    """Return the parts that a list or a folder of Pascal VOC stands for; none if it is neither."""
    if file.suffix.lower() == ".txt" and file.is_file():
        return [voc_part(file)]
    if not file.is_dir():
        return []
    sources = Look(file).voc.parts
    parts = sources.get(split)
    if parts is None and len(sources) == 1:  # a folder with one split is the one asked for
        parts = next(iter(sources.values()))
    if parts is None and sources:
        raise ValueError(
            f"{file} has no list for {split!r}, only for {', '.join(map(repr, sources))}: name the "
            "list, such as ImageSets/Main/trainval.txt"
        )
    return parts or []


def _describe(data: Any) -> str:
    return "data" if isinstance(data, Mapping) else f"data={str(data)!r}"
