"""COCO panoptic (Kirillov et al. 2019): a JSON of segments, and a PNG an image with their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...building.mapped import MapBuilder, Segment
from ...building.objects import shown, whole_number
from ...maps.encoding import Segments
from ...records import Dataset
from ..coco.json_stream import START, NoObject, json_members
from ..coco.layout import coco_source
from ..folders import ANNOTATION_FOLDERS, Tree, folder_split, split_name
from ..sniff import PANOPTIC, sniff
from ..source import BaseSource, ReadOptions, passed_over
from .classes import MOST
from .coco_stuff import FOLDERS

FORMAT = "coco_panoptic"


@dataclass(frozen=True)
class PanopticSource(BaseSource):
    """Where one split lies.

    Attributes:
        annotations: the JSON.
        maps: folder of the PNGs.
        roots: folders in which the images may lie.
    """

    annotations: Path
    maps: Path
    roots: tuple[Path, ...] = ()
    tree: Tree = field(default_factory=Tree, compare=False)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        found = panoptic_lists(self.annotations)
        classes = {one["id"]: str(one["name"]) for one in found["categories"]}
        wanted = [str(one) for one in options.ignore]
        own = [name for _, name in sorted(classes.items()) if name not in wanted]
        if len(own) > MOST:
            raise ValueError(f"{self.annotations} has {len(own)} classes, more than {MOST}")
        known = list(own if names is None else names)
        label = {name: number for number, name in enumerate(known)}
        if foreign := sorted(set(own).difference(known)):
            raise ValueError(
                f"{self.annotations} has the class(es) {foreign[:5]}, but the known classes are "
                f"{known[:20]}: class names must be the same in all splits and in the model"
            )
        files = {one["id"]: one["file_name"] for one in found["images"]}
        pairs: list[tuple[Path, Path]] = []
        segments: list[list[Segment]] = []
        for one in found["annotations"]:
            image = self._image(files.get(one["image_id"], f"of id {one['image_id']}"))
            pairs.append((image, self.maps / PurePosixPath(one["file_name"]).name))
            numbers = [
                label.get(classes.get(s["category_id"], ""), -1) for s in one["segments_info"]
            ]
            segments.append(
                [
                    (int(each["id"]), number, bool(each.get("iscrowd")) or number < 0)
                    for each, number in zip(one["segments_info"], numbers, strict=True)
                ]
            )
        builder = MapBuilder(self.annotations, split, FORMAT)
        return builder.build(pairs, known, Segments(), segments)

    def _image(self, name: str) -> Path:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:  # never out of the data set
            path = PurePosixPath(path.name)
        places = [root / path for root in self.roots]
        return next((place for place in places if place.is_file()), places[0])


NUMBER, TEXT = (int,), (str,)
ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": NUMBER, "file_name": TEXT},
    "annotations": {"image_id": NUMBER, "file_name": TEXT, "segments_info": (list,)},
    "categories": {"id": NUMBER, "name": TEXT},
}
SEGMENT = {"id": NUMBER, "category_id": NUMBER}


def panoptic_lists(file: Path) -> dict[str, list[Any]]:
    """Return the lists of a JSON of segments.

    Raises:
        ValueError: if it is none.
    """
    found: dict[str, list[Any]] = {key: [] for key in ENTRIES}
    try:
        for key, value in json_members(file, tuple(ENTRIES)):
            if key in found and value is not START:
                _require(file, key, value, ENTRIES[key])
                found[key].append(value)
                for one in value["segments_info"] if key == "annotations" else ():
                    _require(file, "segments_info", one, SEGMENT)
    except NoObject as kind:
        raise ValueError(f"{file} is no COCO panoptic JSON but a {kind}") from None
    if not all(found.values()):
        raise ValueError(f"{file} is no COCO panoptic JSON: it lacks {', '.join(ENTRIES)}")
    return found


def _require(file: Path, where: str, entry: Any, kinds: Mapping[str, tuple[type, ...]]) -> None:
    for key, kind in kinds.items():
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, kind) or (kind is NUMBER and whole_number(value) is None):
            raise ValueError(
                f"{file}: an entry of {where} needs {', '.join(kinds)}, got {shown(entry)}"
            )


def panoptic_file(file: Path, tree: Tree | None = None) -> dict[str, PanopticSource]:
    """Return the split that a JSON of segments is, {} for others.

    Raises:
        ValueError: if there is no folder of PNGs for it.
    """
    if file.suffix.lower() != ".json" or sniff(file) != PANOPTIC:
        return {}
    source = _source(tree or Tree(), file)
    if source is None:
        raise ValueError(
            f"{file} needs the folder of its label maps beside it, {file.with_suffix('')}: unpack "
            f"{file.stem}.zip there"
        )
    return {_split(file): source}


def _split(file: Path) -> str:
    return split_name(file.stem) or folder_split(file.parent) or "train"


def _source(tree: Tree, file: Path) -> PanopticSource | None:
    """Return where the split of a JSON lies, None without the folder of its PNGs."""
    year = file.stem.removeprefix("panoptic_")
    names = (file.stem, f"panoptic/{year}", f"panoptic_{year}", "panoptic")
    places = (tree.find(base, name) for base in file.parents[:2] for name in names)
    maps = next((one for one in places if one is not None and tree.images(one)), None)
    if maps is None:
        return None
    return PanopticSource(file, maps, coco_source(tree, file, _split(file)).roots, tree)


def find_panoptic(tree: Tree, path: Path) -> dict[str, PanopticSource]:
    """Return the splits of COCO panoptic in a folder, {} for others.

    Raises:
        ValueError: if there are label maps of COCO-Stuff as well.
    """
    found: dict[str, PanopticSource] = {}
    for folder in (*tree.named(path, ANNOTATION_FOLDERS), path):
        for file in tree.files(folder, ".json"):
            if "panoptic" not in file.stem.lower() or sniff(file) != PANOPTIC:
                continue
            source = _source(tree, file)
            objects = tree.find(folder, f"{file.stem.replace('panoptic', 'instances')}.json")
            if source is not None and objects not in (None, file):
                fault = passed_over(objects, f"{file.name} has the class of every pixel")
                source = source.with_faults((fault,))
            if source is not None:
                found.setdefault(_split(file), source)
    if found and (stuff := tree.named(path, FOLDERS)):
        first = next(iter(found.values()))
        raise ValueError(
            f"{path} has the label maps of {first.annotations.name} and those in {stuff[0].name}, "
            "with other classes: move one of the two elsewhere, or name the JSON files of segments "
            "in a YAML file with the entries train and val"
        )
    return found
