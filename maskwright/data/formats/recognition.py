"""Which row of the table a folder or file is, and what is said of one that is none.

The rows that are read are tried from top to bottom; messages are made of the same rows: what was
seen, why it was not taken, what to do about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..records import Fault
from .coco.layout import CocoSource, lists_of
from .folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LABEL_PICTURES,
    folder_split,
    split_name,
)
from .rows import Layout, Look
from .sniff import CAPTIONS, COCO, PANOPTIC, inside_gzip, sniff
from .source import FieldSource, Source
from .table import ROWS, TABLE
from .voc.layout import LIST_FOLDERS
from .yolo.find import YoloSource
from .yolo.layout import LABELS

LOOKED_INTO = (
    *(".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".tfrecord", ".tfrecords", ".record"),
    *(".ndjson", ".jsonl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    *(".geojson", ".shp", ".gpkg", ".odgt"),
    *(".parquet", ".mat", ".h5", ".hdf5", ".lst", ".list", ""),
)
MOST = 400  # files of a folder whose bytes are looked at for a message
DEEPEST = 3


def recognise(
    look: Look, records: str | None = "objects", format: str | None = None
) -> dict[str, Source]:
    """Return the splits of a folder, by the first row of the table that fits; {} if none does.

    Args:
        look: the folder.
        records: what is wanted; labels and label maps can be had from objects, too. None:
            whatever there is.
        format: take only rows of this format; None: the first of any.

    Raises:
        ValueError: if it looks like a row, but does not tell what is what.
    """
    name, _, field = (format or "").partition(":")
    rows = [row for row in TABLE if row.find is not None and name in ("", row.format)]
    if records is not None:
        rows = [row for row in rows if row.records in (records, "objects")]
    rows.sort(key=lambda row: (row.last, records is not None and row.records != records))
    for row in rows:
        assert row.find is not None
        if found := _with_field(row.find(look), field):
            if row.records != "objects":
                return found
            if not name:
                found = _with_others(found, row, look)
            return _with_faults(found, look)
    return {}


def _with_others(found: Mapping[str, Source], row: Layout, look: Look) -> dict[str, Source]:
    """Return the sources, each with the same split in other formats, as far as there are some."""
    others: dict[str, list[Source]] = {}
    for other in TABLE:
        if other.find is None or other.records != "objects" or other.last:
            continue
        if other.format == row.format:
            continue
        with suppress(ValueError):  # it is none, or none that can be told
            for split, source in other.find(look).items():
                others.setdefault(split, []).append(source)
    return {
        split: source.with_others(tuple(others[split])) if split in others else source
        for split, source in found.items()
    }


def splits_of_file(path: Path, records: str | None, format: str | None = None) -> dict[str, Source]:
    """Return the splits of a single file that is no COCO JSON and no list, {} for others.

    Args:
        path: the file.
        records, format: see `recognise`.

    Raises:
        ValueError: if it looks like a row, but cannot be read.
    """
    name, _, field = (format or "").partition(":")
    for wanted in ("objects", "maps", "labels") if records is None else (records,):
        for row in TABLE:
            fits = row.records == wanted and name in ("", row.format)
            if row.file is not None and fits and (found := _with_field(row.file(path), field)):
                return found
    return {}


def _with_field(found: Mapping[str, Source], field: str) -> dict[str, Source]:
    """Return the sources, those whose objects have several fields with the one that is named."""
    return {
        split: replace(one, field=field) if isinstance(one, FieldSource) else one
        for split, one in found.items()
    }


def _with_faults(found: dict[str, Source], look: Look) -> dict[str, Source]:
    """Return the sources, the first with a fault for each file that is passed over."""
    first = next(iter(found.values()))
    passed = list(look.coco.passed)
    if isinstance(first, CocoSource):
        passed += [
            (folder, f"Pascal VOC beside COCO JSON: {first.annotations.name} is read")
            for folder in _voc_beside(look)
        ]
    else:
        passed += look.voc.passed
    read = {source.annotations for source in found.values()}
    read |= {file for source in found.values() for file in source.beside}
    told = {path for path, _ in passed}
    if not isinstance(first, CocoSource):
        read |= look.voc.lists
    elif first.only is not None:
        read |= set(lists_of(look.tree, look.path, first.annotations).values())
    known = (CAPTIONS, PANOPTIC, COCO)
    for one in look.coco.candidates:
        if one.file not in read | told and one.kind not in known:
            passed.append((one.file, f"it is {one.kind}"))
    told |= read | {one.file for one in look.coco.candidates}
    passed += _left(look, found, told)
    faults = tuple(
        Fault(str(path), None, None, "file passed over", f"{path} is not read: {why}", "left out")
        for path, why in passed
    )
    faults += tuple(look.coco.faults)
    return {
        split: source.with_faults(source.faults + faults) if source is first else source
        for split, source in found.items()
    }


def _left(
    look: Look, found: Mapping[str, Source], told: Iterable[Path]
) -> Iterable[tuple[Path, str]]:
    """Yield what else has the name of a split: files, and folders of images of no known split."""
    tree, path = look.tree, look.path
    of_yolo = any(isinstance(source, YoloSource) for source in found.values())
    places = (path, *tree.named(path, ANNOTATION_FOLDERS), *tree.named(path, LIST_FOLDERS))
    for file in (file for place in places for file in tree.files(place, *LOOKED_INTO)):
        words = (split_name(file.stem), "trainval" in file.stem.lower())
        if any(words) and file not in told and file.suffix.lower() != ".xml":
            kind = sniff(file)
            if not (of_yolo and kind in (LABELS, "empty file")):
                yield file, f"it is {kind}"
    for folder in (path, *tree.named(path, IMAGE_FOLDERS)):
        for one in tree.folders(folder):
            split = folder_split(one)
            if split and split not in found and tree.images(one):
                yield one, f"its {len(tree.images(one))} image(s) have no annotations"


def _voc_beside(look: Look) -> Iterable[Path]:
    try:
        parts = [part for own in look.voc.parts.values() for part in own]
    except ValueError:
        return ()
    return dict.fromkeys(part.annotations for part in parts)


def describe(path: Path) -> str:
    """Return what a file is and what to do about it, for an error: "x.zip is a ZIP archive ..."."""
    kind = sniff(path)
    row = ROWS.get(kind)
    if kind == "gzip archive" and inside_gzip(path):
        kind, row = "JSON packed with gzip", Layout("", todo="unpack it: gunzip")
    todo = "" if row is None else f": {row.todo}" if row.find is None else ""
    return f"{path} is {_article(kind)}{kind}{todo}"


def _article(kind: str) -> str:
    if kind.endswith(("archive", "file", "page", "document", "table", "pointer", "image")):
        return "an " if kind[0] in "aeiouAEIOUxR" else "a "
    return ""


def seen(look: Look) -> str:
    """Return what lies in a folder that is no data set, and what to do about it."""
    kinds: dict[str, list[Path]] = {}
    images: Counter[Path] = Counter()
    count = 0
    for folder in look.tree.below(look.path, DEEPEST):
        if pictures := len(look.tree.images(folder)):
            images[folder] = pictures
        for file in look.tree.files(folder, *LOOKED_INTO):
            count += 1
            if count <= MOST:
                kinds.setdefault(sniff(file), []).append(file)
    for folder in [one for one in images if _of_labels(one.relative_to(look.path))]:
        kinds.setdefault("mask images", []).append(folder)
    lines = []
    for kind, files in sorted(kinds.items(), key=lambda item: (item[0] not in ROWS, -len(item[1]))):
        first = files[0].relative_to(look.path)
        what = f"{len(files)} x {kind}" if len(files) > 1 else kind
        row = ROWS.get(kind)
        why = f", not read: {row.todo}" if row is not None and row.find is None else ""
        if row is not None and row.find is not None and not images:
            why = ", and no image that it could be of: put the images beside it or into images/"
        lines.append(f"{first}{' ...' if len(files) > 1 else ''}: {what}{why}")
    if count > MOST:
        lines.append(f"{count - MOST} files more that were not looked into")
    for folder, number in images.most_common(3):
        where = folder.relative_to(look.path).as_posix()
        lines.append(f"{number} image(s) in {'it' if where == '.' else where}")
    return "; ".join(lines) or "nothing: no annotation file and no image"


def _of_labels(folder: Path) -> bool:
    return any(LABEL_PICTURES.fullmatch(part) for part in folder.parts)


def examples(records: str | None) -> str:
    """Return how the layouts look that are read, one a line, below a folder my_data."""
    rows = [row for row in TABLE if row.find and row.looks]
    if records is not None:
        rows = [row for row in rows if row.records in (records, "objects")]
    lines = [line for row in rows for line in row.looks.split("\n")]
    return "\n".join(f"  {line}" for line in lines)
