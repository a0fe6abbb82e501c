"""Reader of Supervisely's projects.

Polygons with their holes, rectangles and bitmaps are objects; labels of one class and one
`instance` are parts of one. Points of a rectangle are pixels that belong to it, so that its sides
are one pixel longer than their difference. Graphs are keypoints, those that are disabled hidden: of
the object with the same `instance`, else of one by themselves. Points, lines and cuboids are left
out and counted. A split is told by the name of a folder, else by tags of the images; their other
tags without a value are labels of whole images, where none has an object. The tags `iscrowd` and
`ignore` of an object, and the class __ignore__, make regions that count neither way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...building.annotated import AnnotatedReader, Joints, Picture, Shape, is_part
from ...building.builder import ANY
from ...building.geometry import points_of, run_lengths, with_holes
from ...building.objects import flag, shown, whole_number
from ...pixels.kinds import image_suffixes
from ...pixels.limits import max_pixels
from ...records import Dataset
from ...segments import BadSegment
from ..beside import FilesSource, below, files_by_split
from ..folders import SPLITS, Tree, split_name
from ..json_file import load_json
from ..sniff import sniff
from ..source import ReadOptions
from .bitmap import decode_bitmap

KIND = "Supervisely JSON"
META = "meta.json"
MARKS = ("iscrowd", "ignore")
IGNORED = "__ignore__"
NO_AREA = ("point", "line", "polyline", "cuboid", "cuboid_2d", "cuboid_3d")
GRAPH = "graph"
ANNOTATIONS, IMAGES = "ann", "img"


@dataclass(frozen=True, kw_only=True)
class SuperviselySource(FilesSource):
    """Where one split lies: files of annotations of a project.

    Attributes:
        divided: images are divided by their tags; else all are of the split.
    """

    divided: bool = False

    @property
    def beside(self) -> tuple[Path, ...]:
        """All of the files, and what describes the project."""
        return (*self.files, *self.metas)

    @property
    def metas(self) -> list[Path]:
        """The files that describe the projects."""
        folders = dict.fromkeys(file.parent for file in self.files)
        found = {_meta_of(folder, self.root) for folder in folders}
        return sorted(one for one in found if one is not None)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split)
        listed: dict[str, str] = {}
        for meta in self.metas:
            listed |= {name: name for name in _listed(meta, "classes", "title")}
            reader.take_joints(meta)
        listed.pop(IGNORED, None)
        wanted = split if self.divided else None
        return reader.read(
            lambda: reader.pictures(self.root, self.files, wanted),
            [self.root],
            listed or None,
            names,
            joints=tuple(reader.joints),
            bones=reader.bones,
        )


def find_supervisely(tree: Tree, path: Path) -> dict[str, SuperviselySource]:
    """Return the splits of a folder with a project of Supervisely, {} for others.

    Raises:
        ValueError: if the description of the project cannot be read.
    """
    found, faults = files_by_split(
        tree, path, ".json", lambda file: file.name != META and sniff(file) == KIND
    )
    sources = {
        split: SuperviselySource(root=path, files=tuple(files), folder=files[0].parent)
        for split, files in found.items()
    }
    if set(sources) == {"train"} and (tagged := _by_tags(sources["train"])):
        sources = {split: replace(sources["train"], divided=True) for split in tagged}
    if faults and sources:
        first = next(iter(sources))
        sources[first] = sources[first].with_faults(faults)
    return sources


def _by_tags(source: SuperviselySource) -> list[str]:
    """Return the splits that tags of images tell; [] where they tell fewer than two."""
    declared = {split_name(tag) for meta in source.metas for tag in _listed(meta, "tags", "name")}
    if len(declared - {None}) < 2:
        return []
    found = {_tagged(load_json(file)) for file in source.files}
    told = [split for split in SPLITS if split in found]
    return told if len(told) > 1 else []


def _tagged(content: Any) -> str | None:
    """Return the split that a tag of an image names."""
    tags = content.get("tags") if isinstance(content, dict) else None
    for tag in tags if isinstance(tags, list) else ():
        name = tag.get("name") if isinstance(tag, dict) else tag
        if isinstance(name, str) and (split := split_name(name)):
            return split
    return None


def _meta_of(folder: Path, root: Path) -> Path | None:
    """Return the description of the project of a folder, the nearest above it."""
    for one in (folder, *folder.parents):
        if (one / META).is_file():
            return one / META
        if one == root:
            break
    return None


def _entries(meta: Path, key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of meta.json.

    Raises:
        ValueError: if it cannot be read.
    """
    content = load_json(meta)
    entries = content.get(key) if isinstance(content, dict) else None
    return [one for one in entries or () if isinstance(one, dict)]


def _listed(meta: Path, key: str, name: str) -> list[str]:
    """Return the names in a list of meta.json.

    Raises:
        ValueError: if it cannot be read.
    """
    titles = [one.get(name) for one in _entries(meta, key)]
    return [one for one in titles if isinstance(one, str) and one.strip()]


class _Reader(AnnotatedReader):
    """State of reading one split.

    Attributes:
        joints: the names of all keypoints, by those of the classes' graphs.
        bones: pairs of them that a line joins.
        nodes: names of keypoints by the ids of nodes, by class.
    """

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path, split, "supervisely")
        self.joints: dict[str, None] = {}
        self.bones: list[tuple[str, str]] = []
        self.nodes: dict[str, dict[str, str]] = {}

    def take_joints(self, meta: Path) -> None:
        """Take over how the graphs of the classes are made."""
        for one in _entries(meta, "classes"):
            graph = one.get("geometry_config")
            nodes = graph.get("nodes") if isinstance(graph, dict) else None
            if not isinstance(nodes, dict) or not isinstance(graph, dict):
                continue
            labels = {key: node.get("label") for key, node in nodes.items() if type(node) is dict}
            names = {key: str(label or key) for key, label in labels.items()}
            self.nodes.setdefault(str(one.get("title")), {}).update(names)
            self.joints |= dict.fromkeys(names.values())
            edges = graph.get("edges")
            for edge in edges if isinstance(edges, list) else ():
                ends = [edge.get(end) for end in ("src", "dst")] if isinstance(edge, dict) else []
                a, b = (names.get(str(end), "") for end in (*ends, "", "")[:2])
                if a and b and (a, b) not in self.bones:
                    self.bones.append((a, b))

    def pictures(
        self, root: Path, files: Sequence[Path], wanted: str | None = None
    ) -> Iterator[Picture]:
        """Yield the images of files, of one split if they are divided."""
        for file in files:
            picture = Picture(file, "")
            try:
                content = load_json(file)
                if wanted is not None and _tagged(content) != wanted:
                    continue
                self._fill(picture, root, content)
            except ValueError as error:
                picture.broken = "unreadable labels", str(error)
            yield picture

    def _fill(self, picture: Picture, root: Path, content: Any) -> None:
        """Take over image and objects.

        Raises:
            ValueError: if the file is no annotation of Supervisely.
        """
        file = picture.file
        objects = content.get("objects") if isinstance(content, dict) else None
        if not isinstance(objects, list):
            raise ValueError(f"{file} has no list 'objects': it is not Supervisely's, or cut off")
        picture.name = _image_name(root, file)
        size = content.get("size")
        sides = size if isinstance(size, dict) else {}
        picture.size = sides.get("height"), sides.get("width")
        height, width = map(whole_number, picture.size)
        if height is None or width is None or min(height, width) < 1:
            raise ValueError(
                f"{file}: size needs the height and width of the image, got {shown(size)}"
            )
        if height * width > max_pixels():
            height = width = 1  # the builder tells
        picture.labels = [
            name
            for name, value in _tags(content).items()
            if value is None and split_name(name) is None
        ]
        self._leave(content, "of an image", picture.labels)
        groups: dict[Hashable, Shape] = {}
        owners: dict[str, dict[int, Shape]] = {}  # objects by instance
        graphs: list[tuple[str, dict[str, Any]]] = []
        for number, one in enumerate(objects):
            given = one if isinstance(one, dict) else {}
            kind, place = _kind(given), f"objects[{number}]"
            if kind == GRAPH:
                graphs.append((place, given))
                continue
            if kind in NO_AREA:
                self.no_area(kind, f"{file}, {place}")
                continue
            found = _shape(given, kind, place, (height, width))
            self._leave(given, "of an object")
            group = given.get("instance")
            masked = isinstance(group, str | int) and "segmentation" in found.entry
            if masked and is_part(found, (found.key, str(group)), groups, (height, width)):
                continue
            if isinstance(group, str | int):
                owners.setdefault(str(group), {})[id(found)] = found
            picture.shapes.append(found)
        for place, given in graphs:
            self._take_graph(picture, place, given, owners)

    def _take_graph(
        self,
        picture: Picture,
        place: str,
        given: dict[str, Any],
        owners: Mapping[str, Mapping[int, Shape]],
    ) -> None:
        """Give the keypoints of a graph to the one object of its instance, else to one of them."""
        names = self.nodes.get(_title(given) or "", {})
        nodes = given.get("nodes")
        joints: Joints = {}
        for key, node in nodes.items() if isinstance(nodes, dict) else ():
            name = names.get(key, str(key))
            try:
                (x, y), *_ = points_of([node.get("loc")] if isinstance(node, dict) else None, 1, 1)
            except BadSegment as bad:
                message = f"{picture.file}, {place}: the keypoint {name!r}: {bad}: left out"
                picture.notes.append(("bad keypoints", message, "left out"))
                continue
            joints[name] = x, y, 1 if flag(node.get("disabled")) else 2
        if not joints:
            self.no_area(GRAPH, f"{picture.file}, {place}")
            return
        self._leave(given, "of an object")
        same = owners.get(str(given.get("instance")), {})
        picture.join(joints, same.values(), _bare(given, place))

    def _leave(self, one: dict[str, Any], of: str, labels: Sequence[str] = ()) -> None:
        """Count what of an object, or an image, no record has."""
        for name in _tags(one):
            if name not in (*MARKS, *labels):
                self.leave(f"the tag {name!r} {of}")
        if one.get("description"):
            self.leave(f"the description {of}")


def _tags(one: dict[str, Any]) -> dict[str, Any]:
    """Return the values of tags by their names."""
    tags = one.get("tags")
    return {
        tag["name"]: tag.get("value")
        for tag in (tags if isinstance(tags, list) else ())
        if isinstance(tag, dict) and isinstance(tag.get("name"), str)
    }


def _image_name(root: Path, file: Path) -> str:
    """Return the path of the image of an annotation: img/a.jpg for ann/a.jpg.json, or a.json."""
    folder = file.parent
    if folder.name.lower() == ANNOTATIONS:
        folder = Tree().find(folder.parent, IMAGES) or folder.parent / IMAGES
    image = folder / file.stem
    if not image.is_file() and image.suffix.lower() not in image_suffixes():
        same = [one for one in Tree().images(folder) if one.stem == file.stem]
        image = same[0] if len(same) == 1 else image
    return below(root, root, image.relative_to(root).as_posix())


def _kind(one: dict[str, Any]) -> str:
    """Return the geometry of an object; in old projects its content tells."""
    kind = one.get("geometryType") or one.get("shape")
    if isinstance(kind, str):
        return kind
    if one.get("bitmap"):
        return "bitmap"
    points = one.get("points")
    outline = points.get("exterior") if isinstance(points, dict) else None
    return "rectangle" if isinstance(outline, list) and len(outline) == 2 else "polygon"


def _title(one: dict[str, Any]) -> str | None:
    """Return the class of an object."""
    title = one.get("classTitle")
    return title if isinstance(title, str) and title.strip() else None


def _bare(one: dict[str, Any], place: str) -> Shape:
    """Return an object without an outline."""
    key = _title(one)
    found = Shape(ANY if key == IGNORED else key, place, {})
    marks = _tags(one)
    ignore = key == IGNORED or _marked(marks, "ignore")
    if ignore or _marked(marks, "iscrowd"):
        found.entry.update(iscrowd=1, ignore=int(ignore))
    return found


def _shape(one: dict[str, Any], kind: str, place: str, size: tuple[int, int]) -> Shape:
    """Return an object with its outline; a rectangle has a box alone."""
    found = _bare(one, place)
    try:
        found.entry.update(_outline(kind, one, size))
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _marked(marks: dict[Any, Any], word: str) -> bool:
    """Return whether an object has a tag, unless its value says no."""
    return word in marks and (marks[word] is None or flag(marks[word]) is not False)


def _outline(kind: str, one: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return `bbox` or `segmentation` of an object.

    Raises:
        BadSegment: if it cannot be used.
    """
    if kind in ("bitmap", "alpha_mask"):
        bitmap = one.get(kind) or one.get("bitmap")
        if not isinstance(bitmap, dict):
            raise BadSegment("bad mask", f"{kind} must have data and origin, got {shown(bitmap)}")
        left, top = points_of([bitmap.get("origin")], 1, 1)[0]
        crop = decode_bitmap(bitmap.get("data"), size)
        if max(abs(left), abs(top)) > 2 * max(size):
            raise BadSegment(
                "mask outside the image", f"the origin {left:g}, {top:g} lies far outside the image"
            )
        return {"segmentation": run_lengths(crop, round(left), round(top), size)}
    points = one.get("points")
    if not isinstance(points, dict):
        raise BadSegment("bad points", f"points must have exterior, got {shown(points)}")
    if kind == "rectangle":
        xs, ys = zip(*points_of(points.get("exterior"), 2, 2), strict=True)
        sides = [max(xs) - min(xs) + 1, max(ys) - min(ys) + 1]
        return {"bbox": [min(xs), min(ys), *sides]}
    if kind == "polygon":
        outline = [side for p in points_of(points.get("exterior"), 3) for side in p]
        inner = points.get("interior") or []
        if not isinstance(inner, list):
            raise BadSegment("bad points", f"interior must be a list of holes, got {shown(inner)}")
        holes = [[side for p in points_of(hole, 3) for side in p] for hole in inner]
        return {"segmentation": with_holes(outline, holes, size)}
    raise BadSegment("unknown shape", f"geometryType {shown(kind)} is none that is read")
