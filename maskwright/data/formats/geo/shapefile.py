"""Writer of shapefiles, one for each image: in map coordinates over a GeoTIFF, else in pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from maskwright.files import writing
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import Names, Outgoing, class_file, copy_image, objects_of, refuse_written
from .frames import frame_of, require_geo
from .write import LISTED, rings_of

LONGEST = 254  # bytes of a text in a shapefile


@takes_paths
def write_shapefile(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as shapefiles beside copies of the images.

    An object is a feature with the parts and holes of its mask, and the fields `class`, `iscrowd`,
    `ignore` and `box`, which is 1 for the rectangle of an object without a mask. Over a GeoTIFF the
    coordinates are those of its projection, which the .prj names.

    Args:
        dataset: the images and objects; keypoints are not written.
        folder: where SPLIT/ and classes.txt go; other splits may be there already.

    Returns:
        The folder of the split.

    Raises:
        ValueError: if the folder has this split or other classes already, the name of a class is
            too long, or the extra geo is not installed.
    """
    root = Path(folder)
    place = root / dataset.split
    refuse_written(place, dataset)
    raw, shapely = require_geo(place, "pyogrio.raw"), require_geo(place, "shapely")
    geometry = require_geo(place, "shapely.geometry")
    for name in dataset.names:
        if len(name.encode()) > LONGEST:
            raise ValueError(
                f"the class name {name[:40]!r}... has more than {LONGEST} bytes, too many for a "
                "shapefile: rename the class"
            )
    names = Names()
    with writing(root):
        place.mkdir(parents=True)
        class_file(dataset, root / LISTED)
        for record, objects in objects_of(dataset):
            stem = names.free(record.path)
            image = copy_image(record, place, stem)
            frame = frame_of(image)
            shapes = [
                geometry.MultiPolygon([(outer, holes) for outer, *holes in rings])
                for rings in (rings_of(one, frame) for one in objects)
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pixels have no projection
                raw.write(
                    place / f"{stem}.shp",
                    shapely.to_wkb(np.array(shapes, object)),
                    _fields(objects),
                    fields=["class", "iscrowd", "ignore", "box"],
                    geometry_type="MultiPolygon",
                    crs=None if frame is None else frame.crs.to_wkt(),
                    driver="ESRI Shapefile",
                    encoding="UTF-8",
                )
    return place


def _fields(objects: list[Outgoing]) -> list[np.ndarray]:
    """Return the columns of the table beside the shapes."""
    names = [None if one.label == ANY_CLASS else one.name for one in objects]
    marks = [
        [int(one.crowd and not one.ignored) for one in objects],
        [int(one.crowd and one.ignored) for one in objects],
        [int(not one.parts()) for one in objects],
    ]
    return [np.array(names, object), *(np.array(own, np.int32) for own in marks)]
