"""The one table of formats: how a data set looks, how it is found, read and written; what is not.

A new format is one file, which finds and reads and perhaps writes, and one row here. `discover`
tries the rows that are read from top to bottom, and its messages are made of the same
rows: what was seen, why it was not taken, what to do about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

from ...errors import OptionError, nearest
from ..records import Dataset, Fault
from .cifar import cifar_splits, find_cifar
from .class_folders import find_class_folders, write_class_folders
from .coco import find as coco
from .coco.layout import CocoFinder, CocoSource, lists_of
from .coco.write import write_coco
from .csv_table import csv_splits, find_csv, fits, write_csv
from .folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    LABEL_PICTURES,
    Tree,
    folder_split,
    split_name,
)
from .idx import find_idx, idx_splits
from .imagenet import find_imagenet
from .keypoints_csv import find_points, fits_points, point_splits
from .maps.ade20k import find_ade20k
from .maps.camvid import find_camvid
from .maps.cityscapes import find_cityscapes
from .maps.coco_stuff import find_stuff
from .maps.layout import find_maps, with_polygons
from .maps.panoptic import find_panoptic, panoptic_file
from .maps.voc import find_voc_maps
from .maps.write import write_maps
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
from .source import Source
from .voc import source as voc
from .voc.layout import LIST_FOLDERS, VocFinder
from .voc.write import write_voc

LOOKED_INTO = (
    *(".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".tfrecord", ".tfrecords", ".record"),
    *(".ndjson", ".jsonl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    *(".parquet", ".mat", ".h5", ".hdf5", ".lst", ".list", ""),
)
MOST = 400  # files of a folder whose bytes are looked at for a message
DEEPEST = 3


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


Found = Mapping[str, Source]
Find = Callable[[Look], Found]


@dataclass(frozen=True)
class Layout:
    """One row of the table.

    Attributes:
        name: what it is called; for a format of files, what `sniff` calls it.
        looks: an example for messages; "" where an earlier row shows it.
        find: returns the splits of a folder that looks so, nothing for others; None: not read yet.
        records: what its images have, "objects", "labels" or "maps"; see `Dataset`.
        file: returns the splits of a single file that is given as the data.
        format: `Dataset.format` of what is read.
        write: writes a data set into a folder, as it is read from there; None: not written.
        last: asked only where no other row of either kind of records fits.
        todo: what to do with data that is not read.
    """

    name: str
    looks: str = ""
    find: Find | None = None
    _: KW_ONLY
    records: str = "objects"
    file: Callable[[Path], Found] | None = None
    format: str = ""
    write: Callable[[Dataset, Path], Path] | None = None
    last: bool = False
    todo: str = ""


EXPORT = "export it from the labelling tool as COCO JSON or Pascal VOC"
TABLE = (
    Layout(
        "COCO JSON for each split",
        "annotations/train.json + annotations/val.json + images/ (or images/train/, images/val/)\n"
        "train.json + val.json + images/      annotations/instances_train2017.json + train2017/\n"
        "train/_annotations.coco.json + valid/_annotations.coco.json, beside the images",
        lambda look: coco.named_splits(look.coco),
        format="coco",
        write=write_coco,
    ),
    Layout(
        "one COCO JSON, divided by lists of images",
        "annotations.json + images/ + train.txt + val.txt",
        lambda look: coco.listed_splits(look.coco),
    ),
    Layout(
        "one COCO JSON, divided by folders of images",
        "annotations.json + images/train/ + images/val/ (or train/ + val/)",
        lambda look: coco.folder_splits(look.coco),
    ),
    Layout(
        "one COCO JSON",
        "annotations.json + images/ (a part is held out)",
        lambda look: coco.single(look.coco),
    ),
    Layout(
        "Pascal VOC with lists",
        "Annotations/*.xml + JPEGImages/ + ImageSets/Main/train.txt + .../val.txt (or train.txt +\n"
        "val.txt in ImageSets/ or at the top); labels/*.xml + images/; several such folders",
        lambda look: voc.listed(look.voc),
        format="voc",
        write=write_voc,
    ),
    Layout(
        "Pascal VOC, a folder for each split",
        "train/*.xml + valid/*.xml beside the images\n"
        "Annotations/*.xml + images/train/ + images/val/",
        lambda look: voc.divided(look.voc),
    ),
    Layout(
        "Pascal VOC",
        "Annotations/*.xml + JPEGImages/; *.xml beside the images",
        lambda look: voc.undivided(look.voc),
    ),
    Layout(
        "CSV of keypoints",
        "train.csv + val.csv with the columns path,nose_x,nose_y,... or path,x1,y1,x2,y2,x3,y3,...",
        lambda look: find_points(look.tree, look.path),
        file=lambda path: point_splits(path) if fits_points(path) else {},
    ),
    Layout(
        "CSV of boxes",
        "train.csv + val.csv with the columns path,label,x1,y1,x2,y2",
        lambda look: find_csv(look.tree, look.path, objects=True),
        file=lambda path: csv_splits(path, objects=True) if fits(path, objects=True) else {},
    ),
    Layout(
        "Cityscapes",
        "leftImg8bit/train/aachen/*.png + gtFine/train/aachen/*_gtFine_labelIds.png",
        lambda look: find_cityscapes(look.tree, look.path),
        records="maps",
        format="cityscapes",
    ),
    Layout(
        "Pascal VOC's label maps",
        "JPEGImages/ + SegmentationClass/ (SegmentationClassAug/) + ImageSets/Segmentation/*.txt\n"
        "img/ + cls/*.mat + train.txt + val.txt (SBD)",
        lambda look: find_voc_maps(look.tree, look.path),
        records="maps",
    ),
    Layout(
        "COCO panoptic",
        "annotations/panoptic_train2017.json + annotations/panoptic_train2017/*.png + train2017/",
        lambda look: find_panoptic(look.tree, look.path),
        records="maps",
        file=panoptic_file,
        format="coco_panoptic",
    ),
    Layout(
        "COCO-Stuff",
        "stuffthingmaps/train2017/*.png + images/train2017/ (or train2017/)\n"
        "images/ + annotations/*.mat + imageLists/*.txt (COCO-Stuff 10k)",
        lambda look: find_stuff(look.tree, look.path),
        records="maps",
        format="coco_stuff",
    ),
    Layout(
        "ADE20K",
        "images/training/ + annotations/training/*.png + objectInfo150.txt",
        lambda look: find_ade20k(look.tree, look.path),
        records="maps",
        format="ade20k",
    ),
    Layout(
        "CamVid",
        "train/ + trainannot/ + val/ + valannot/; 701_StillsRaw_full/ + LabeledApproved_full/",
        lambda look: find_camvid(look.tree, look.path),
        records="maps",
        format="camvid",
    ),
    Layout(
        "folders of label maps",
        "images/train/ + masks/train/*.png + images/val/ + masks/val/*.png + classes.txt\n"
        "train/images/ + train/masks/; train/ + train_labels/; train/a.jpg + train/a_mask.png",
        lambda look: with_polygons(find_maps(look.tree, look.path), look.coco),
        records="maps",
        format="maps",
        write=write_maps,
    ),
    Layout(
        "ImageNet",
        "train/n01440764/*.JPEG + val/*.JPEG + ILSVRC2012_validation_ground_truth.txt + meta.mat",
        lambda look: find_imagenet(look.tree, look.path),
        records="labels",
        format="imagenet",
    ),
    Layout(
        "folders of classes",
        "train/cat/*.jpg + train/dog/*.jpg + val/cat/*.jpg + val/dog/*.jpg; cat/*.jpg + dog/*.jpg",
        lambda look: find_class_folders(look.tree, look.path),
        records="labels",
        format="folders",
        write=write_class_folders,
    ),
    Layout(
        "CSV of labels",
        "labels.csv with the columns path,label (or a;b) and, if wanted, split,group",
        lambda look: find_csv(look.tree, look.path),
        records="labels",
        file=lambda path: csv_splits(path) if path.suffix.lower() == ".csv" else {},
        format="csv",
        write=write_csv,
    ),
    Layout(
        "MNIST",
        "train-images-idx3-ubyte.gz + train-labels-idx1-ubyte.gz + t10k-...",
        lambda look: find_idx(look.tree, look.path),
        records="labels",
        file=idx_splits,
        format="idx",
    ),
    Layout(
        "CIFAR",
        "data_batch_1.bin ... + test_batch.bin + batches.meta.txt; or the same as pickles",
        lambda look: find_cifar(look.tree, look.path),
        records="labels",
        file=cifar_splits,
        format="cifar",
    ),
    Layout(
        "a JSON that its reader refuses",
        find=lambda look: coco.refused(look.coco),
        last=True,
    ),
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
    Layout(
        "CSV table",
        todo="name its columns path,label and, for boxes, x1,y1,x2,y2; for keypoints "
        "path,nose_x,nose_y and so on",
    ),
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


def recognise(look: Look, records: str | None = "objects") -> dict[str, Source]:
    """Return the splits of a folder, by the first row of the table that fits; {} if none does.

    Args:
        look: the folder.
        records: what is wanted; labels and label maps can be had from objects, too. None:
            whatever there is.

    Raises:
        ValueError: if it looks like a row, but does not tell what is what.
    """
    rows = [row for row in TABLE if row.find is not None]
    if records is not None:
        rows = [row for row in rows if row.records in (records, "objects")]
    rows.sort(key=lambda row: (row.last, records is not None and row.records != records))
    for row in rows:
        assert row.find is not None
        if found := dict(row.find(look)):
            return _with_faults(found, look) if row.records == "objects" else found
    return {}


def splits_of_file(path: Path, records: str | None) -> dict[str, Source]:
    """Return the splits of a single file that is no COCO JSON and no list, {} for others.

    Raises:
        ValueError: if it looks like a row, but cannot be read.
    """
    for wanted in ("objects", "maps", "labels") if records is None else (records,):
        for row in TABLE:
            if row.file is not None and row.records == wanted and (found := dict(row.file(path))):
                return found
    return {}


def write_dataset(dataset: Dataset, folder: str | Path, format: str) -> Path:
    """Write a split in one of the formats that are read; see the writers.

    Args:
        dataset: the split.
        folder: where it goes; other splits may be there already.
        format: "coco", "voc", "folders", "csv" or "maps".

    Returns:
        What the split begins with: its JSON, list, folder or table.

    Raises:
        OptionError: if nothing writes this format.
        ValueError: see the writers.
    """
    writers = {row.format: row.write for row in TABLE if row.write is not None}
    if format not in writers:
        raise OptionError(
            f"format={format!r}: written are {', '.join(writers)}{nearest(format, writers)}"
        )
    return writers[format](dataset, Path(folder))


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
        split: source.with_faults(faults) if source is first else source
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


def examples(records: str | None) -> str:
    """Return how the layouts look that are read, one a line, below a folder my_data."""
    rows = [row for row in TABLE if row.find and row.looks]
    if records is not None:
        rows = [row for row in rows if row.records in (records, "objects")]
    lines = [line for row in rows for line in row.looks.split("\n")]
    return "\n".join(f"  {line}" for line in lines)
