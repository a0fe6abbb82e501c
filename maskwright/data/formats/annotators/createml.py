"""CreateML's JSON: a list of images with boxes by their centre, width and height, in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.objects import given_number, shown
from ...pixels.images import image_header
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_roots, listed_names
from ..folders import Tree, folder_split, split_name
from ..json_file import load_json
from ..outgoing import (
    Names,
    class_file,
    copy_image,
    is_object,
    objects_of,
    one_file,
    refuse_written,
    write_list,
)
from ..sniff import is_kind
from ..source import BaseSource, ReadOptions

FORMAT = "createml"
KIND = "CreateML JSON"
NAME = ("image", "imagefilename", "filename")
LIST = ("annotations", "annotation")


@dataclass(frozen=True)
class CreateMLSource(BaseSource):
    """Where one split lies: CreateML's JSON."""

    annotations: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, FORMAT)
        entries = load_json(self.annotations)
        if not isinstance(entries, list):
            raise ValueError(f"{self.annotations} is no list of images, as CreateML has it")
        roots = image_roots(self.annotations, split)
        places = dict.fromkeys((self.annotations.parent, self.annotations.parent.parent))
        found = (listed_names(place, ()) for place in places)
        listed = next((one for one in found if one is not None), None)
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(lambda: reader.pictures(entries, roots), roots, by_name, names)


def find_createml(tree: Tree, path: Path) -> dict[str, CreateMLSource]:
    """Return the splits of a folder with JSON files of CreateML, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".json", KIND)
    return {split: CreateMLSource(file) for split, file in files.items()}


def createml_file(path: Path) -> dict[str, CreateMLSource]:
    """Return the split of a single file, {} for others."""
    if not is_kind(path, ".json", KIND):
        return {}
    split = split_name(path.stem) or folder_split(path.parent)
    return {split or "train": CreateMLSource(path)}


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(self, entries: Sequence[Any], roots: Sequence[Path]) -> Iterator[Picture]:
        """Yield the images of the file."""
        for number, entry in enumerate(entries):
            one = entry if isinstance(entry, dict) else {}
            name = next((one[key] for key in NAME if isinstance(one.get(key), str)), "")
            picture = Picture(self.path, name.replace("\\", "/"))
            objects = next((one[key] for key in LIST if isinstance(one.get(key), list)), None)
            if not name or objects is None:
                message = (
                    f"{self.path}, [{number}]: an image needs the text 'image' and the list "
                    f"'annotations', got {shown(entry)}"
                )
                picture.broken = "bad image entry", message
                yield picture
                continue
            for root in roots:
                try:
                    picture.size = image_header(root / picture.name).size
                    break
                except ValueError:  # the builder tells
                    continue
            for k, given in enumerate(objects):
                place = f"[{number}], annotations[{k}]"
                picture.shapes.append(_shape(given if isinstance(given, dict) else {}, place))
            yield picture


def _shape(one: dict[str, Any], place: str) -> Shape:
    label = one.get("label")
    found = Shape(label if isinstance(label, str) and label.strip() else None, place, {})
    try:
        found.entry["bbox"] = _box(one.get("coordinates"))
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _box(given: Any) -> list[float]:
    """Return a box xywh.

    Raises:
        BadSegment: if it is none.
    """
    if not isinstance(given, dict):
        message = f"coordinates must have x, y, width and height, got {shown(given)}"
        raise BadSegment("bad box", message)
    sides = []
    for name in ("x", "y", "width", "height"):
        sides.append(given_number(given.get(name), name, "bad box"))
    x, y, width, height = sides
    return [x - width / 2, y - height / 2, width, height]


@takes_paths
def write_createml(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as CreateML's JSON, beside copies of the images.

    Args:
        dataset: the images and objects; masks, keypoints and regions that count neither way are not
            written.
        folder: where SPLIT/annotations.json, SPLIT/ with the images and classes.txt go; other
            splits may be there already.

    Returns:
        The JSON file.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    place = root / dataset.split
    file = place / "annotations.json"
    refuse_written(file, dataset)
    class_file(dataset, root / "classes.txt")
    with one_file(file, root, place) as stream:
        write_list(stream, _entries(dataset, place))
    return file


def _entries(dataset: Dataset, place: Path) -> Iterator[dict[str, Any]]:
    """Copy the images, and yield their entries."""
    names = Names()
    for record, objects in objects_of(dataset):
        image = copy_image(record, place, names.free(record.path))
        boxes = []
        for one in filter(is_object, objects):
            x1, y1, x2, y2 = one.box
            sides = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
            boxes.append({"label": one.name, "coordinates": sides})
        yield {"image": image.name, "annotations": boxes}
