"""Reader of polygons in GeoJSON, shapefiles and GeoPackages over images.

A file that is called as an image is of that image; others are of all GeoTIFFs of their split. Over
a GeoTIFF coordinates are those of the map, in the projection that the file names (`crs` of GeoJSON,
the .prj of a shapefile), else longitude and latitude; over other images they are pixels. Polygons
have holes and parts; over a GeoTIFF each image gets what lies within it. The fields `iscrowd` and
`ignore` make regions that count neither way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY, OBJECT
from ...building.geometry import points_of, united, with_holes
from ...building.objects import flag, shown
from ...pixels.images import image_header
from ...pixels.limits import BY_WINDOW
from ...records import Dataset
from ...segments import BadSegment
from ..beside import FilesSource, beside, listed_names
from ..folders import ANNOTATION_FOLDERS, IMAGE_FOLDERS, Tree, folder_split, split_name
from ..sniff import sniff
from ..source import ReadOptions
from .features import CLASS_FIELDS, JSON, VECTORS, Feature, read_features
from .frames import DEGREES, TIFF, MapFrame, frame_of, projection, reprojected, require_geo

KIND = "GeoJSON"
FORMAT, SHAPEFILE = "geo", "shapefile"
AREAS = ("Polygon", "MultiPolygon")
USED = (*CLASS_FIELDS, "classification", "iscrowd", "ignore", "box", "objecttype")
MOST_SHOWN, FEW_SHOWN = 12, 3  # properties, and values of each, in a message
STEP = 5  # decimals of a pixel
Rings = list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class GeoSource(FilesSource):
    """Where one split lies: files of polygons.

    Attributes:
        images: those of all files that are called as no image.
        field: the property that tells classes; "": one of `CLASS_FIELDS`.
        format: see `Dataset.format`.
    """

    images: tuple[Path, ...] = ()
    field: str = ""
    format: str = FORMAT

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, self.field, self.format)
        listed = listed_names(self.root, self.files)
        by_name = None if listed is None else {name: name for name in listed}
        return reader.read(lambda: reader.pictures(self), [self.root], by_name, names)


def find_geo(tree: Tree, path: Path, format: str | None = None) -> dict[str, GeoSource]:
    """Return the splits of a folder with files of polygons over images, {} for others.

    Args:
        tree: the file system.
        path: the folder.
        format: which files: shapefile takes those and GeoPackages, geo all, none JSON; the property
            that tells classes stands behind a colon.
    """
    name, _, field = (format or "").partition(":")
    suffixes = {"": JSON, SHAPEFILE: VECTORS}.get(name, (*JSON, *VECTORS))
    found: dict[str, list[Path]] = {}
    splits = [one for one in tree.folders(path) if folder_split(one)]
    places = [place for base in (path, *splits) for place in _places(tree, base)]
    for place in places:
        for file in tree.files(place, *suffixes):
            if _fits(file):
                inner = [place, *place.parents[: len(place.relative_to(path).parts)]]
                told = next((one for folder in inner if (one := folder_split(folder))), None)
                split = told or (None if image_of(file) else split_name(file.stem)) or "train"
                found.setdefault(split, []).append(file)
    sources = {}
    for split, files in found.items():
        own = [one for one in splits if folder_split(one) == split]
        rasters = [
            image
            for base in own or [path]
            for place in (base, *tree.named(base, IMAGE_FOLDERS))
            for folder in (
                place,
                *(one for one in tree.folders(place) if folder_split(one) == split),
            )
            for image in tree.files(folder, *TIFF)
        ]
        images = tuple(dict.fromkeys(rasters))
        if images or any(map(image_of, files)):
            sources[split] = GeoSource(
                root=path,
                files=tuple(files),
                folder=files[0].parent,
                images=images,
                field=field,
                format=name or FORMAT,
            )
    return sources


def _places(tree: Tree, base: Path) -> list[Path]:
    outer = [base, *tree.named(base, ANNOTATION_FOLDERS), *tree.named(base, IMAGE_FOLDERS)]
    inner = [one for place in outer[1:] for one in tree.folders(place) if folder_split(one)]
    return list(dict.fromkeys([*outer, *inner]))


def _fits(file: Path) -> bool:
    return file.suffix.lower() in VECTORS or sniff(file) == KIND


def image_of(file: Path) -> Path | None:
    """Return the image that is called as a file of polygons; None without."""
    if (own := beside(file)) is not None:
        return own
    tree = Tree()
    places = [place for base in file.parents[:2] for place in tree.named(base, IMAGE_FOLDERS)]
    places += [place / file.parent.name for place in places]
    found = (image for place in places for image in tree.images(place))
    return next((image for image in found if image.stem == file.stem), None)


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def __init__(self, path: Path, split: str, field: str, format: str) -> None:
        super().__init__(path, split, format)
        self.field = field
        self.labels: Counter[bool] = Counter()  # features by whether a field tells their class
        self.values: dict[str, dict[str, None]] = {}  # some values of each property

    def surveyed(self) -> None:
        """Say what properties there are, where none tells classes.

        Raises:
            ValueError: if no feature has the property that is to tell them.
        """
        if self.labels[True] and self.labels[False]:
            message = (
                f"{self.path}: {self.labels[False]} feature(s) have no class, others have one: "
                f"they are of the class {OBJECT!r}"
            )
            self.fault("feature without a class", message, "kept")
        if self.labels[True] or not self.labels:
            return
        listed = ", ".join(f"{key} ({', '.join(own)})" for key, own in self.values.items())
        there = f"its properties are {listed}" if listed else "it has no properties"
        if self.field:
            raise ValueError(
                f"{self.path}: no feature has a class in the property {self.field!r}; {there}"
            )
        if listed:
            self.fault(
                "classes without names",
                f"{self.path}: all features are of the class {OBJECT!r}; {there}: where one of "
                f"them tells classes, give format={self.format}:PROPERTY",
                "kept",
            )

    def _survey(self, one: Feature) -> None:
        """Take note of the properties of a feature."""
        self.labels[one.label is not None] += 1
        for name, value in one.properties.items():
            if value in (None, "") or isinstance(value, dict | list):
                continue
            if name in self.values or len(self.values) < MOST_SHOWN:
                own = self.values.setdefault(str(name), {})
                if len(own) < FEW_SHOWN:
                    own[shown(value)] = None

    def pictures(self, source: GeoSource) -> Iterator[Picture]:
        """Yield the images of files of polygons."""
        whole = []
        for file in source.files:
            image = image_of(file)
            if image is None:
                whole.append(file)
                continue
            picture = Picture(file, image.relative_to(source.root).as_posix())
            try:
                frame = frame_of(image)
                picture.size = frame.size if frame is not None else image_header(image).size
                features, crs = read_features(file, self.field)
                kept = [one for one in features if self._has_area(file, one)]
                if frame is None:
                    picture.shapes = [_shape(one, picture.size) for one in kept]
                else:
                    picture.shapes = _Layer(file, kept, crs).within(frame)
            except ValueError as error:
                picture.broken = "unreadable labels", str(error)
            yield picture
        if whole:
            yield from self._over_all(whole, source)

    def _has_area(self, file: Path, one: Feature) -> bool:
        """Return whether a feature may be a polygon; count those that are certainly none."""
        kind = one.geometry.get("type") if isinstance(one.geometry, dict) else None
        if one.geometry is None:
            kind = "no geometry"
        if kind in AREAS or not isinstance(kind, str):
            self._survey(one)
            for name, value in one.properties.items():
                if value not in (None, "") and str(name).casefold() not in (*USED, self.field):
                    self.leave(f"the property {shown(name)} of a feature")
            return True
        self.no_area(kind[:40], f"{file}, {one.place}")
        return False

    def _over_all(self, files: Sequence[Path], source: GeoSource) -> Iterator[Picture]:
        """Yield the GeoTIFFs with what lies within them.

        Raises:
            ValueError: if none has a place on the map, or nothing lies within any.
        """
        layers = []
        for file in files:
            features, crs = read_features(file, self.field)
            kept = [one for one in features if self._has_area(file, one)]
            layers.append(_Layer(file, kept, crs))
        framed = [(image, frame_of(image)) for image in source.images]
        if not any(frame is not None for _, frame in framed):
            raise ValueError(
                f"{files[0]} is called as no image, and no GeoTIFF beside it has a place on the "
                "map: name it as its image, such as a.geojson beside a.png"
            )
        count = 0
        for image, frame in framed:
            picture = Picture(files[0], image.relative_to(source.root).as_posix())
            if frame is None:
                picture.broken = (
                    "image without a place on the map",
                    f"{image} is no GeoTIFF with a projection, so what of {files[0]} lies in it is "
                    "not known",
                )
            else:
                picture.size = frame.size
                picture.shapes = [shape for layer in layers for shape in layer.within(frame)]
                count += len(picture.shapes)
            yield picture
        total = sum(len(layer.features) for layer in layers)
        if total and not count:
            raise ValueError(
                f"{files[0]}: none of {total} features lies within an image: is its projection "
                f"{layers[0].crs} right? The first is at {layers[0].first()}, {framed[0][0].name} "
                f"at {framed[0][1] and framed[0][1].to_map(np.zeros((1, 2))).round(3).tolist()[0]}"
            )


class _Layer:
    """The features of a file in map coordinates, to be cut out by images."""

    def __init__(self, file: Path, features: Sequence[Feature], crs: Any) -> None:
        self.file = file
        self.shapely = require_geo(file, "shapely")
        geometry = require_geo(file, "shapely.geometry")
        shapes = []
        for one in features:
            try:
                polygons = _polygons(one.geometry)
                shapes.append(geometry.MultiPolygon([(rings[0], rings[1:]) for rings in polygons]))
            except (ValueError, self.shapely.errors.ShapelyError) as error:
                raise ValueError(
                    f"{file}, {one.place}: {error}, so its place is not known: mend or delete it"
                ) from None
        self.features = list(features)
        self.shapes = np.array(shapes, dtype=object)
        self._moved: dict[str, tuple[Any, Any]] = {}
        if crs is None and len(shapes):
            reach = np.abs(np.array(self.shapely.total_bounds(self.shapes)))
            if max(reach[0], reach[2]) > 360 or max(reach[1], reach[3]) > 90:
                raise ValueError(
                    f"{file} names no projection, and its coordinates, up to {reach.max():g}, are "
                    'no degrees: add "crs": {"type": "name", "properties": {"name": "EPSG:..."}}'
                )
        self.crs = projection(file, crs or DEGREES)

    def first(self) -> list[float]:
        """Return where the first feature lies."""
        x1, y1, _, _ = self.shapely.bounds(self.shapes[0]).tolist()
        return [round(x1, 5), round(y1, 5)]

    def within(self, frame: MapFrame) -> list[Shape]:
        """Return what lies within an image, in its pixels."""
        key = frame.crs.to_string()
        if key not in self._moved:
            move = reprojected(self.file, self.crs, frame.crs)
            moved = self.shapes if move is None else self.shapely.transform(self.shapes, move)
            self._moved[key] = moved, self.shapely.STRtree(moved)
        moved, index = self._moved[key]
        height, width = frame.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        outline = self.shapely.polygons(frame.to_map(corners))
        inside = self.shapely.box(0, 0, width, height)
        found = []
        for k in sorted(index.query(outline).tolist()):
            shape = self.shapely.transform(moved[k], frame.to_pixels)
            if not self.shapely.is_valid(shape):
                shape = self.shapely.make_valid(shape)
            cut = self.shapely.intersection(shape, inside)
            rings = [
                [
                    np.asarray(ring.coords)[:-1].round(STEP).tolist()
                    for ring in (one.exterior, *one.interiors)
                ]
                for one in _parts(cut)
            ]
            if rings:
                found.append(_shape(self.features[k], frame.size, rings))
        return found


def _parts(shape: Any) -> list[Any]:
    """Return the polygons of a geometry of shapely."""
    parts = getattr(shape, "geoms", [shape])
    return [
        one
        for part in parts
        for one in (_parts(part) if hasattr(part, "geoms") else [part])
        if one.geom_type == "Polygon" and one.area > 0
    ]


def _polygons(geometry: Any) -> list[Rings]:
    """Return the rings of each polygon of a geometry, the outline first.

    Raises:
        BadSegment: if it is none.
    """
    given = geometry if isinstance(geometry, dict) else {}
    kind, coordinates = given.get("type"), given.get("coordinates")
    if kind not in AREAS:
        raise BadSegment(
            "bad points", f"a geometry is a Polygon or a MultiPolygon, got {shown(geometry)}"
        )
    listed = [coordinates] if kind == "Polygon" else coordinates
    found = []
    for rings in listed if isinstance(listed, list | tuple) else ():
        closed = [
            points_of([list(p)[:2] if isinstance(p, list | tuple) else p for p in ring], 3)
            for ring in (rings if isinstance(rings, list | tuple) else ())
            if isinstance(ring, list | tuple)
        ]
        if closed:
            found.append(closed)
    if not found:
        raise BadSegment("bad points", f"coordinates are rings of points, got {shown(coordinates)}")
    return found


def _shape(one: Feature, size: tuple[int, int], polygons: list[Rings] | None = None) -> Shape:
    """Return a feature as an object, in pixels.

    Args:
        one: the feature.
        size: (height, width) of the image.
        polygons: its rings in pixels; None: as it has them.
    """
    marks = one.properties
    ignore = bool(flag(marks.get("ignore")))
    label = one.label or (None if ignore else OBJECT)
    found = Shape(label or ANY, one.place, {})
    if ignore or flag(marks.get("iscrowd")):
        found.entry.update(iscrowd=1, ignore=int(ignore))
    if size[0] * size[1] > BY_WINDOW:
        size = (1, 1)  # the builder tells
    try:
        rings = _polygons(one.geometry) if polygons is None else polygons
        box = _rectangle(rings) if marks.get("box") else None
        if box is not None:
            found.entry["bbox"] = box
            return found
        parts = [
            with_holes(_flat(outline), [_flat(hole) for hole in holes], size)
            for outline, *holes in rings
        ]
        found.entry["segmentation"] = united(parts, size) if len(parts) > 1 else parts[0]
    except BadSegment as bad:
        found.entry = {key: found.entry[key] for key in found.entry if key != "segmentation"}
        found.entry["bbox"] = bad
    return found


def _flat(ring: list[Any]) -> list[float]:
    """Return a ring as a flat polygon, without its last point where that closes it."""
    points = ring[:-1] if len(ring) > 3 and ring[0] == ring[-1] else ring
    return [side for point in points for side in point]


def _rectangle(polygons: list[Rings]) -> list[float] | None:
    """Return the box xywh of a lone upright rectangle; None for others."""
    if len(polygons) != 1 or len(polygons[0]) != 1:
        return None
    points = np.array(polygons[0][0])
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    corners = {(x1, y1), (x2, y1), (x2, y2), (x1, y2)}
    return [x1, y1, x2 - x1, y2 - y1] if {(x, y) for x, y in points.tolist()} == corners else None
