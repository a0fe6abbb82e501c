"""The one table of layouts: what a data set may look like, how it is found, and what is not read.

`discover` tries the rows that are read from top to bottom, and its messages are made of the same
rows: what was seen, why it was not taken, what to do about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..records import Dataset, Fault
from .coco.layout import CocoFinder, CocoSource, by_folders, by_lists, lists_of
from .folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LABEL_PICTURES,
    Tree,
    folder_split,
    split_name,
)
from .sniff import (
    CAPTIONS,
    COCO,
    IMAGES_ONLY,
    MEND,
    MISNAMED,
    PANOPTIC,
    RESULTS,
    inside_gzip,
    sniff,
)
from .voc.layout import LIST_FOLDERS, VocFinder, VocPart
from .voc.read import read_voc

LOOKED_INTO = (
    *(".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".tfrecord", ".tfrecords", ".record"),
    *(".ndjson", ".jsonl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    *(".parquet", ".mat", ".h5", ".hdf5", ".lst", ".list", ""),
)
MOST = 400  # files of a folder whose bytes are looked at for a message
DEEPEST = 3


@dataclass(frozen=True)
class VocSource:
    """Where one split lies: Pascal VOC.

    Attributes:
        parts: the lists of its images.
        faults: what lies beside them and is not read.
    """

    parts: tuple[VocPart, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the first list, or its folder of XML files."""
        return self.parts[0].source

    def read(
        self, split: str, names: list[str] | None, difficult: bool, crowd_as_objects: bool
    ) -> Dataset:
        """Return the data set; see `discover.open_dataset`. Pascal VOC has no crowds."""
        return read_voc(self.parts, split=split, names=names, difficult=difficult)


Source = CocoSource | VocSource


@dataclass
class Look:
    """What a folder is found to hold; each part is looked for when first asked for.

    Attributes:
        path: the folder.
        keypoints: prefer COCO's files of keypoints.
        tree: the file system.
    """

    path: Path
    keypoints: bool = False
    tree: Tree = field(default_factory=Tree)

    @cached_property
    def coco(self) -> CocoFinder:
        """Its JSON files."""
        return CocoFinder(self.tree, self.path, self.keypoints)

    @cached_property
    def voc(self) -> VocFinder:
        """Its XML files and their lists."""
        finder = VocFinder(self.tree)
        finder.look(self.path)
        return finder


Find = Callable[[Look], "dict[str, Source]"]


@dataclass(frozen=True)
class Layout:
    """One row of the table.

    Attributes:
        name: what it is called; for a format of files, what `sniff` calls it.
        looks: an example for messages; "" where an earlier row shows it.
        find: returns the splits of a folder that looks so, nothing for others; None: not read yet.
        todo: what to do with data that is not read.
    """

    name: str
    looks: str = ""
    find: Find | None = None
    todo: str = ""


def _coco_splits(look: Look) -> dict[str, Source]:
    return dict(look.coco.splits())


def _coco_lists(look: Look) -> dict[str, Source]:
    file = look.coco.single
    return {} if file is None else dict(by_lists(look.coco, file))


def _coco_folders(look: Look) -> dict[str, Source]:
    file = look.coco.single
    return {} if file is None else dict(by_folders(look.coco, file))


def _coco_single(look: Look) -> dict[str, Source]:
    file = look.coco.single
    return {} if file is None else {"train": look.coco.source(file, "train")}


def _voc(wanted: Callable[[VocPart], bool]) -> Find:
    def find(look: Look) -> dict[str, Source]:
        parts = look.voc.parts
        if not any(wanted(part) for own in parts.values() for part in own):
            return {}
        return {split: VocSource(tuple(own)) for split, own in parts.items()}

    return find


def _lone_json(look: Look) -> dict[str, Source]:
    return dict(look.coco.last_resort())


EXPORT = "export it from the labelling tool as COCO JSON or Pascal VOC"
TABLE = (
    Layout(
        "COCO JSON for each split",
        "annotations/train.json + annotations/val.json + images/ (or images/train/, images/val/)\n"
        "train.json + val.json + images/      annotations/instances_train2017.json + train2017/\n"
        "train/_annotations.coco.json + valid/_annotations.coco.json, beside the images",
        _coco_splits,
    ),
    Layout(
        "one COCO JSON, divided by lists of images",
        "annotations.json + images/ + train.txt + val.txt",
        _coco_lists,
    ),
    Layout(
        "one COCO JSON, divided by folders of images",
        "annotations.json + images/train/ + images/val/ (or train/ + val/)",
        _coco_folders,
    ),
    Layout("one COCO JSON", "annotations.json + images/ (a part is held out)", _coco_single),
    Layout(
        "Pascal VOC with lists",
        "Annotations/*.xml + JPEGImages/ + ImageSets/Main/train.txt + .../val.txt (or train.txt +\n"
        "val.txt in ImageSets/ or at the top); labels/*.xml + images/; several such folders",
        _voc(lambda part: part.listing is not None),
    ),
    Layout(
        "Pascal VOC, a folder for each split",
        "train/*.xml + valid/*.xml beside the images\n"
        "Annotations/*.xml + images/train/ + images/val/",
        _voc(lambda part: part.listing is None and bool(part.divided)),
    ),
    Layout("Pascal VOC", "Annotations/*.xml + JPEGImages/; *.xml beside the images", _voc(bool)),
    Layout("a JSON that its reader refuses", "", _lone_json),
    Layout(
        "LabelMe JSON", todo=EXPORT + " (labelme: examples/instance_segmentation/labelme2coco.py)"
    ),
    Layout("LabelMe XML", todo=EXPORT),
    Layout("Label Studio JSON", todo="export it from Label Studio as COCO or Pascal VOC XML"),
    Layout("CVAT XML", todo="export it from CVAT as COCO 1.0 or PASCAL VOC 1.1"),
    Layout("CreateML JSON", todo=EXPORT),
    Layout("Supervisely JSON", todo="export it with Supervisely's app to COCO or Pascal VOC"),
    Layout("Cityscapes JSON", todo="convert it to COCO JSON"),
    Layout("VIA JSON", todo="export it from VIA as COCO"),
    Layout("BDD100K JSON", todo="convert it to COCO JSON (bdd100k.label.to_coco)"),
    Layout("Datumaro JSON", todo="convert it: datum convert -f coco_instances"),
    Layout("Labelbox JSON", todo=EXPORT),
    Layout("GeoJSON", todo="convert its polygons to pixels of the images, as COCO JSON"),
    Layout("YOLO labels", todo="export them from the labelling tool as COCO JSON or Pascal VOC"),
    Layout("YOLO data.yaml", todo="it names folders of YOLO labels: export these as COCO JSON"),
    Layout("CSV table", todo="convert it to COCO JSON"),
    Layout("TFRecord", todo="export the data set as COCO JSON or Pascal VOC instead"),
    Layout("JSON lines", todo=EXPORT),
    Layout(MISNAMED, todo="let its name end in .json"),
    Layout("mask images", todo="write the objects as COCO JSON, polygons or RLE"),
    Layout(CAPTIONS, todo="give the file of objects, instances_*.json"),
    Layout(PANOPTIC, todo="give the file of objects, instances_*.json"),
    Layout(IMAGES_ONLY, todo="give the file that has the list annotations as well"),
    Layout(RESULTS, todo="these are detections: give the ground truth that they were scored with"),
    *(Layout(kind, todo=todo) for kind, todo in MEND.items()),
)
ROWS = {row.name: row for row in TABLE}


def recognise(look: Look) -> dict[str, Source]:
    """Return the splits of a folder, by the first row of the table that fits; {} if none does.

    Raises:
        ValueError: if it looks like a row, but does not tell what is what.
    """
    for row in TABLE:
        found = {} if row.find is None else row.find(look)
        if found:
            return _with_faults(found, look)
    return {}


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
        split: replace(source, faults=faults) if source is first else source
        for split, source in found.items()
    }


def _left(
    look: Look, found: Mapping[str, Source], told: Iterable[Path]
) -> Iterable[tuple[Path, str]]:
    """Yield what else has the name of a split: files, and folders of images of no known split."""
    tree, path = look.tree, look.path
    places = (path, *tree.named(path, ANNOTATION_FOLDERS), *tree.named(path, LIST_FOLDERS))
    for file in (file for place in places for file in tree.files(place, *LOOKED_INTO)):
        words = (split_name(file.stem), "trainval" in file.stem.lower())
        if any(words) and file not in told and file.suffix.lower() != ".xml":
            yield file, f"it is {sniff(file)}"
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
        lines.append(f"{first}{' ...' if len(files) > 1 else ''}: {what}{why}")
    if count > MOST:
        lines.append(f"{count - MOST} files more that were not looked into")
    for folder, number in images.most_common(3):
        where = folder.relative_to(look.path).as_posix()
        lines.append(f"{number} image(s) in {'it' if where == '.' else where}")
    return "; ".join(lines) or "nothing: no annotation file and no image"


def _of_labels(folder: Path) -> bool:
    return any(LABEL_PICTURES.fullmatch(part) for part in folder.parts)


def examples() -> str:
    """Return how the layouts look that are read, one a line, below a folder my_data."""
    lines = [line for row in TABLE if row.find and row.looks for line in row.looks.split("\n")]
    return "\n".join(f"  {line}" for line in lines)
