"""Writer of GeoJSON, a file for each image: in map coordinates over a GeoTIFF, else in pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.files import write_whole, writing
from maskwright.ops.outlines import Part
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import Names, Outgoing, class_file, copy_image, objects_of, refuse_written
from .frames import MapFrame, frame_of

LISTED = "classes.txt"


@takes_paths
def write_geo(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as GeoJSON files beside copies of the images.

    An object is a feature with the parts and holes of its mask; one without a mask is the rectangle
    of its box, with the property `box`. Over a GeoTIFF the coordinates are those of its projection,
    which `crs` names. Regions that count neither way get the properties `iscrowd` or `ignore`.

    Args:
        dataset: the images and objects; keypoints are not written.
        folder: where SPLIT/ and classes.txt go; other splits may be there already.

    Returns:
        The folder of the split.

    Raises:
        ValueError: if the folder has this split or other classes already, or rasterio, which reads
            the place of a GeoTIFF, is not installed.
    """
    root = Path(folder)
    place = root / dataset.split
    refuse_written(place, dataset)
    names = Names()
    with writing(root):
        place.mkdir(parents=True)
        class_file(dataset, root / LISTED)
        for record, objects in objects_of(dataset):
            stem = names.free(record.path)
            image = copy_image(record, place, stem)
            frame = frame_of(image)
            content: dict[str, Any] = {"type": "FeatureCollection"}
            if frame is not None:
                crs = {"type": "name", "properties": {"name": frame.crs.to_string()}}
                content["crs"] = crs
            content["features"] = [_feature(one, frame) for one in objects]
            write_whole(place / f"{stem}.geojson", json.dumps(content), durable=False)
    return place


def _feature(one: Outgoing, frame: MapFrame | None) -> dict[str, Any]:
    """Return an object as a feature."""
    properties: dict[str, Any] = {}
    if one.label != ANY_CLASS:
        properties["classification"] = {"name": one.name}
    if one.crowd:
        properties["ignore" if one.ignored else "iscrowd"] = 1
    if not one.parts():
        properties["box"] = [*one.box]
    polygons = rings_of(one, frame)
    geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": polygons}
    if len(polygons) == 1:
        geometry = {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def rings_of(one: Outgoing, frame: MapFrame | None) -> list[list[list[list[float]]]]:
    """Return the rings of each part of an object, the outline first; without a mask its box."""
    x1, y1, x2, y2 = one.box
    parts = one.parts() or [Part(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]))]
    return [[_ring(ring, frame) for ring in (p.outline, *p.holes)] for p in parts]


def _ring(points: np.ndarray, frame: MapFrame | None) -> list[list[float]]:
    """Return a ring with its first point once more at its end."""
    placed = points if frame is None else frame.to_map(points.astype(np.float64))
    closed: list[list[float]] = [*placed.tolist(), placed[0].tolist()]
    return closed
